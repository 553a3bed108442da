include { each ; flags } from '../flags'

process ANNOTATE {
    tag "${meta.id}"
    label 'process_medium'
    label 'per_sample'

    input:
    // mappings: one a model, in the order of the models
    tuple val(meta), path(counts), path(mappings), val(options)
    path(models, stageAs: 'model?/*')

    output:
    tuple val(meta), path("${meta.id}.annotated.h5ad")    , emit: annotated
    tuple val(meta), path("${meta.id}.predictions.tsv.gz"), emit: predictions
    tuple val(meta), path("${meta.id}.annotation.json")   , emit: summary
    tuple val(meta), path("${meta.id}.annotated.zarr.zip"), emit: zarr, optional: true
    tuple val(meta), path("${meta.id}.annotated.sha256")  , emit: checksums

    script:
    """
    annotate.py --sample '${meta.id}' --counts ${counts} ${each('mapping', mappings)} ${each('model', models)} \\
        ${flags(options)} \\
        --output ${meta.id}.annotated.h5ad --predictions ${meta.id}.predictions.tsv.gz \\
        --summary ${meta.id}.annotation.json \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    checksums.py --output ${meta.id}.annotated.sha256 ${meta.id}.annotated.h5ad ${meta.id}.predictions.tsv.gz ${options.zarr == 'true' ? "${meta.id}.annotated.zarr.zip" : ''}
    """

    stub:
    """
    touch ${meta.id}.annotated.h5ad ${meta.id}.predictions.tsv.gz ${meta.id}.annotated.sha256
    echo '{"sample": "${meta.id}"}' > ${meta.id}.annotation.json
    """
}
