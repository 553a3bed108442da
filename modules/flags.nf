// Options of a command line from a map that CHECK_INPUT wrote. Every value in it fits a pattern without quotes,
// so that single quotes hold it.
def flags(options) {
    return options.collect { name, value -> "--${name.replace('_', '-')} '${value}'" }.sort().join(' ')
}
