"""The page of one sample: what was done to it, what its cells are called, and how far to trust that."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cellscribe import differential, figures, truth, verdicts
from cellscribe.annotation_info import FAR_QUANTILE
from cellscribe.cli import log, warn
from cellscribe.colours import cluster_colours, labels_said
from cellscribe.contract import UNASSIGNED
from cellscribe.drawing import data_uri
from cellscribe.io import atomic_path, read_json, write_json, write_table
from cellscribe.report_composition import (
    CLUSTERS_SHOWN,
    MOSTLY_UNASSIGNED,
    cluster_grid,
    cluster_rows,
    composition,
    handfuls,
    missed_types,
    names_given,
    poor_labels,
    poorly_named,
    reasons_of_unassigned,
    signs_of_unassigned,
    supported_clusters,
    too_shallow_to_tell,
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
from cellscribe.report_limits import limits_changed, limits_used
from cellscribe.report_models import (
    joint_manifest,
    joint_markers,
    label_scores,
    model_parts,
    read_optional,
    relatives,
)
from cellscribe.report_steps import (
    cellranger_numbers,
    clusters_from,
    columns_guide,
    curation_part,
    gene_overlap,
    mt_known,
    n_passed,
    overlap_part,
    qc_tables,
    set_shares,
    trusted_code,
    what_was_done,
)
from cellscribe.report_truth import hold_against_truth, truth_part
from cellscribe.report_words import (
    as_code,
    count,
    flatten,
    merge_warnings,
    percent,
    verdict,
)
from cellscribe.words import plural

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
    ("Leiden clustering", "Traag, Waltman & van Eck, Scientific Reports 9:5233 (2019)", "leiden"),
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


@dataclass(frozen=True)
class Findings:
    """All that the page of a sample is made from.

    convert, qc, annotation: the steps' JSON. manifest: `joint_manifest` of the models; tested: their `label_scores`.
    agreement: with known labels, None without any. own_warnings: what REPORT itself warns of, by its source;
    truth_notes: of known labels. provenance: as `plain_uns` gives it.
    present: for `obs`, `obsm` and `uns`, the keys that the file has. models: as `model_parts` gives it.
    """

    inputs: ReportInputs
    convert: dict[str, Any]
    qc: dict[str, Any]
    annotation: dict[str, Any]
    manifest: dict[str, Any]
    tested: dict[str, dict[str, float]]
    cells: Cells
    evidence: MarkerEvidence
    agreement: truth.Agreement | None
    own_warnings: Sequence[tuple[str, Sequence[str]]]
    truth_notes: Sequence[str]
    provenance: dict[str, Any]
    present: dict[str, Sequence[str]]
    models: dict[str, Any]

    @property
    def named_uncertainty(self) -> np.ndarray:
        """(n_named,): of the cells with a name. Of the others the model says itself that their label does not hold."""
        return self.cells.uncertainty[~self.cells.unassigned]


def write_report(inputs: ReportInputs) -> None:
    """Write the page, and the tables of markers, of differential expression, of types by cluster and of verdicts.

    With a `truth_key` also the table of agreement with these labels, where the sample has them, and its JSON.

    Raises InputError where the annotated file lacks the labels that annotation.json names. X is read a block
    of cells at a time, so that memory holds no more of it than the tests' 20,000 cells, 200 of each rare label, and
    40,000 for comparisons.
    """
    import anndata

    convert, qc, annotation = (read_json(path) for path in (inputs.convert, inputs.qc, inputs.annotation))
    manifests = [read_optional(model / "manifest.json") for model in inputs.models]
    manifest = joint_manifest(manifests, annotation)
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
            labels_said(provenance),
            not_shown=handfuls(cells, manifest),
            own_too=any(not one.get("orthologs") for one in annotation.get("models") or []),
        )
        tested = label_scores(inputs.models)
        warned = own_warnings(evidence, cells, notes, tested)
        write_table(evidence.table, inputs.markers)
        write_table(printed(evidence.differential), inputs.differential)
        write_table(types_by_cluster(cells), inputs.clusters)
        write_table(verdicts.verdict_table(evidence.clusters, evidence.cluster_genes), inputs.verdicts)
        write_json(
            {
                "sample": inputs.sample,
                **verdicts.count_verdicts(evidence.clusters),
                "warnings": [text for _, told in warned for text in told],
            },
            inputs.verdict_summary,
        )
        agreement, truth_notes = hold_against_truth(adata.obs, cells, manifest, inputs)
        page = render(
            build_page(
                Findings(
                    inputs=inputs,
                    convert=convert,
                    qc=qc,
                    annotation=annotation,
                    manifest=manifest,
                    tested=tested,
                    cells=cells,
                    evidence=evidence,
                    agreement=agreement,
                    own_warnings=warned,
                    truth_notes=truth_notes,
                    provenance=provenance,
                    present={
                        "obs": list(adata.obs.keys()),
                        "obsm": list(adata.obsm),
                        "uns": list(adata.uns),
                    },
                    models=model_parts(annotation, adata.obs, cells.umap, evidence.colours, manifests),
                )
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
    """Python and the packages that made this page, each with its version."""
    packages = ("anndata", "scanpy", "numpy", "scipy", "matplotlib")
    return [("python", platform.python_version()), *((name, metadata.version(name)) for name in packages)]


def draw_figures(cells: Cells, colours: dict[str, str], background: np.ndarray | None) -> dict[str, str]:
    """Draw FIGURES: name to data URI, "" for what the file has no coordinates for."""
    drawn: dict[str, bytes] = {}
    if cells.umap is not None:
        drawn["labels"] = figures.umap_by_category(
            cells.umap, cells.final, colours, least_share=figures.LEAST_SHARE_WRITTEN
        )
        drawn["uncertainty"] = figures.umap_by_number(cells.umap, cells.uncertainty)
        if cells.cluster is not None:
            of_clusters = cluster_colours(cells.cluster, colours, cells.no_cluster)
            drawn["clusters"] = figures.umap_by_category(
                cells.umap, cells.cluster, of_clusters, **figures.SMALL
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
            line=FAR_QUANTILE,
            note=f"beyond {percent(FAR_QUANTILE, 0)} of the reference",
        )
    return {name: data_uri(drawn[name]) if name in drawn else "" for name in FIGURES}


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


def build_page(found: Findings) -> dict[str, Any]:
    """Everything that the template prints, in its order."""
    return {
        **heading(found),
        "warnings": all_warnings(found),
        "key_figures": key_figures(found),
        "done": what_was_done(found.convert, found.qc, found.annotation, found.manifest),
        "notes": [str(note) for note in found.convert.get("notes") or []],
        **quality_control(found),
        **maps(found),
        **composition_section(found),
        "models": found.models,
        "truth": {} if found.agreement is None else truth_part(found.agreement),
        "truth_file": found.inputs.truth.name,
        **marker_section(found),
        "comparisons": comparison_parts(found.evidence),
        "n_comparisons": len(found.evidence.contrasts),
        **cluster_section(found),
        **trust(found),
        "curation": curation_part(read_json(found.inputs.curation)) if found.inputs.curation else None,
        **provenance_section(found),
        "methods": methods_used(found),
    }


def heading(found: Findings) -> dict[str, Any]:
    """The sample, the model, and what became of the cells in a sentence or two."""
    cells, model = found.cells, found.annotation.get("model") or {}
    said = (
        verdict(cells.final, cells.predicted, cells.reason, found.annotation.get("novel_by")),
        limits_changed(found.annotation.get("parameters") or {}),
        supported_clusters(found.evidence.clusters),
    )
    date = str(found.provenance.get("date") or datetime.datetime.now(tz=datetime.UTC).date().isoformat())
    return {
        "sample": found.inputs.sample,
        "pipeline_version": found.inputs.pipeline_version,
        "model": {key: str(model.get(key) or "") for key in ("name", "version", "sha256", "url")},
        "manifest": {
            key: str(found.manifest.get(key) or "") for key in ("description", "licence", "citation")
        },
        "date": date[:10],
        "verdict": " ".join(part for part in said if part),
        "beside": [
            (f"{found.inputs.sample}.predictions.tsv.gz", "the labels"),
            (found.inputs.annotated.name, "the cells"),
            (found.inputs.markers.name, "marker genes"),
        ],
    }


def own_warnings(
    evidence: MarkerEvidence,
    cells: Cells,
    comparisons: Sequence[str],
    tested: dict[str, dict[str, float]],
) -> list[tuple[str, Sequence[str]]]:
    """What REPORT itself warns of, by its source; of genes that contradict a name, of its clusters, else of the name.

    comparisons: what is said of those that were asked for and could not be made. tested: `label_scores`. Of single
    types nothing where most cells have no name.
    """
    told = {one.label for one in evidence.clusters if one.support.verdict == verdicts.CONTRADICTED}
    by_label = [
        f"The genes contradict the name '{one.label}' ({plural(one.n_cells, 'cell')}): {one.why}."
        for one in evidence.named
        if one.verdict == verdicts.CONTRADICTED and one.label not in told
    ]
    of_types = [
        ("markers", by_label),
        ("the model's own test", poorly_named(cells, poor_labels(tested))),
        ("composition", missed_types(cells)),
    ]
    return [
        ("clusters", verdicts.verdict_warnings(evidence.clusters)),
        *(of_types if cells.unassigned.mean() <= MOSTLY_UNASSIGNED else []),
        ("comparisons", comparisons),
    ]


def all_warnings(found: Findings) -> list[dict[str, Any]]:
    """What every step warns of: of the sample as a whole first, of clusters and types after it."""
    return merge_warnings(
        ("annotation", found.annotation.get("warnings") or []),
        ("reading", found.convert.get("warnings") or []),
        ("quality control", found.qc.get("warnings") or []),
        *found.own_warnings,
        ("known labels", found.truth_notes),
    )


def key_figures(found: Findings) -> list[tuple[str, str]]:
    """The numbers of the first screen, each with its words."""
    named, overlap = found.named_uncertainty, gene_overlap(found.annotation)
    return [
        (count(found.convert.get("n_cells")), "cells read"),
        (count(n_passed(found.qc)), "passed quality control"),
        names_given(found.cells, found.manifest),
        (percent(float(found.cells.unassigned.mean())), "unassigned"),
        (f"{np.median(named):.2f}" if len(named) else "–", "median uncertainty of the named cells"),
        *([(percent(overlap), "of the model's genes found")] if overlap is not None else []),
    ]


def quality_control(found: Findings) -> dict[str, Any]:
    """Metrics, bounds and reasons of removal, and QC's figures; a figure that could not be drawn is an empty file."""
    inputs = found.inputs
    drawn = (
        ("Metrics and their bounds", inputs.qc_violin),
        ("Counts by barcode rank", inputs.qc_knee),
        (
            "Counts, genes and mitochondrial share" if mt_known(found.qc) else "Counts and genes",
            inputs.qc_scatter,
        ),
    )
    return {
        "qc": qc_tables(found.qc),
        "removed_file": f"{inputs.sample}.removed.tsv.gz",
        "sequencing": cellranger_numbers(found.convert.get("cellranger_metrics") or {}),
        "qc_figures": [(title, data_uri(path.read_bytes())) for title, path in drawn if path.stat().st_size],
    }


