"""The part of a sample's page that tells what each step did: reading, quality control, model, genes, CURATE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellscribe.contract import OutputNames
from cellscribe.report_words import count, number, percent, readable, spaced
from cellscribe.words import plural

# Name and unit.
METRICS = {
    "total_counts": ("Counts a cell", ""),
    "n_genes_by_counts": ("Genes a cell", ""),
    "pct_counts_mt": ("Mitochondrial share", " %"),
    "pct_counts_ribo": ("Ribosomal share", " %"),
    "pct_counts_hb": ("Haemoglobin share", " %"),
}
REMOVED_BECAUSE = {
    "low_counts": "too few counts",
    "high_counts": "too many counts",
    "low_genes": "too few genes",
    "high_genes": "too many genes",
    "high_mt": "too many mitochondrial counts",
    "high_ribo": "too many ribosomal counts",
    "high_hb": "too many haemoglobin counts",
    "doublet": "probably two cells (doublet)",
}
# A run of `multi` has hundreds.
MOST_METRICS = 40
UNCALIBRATED = "obs: 0 confident to 1 uncertain, as the model says it; never held against the truth"
THRESHOLD_SOURCES = {
    "mad": "from this sample's own spread (MAD)",
    "fixed": "set by the user",
    "off": "no bound",
}
SOURCES = {
    "10x_h5_v2": "Cell Ranger .h5 file (version 2 layout)",
    "10x_h5_v3": "Cell Ranger .h5 file (version 3 layout)",
    "10x_mtx_v2": "Cell Ranger matrix folder (version 2 layout)",
    "10x_mtx_v3": "Cell Ranger matrix folder (version 3 layout)",
    "h5ad": ".h5ad file",
}
# The kind of a model made by others, whose code PREDICT runs.
THEIRS = "mlflow"


def cellranger_numbers(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Cell Ranger's own metrics by their names, in words.

    metrics: as `tenx.read_metrics` gives them: whole numbers, shares as 0 to 1, text.
    """

    def words(value: Any) -> str:
        if isinstance(value, float):
            return percent(value) if 0 <= value <= 1 else number(value)
        return f"{value:,}" if isinstance(value, int) else str(value)

    return [(str(name), words(value)) for name, value in metrics.items()][:MOST_METRICS]


def what_was_done(
    convert: dict[str, Any], qc: dict[str, Any], annotation: dict[str, Any], manifest: dict[str, Any]
) -> list[tuple[str, str]]:
    """The steps in order, each as (what, how)."""
    genes = "only the model's code knows" if gene_overlap(annotation) is None else _genes_found(annotation)
    rows = [
        ("Read", _read(convert)),
        ("Raw counts", _raw_counts(convert)),
        ("Cell calling", _cell_calling(convert)),
        ("Quality control", _quality_control(qc)),
        ("Doublets", spaced(str((qc.get("doublets") or {}).get("message") or "not looked for"))),
        ("Model", _model(annotation, manifest)),
        *([("Clusters", clustered)] if (clustered := clusters_words(annotation)) else []),
        ("Genes", genes),
    ]
    if trusted := trusted_code(annotation):
        rows.append(
            ("Code that was run", f"that of {trusted}, made by others, as --trust_model_code said to")
        )
    return rows


def _read(convert: dict[str, Any]) -> str:
    source = str(convert.get("source", ""))
    kinds = convert.get("features") or {}
    others = ", ".join(f"{count(n)} {name}" for name, n in kinds.items() if name != "Gene Expression")
    return (
        f"{convert.get('path', '')}: {SOURCES.get(source, source)}, "
        f"{count(convert.get('n_cells'))} cells, {count(convert.get('n_genes'))} genes"
        + (f"; beside them {others}" if others else "")
    )


def _raw_counts(convert: dict[str, Any]) -> str:
    prefix = convert.get("genome_prefix_removed")
    place, way = convert.get("counts_from", "X"), convert.get("counts_recovered_from")
    where = f"recovered from {place} ({way})" if way else f"found in {place}"
    return f"{where}; organism {convert.get('organism', 'unknown')}" + (
        f"; genome prefix '{prefix}' taken off the gene names" if prefix else ""
    )


