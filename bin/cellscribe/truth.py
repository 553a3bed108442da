"""Predicted labels held against labels that are known, in whatever words these are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.contract import UNASSIGNED
from cellscribe.label_csv import is_labelled, of_sample, read_label_csv, with_labels
from cellscribe.model.calibration import expected_calibration_error
from cellscribe.model.ontology import ROOTS, find_cl_ids, lineages, plain_name
from cellscribe.schema import nearest
from cellscribe.words import some

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "truth",
    "cl_id",
    "known_to_model",
    "n_cells",
    "recall",
    "precision",
    "f1",
    "share_unassigned",
    "share_same_or_compatible",
    "most_common",
    "most_common_share",
)
PREDICTED = "predicted:"


@dataclass(frozen=True)
class Relation:
    """How each known label stands to each label of the model; arrays are bool (n_truth, n_labels).

    same: they mean one type. compatible: one is an ancestor of the other in the Cell Ontology. cl_ids: (n_truth,),
    "" where none is known.
    """

    cl_ids: list[str]
    same: np.ndarray
    compatible: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """table: one row a known label, `COLUMNS` and then the cells by predicted label. confusion: known label x
    predicted label, cells. left: known label to its cells that were left unassigned. headline: for JSON.
    """

    key: str
    source: str
    table: pd.DataFrame
    confusion: pd.DataFrame
    left: np.ndarray
    headline: dict[str, Any]


def read_truth(
    obs: pd.DataFrame, sample: str, key: str, label_csv: Path | None
) -> tuple[np.ndarray | None, list[str]]:
    """The known label of each cell of obs, text (n_obs,), "" where none is; None where there is no such column.

    A column of the table goes before one of obs. The second value says in sentences what a reader must know. Raises
    InputError where label_csv is no table of labels.
    """
    from cellscribe.genes import as_text

    warnings = []
    where = "obs"
    if label_csv is not None:
        table = of_sample(read_label_csv(label_csv), sample)
        n_named = int(obs.index.astype(str).isin(table.index).sum())
        where = f"{label_csv.name} nor in obs" if key not in table else label_csv.name
        if key in table and not n_named:
            return None, [
                f"Nothing was compared: none of the cells that {label_csv.name} names is in this sample. It names "
                f"{some(table.index, quoted=True)}, the sample has {some(obs.index.astype(str), quoted=True)}."
            ]
        if key in table and n_named < len(obs) / 2:
            warnings.append(
                f"Only {n_named:,} of this sample's {len(obs):,} cells are named in {label_csv.name}."
            )
        obs = with_labels(obs, table)
    if key not in obs:
        hint = nearest(key, [str(name) for name in obs.columns]) or "."
        return None, [f"Nothing was compared with known labels: there is no column '{key}' in {where}{hint}"]
    labels = as_text(obs[key])
    known = is_labelled(labels)
    if not known.any():
        return None, [
            f"Nothing was compared with known labels: no cell has one in column '{key}' of {where}."
        ]
    return np.where(known, labels, ""), warnings


def relate(truth: Sequence[str], labels: Mapping[str, str]) -> Relation:
    """Find which labels of the model mean what a known label means, and which are its kin.

    labels: the model's label to its Cell Ontology id, "" where it has none. A known label that is written as one of the
    model's, but for what `plain_name` leaves out, is that one; any other is its namesake's or its id's term in the Cell
    Ontology, and the same as each label of that term.
    """
    plain = [plain_name(label) for label in labels]
    given = {label: cl_id for label, cl_id in labels.items() if cl_id}
    ids = list(find_cl_ids(list(labels), given).values())
    found = find_cl_ids(truth)
    cl_ids = []
    same = np.zeros((len(truth), len(labels)), dtype=bool)
    for row, label in enumerate(truth):
        same[row] = [plain_name(label) == other for other in plain]
        own = [ids[column] for column in np.flatnonzero(same[row]) if ids[column]]
        cl_ids.append(own[0] if own else found[label])
        if not same[row].any() and cl_ids[-1]:
            same[row] = [cl_ids[-1] == other for other in ids]
    above = {cl_id: others - ROOTS for cl_id, others in lineages([*cl_ids, *ids]).items()}
    compatible = np.array(
        [[one in above.get(other, ()) or other in above.get(one, ()) for other in ids] for one in cl_ids],
        dtype=bool,
    ).reshape(same.shape)
    return Relation(cl_ids, same, compatible & ~same)


def compare(
    truth: np.ndarray,
    predicted: np.ndarray,
    final: np.ndarray,
    uncertainty: np.ndarray,
    labels: Mapping[str, str],
    known: Sequence[str],
    *,
    key: str,
    source: str,
) -> Agreement:
    """Hold the predicted and the final labels against the known ones.

    truth, predicted, final: text (n_obs,); cells whose known label is "" are left out. uncertainty: (n_obs,). labels:
    every label of the model or of `predicted` and `final`, to its Cell Ontology id. known: those that the model can
    predict. Accuracy, F1 and calibration are of the predicted label, over the cells whose known label the model
    can give; what became of all cells is told by the final label. Macro-F1 is the mean over these known labels; the
    calibration error is that of Guo et al. 2017, ICML.
    """
    import pandas as pd

    rows = np.flatnonzero(truth != "")
    names, codes, sizes = np.unique(truth[rows].astype(str), return_inverse=True, return_counts=True)
    predicted, final, confidence = predicted[rows], final[rows], 1 - uncertainty[rows]
    # A model made by others may predict the word.
    every = {label: cl_id for label, cl_id in labels.items() if label != UNASSIGNED or label in predicted}
    relation = relate([str(name) for name in names], every)
    column = {label: i for i, label in enumerate(every)}
    can = relation.same[:, [column[label] for label in dict.fromkeys(known) if label in column]].any(axis=1)
    guess = np.array([column[label] for label in predicted], dtype=int)
    left = final == UNASSIGNED
    last = np.array([column.get(label, 0) for label in final], dtype=int)
    right = relation.same[codes, guess]
    final_same, final_kin = (
        one[codes, last] & ~left if len(every) else np.zeros(len(rows), dtype=bool)
        for one in (relation.same, relation.compatible)
    )
    counted = can[codes]
    confusion = np.zeros((len(names), len(every)), dtype=int)
    np.add.at(confusion, (codes, guess), 1)

    recall, precision, f1 = _scores(relation.same, codes, guess, can)
    order, shown = _order(sizes, can, confusion, relation.same)
    label_names = np.array(list(every), dtype=object)
    most = confusion.argmax(axis=1)
    table = pd.DataFrame(
        {
            "truth": names.astype(object),
            "cl_id": relation.cl_ids,
            "known_to_model": np.where(can, "yes", "no"),
            "n_cells": sizes,
            "recall": recall.round(4),
            "precision": precision.round(4),
            "f1": f1.round(4),
            "share_unassigned": (np.bincount(codes, left) / sizes).round(4),
            "share_same_or_compatible": (np.bincount(codes, final_same | final_kin) / sizes).round(4),
            "most_common": label_names[most],
            "most_common_share": (confusion.max(axis=1) / sizes).round(4),
        }
    )
    counts = pd.DataFrame(confusion[:, shown], index=names, columns=label_names[shown])
    table = pd.concat([table, counts.add_prefix(PREDICTED).reset_index(drop=True)], axis=1).iloc[order]
    headline = {
        "column": key,
        "source": source,
        "n_cells": len(rows),
        "n_unlabelled": len(truth) - len(rows),
        "n_known": int(counted.sum()),
        "accuracy": _mean(right[counted]),
        "macro_f1": _mean(f1[can]),
        "accuracy_assigned": _mean(right[counted & ~left]),
        "calibration_error": round(expected_calibration_error(confidence[counted], right[counted]), 4)
        if counted.any()
        else None,
        "share_same": _mean(final_same),
        "share_compatible": _mean(final_kin),
        "share_unassigned": _mean(left),
        "share_different": _mean(~(final_same | final_kin | left)),
        "unknown_labels": {str(names[i]): int(sizes[i]) for i in order if not can[i]},
    }
    return Agreement(
        key,
        source,
        table.reset_index(drop=True),
        counts.iloc[order],
        np.bincount(codes, left)[order].astype(int),
        headline,
    )


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def _scores(
    same: np.ndarray, codes: np.ndarray, guess: np.ndarray, can: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and F1 of each known label, (n_names,); NaN for those that the model cannot give.

    same: bool (n_names, n_labels), which labels of the model mean which known one. codes, guess: (n_cells,), rows and
    columns of it. can: bool (n_names,), whether the model has a label for it.
    """
    right = same[codes, guess]
    counted = can[codes]
    recall, precision, f1 = (np.full(len(same), np.nan) for _ in range(3))
    for i in np.flatnonzero(can):
        called = counted & same[i][guess]
        recall[i] = right[codes == i].mean()
        precision[i] = right[called].mean() if called.any() else 0.0
        total = recall[i] + precision[i]
        f1[i] = 2 * recall[i] * precision[i] / total if total else 0.0
    return recall, precision, f1


def _order(
    sizes: np.ndarray, can: np.ndarray, confusion: np.ndarray, same: np.ndarray
) -> tuple[list[int], list[int]]:
    """Rows: the labels that the model can give, then the others, the largest first. Columns that have cells: so that
    what agrees lies on the diagonal, then the largest first.
    """
    rows = sorted(range(len(sizes)), key=lambda i: (not can[i], -sizes[i], i))
    totals = confusion.sum(axis=0)
    used = [int(i) for i in np.argsort(-totals, kind="stable") if totals[i]]
    matched = [j for i in rows for j in used if same[i, j]]
    return rows, list(dict.fromkeys([*matched, *used]))
