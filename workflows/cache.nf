// --model_cache_dir: models kept between runs, by the sha256 of what they hold. Many runs may share it, at once too.

// The model that has this sha256, or came from an archive that has it; null where none is there. trusted: whether it may
// be one made by others.
def keptModel(cache, sha256, trusted) {
    def note = file("${cache}/${sha256}.archive")
    def own  = note.exists() ? note.text.trim() : sha256
    def kept = file("${cache}/${own}")
    return own ==~ /[0-9a-f]{64}/ && isWhole(kept, own, trusted) ? kept : null
}

// Puts a fetched model there, and which archive it came from: whole or not at all, whatever other runs do meanwhile and
// wherever this one is killed. A run does not fail for it.
def keepModel(model, archives, cache) {
    removeAbandoned(file(cache))
    def place   = file("${cache}/${model.name}")
    def half    = file("${cache}/.keeping-${java.util.UUID.randomUUID()}")
    try {
        half.mkdirs()
        archives.each { note ->
            note.copyTo(half.resolve(note.name))
            moveOver(half.resolve(note.name), file("${cache}/${note.name}"))
        }
        if (!holdsSame(place, model)) {
            model.copyTo(half.resolve(model.name))
            if (place.exists()) {
                java.nio.file.Files.move(place, half.resolve('broken'))
            }
            java.nio.file.Files.move(half.resolve(model.name), place)
        }
    }
    catch (Exception error) {
        // Else another run was faster.
        if (!holdsSame(place, model)) {
            log.warn("--model_cache_dir: the model is not kept in ${cache}, and the run goes on without that: ${error}")
        }
    }
    half.deleteDir()
}

// The model where it is kept, if that is the verified one to the byte; else the model itself. With -resume it is there from
// the start, and the steps would be done again for a model in another place. Not where tasks take their files from another
// file system, a bucket: each run would upload it.
def keptOrItself(model, cache) {
    def kept = file("${cache}/${model.name}")
    return kept.fileSystem == model.fileSystem && holdsSame(kept, model) ? kept : model
}

// Halves that killed runs left, a day ago or more.
def removeAbandoned(cache) {
    try {
        cache.listFiles()
            .findAll { left -> left.name.startsWith('.keeping-') && System.currentTimeMillis() - left.lastModified() > 24 * 3600 * 1000 }
            .each { left -> left.deleteDir() }
    }
    catch (Exception _none_or_not_ours) {
        return
    }
}

// Whether every file is what the manifest says, and the manifest what the model is called by: what is not is fetched anew,
// as FETCH_MODEL, which verifies it, would end each run on it. In a bucket, which writes a file whole or not at all, sizes do:
// to read them all takes a download. foreign: whether a model made by others will do, which has no manifest.
def isWhole(model, sha256, foreign) {
    def manifest = model.resolve('manifest.json')
    if (!manifest.exists()) {
        return foreign && model.resolve('MLmodel').exists()
    }
    try {
        def read  = isLocal(model)
        def files = new groovy.json.JsonSlurper().parseText(manifest.text).files ?: [:]
        return (!read || sha256Of(manifest) == sha256) && files.every { name, about ->
            def inside = model.resolve(name)
            inside.exists() && inside.size() == about.size && (!read || sha256Of(inside) == about.sha256)
        }
    }
    catch (Exception _cut_or_just_replaced) {
        return false
    }
}

def sha256Of(place) {
    def digest = java.security.MessageDigest.getInstance('SHA-256')
    place.eachByte(1024 * 1024) { bytes, n -> digest.update(bytes, 0, n) }
    return digest.digest().encodeHex().toString()
}

// Whether a path is one of this machine's own.
def isLocal(place) {
    return place.fileSystem == java.nio.file.FileSystems.default
}

// Whether a kept model is a verified one to the byte: the same files, none less and none more.
def holdsSame(kept, model) {
    try {
        def names = namesIn(model)
        return kept.isDirectory() && namesIn(kept) == names && names.every { name ->
            java.nio.file.Files.mismatch(kept.resolve(name), model.resolve(name)) == -1
        }
    }
    catch (Exception _just_replaced_or_an_older_java) {
        return false
    }
}

def namesIn(folder) {
    return filesIn(folder).collect { inside -> "${folder.relativize(inside)}".toString() }.toSet()
}

def filesIn(folder) {
    def found = []
    folder.eachFileRecurse(groovy.io.FileType.FILES) { inside -> found << inside }
    return found
}

def moveOver(made, target) {
    java.nio.file.Files.move(made, target, java.nio.file.StandardCopyOption.ATOMIC_MOVE)
}
