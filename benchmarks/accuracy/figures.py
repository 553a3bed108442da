"""Figures of the benchmark, as PNG."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from accuracy.metrics import N_BINS, Prediction
from accuracy.programs import PROGRAMS
from accuracy.runner import Inputs, result_folder
from cellscribe.model.calibration import reliability

RELIABILITY_PAIRS = ("both-to-kang_ctrl", "both-to-pbmc4k", "pbmc3k-to-kang_ctrl")


def draw_all(by_pair: pd.DataFrame, runs: Iterable[tuple[dict[str, Any], Inputs]], out: Path) -> list[Path]:
    """Every figure that there are numbers for; returns the files."""
    import matplotlib

    matplotlib.use("Agg")
    drawn = [
        heat_map(by_pair, "macro_f1", out / "macro_f1.png"),
        harder_queries(by_pair, out / "harder_queries.png"),
        left_out_types(by_pair, out / "left_out_types.png"),
        reliability_plot(runs, out),
    ]
    return [path for path in drawn if path]


def heat_map(by_pair: pd.DataFrame, number: str, path: Path) -> Path:
    """A number of every method on every pair; methods by their mean, blank where not run."""
    import matplotlib.pyplot as plt

    wide = by_pair.pivot_table(index="pair", columns="method", values=number, sort=False)
    wide = wide[wide.mean().sort_values(ascending=False).index]
    figure, axes = plt.subplots(
        figsize=(2.6 + 0.55 * wide.shape[1], 1.6 + 0.2 * len(wide)), layout="constrained"
    )
    image = axes.imshow(wide.to_numpy(), aspect="auto", cmap="viridis", vmin=0.3, vmax=1)
    axes.set_xticks(range(wide.shape[1]), wide.columns, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(wide)), wide.index, fontsize=6)
    for (row, column), value in np.ndenumerate(wide.to_numpy()):
        if np.isfinite(value):
            axes.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=5,
                color="black" if value > 0.75 else "white",
            )
    figure.colorbar(image, label=number.replace("_", " "))
    return _save(figure, path)


def harder_queries(by_pair: pd.DataFrame, path: Path) -> Path | None:
    """Macro-F1 as counts and genes grow fewer, a line a method, a column a query."""
    import matplotlib.pyplot as plt

    found = by_pair["pair"].str.extract(r"^both-to-(?P<query>\w+?)-(?P<what>counts|genes)_(?P<left>\d+)$")
    rows = by_pair.join(found)[found["what"].notna()]
    if rows.empty:
        return None
    queries = sorted(rows["query"].unique())
    figure, grid = plt.subplots(2, len(queries), figsize=(4.5 * len(queries), 7), sharey=True, squeeze=False)
    for column, query in enumerate(queries):
        whole = by_pair[by_pair["pair"] == f"both-to-{query}"].set_index("method")["macro_f1"]
        for axes, what, full in zip(grid[:, column], ("counts", "genes"), (100, 9999), strict=True):
            part = rows[(rows["query"] == query) & (rows["what"] == what)]
            steps = [full, *sorted({int(left) for left in part["left"]}, reverse=True)]
            for method, own in part.groupby("method"):
                values = {int(k): v for k, v in zip(own["left"], own["macro_f1"], strict=True)}
                values[full] = whole.get(method, np.nan)
                ours = str(method).startswith("cellscribe")
                axes.plot(
                    range(len(steps)),
                    [values.get(step, np.nan) for step in steps],
                    marker="o",
                    label=str(method),
                    linewidth=2 if ours else 1,
                    alpha=1 if ours else 0.7,
                )
            unit = " %" if what == "counts" else ""
            axes.set_xticks(
                range(len(steps)), ["all", *(f"{step:,}{unit}" for step in steps[1:])], fontsize=8
            )
            axes.set_xlabel(f"{what} left")
            axes.set_ylabel("macro-F1")
            axes.set_title(query, fontsize=9)
    grid[0, -1].legend(fontsize=6, bbox_to_anchor=(1.02, 1), loc="upper left")
    figure.tight_layout()
    return _save(figure, path)


def left_out_types(by_pair: pd.DataFrame, path: Path) -> Path | None:
    """How well each method tells cells of a type that its reference lacks, a row a type and query."""
    rows = by_pair[by_pair["family"] == "a type left out"]
    return heat_map(rows, "novelty_auroc", path) if rows["novelty_auroc"].notna().any() else None


def reliability_plot(runs: Iterable[tuple[dict[str, Any], Inputs]], out: Path) -> Path | None:
    """Confidence against accuracy on the main pairs, all seeds of a method together."""
    import matplotlib.pyplot as plt

    gives = {program.name: program.gives for program in PROGRAMS}
    points: dict[str, dict[str, list[tuple[np.ndarray, np.ndarray]]]] = {}
    for result, inputs in runs:
        if result["status"] != "ok" or result["pair"] not in RELIABILITY_PAIRS:
            continue
        folder = result_folder(out, result["program"], result["pair"], result["seed"])
        known = np.isin(inputs.truth, inputs.reference_labels)
        for method in gives[result["program"]]:
            prediction = Prediction.load(folder / f"{method}.npz")
            if prediction.confidence is not None:
                right = prediction.predicted[known] == inputs.truth[known]
                own = points.setdefault(result["pair"], {}).setdefault(method, [])
                own.append((prediction.confidence[known], right))
    if not points:
        return None
    pairs = [pair for pair in RELIABILITY_PAIRS if pair in points]
    figure, grid = plt.subplots(1, len(pairs), figsize=(4.2 * len(pairs), 4), squeeze=False, sharey=True)
    for axes, pair in zip(grid[0], pairs, strict=True):
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        for method, parts in points[pair].items():
            confidence, right = (np.concatenate(values) for values in zip(*parts, strict=True))
            _, _, means, accuracies = reliability(confidence, right, N_BINS)
            ours = method.startswith("cellscribe")
            axes.plot(
                means,
                accuracies,
                marker=".",
                label=method,
                linewidth=2 if ours else 0.8,
                alpha=1 if ours else 0.7,
            )
        axes.set_title(re.sub("-", " ", pair), fontsize=9)
        axes.set_xlabel("confidence")
    grid[0, 0].set_ylabel("accuracy")
    grid[0, -1].legend(fontsize=6, bbox_to_anchor=(1.02, 1), loc="upper left")
    figure.tight_layout()
    return _save(figure, out / "reliability.png")


def _save(figure: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