def _cell_calling(convert: dict[str, Any]) -> str:
    called = convert.get("called_cells")
    if not called:
        return "not needed: the input holds cells, not all droplets"
    how = (
        f" (EmptyDrops, false discovery rate {number(called['fdr'])})"
        if called.get("fdr") is not None
        else f" by their counts alone (at least {count(called.get('retain'))})"
    )
    return f"{count(called.get('n_cells'))} cells called from {count(called.get('n_droplets'))} droplets{how}"


def _quality_control(qc: dict[str, Any]) -> str:
    thresholds = qc.get("thresholds") or {}
    bounds = [_bounds(qc, metric) for metric in dict.fromkeys([*METRICS, *thresholds])]
    if any(bounds):
        kept = "marked, none removed" if qc.get("mode") == "flag" else "removed"
        return f"cells outside these bounds were {kept}: {'; '.join(filter(None, bounds))}"
    if any(bounds_source(bound) != THRESHOLD_SOURCES["off"] for bound in thresholds.values()):
        return "no cell lies outside the bounds"
    return "no bounds were set"


def _bounds(qc: dict[str, Any], metric: str) -> str:
    """The bounds of a metric that some cells lie outside of; "" where there are none."""
    bound = (qc.get("thresholds") or {}).get(metric) or {}
    name, unit = METRICS.get(metric, (readable(metric), ""))
    lower, upper = (
        ""
        if bound.get(side) is None or beyond_all_cells(qc, metric, side)
        else bound_number(metric, bound[side])
        for side in ("lower", "upper")
    )
    if lower and upper:
        return f"{name.lower()} {lower} to {upper}{unit}"
    if lower:
        return f"{name.lower()} at least {lower}{unit}"
    return f"{name.lower()} at most {upper}{unit}" if upper else ""


def _model(annotation: dict[str, Any], manifest: dict[str, Any]) -> str:
    model = annotation.get("model") or {}
    labels, training = manifest.get("labels") or [], manifest.get("training") or {}
    tested = manifest.get("evaluation") or {}
    said = (
        f"{model.get('name', '')} {model.get('version', '')} "
        f"({model.get('kind', '')}, {model.get('organism', '')})"
    )
    if labels:
        said += f": {count(len(labels))} labels"
    if training.get("n_cells"):
        said += f", trained on {count(training['n_cells'])} cells"
    if tested.get("accuracy") is not None:
        said += f"; {percent(float(tested['accuracy']))} of its labels were right in the test"
        if tested.get("split"):
            # What follows the comma is for who trained it: which weights had not seen the cells.
            said += f" ({str(tested['split']).partition(',')[0]})"
    return said


def _genes_found(annotation: dict[str, Any]) -> str:
    found = (
        f"{count(annotation.get('n_genes_found'))} of the model's "
        f"{count(annotation.get('n_model_genes'))} genes found"
        f"{by_orthologs(annotation)}, matched by {annotation.get('genes_matched_by', '')}"
    )
    if annotation.get("n_genes_respelled"):
        found += f"; {count(annotation['n_genes_respelled'])} of them by a symbol of another year, or one with R's dots"
    if annotation.get("n_refit_genes"):
        found += f"; the regression was fitted anew on {count(annotation['n_refit_genes'])} genes that the sample has"
    return found


def clusters_from(annotation: dict[str, Any]) -> str:
    """Where the clusters come of, in words; "" where annotation.json does not tell."""
    parameters = annotation.get("parameters") or {}
    if key := parameters.get("cluster_key"):
        return f"the column '{key}' of the input"
    if (resolution := parameters.get("cluster_resolution")) is not None:
        return f"Leiden at a resolution of {float(resolution):g}, in the model's space"
    return ""


def clusters_words(annotation: dict[str, Any]) -> str:
    """Where the clusters come of, how many they are, and how many cells are in none; "" where nothing tells."""
    origin = clusters_from(annotation)
    if not origin:
        return ""
    n_without = int((annotation.get("in_no_cluster") or {}).get("n_cells") or 0)
    without = f"; {plural(n_without, 'cell')} in none" if n_without else ""
    return f"{plural(len(annotation.get('clusters') or []), 'cluster')}, of {origin}{without}"


