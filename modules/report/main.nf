include { each ; flags } from '../flags'

process REPORT {
    tag "${meta.id}"
    label 'process_low'
    label 'per_sample'

    input:
    // listed: the checksums of what the steps before publish of this sample
    tuple val(meta), path(annotated), path(convert), path(qc), path(annotation), path(violin), path(knee), path(scatter), path(curation), path(truth_csv, stageAs: 'truth/*'), path(listed, stageAs: 'listed/*'), val(options)
    path(models, stageAs: 'model?/*')
    path(truth_map, stageAs: 'truth_map/*')  // [] where none is given

    output:
    tuple val(meta), path("${meta.id}.report.html")  , emit: report
    tuple val(meta), path("${meta.id}.markers.tsv")  , emit: markers
    tuple val(meta), path("${meta.id}.de.tsv.gz")    , emit: differential
    tuple val(meta), path("${meta.id}.clusters.tsv") , emit: clusters
    tuple val(meta), path("${meta.id}.verdicts.tsv") , emit: verdicts
    tuple val(meta), path("${meta.id}.verdicts.json"), emit: verdict_summary
    tuple val(meta), path("${meta.id}.sha256")       , emit: checksums
    tuple val(meta), path("${meta.id}.truth.tsv")    , emit: truth        , optional: true
    tuple val(meta), path("${meta.id}.truth.json")   , emit: truth_summary, optional: true

    script:
    """
    report.py --sample '${meta.id}' --annotated ${annotated} --convert ${convert} --qc ${qc} \\
        --annotation ${annotation} --qc-violin ${violin} --qc-knee ${knee} --qc-scatter ${scatter} \\
        ${each('model', models)} ${curation ? "--curation ${curation}" : ''} --output ${meta.id}.report.html --markers ${meta.id}.markers.tsv \\
        --differential ${meta.id}.de.tsv.gz --clusters ${meta.id}.clusters.tsv \\
        --verdicts ${meta.id}.verdicts.tsv --verdict-summary ${meta.id}.verdicts.json \\
        ${truth_csv ? "--truth-csv ${truth_csv}" : ''} ${truth_map ? "--truth-map ${truth_map}" : ''} --truth ${meta.id}.truth.tsv --truth-summary ${meta.id}.truth.json \\
        ${flags(options)} \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    checksums.py ${each('listed', listed)} --output ${meta.id}.sha256 *.html *.tsv *.tsv.gz
    """

    stub:
    """
    touch ${meta.id}.report.html ${meta.id}.markers.tsv ${meta.id}.de.tsv.gz ${meta.id}.clusters.tsv \\
        ${meta.id}.verdicts.tsv ${meta.id}.verdicts.json ${meta.id}.sha256
    """
}
