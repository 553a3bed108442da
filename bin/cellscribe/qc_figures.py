"""The three figures of QC, with the bounds drawn in: distributions, barcode ranks, counts against genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.figures import INK, QUIET, RULE_COLOUR, _figure, _png, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cellscribe.qc import Bounds, QcResult

# Okabe and Ito's blue and vermilion: apart for every kind of colour vision
KEPT, REMOVED = "#0072B2", "#D55E00"
MAX_POINTS = 4_000
"""Points drawn of each kind; a figure of 200,000 cells is drawn as fast as one of 4,000."""

TITLES = {
    "total_counts": "Counts",
    "n_genes_by_counts": "Genes",
    "pct_counts_mt": "Mitochondrial %",
    "pct_counts_ribo": "Ribosomal %",
    "pct_counts_hb": "Haemoglobin %",
}
LOGARITHMIC = ("total_counts", "n_genes_by_counts")


def qc_figures(sample: str, result: QcResult, mode: str = "filter") -> dict[str, bytes]:
    """Draw `violin`, `knee` and `scatter` as PNG.

    result: of one cell or more. mode: `filter` or `flag`, for the words of the legend.
    """
    words = ("kept", "removed") if mode == "filter" else ("passes", "marked")
    return {
        "violin": _violin(sample, result, words),
        "knee": _knee(sample, result, words),
        "scatter": _scatter(sample, result, words),
    }


def _violin(sample: str, result: QcResult, words: tuple[str, str]) -> bytes:
    rng = np.random.default_rng(0)
    with _figure(7.2, 3.1) as figure:
        for axes, (metric, title) in zip(figure.subplots(1, len(TITLES)), TITLES.items(), strict=True):
            values = _drawable(result.metrics[metric].to_numpy(), metric)
            _density(axes, values, metric in LOGARITHMIC, rng)
            for mask, colour, z in ((result.passes, KEPT, 2), (~result.passes, REMOVED, 3)):
                rows = _some(np.flatnonzero(mask), rng, 1_500)
                if len(rows):  # the extremes are what one looks for
                    ends = np.flatnonzero(mask)[[values[mask].argmin(), values[mask].argmax()]]
                    rows = np.union1d(rows, ends)
                axes.scatter(
                    rng.uniform(-0.13, 0.13, len(rows)),
                    values[rows],
                    s=_size(len(rows)),
                    color=colour,
                    alpha=0.55,
                    linewidths=0,
                    zorder=z,
                )
            if metric in LOGARITHMIC:
                axes.set_yscale("log")
                _plain_ticks(axes.yaxis)
            else:
                axes.set_ylim(bottom=-0.02 * max(values.max(), 1), top=max(values.max() * 1.08, 1))
            axes.set(xlim=(-0.6, 0.6), xticks=[])
            axes.spines["bottom"].set_visible(False)
            axes.tick_params(labelsize=7.5)
            axes.set_title(title, fontsize=8.5, color=INK)
            _horizontal(axes, result.bounds[metric], metric)
        _heading(figure, sample, result, words)
        return _png(figure)


def _knee(sample: str, result: QcResult, words: tuple[str, str]) -> bytes:
    rng = np.random.default_rng(0)
    counts = _drawable(result.metrics["total_counts"].to_numpy(), "total_counts")
    order = np.argsort(-counts, kind="stable")
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    with _figure(5.4, 3.7) as figure:
        axes = figure.subplots()
        axes.plot(ranks[order], counts[order], color=RULE_COLOUR, linewidth=1.2, zorder=1)
        for mask, colour, z in ((result.passes, KEPT, 2), (~result.passes, REMOVED, 3)):
            rows = _spread(np.flatnonzero(mask), ranks, rng)
            axes.scatter(ranks[rows], counts[rows], s=9, color=colour, alpha=0.7, linewidths=0, zorder=z)
        axes.set(xscale="log", yscale="log", xlabel="barcodes, by rank", ylabel="counts")
        axes.set_xlim(0.8, len(ranks) * 1.35)
        _plain_ticks(axes.xaxis)
        _plain_ticks(axes.yaxis)
        _grid(axes)
        _horizontal(axes, result.bounds["total_counts"], "total_counts")
        _heading(figure, sample, result, words)
        return _png(figure)


def _scatter(sample: str, result: QcResult, words: tuple[str, str]) -> bytes:
    rng = np.random.default_rng(0)
    x = _drawable(result.metrics["total_counts"].to_numpy(), "total_counts")
    y = _drawable(result.metrics["n_genes_by_counts"].to_numpy(), "n_genes_by_counts")
    mt = result.metrics["pct_counts_mt"].to_numpy()
    top = max(float(np.percentile(mt, 98)), result.bounds["pct_counts_mt"].upper or 0.0, 1.0)
    with _figure(5.4, 4.1) as figure:
        axes = figure.subplots()
        rows = _some(np.arange(len(x)), rng, 2 * MAX_POINTS)
        points = axes.scatter(
            x[rows],
            y[rows],
            c=mt[rows],
            s=1.6 * _size(len(rows)),
            cmap="viridis",
            vmin=0,
            vmax=top,
            alpha=0.85,
            linewidths=0,
        )
        rows = _some(np.flatnonzero(~result.passes), rng, MAX_POINTS // 2)
        axes.scatter(
            x[rows], y[rows], s=16, facecolors="none", edgecolors=REMOVED, linewidths=0.7, alpha=0.8, zorder=3
        )
        axes.set(xscale="log", yscale="log", xlabel="counts", ylabel="genes")
        _plain_ticks(axes.xaxis)
        _plain_ticks(axes.yaxis)
        _grid(axes)
        _horizontal(axes, result.bounds["n_genes_by_counts"], "n_genes_by_counts")
        _vertical(axes, result.bounds["total_counts"])
        bar = figure.colorbar(
            points, ax=axes, fraction=0.045, pad=0.02, extend="max" if mt.max() > top else "neither"
        )
        bar.set_label("mitochondrial %", fontsize=8)
        bar.outline.set_visible(False)
        upper = result.bounds["pct_counts_mt"].upper
        if upper is not None:
            bar.ax.axhline(upper, color=REMOVED, linewidth=1.4)
        _heading(figure, sample, result, words, ring=True)
        return _png(figure)


def _drawable(values: np.ndarray, metric: str) -> np.ndarray:
    """Values that the metric's axis can show: a logarithmic one has no zero."""
    return np.maximum(values, 0.8) if metric in LOGARITHMIC else values.astype(float)


