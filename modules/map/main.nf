include { flags } from '../flags'

process MAP {
    tag "${meta.id}"
    label 'process_medium'
    label 'per_sample'

    input:
    tuple val(meta), path(counts), val(options)
    path(model)

    output:
    tuple val(meta), path("${meta.id}.mapping.h5ad"), emit: mapping

    script:
    """
    map.py --sample '${meta.id}' --counts ${counts} --model ${model} ${flags(options)} \\
        --output ${meta.id}.mapping.h5ad \\
        --cpus ${task.cpus} --pipeline-version ${workflow.manifest.version}
    """

    stub:
    """
    touch ${meta.id}.mapping.h5ad
    """
}