def maps(found: Findings) -> dict[str, Any]:
    """The figures of the cells, and the colours of their labels."""
    colours = found.evidence.colours
    return {
        "figures": draw_figures(found.cells, colours, reference_background(found.inputs.models[0])),
        "colours": colours,
        "most_panels": figures.MOST_PANELS,
    }


def composition_section(found: Findings) -> dict[str, Any]:
    """Each label's cells, and why the others have none."""
    rows = composition(found.cells, found.evidence, found.manifest, found.tested)
    return {
        "composition": rows,
        "poor": poor_labels(found.tested),
        "has_test": any(row["tested"] for row in rows),
        "has_novelty": found.cells.novelty is not None,
        "reasons": reasons_of_unassigned(found.cells),
        "limits": limits_used(found.annotation, found.manifest),
        "does_not_know": [str(name) for name in found.manifest.get("does_not_know") or []],
    }


def marker_section(found: Findings) -> dict[str, Any]:
    """Whether the genes agree with the names, and which genes mark each name here."""
    evidence = found.evidence
    return {
        "dot_plots": [data_uri(png) for png in evidence.dot_plots],
        "most_rows": MOST_ROWS,
        "named": evidence.named,
        "rule": verdicts.RULE,
        "left": [one for one in evidence.left if one.n_cells >= verdicts.MIN_CELLS_TO_JUDGE],
        "signs": signs_of_unassigned(found.cells),
        "unassigned": UNASSIGNED,
        "top_genes": top_genes(evidence.shown, [*(one.label for one in evidence.named), UNASSIGNED]),
        "top_plots": [data_uri(png) for png in evidence.top_plots],
        "handfuls": [name for name in evidence.not_shown if (evidence.table["label"] == name).any()],
        "n_tested": count(evidence.n_tested),
        "all_tested": evidence.n_tested == len(found.cells.final),
        "markers_file": found.inputs.markers.name,
        "differential_file": found.inputs.differential.name,
    }


