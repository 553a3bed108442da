#!/bin/sh
# install-train.sh INDEX: /opt/venv with the train group. INDEX `locked`: all as uv.lock names it, CUDA included.
# Else PyTorch, in the locked version, is the build that INDEX has, and CUDA's libraries stay away.
set -eu
index="$1"
uv=/opt/uv/bin/uv

if [ "$index" = locked ]; then
    exec "$uv" sync --quiet --frozen --group train --python /usr/local/bin/python
fi

locked="$("$uv" export --quiet --frozen --no-emit-project --no-hashes --no-annotate --no-header --group train | cut -d ' ' -f 1)"
torch="$(printf '%s\n' "$locked" | grep '^torch==')"
options=
for name in $(printf '%s\n' "$locked" | sed -n -E 's/^(torch|triton|(nvidia|cuda)-[a-z0-9-]*)==.*/\1/p'); do
    options="$options --no-install-package $name"
done
# shellcheck disable=SC2086 # one word a name
"$uv" sync --quiet --frozen --group train --python /usr/local/bin/python $options
"$uv" pip install --quiet --no-deps --python /opt/venv/bin/python --index-url "$index" "$torch"
