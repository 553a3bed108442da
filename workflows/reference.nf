include { CENSUS   } from '../modules/census'
include { readJson } from './inputs'

// Fetches labelled cells for TRAIN.
workflow REFERENCE {
    take:
    settings        // settings.json of CHECK_INPUT

    main:
    // A file, not a command line: a filter has quotes. Of the settings it is all that CENSUS depends on.
    CENSUS(
        settings
            .map { json -> groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson(readJson(json).census)) }
            .collectFile(name: 'query.json')
    )
}
