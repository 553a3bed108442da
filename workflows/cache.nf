// --model_cache_dir: models kept between runs, by the sha256 of what they hold. Many runs may share it, at once too.

// The model that has this sha256, or came from an archive that has it; null where none is there. trusted: whether it may
// be one made by others.
def keptModel(cache, sha256, trusted) {
    def note = file("${cache}/${sha256}.archive")
    def own  = note.exists() ? note.text.trim() : sha256
    def kept = file("${cache}/${own}")
    return own ==~ /[0-9a-f]{64}/ && isWhole(kept, trusted) ? kept : null
}

// Puts a fetched model there, and which archive it came from: whole or not at all, whatever other runs do meanwhile and
// wherever this one is killed. A run does not fail for it.
def keepModel(model, archives, cache) {
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

// Whether all files are there in their size, for which a manifest alone vouches: FETCH_MODEL reads what they hold.
// foreign: whether a model made by others will do, which has none.
def isWhole(model, foreign) {
    def manifest = model.resolve('manifest.json')
    if (!manifest.exists()) {
        return foreign && model.resolve('MLmodel').exists()
    }
    try {
        def files = new groovy.json.JsonSlurper().parseText(manifest.text).files ?: [:]
        return files.every { name, about -> model.resolve(name).exists() && model.resolve(name).size() == about.size }
    }
    catch (Exception _cut_or_just_replaced) {
        return false
    }
}

// Whether a kept model is a verified one to the byte: the same files, none less and none more.
def holdsSame(kept, model) {
    try {
        return kept.isDirectory() && namesIn(kept) == namesIn(model) && namesIn(model).every { name ->
            java.nio.file.Files.mismatch(kept.resolve(name), model.resolve(name)) == -1
        }
    }
    catch (Exception _just_replaced_or_an_older_java) {
        return false
    }
}

def namesIn(folder) {
    def found = [] as Set
    folder.eachFileRecurse(groovy.io.FileType.FILES) { inside -> found << "${folder.relativize(inside)}".toString() }
    return found
}

def moveOver(made, target) {
    java.nio.file.Files.move(made, target, java.nio.file.StandardCopyOption.ATOMIC_MOVE)
}
