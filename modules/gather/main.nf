include { each ; mappingFile ; mappingTask } from '../flags'

// Joins what MAP made of the shards of a sample.
process GATHER {
    tag "${mappingTask(meta, which)}"
    label 'process_single'
    label 'per_sample'

    input:
    tuple val(meta), val(which), path(parts, stageAs: 'parts/*')

    output:
    tuple val(meta), val(which), path("*.mapping.h5ad"), emit: mapping

    script:
    """
    gather.py --sample '${meta.id}' ${each('part', parts)} \\
        --output ${mappingFile(meta, which)} \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """

    stub:
    """
    touch ${mappingFile(meta, which)}
    """
}
