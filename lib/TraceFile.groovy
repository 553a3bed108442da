import java.nio.file.Path
import nextflow.Global
import nextflow.file.FileHelper

/**
 * Where Nextflow writes which task ended how: as nextflow.config has it, or -with-trace, or a file for -c. No script sees
 * these settings.
 */
class TraceFile {
    /** null where the trace is off. */
    static Path path() {
        def trace = Global.session.config.trace
        return trace?.enabled && trace.file ? FileHelper.asPath("${trace.file}") : null
    }
}
