include { SPLIT         } from '../modules/split'
include { CONVERT       } from '../modules/convert'
include { QC            } from '../modules/qc'
include { RESOLVE_MODEL } from '../modules/resolve_model'
include { FETCH_MODEL   } from '../modules/fetch_model'
include { FETCH_MODEL as FETCH_REGISTERED } from '../modules/fetch_model'
include { MAP           } from '../modules/map'
include { GATHER        } from '../modules/gather'
include { PREDICT       } from '../modules/predict'
include { ANNOTATE      } from '../modules/annotate'
include { CURATE        } from '../modules/curate'
include { MERGE         } from '../modules/merge'
include { REPORT        } from '../modules/report'
include { SUMMARY       } from '../modules/summary'
include { MULTIQC       } from '../modules/multiqc'
include { keepModel ; keptOrItself } from './cache'
include { failureTable ; sampleFailures } from './failures'
include { contentsOf ; inOrder ; inRowOrder ; isOurs ; missingPaths ; modelSource ; otherVersion ; partsOf ; readJson ; readSamples ; shards ; withParts ; withResolved ; writtenTo } from './inputs'

// Names the cells of every sample. A sample that fails at a step is absent from the next: the joins drop it.
workflow ANNOTATION {
    take:
    checked         // samples.json of CHECK_INPUT
    settings        // settings.json of CHECK_INPUT
    versions        // versions of everything, for the page
    multiqc_config
    has_validator   // whether the CELLxGENE schema's validator is where tasks run
    trace           // where Nextflow writes which task ended how

    main:
    def given_samples = checked
        .flatMap { json ->
            def read = readSamples(json)
            // Here, not in the function: an error there reaches the user without its words.
            if (missingPaths(read)) {
                error(missingPaths(read))
            }
            read
        }
        .branch { sample ->
            several: sample.split
            one    : true
        }
    def run     = settings.map { json -> readJson(json) }.first()
    // A file of several samples: each goes its way by itself from here.
    SPLIT(
        given_samples.several.combine(run).map { sample, run_settings ->
            tuple(sample.meta, sample.data, sample.split, contentsOf(sample.data, writtenTo(run_settings.params)))
        }
    )
    def samples = given_samples.several
        .map { sample -> tuple(sample.meta, sample) }
        .join(SPLIT.out.samples)
        .flatMap { _meta, sample, json, files -> partsOf(sample, readJson(json), files) }
        .mix(given_samples.one)
    // In the sheet's order, whichever was parted first.
    def listed_samples = checked
        .combine(SPLIT.out.samples.map { meta, json, _files -> [meta.id, readJson(json)] }.toList().map { parts -> [parts] })
        .map { json, parts -> groovy.json.JsonOutput.toJson(withParts(readJson(json), parts.collectEntries())) }
        .collectFile(name: 'samples.json')

    def given = run.flatMap { run_settings -> run_settings.models }.branch { model ->
        registered: model.tracking_uri
        placed: true
    }
    RESOLVE_MODEL(given.registered.map { model -> tuple(model.place, model.url, model.tracking_uri) })
    def resolved = given.registered
        .map { model -> tuple(model.place, model) }
        .join(RESOLVE_MODEL.out.resolved)
        .map { _place, model, json ->
            def found_model = withResolved(model, json)
            if (otherVersion(found_model)) {
                error(otherVersion(found_model))
            }
            found_model
        }
    def found    = given.placed.mix(resolved)

    def source = found
        .combine(run.map { run_settings -> run_settings.params })
        .map { model, settings_params -> modelSource(model, settings_params) }
        .branch { _which, _file, registered, _sha256, _keep, _trusted ->
            registered: registered
            placed: true
        }
    FETCH_REGISTERED(source.registered)
    FETCH_MODEL(source.placed)
    def fetched = FETCH_MODEL.out.model
        .mix(FETCH_REGISTERED.out.model)
        .combine(run.map { run_settings -> run_settings.params })
        .map { which, model, keep, archives, settings_params ->
            def cache = "${settings_params.model_cache_dir}"
            // A bucket has no folders to rename: there publishDir does it (conf/modules.config).
            def here  = settings_params.use_model_cache && !cache.contains('://')
            if (keep && here) {
                keepModel(model, archives, cache)
            }
            tuple(which, here ? keptOrItself(model, cache) : model)
        }
    def models  = fetched.toList().map { pairs -> inOrder(pairs) }
    // The urls again, as only now a registry's name is a version.
    def urls    = found.map { model -> [model, model.url] }.toList().map { pairs -> [model_url: inOrder(pairs)] }
    def options = run.map { run_settings -> run_settings.annotate }.combine(urls).map { step, resolved_urls -> step + resolved_urls }

    // Each step gets its own options and no others, so that -resume repeats only what a changed option touches.
    CONVERT(
        samples.combine(run).map { sample, run_settings ->
            tuple(sample.meta, sample.data, sample.convert, contentsOf(sample.data, writtenTo(run_settings.params)))
        }
    )
    QC(CONVERT.out.counts.join(samples.map { sample -> tuple(sample.meta, sample.qc) }))

    def ours   = fetched.filter { _which, model -> isOurs(model) }
    def others = fetched.filter { _which, model -> !isOurs(model) }
    // MAP takes each cell by itself: a sample of more than --shard_cells goes through it in parts, which GATHER joins.
    def to_map = QC.out.filtered
        .join(QC.out.metrics)
        .join(samples.map { sample -> tuple(sample.meta, sample.map) })
        .combine(run)
        .flatMap { meta, counts, qc, map_options, run_settings ->
            shards(qc, run_settings.shard_cells).collect { rows -> tuple(meta, counts, map_options, rows) }
        }
    MAP(to_map.combine(ours))
    def latent = MAP.out.mapping.branch { _meta, _which, rows, _mapping ->
        sharded: rows
        whole: true
    }
    GATHER(
        latent.sharded
            .map { meta, which, rows, mapping -> tuple(groupKey([meta.id, which.place], rows.parts), meta, which, [rows.start, mapping]) }
            .groupTuple()
            .map { _key, metas, models_of, started -> tuple(metas[0], models_of[0], inRowOrder(started)) }
    )
    PREDICT(QC.out.filtered.join(samples.map { sample -> tuple(sample.meta, sample.predict) }).combine(others))

    // A sample goes on when every model has mapped it; one that a model does not fit is dropped.
    def mappings = latent.whole
        .map { meta, which, _rows, mapping -> tuple(meta, which, mapping) }
        .mix(GATHER.out.mapping, PREDICT.out.mapping)
        .combine(run.map { run_settings -> run_settings.models.size() })
        .map { meta, which, mapping, n_models -> tuple(groupKey(meta.id, n_models), meta, [which, mapping]) }
        .groupTuple()
        .map { _id, metas, mapped -> tuple(metas[0], inOrder(mapped)) }
    ANNOTATE(
        QC.out.filtered
            .join(mappings)
            .join(samples.map { sample -> tuple(sample.meta, sample.annotate) })
            .combine(options)
            .map { meta, counts, mapped, own, shared -> tuple(meta, counts, mapped, shared + own) },
        models,
    )

    def named = ANNOTATE.out.annotated
        .join(ANNOTATE.out.summary)
        .combine(run)
        .branch { _meta, _annotated, _summary, run_settings ->
            curated: run_settings.params.cellxgene_schema
            as_is  : true
        }
    CURATE(
        named.curated
            .map { meta, annotated, summary, _run_settings -> tuple(meta, annotated, summary) }
            .join(samples.map { sample -> tuple(sample.meta, sample.curate) }),
        has_validator,
    )
    // Empty where nothing was asked for, or where CURATE failed: the page is made without it.
    def curation = named.as_is
        .map { meta, _annotated, _summary, _run_settings -> tuple(meta, [summary: [], listed: []]) }
        .mix(
            named.curated
                .map { meta, _annotated, _summary, _run_settings -> tuple(meta, true) }
                .join(CURATE.out.summary.join(CURATE.out.checksums).map { meta, summary, listed -> tuple(meta, [summary: summary, listed: listed]) }, remainder: true)
                .map { meta, _named, made -> tuple(meta, made ?: [summary: [], listed: []]) }
        )
    def listed = QC.out.checksums
        .join(ANNOTATE.out.checksums)
        .join(curation)
        .map { meta, qc, annotated_list, made -> tuple(meta, [qc, annotated_list, made.listed].flatten()) }
    REPORT(
        ANNOTATE.out.annotated
            .join(CONVERT.out.metrics)
            .join(QC.out.metrics)
            .join(ANNOTATE.out.summary)
            .join(QC.out.figures)
            .join(curation.map { meta, made -> tuple(meta, made.summary) })
            .join(samples.map { sample -> tuple(sample.meta, sample.truth) })
            .join(listed)
            .join(samples.map { sample -> tuple(sample.meta, sample.report) }),
        models,
        run.map { run_settings -> run_settings.truth_map ? file(run_settings.truth_map, glob: false, checkIfExists: true) : [] },
    )

    // All samples that got so far, sorted for -resume; nothing where no file of all was asked for.
    def annotated = ANNOTATE.out.annotated
        .mix(ANNOTATE.out.summary)
        .map { _meta, made -> made }
        .toSortedList { a, b -> a.name <=> b.name }
        .filter { files -> !files.isEmpty() }
        .combine(run)
        .filter { parts -> parts.last().merge != null }
    // Their names alone: what else a step is asked for is nothing to MERGE, and would do it anew with -resume.
    def names = listed_samples
        .map { json -> groovy.json.JsonOutput.toJson(readJson(json).collect { sample -> [id: sample.id] }) }
        .collectFile(name: 'names.json')
    MERGE(annotated.map { parts -> parts.dropRight(1) }, names, run.map { run_settings -> run_settings.merge ?: [:] })

    // Sorted, as the order in which samples end would else decide whether -resume knows them again.
    def metrics = CONVERT.out.metrics
        .mix(QC.out.metrics, ANNOTATE.out.summary, REPORT.out.verdict_summary, REPORT.out.truth_summary)
        .map { _meta, json -> json }
        .toSortedList { a, b -> a.name <=> b.name }
    // Why samples failed, which is known by now: whatever became of them, their last task has ended.
    def failed = listed_samples
        .combine(metrics.map { files -> [files] })
        .map { json, files -> failureTable(sampleFailures(trace, readJson(json).collect { sample -> sample.id }, files)) }
        .collectFile(name: 'failures.tsv')
    SUMMARY(listed_samples, metrics, failed, run.map { run_settings -> run_settings.merge != null })
    def pages = SUMMARY.out.multiqc
        .mix(versions)
        .flatten()
        .toSortedList { a, b -> a.name <=> b.name }
        .filter { files -> !files.isEmpty() }
    MULTIQC(pages, SUMMARY.out.tables, multiqc_config)
}
