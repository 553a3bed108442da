"""Quality control of one sample: measure each cell, bound the measures, call doublets, say why a cell goes.

Bounds follow Germain, Sonrel and Robinson 2020 (Genome Biology 21:227) and the single-cell best practices
(Heumos et al. 2023): median absolute deviations, of counts and genes on a log scale on either side, of the
mitochondrial share above only. Two brakes keep real cells. A bound never lies nearer to the median than
MIN_FOLD or MIN_POINTS_MT, since a sample of one cell type has almost no spread (scater's `isOutlier` has
`min.diff` for the same end), nor than the noise of counting in shallow data. And a bound of counts or genes
that would cut off more than POPULATION_SHARE of the cells meets a population, not outliers, and is not used.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from cellscribe.cli import log, warn
from cellscribe.errors import InputError, NothingLeftError
from cellscribe.genes import QC_SETS, gene_set_masks

if TYPE_CHECKING:
    import anndata

    from cellscribe.counts_file import CountsFile
    from cellscribe.doublets import DoubletCalls
    from cellscribe.stored import Stored

MIN_FOLD = 3.0
"""Cells within this many times the median counts or genes are never outliers."""

MIN_POINTS_MT = 5.0
"""Cells within this many percentage points of the median mitochondrial share are never outliers."""

POPULATION_SHARE = 0.10
"""A MAD bound of counts or genes that cuts off more than this share of the cells is not used."""

MIN_CELLS_MAD = 20
"""Below this many cells there is no telling what is usual."""

MAD_TO_SIGMA = 1.4826
"""Scales a MAD to the standard deviation of a normal distribution."""

METRICS = {
    "total_counts": "counts",
    "n_genes_by_counts": "genes",
    "pct_counts_mt": "mt",
    "pct_counts_ribo": "ribo",
    "pct_counts_hb": "hb",
}
"""Each metric, a column of obs, and the word that its reasons end in (`low_counts`, `high_mt`)."""

COLUMNS = (*METRICS, "doublet_score", "predicted_doublet", "qc_pass", "qc_reasons")
"""What QC adds to obs."""

NAMES = {
    "total_counts": "counts",
    "n_genes_by_counts": "genes",
    "pct_counts_mt": "% mitochondrial counts",
    "pct_counts_ribo": "% ribosomal counts",
    "pct_counts_hb": "% haemoglobin counts",
}
"""Each metric in words."""


@dataclass(frozen=True)
class QcOptions:
    """What a user may set; None is no fixed bound. Percentages are 0 to 100."""

    sample: str
    mode: str = "filter"
    min_counts: float | None = None
    max_counts: float | None = None
    min_genes: float | None = None
    max_genes: float | None = None
    max_pct_mt: float | None = None
    max_pct_ribo: float | None = None
    max_pct_hb: float | None = None
    n_mads: float = 5.0
    n_mads_mt: float = 3.0
    min_cells: int = 10
    min_cells_per_gene: int = 0
    doublets: str = "remove"
    expected_doublet_rate: float | None = None
    seed: int = 0

    def fixed(self, metric: str) -> tuple[float | None, float | None]:
        """The user's lower and upper bound of a metric."""
        return {
            "total_counts": (self.min_counts, self.max_counts),
            "n_genes_by_counts": (self.min_genes, self.max_genes),
            "pct_counts_mt": (None, self.max_pct_mt),
            "pct_counts_ribo": (None, self.max_pct_ribo),
            "pct_counts_hb": (None, self.max_pct_hb),
        }[metric]


@dataclass(frozen=True)
class Bounds:
    """The cells kept: lower <= value <= upper, in the units of the metric. None is no bound.

    Each side's source is `mad`, `fixed` or `off`.
    """

    lower: float | None = None
    upper: float | None = None
    lower_source: str = "off"
    upper_source: str = "off"

    @property
    def source(self) -> str:
        """`fixed` where a side is, else `mad` where a side is, else `off`."""
        sources = (self.lower_source, self.upper_source)
        return next((source for source in ("fixed", "mad") if source in sources), "off")


