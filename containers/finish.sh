#!/bin/sh
# finish.sh VENV: what a virtual environment of an image has besides its packages.
set -eu
venv="$1"
packages="$(echo "$venv"/lib/python3*/site-packages)"

if [ "$venv" = /opt/venv ]; then
    cp /opt/venv-extra/bin/* "$venv/bin/"
    cp /opt/venv-extra/site-packages/* "$packages/"
    chmod 755 "$venv/bin/cellscribe-check" "$venv/bin/cellscribe-sbom"
fi

# Packages' own tests: 80 MB.
find "$packages" -type d -name tests -prune -exec rm -r {} +

# Whole seconds, always the same: numba takes up compiled code only where its source has not changed, and layers of an
# image lose the fractions on their way through a registry.
find "$venv" -exec touch --no-dereference --date=@1700000000 {} +

# Tasks write no bytecode, so the images bring it. Never checked against the source, which nobody changes.
python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages"
