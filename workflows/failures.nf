// What failed in a run: from its trace, and from what the tasks wrote.

// The meaning of an exit code: the commands' own (bin/cellscribe/errors.py, held equal by a test), then the machine's.
def meanings() {
    return [
        '2'  : 'wrong usage of a command',
        '3'  : 'bad input',
        '4'  : 'model and data do not fit',
        '5'  : 'nothing left after quality control',
        '6'  : 'model or reference could not be fetched or verified',
        '70' : 'an error inside cellscribe, or of the machine',
        '104': 'lost connection',
        '127': 'a command was not found',
        '137': 'killed, mostly for memory',
        '143': 'stopped by the scheduler',
        '175': 'lost host',
    ]
}

// The failures of a run that has ended.
def allFailures(trace) {
    return explained(trace, { rows -> rows.count { row -> row.status == 'FAILED' } >= workflow.stats.failedCount })
}

// Those of samples, once every task of each has ended. metrics: the files that the samples' steps left. A sample without
// that of REPORT, the last step, has failed; of another all steps ended well, if not at once, but for CURATE, which REPORT
// does without.
def sampleFailures(trace, samples, metrics) {
    def left    = metrics.collect { json -> json.name }
    def missing = samples.findAll { sample -> !left.contains("${sample}.verdicts.json".toString()) }
    def whole   = { rows -> lastFailures(rows).collect { row -> sampleOf(row) }.containsAll(missing) }
    return explained(trace, whole).findAll { failure ->
        failure.sample && (missing.contains(failure.sample) || failure.step == 'CURATE')
    }
}

def explained(trace, whole) {
    return failedTasks(trace, whole).collect { row ->
        [
            sample : sampleOf(row),
            step   : stepOf(row),
            exit   : row.exit,
            meaning: meanings().getOrDefault(row.exit, 'stopped by the machine'),
            message: errorText(row.workdir),
            workdir: row.workdir,
        ]
    }
}

def stepOf(row) {
    return row.process.tokenize(':').last()
}

// '' for what is no sample's. With several models, MAP is tagged `<sample> with <model>`; FETCH_MODEL and TRAIN are
// tagged with the model or its place.
def sampleOf(row) {
    def isOfModel = stepOf(row) == 'TRAIN' || stepOf(row).startsWith('FETCH_')
    return row.tag == '-' || isOfModel ? '' : row.tag.tokenize(' ').first()
}

// The tasks that never ended well. The trace is written by a thread of its own: it is given time to be `whole`. trace: null
// where there is none.
def failedTasks(trace, whole) {
    if (!trace) {
        return []
    }
    def rows = []
    (1..20).find { _round ->
        rows = readTrace(trace)
        def enough = whole.call(rows)
        if (!enough) {
            sleep(100)
        }
        enough
    }
    return lastFailures(rows)
}

// The last try of each task that never ended well.
def lastFailures(rows) {
    def ended = rows.findAll { row -> row.status in ['COMPLETED', 'CACHED'] }.collect { row -> row.name }
    return rows
        .findAll { row -> row.status == 'FAILED' && !(row.name in ended) }
        .groupBy { row -> row.name }
        .collect { _name, tries -> tries.last() }
        .sort { row -> row.name }
}

def readTrace(trace) {
    if (!trace.exists()) {
        return []
    }
    def lines  = trace.readLines()
    def header = lines ? lines.head().tokenize('\t') : []
    // A file for -c may have given it other columns: then it tells nothing here.
    if (!header.containsAll(['name', 'process', 'tag', 'status', 'exit', 'workdir'])) {
        return []
    }
    return lines.drop(1).collect { line -> [header, line.split('\t').toList()].transpose().collectEntries() }
}

// The message of a task: from its last line that starts with `error:`, and for a bug of ours the line before it, which
// names the exception; else its last lines.
def errorText(workdir) {
    def log = file("${workdir}/.command.err")
    if (!log.exists()) {
        return ''
    }
    // Whatever stands in it, the code of others may have written: no byte ends the run here.
    def lines = new String(log.bytes, 'UTF-8').readLines().findAll { line -> line.trim() }
    def found = lines.findLastIndexOf { line -> line.startsWith('error:') }
    def start = found > 0 && lines[found].startsWith('error: this is a bug') ? found - 1 : found
    return (found < 0 ? lines.takeRight(3) : lines.drop(start)).join('\n').replaceFirst('^error: ', '')
}

// As a table; with no row where nothing failed.
def failureTable(failures) {
    def rows = failures.collect { failure ->
        [failure.sample, failure.step, failure.exit, failure.meaning, asCell(oneLine(failure.message))].join('\t') + '\n'
    }
    return 'sample\tstep\texit_code\tmeaning\tmessage\n' + rows.join('')
}

// Text that no spreadsheet runs as a formula, as io.py's as_cell.
def asCell(text) {
    return text ==~ /(?s)[=+\-@＝＋－＠].*/ ? "'${text}" : text
}

// A line that ends without a stop gets one.
def oneLine(text) {
    return text.trim().replaceAll('([^\\s.,:;!?])[ \\t]*\\R\\s*', '$1. ').replaceAll('\\s+', ' ')
}
