"""The three figures of QC, with the bounds drawn in: distributions, barcode ranks, counts against genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.drawing import INK, QUIET, RULE_COLOUR, as_png, new_figure, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cellscribe.qc import Bounds, QcResult

# Okabe and Ito's blue and vermilion: apart for every kind of colour vision
KEPT, REMOVED = "#0072B2", "#D55E00"
MAX_POINTS = 4_000
"""Points drawn of each kind; a figure of 200,000 cells is drawn as fast as one of 4,000."""

FARTHEST_BOUND = 4.0
"""A bound this many times beyond the last cell is not drawn: named, where the user set it."""

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
    measured = {
        metric: title for metric, title in TITLES.items() if result.mt_known or metric != "pct_counts_mt"
    }
    with new_figure(7.2, 3.1) as figure:
        for axes, (metric, title) in zip(figure.subplots(1, len(measured)), measured.items(), strict=True):
            values = _drawable(result.metrics[metric].to_numpy(), metric)
            logarithmic = metric in LOGARITHMIC
            _density(axes, values, logarithmic, rng)
            rows = _some(result.passes, rng, MAX_POINTS // 2)
            # the extremes are what one looks for
            rows = np.union1d(rows, [values.argmin(), values.argmax()])
            _points(axes, rng.uniform(-0.13, 0.13, len(rows)), values[rows], result.passes[rows], 0.55)
            if logarithmic:
                axes.set_yscale("log")
                axes.set_ylim(*_limits(values, result.bounds[metric]))
                _plain_ticks(axes.yaxis)
            else:
                tallest = max(values.max() * 1.08, 1.15 * (result.bounds[metric].upper or 0), 1)
                axes.set_ylim(-0.02 * tallest, tallest)
            axes.set(xlim=(-0.6, 0.6), xticks=[])
            axes.spines["bottom"].set_visible(False)
            axes.tick_params(labelsize=7.5)
            axes.set_title(title, fontsize=8.5, color=INK)
            _horizontal(axes, result.bounds[metric])
        _heading(figure, sample, result, words)
        return as_png(figure, 256)


def _knee(sample: str, result: QcResult, words: tuple[str, str]) -> bytes:
    rng = np.random.default_rng(0)
    counts = _drawable(result.metrics["total_counts"].to_numpy(), "total_counts")
    order = np.argsort(-counts, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    # even along the logarithm of the rank, so that the few first cells are all there
    chance = 1 / ranks
    drawn = rng.choice(len(order), min(len(order), MAX_POINTS), replace=False, p=chance / chance.sum())
    with new_figure(5.4, 3.7) as figure:
        axes = figure.subplots()
        axes.plot(ranks, counts[order], color=RULE_COLOUR, linewidth=1.2, zorder=1)
        _points(axes, ranks[drawn], counts[order[drawn]], result.passes[order[drawn]], 0.7)
        axes.set(xscale="log", yscale="log", xlabel="barcodes, by rank", ylabel="counts")
        axes.set_xlim(0.8, max(len(ranks) * 1.35, 4))
        axes.set_ylim(*_limits(counts, result.bounds["total_counts"]))
        _plain_ticks(axes.xaxis)
        _plain_ticks(axes.yaxis)
        _grid(axes)
        _horizontal(axes, result.bounds["total_counts"])
        _heading(figure, sample, result, words)
        return as_png(figure, 256)


def _scatter(sample: str, result: QcResult, words: tuple[str, str]) -> bytes:
    rng = np.random.default_rng(0)
    x = _drawable(result.metrics["total_counts"].to_numpy(), "total_counts")
    y = _drawable(result.metrics["n_genes_by_counts"].to_numpy(), "n_genes_by_counts")
    mt = result.metrics["pct_counts_mt"].to_numpy()
    x_bounds, y_bounds, mt_bounds = (
        result.bounds[name] for name in ("total_counts", "n_genes_by_counts", "pct_counts_mt")
    )
    top = max(float(np.percentile(mt, 98)), mt_bounds.upper or 0.0, 1.0)
    with new_figure(5.4, 4.1) as figure:
        axes = figure.subplots()
        rows = _some(result.passes, rng, 2 * MAX_POINTS)
        points = axes.scatter(
            x[rows],
            y[rows],
            s=1.6 * _size(len(rows)),
            alpha=0.85,
            linewidths=0,
            **(
                {"c": mt[rows], "cmap": "viridis", "vmin": 0, "vmax": top}
                if result.mt_known
                else {"color": KEPT}
            ),
        )
        rows = rows[~result.passes[rows]]
        axes.scatter(
            x[rows],
            y[rows],
            s=2 + 1.6 * _size(len(rows)),
            facecolors="none",
            edgecolors=REMOVED,
            linewidths=0.7,
            alpha=0.8,
            zorder=3,
        )
        axes.set(xscale="log", yscale="log", xlabel="counts", ylabel="genes")
        axes.set_xlim(*_limits(x, x_bounds))
        axes.set_ylim(*_limits(y, y_bounds))
        _plain_ticks(axes.xaxis)
        _plain_ticks(axes.yaxis)
        _grid(axes)
        # upper left and lower right are empty in this figure: the words stand there
        _horizontal(axes, y_bounds, at=(0.72, 0.42))
        _vertical(axes, x_bounds, at=(0.7, 0.3))
        if result.mt_known:
            extend = "max" if mt.max() > top else "neither"
            bar = figure.colorbar(points, ax=axes, fraction=0.045, pad=0.02, extend=extend)
            bar.set_label("mitochondrial %", fontsize=8)
            bar.outline.set_visible(False)
            if mt_bounds.upper is not None:
                bar.ax.axhline(mt_bounds.upper, color=REMOVED, linewidth=1.4)
        _heading(figure, sample, result, words, ring=True)
        return as_png(figure, 256)


def _drawable(values: np.ndarray, metric: str) -> np.ndarray:
    """Values that the metric's axis can show: a logarithmic one has no zero."""
    return np.maximum(values, 0.8) if metric in LOGARITHMIC else values.astype(float)


