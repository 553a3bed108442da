process MULTIQC {
    label 'process_single'

    input:
    path(tables)        // *_mqc.json of SUMMARY and the versions
    path(config)

    output:
    path('multiqc_report.html'), emit: report

    script:
    """
    multiqc --force --no-version-check --no-data-dir --config ${config} --filename multiqc_report.html .
    """

    stub:
    """
    touch multiqc_report.html
    """
}
