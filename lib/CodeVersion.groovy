import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path
import java.security.MessageDigest

/**
 * The pipeline's version with a fingerprint of bin/, as in 0.1.0+3f9a0c1d2b4e. It stands in every task's command line,
 * by which -resume knows a task again: one that older code did is done anew, as Nextflow itself looks at the command's
 * own file in bin/ and not at the library behind it.
 */
class CodeVersion {
    private static final Map<String, String> KNOWN = [:]

    static synchronized String of(Path projectDir, String version) {
        return KNOWN.computeIfAbsent("${projectDir} ${version}".toString()) { "${version}+${fingerprint(projectDir.resolve('bin'))}".toString() }
    }

    // By names and contents: a fresh clone of the same code, whose files have other times, has the same.
    private static String fingerprint(Path folder) {
        def digest = MessageDigest.getInstance('SHA-256')
        def named  = [:] as TreeMap<String, Path>
        Files.walk(folder).withCloseable { paths ->
            paths
                .filter { path -> Files.isRegularFile(path) && !(path.fileName.toString() ==~ /\..*|.*\.pyc/) }
                .forEach { path -> named[folder.relativize(path).toString()] = path }
        }
        named.each { name, path ->
            digest.update("${name}\n${Files.size(path)}\n".getBytes(StandardCharsets.UTF_8))
            digest.update(Files.readAllBytes(path))
        }
        return digest.digest().encodeHex().toString().take(12)
    }
}
