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

// The same of some of a sample's cells; rows is empty where it is all of them.
def shardTask(meta, which, rows) {
    return rows ? "${mappingTask(meta, which)} cells ${rows.start}:${rows.stop}" : mappingTask(meta, which)
}

def shardFile(meta, which, rows) {
    def whole = mappingFile(meta, which)
    return rows ? "${whole - '.mapping.h5ad'}.${rows.start}-${rows.stop}.mapping.h5ad" : whole
}

// An option given for each of several files.
def each(name, files) {
    return [files].flatten().collect { file -> "--${name} ${file}" }.join(' ')
}
