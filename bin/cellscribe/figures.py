"""The figures of the report: PNG, drawn with matplotlib's object interface (no display, no global state)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.colours import PALETTE
from cellscribe.contract import UNASSIGNED
from cellscribe.drawing import ACCENT, INK, QUIET, RULE_COLOUR, as_png, new_figure, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 50_000
MOST_PANELS = 48
# Cells of a type whose name is written on a map; the legend has all.
FEWEST_NAMED = 5
# The same as a share of the cells, on a page's main map, where the names of small types would hide others.
LEAST_SHARE_WRITTEN = 0.01
WIDEST_FOLD = 8.0
# Inches; of figures that stand three in a row.
SMALL: dict[str, Any] = {"width": 3.8, "height": 3.5}


@dataclass(frozen=True)
class DotPlotGroup:
    """A row of the dot plot: its label, and mean and share by gene of the plot, shape (n_genes,)."""

    name: str
    label: str
    mean: np.ndarray
    share: np.ndarray


def drawn_cells(n_obs: int) -> np.ndarray:
    """Choose the cells to draw, at most 50,000, in random order so that no type hides another."""
    return np.random.default_rng(0).permutation(n_obs)[:MAX_POINTS]


def _point_size(n: int) -> float:
    return float(np.clip(9_000 / max(n, 1), 0.6, 14))


def _without_frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)


def _bare(axes: Axes, coordinates: np.ndarray) -> None:
    axes.set(xticks=[], yticks=[])
    _without_frame(axes)
    # Nothing is cut off: a rare type may be an island of a few cells.
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    room = np.maximum((high - low) * 0.06, 1e-6)
    axes.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))


def _name_on_plot(axes: Axes, x: float, y: float, text: str, size: float, *, above: bool) -> Any:
    from matplotlib.patheffects import withStroke

    return axes.text(
        x,
        y,
        printable(text, 26) + ("\n" if above else ""),
        ha="center",
        va="bottom" if above else "center",
        fontsize=size,
        fontweight="bold",
        color=INK,
        path_effects=[withStroke(linewidth=2.6, foreground="white", alpha=0.9)],
        zorder=10,
    )


def _spread(texts: list[Any], axes: Axes) -> None:
    """Push names apart that overlap, up and down."""
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    inverse = axes.transData.inverted()
    for _ in range(60):
        boxes = [text.get_window_extent(renderer) for text in texts]
        moved = False
        for i in range(len(texts)):
            for j in range(i + 1, len(texts)):
                if not boxes[i].overlaps(boxes[j]):
                    continue
                moved = True
                step = 2.0 if boxes[i].y0 >= boxes[j].y0 else -2.0
                for text, shift in ((texts[i], step), (texts[j], -step)):
                    x, y = axes.transData.transform(text.get_position())
                    text.set_position(inverse.transform((x, y + shift)))
        if not moved:
            return


def umap_by_category(
    coordinates: np.ndarray,
    values: np.ndarray,
    colours: dict[str, str],
    *,
    width: float = 7.2,
    height: float = 5.8,
    background: np.ndarray | None = None,
    named: bool = True,
    least_share: float = 0.0,
) -> bytes:
    """Draw cells coloured by a category, its names at their cells' medians; `unassigned` below, in grey.

    coordinates: (n_obs, 2). values: (n_obs,) text. background: (n, 2) of reference cells, drawn lowest. named: whether
    to write names on the map, which says nothing of categories that lie everywhere. least_share: of the cells, 0 to 1,
    that a category needs to have its name written.
    """
    with new_figure(width, height) as figure:
        axes = figure.add_subplot()
        everything = coordinates if background is None else np.vstack([coordinates, background])
        if background is not None:
            shown = drawn_cells(len(background))
            axes.scatter(
                background[shown, 0],
                background[shown, 1],
                s=_point_size(len(shown)),
                c="#E7EAEE",
                linewidths=0,
                rasterized=True,
            )
        order = drawn_cells(len(values))
        unassigned = values[order] == UNASSIGNED
        for rows in (order[unassigned], order[~unassigned]):
            axes.scatter(
                coordinates[rows, 0],
                coordinates[rows, 1],
                s=_point_size(len(order)),
                c=[colours[value] for value in values[rows]] if len(rows) else None,
                linewidths=0,
                alpha=0.85,
                rasterized=True,
            )
        _bare(axes, everything)
        names, counts = np.unique(values.astype(str), return_counts=True)
        fewest = max(min(FEWEST_NAMED, 0.02 * len(values)), least_share * len(values))
        largest = [i for i in np.argsort(-counts) if names[i] != UNASSIGNED and counts[i] >= fewest]
        written = list(names[largest[: len(PALETTE)]])
        written = written if named else []
        font = (8.5 if len(written) <= 14 else 7.5) if width > 5 else (7.5 if len(written) <= 10 else 6.5)
        texts = []
        for name in written:
            members = coordinates[values == name]
            x, y = _densest(members)
            # A name would hide a handful of cells: it goes above them.
            text = _name_on_plot(axes, x, y, name, font, above=len(members) < 0.02 * len(values))
            texts.append(text)
        figure.canvas.draw()
        _spread(texts, axes)
        return as_png(figure)


def _densest(points: np.ndarray) -> np.ndarray:
    """The cell nearest to the median: a name then stands on cells, even where the type lies in two places."""
    median = np.median(points, axis=0)
    point: np.ndarray = points[np.argmin(((points - median) ** 2).sum(axis=1))]
    return point


def umap_by_number(coordinates: np.ndarray, values: np.ndarray) -> bytes:
    """Draw cells coloured by a number from 0 to 1, the highest on top. coordinates: (n_obs, 2)."""
    with new_figure(**SMALL) as figure:
        axes = figure.add_subplot()
        order = drawn_cells(len(values))
        order = order[np.argsort(values[order], kind="stable")]
        points = axes.scatter(
            coordinates[order, 0],
            coordinates[order, 1],
            s=_point_size(len(order)),
            c=values[order],
            cmap=_uncertain(),
            vmin=0,
            vmax=1,
            linewidths=0,
            rasterized=True,
        )
        _bare(axes, coordinates)
        bar = figure.colorbar(
            points, ax=axes, location="bottom", shrink=0.36, aspect=16, pad=0.01, anchor=(0.02, 0)
        )
        bar.outline.set_visible(False)
        bar.set_ticks([0, 0.5, 1])
        bar.ax.tick_params(labelsize=7, pad=1)
        return as_png(figure)


def _uncertain() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "uncertain", ["#B9CFE4", "#8FA3BF", "#B9873F", "#A63A1E", "#5E0B15"]
    )


def small_multiples(coordinates: np.ndarray, values: np.ndarray, colours: dict[str, str]) -> bytes:
    """Draw one small panel a category, its cells over all others in grey: the 48 with most cells.

    coordinates: (n_obs, 2).
    """
    names, counts = np.unique(values.astype(str), return_counts=True)
    names, counts = names[np.argsort(-counts, kind="stable")], np.sort(counts)[::-1]
    names, counts = names[:MOST_PANELS], counts[:MOST_PANELS]
    across = 6
    down = -(-len(names) // across)
    with new_figure(11, down * 2.05) as figure:
        grid = figure.subplots(down, across, squeeze=False)
        below = drawn_cells(len(values))[:6_000]
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, name, count in zip(grid.flat, names, counts, strict=False):
            own = np.flatnonzero(values == name)
            own = own[drawn_cells(len(own))[:6_000]]
            axes.scatter(
                coordinates[below, 0],
                coordinates[below, 1],
                s=0.8,
                c="#E3E7EB",
                linewidths=0,
                rasterized=True,
            )
            colour = "#6B7480" if name == UNASSIGNED else colours[name]
            axes.scatter(
                coordinates[own, 0], coordinates[own, 1], s=2.2, c=colour, linewidths=0, rasterized=True
            )
            _bare(axes, coordinates)
            axes.set_title(f"{printable(name, 24)}\n{count:,}", fontsize=8, color=INK)
        return as_png(figure)


def histogram(
    values: np.ndarray, unassigned: np.ndarray, label: str, *, line: float | None = None, note: str = ""
) -> bytes:
    """Draw a histogram of numbers from 0 to 1, the unassigned cells stacked on the named ones.

    values: (n_obs,). unassigned: bool, (n_obs,). line: a value to mark, with `note` beside it.
    """
    with new_figure(5.6, 2.7) as figure:
        axes = figure.add_subplot()
        bins = np.linspace(0, 1, 41)
        heights, _, _ = axes.hist(
            [values[~unassigned], values[unassigned]],
            bins=bins.tolist(),
            stacked=True,
            color=[ACCENT, "#AEB5BD"],
            label=["named", "unassigned"],
            rwidth=0.92,
        )
        axes.set(xlim=(-0.005, 1.005), xlabel=label, ylabel="cells")
        axes.tick_params(pad=5)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", color=RULE_COLOUR, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if line is not None:
            # The note stands above the tallest bar, not on it.
            axes.set_ylim(top=1.18 * max(float(np.max(heights)), 1))
            axes.axvline(line, color="#A63A1E", linewidth=1.1, linestyle=(0, (3, 2)))
            axes.annotate(
                note,
                (line, 1),
                xycoords=("data", "axes fraction"),
                xytext=(-5, -2),
                textcoords="offset points",
                ha="right",
                va="top",
                color="#A63A1E",
                fontsize=8.5,
            )
        figure.legend(
            loc="outside upper left", ncols=2, frameon=False, fontsize=9, handlelength=1, handleheight=1
        )
        return as_png(figure)


def dot_plot(
    groups: Sequence[DotPlotGroup],
    blocks: Sequence[tuple[str, Sequence[str]]],
    colours: dict[str, str],
    highest: float,
) -> bytes:
    """Draw expected markers (columns, in blocks of one type each) against groups of cells (rows).

    groups: with mean and share by column, in the blocks' order. blocks: (type, its genes). highest: the mean
    that gets the darkest colour. Size is the share of cells that express the gene; a type's own genes in its
    own row are framed.
    """
    from matplotlib.patches import Rectangle

    genes = [gene for _, block in blocks for gene in block]
    n_rows, n_columns = len(groups), len(genes)
    widest = max(len(printable(group.name)) for group in groups)
    width = 0.235 * n_columns + 0.075 * widest + 1.5
    with new_figure(max(width, 6.5), 0.26 * n_rows + 1.9) as figure:
        axes = figure.add_subplot()
        rows, columns = np.mgrid[0:n_rows, 0:n_columns]
        mean = np.array([group.mean for group in groups])
        share = np.array([group.share for group in groups])
        start = 0
        for name, block in blocks:
            _name_block(axes, name, start, len(block), colours.get(name, QUIET))
            for row, group in enumerate(groups):
                if group.label == name:
                    axes.add_patch(
                        Rectangle(
                            (start - 0.5, row - 0.5),
                            len(block),
                            1,
                            facecolor="#F1F4F7",
                            edgecolor="#B4BEC9",
                            linewidth=0.8,
                            zorder=0,
                        )
                    )
            start += len(block)
        points = axes.scatter(
            columns.ravel(),
            rows.ravel(),
            s=_dot_sizes(share.ravel()),
            c=mean.ravel(),
            cmap=_expressed(),
            vmin=0,
            vmax=highest,
            linewidths=0.4,
            edgecolors="#8A94A0",
            zorder=2,
        )
        axes.set(xlim=(-0.7, n_columns - 0.3), ylim=(n_rows - 0.4, -0.9))
        axes.set_xticks(range(n_columns), [printable(gene, 16) for gene in genes], rotation=90, fontsize=8)
        axes.set_yticks(
            range(n_rows), [printable(group.name, 40) for group in groups], fontsize=8.5, color=INK
        )
        for label in axes.get_xticklabels():
            label.set_fontstyle("italic")
        _without_frame(axes)
        bar = figure.colorbar(points, ax=axes, shrink=min(1.0, 1.6 / (0.26 * n_rows)), aspect=12, pad=0.01)
        bar.outline.set_visible(False)
        bar.set_label("mean expression (log)", fontsize=8)
        handles = [
            axes.scatter([], [], s=_dot_sizes(part), c="#AEB5BD", linewidths=0, label=f"{100 * part:.0f} %")
            for part in (0.1, 0.5, 1.0)
        ]
        figure.legend(
            handles=handles,
            loc="outside lower right",
            ncols=3,
            frameon=False,
            fontsize=8,
            title="cells expressing",
            title_fontsize=8,
        )
        return as_png(figure)


def _name_block(axes: Axes, name: str, start: int, n_columns: int, colour: str) -> None:
    """A bar in the type's colour over its genes in the dot plot, and its name. start: the first of its columns."""
    axes.plot(
        [start - 0.3, start + n_columns - 0.7],
        [-0.85, -0.85],
        color=colour,
        linewidth=4,
        clip_on=False,
        solid_capstyle="butt",
    )
    axes.text(
        start - 0.35,
        -1.15,
        printable(name, 24),
        rotation=38,
        ha="left",
        va="bottom",
        fontsize=8.5,
        rotation_mode="anchor",
    )


