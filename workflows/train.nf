include { TRAIN    } from '../modules/train'
include { readJson } from './inputs'

// Makes a model of labelled cells.
workflow TRAINING {
    take:
    settings        // settings.json of CHECK_INPUT
    outdir

    main:
    TRAIN(
        settings.map { json ->
            def train = readJson(json).train
            def references = train.references.collect { path -> file(path, glob: false, checkIfExists: true) }
            def label_csvs = train.label_csvs.collect { path -> file(path, glob: false, checkIfExists: true) }
            def label_map = train.label_map ? file(train.label_map, glob: false, checkIfExists: true) : []
            def cl_map = train.cl_map ? file(train.cl_map, glob: false, checkIfExists: true) : []
            tuple(train.name, references, label_csvs, label_map, cl_map, train.options)
        }
    )
    // What a task says is not shown.
    TRAIN.out.model.subscribe { model -> println(modelText(model, "${outdir}/models/${model.name}")) }
}

// How good the model is, what training warned of, and how it is used. place: where it is published.
def modelText(model, place) {
    def manifest = file("${model}/manifest.json").size() ? readJson(file("${model}/manifest.json")) : [:]
    def tested   = manifest.evaluation ?: [:]
    def scores   = tested.accuracy == null
        ? ''
        : String.format(Locale.ROOT, ': %.1f %% of its labels were right (%s), macro-F1 %.3f', 100 * tested.accuracy, "${tested.split}".tokenize(',')[0], tested.macro_f1)
    def warnings = (manifest.training?.warnings ?: []).collect { text -> "  warning: ${text}\n" }.join('')
    return """
${model.name} ${manifest.version ?: ''}${scores}
${warnings}  its card    ${place}/card.html
  to use it   --model ${place}
"""
}
