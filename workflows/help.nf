// The parameters by group, as nextflow_schema.json describes them.
def helpText(schema_file, full) {
    def schema = new groovy.json.JsonSlurper().parseText(file(schema_file).text)
    def groups = schema.allOf.collect { part -> schema['$defs'][part['$ref'].tokenize('/').last()] }
    def text = groups.collect { group ->
        def shown = group.properties.findAll { _name, part -> full || !part.hidden }
        "${group.title}\n" + shown.collect { name, part -> helpLine(name, part) }.join('\n')
    }
    def lines = [
        schema.description,
        '',
        '  nextflow run . --input samples.csv --outdir results',
        '  nextflow run . --input /path/to/cellranger/outs',
        '  nextflow run . --mode train --reference labelled.h5ad --label_key cell_type',
        '',
        text.join('\n\n'),
        full ? '' : '\nMore, for tuning: --help full',
    ]
    return lines.join('\n')
}

// Whether a parameter's value fits the pattern that the schema holds it to.
def fitsItsRule(schema_file, name, value) {
    def schema = new groovy.json.JsonSlurper().parseText(file(schema_file).text)
    def part   = schema['$defs'].values().collect { group -> group.properties[name] }.find { found -> found }
    return "${value}".trim() ==~ part.pattern
}

// What to say of parameters that are text, and came as numbers: 1.10 as 1.1, and 00123 as 123.
def readAsNumbers(schema_file, given) {
    def schema = new groovy.json.JsonSlurper().parseText(file(schema_file).text)
    def texts  = schema['$defs'].values().collectMany { group -> group.properties.findAll { _name, part -> part.type == 'string' }.keySet() }
    return texts.findAll { name -> given[name] instanceof Number }.collect { name ->
        "--${name} was read as the number ${given[name]}: zeros before or behind it are lost. To keep them, give it in a -params-file, in quotes."
    }
}

// The models of the catalogues (assets/models.csv, --catalogue) that --model finds by name.
def modelList(catalogues) {
    def blocks = catalogues.collect { catalogue ->
        if (!catalogue.isFile()) {
            error("--catalogue: '${catalogue}' does not exist, or is no file")
        }
        catalogue.splitCsv(header: true, quote: '"').collect { row -> modelLine(row) }
    }
    def models = blocks.flatten()
    return "Models for --model, by name or name==version:\n\n${models.join('\n\n') ?: '  none'}\n"
}

def modelLine(row) {
    def facts = [
        [row.organism, row.tissue].findAll { word -> word }.join(', '),
        row.held_out_accuracy ? "held-out accuracy ${row.held_out_accuracy}" : '',
        row.held_out_macro_f1 ? "macro-F1 ${row.held_out_macro_f1}" : '',
        row.licence,
    ]
    def lines = ["${row.name} ${row.version}", facts.findAll { fact -> fact }.join('; '), row.types, row.url]
    return lines.findAll { line -> line }.join('\n      ').replaceFirst('^', '  ')
}

def helpLine(name, part) {
    def facts = []
    // The strict parser takes `part.enum` for a keyword.
    if (part['enum']) {
        facts << part['enum'].join(', ')
    }
    if (part.containsKey('default') && name != 'help') {
        facts << "default: ${part.default}"
    }
    def known = facts ? " [${facts.join('; ')}]" : ''
    return "  --${name.padRight(22)} ${part.description}${known}"
}