def cluster_section(found: Findings) -> dict[str, Any]:
    """Each cluster's name with its verdict, and which types it holds."""
    judged = found.evidence.clusters
    rows = cluster_rows(found.cells, found.annotation, judged, found.evidence.cluster_genes)
    return {
        "clusters": rows[:CLUSTERS_SHOWN],
        "clusters_hidden": max(len(rows) - CLUSTERS_SHOWN, 0),
        "clusters_folded": too_shallow_to_tell(judged, found.cells),
        "clusters_from": clusters_from(found.annotation),
        "no_cluster": found.cells.no_cluster,
        "cluster_counts": verdict_counts(judged),
        "cluster_grid": cluster_grid(found.cells),
        "has_markers": found.evidence.has_markers,
        "verdicts_file": found.inputs.verdicts.name,
        "clusters_file": found.inputs.clusters.name,
    }


def trust(found: Findings) -> dict[str, Any]:
    """How far to trust the names: uncertainty, distance to the reference, genes shared with the model."""
    annotation, named = found.annotation, found.named_uncertainty
    return {
        "calibrated": annotation.get("calibrated", True),
        "expected_right": percent(float((1 - named).mean()), 0) if len(named) else "",
        "sets": set_shares(annotation.get("set_sizes")),
        "predictions_file": f"{found.inputs.sample}.predictions.tsv.gz",
        "orthologs": annotation.get("orthologs"),
        "distance": annotation.get("reference_distance") or {},
        "overlap": overlap_part(annotation),
    }


