include { CHECK_INPUT } from './modules/check_input'
include { VERSIONS    } from './modules/versions'
include { ANNOTATION  } from './workflows/annotate'
include { TRAINING    } from './workflows/train'
include { REFERENCE   } from './workflows/reference'
include { closeRun    } from './workflows/closing'
include { traceFile   } from './workflows/failures'
include { helpText ; modelList } from './workflows/help'

workflow {
    def here = "${workflow.projectDir}"
    if (params.help && "${params.help}" != 'false') {
        println(helpText("${here}/nextflow_schema.json", "${params.help}" == 'full'))
        exit 0
    }

    def catalogue = file("${here}/assets/models.csv")
    def own       = params.catalogue ? file("${params.catalogue}".trim(), glob: false) : null
    if ("${params.model}".trim() == 'list') {
        println(modelList(own ? [own, catalogue] : [catalogue]))
        exit 0
    }

    def outdir   = "${params.outdir}"
    def mode     = "${params.mode}"
    def on_error = "${params.on_error}"
    workflow.onComplete { closeRun(outdir, mode, on_error) }

    // A file, not a command line: nothing in it has been checked yet.
    def launch = channel
        .of(groovy.json.JsonOutput.toJson([
            params      : params,
            launch_dir  : "${workflow.launchDir}",
            project_dir : here,
            sees_paths  : workflow.containerEngine == null,
            // A password in it goes no further; CHECK_INPUT says so.
            tracking_uri: "${System.getenv('MLFLOW_TRACKING_URI') ?: ''}".replaceFirst('//[^/@]*@', '//***@'),
        ]))
        .collectFile(name: 'launch.json')
    def is_sheet = params.input && "${params.input}".trim() ==~ /(?i).*\.(csv|tsv|yaml|yml)/
    def sheet    = is_sheet ? file("${params.input}".trim(), glob: false) : null
    // In containers the image brings it; else `make schema-env` does.
    def has_validator = workflow.containerEngine != null || file("${here}/.tools/schema/made").exists()
    if ("${params.cellxgene_schema}" == 'true' && !has_validator) {
        log.warn("--cellxgene_schema: the files will be written but not validated, as cellxgene-schema is not here. To have it: make schema-env")
    }
    def schemas  = [file("${here}/nextflow_schema.json"), file("${here}/assets/schema_input.json")]

    CHECK_INPUT(launch, sheet?.isFile() ? sheet : [], schemas, catalogue, own?.isFile() ? own : [])
    VERSIONS(CHECK_INPUT.out.settings.map { _settings -> true })

    if (mode == 'train') {
        TRAINING(CHECK_INPUT.out.settings)
    }
    else if (mode == 'reference') {
        REFERENCE(CHECK_INPUT.out.settings)
    }
    else {
        ANNOTATION(
            CHECK_INPUT.out.samples,
            CHECK_INPUT.out.settings,
            VERSIONS.out.versions,
            file("${here}/assets/multiqc_config.yml"),
            has_validator,
            traceFile(outdir),
        )
    }
}
