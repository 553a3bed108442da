"""The page of one sample: what was done to it, what its cells are called, and how far to trust that."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe import differential, figures, markers, truth, verdicts
from cellscribe.cli import log, warn
from cellscribe.contract import FAR, REASONS, STRANGE, UNASSIGNED, UNEXPECTED_GENES, OutputNames
from cellscribe.errors import InputError
from cellscribe.io import atomic_path, read_json, write_json, write_table
from cellscribe.model.logistic import log_normalise
from cellscribe.report_models import joint_manifest, joint_markers, model_parts, read_optional, relatives

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    import scipy.sparse as sp
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
# What Seqera Platform shows in the browser is at most 10 MB.
MAX_BYTES = 8_000_000
CELLS_TESTED = 20_000
BLOCK = 10_000
TOP_GENES = 8
COMPARISONS_SHOWN = 12
GENES_COMPARED = 12
TYPES_BY_CLUSTER = 18
KNOWN_LABELS_SHOWN = 40
LABELS_IN_SENTENCE = 3
# Rows of a dot plot.
MOST_ROWS = 60
FIGURES = (
    "labels",
    "uncertainty",
    "clusters",
    "multiples",
    "reference",
    "uncertainty_histogram",
    "distance_histogram",
)
# Inches; figures that stand three in a row.
SMALL: dict[str, Any] = {"width": 3.8, "height": 3.5}

# Name and unit.
METRICS = {
    "total_counts": ("Counts a cell", ""),
    "n_genes_by_counts": ("Genes a cell", ""),
    "pct_counts_mt": ("Mitochondrial share", " %"),
    "pct_counts_ribo": ("Ribosomal share", " %"),
    "pct_counts_hb": ("Haemoglobin share", " %"),
    "doublet_score": ("Doublet score", ""),
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
# How it is said of several cells, of one, and the reason itself.
WHY_UNASSIGNED = {
    "novel": ("they are ", "it is ", REASONS["novel"]),
    "ambiguous": ("", "", "no label, and no common ancestor of labels, is probable enough"),
    "disagreement": ("", "", "the models contradict each other, and no common ancestor is probable enough"),
    "low_information": ("they have ", "it has ", "too few counts on the model's genes"),
}
# The causes of `novel`: how each is said of several cells, and of one.
NOVEL_BY = {
    FAR: ("are far from every reference cell", "is far from every reference cell"),
    UNEXPECTED_GENES: (
        "express genes that no reference type does",
        "expresses genes that no reference type does",
    ),
    STRANGE: (
        "look stranger to the model than nearly all known cells",
        "looks stranger to the model than nearly all known cells",
    ),
}
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
    ("CellTypist", "Domínguez Conde et al., Science 376:eabl5197 (2022)", "celltypist"),
    ("Cell Ontology", "Diehl et al., Journal of Biomedical Semantics 7:44 (2016)", ""),
]


@dataclass(frozen=True)
class ReportInputs:
    """The files of one sample that the page is made from, and where it goes."""

    sample: str
    annotated: Path
    convert: Path
    qc: Path
    annotation: Path
    qc_violin: Path
    qc_knee: Path
    qc_scatter: Path
    models: Sequence[Path]
    output: Path
    markers: Path
    differential: Path
    clusters: Path
    verdicts: Path
    verdict_summary: Path
    truth: Path
    truth_summary: Path
    compare: str = ""
    truth_key: str = ""
    truth_csv: Path | None = None
    curation: Path | None = None
    pipeline_version: str = "unknown"


@dataclass(frozen=True)
class Cells:
    """The columns of obs and obsm that the page shows; every array has one row a cell."""

    predicted: np.ndarray
    final: np.ndarray
    reason: np.ndarray
    uncertainty: np.ndarray
    distance: np.ndarray | None
    unexpected: np.ndarray | None
    novelty: np.ndarray | None
    cluster: np.ndarray | None
    umap: np.ndarray | None
    reference_umap: np.ndarray | None
    cl_ids: dict[str, str]

    @property
    def unassigned(self) -> np.ndarray:
        """bool, (n_obs,): the cells without a name."""
        return self.final == UNASSIGNED


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
        cells, provenance = read_cells(adata, annotation, inputs), _plain_uns(adata, annotation)
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
                "warnings": verdicts.verdict_warnings(evidence.clusters),
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


# --- reading ---


def read_cells(adata: anndata.AnnData, annotation: dict[str, Any], inputs: ReportInputs) -> Cells:
    """Pick what the page needs by the names that annotation.json gives.

    Raises InputError naming the column that is not there.
    """
    names = annotation.get("names") or {}

    def column(name: str) -> Any:
        key = names.get(name, "")
        if key not in adata.obs:
            raise InputError(
                f"obs has no column '{key or name}', which annotation.json gives as its '{name}'",
                "Give the annotated.h5ad and the annotation.json of the same run of ANNOTATE.",
                sample=inputs.sample,
                file=inputs.annotated,
            )
        return adata.obs[key]

    def optional(name: str) -> Any:
        return adata.obs[names[name]] if names.get(name) in adata.obs else None

    def coordinates(name: str) -> np.ndarray | None:
        if names.get(name) not in adata.obsm:
            return None
        values = np.asarray(adata.obsm[names[name]], dtype=np.float64)
        usable = values.ndim == 2 and values.shape[1] >= 2 and len(values) and np.isfinite(values).all()
        return values[:, :2] if usable else None

    if not adata.n_obs:
        raise InputError("there are no cells to report on", sample=inputs.sample, file=inputs.annotated)
    predicted, final = differential.as_text(column("predicted")), differential.as_text(column("final"))
    distance, cluster = optional("reference_distance"), optional("cluster")
    unexpected, novelty = optional("unexpected"), optional("novelty")
    cl_ids: dict[str, str] = {}
    output = OutputNames(str(names["predicted"]).removesuffix("_predicted"))
    for labels, key in ((predicted, names.get("cl_id")), (final, output.final_cl_id)):
        if key in adata.obs:
            for label, cl_id in dict.fromkeys(zip(labels, differential.as_text(adata.obs[key]), strict=True)):
                cl_ids.setdefault(label, cl_id)
    return Cells(
        predicted=predicted,
        final=final,
        reason=differential.as_text(column("reason")),
        uncertainty=np.nan_to_num(column("uncertainty").to_numpy(dtype=np.float64), nan=1.0),
        distance=None if distance is None else np.nan_to_num(distance.to_numpy(dtype=np.float64), nan=1.0),
        unexpected=None if unexpected is None else np.nan_to_num(unexpected.to_numpy(dtype=np.float64)),
        novelty=None if novelty is None else np.nan_to_num(novelty.to_numpy(dtype=np.float64)),
        cluster=None if cluster is None else differential.as_text(cluster),
        umap=coordinates("umap"),
        reference_umap=coordinates("reference_umap"),
        cl_ids=cl_ids,
    )


def _plain_uns(adata: anndata.AnnData, annotation: dict[str, Any]) -> dict[str, Any]:
    """The provenance that ANNOTATE left in uns: an object, or JSON text of one."""
    names = annotation.get("names") or {}
    key = OutputNames(str(names["predicted"]).removesuffix("_predicted")).predictions
    value = adata.uns.get(names.get("predictions", key), {})
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return dict(value) if hasattr(value, "items") else {}


# --- markers ---


@dataclass(frozen=True)
class MarkerEvidence:
    """What the genes say: verdicts by final label, of the unassigned by closest label, by cluster; tests; dot plots."""

    named: list[verdicts.Support]
    left: list[verdicts.Support]
    clusters: list[verdicts.ClusterVerdict]
    table: pd.DataFrame
    differential: pd.DataFrame
    contrasts: list[differential.Contrast]
    dot_plots: list[bytes]
    top_plots: list[bytes]
    n_tested: int
    colours: dict[str, str]
    has_markers: bool


def marker_evidence(
    adata: anndata.AnnData,
    cells: Cells,
    expected: dict[str, list[markers.Marker]],
    matched_by: str,
    orthologs: dict[str, Any] | None = None,
    contrasts: Sequence[differential.Contrast] = (),
    final_key: str = "",
    kin: Mapping[str, frozenset[str]] | None = None,
    labels: Sequence[str] = (),
) -> MarkerEvidence:
    """Look at every label's expected markers, and test for the genes that mark it here, in one pass of X.

    orthologs: between which organisms the mapping used them. The same pass keeps the cells of the contrasts, and
    tests them. labels: the model's, in whose order they have their colours, on the page of all samples too.
    """
    import scipy.sparse as sp

    pairs, codes = _grouped(cells.predicted, cells.final)
    cluster = np.full(len(codes), "", dtype=object) if cells.cluster is None else cells.cluster
    by_cluster, cluster_codes = _grouped(cluster, cells.predicted)
    others = None
    if orthologs:
        from cellscribe.orthologs import named_as

        column = matched_by if matched_by in adata.var else None
        others, _ = named_as(adata.var, orthologs["from"], orthologs["to"], column)
    located = markers.locate_markers(expected, adata.var, matched_by, others)
    columns = sorted({column for hits in located.values() for _, column in hits})
    _, final_codes = np.unique(cells.final.astype(str), return_inverse=True)
    sample = markers.stratified_sample(final_codes, CELLS_TESTED)
    wanted = np.unique(
        np.concatenate([sample, *(rows for one in contrasts for rows in (one.rows_in, one.rows_out))])
    )
    kept: list[sp.csr_matrix] = []
    statistics = markers.GroupStatistics.zeros(len(pairs), adata.n_vars)
    cluster_statistics = markers.GroupStatistics.zeros(len(by_cluster), len(columns))
    for start in range(0, adata.n_obs, BLOCK):
        end = min(start + BLOCK, adata.n_obs)
        block = log_normalise(sp.csr_matrix(adata.X[start:end]))
        statistics.add(codes[start:end], block)
        cluster_statistics.add(cluster_codes[start:end], block[:, columns])
        first, last = np.searchsorted(wanted, [start, end])
        kept.append(block[wanted[first:last] - start])
    expression = sp.vstack(kept, format="csr")
    kept.clear()
    predicted, final = (np.array(part, dtype=object) for part in zip(*pairs, strict=True))
    judge = verdicts.Judge(statistics, predicted, predicted, located, expected, kin or {})
    named, left = verdicts.judge_labels(judge, final)
    clusters: list[verdicts.ClusterVerdict] = []
    if cells.cluster is not None:
        of_cluster, of_label = (np.array(part, dtype=object) for part in zip(*by_cluster, strict=True))
        place = {column: i for i, column in enumerate(columns)}
        own = {label: [(gene, place[column]) for gene, column in hits] for label, hits in located.items()}
        clusters = verdicts.judge_clusters(
            verdicts.Judge(cluster_statistics, of_label, of_cluster, own, expected, kin or {}),
            cells.cluster,
            cells.predicted,
            cells.final,
        )
    sizes = dict(zip(*np.unique(cells.final.astype(str), return_counts=True), strict=True))
    types = differential.each_against_rest(
        expression[np.searchsorted(wanted, sample)], cells.final[sample], adata.var, final_key, sizes
    )
    # What the user compares goes before the same by itself, whose cells may be others.
    asked = [
        one.group
        for one in contrasts
        if (one.column, one.against, one.within) == (final_key, differential.REST, "")
    ]
    tested = [types[~types["group"].isin(asked)]]
    for one in contrasts:
        rows = np.searchsorted(wanted, np.concatenate([one.rows_in, one.rows_out]))
        tested.append(differential.contrast_genes(expression[rows], len(one.rows_in), one, adata.var))
    table = markers.rank_markers(
        types, adata.var, {label: {column for _, column in hits} for label, hits in located.items()}
    )
    colours = figures.label_colours(
        sorted(sizes, key=lambda name: -sizes[name]), list(dict.fromkeys([*labels, *expected]))
    )
    return MarkerEvidence(
        named,
        left,
        clusters,
        table,
        differential.together(tested),
        list(contrasts),
        _expected_plots(statistics, predicted, final, named, left, located, colours),
        _found_plots(statistics, final, table, adata.var, named, colours),
        len(sample),
        colours,
        any(expected.values()),
    )


def _grouped(first: np.ndarray, second: np.ndarray) -> tuple[list[tuple[str, str]], np.ndarray]:
    """The pairs of values that cells have, sorted, and the number of each cell's pair, int (n_obs,)."""
    pairs = sorted(set(zip(first, second, strict=True)))
    position = {pair: i for i, pair in enumerate(pairs)}
    return pairs, np.array([position[pair] for pair in zip(first, second, strict=True)])