def _density(axes: Axes, values: np.ndarray, logarithmic: bool, rng: np.random.Generator) -> None:
    """The violin behind the points, where there are enough different values for one."""
    from scipy.stats import gaussian_kde

    scaled = np.log10(values) if logarithmic else values
    scaled = scaled[_some(np.arange(len(scaled)), rng, MAX_POINTS)]
    if len(scaled) < 10 or np.ptp(scaled) < 1e-6:
        return
    grid = np.linspace(scaled.min(), scaled.max(), 200)
    density = gaussian_kde(scaled)(grid)
    width = 0.5 * density / density.max()
    axes.fill_betweenx(
        10**grid if logarithmic else grid, -width, width, color=RULE_COLOUR, linewidth=0, zorder=1
    )


def _some(rows: np.ndarray, rng: np.random.Generator, most: int) -> np.ndarray:
    """At most `most` of `rows`, in random order."""
    return rng.permutation(rows)[:most]


def _spread(rows: np.ndarray, ranks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most MAX_POINTS of `rows`, even along the logarithm of their ranks."""
    if len(rows) <= MAX_POINTS:
        return rows
    chance = 1 / ranks[rows]
    return rng.choice(rows, MAX_POINTS, replace=False, p=chance / chance.sum())


def _size(n: int) -> float:
    return float(np.clip(6_000 / max(n, 1), 2.2, 10))


def _grid(axes: Axes) -> None:
    axes.grid(which="major", color=RULE_COLOUR, linewidth=0.5, alpha=0.7)
    axes.set_axisbelow(True)


def _plain_ticks(axis: Any) -> None:
    """Numbers as people write them (500, 2k) instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    narrow = high / max(low, 1e-9) < 300
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", size=0)


def short(value: float) -> str:
    """A number for an axis: 7.8, 692, 1.4k, 22k, 1.2M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2g}{unit}" if value < 100 * size else f"{value / size:.0f}{unit}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _lines(bounds: Bounds) -> list[tuple[float, str]]:
    """Each bound and the words on its line."""
    sides = (("≥", bounds.lower, bounds.lower_source), ("≤", bounds.upper, bounds.upper_source))
    return [
        (value, f"{sign} {short(value)}{' (set)' if source == 'fixed' else ''}")
        for sign, value, source in sides
        if value is not None
    ]


def _horizontal(axes: Axes, bounds: Bounds, metric: str) -> None:
    low, high = axes.get_ylim()
    lines = [(value, text) for value, text in _lines(bounds) if value > 0 or metric not in LOGARITHMIC]
    for value, text in lines:
        upper = text.startswith("≤")
        axes.axhline(value, color=REMOVED, linewidth=1, linestyle=(0, (4, 2)), zorder=4)
        axes.annotate(
            text,
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2 if upper else -2),
            textcoords="offset points",
            ha="right",
            va="bottom" if upper else "top",
            fontsize=7.5,
            color=REMOVED,
            zorder=5,
        )
    if lines:
        values = [value for value, _ in lines]
        if metric in LOGARITHMIC:
            axes.set_ylim(min(low, min(values) / 1.5), max(high, max(values) * 1.5))
        else:
            axes.set_ylim(low, max(high, max(values) * 1.15))


def _vertical(axes: Axes, bounds: Bounds) -> None:
    low, high = axes.get_xlim()
    lines = [(value, text) for value, text in _lines(bounds) if value > 0]
    for value, text in lines:
        upper = text.startswith("≤")
        axes.axvline(value, color=REMOVED, linewidth=1, linestyle=(0, (4, 2)), zorder=4)
        axes.annotate(
            text,
            (value, 0),
            xycoords=("data", "axes fraction"),
            xytext=(2 if upper else -2, 4),
            textcoords="offset points",
            ha="left" if upper else "right",
            va="bottom",
            rotation=90,
            fontsize=7.5,
            color=REMOVED,
            zorder=5,
        )
    if lines:
        values = [value for value, _ in lines]
        axes.set_xlim(min(low, min(values) / 1.8), max(high, max(values) * 1.8))


def _heading(
    figure: Any, sample: str, result: QcResult, words: tuple[str, str], *, ring: bool = False
) -> None:
    """Name the sample, and say in the legend how many cells are of each kind."""
    from matplotlib.lines import Line2D

    figure.suptitle(printable(sample, 32), x=0.01, ha="left", fontsize=9.5, fontweight="bold", color=INK)
    n_kept = int(result.passes.sum())
    kinds = ((words[0], n_kept, KEPT, False), (words[1], len(result.passes) - n_kept, REMOVED, ring))
    handles = [
        Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            markersize=5,
            color=colour,
            markerfacecolor="none" if hollow else colour,
            label=f"{word} {n:,}",
        )
        for word, n, colour, hollow in kinds
        if not (ring and word == words[0])
    ]
    handles.append(Line2D([], [], color=REMOVED, linewidth=1, linestyle=(0, (4, 2)), label="bound"))
    figure.legend(
        handles=handles,
        loc="upper right",
        ncols=3,
        frameon=False,
        fontsize=8,
        labelcolor=QUIET,
        handletextpad=0.3,
        columnspacing=1.2,
        borderaxespad=0.1,
    )