def by_orthologs(annotation: dict[str, Any]) -> str:
    """That orthologues were used, and between which organisms; "" where they were not."""
    used = annotation.get("orthologs")
    return f" by one-to-one orthologues of {used['from']} and {used['to']} genes" if used else ""


def set_shares(sizes: dict[str, int] | None) -> dict[str, str] | None:
    """Shares of cells by the size of their set of labels, as text: one, two, more."""
    if not sizes:
        return None
    total = sum(sizes.values())
    one, two = (sizes.get(size, 0) for size in ("1", "2"))
    return {
        "one": percent(one / total),
        "two": percent(two / total),
        "more": percent((total - one - two) / total),
    }


def gene_overlap(annotation: dict[str, Any]) -> float | None:
    """Share of the model's genes in the sample; None for a model made by others, which does not tell."""
    share = annotation.get("gene_overlap", 0.0)
    return None if share is None else float(share)


def overlap_part(annotation: dict[str, Any]) -> dict[str, Any] | None:
    """How many of the model's genes are in the sample and which are not; None where the model does not tell."""
    overlap = gene_overlap(annotation)
    if overlap is None:
        return None
    return {
        "share": percent(overlap),
        "width": 100 * min(max(overlap, 0.0), 1.0),
        "found": count(annotation.get("n_genes_found")),
        "of": count(annotation.get("n_model_genes")),
        "by": annotation.get("genes_matched_by", ""),
        "orthologs": by_orthologs(annotation),
        "refit": annotation.get("n_refit_genes") and count(annotation["n_refit_genes"]),
        "missing": annotation.get("missing_genes") or [],
    }


def trusted_code(annotation: dict[str, Any]) -> str:
    """The models whose own code was run; "" where none was."""
    models = [one.get("model") or {} for one in (annotation.get("models") or [annotation])]
    return ", ".join(f"{one['name']} {one['version']}" for one in models if one.get("kind") == THEIRS)


def bounds_source(bounds: dict[str, Any]) -> str:
    """Where a metric's bounds come from, for each of the two where they differ. bounds: of qc.json."""
    sides = {
        words: THRESHOLD_SOURCES.get(kind := str(bounds.get(f"{side}_source", "off")), kind)
        for side, words in (("lower", "lowest"), ("upper", "highest"))
        if bounds.get(side) is not None
    }
    if len(set(sides.values())) > 1:
        return "; ".join(f"{side} {source}" for side, source in sides.items())
    return next(iter(sides.values()), THRESHOLD_SOURCES["off"])


def bound_number(metric: str, value: float) -> str:
    """A bound in words: counts and genes are whole."""
    return number(value if METRICS.get(metric, ("", ""))[1] else round(value))


def beyond_all_cells(qc: dict[str, Any], metric: str, side: str) -> bool:
    """Whether a bound that QC found itself has no cell beyond it. Its number may be one that no cell could have: of
    more genes than there are. What the user set is told all the same.

    side: lower or upper.
    """
    bound = (qc.get("thresholds") or {}).get(metric) or {}
    last = ((qc.get("before") or {}).get(metric) or {}).get("min" if side == "lower" else "max")
    if bound.get(side) is None or last is None or bound.get(f"{side}_source") != "mad":
        return False
    return bool(last >= bound[side] if side == "lower" else last <= bound[side])


def mt_known(qc: dict[str, Any]) -> bool:
    """Whether the sample has any mitochondrial gene."""
    return bool(qc.get("mt_known", True))


def n_passed(qc: dict[str, Any]) -> int | None:
    """How many cells passed quality control."""
    return qc.get("n_cells_pass", qc.get("n_cells_after"))


