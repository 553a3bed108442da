include { TRAIN    } from '../modules/train'
include { readJson } from './inputs'

// Makes a model of labelled cells.
workflow TRAINING {
    take:
    settings        // settings.json of CHECK_INPUT

    main:
    TRAIN(
        settings.map { json ->
            def train = readJson(json).train
            def references = train.references.collect { path -> file(path, glob: false, checkIfExists: true) }
            def label_csvs = train.label_csvs.collect { path -> file(path, glob: false, checkIfExists: true) }
            def cl_map = train.cl_map ? file(train.cl_map, glob: false, checkIfExists: true) : []
            tuple(train.name, references, label_csvs, cl_map, train.options)
        }
    )
}
