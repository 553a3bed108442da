include { flags } from '../flags'

process QC {
    tag "${meta.id}"
    label 'process_medium'
    label 'per_sample'

    input:
    tuple val(meta), path(counts), val(options)

    output:
    tuple val(meta), path("${meta.id}.filtered.h5ad") , emit: filtered
    tuple val(meta), path("${meta.id}.qc.json")       , emit: metrics
    tuple val(meta), path("${meta.id}.removed.tsv.gz"), emit: removed
    tuple val(meta), path("${meta.id}.qc.sha256")     , emit: checksums
    tuple val(meta), path("${meta.id}.qc_violin.png"), path("${meta.id}.qc_knee.png"), path("${meta.id}.qc_scatter.png"), emit: figures

    script:
    """
    qc.py --sample '${meta.id}' --counts ${counts} ${flags(options)} \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    checksums.py --output ${meta.id}.qc.sha256 ${meta.id}.qc.json ${meta.id}.removed.tsv.gz
    """

    stub:
    """
    touch ${meta.id}.filtered.h5ad ${meta.id}.removed.tsv.gz ${meta.id}.qc.sha256
    touch ${meta.id}.qc_violin.png ${meta.id}.qc_knee.png ${meta.id}.qc_scatter.png
    echo '{"sample": "${meta.id}", "n_cells_after": 100}' > ${meta.id}.qc.json
    """
}
