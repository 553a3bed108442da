process FETCH_MODEL {
    label 'process_single'

    input:
    tuple path(source), val(sha256), val(keep)      // keep: whether the model goes to --model_cache_dir

    output:
    path('models/*')  , emit: model
    path('archives/*'), emit: archive, optional: true   // <sha256 of the archive>.archive: the model's own

    script:
    """
    fetch_model.py --model ${source} ${sha256 ? "--sha256 ${sha256}" : ''} \\
        --output-folder models --archives-folder archives \\
        --cpus ${task.cpus} --pipeline-version ${workflow.manifest.version}
    """

    stub:
    """
    mkdir -p models/0000
    touch models/0000/manifest.json
    """
}
