include { flags } from '../flags'

process CURATE {
    tag "${meta.id}"
    label 'process_low'
    label 'per_sample'
    label 'schema_environment'

    input:
    tuple val(meta), path(annotated), path(annotation), val(options)
    val(has_validator)      // so that -resume validates what was written without it

    output:
    tuple val(meta), path("${meta.id}.cellxgene.h5ad")    , emit: curated
    tuple val(meta), path("${meta.id}.cellxgene_todo.tsv"), emit: todo
    tuple val(meta), path("${meta.id}.curation.json")     , emit: summary
    tuple val(meta), path("${meta.id}.cellxgene.sha256")  , emit: checksums

    script:
    """
    curate.py --sample '${meta.id}' --annotated ${annotated} --annotation ${annotation} ${flags(options)} \\
        --output ${meta.id}.cellxgene.h5ad --todo ${meta.id}.cellxgene_todo.tsv --summary ${meta.id}.curation.json \\
        --cpus ${task.cpus} --pipeline-version ${CodeVersion.of(projectDir, workflow.manifest.version)}
    checksums.py --output ${meta.id}.cellxgene.sha256 ${meta.id}.cellxgene.h5ad ${meta.id}.cellxgene_todo.tsv
    """

    stub:
    """
    touch ${meta.id}.cellxgene.h5ad ${meta.id}.cellxgene_todo.tsv ${meta.id}.cellxgene.sha256
    echo '{"sample": "${meta.id}"}' > ${meta.id}.curation.json
    """
}
