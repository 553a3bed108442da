include { filesIn ; isLocal ; keptModel } from './cache'

// From what CHECK_INPUT wrote to files that Nextflow can stage.

def readJson(json) {
    return new groovy.json.JsonSlurperClassic().parseText(json.text)
}

// Parameters as they are typed: a file for -c may say `max_memory = 100.GB`, which JSON would write as an object.
def inWords(given) {
    return given.collectEntries { name, value -> [name, value instanceof MemoryUnit || value instanceof Duration ? "${value}" : value] }
}

// JSON without the passwords and signatures of addresses in it, as bin/cellscribe/places.py has it (held equal by a test),
// and without the values of parameters that are called so, which there are none of.
def withoutSecrets(text) {
    def user   = '(?<=://)([^/\\s\'"]*|[^/@:\\s\'"]+:[^/@\\s\'"]*[^0-9/@\\s\'"][^\\s\'"]*)@'
    def signed = '(?i)([?&]([^=&#\\s\'"]*(signature|token|secret|passw(or)?d|pwd|credentials?|access_?key(_?id)?|api_?key|private_link)|([^=&#\\s\'"]*[-_.])?(sig|key|auth))=)[^&#\\s\'",]*'
    def named  = '(?i)("[^"]*(token|secret|passw|credential|access_?key|api_?key)[^"]*":)"[^"]*"'
    return text.replaceAll(user, '***@').replaceAll(signed, '$1***').replaceAll(named, '$1"***"')
}

// A file that a parameter names; null where it is not given, or its address holds a password: CHECK_INPUT says so.
def namedFile(given) {
    def text = given ? "${given}".trim() : ''
    return text && withoutSecrets(text) == text ? file(text, glob: false) : null
}

// One map a sample, its data and its known labels files; null where they are nowhere, [] where none were given.
def readSamples(json) {
    return readJson(json).collect { sample ->
        def truth = sample.truth_csvs ? firstThere(sample.truth_csvs) : []
        sample + [meta: [id: sample.id], data: firstThere(sample.paths), truth: truth]
    }
}

// The samples of a file that SPLIT parted, as CHECK_INPUT would have written them. Their counts are in X now, wherever they were.
def withParts(samples, parts) {
    return samples.collectMany { sample -> parts[sample.id] ? parts[sample.id].collect { part -> partOf(sample, part) } : [sample] }
}

def partOf(sample, part) {
    def options = [batch: part.sample] + sample.convert.findAll { name, _value -> name != 'counts_layer' }
    return sample + [id: part.sample, split: null, convert: options]
}

// The same ready to run. files: what SPLIT wrote, one file or several.
def partsOf(sample, parts, files) {
    def named = [files].flatten().collectEntries { place -> [(place.name): place] }
    return parts.collect { part -> partOf(sample, part) + [meta: [id: part.sample], data: named[part.file]] }
}

def firstThere(paths) {
    return paths.collect { path -> file(path, glob: false) }.find { place -> place.exists() }
}

// What to say of samples that are nowhere, all at once; '' where none is. A task may not see the paths (a container,
// a bucket), so that CHECK_INPUT cannot tell.
def missingPaths(samples) {
    def missing = samples.findAll { sample -> !sample.data || sample.truth == null }
    def lines = missing.collect { sample ->
        "  - sample '${sample.id}': ${(sample.data ? sample.truth_csvs : sample.paths).join(', nor ')}"
    }
    def counted = "${missing.size()} of ${samples.size()} samples have a path that does not exist:"
    return missing ? "${counted}\n${lines.join('\n')}" : ''
}

// What lies in a sample's folder, or how large and old its file is, as one word; '' of a web address. With -resume a task
// of a folder is else done again where the folder itself has changed, as by a log that a run leaves in it, and not where a
// file in it has. written: folders that the run writes to; what is in them changes with each run, and is no sample's.
def contentsOf(place, written) {
    // Six folders deep: of `--input ~` the whole disk would else be looked through.
    if (place.isDirectory()) {
        return asWord(place, 6, written, '(?i).*\\.(h5|h5ad|mtx|tsv|csv|json)(\\.gz)?')
    }
    // A server may say another date with each request.
    return place.scheme in ['http', 'https', 'ftp'] ? '' : "${place.size()} ${place.lastModified()}".toString().md5()
}

