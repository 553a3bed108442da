include { flags ; mappingFile ; mappingTask } from '../flags'

// Runs the code of a model made by others: FETCH_MODEL lets one through only where the user trusts it.
process PREDICT {
    tag "${mappingTask(meta, which)}"
    label 'process_medium'
    label 'process_gpu'
    label 'per_sample'

    input:
    tuple val(meta), path(counts), val(options), val(which), path(model)    // which: the model's place among several

    output:
    tuple val(meta), val(which), path("*.mapping.h5ad"), emit: mapping

    script:
    """
    predict.py --sample '${meta.id}' --counts ${counts} --model ${model} ${flags(options)} \\
        --output ${mappingFile(meta, which)} \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """

    stub:
    """
    touch ${mappingFile(meta, which)}
    """
}