def _density(axes: Axes, values: np.ndarray, logarithmic: bool, rng: np.random.Generator) -> None:
    """The violin behind the points, where there are enough different values for one."""
    scaled = rng.permutation(np.log10(values) if logarithmic else values)[:MAX_POINTS]
    if len(scaled) < 10 or np.ptp(scaled) < 1e-6:
        return
    grid = np.linspace(scaled.min(), scaled.max(), 200)
    density = _kernel_density(scaled, grid)
    width = 0.5 * density / density.max()
    axes.fill_betweenx(
        10**grid if logarithmic else grid, -width, width, color=RULE_COLOUR, linewidth=0, zorder=1
    )


def _kernel_density(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Density of values (n,) at each place of a grid, (n_places,): Gaussian kernels of Scott's width (Scott 1992,
    Multivariate Density Estimation). As scipy's, which takes a second to import.
    """
    width = values.std(ddof=1) * len(values) ** -0.2
    away = (grid[:, None] - values[None, :]) / width
    return np.exp(-0.5 * away**2).sum(axis=1) / (len(values) * width * np.sqrt(2 * np.pi))


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, passes: np.ndarray, alpha: float) -> None:
    for mask, colour, z in ((passes, KEPT, 2), (~passes, REMOVED, 3)):
        axes.scatter(
            x[mask], y[mask], s=_size(int(mask.sum())), color=colour, alpha=alpha, linewidths=0, zorder=z
        )


def _some(passes: np.ndarray, rng: np.random.Generator, most: int) -> np.ndarray:
    """About `most` random rows, of both kinds in their true proportion, but 100 removed ones at least."""
    share = min(1.0, most / len(passes))
    kept, removed = (rng.permutation(np.flatnonzero(mask)) for mask in (passes, ~passes))
    return np.concatenate(
        [kept[: round(share * len(kept))], removed[: max(100, round(share * len(removed)))]]
    )


def _size(n: int) -> float:
    return float(np.clip(6_000 / max(n, 1), 2.2, 10))


def _grid(axes: Axes) -> None:
    axes.grid(which="major", color=RULE_COLOUR, linewidth=0.5, alpha=0.7)
    axes.set_axisbelow(True)


def _plain_ticks(axis: Any) -> None:
    """Numbers as people write them (500, 2k) instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", size=0)


