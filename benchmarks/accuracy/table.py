"""From results to tables: a score for each run, means over pairs, and a paired test of ours against every peer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from accuracy.metrics import Kinship, Prediction, score
from accuracy.pairs import CL_IDS
from accuracy.programs import DEFAULT_METHOD, PROGRAMS
from accuracy.runner import Inputs, result_folder

NUMBERS = (
    "accuracy",
    "macro_f1",
    "ontology_f1",
    "ece",
    "brier",
    "log_loss",
    "unassigned",
    "novelty_auroc",
    "novel_caught",
    "rare_recall",
    "set_coverage",
    "set_size",
    "seconds",
    "cpu_seconds",
    "predict_seconds",
    "peak_mib",
)
KEYS = ("family", "pair", "seed", "method")
TESTED = ("macro_f1", "accuracy")
FEWEST_TESTED = 6
OURS_PREFIX = "cellscribe_"


def score_runs(runs: Iterable[tuple[dict[str, Any], Inputs]], out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """scores: one row a pair, seed and method that ended well. not_run: the others, with how they ended."""
    gives = {program.name: program.gives for program in PROGRAMS}
    rows, lost = [], []
    for result, inputs in runs:
        keys = {key: result[key] for key in ("family", "pair", "seed")}
        if result["status"] != "ok":
            lost.append(
                {**keys, "program": result["program"]} | {k: result[k] for k in ("status", "message")}
            )
            continue
        folder = result_folder(out, result["program"], result["pair"], result["seed"])
        for method in gives[result["program"]]:
            prediction = Prediction.load(folder / f"{method}.npz")
            names = {*inputs.truth, *prediction.predicted} | set(
                prediction.predicted if prediction.final is None else prediction.final
            )
            labels = {*inputs.truth.tolist(), *inputs.reference_labels}
            kinship = Kinship.of({str(name) for name in names}, CL_IDS, labels)
            scores = score(prediction, inputs.truth, set(inputs.reference_labels), kinship)
            cost = {
                "seconds": result["seconds"] + result.get("seconds_before", 0.0),
                "cpu_seconds": result["cpu_seconds"] + result.get("cpu_seconds_before", 0.0),
                "predict_seconds": result["times"].get("predict"),
                "peak_mib": max(result["peak_kib"], result.get("peak_kib_before", 0)) / 1024,
            }
            rows.append({**keys, "method": method, **scores, **cost})
    columns = [*KEYS, "n_cells", "n_unknown", *NUMBERS]
    table = pd.DataFrame(rows, columns=columns)
    table[list(NUMBERS)] = table[list(NUMBERS)].astype(float).round(4)
    return table, pd.DataFrame(lost, columns=["family", "pair", "seed", "program", "status", "message"])


def over_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """One row a pair and method: means over seeds, the deviation of macro-F1, and how many seeds."""
    groups = scores.groupby(["family", "pair", "method"], sort=False)
    table = groups[["n_cells", "n_unknown", *NUMBERS]].mean()
    table.insert(0, "seeds", groups.size())
    table["macro_f1_deviation"] = groups["macro_f1"].std()
    return table.round(4).reset_index()


def means(by_pair: pd.DataFrame) -> pd.DataFrame:
    """Each method's mean over the pairs that it has, all of them and family by family. Pairs weigh alike."""
    parts = []
    for family, rows in [("all", by_pair), *by_pair.groupby("family", sort=False)]:
        groups = rows.groupby("method", sort=False)
        table = groups[list(NUMBERS)].mean()
        table.insert(0, "pairs", groups.size())
        parts.append(table.reset_index().assign(family=family))
    whole = pd.concat(parts, ignore_index=True)
    return whole[["family", "method", "pairs", *NUMBERS]].round(4)


def paired_tests(scores: pd.DataFrame, ours: str = DEFAULT_METHOD) -> pd.DataFrame:
    """Ours against each other method on the pairs and seeds that both have: Wilcoxon signed-rank, two-sided.

    Seeds of a pair are not independent, so the test over pairs (means over seeds) stands beside the one over both.
    p is blank below six differences.
    """
    rows = []
    for number in TESTED:
        wide = scores.pivot_table(index=["pair", "seed"], columns="method", values=number)
        if ours not in wide:
            continue
        for peer in [name for name in wide.columns if name != ours]:
            both = wide[[ours, peer]].dropna()
            if both.empty:
                continue
            gaps = both[ours] - both[peer]
            by_pair = gaps.groupby("pair").mean()
            rows.append(
                {
                    "measure": number,
                    "ours": ours,
                    "other": peer,
                    "pairs": len(by_pair),
                    "runs": len(both),
                    "mean_ours": both[ours].mean(),
                    "mean_other": both[peer].mean(),
                    "mean_gap": by_pair.mean(),
                    "pairs_won": int((by_pair > 0).sum()),
                    "pairs_lost": int((by_pair < 0).sum()),
                    "worst_gap": by_pair.min(),
                    "worst_pair": by_pair.idxmin(),
                    "p_pairs_and_seeds": _signed_rank(gaps.to_numpy()),
                    "p_pairs": _signed_rank(by_pair.to_numpy()),
                }
            )
    table = pd.DataFrame(rows)
    numbers = ["mean_ours", "mean_other", "mean_gap", "worst_gap"]
    if len(table):
        table[numbers] = table[numbers].round(4)
    return table


def against_best_peer(by_pair: pd.DataFrame, ours: str = DEFAULT_METHOD) -> pd.DataFrame:
    """For each pair, ours beside the peer that has the best macro-F1 there."""
    wide = by_pair.pivot_table(index=["family", "pair"], columns="method", values="macro_f1", sort=False)
    peers = wide[[name for name in wide.columns if not name.startswith(OURS_PREFIX)]]
    if ours not in wide or not peers.shape[1]:
        return pd.DataFrame(columns=["family", "pair", ours, "best_peer", "macro_f1", "gap"])
    have = peers.notna().any(axis=1) & wide[ours].notna()
    best = peers[have].max(axis=1)
    return pd.DataFrame(
        {
            ours: wide.loc[have, ours],
            "best_peer": peers[have].idxmax(axis=1),
            "macro_f1": best,
            "gap": (wide.loc[have, ours] - best).round(4),
        }
    ).reset_index()


def _signed_rank(gaps: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    if len(gaps) < FEWEST_TESTED or not gaps.any():
        return float("nan")
    return float(f"{wilcoxon(gaps).pvalue:.3g}")
