include { flags } from '../flags'

process MERGE {
    label 'process_medium'
    label 'per_sample'

    input:
    path(samples, stageAs: 'samples/*')     // annotated.h5ad and annotation.json of every sample that got so far
    path(listed)            // names.json: the ids of all samples of the run
    val(options)

    output:
    path('merged.annotated.h5ad') , emit: merged
    path('composition.tsv')       , emit: composition
    path('merged.pseudobulk.h5ad'), emit: pseudobulk
    path('merged.report.html')    , emit: report
    path('merged.sha256')         , emit: checksums

    script:
    """
    merge.py --inputs samples --samples ${listed} --output merged.annotated.h5ad --composition composition.tsv \\
        --pseudobulk merged.pseudobulk.h5ad --page merged.report.html ${flags(options)} \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    checksums.py --output merged.sha256 merged.annotated.h5ad composition.tsv merged.pseudobulk.h5ad merged.report.html
    """

    stub:
    """
    touch merged.annotated.h5ad composition.tsv merged.pseudobulk.h5ad merged.report.html merged.sha256
    """
}