def _dot_sizes(share: Any) -> Any:
    """The area of a dot, in points squared, for a share from 0 to 1, or for each of an array."""
    return (share * 0.94 + 0.02) * 150


def confusion_plot(shares: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> bytes:
    """Draw a table of shares from 0 to 1 by colour, each with its percentage; the last column stands apart.

    shares: (n_rows, n_columns + 1). rows: known labels. columns: predicted labels; the last column of shares is of
    cells left unassigned.
    """
    n_rows, n_columns = len(rows), len(columns)
    widest = max(len(printable(name)) for name in rows)
    with new_figure(max(0.42 * (n_columns + 2) + 0.085 * widest + 0.6, 4.5), 0.3 * n_rows + 2.1) as figure:
        axes = figure.add_subplot()
        gap = 0.5
        edges = np.arange(n_columns + 1) - 0.5
        for part, x in ((shares[:, :-1], edges), (shares[:, -1:], edges[-1] + gap + np.arange(2))):
            axes.pcolormesh(
                x,
                np.arange(n_rows + 1) - 0.5,
                part,
                cmap=_expressed(),
                vmin=0,
                vmax=1,
                linewidth=0.5,
                edgecolor="white",
            )
        places = [*range(n_columns), n_columns + gap]
        for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
            axes.text(
                places[column],
                row,
                f"{100 * shares[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if shares[row, column] > 0.45 else INK,
            )
        axes.set(xlim=(-0.5, n_columns + gap + 0.5), ylim=(n_rows - 0.5, -0.5))
        axes.set_xticks(
            places,
            [printable(name, 26) for name in (*columns, UNASSIGNED)],
            rotation=40,
            ha="left",
            rotation_mode="anchor",
            fontsize=8.5,
            color=INK,
        )
        axes.xaxis.tick_top()
        axes.set_yticks(range(n_rows), [printable(name) for name in rows], fontsize=8.5, color=INK)
        _without_frame(axes)
        return as_png(figure)


def score_plot(genes: np.ndarray, fold: np.ndarray, score: np.ndarray, clear: np.ndarray) -> bytes:
    """Draw each gene's log2 fold change against its z score, the strongest of either side named.

    genes: text; fold, score: float; clear: bool, whether the difference is more than chance; all (n_genes,). The score
    stands where p values mostly do: of many cells these are all 0.
    """
    with new_figure(5.6, 3.6) as figure:
        axes = figure.add_subplot()
        # A gene that one side never expresses has a fold change without bound: it stands at the edge.
        limit = (
            float(np.clip(np.ceil(np.percentile(np.abs(fold), 99.5)), 1, WIDEST_FOLD)) if len(fold) else 1.0
        )
        shown = np.clip(fold, -limit, limit)
        colours = np.where(~clear, "#C9CDD2", np.where(score > 0, "#A63A1E", ACCENT))
        axes.scatter(shown, np.abs(score), s=5, c=colours.tolist(), linewidths=0, rasterized=True)
        axes.axvline(0, color=RULE_COLOUR, linewidth=0.8, zorder=0)
        apart = 0.06 * float(np.abs(score).max(initial=1.0))
        for side in (1, -1):
            order = np.argsort(-side * score, kind="stable")[:6]
            y = np.inf
            for i in order[clear[order] & (side * score[order] > 0)]:
                y = min(abs(score[i]), y - apart)
                axes.annotate(
                    printable(genes[i], 16),
                    (shown[i], abs(score[i])),
                    xytext=(side * limit * 1.12, y),
                    ha="left" if side > 0 else "right",
                    va="center",
                    fontsize=7.5,
                    fontstyle="italic",
                    color=INK,
                    arrowprops={"arrowstyle": "-", "color": RULE_COLOUR, "linewidth": 0.6, "shrinkA": 1},
                )
        axes.set(
            xlim=(-limit * 1.6, limit * 1.6), xlabel="log2 fold change", ylabel="Wilcoxon z score (absolute)"
        )
        # The axis ends where the genes do: beside it stand their names alone.
        ends = [
            f"{sign} {text}" if beyond.any() else text
            for sign, beyond, text in (
                ("≤", fold < -limit, f"−{limit:g}"),
                ("≥", fold > limit, f"{limit:g}"),
            )
        ]
        axes.set_xticks(
            np.linspace(-limit, limit, 5), [ends[0], f"−{limit / 2:g}", "0", f"{limit / 2:g}", ends[1]]
        )
        axes.spines["bottom"].set_bounds(-limit, limit)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=RULE_COLOUR, linewidth=0.6)
        axes.set_axisbelow(True)
        return as_png(figure)


def _expressed() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "expressed", ["#F4F1EA", "#A9C5D8", "#4F86AE", "#1D4E79", "#0B2540"]
    )