def qc_tables(qc: dict[str, Any]) -> dict[str, Any]:
    """Numbers of cells and metrics before and after with their bounds; reasons of removal, the commonest first."""
    before, after, thresholds = qc.get("before") or {}, qc.get("after") or {}, qc.get("thresholds") or {}
    ordered = [*METRICS, *before, *thresholds]

    def unit(metric: str) -> str:
        return METRICS.get(metric, ("", ""))[1]

    def bound(metric: str, side: str) -> str:
        value = (thresholds.get(metric) or {}).get(side)
        if beyond_all_cells(qc, metric, side):
            return f"no cell lies {'below' if side == 'lower' else 'above'}"
        return "–" if value is None else bound_number(metric, value) + unit(metric)

    def spread(part: dict[str, Any], metric: str) -> dict[str, str]:
        values = part.get(metric) or {}
        if metric == "pct_counts_mt" and not mt_known(qc):
            return {"median": "not measured", "quarters": ""}
        return {
            "median": number(values.get("median"), unit(metric)),
            "quarters": f"{number(values.get('q25'))} – {number(values.get('q75'))}" if values else "",
        }

    metrics = [
        {
            "name": METRICS.get(metric, (readable(metric), ""))[0],
            "before": spread(before, metric),
            "after": spread(after, metric),
            "lower": bound(metric, "lower"),
            "upper": bound(metric, "upper"),
            "source": bounds_source(thresholds.get(metric) or {}),
        }
        for metric in dict.fromkeys(ordered)
        if metric in before or metric in after or metric in thresholds
    ]
    total = max(int(qc.get("n_cells_before") or 0), 1)
    most = max([1, *(int(n) for n in (qc.get("removed_by") or {}).values())])
    removed = sorted((qc.get("removed_by") or {}).items(), key=lambda item: -int(item[1]))
    return {
        "n_before": count(qc.get("n_cells_before")),
        "n_after": count(n_passed(qc)),
        "metrics": metrics,
        "removed": [
            {
                "reason": REMOVED_BECAUSE.get(str(reason), readable(str(reason))),
                "n": count(n),
                "share": percent(int(n) / total),
                "width": 100 * int(n) / most,
            }
            for reason, n in removed
            if int(n)
        ],
        "flagged": qc.get("mode") == "flag",
    }


def curation_part(curation: dict[str, Any]) -> dict[str, Any]:
    """What the page says of the file for CELLxGENE: a verdict, notes, and what is left to do by kind."""
    from cellscribe.curation import KINDS

    needed = sum(row["kind"] in ("give", "mend") for row in curation["todo"])
    validator = f"cellxgene-schema {curation['validator']} (schema {curation['schema']})"
    if curation["valid"] is None:
        said = f"{curation['file']} was written and not validated."
    elif curation["valid"]:
        said = f"{curation['file']} passes {validator}."
    else:
        said = (
            f"{curation['file']} does not pass {validator} yet: {plural(needed, 'thing')} to give or to mend."
        )
    return {
        **{key: curation[key] for key in ("valid", "notes", "table")},
        "said": said,
        "todo": [
            (meaning, [row for row in curation["todo"] if row["kind"] == kind])
            for kind, meaning in KINDS.items()
            if any(row["kind"] == kind for row in curation["todo"])
        ],
    }


def columns_guide(
    annotation: dict[str, Any], present: dict[str, Sequence[str]]
) -> list[tuple[str, str, str]]:
    """Every name that annotation added: where it is, the name, what it holds in the contract's words.

    present: for `obs`, `obsm` and `uns`, the keys that the file has.
    """
    names = annotation.get("names") or {}
    output = OutputNames(str(names["predicted"]).removesuffix("_predicted"))
    found = [
        (str(names.get(prop, getattr(output, prop))), str(value.__doc__))
        for prop, value in vars(OutputNames).items()
        if isinstance(value, property)
    ]
    for level in annotation.get("levels") or []:
        found.append((output.level(str(level)), str(OutputNames.level.__doc__)))
        found.append((output.level_uncertainty(str(level)), str(OutputNames.level_uncertainty.__doc__)))
    if not annotation.get("calibrated", True):
        found = [(key, UNCALIBRATED if key == output.uncertainty else words) for key, words in found]
    guide = []
    for key, words in found:
        where, _, meaning = words.partition(": ")
        if key in present.get(where, ()):
            guide.append((where, key, meaning))
    return guide
