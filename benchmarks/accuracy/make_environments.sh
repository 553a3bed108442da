#!/usr/bin/env bash
# make_environments.sh FOLDER [NAME...]: the peers' environments, each with its pinned packages, made by uv.
# PYTHON names the interpreter (3.12). What cannot be made is said, and the others are made all the same.
set -uo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
folder="${1:?usage: make_environments.sh FOLDER [NAME...]}"
shift
uv="$(command -v uv || echo "$here/../../.tools/uv/bin/uv")"
[ $# -gt 0 ] || set -- celltypist singler symphony popv
failed=0
for name in "$@"; do
    if "$uv" venv --quiet --allow-existing --python "${PYTHON:-3.12}" "$folder/$name" &&
        "$uv" pip install --quiet --python "$folder/$name/bin/python" --requirements "$here/environments/$name.txt"; then
        echo "made $folder/$name"
    else
        echo "$name could not be made: its methods will be listed as failed" >&2
        failed=1
    fi
done
exit $failed