def _expected_plots(
    statistics: markers.GroupStatistics,
    predicted: np.ndarray,
    final: np.ndarray,
    named: list[verdicts.Support],
    left: list[verdicts.Support],
    located: dict[str, list[tuple[markers.Marker, int]]],
    colours: dict[str, str],
) -> list[bytes]:
    """Dot plots of the genes that mark each type in the reference."""
    least = verdicts.MIN_CELLS_TO_JUDGE
    types = [one.label for one in named if one.n_cells >= least and located.get(one.label)]
    types += [
        one.label
        for one in left
        if one.n_cells >= least and located.get(one.label) and one.label not in types
    ]
    rows = [(one.label, one.label, final == one.label) for one in named if one.n_cells >= least]
    rows += [
        (
            f"unassigned, closest to {one.label}",
            one.label,
            (predicted == one.label) & (final == UNASSIGNED),
        )
        for one in left
        if one.n_cells >= least
    ]
    genes = {name: [(marker.symbol, column) for marker, column in located[name]] for name in types}
    return _dot_plots(statistics, rows, genes, colours)


def _found_plots(
    statistics: markers.GroupStatistics,
    final: np.ndarray,
    table: pd.DataFrame,
    var: pd.DataFrame,
    named: list[verdicts.Support],
    colours: dict[str, str],
) -> list[bytes]:
    """Dot plots of the genes that mark each type in this sample, and the unassigned cells: rows of the marker table."""
    found = table.assign(column=var.index.get_indexer(table["gene"]))
    own = {str(label): part for label, part in found.groupby("label", sort=False)}
    types = [name for name in (*(one.label for one in named), UNASSIGNED) if name in own]
    rows = [(name, name, final == name) for name in types]
    genes = {name: list(zip(own[name]["gene"], own[name]["column"], strict=True)) for name in types}
    return _dot_plots(statistics, rows, genes, colours)


