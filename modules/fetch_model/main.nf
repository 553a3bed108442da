process FETCH_MODEL {
    tag "${which.label ?: which.place}"
    label 'process_single'

    input:
    // which: the model's place among several, its label, and what lies in its folder (modelContents)
    // registered: its url and tracking_uri where it is in an MLflow registry, and source is []; else empty
    // keep: whether the model goes to --model_cache_dir
    // trusted: whether it may be one made by others, whose code is run later
    // source: in a folder of its own: one called `models` would else be what this writes to
    tuple val(which), path(source, stageAs: 'given/*'), val(registered), val(sha256), val(keep), val(trusted)

    output:
    // archives: <sha256 of the archive>.archive, which holds the model's own, where it came from one
    tuple val(which), path('models/*'), val(keep), path('archives/*', arity: '0..*'), emit: model

    script:
    def place = registered ? "--model '${registered.url}' --tracking-uri '${registered.tracking_uri}'" : "--model ${source}"
    """
    fetch_model.py ${place} ${sha256 ? "--sha256 ${sha256}" : ''} \\
        ${trusted ? '--trust-model-code' : ''} \\
        --output-folder models --archives-folder archives \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """

    stub:
    """
    mkdir -p models/000${which.place}
    touch models/000${which.place}/manifest.json
    """
}
