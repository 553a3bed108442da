include { flags ; shardFile ; shardTask } from '../flags'

process MAP {
    tag "${shardTask(meta, which, rows)}"
    label 'process_medium'
    label 'per_sample'

    input:
    // rows: which cells, as start and stop, and how many parts there are; empty for all cells
    // which: the model's place among several
    tuple val(meta), path(counts), val(options), val(rows), val(which), path(model)

    output:
    tuple val(meta), val(which), val(rows), path("*.mapping.h5ad"), emit: mapping

    script:
    """
    map.py --sample '${meta.id}' --counts ${counts} --model ${model} ${flags(options)} \\
        ${rows ? "--rows ${rows.start}:${rows.stop}" : ''} --output ${shardFile(meta, which, rows)} \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """

    stub:
    """
    touch ${shardFile(meta, which, rows)}
    """
}
