include { each ; flags } from '../flags'

process TRAIN {
    tag "${name}"
    label 'process_high'
    label 'process_gpu'

    input:
    // label_csvs, label_map, cl_map: [] where none is given. No model's name starts as these folders' do.
    tuple val(name), path(references, stageAs: '_reference?/*'), path(label_csvs, stageAs: '_labels?/*'), path(label_map, stageAs: '_label_map/*'), path(cl_map, stageAs: '_cl_map/*'), val(options)

    output:
    path("${name}"), emit: model

    script:
    """
    train.py ${each('reference', references)} ${each('label-csv', label_csvs)} ${each('label-map', label_map)} --name '${name}' ${each('cl-map', cl_map)} ${flags(options)} \\
        --output ${name} \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """

    stub:
    """
    mkdir ${name}
    touch ${name}/manifest.json ${name}/card.html
    """
}
