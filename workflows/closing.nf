include { allFailures ; failureTable } from './failures'

// What the run says at its end, and summary/failures.tsv.

def closeRun(outdir, mode, on_error) {
    def trace    = TraceFile.path()
    def failures = allFailures(trace)
    def list     = writeList(file("${outdir}/summary/failures.tsv"), failures)
    def whole    = workflow.success && !failures && !workflow.stats.ignoredCount
    println(whole ? doneText(outdir, mode) : failedText(failures, list, on_error))
    if (outdir.contains('://') && trace?.exists()) {
        trace.copyTo(file("${outdir}/pipeline_info/trace.txt"))
    }
}

// Where the list is, in words; the disk may be full.
def writeList(table, failures) {
    try {
        table.parent.mkdirs()
        table.text = failureTable(failures)
        return "The list: ${table}"
    }
    catch (Exception error) {
        try {
            table.delete()
        }
        catch (Exception _gone) {
            // A bucket that cannot be written to.
        }
        return "The list could not be written: ${error.message}"
    }
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

def failedText(failures, list, on_error) {
    if (!failures) {
        return """
The run did not end well: ${workflow.errorMessage ?: 'the reason stands above'}
  Nextflow's own words are in .nextflow.log.${TraceFile.path() ? '' : '\n  What failed is not listed, as the trace is off (trace.enabled, in a file for -c).'}
  When mended (room made, a right given), run again with -resume: what is done is not done again.
"""
    }
    def blocks = failures.collect { failure ->
        def who = failure.sample ? "${failure.sample}: " : ''
        def lines = failure.message.readLines().collect { line -> "    ${line}" }.join('\n')
        "  ${who}${failure.step} ended with ${failure.exit} (${failure.meaning})\n${lines}\n    Files: ${failure.workdir}"
    }
    def others = failures.every { failure -> failure.sample } ? " ${whatBecame(on_error)}" : ''
    // Nextflow calls a run a success whose failures were passed over, whatever it ends with.
    def passed = on_error == 'ignore' && workflow.success ? '\n  The exit code is 0 all the same, as --on_error ignore asks.' : ''
    return """
${failures.size()} failed.${others}
${blocks.join('\n')}
  ${list}
  Exit codes: docs/errors.md.${passed}
  When mended, run again with -resume: what is done is not done again.
"""
}

def whatBecame(on_error) {
    if (on_error == 'stop') {
        return 'The run was stopped at once, as --on_error stop asks: samples that are not listed may not be finished.'
    }
    return workflow.errorReport
        ? 'The run was ended early (the reason stands above): samples that are not listed may not be finished.'
        : 'Samples that are not listed went on.'
}