def short(value: float) -> str:
    """A number for an axis: 7.8, 692, 1.4k, 22k, 1.2M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2g}{unit}" if value < 100 * size else f"{value / size:.0f}{unit}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _limits(values: np.ndarray, bounds: Bounds) -> tuple[float, float]:
    """Ends of a logarithmic axis: the cells, the bounds near them, and a factor of four at least."""
    low, high = float(values.min()), float(values.max())
    drawn = [
        bound
        for bound in (bounds.lower, bounds.upper)
        if bound and low / FARTHEST_BOUND <= bound <= high * FARTHEST_BOUND
    ]
    low, high = min([low, *drawn]) / 1.45, max([high, *drawn]) * 1.45
    spare = max(1.0, 4 * low / high) ** 0.5
    return low / spare, high * spare


def _lines(bounds: Bounds, ends: tuple[float, float]) -> list[tuple[bool, float, bool, str]]:
    """Each bound: whether it is the upper one, its value, whether the axis reaches it, and the words on its line.

    ends: of the axis. A bound that QC found itself and that no cell comes near says nothing, and is left out.
    """
    sides = (
        (False, "≥", bounds.lower, bounds.lower_source),
        (True, "≤", bounds.upper, bounds.upper_source),
    )
    return [
        (upper, value, near, f"{sign} {short(value)}{' (set)' if source == 'fixed' else ''}")
        for upper, sign, value, source in sides
        if value is not None and ((near := ends[0] <= value <= ends[1]) or source == "fixed")
    ]


def _horizontal(axes: Axes, bounds: Bounds, at: tuple[float, float] = (1.0, 1.0)) -> None:
    """Draw bounds across. at: where, along the axes, the words on the lower and the upper one end.

    A bound far from every cell would squeeze the cells: it is only named, with an arrow, at the axes' end.
    """
    for upper, value, near, text in _lines(bounds, axes.get_ylim()):
        if near:
            axes.axhline(value, color=REMOVED, linewidth=1, linestyle=(0, (4, 2)), zorder=4)
        axes.annotate(
            text if near else f"{text} {'↑' if upper else '↓'}",
            (at[upper], value) if near else (at[upper], float(upper)),
            xycoords=("axes fraction", "data" if near else "axes fraction"),
            xytext=(0, 2 if upper == near else -2),
            textcoords="offset points",
            ha="right",
            va="bottom" if upper == near else "top",
            fontsize=7.5,
            color=REMOVED,
            zorder=5,
        )


def _vertical(axes: Axes, bounds: Bounds, at: tuple[float, float]) -> None:
    """Draw bounds upright. at: the height, along the axes, of the words on the lower and the upper one."""
    for upper, value, near, text in _lines(bounds, axes.get_xlim()):
        if near:
            axes.axvline(value, color=REMOVED, linewidth=1, linestyle=(0, (4, 2)), zorder=4)
        axes.annotate(
            text if near else f"{text} {'→' if upper else '←'}",
            (value, at[upper]) if near else (float(upper), at[upper]),
            xycoords=("data" if near else "axes fraction", "axes fraction"),
            xytext=(2 if upper == near else -2, 0),
            textcoords="offset points",
            ha="left" if upper == near else "right",
            va="center",
            rotation=90 if near else 0,
            fontsize=7.5,
            color=REMOVED,
            zorder=5,
        )


def _heading(
    figure: Figure, sample: str, result: QcResult, words: tuple[str, str], *, ring: bool = False
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
    if any(bound.source != "off" for bound in result.bounds.values()):
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
