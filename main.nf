include { CHECK_INPUT } from './modules/check_input'
include { VERSIONS    } from './modules/versions'
include { ANNOTATION  } from './workflows/annotate'
include { TRAINING    } from './workflows/train'
include { REFERENCE   } from './workflows/reference'
include { closeRun    } from './workflows/closing'
include { fitsItsRule ; helpText ; modelList ; readAsNumbers } from './workflows/help'
include { inWords ; namedFile ; withoutSecrets } from './workflows/inputs'

workflow {
    def here = "${workflow.projectDir}"
    if (params.help && "${params.help}" != 'false') {
        println(helpText("${here}/nextflow_schema.json", "${params.help}" == 'full'))
        exit 0
    }

    def catalogue = file("${here}/assets/models.csv")
    // A staged file's name becomes part of a command line, and CHECK_INPUT refuses a hostile one only in its own task.
    def schema    = "${here}/nextflow_schema.json"
    def own       = params.catalogue && fitsItsRule(schema, 'catalogue', params.catalogue) ? namedFile(params.catalogue) : null
    if ("${params.model}".trim() == 'list') {
        println(modelList(own ? [own, catalogue] : [catalogue]))
        exit 0
    }

    def outdir   = "${params.outdir ?: 'results'}"
    def mode     = "${params.mode}"
    def on_error = "${params.on_error}"
    // With -preview, as `nextflow inspect` has it too, nothing is run.
    if (!workflow.preview) {
        workflow.onComplete { closeRun(outdir, mode, on_error) }
    }
    // An engine that Nextflow starts, or an executor whose tasks are in containers always: its work folder is in a bucket.
    def in_containers = workflow.containerEngine != null || workflow.workDir.scheme != 'file'

    // A file, not a command line: nothing in it has been checked yet. A password goes no further; CHECK_INPUT says so.
    def launch = channel
        .of(withoutSecrets(groovy.json.JsonOutput.toJson([
            params      : inWords(params),
            launch_dir  : "${workflow.launchDir}",
            project_dir : here,
            sees_paths  : !in_containers,
            tracking_uri: System.getenv('MLFLOW_TRACKING_URI') ?: '',
        ])))
        .collectFile(name: 'launch.json')
    def is_sheet = params.input && "${params.input}".trim() ==~ /(?i).*\.(csv|tsv|yaml|yml)/ && fitsItsRule(schema, 'input', params.input)
    def sheet    = is_sheet ? namedFile(params.input) : null
    // In containers the image brings it; else `make schema-env` does.
    def has_validator = in_containers || file("${here}/.tools/schema/made").exists()
    if ("${params.cellxgene_schema}" == 'true' && !has_validator) {
        log.warn("--cellxgene_schema: the files will be written but not validated, as cellxgene-schema is not here. To have it: make schema-env")
    }
    // Here, as what a task says is not shown.
    readAsNumbers(schema, params).each { words -> log.warn(words) }
    def schemas  = [file(schema), file("${here}/assets/schema_input.json")]

    CHECK_INPUT(launch, sheet?.isFile() ? sheet : [], schemas, catalogue, own?.isFile() ? own : [])
    VERSIONS(CHECK_INPUT.out.settings.map { _settings -> true })

    if (mode == 'train') {
        TRAINING(CHECK_INPUT.out.settings, outdir)
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
            TraceFile.path() ?: [],
        )
    }
}
