include { flags } from '../flags'

// Runs the code of a model made by others: FETCH_MODEL lets one through only where the user trusts it.
process PREDICT {
    tag "${which.label ? "${meta.id} with ${which.label}" : meta.id}"
    label 'process_medium'
    label 'process_gpu'
    label 'per_sample'

    input:
    tuple val(meta), path(counts), val(options), val(which), path(model)    // which: the model's place among several

    output:
    tuple val(meta), val(which), path("*.mapping.h5ad"), emit: mapping

    script:
    def name = which.label ? "${meta.id}.${which.place}" : meta.id
    """
    predict.py --sample '${meta.id}' --counts ${counts} --model ${model} ${flags(options)} \\
        --output ${name}.mapping.h5ad \\
        --cpus ${task.cpus} --pipeline-version ${workflow.manifest.version}
    """

    stub:
    def name = which.label ? "${meta.id}.${which.place}" : meta.id
    """
    touch ${name}.mapping.h5ad
    """
}
