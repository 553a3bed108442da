"""The page of one sample: what was done to it, what its cells are called, and how far to trust that."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellscribe import differential, figures, truth, verdicts
from cellscribe.cli import log, warn
from cellscribe.contract import UNASSIGNED
from cellscribe.io import atomic_path, read_json, write_json, write_table
from cellscribe.report_composition import (
    cluster_grid,
    cluster_rows,
    composition,
    missed_types,
    names_given,
    signs_of_unassigned,
    supported_clusters,
    types_by_cluster,
    verdict_counts,
)
from cellscribe.report_evidence import (
    MOST_ROWS,
    MarkerEvidence,
    comparison_parts,
    marker_evidence,
    printed,
    top_genes,
)
from cellscribe.report_inputs import Cells, ReportInputs, plain_uns, read_cells
from cellscribe.report_models import (
    joint_manifest,
    joint_markers,
    label_scores,
    model_parts,
    read_optional,
    relatives,
)
from cellscribe.report_steps import (
    by_orthologs,
    columns_guide,
    curation_part,
    gene_overlap,
    qc_tables,
    set_shares,
    trusted_code,
    what_was_done,
)
from cellscribe.report_truth import hold_against_truth, truth_part
from cellscribe.report_words import (
    WHY_UNASSIGNED,
    as_code,
    count,
    flatten,
    merge_warnings,
    percent,
    plural,
    readable,
    verdict,
)

TEMPLATES = Path(__file__).parent / "templates"
# What Seqera Platform shows in the browser is at most 10 MB.
MAX_BYTES = 8_000_000
FIGURES = (
    "labels",
    "uncertainty",
    "clusters",
    "multiples",
    "reference",
    "uncertainty_histogram",
    "distance_histogram",
)
METHODS = [
    ("Scanpy", "Wolf, Angerer & Theis, Genome Biology 19:15 (2018)", ""),
    ("Scrublet (doublets)", "Wolock, Lopez & Klein, Cell Systems 8:281 (2019)", ""),
    ("MAD-based quality control", "Germain, Sonrel & Robinson, Genome Biology 21:227 (2020)", ""),
    ("EmptyDrops (cell calling)", "Lun et al., Genome Biology 20:63 (2019)", "called"),
    ("scVI", "Lopez et al., Nature Methods 15:1053 (2018)", "scvi"),
    ("Leiden clustering", "Traag, Waltman & van Eck, Scientific Reports 9:5233 (2019)", ""),
    ("UMAP", "McInnes, Healy & Melville, arXiv:1802.03426 (2018)", ""),
    ("Orthologues (Ensembl Compara)", "Herrero et al., Database 2016:bav096 (2016)", "orthologs"),
    ("xgboost", "Chen & Guestrin, KDD (2016)", "scvi"),
    (
        "Naive Bayes (likelihood)",
        "McCallum & Nigam, AAAI-98 Workshop on Learning for Text Categorization (1998)",
        "consensus",
    ),
    ("CellTypist", "Domínguez Conde et al., Science 376:eabl5197 (2022)", "celltypist"),
    ("Cell Ontology", "Diehl et al., Journal of Biomedical Semantics 7:44 (2016)", ""),
]


def write_report(inputs: ReportInputs) -> None:
    """Write the page, and the tables of markers, of differential expression, of types by cluster and of verdicts.

    With a `truth_key` also the table of agreement with these labels, where the sample has them, and its JSON.

    Raises InputError where the annotated file lacks the labels that annotation.json names. X is read a block
    of cells at a time, so that memory holds no more of it than the tests' 20,000 cells, and 40,000 for comparisons.
    """
    import anndata

    convert, qc, annotation = (read_json(path) for path in (inputs.convert, inputs.qc, inputs.annotation))
    manifests = [read_optional(model / "manifest.json") for model in inputs.models]
    manifest = joint_manifest(manifests)
    adata = anndata.read_h5ad(inputs.annotated, backed="r")
    try:
        cells, provenance = read_cells(adata, annotation, inputs), plain_uns(adata, annotation)
        expected = joint_markers(inputs.models, manifests, {*cells.predicted, *cells.final})
        log(f"{inputs.sample}: looking at the markers of {len(cells.final):,} cells")
        final_key = str(annotation["names"]["final"])
        compared = differential.parse_comparisons(inputs.compare) if inputs.compare else []
        contrasts, notes = differential.find_contrasts(compared, adata.obs, final_key)
        evidence = marker_evidence(
            adata,
            cells,
            expected,
            str(annotation.get("genes_matched_by") or "gene_ids"),
            annotation.get("orthologs"),
            contrasts,
            final_key,
            relatives(inputs.models, manifests, cells.cl_ids),
            figures.labels_said(provenance),
        )
        write_table(evidence.table, inputs.markers)
        write_table(printed(evidence.differential), inputs.differential)
        write_table(types_by_cluster(cells), inputs.clusters)
        write_table(verdicts.verdict_table(evidence.clusters), inputs.verdicts)
        write_json(
            {
                "sample": inputs.sample,
                **verdicts.count_verdicts(evidence.clusters),
                "warnings": [*verdicts.verdict_warnings(evidence.clusters), *missed_types(cells)],
            },
            inputs.verdict_summary,
        )
        agreement, truth_notes = hold_against_truth(adata.obs, cells, manifest, inputs)
        page = render(
            build_page(
                inputs,
                convert,
                qc,
                annotation,
                manifest,
                cells,
                evidence,
                agreement,
                [("comparisons", notes), ("known labels", truth_notes)],
                provenance,
                {"obs": list(adata.obs.keys()), "obsm": list(adata.obsm), "uns": list(adata.uns)},
                model_parts(annotation, adata.obs, cells.umap, evidence.colours, manifests),
            )
        )
    finally:
        adata.file.close()
    size = len(page.encode())
    if size > MAX_BYTES:
        warn(
            f"sample '{inputs.sample}': the report has {size / 1e6:.1f} MB; above 8 MB some viewers refuse it"
        )
    with atomic_path(inputs.output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    log(f"{inputs.sample}: wrote {inputs.output.name} ({size / 1e6:.1f} MB)")


def library_versions() -> list[tuple[str, str]]:
    """Versions of what made this page."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    rows = [("python", platform.python_version())]
    for name in ("anndata", "scanpy", "numpy", "scipy", "matplotlib"):
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return rows


