// Options of a command line from a map that CHECK_INPUT wrote; one that has several values is given for each. Every value
// in it fits a pattern without quotes, so that single quotes hold it.
def flags(options) {
    return options
        .collect { name, value -> [value].flatten().collect { one -> "--${name.replace('_', '-')} '${one}'" }.join(' ') }
        .sort()
        .join(' ')
}

// An option given for each of several files.
def each(name, files) {
    return [files].flatten().collect { file -> "--${name} ${file}" }.join(' ')
}