@dataclass(frozen=True)
class QcResult:
    """What QC found. `passes` and `reasons`: shape (n_obs,). mt_known: whether there is any mitochondrial gene."""

    metrics: pd.DataFrame
    bounds: dict[str, Bounds]
    doublets: DoubletCalls
    reasons: np.ndarray
    warnings: list[str]
    mt_known: bool = True

    @property
    def measured(self) -> pd.DataFrame:
        """The metrics as tables have them, (n_obs, ...): a mitochondrial share that nothing tells is no 0, but NaN."""
        return self.metrics if self.mt_known else self.metrics.assign(pct_counts_mt=np.nan)

    @property
    def passes(self) -> np.ndarray:
        """Bool, shape (n_obs,): cells with no reason to go."""
        return self.reasons == ""


def cell_metrics(counts: sparse.csr_matrix | Stored, masks: dict[str, np.ndarray]) -> pd.DataFrame:
    """Measure each cell.

    counts: raw counts, shape (n_obs, n_vars). masks: the genes of each of QC_SETS, bool (n_vars,).
    Returns one row a cell with the columns METRICS; shares are in percent, 0 for a cell with no counts.
    """
    from cellscribe.stored import blocks

    # float32 adds whole numbers exactly up to 16.7 million a cell, and spares a float64 copy of the matrix
    weights = np.column_stack([np.ones(counts.shape[1], np.float32), *(masks[name] for name in QC_SETS)])
    sums = np.zeros((counts.shape[0], 1 + len(QC_SETS)))
    n_genes = np.zeros(counts.shape[0], dtype=np.int64)
    for rows, block in blocks(counts):
        sums[rows] = block @ weights
        n_genes[rows] = block.count_nonzero(axis=1)
    total = sums[:, 0]
    table = pd.DataFrame({"total_counts": total, "n_genes_by_counts": n_genes})
    for column, name in enumerate(QC_SETS, start=1):
        table[f"pct_counts_{name}"] = 100 * sums[:, column] / np.maximum(total, 1)
    return table


def mad_bounds(values: np.ndarray, n_mads: float, min_width: float) -> tuple[float, float]:
    """Bounds `n_mads` scaled median absolute deviations on either side of the median.

    values: shape (n_obs,), finite, n_obs > 0. n_mads > 0. min_width: a bound is never nearer to the median.
    Returns (lower, upper) in the units of `values`.
    """
    median = float(np.median(values))
    mad = MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
    width = max(n_mads * mad, min_width)
    return median - width, median + width


def share_noise(metrics: pd.DataFrame) -> float:
    """Standard deviation of the mitochondrial share, in points, by counting alone, at the median depth.

    In shallow data most cells have no mitochondrial count at all and the MAD is 0, while one count in ten is
    already 10 %.
    """
    total = metrics["total_counts"].to_numpy()
    share = float((metrics["pct_counts_mt"] * total).sum() / 100 / max(total.sum(), 1))
    return 100 * float(np.sqrt(share * (1 - share) / max(np.median(total), 1)))


