process SUMMARY {
    label 'process_single'

    input:
    path(samples)
    path(metrics, stageAs: 'metrics/*')     // the JSON files of every step and sample that got so far
    path(failures)          // failures.tsv: why the other samples did not
    val(merged)             // whether MERGE was asked for, whose page is then a link

    output:
    path('*.tsv')     , emit: tables
    path('*_mqc.json'), emit: multiqc, optional: true

    script:
    """
    mkdir -p metrics
    summary.py --samples ${samples} --inputs metrics --failures ${failures} ${merged ? '--merged' : ''} --output-folder . \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    """

    stub:
    """
    touch summary.tsv composition.tsv summary_mqc.json
    """
}