def provenance_section(found: Findings) -> dict[str, Any]:
    """What made the file, with the parameters of its steps, and what stands where in it."""
    of_naming = dict(flatten(found.annotation.get("parameters") or {}))
    # The parameters stand in annotation.json too, where they are no text to be taken apart.
    others = {key: value for key, value in found.provenance.items() if key != "parameters"}
    details = {key: value for key, value in flatten(others) if key not in of_naming and value}
    of_qc = {key: value for key, value in (found.qc.get("parameters") or {}).items() if key != "sample"}
    parameters = (
        ("Parameters of quality control", list(flatten(of_qc))),
        ("Parameters of naming, and what the file says of it", [*of_naming.items(), *details.items()]),
    )
    return {
        "trusted_code": trusted_code(found.annotation),
        "versions": [("cellscribe", found.inputs.pipeline_version), *library_versions()],
        "parameters": [(title, values) for title, values in parameters if values],
        "annotated_file": found.inputs.annotated.name,
        "columns": columns_guide(found.annotation, found.present),
    }


def methods_used(found: Findings) -> list[tuple[str, str]]:
    """METHODS without those that this sample had no part in, each as (name, reference)."""
    ways = (found.manifest, found.annotation.get("model") or {}, *found.models.get("rows", []))
    kinds = {str(one.get("kind") or "") for one in ways}
    used = {
        "": True,
        "leiden": "cluster_key" not in (found.annotation.get("parameters") or {}),
        "called": bool(found.convert.get("called_cells")),
        "scvi": bool(kinds & {"scvi", "consensus"}),
        "consensus": "consensus" in kinds,
        "orthologs": bool(found.annotation.get("orthologs")),
        "celltypist": (found.manifest.get("source") or {}).get("program") == "CellTypist",
    }
    return [(name, reference) for name, reference, need in METHODS if used[need]]


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
