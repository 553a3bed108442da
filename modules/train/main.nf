include { flags } from '../flags'

process TRAIN {
    tag "${name}"
    label 'process_high'
    label 'process_gpu'

    input:
    tuple val(name), path(references, stageAs: 'reference?/*'), path(cl_map), val(options)     // cl_map: [] where none is given

    output:
    path("${name}"), emit: model

    script:
    def given = [references].flatten().collect { file -> "--reference ${file}" }.join(' ')
    """
    train.py ${given} --name '${name}' ${cl_map ? "--cl-map ${cl_map}" : ''} ${flags(options)} \\
        --output ${name} \\
        --cpus ${task.cpus} --pipeline-version ${workflow.manifest.version}
    """

    stub:
    """
    mkdir ${name}
    touch ${name}/manifest.json ${name}/card.html
    """
}
