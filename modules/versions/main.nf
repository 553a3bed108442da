process VERSIONS {
    label 'process_single'

    input:
    val(checked)        // nothing runs before CHECK_INPUT has passed

    output:
    path('cellscribe_mqc_versions.yml'), emit: versions

    script:
    """
    versions.py --nextflow-version ${workflow.nextflow.version} --output cellscribe_mqc_versions.yml \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """

    stub:
    """
    touch cellscribe_mqc_versions.yml
    """
}
