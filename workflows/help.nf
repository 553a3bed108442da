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

def helpLine(name, part) {
    def facts = []
    if (part.enum) {
        facts << part.enum.join(', ')
    }
    if (part.containsKey('default') && name != 'help') {
        facts << "default: ${part.default}"
    }
    def known = facts ? " [${facts.join('; ')}]" : ''
    return "  --${name.padRight(22)} ${part.description}${known}"
}
