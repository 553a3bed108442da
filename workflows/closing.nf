// What the run says at its end, and summary/failures.tsv.

// The meaning of an exit code: the commands' own (bin/cellscribe/errors.py, held equal by a test), then the machine's.
def meanings() {
    return [
        '2'  : 'wrong usage of a command',
        '3'  : 'bad input',
        '4'  : 'model and data do not fit',
        '5'  : 'nothing left after quality control',
        '6'  : 'model or reference could not be fetched or verified',
        '7'  : 'output did not pass its own check',
        '70' : 'an error inside cellscribe',
        '104': 'lost connection',
        '127': 'a command was not found',
        '137': 'killed, mostly for memory',
        '143': 'stopped by the scheduler',
        '175': 'lost host',
    ]
}

def closeRun(outdir, mode) {
    def trace    = traceFile(outdir)
    def failures = failedTasks(trace, workflow.stats.failedCount).collect { row ->
        [
            sample : sampleOf(row),
            step   : stepOf(row),
            exit   : row.exit,
            meaning: meanings().getOrDefault(row.exit, 'stopped by the machine'),
            message: errorText(row.workdir, row.exit),
            workdir: row.workdir,
        ]
    }
    writeFailures(file("${outdir}/summary/failures.tsv"), failures)
    if (outdir.contains('://') && trace.exists()) {
        trace.copyTo(file("${outdir}/pipeline_info/trace.txt"))
    }
    def whole = workflow.success && !failures
    println(whole ? doneText(outdir, mode) : failedText(outdir, failures))
}

def stepOf(row) {
    return row.process.tokenize(':').last()
}

// '' for what is no sample's. With several models, MAP is tagged `<sample> with <model>`; FETCH_MODEL is
// tagged with the model or its place.
def sampleOf(row) {
    return row.tag == '-' || stepOf(row).startsWith('FETCH_') ? '' : row.tag.tokenize(' ').first()
}

// Where nextflow.config has the trace written: beside the run, where the results go to a bucket.
def traceFile(outdir) {
    def beside = "${workflow.launchDir}/.nextflow/trace-${outdir.replaceAll('[^A-Za-z0-9]+', '-')}.txt"
    return file(outdir.contains('://') ? beside : "${outdir}/pipeline_info/trace.txt")
}

// The last try of each task that never ended well. The trace is written by a thread of its own: it is given time to
// show as many failures as were counted.
def failedTasks(trace, expected) {
    def rows = []
    (1..20).find { _round ->
        rows = readTrace(trace)
        def seen = rows.count { row -> row.status == 'FAILED' }
        if (seen < expected) {
            sleep(100)
        }
        seen >= expected
    }
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
    return lines.drop(1).collect { line -> [header, line.split('\t').toList()].transpose().collectEntries() }
}

// The message of a task: from its last line that starts with `error:`, and for an error inside cellscribe the line
// before it, which names the exception; else its last lines.
def errorText(workdir, exit_code) {
    def log = file("${workdir}/.command.err")
    if (!log.exists()) {
        return ''
    }
    def lines = log.readLines().findAll { line -> line.trim() }
    def found = lines.findLastIndexOf { line -> line.startsWith('error:') }
    def start = exit_code == '70' ? Math.max(found - 1, 0) : found
    return (found < 0 ? lines.takeRight(3) : lines.drop(start)).join('\n').replaceFirst('^error: ', '')
}

// Written anew by each run, with no row where nothing failed.
def writeFailures(target, failures) {
    def rows = failures.collect { failure ->
        [failure.sample, failure.step, failure.exit, failure.meaning, asCell(oneLine(failure.message))].join('\t') + '\n'
    }
    target.parent.mkdirs()
    target.text = 'sample\tstep\texit_code\tmeaning\tmessage\n' + rows.join('')
}

// Text that no spreadsheet runs as a formula, as io.py's as_cell.
def asCell(text) {
    return text ==~ /(?s)[=+\-@＝＋－＠].*/ ? "'${text}" : text
}

def oneLine(text) {
    return text.replaceAll('\\s+', ' ').trim()
}

def doneText(outdir, mode) {
    if (mode == 'train') {
        return "\nDone. The model, with its card:  ${outdir}/models/\n"
    }
    if (mode == 'reference') {
        return "\nDone. Labelled cells, for --mode train:  ${outdir}/reference/reference.h5ad\n"
    }
    return """
Done.
  cells, tables, pages  ${outdir}/samples/<sample>/
  the whole run         ${outdir}/summary/multiqc_report.html
  one row a sample      ${outdir}/summary/summary.tsv
"""
}

def failedText(outdir, failures) {
    if (!failures) {
        return "\nThe run did not end well. The reason stands above and in .nextflow.log.\n"
    }
    def blocks = failures.collect { failure ->
        def who = failure.sample ? "${failure.sample}: " : ''
        def lines = failure.message.readLines().collect { line -> "    ${line}" }.join('\n')
        "  ${who}${failure.step} ended with ${failure.exit} (${failure.meaning})\n${lines}\n    Files: ${failure.workdir}"
    }
    def others = failures.every { failure -> failure.sample } ? ' Samples that are not listed went on.' : ''
    return """
${failures.size()} failed.${others}
${blocks.join('\n')}
  The list: ${outdir}/summary/failures.tsv. Exit codes: docs/errors.md.
  When mended, run again with -resume: what is done is not done again.
"""
}