// The same of a model. The manifest of one of ours has the sha256 of every file, so that a copy of it, as in a fresh clone
// of this project, is the same model. Of one made by others any file may be code.
def modelContents(place) {
    if (!place.isDirectory()) {
        return ''
    }
    try {
        return isOurs(place) ? place.resolve('manifest.json').bytes.md5() : asWord(place, 20, [], '(?s).*')
    }
    catch (Exception _unreadable) {
        // FETCH_MODEL will say so, with the model's name.
        return 'unreadable'
    }
}

def asWord(place, depth, left_out, names) {
    try {
        def root  = isLocal(place) ? place.toRealPath() : place
        def files = isLocal(place) ? filesBelow(root, depth, left_out.collect { folder -> folder.exists() ? folder.toRealPath() : folder }) : filesIn(root)
        def lines = files
            .findAll { inside -> inside.name ==~ names }
            .collect { inside -> "${root.relativize(inside)} ${inside.size()} ${inside.lastModified()}".toString() }
        return lines.sort().join('\n').md5()
    }
    catch (Exception _unreadable_or_just_removed) {
        return 'unreadable'
    }
}

// Links to folders are not followed: a folder that a run was started in holds its tasks, whose links lead back to it. What
// cannot be read is nothing.
def filesBelow(folder, depth, left_out) {
    if (depth == 0) {
        return []
    }
    try {
        return folder.listFiles().toList().collectMany { inside ->
            if (!inside.isDirectory()) {
                return inside.exists() ? [inside] : []
            }
            def other = java.nio.file.Files.isSymbolicLink(inside) || left_out.contains(inside) || inside.name == '.nextflow'
            other ? [] : filesBelow(inside, depth - 1, left_out)
        }
    }
    catch (Exception _no_right) {
        return []
    }
}

// The folders of this machine that a run writes to.
def writtenTo(params) {
    def named = [params.outdir, params.model_cache_dir].findAll { folder -> !"${folder}".contains('://') }
    return [workflow.workDir].findAll { folder -> isLocal(folder) } + named.collect { folder -> file("${folder}", glob: false) }
}

// What FETCH_MODEL takes: which model it is, where it lies or is registered, its sha256, whether to keep it, and whether to
// trust its code. A model in the cache is not fetched again.
def modelSource(model, params) {
    // The same keys whichever way it comes: with -resume a model that was fetched comes from the cache.
    def which   = [place: model.place, label: model.label, contents: '']
    def cache   = params.use_model_cache
    def trusted = params.trust_model_code
    def kept    = cache && model.sha256 ? keptModel("${params.model_cache_dir}", model.sha256, trusted) : null
    if (kept) {
        return tuple(which, kept, [:], kept.name, false, trusted)
    }
    if (model.tracking_uri) {
        return tuple(which, [], [url: model.url, tracking_uri: model.tracking_uri], model.sha256, cache, trusted)
    }
    def source = file(model.source, glob: false, checkIfExists: true)
    return tuple(which + [contents: modelContents(source)], source, [:], model.sha256, cache && model.remote, trusted)
}

// Which rows each of a sample's MAPs takes: [[:]] for one MAP of all; else parts of `cells` rows, half-open, and how many.
def shards(qc, cells) {
    def n_cells = cells ? readJson(qc).n_cells_after : 0
    def parts   = cells ? (n_cells + cells - 1).intdiv(cells) : 1
    return parts > 1
        ? (0..<parts).collect { part -> [start: part * cells, stop: Math.min((part + 1) * cells, n_cells), parts: parts] }
        : [[:]]
}

// The model with the version that a registry's name means, from resolved.json.
def withResolved(model, json) {
    def found = readJson(json)
    return model + [url: found.url, sha256: model.sha256 ?: found.sha256, tagged: found.sha256]
}

// What to say of a version that is tagged with another sha256 than the one asked for; '' where it is not.
def otherVersion(model) {
    return model.tagged && model.tagged != model.sha256
        ? "${model.url} has the sha256 ${model.tagged}, and not ${model.sha256} as was asked for (--model_sha256, or the catalogue): name the version that has it, or correct the sha256."
        : ''
}

// Whether a model is cellscribe's own, which MAP reads; the code of any other is run by PREDICT.
def isOurs(model) {
    return model.resolve('manifest.json').exists()
}

// Parts of a sample by their rows: [[first row, file], ...] in any order.
def inRowOrder(parts) {
    return parts.sort { a, b -> a[0] <=> b[0] }.collect { pair -> pair[1] }
}

// Files of several models in the models' order: [[which, file], ...] in any order.
def inOrder(files) {
    return files.sort { a, b -> a[0].place <=> b[0].place }.collect { pair -> pair[1] }
}