def draw_figures(cells: Cells, colours: dict[str, str], background: np.ndarray | None) -> dict[str, str]:
    """Draw FIGURES: name to data URI, "" for what the file has no coordinates for."""
    drawn: dict[str, bytes] = {}
    if cells.umap is not None:
        drawn["labels"] = figures.umap_by_category(cells.umap, cells.final, colours)
        drawn["uncertainty"] = figures.umap_by_number(cells.umap, cells.uncertainty)
        if cells.cluster is not None:
            sizes = dict(zip(*np.unique(cells.cluster.astype(str), return_counts=True), strict=True))
            cluster_colours = figures.other_colours(sorted(sizes, key=lambda name: -sizes[name]), colours)
            drawn["clusters"] = figures.umap_by_category(
                cells.umap, cells.cluster, cluster_colours, **figures.SMALL
            )
        if len(set(cells.final)) > 2:
            drawn["multiples"] = figures.small_multiples(cells.umap, cells.final, colours)
    if cells.reference_umap is not None:
        drawn["reference"] = figures.umap_by_category(
            cells.reference_umap, cells.final, colours, background=background, **figures.SMALL
        )
    drawn["uncertainty_histogram"] = figures.histogram(cells.uncertainty, cells.unassigned, "uncertainty")
    if cells.distance is not None:
        drawn["distance_histogram"] = figures.histogram(
            cells.distance,
            cells.unassigned,
            "distance to the reference, as a quantile of the reference's own",
            line=0.99,
            note="beyond 99 % of the reference",
        )
    return {name: figures.data_uri(drawn[name]) if name in drawn else "" for name in FIGURES}


