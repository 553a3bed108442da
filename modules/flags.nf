// Options of a command line from a map that CHECK_INPUT wrote; one that has several values is given for each. Every value
// in it fits a pattern without quotes, so that single quotes hold it.
def flags(options) {
    return options
        .collect { name, value -> [value].flatten().collect { one -> "--${name.replace('_', '-')} '${one}'" }.join(' ') }
        .sort()
        .join(' ')
}

// What a sample's mapping is called, as a task and as a file: with the model's label and place where there are several.
def mappingTask(meta, which) {
    return which.label ? "${meta.id} with ${which.label}" : meta.id
}

def mappingFile(meta, which) {
    return which.label ? "${meta.id}.${which.place}.mapping.h5ad" : "${meta.id}.mapping.h5ad"
}

// An option given for each of several files.
def each(name, files) {
    return [files].flatten().collect { file -> "--${name} ${file}" }.join(' ')
}