def find_bounds(
    metrics: pd.DataFrame, options: QcOptions, *, mt_known: bool = True
) -> tuple[dict[str, Bounds], list[str]]:
    """Bound each metric: fixed bounds first, MADs for the sides that have none.

    metrics: as `cell_metrics` returns them. mt_known: whether the matrix has any mitochondrial gene.
    Returns the bounds by metric, and warnings. Raises InputError for fixed bounds that no cell can meet.
    """
    notes: list[str] = []
    bounds = {}
    enough = len(metrics) >= MIN_CELLS_MAD
    if not enough and (options.n_mads or options.n_mads_mt):
        notes.append(
            f"Only {len(metrics)} cells: too few (under {MIN_CELLS_MAD}) to see what is usual, so only fixed "
            "bounds were used."
        )
    if not mt_known:
        notes.append(
            "No mitochondrial gene was found (single-nucleus data, or genes removed before), so cells "
            "were not judged by mitochondrial share."
        )
    for metric in METRICS:
        lower, upper = options.fixed(metric)
        if lower is not None and upper is not None and lower > upper:
            raise InputError(
                f"the least {NAMES[metric]} ({lower:g}) lie above the most ({upper:g})",
                "Swap or correct the two bounds.",
                sample=options.sample,
            )
        mad: tuple[float | None, float | None] = (None, None)
        if enough and metric == "pct_counts_mt" and options.n_mads_mt and mt_known:
            width = max(MIN_POINTS_MT, options.n_mads_mt * share_noise(metrics))
            mad = (None, mad_bounds(metrics[metric].to_numpy(), options.n_mads_mt, width)[1])
        elif enough and metric in ("total_counts", "n_genes_by_counts") and options.n_mads:
            logs = np.log1p(metrics[metric].to_numpy())
            low, high = np.expm1(mad_bounds(logs, options.n_mads, np.log(MIN_FOLD)))
            mad = (float(low) if low > 1 else None, float(high))
        if metric == "pct_counts_mt" and not mt_known:
            upper = None
        bounds[metric], note = _merge(metrics[metric].to_numpy(), metric, (lower, upper), mad)
        notes += note
    return bounds, notes


def _merge(
    values: np.ndarray,
    metric: str,
    fixed: tuple[float | None, float | None],
    mad: tuple[float | None, float | None],
) -> tuple[Bounds, list[str]]:
    """Take the fixed bound of each side, else its MAD bound where that cuts off no population."""
    notes: list[str] = []
    chosen: list[tuple[float | None, str]] = []
    for side, given, found in zip(("lower", "upper"), fixed, mad, strict=True):
        if given is not None:
            chosen.append((float(given), "fixed"))
            continue
        if found is None:
            chosen.append((None, "off"))
            continue
        share = float(np.mean(values < found if side == "lower" else values > found))
        if share <= POPULATION_SHARE:
            chosen.append((found, "mad"))
            continue
        where = "below" if side == "lower" else "above"
        if metric == "pct_counts_mt":
            notes.append(
                f"{share:.0%} of the cells lie above the bound of {found:.1f} {NAMES[metric]}: many dying "
                "cells, or a cell type rich in mitochondria. Set max_pct_mt if they are wanted."
            )
            chosen.append((found, "mad"))
            continue
        option = f"{'min' if side == 'lower' else 'max'}_{METRICS[metric]}"
        notes.append(
            f"{share:.0%} of the cells lie {where} the usual bound of {found:,.0f} {NAMES[metric]}: too many "
            f"to be outliers, so they were kept. Set {option} if they are not cells."
        )
        chosen.append((None, "off"))
    (lower, lower_source), (upper, upper_source) = chosen
    return Bounds(lower, upper, lower_source, upper_source), notes


def cell_reasons(metrics: pd.DataFrame, bounds: dict[str, Bounds]) -> dict[str, np.ndarray]:
    """Which cells break which bound: reason to a bool array of shape (n_obs,).

    A cell without a single count always has `low_counts`.
    """
    reasons = {}
    for metric, word in METRICS.items():
        values, bound = metrics[metric].to_numpy(), bounds[metric]
        low = values < bound.lower if bound.lower is not None else np.zeros(len(values), dtype=bool)
        if metric == "total_counts":
            low |= values == 0
        if metric in ("total_counts", "n_genes_by_counts"):
            reasons[f"low_{word}"] = low
        reasons[f"high_{word}"] = (
            values > bound.upper if bound.upper is not None else np.zeros(len(values), dtype=bool)
        )
    return reasons


def join_reasons(reasons: dict[str, np.ndarray]) -> np.ndarray:
    """One text a cell, object of shape (n_obs,): its reasons joined by `;`, "" for none."""
    n_cells = len(next(iter(reasons.values())))
    joined = np.full(n_cells, "", dtype=object)
    for name, mask in reasons.items():
        joined[mask] = [f"{text};{name}" if text else name for text in joined[mask]]
    return joined