def reference_background(model: Path) -> np.ndarray | None:
    """The reference cells' own UMAP, (n, 2), where the model has it."""
    path = model / "reference.safetensors"
    if not path.is_file():
        return None
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as tensors:
        if "umap" not in tensors.keys():  # noqa: SIM118  (not a dict)
            return None
        values = np.asarray(tensors.get_tensor("umap"), dtype=np.float64)
    return values[:, :2] if values.ndim == 2 and values.shape[1] >= 2 and np.isfinite(values).all() else None


def build_page(
    inputs: ReportInputs,
    convert: dict[str, Any],
    qc: dict[str, Any],
    annotation: dict[str, Any],
    manifest: dict[str, Any],
    cells: Cells,
    evidence: MarkerEvidence,
    agreement: truth.Agreement | None,
    own_notes: Sequence[tuple[str, Sequence[str]]],
    provenance: dict[str, Any],
    present: dict[str, Sequence[str]],
    models: dict[str, Any],
) -> dict[str, Any]:
    """Everything that the template prints."""
    n, n_left = len(cells.final), int(cells.unassigned.sum())
    # Of cells without a name the model says itself that their label does not hold.
    named = cells.uncertainty[~cells.unassigned]
    model = annotation.get("model") or {}
    by_cluster = verdicts.verdict_warnings(evidence.clusters)
    told = {one.label for one in evidence.clusters if one.support.verdict == verdicts.CONTRADICTED}
    by_label = [
        f"The genes contradict the name '{one.label}' ({plural(one.n_cells, 'cell')}): {one.why}."
        for one in evidence.named
        if one.verdict == verdicts.CONTRADICTED and one.label not in told
    ]
    rows = composition(cells, evidence, manifest, label_scores(inputs.models))
    reasons, numbers = np.unique(cells.reason[cells.unassigned].astype(str), return_counts=True)
    overlap = gene_overlap(annotation)
    date = str(provenance.get("date") or datetime.datetime.now(tz=datetime.UTC).date().isoformat())[:10]
    parameters = dict(flatten(annotation.get("parameters") or {}))
    # The parameters stand in annotation.json too, where they are no text to be taken apart.
    provenance = {key: value for key, value in provenance.items() if key != "parameters"}
    details = {key: value for key, value in flatten(provenance) if key not in parameters and value}
    kinds = {str(one.get("kind") or "") for one in (manifest, model, *models.get("rows", []))}
    needs = {
        "called": bool(convert.get("called_cells")),
        "scvi": bool(kinds & {"scvi", "consensus"}),
        "consensus": "consensus" in kinds,
        "orthologs": bool(annotation.get("orthologs")),
        "celltypist": (manifest.get("source") or {}).get("program") == "CellTypist",
        "": True,
    }
    return {
        "sample": inputs.sample,
        "model": {key: str(model.get(key) or "") for key in ("name", "version", "sha256", "url")},
        "manifest": {key: str(manifest.get(key) or "") for key in ("description", "licence", "citation")},
        "date": date,
        "verdict": " ".join(
            part
            for part in (
                verdict(cells.final, cells.predicted, cells.reason, annotation.get("novel_by")),
                supported_clusters(evidence.clusters),
            )
            if part
        ),
        "warnings": merge_warnings(
            ("clusters", by_cluster),
            ("markers", by_label),
            ("composition", missed_types(cells)),
            ("reading", convert.get("warnings") or []),
            ("quality control", qc.get("warnings") or []),
            ("annotation", annotation.get("warnings") or []),
            *own_notes,
        ),
        "notes": [str(note) for note in convert.get("notes") or []],
        "key_figures": [
            (count(convert.get("n_cells")), "cells read"),
            (count(qc.get("n_cells_pass", qc.get("n_cells_after"))), "passed quality control"),
            names_given(cells, manifest),
            (percent(n_left / n), "unassigned"),
            (
                f"{np.median(named):.2f}" if len(named) else "–",
                "median uncertainty of the named cells",
            ),
            *([(percent(overlap), "of the model's genes found")] if overlap is not None else []),
        ],
        "done": what_was_done(convert, qc, annotation, manifest),
        "parameters": parameters,
        "qc": {
            **qc_tables(qc),
            "n_before": count(qc.get("n_cells_before")),
            "n_after": count(qc.get("n_cells_pass", qc.get("n_cells_after"))),
        },
        "qc_figures": [
            (title, figures.data_uri(path.read_bytes()))
            for title, path in (
                ("Metrics and their bounds", inputs.qc_violin),
                ("Counts by barcode rank", inputs.qc_knee),
                ("Counts, genes and mitochondrial share", inputs.qc_scatter),
            )
            if path.stat().st_size
        ],
        "figures": draw_figures(cells, evidence.colours, reference_background(inputs.models[0])),
        "models": models,
        "composition": rows,
        "has_test": any(row["tested"] for row in rows),
        "reasons": [
            (
                count(number_),
                percent(number_ / max(n_left, 1)),
                WHY_UNASSIGNED[str(name)][2] if str(name) in WHY_UNASSIGNED else readable(str(name)),
            )
            for name, number_ in sorted(zip(reasons, numbers, strict=True), key=lambda item: -item[1])
        ],
        "expected_right": percent(float((1 - named).mean()), 0) if len(named) else "",
        "dot_plots": [figures.data_uri(png) for png in evidence.dot_plots],
        "top_plots": [figures.data_uri(png) for png in evidence.top_plots],
        "cluster_grid": cluster_grid(cells),
        "truth": {} if agreement is None else truth_part(agreement),
        "truth_file": inputs.truth.name,
        "comparisons": comparison_parts(evidence),
        "n_comparisons": len(evidence.contrasts),
        "differential_file": inputs.differential.name,
        "clusters_file": inputs.clusters.name,
        "verdicts_file": inputs.verdicts.name,
        "cluster_counts": verdict_counts(evidence.clusters),
        "has_markers": evidence.has_markers,
        "rule": verdicts.RULE,
        "named": evidence.named,
        "signs": signs_of_unassigned(cells),
        "has_novelty": cells.novelty is not None,
        "left": [one for one in evidence.left if one.n_cells >= verdicts.MIN_CELLS_TO_JUDGE],
        "colours": evidence.colours,
        "top_genes": top_genes(evidence.table, [*(one.label for one in evidence.named), UNASSIGNED]),
        "unassigned": UNASSIGNED,
        "n_tested": count(evidence.n_tested),
        "all_tested": evidence.n_tested == n,
        "markers_file": inputs.markers.name,
        "clusters": cluster_rows(cells, annotation, evidence.clusters),
        "trusted_code": trusted_code(annotation),
        "calibrated": annotation.get("calibrated", True),
        "most_panels": figures.MOST_PANELS,
        "most_rows": MOST_ROWS,
        "orthologs": annotation.get("orthologs"),
        "sets": set_shares(annotation.get("set_sizes")),
        "overlap": overlap is not None
        and {
            "share": percent(overlap),
            "width": 100 * min(max(overlap, 0.0), 1.0),
            "found": count(annotation.get("n_genes_found")),
            "of": count(annotation.get("n_model_genes")),
            "by": annotation.get("genes_matched_by", ""),
            "orthologs": by_orthologs(annotation),
            "refit": annotation.get("n_refit_genes") and count(annotation["n_refit_genes"]),
            "missing": [_gene_name(gene) for gene in (annotation.get("missing_genes") or [])[:50]],
        },
        "distance": annotation.get("reference_distance") or {},
        "does_not_know": [str(name) for name in manifest.get("does_not_know") or []],
        "details": details,
        "versions": [("cellscribe", inputs.pipeline_version), *library_versions()],
        "columns": columns_guide(annotation, present),
        "curation": curation_part(read_json(inputs.curation)) if inputs.curation else None,
        "annotated_file": inputs.annotated.name,
        "methods": [(name, reference) for name, reference, need in METHODS if needs[need]],
        "pipeline_version": inputs.pipeline_version,
    }


def _gene_name(gene: Any) -> str:
    if isinstance(gene, dict):
        return str(gene.get("symbol") or gene.get("gene_id") or "")
    return str(gene)


def render(page: dict[str, Any], template: str = "report.html.j2") -> str:
    """Fill a template. Every value is escaped; the only unescaped text is our own style sheet."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["as_code"] = as_code
    style = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(**page, style=style)
