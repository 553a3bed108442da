process CENSUS {
    label 'process_medium'
    label 'census_environment'

    input:
    path(query)

    output:
    path('reference.h5ad'), emit: reference
    path('held_out.h5ad') , emit: held_out, optional: true
    path('reference.json'), emit: summary
    path('reference.sha256'), emit: checksums

    script:
    """
    census.py --query ${query} --output reference.h5ad --held-out held_out.h5ad --summary reference.json \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    checksums.py --output reference.sha256 *.h5ad reference.json
    """

    stub:
    """
    touch reference.h5ad held_out.h5ad
    echo '{}' > reference.json
    touch reference.sha256
    """
}
