process MULTIQC {
    label 'process_single'

    input:
    path(tables)        // *_mqc.json of SUMMARY and the versions
    path(summary, stageAs: 'listed/*')      // SUMMARY's tables, for the list of checksums alone
    path(config)

    output:
    path('multiqc_report.html'), emit: report
    path('summary.sha256')     , emit: checksums

    script:
    """
    multiqc --force --no-version-check --no-data-dir --config ${config} --ignore 'listed/*' --filename multiqc_report.html .
    checksums.py --output summary.sha256 multiqc_report.html ${summary}
    """

    stub:
    """
    touch multiqc_report.html summary.sha256
    """
}
