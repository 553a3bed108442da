include { flags } from '../flags'

process CONVERT {
    tag "${meta.id}"
    label 'process_low'
    label 'per_sample'
    cache 'lenient' // a folder that a run was started in changes with each run; what it holds is in contents

    input:
    // contents: what tells a file, or what lies in a folder, from what it was before; '' of a web address
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