def assess(
    tables: anndata.AnnData, counts: sparse.csr_matrix | Stored, options: QcOptions, *, cpus: int = 1
) -> QcResult:
    """Judge each cell of one sample; changes nothing.

    tables: as CONVERT writes them; X is not looked at. counts: its X, (n_obs, n_vars). Doublets are searched among the
    cells that keep within the bounds.
    """
    from cellscribe.doublets import call_doublets, default_rate, skipped
    from cellscribe.stored import SomeRows

    organism = str(tables.uns.get("cellscribe", {}).get("organism", "unknown"))
    masks = gene_set_masks(tables.var, organism)
    metrics = cell_metrics(counts, masks)
    mt_known = bool(masks["mt"].any())
    bounds, warnings = find_bounds(metrics, options, mt_known=mt_known)
    reasons = cell_reasons(metrics, bounds)

    n_cells = len(metrics)
    rate, note = (
        (options.expected_doublet_rate, "")
        if options.expected_doublet_rate is not None
        else default_rate(n_cells)
    )
    good = np.flatnonzero(~np.logical_or.reduce(list(reasons.values())))
    if options.doublets == "off":
        doublets = skipped(n_cells, rate, "Doublets were not searched, as asked.")
    elif not 0 < rate < 1:
        doublets = skipped(n_cells, rate, f"Doublets were not searched: the expected rate is {rate:g}.")
    else:
        found = call_doublets(SomeRows(counts, good), expected_rate=rate, seed=options.seed, cpus=cpus)
        doublets = found.placed(good, n_cells)
        if note:
            warnings.append(note)
        if found.status == "fallback" and found.calls.any():
            warnings.append(found.message)
    if options.doublets == "remove":
        reasons["doublet"] = doublets.calls
    return QcResult(metrics, bounds, doublets, join_reasons(reasons), warnings, mt_known)


def removed_by(reasons: np.ndarray) -> dict[str, int]:
    """How many cells each reason takes; a cell may count more than once."""
    names = [name for text in reasons if text for name in text.split(";")]
    return {str(name): int(n) for name, n in pd.Series(names, dtype=object).value_counts().items()}


