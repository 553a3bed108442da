process CHECK_INPUT {
    label 'process_single'

    input:
    path(launch)        // launch.json: parameters and folders, as Nextflow knows them
    path(sheet)         // [] where --input is data itself
    path(schemas)       // nextflow_schema.json, schema_input.json
    path(catalogue, stageAs: 'ours/*')  // a sheet may have its name
    path(own, stageAs: 'own/*')     // the user's catalogue, or []

    output:
    path('samples.json') , emit: samples
    path('settings.json'), emit: settings

    script:
    """
    check_input.py --launch ${launch} ${sheet ? "--sheet ${sheet}" : ''} \\
        --schema nextflow_schema.json --input-schema schema_input.json --catalogue ${catalogue} \\
        ${own ? "--own-catalogue ${own}" : ''} \\
        --output samples.json --settings settings.json \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """

    // The real command: every later step is made from what it writes, and it takes a second.
    stub:
    """
    check_input.py --launch ${launch} ${sheet ? "--sheet ${sheet}" : ''} \\
        --schema nextflow_schema.json --input-schema schema_input.json --catalogue ${catalogue} \\
        ${own ? "--own-catalogue ${own}" : ''} \\
        --output samples.json --settings settings.json \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """
}
