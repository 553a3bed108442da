include { flags } from '../flags'

// A file of several samples as one file for each.
process SPLIT {
    tag "${meta.id}"
    label 'process_low'
    label 'per_sample'
    cache 'lenient' // as CONVERT, which a file of one sample goes to at once

    input:
    // contents: as CONVERT takes them
    tuple val(meta), path(data), val(options), val(contents)

    output:
    tuple val(meta), path('parts/split.json'), path('parts/*.h5ad'), emit: samples

    script:
    """
    mkdir parts
    split.py --sample '${meta.id}' --input ${data} ${flags(options)} \\
        --output parts/split.json \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """

    stub:
    """
    mkdir parts
    touch parts/${meta.id}_1.h5ad
    echo '[{"sample": "${meta.id}_1", "value": "1", "file": "${meta.id}_1.h5ad", "n_cells": 1}]' > parts/split.json
    """
}