def describe(metrics: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Median, quartiles, least and most of each metric, rounded to four decimals; {} for no cells."""
    if metrics.empty:
        return {}
    quantiles = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
    return {
        name: {key: round(float(metrics[name].quantile(q)), 4) for key, q in quantiles.items()}
        for name in METRICS
    }


def summarise(
    result: QcResult, options: QcOptions, *, n_kept: int, n_genes: int, n_genes_kept: int
) -> dict[str, Any]:
    """qc.json. `after` measures the cells that pass, in either mode; `n_cells_after` are in the file."""
    return {
        "sample": options.sample,
        "mode": options.mode,
        "n_cells_before": len(result.metrics),
        "n_cells_after": n_kept,
        "n_cells_pass": int(result.passes.sum()),
        "n_genes_before": n_genes,
        "n_genes_after": n_genes_kept,
        "thresholds": {
            name: {**asdict(bound), "source": bound.source} for name, bound in result.bounds.items()
        },
        "removed_by": removed_by(result.reasons),
        "before": describe(result.metrics),
        "after": describe(result.metrics[result.passes]),
        "mt_known": result.mt_known,
        "doublets": result.doublets.summary(),
        "parameters": asdict(options),
        "warnings": result.warnings,
    }


def removed_table(barcodes: pd.Index, result: QcResult) -> pd.DataFrame:
    """Every cell that does not pass, with every reason and every metric, in the order of the file."""
    table = pd.DataFrame({"barcode": barcodes.astype(str), "reasons": result.reasons})
    table = pd.concat([table, result.measured.round(4)], axis=1)
    table["total_counts"] = table["total_counts"].astype(np.int64)
    table["doublet_score"] = result.doublets.scores.round(4)
    return table[~result.passes]


def _check_enough(result: QcResult, options: QcOptions, n_kept: int) -> None:
    """Raise NothingLeftError where fewer than `min_cells` are left."""
    n_cells = len(result.metrics)
    if n_kept >= options.min_cells and n_kept > 0:
        return
    seen = f"{n_kept:,} of {n_cells:,} cells are left after quality control, fewer than {options.min_cells:,}"
    todo = "Lower min_cells to annotate so few cells all the same, or leave the sample out."
    counted = removed_by(result.reasons)
    if options.mode == "filter" and counted:
        most = next(iter(counted))
        seen += f"; most were taken by {most} ({counted[most]:,} cells{_bound_in_words(most, result)})"
        todo = (
            f"If these are real cells, {_remedy(most)}, or mark cells instead of removing them (qc 'flag'). "
            "If they are not, leave the sample out."
        )
    raise NothingLeftError(f"{seen}.", todo, sample=options.sample)


def _bound_in_words(reason: str, result: QcResult) -> str:
    if reason == "doublet":
        return ""
    side, word = reason.split("_")
    metric = next(name for name, short in METRICS.items() if short == word)
    bound = result.bounds[metric]
    value, source = (bound.lower, bound.lower_source) if side == "low" else (bound.upper, bound.upper_source)
    how = "set by you" if source == "fixed" else "from the sample's own spread"
    usual = f"; the median cell has {result.metrics[metric].median():,.6g}"
    if value is None:
        return f": without any {NAMES[metric]}{usual}"
    return f": {'under' if side == 'low' else 'over'} {value:,.6g} {NAMES[metric]}, {how}{usual}"


def _remedy(reason: str) -> str:
    if reason == "doublet":
        return "lower expected_doublet_rate or set doublets to 'flag'"
    side, word = reason.split("_")
    if side == "low":
        return f"lower min_{word}"
    return f"raise max_{'pct_' if word in ('mt', 'ribo', 'hb') else ''}{word}"


def filtered(
    tables: anndata.AnnData, counts: sparse.csr_matrix | Stored, result: QcResult, options: QcOptions
) -> tuple[anndata.AnnData, np.ndarray, np.ndarray]:
    """The cells and genes to go on with, marked in `obs`; consumes `tables`.

    Returns their tables, and which they are among those of `counts`: bool (n_obs,), bool (n_vars,). Raises
    NothingLeftError where no gene is seen in as many cells as a gene must be.
    """
    from cellscribe.stored import blocks

    for name in METRICS:
        tables.obs[name] = result.measured[name].to_numpy()
    tables.obs["doublet_score"] = result.doublets.scores
    tables.obs["predicted_doublet"] = result.doublets.calls
    tables.obs["qc_pass"] = result.passes
    tables.obs["qc_reasons"] = result.reasons
    cells, genes = np.ones(tables.n_obs, dtype=bool), np.ones(tables.n_vars, dtype=bool)
    if options.mode == "filter" and not result.passes.all():
        cells = result.passes
        tables = tables[cells].copy()
    if options.min_cells_per_gene > 0:
        n_cells = np.zeros(tables.n_vars, dtype=np.int64)
        for rows, block in blocks(counts):
            # a stored zero would count as a gene seen
            seen = (block.data != 0) & np.repeat(cells[rows], np.diff(block.indptr))
            n_cells += np.bincount(block.indices[seen], minlength=tables.n_vars)
        genes = n_cells >= options.min_cells_per_gene
        if not genes.any():
            raise NothingLeftError(
                f"no gene is seen in {options.min_cells_per_gene:,} cells or more of {tables.n_obs:,}.",
                "Lower min_cells_per_gene (0 keeps every gene).",
                sample=options.sample,
            )
        if not genes.all():
            tables = tables[:, genes].copy()
    return tables, cells, genes


def read_tables(sample: CountsFile) -> anndata.AnnData:
    """All of a counts file but for X, and for what obsm holds as plain matrices: they are read by blocks."""
    import anndata
    import h5py
    from anndata.io import read_elem

    with h5py.File(sample.path, "r") as file:
        small = {
            key: node
            for key, node in file.get("obsm", {}).items()
            if not (isinstance(node, h5py.Dataset) and node.ndim == 2)
        }
        return anndata.AnnData(
            obs=sample.obs,
            var=sample.var,
            uns=read_elem(file["uns"]) if "uns" in file else {},
            obsm={key: read_elem(node) for key, node in small.items()},
        )


def write_filtered(
    sample: CountsFile, tables: anndata.AnnData, cells: np.ndarray, genes: np.ndarray, target: Path
) -> None:
    """Write the chosen cells and genes of a counts file by blocks, with new tables.

    cells, genes: bool, (n_obs,) and (n_vars,), as many chosen as `tables` has rows.
    """
    import h5py

    from cellscribe.counts_file import new_counts_file, new_dense

    columns = None if genes.all() else np.flatnonzero(genes)
    with new_counts_file(tables, target) as (file, matrix), h5py.File(sample.path, "r") as source:
        dense = {
            key: (node, new_dense(file, f"obsm/{key}", (tables.n_obs, node.shape[1]), node.dtype))
            for key, node in source.get("obsm", {}).items()
            if key not in tables.obsm
        }
        done = 0
        for rows, block in sample.blocks():
            block = block[cells[rows]] if not cells[rows].all() else block
            block.eliminate_zeros()
            matrix.append(block if columns is None else block[:, columns])
            for old, new in dense.values():
                new[done : done + block.shape[0]] = old[rows][cells[rows]]
            done += block.shape[0]


def run_qc(counts: Path, options: QcOptions, *, cpus: int = 1, folder: Path = Path()) -> dict[str, Any]:
    """Do the step: read `counts`, write the six files of docs/architecture.md into `folder`; returns qc.json.

    Raises InputError for a file that CONVERT did not write and for bounds that no cell can meet, NothingLeftError where
    too few cells or no genes are left, both before anything is written; OutputError where the file of counts, opened
    again, is not whole.
    """
    from cellscribe.counts_file import open_counts
    from cellscribe.io import atomic_path, write_json, write_table
    from cellscribe.qc_figures import qc_figures

    sample = open_counts(counts)
    if sample.n_obs == 0:
        raise NothingLeftError(
            "the file holds no cells.",
            "Look at convert.json for why.",
            sample=options.sample,
            file=counts.name,
        )
    if missing := [name for name in ("gene_ids", "gene_symbols") if name not in sample.var]:
        raise InputError(
            f"the genes have no column {' and no '.join(missing)}: CONVERT did not write this file",
            "Pass it to convert.py first.",
            file=counts.name,
        )
    tables = read_tables(sample)
    n_genes = tables.n_vars
    result = assess(tables, sample, options, cpus=cpus)
    n_kept = int(result.passes.sum()) if options.mode == "filter" else tables.n_obs
    _check_enough(result, options, n_kept)

    removed = removed_table(tables.obs_names, result)
    tables, cells, genes = filtered(tables, sample, result, options)
    report = summarise(result, options, n_kept=tables.n_obs, n_genes=n_genes, n_genes_kept=tables.n_vars)
    tables.uns["cellscribe"] = {**tables.uns.get("cellscribe", {}), "qc": json.dumps(report)}

    stem = folder / options.sample
    for name, png in qc_figures(options.sample, result, options.mode).items():
        with atomic_path(Path(f"{stem}.qc_{name}.png")) as path:
            path.write_bytes(png)
    write_table(removed, Path(f"{stem}.removed.tsv.gz"))
    write_json(report, Path(f"{stem}.qc.json"))
    write_filtered(sample, tables, cells, genes, Path(f"{stem}.filtered.h5ad"))

    for message in result.warnings:
        warn(message)
    verb = "removed" if options.mode == "filter" else "marked"
    log(f"{len(removed):,} of {len(result.metrics):,} cells {verb}.")
    return report
