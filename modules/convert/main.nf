include { flags } from '../flags'

process CONVERT {
    tag "${meta.id}"
    label 'process_low'
    label 'per_sample'

    input:
    // contents: what lies in a folder, of which Nextflow itself looks at the name alone; '' for a file
    tuple val(meta), path(data), val(options), val(contents)

    output:
    tuple val(meta), path("${meta.id}.counts.h5ad") , emit: counts
    tuple val(meta), path("${meta.id}.convert.json"), emit: metrics

    script:
    """
    convert.py --sample '${meta.id}' --input ${data} ${flags(options)} \\
        --output ${meta.id}.counts.h5ad --metrics ${meta.id}.convert.json \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """

    stub:
    """
    touch ${meta.id}.counts.h5ad
    echo '{"sample": "${meta.id}"}' > ${meta.id}.convert.json
    """
}
