#!/bin/bash
# warm.sh FOLDER: runs the steps on the demo sample, and leaves in FOLDER what numba and matplotlib keep.
set -euo pipefail
export NUMBA_CACHE_DIR="$1/numba" MPLCONFIGDIR="$1/matplotlib"
export PATH="/warm/bin:$PATH"
mkdir -p "$1" /tmp/warm
cd /tmp/warm
model=/warm/assets/models/pbmc

convert.py --sample demo --input /warm/assets/demo/filtered_feature_bc_matrix.h5 --output counts.h5ad --metrics convert.json
qc.py --sample demo --counts counts.h5ad
map.py --sample demo --counts demo.filtered.h5ad --model "$model" --output mapping.h5ad
annotate.py --sample demo --counts demo.filtered.h5ad --mapping mapping.h5ad --model "$model" \
    --output annotated.h5ad --predictions predictions.tsv.gz --summary annotation.json
report.py --sample demo --annotated annotated.h5ad --convert convert.json --qc demo.qc.json --annotation annotation.json \
    --qc-violin demo.qc_violin.png --qc-knee demo.qc_knee.png --qc-scatter demo.qc_scatter.png \
    --model "$model" --output report.html --markers markers.tsv --differential de.tsv.gz --clusters clusters.tsv \
    --verdicts verdicts.tsv --verdict-summary verdicts.json --truth truth.tsv --truth-summary truth.json
cd /
rm -rf /tmp/warm
chmod -R a+rX "$1"