def _dot_plots(
    statistics: markers.GroupStatistics,
    rows: Sequence[tuple[str, str, np.ndarray]],
    genes: dict[str, list[tuple[str, int]]],
    colours: dict[str, str],
) -> list[bytes]:
    """One dot plot of at most about 45 genes, or several of them one below the other.

    rows: (name, label, which of the groups). genes: type to its genes' names and columns, the best first.
    """
    rows = rows[:MOST_ROWS]
    if not genes or not rows:
        return []
    each = int(np.clip(45 // len(genes), 3, 6))
    taken: set[int] = set()
    chosen: list[tuple[str, list[tuple[str, int]]]] = []
    for name, own in genes.items():
        hits = [hit for hit in own if hit[1] not in taken][:each]
        taken |= {column for _, column in hits}
        if hits:
            chosen.append((name, hits))
    measured = [(label, name, statistics.of(members)) for name, label, members in rows]
    columns = sorted(taken)
    highest = max(float(np.percentile([values[1][columns] for _, _, values in measured], 99)), 0.5)
    across = 42 // each
    plots = []
    # Types are spread evenly over the plots, so that the last is not left with one.
    for part in np.array_split(np.arange(len(chosen)), -(-len(chosen) // across)):
        blocks = [chosen[i] for i in part]
        picked = [column for _, hits in blocks for _, column in hits]
        groups = [
            figures.DotPlotGroup(name, label, mean[picked], share[picked])
            for label, name, (_, mean, share) in measured
        ]
        names = [(name, [gene for gene, _ in hits]) for name, hits in blocks]
        plots.append(figures.dot_plot(groups, names, colours, highest))
    return plots


# --- words and numbers ---


def count(value: Any) -> str:
    """A whole number with its thousands set apart: 4,012."""
    return "–" if value is None else f"{int(value):,}"


def percent(part: float, digits: int = 1) -> str:
    """A share (0 to 1) as 7.2 %; a share above 0 is never shown as 0."""
    if 0 < part < 0.5 * 10 ** -(digits + 2):
        return f"< {10**-digits:.{digits}f} %"
    return f"{100 * part:.{digits}f} %"


def number(value: Any, unit: str = "") -> str:
    """A measured number, three or four digits of it, and its unit; – for none."""
    if value is None:
        return "–"
    value = float(value)
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}{unit}"
    return f"{value:.3g}{unit}"


def plural(n: int, thing: str, things: str = "") -> str:
    """`n` of a thing: 1 cell, 2 cells."""
    return f"{n:,} {thing if n == 1 else things or thing + 's'}"


def merge_warnings(*sources: tuple[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Gather the steps' warnings, each once, with the steps that gave it, whatever their case and spacing."""
    merged: dict[str, dict[str, Any]] = {}
    for step, sentences in sources:
        for sentence in sentences:
            text = " ".join(str(sentence).split())
            if not text:
                continue
            entry = merged.setdefault(
                text.lower().rstrip("."), {"text": text[0].upper() + text[1:], "steps": []}
            )
            if step not in entry["steps"]:
                entry["steps"].append(step)
    return list(merged.values())


def most_frequent(final: np.ndarray) -> str:
    """The labels with most cells and their shares of all cells, as they follow `were named`; "" for none."""
    names, numbers = np.unique(final[final != UNASSIGNED].astype(str), return_counts=True)
    first = np.argsort(-numbers, kind="stable")[:LABELS_IN_SENTENCE]
    if not len(first):
        return ""
    of = " of all" if len(final) > numbers.sum() else ""
    said = [f"{names[i]} ({percent(numbers[i] / len(final))}{of if i == first[0] else ''})" for i in first]
    listed = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return f", most often {listed}" if len(names) > len(said) else f": {listed}"


def why_novel(novel_by: Mapping[str, int], *, one: bool) -> str:
    """The causes that made cells `novel`, the largest first, as they follow `because`. one: whether it is one cell."""
    found = sorted(((n, cause) for cause, n in novel_by.items() if n and cause in NOVEL_BY), reverse=True)
    if len(found) == 1:
        return f"{'it' if one else 'they'} {NOVEL_BY[found[0][1]][one]}"
    said = [NOVEL_BY[cause][one] + ("" if one else f" ({n:,})") for n, cause in found]
    return f"{'it' if one else 'they'} {', '.join(said[:-1])} {'and' if one else 'or'} {said[-1]}"


def verdict(
    final: np.ndarray,
    predicted: np.ndarray,
    reason: np.ndarray,
    novel_by: Mapping[str, int] | None = None,
) -> str:
    """Say in one or two sentences how many cells were named and how most of them, and why the others were not.

    novel_by: by cause, how many of the `novel` cells it made so, where that is known.
    """
    n, left = len(final), final == UNASSIGNED
    n_left = int(left.sum())
    most_named = most_frequent(final)
    if not n_left:
        first = f"All {n:,} cells were named" if n > 1 else "The one cell was named"
        first += f"{most_named}."
    else:
        named = (
            f"{n - n_left:,} of {plural(n, 'cell')} {'was' if n - n_left == 1 else 'were'} named{most_named}"
        )
        if n_left == n:
            named = f"None of {plural(n, 'cell')} was named"
        first = (
            f"{named}; {n_left:,} ({percent(n_left / n)}) {'was' if n_left == 1 else 'were'} left unassigned"
        )
        reasons, numbers = np.unique(reason[left].astype(str), return_counts=True)
        top = reasons[np.argmax(numbers)]
        if top in WHY_UNASSIGNED:
            every = numbers.max() == n_left
            most = "" if every else "most " if 2 * numbers.max() > n_left else "many "
            several, one, why = WHY_UNASSIGNED[top]
            because = f"{one if n_left == 1 else several}{why}"
            if top == "novel" and novel_by and any(novel_by.get(cause) for cause in NOVEL_BY):
                because = why_novel(novel_by, one=n_left == 1)
            first += f", {most}because {because}"
        first += "."
    broader = (final != predicted) & ~left
    n_against = int((broader & (reason == "disagreement")).sum())
    for n_cells, why in (
        (int(broader.sum()) - n_against, "the finer one was not certain enough"),
        (n_against, "the models contradict each other on the finer one"),
    ):
        if n_cells:
            first += f" {plural(n_cells, 'cell')} got a broader name, as {why}."
    return first


def readable(name: str) -> str:
    """A key as words: `low_total_counts` as `low total counts`."""
    return name.replace("_", " ")


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of nested parameters as (name, text)."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from flatten(value[key], f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        yield prefix, ", ".join(str(item) for item in value)
    else:
        yield prefix, "" if value is None else str(value)


def _gene_name(gene: Any) -> str:
    if isinstance(gene, dict):
        return str(gene.get("symbol") or gene.get("gene_id") or "")
    return str(gene)


# --- the parts of the page ---


def what_was_done(
    convert: dict[str, Any], qc: dict[str, Any], annotation: dict[str, Any], manifest: dict[str, Any]
) -> list[tuple[str, str]]:
    """The steps in order, each as (what, how)."""
    source = str(convert.get("source", ""))
    kinds = convert.get("features") or {}
    others = ", ".join(f"{count(n)} {name}" for name, n in kinds.items() if name != "Gene Expression")
    rows = [
        (
            "Read",
            f"{convert.get('path', '')}: {SOURCES.get(source, source)}, "
            f"{count(convert.get('n_cells'))} cells, {count(convert.get('n_genes'))} genes"
            + (f"; beside them {others}" if others else ""),
        ),
        (
            "Raw counts",
            f"found in {convert.get('counts_from', 'X')}; organism {convert.get('organism', 'unknown')}"
            + (
                f"; genome prefix '{convert['genome_prefix_removed']}' taken off the gene names"
                if isinstance(convert.get("genome_prefix_removed"), str) and convert["genome_prefix_removed"]
                else "; genome prefix taken off the gene names"
                if convert.get("genome_prefix_removed")
                else ""
            ),
        ),
    ]
    called = convert.get("called_cells")
    rows.append(
        (
            "Cell calling",
            f"{count(called.get('n_cells'))} cells called from {count(called.get('n_droplets'))} droplets"
            + (
                f" (EmptyDrops, false discovery rate {number(called['fdr'])})"
                if called.get("fdr") is not None
                else f" by their counts alone (at least {count(called.get('retain'))})"
            )
            if called
            else "not needed: the input holds cells, not all droplets",
        )
    )
    bounds = []
    thresholds = qc.get("thresholds") or {}
    for metric in dict.fromkeys([*METRICS, *thresholds]):
        bound = thresholds.get(metric) or {}
        name, unit = METRICS.get(metric, (readable(metric), ""))
        lower, upper = bound.get("lower"), bound.get("upper")
        if lower is not None and upper is not None:
            bounds.append(f"{name.lower()} {number(lower)} to {number(upper)}{unit}")
        elif lower is not None:
            bounds.append(f"{name.lower()} at least {number(lower)}{unit}")
        elif upper is not None:
            bounds.append(f"{name.lower()} at most {number(upper)}{unit}")
    kept = "marked, none removed" if qc.get("mode") == "flag" else "removed"
    rows.append(
        ("Quality control", f"cells outside these bounds were {kept}: {'; '.join(bounds) or 'none set'}")
    )
    rows.append(("Doublets", str((qc.get("doublets") or {}).get("message") or "not looked for")))
    model = annotation.get("model") or {}
    labels, training = manifest.get("labels") or [], manifest.get("training") or {}
    tested = manifest.get("evaluation") or {}
    rows.append(
        (
            "Model",
            f"{model.get('name', '')} {model.get('version', '')} "
            f"({model.get('kind', '')}, {model.get('organism', '')})"
            + (f": {count(len(labels))} labels" if labels else "")
            + (f", trained on {count(training['n_cells'])} cells" if training.get("n_cells") else "")
            + (
                f"; {percent(float(tested['accuracy']))} of its labels were right in the test"
                + (f" ({tested['split']})" if tested.get("split") else "")
                if tested.get("accuracy") is not None
                else ""
            ),
        )
    )
    found = (
        f"{count(annotation.get('n_genes_found'))} of the model's "
        f"{count(annotation.get('n_model_genes'))} genes found"
        f"{by_orthologs(annotation)}, matched by {annotation.get('genes_matched_by', '')}"
    )
    if annotation.get("n_refit_genes"):
        found += f"; the regression was fitted anew on {count(annotation['n_refit_genes'])} genes that the sample has"
    rows.append(("Genes", "only the model's code knows" if _overlap(annotation) is None else found))
    if trusted := trusted_code(annotation):
        rows.append(
            ("Code that was run", f"that of {trusted}, made by others, as --trust_model_code said to")
        )
    return rows


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


def _overlap(annotation: dict[str, Any]) -> float | None:
    """Share of the model's genes in the sample; None for a model made by others, which does not tell."""
    share = annotation.get("gene_overlap", 0.0)
    return None if share is None else float(share)


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


def qc_tables(qc: dict[str, Any]) -> dict[str, Any]:
    """Metrics before and after with their bounds; reasons of removal, the commonest first."""
    before, after, thresholds = qc.get("before") or {}, qc.get("after") or {}, qc.get("thresholds") or {}
    ordered = [*METRICS, *before, *thresholds]

    def unit(metric: str) -> str:
        return METRICS.get(metric, ("", ""))[1]

    def spread(part: dict[str, Any], metric: str) -> dict[str, str]:
        values = part.get(metric) or {}
        return {
            "median": number(values.get("median"), unit(metric)),
            "quarters": f"{number(values.get('q25'))} – {number(values.get('q75'))}" if values else "",
        }

    metrics = [
        {
            "name": METRICS.get(metric, (readable(metric), ""))[0],
            "before": spread(before, metric),
            "after": spread(after, metric),
            "lower": number((thresholds.get(metric) or {}).get("lower"), unit(metric)),
            "upper": number((thresholds.get(metric) or {}).get("upper"), unit(metric)),
            "source": bounds_source(thresholds.get(metric) or {}),
        }
        for metric in dict.fromkeys(ordered)
        if metric in before or metric in after or metric in thresholds
    ]
    total = max(int(qc.get("n_cells_before") or 0), 1)
    most = max([1, *(int(n) for n in (qc.get("removed_by") or {}).values())])
    removed = sorted((qc.get("removed_by") or {}).items(), key=lambda item: -int(item[1]))
    return {
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


def composition(cells: Cells, evidence: MarkerEvidence, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a final label, the largest first, `unassigned` last."""
    labels, counts = np.unique(cells.final.astype(str), return_counts=True)
    order = sorted(range(len(labels)), key=lambda i: (labels[i] == UNASSIGNED, -counts[i], labels[i]))
    support = {one.label: one for one in evidence.named}
    known = labels_of(manifest)
    largest = max(counts)
    rows = []
    for i in order:
        name, members = str(labels[i]), cells.final == labels[i]
        cl_id = str(known.get(name, {}).get("cl_id") or cells.cl_ids.get(name, ""))
        if name == UNASSIGNED:
            cl_id = ""
        rows.append(
            {
                "label": name,
                "colour": evidence.colours[name],
                "broader": is_broader(name, cl_id, known),
                "cl_id": cl_id,
                "cl_url": _cell_ontology_url(cl_id),
                "cl_name": known.get(name, {}).get("cl_name", ""),
                "n": count(counts[i]),
                "share": percent(counts[i] / len(cells.final)),
                "width": 100 * counts[i] / largest,
                "uncertainty": f"{np.median(cells.uncertainty[members]):.2f}",
                "distance": "–" if cells.distance is None else f"{np.median(cells.distance[members]):.2f}",
                "unexpected": "–"
                if cells.unexpected is None
                else f"{100 * np.median(cells.unexpected[members]):.2f} %",
                "novelty": "" if cells.novelty is None else f"{np.median(cells.novelty[members]):.2f}",
                "support": support.get(name),
            }
        )
    return rows


def signs_of_unassigned(cells: Cells) -> dict[str, Any]:
    """What makes unassigned cells strange, by the label that they came closest to: `names`, and `of` each label.

    What the model cannot say is left out.
    """
    known = [
        (name, values, text)
        for name, values, text in (
            ("Unexpected genes", cells.unexpected, lambda share: f"{100 * share:.2f} %"),
            ("Median novelty", cells.novelty, lambda share: f"{share:.2f}"),
        )
        if values is not None
    ]
    return {
        "names": [name for name, _, _ in known],
        "of": {
            label: [
                text(np.median(values[cells.unassigned & (cells.predicted == label)]))
                for _, values, text in known
            ]
            for label in dict.fromkeys(cells.predicted[cells.unassigned].tolist())
        },
    }


def _cell_ontology_url(cl_id: str) -> str:
    """A link for a well-formed id; anything else stays text."""
    return (
        f"https://purl.obolibrary.org/obo/{cl_id.replace(':', '_')}"
        if re.fullmatch(r"CL:\d{7}", cl_id)
        else ""
    )


def cluster_rows(
    cells: Cells, annotation: dict[str, Any], judged: Sequence[verdicts.ClusterVerdict]
) -> list[dict[str, Any]]:
    """One row a cluster: its name, whether its genes support it, and how many of its cells are unassigned or far."""
    by_name = {one.cluster: one for one in judged}
    rows = []
    for entry in annotation.get("clusters") or []:
        name = str(entry.get("cluster"))
        members = (
            cells.cluster == name if cells.cluster is not None else np.zeros(len(cells.final), dtype=bool)
        )
        some = bool(members.any())
        rows.append(
            {
                "cluster": name,
                "n": count(entry.get("n_cells")),
                "vote_label": str(entry.get("label", "")),
                "vote": percent(float(entry.get("vote") or 0), 0),
                "unassigned": percent(float(cells.unassigned[members].mean()), 0) if some else "–",
                "distance": f"{np.median(cells.distance[members]):.2f}"
                if some and cells.distance is not None
                else "–",
                "judged": by_name.get(name),
            }
        )
    return rows


def verdict_counts(judged: Sequence[verdicts.ClusterVerdict]) -> list[tuple[str, int]]:
    """How many clusters that got a name have each verdict, those that none has left out; then how many got no name."""
    given = [one.support.verdict for one in judged if one.named]
    counts = [(verdict_, given.count(verdict_)) for verdict_ in verdicts.VERDICTS if verdict_ in given]
    return [*counts, ("left unassigned", len(judged) - len(given))] if len(given) < len(judged) else counts


def supported_clusters(judged: Sequence[verdicts.ClusterVerdict]) -> str:
    """How many of the clusters that got a name are supported by their genes; "" where none could be judged."""
    given = [one.support.verdict for one in judged if one.named]
    if not set(given) - {verdicts.NOT_JUDGED}:
        return ""
    n = given.count(verdicts.SUPPORTED)
    return f"{n} of {plural(len(given), 'named cluster')} {'is' if n == 1 else 'are'} supported by the genes."


def is_broader(label: str, cl_id: str, known: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a final label is no type of the model's but a broader name. known: the model's labels, {} unknown.

    The Cell Ontology's name of a type that the model calls otherwise is none.
    """
    ids = {str(entry.get("cl_id") or "") for entry in known.values()} - {""}
    return bool(known) and label not in known and label != UNASSIGNED and cl_id not in ids


def labels_of(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The labels that a manifest tells of, by name."""
    return {str(entry.get("label")): entry for entry in manifest.get("labels") or []}


def names_given(cells: Cells, manifest: dict[str, Any]) -> tuple[str, str]:
    """How many types were named, and the words for it, with the number of broader names.

    A type that some cells have by the model's name and others by the Cell Ontology's counts once.
    """
    known = labels_of(manifest)
    given = sorted(set(cells.final) - {UNASSIGNED})
    broader = [name for name in given if is_broader(name, cells.cl_ids.get(name, ""), known)]
    own = [name for name in given if name not in broader]
    ids = {str(known[name].get("cl_id") or "") for name in own if name in known}
    n = sum(not known or name in known or cells.cl_ids.get(name, "") not in ids for name in own)
    also = f" and {plural(len(broader), 'broader name')}" if broader else ""
    return count(n), f"{'type' if n == 1 else 'types'} named{also}"


def types_by_cluster(cells: Cells) -> pd.DataFrame:
    """Which clusters hold which types: one row a cluster and predicted label that has a cell in it."""
    import pandas as pd

    cluster = np.full(len(cells.final), "", dtype=object) if cells.cluster is None else cells.cluster
    frame = pd.DataFrame({"cluster": cluster, "predicted": cells.predicted, "left": cells.unassigned})
    found = frame.groupby(["cluster", "predicted"], sort=False)["left"].agg(["size", "sum"]).reset_index()
    found.columns = pd.Index(["cluster", "predicted", "n_cells", "n_unassigned"])
    for name, key in (("share_of_cluster", "cluster"), ("share_of_type", "predicted")):
        found[name] = (found["n_cells"] / found.groupby(key)["n_cells"].transform("sum")).round(4)
    found["order"] = -found.groupby("cluster")["n_cells"].transform("sum")
    found = found.sort_values(["order", "cluster", "n_cells"], ascending=[True, True, False], kind="stable")
    return found.drop(columns="order").reset_index(drop=True)


def cluster_grid(cells: Cells) -> dict[str, Any]:
    """The same as a grid for the page: the largest types as columns, all others together in the last."""
    table = types_by_cluster(cells)
    if cells.cluster is None:
        return {}
    sizes = table.groupby("predicted")["n_cells"].sum().sort_values(ascending=False, kind="stable")
    shown = [str(name) for name in sizes.index[:TYPES_BY_CLUSTER]]
    rows = []
    for cluster, part in table.groupby("cluster", sort=False):
        own = dict(zip(part["predicted"].astype(str), part["n_cells"], strict=True))
        total = sum(own.values())
        numbers = [own.get(name, 0) for name in shown]
        if len(sizes) > len(shown):
            numbers.append(total - sum(numbers))
        rows.append(
            {"cluster": str(cluster), "n": count(total), "cells": [(count(n), n / total) for n in numbers]}
        )
    return {"types": shown, "others": len(sizes) - len(shown), "rows": rows}


def comparison_parts(evidence: MarkerEvidence) -> list[dict[str, Any]]:
    """What the page shows of each comparison: both sides, a figure, and the first genes of either."""
    parts = []
    for one in evidence.contrasts[:COMPARISONS_SHOWN]:
        table = evidence.differential[evidence.differential["comparison"] == one.name]
        clear = table[table["adjusted_p"] < 0.05]
        up, down = clear[clear["score"] > 0], clear[clear["score"] < 0][::-1]
        parts.append(
            {
                "name": one.name,
                "group": one.group,
                "against": "all others" if one.against == differential.REST else one.against,
                "n_in": count(one.n_in),
                "n_out": count(one.n_out),
                "n_tested": count(len(table)),
                "figure": figures.data_uri(
                    figures.score_plot(
                        table["gene"].to_numpy(dtype=object),
                        table["log2_fold_change"].to_numpy(dtype=np.float64),
                        table["score"].to_numpy(dtype=np.float64),
                        table["adjusted_p"].to_numpy(dtype=np.float64) < 0.05,
                    )
                )
                if len(table)
                else "",
                "sides": [
                    (count(len(side)), [_gene_title(row) for row in side.head(GENES_COMPARED).itertuples()])
                    for side in (up, down)
                ],
            }
        )
    return parts


def hold_against_truth(
    obs: pd.DataFrame, cells: Cells, manifest: dict[str, Any], inputs: ReportInputs
) -> tuple[truth.Agreement | None, list[str]]:
    """Compare with the labels that were asked for, if any, and write what came of it; None where there are none.

    The second value says in sentences what a reader must know.
    """
    if not inputs.truth_key:
        return None, []
    labels, notes = truth.read_truth(obs, inputs.sample, inputs.truth_key, inputs.truth_csv)
    agreement = None
    if labels is not None:
        trained = {str(one["label"]): str(one.get("cl_id") or "") for one in manifest.get("labels") or []}
        predicted = dict.fromkeys(cells.predicted.tolist(), "")
        agreement = truth.compare(
            labels,
            cells.predicted,
            cells.final,
            cells.uncertainty,
            {**dict.fromkeys(cells.final.tolist(), ""), **predicted, **trained, **cells.cl_ids},
            list({**trained, **predicted}),
            key=inputs.truth_key,
            source=inputs.truth_csv.name if inputs.truth_csv else "obs",
        )
        write_table(agreement.table, inputs.truth)
    for note in notes:
        warn(f"sample '{inputs.sample}': {note}")
    headline = {} if agreement is None else agreement.headline
    write_json({"sample": inputs.sample, **headline, "warnings": notes}, inputs.truth_summary)
    return agreement, notes


def truth_part(agreement: truth.Agreement) -> dict[str, Any]:
    """What the page shows of the comparison with known labels."""
    head, shown = agreement.headline, agreement.table.head(KNOWN_LABELS_SHOWN)
    counts = agreement.confusion.to_numpy()[: len(shown), :KNOWN_LABELS_SHOWN]
    left = agreement.left[: len(shown)]
    sizes = shown["n_cells"].to_numpy()[:, np.newaxis]
    unknown = head["unknown_labels"]
    return {
        **{key: head[key] for key in ("column", "source")},
        "n_cells": count(head["n_cells"]),
        "n_unlabelled": count(head["n_unlabelled"]),
        "n_known": count(head["n_known"]),
        "key_figures": [
            (percent(head[name]) if head[name] is not None else "–", words)
            for name, words in (
                ("accuracy", "of the predicted labels are right"),
                ("accuracy_assigned", "of those that were not left unassigned"),
            )
        ]
        + [
            (f"{head[name]:.3f}" if head[name] is not None else "–", words)
            for name, words in (("macro_f1", "macro-F1"), ("calibration_error", "expected calibration error"))
        ],
        "became": [
            (name, percent(head[f"share_{name}"]), 100 * head[f"share_{name}"])
            for name in ("same", "compatible", "unassigned", "different")
        ],
        "unknown": [(name, count(n)) for name, n in list(unknown.items())[:KNOWN_LABELS_SHOWN]],
        "n_unknown": count(sum(unknown.values())),
        "rows": [
            {
                "label": row.truth,
                "cl_id": row.cl_id,
                "n": count(row.n_cells),
                **{
                    name: "–" if np.isnan(getattr(row, name)) else f"{getattr(row, name):.3f}"
                    for name in ("recall", "precision", "f1")
                },
                "agree": percent(row.share_same_or_compatible),
                "unassigned": percent(row.share_unassigned),
                "most": row.most_common,
                "most_share": percent(row.most_common_share, 0),
            }
            for row in shown.itertuples()
        ],
        "hidden": len(agreement.table) - len(shown),
        "columns_drawn": counts.shape[1] if counts.shape[1] < agreement.confusion.shape[1] else 0,
        "figure": figures.data_uri(
            figures.confusion_plot(
                np.column_stack([counts, left]) / sizes,
                [f"{row.truth} ({row.n_cells:,})" for row in shown.itertuples()],
                [str(name) for name in agreement.confusion.columns[:KNOWN_LABELS_SHOWN]],
            )
        ),
    }


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """A table of differential expression as it is written: p values with four digits."""
    return table.assign(**{name: table[name].map("{:.3e}".format) for name in ("p", "adjusted_p")})


def _gene_title(row: Any) -> dict[str, Any]:
    return {
        "gene": row.gene,
        "title": f"log2 fold change {row.log2_fold_change:.2f}, expressed by {row.share_in:.0%} of "
        f"these cells and {row.share_out:.0%} of the others, adjusted p {row.adjusted_p:.1e}",
    }


def top_genes(table: pd.DataFrame, order: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The first genes of each label of the marker table, the labels in `order`."""
    result: dict[str, list[dict[str, Any]]] = {}
    for row in table[table["rank"].astype(int) <= TOP_GENES].itertuples():
        result.setdefault(str(row.label), []).append(
            {**_gene_title(row), "expected": row.expected_marker == "yes"}
        )
    return {label: result[label] for label in order if label in result}


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
            drawn["clusters"] = figures.umap_by_category(cells.umap, cells.cluster, cluster_colours, **SMALL)
        if len(set(cells.final)) > 2:
            drawn["multiples"] = figures.small_multiples(cells.umap, cells.final, colours)
    if cells.reference_umap is not None:
        drawn["reference"] = figures.umap_by_category(
            cells.reference_umap, cells.final, colours, background=background, **SMALL
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
    reasons, numbers = np.unique(cells.reason[cells.unassigned].astype(str), return_counts=True)
    overlap = _overlap(annotation)
    date = str(provenance.get("date") or datetime.datetime.now(tz=datetime.UTC).date().isoformat())[:10]
    parameters = dict(flatten(annotation.get("parameters") or {}))
    # The parameters stand in annotation.json too, where they are no text to be taken apart.
    provenance = {key: value for key, value in provenance.items() if key != "parameters"}
    details = {key: value for key, value in flatten(provenance) if key not in parameters and value}
    kinds = {str(one.get("kind") or "") for one in (manifest, model, *models.get("rows", []))}
    needs = {
        "called": bool(convert.get("called_cells")),
        "scvi": bool(kinds & {"scvi", "consensus"}),
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
        "composition": composition(cells, evidence, manifest),
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


def as_code(text: str) -> Markup:
    """Text as HTML, escaped, what stands between backticks as code."""
    from markupsafe import Markup, escape

    parts = str(text).split("`")
    # Without a partner a backtick is one.
    last = len(parts) - 1 if len(parts) % 2 == 0 else len(parts)
    said = [
        Markup("<code>{}</code>").format(part)
        if i % 2 and i < last
        else escape(f"`{part}" if i == last else part)
        for i, part in enumerate(parts)
    ]
    return Markup("").join(said)


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
