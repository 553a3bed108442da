process RESOLVE_MODEL {
    label 'process_single'
    cache false     // an alias moves

    input:
    tuple val(place), val(name), val(tracking_uri)  // its place among the models, its name in a registry, the server

    output:
    tuple val(place), path('resolved.json'), emit: resolved

    script:
    """
    resolve_model.py --model '${name}' --tracking-uri '${tracking_uri}' --output resolved.json \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """

    stub:
    """
    echo '{"url": "${name}", "sha256": ""}' > resolved.json
    """
}
