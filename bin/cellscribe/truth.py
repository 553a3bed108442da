"""Predicted labels held against labels that are known, in whatever words these are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.contract import UNASSIGNED, OutputNames
from cellscribe.label_csv import is_labelled, of_sample, read_label_csv, with_labels
from cellscribe.model.calibration import expected_calibration_error
from cellscribe.qc import COLUMNS as COLUMNS_OF_QC
from cellscribe.schema import nearest
from cellscribe.truth_match import Relation, relate
from cellscribe.words import some

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "truth",
    "cl_id",
    "known_to_model",
    "scored_as",
    "n_cells",
    "recall",
    "recall_final",
    "precision",
    "f1",
    "share_unassigned",
    "predicted_same_or_compatible",
    "share_same_or_compatible",
    "most_common",
    "most_common_share",
)
PREDICTED = "predicted:"
# Whether the model can give a known label: itself, by one label that covers it, not at all; or nothing knows the words.
YES, BROADER, NO, NOT_UNDERSTOOD = "yes", "broader", "no", "not understood"

# What CONVERT and QC add to obs, and how a column ends that every annotation has: by it the others are known too.
WRITTEN = frozenset((*COLUMNS_OF_QC, "sample", "batch"))
ENDS = OutputNames("key").uncertainty.removeprefix("key")


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
    obs: pd.DataFrame, sample: str, key: str, label_csv: Path | None, meant: Collection[str] = ()
) -> tuple[np.ndarray | None, list[str]]:
    """The known label of each cell of obs, text (n_obs,), "" where none is; None where there is no such column.

    A column of the table goes before one of obs. meant: words that the user gives a meaning, which are labels even
    where they usually say that there is none ("other"). The second value says in sentences what a reader must know.
    Raises InputError where label_csv is no table of labels.
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
        hint = nearest(key, given_columns(obs)) or "."
        return None, [f"Nothing was compared with known labels: there is no column '{key}' in {where}{hint}"]
    labels = as_text(obs[key])
    known = is_labelled(labels) | np.isin([label.strip() for label in labels], list(meant))
    if not known.any():
        return None, [
            f"Nothing was compared with known labels: no cell has one in column '{key}' of {where}."
        ]
    return np.where(known, labels, ""), warnings


def given_columns(obs: pd.DataFrame) -> list[str]:
    """The columns of obs that the input had; of its own too, by their names, what this run or another one writes."""
    names = [str(name) for name in obs.columns]
    keys = tuple(f"{name.removesuffix(ENDS)}_" for name in names if name.endswith(ENDS))
    return [name for name in names if not name.startswith(keys) and name not in WRITTEN]


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
    meanings: Mapping[str, str] | None = None,
) -> Agreement:
    """Hold the predicted and the final labels against the known ones.

    truth, predicted, final: text (n_obs,); cells whose known label is "" are left out. uncertainty: (n_obs,). labels:
    every label of the model or of `predicted` and `final`, to its Cell Ontology id. known: those that the model can
    predict. meanings: the user's own words to the model's. Accuracy, F1 and calibration are of the predicted label,
    over the cells whose known label the model can give, itself or by the one label that covers it; a type of the known
    label that no other known one means is right too. What became of all cells is told by the final label. Macro-F1 is
    the mean over the labels that are scored, known ones that score as one label taken together; the calibration error
    is that of Guo et al. 2017, ICML.
    """
    rows = np.flatnonzero(truth != "")
    names, codes, sizes = np.unique(truth[rows].astype(str), return_inverse=True, return_counts=True)
    predicted, final = predicted[rows], final[rows]
    # A model made by others may predict the word.
    every = {label: cl_id for label, cl_id in labels.items() if label != UNASSIGNED or label in predicted}
    column = {label: i for i, label in enumerate(every)}
    cells = Compared(
        names,
        sizes,
        np.array(list(every), dtype=object),
        np.isin(list(every), list(known)),
        relate([str(name) for name in names], every, known, meanings),
        codes,
        np.array([column[label] for label in predicted], dtype=int),
        np.array([column.get(label, 0) for label in final], dtype=int),
        final == UNASSIGNED,
        1 - uncertainty[rows],
    )
    order, shown = _order(cells)
    table, counts = _table(cells, shown)
    given = {str(name).strip() for name in names}
    of_run = {
        "column": key,
        "source": source,
        "n_unlabelled": len(truth) - len(rows),
        "mapped": {label: means for label, means in (meanings or {}).items() if label in given},
    }
    return Agreement(
        key,
        source,
        table.iloc[order].reset_index(drop=True),
        counts.iloc[order],
        np.bincount(codes, cells.left)[order].astype(int),
        of_run | _headline(cells, order),
    )


@dataclass(frozen=True)
class Compared:
    """The cells with a known label, and what is said of them.

    names, sizes: (n_names,), the known labels and their cells. labels: (n_labels,), all that are given. predictable:
    bool (n_labels,), those that the model can predict. relation: of names to labels. codes: (n_cells,), each cell's
    known label as a place in `names`. predicted, final: (n_cells,), places in `labels`. left: bool (n_cells,), cells
    without a final label. confidence: (n_cells,).
    """

    names: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    predictable: np.ndarray
    relation: Relation
    codes: np.ndarray
    predicted: np.ndarray
    final: np.ndarray
    left: np.ndarray
    confidence: np.ndarray

    @cached_property
    def own(self) -> np.ndarray:
        """bool, (n_names,): the model can give the label itself."""
        return self.relation.same[:, self.predictable].any(axis=1)

    @cached_property
    def can(self) -> np.ndarray:
        """bool, (n_names,): it can give that, or the one label that covers it."""
        return self.own | self.relation.broader.any(axis=1)

    @cached_property
    def meant(self) -> np.ndarray:
        """bool, (n_names, n_labels): which labels a known one means, or is covered by."""
        return self.relation.same | self.relation.broader

    @cached_property
    def types(self) -> np.ndarray:
        """bool, (n_names, n_labels): which labels are types of a known one that the model can give too.

        Of a type that lies below several known labels those count alone that have none of the others below them, and
        of one that is meant by a known label no other does: what the truth tells apart, the model has to.
        """
        below = self.relation.below
        types = below & self.own[:, np.newaxis]
        # Of two known labels the narrower is that of which every type is the other's too.
        within = (below.astype(int) @ (~below).T.astype(int)) == 0
        narrower = within & ~within.T & below.any(axis=1)[:, np.newaxis]
        taken = self.meant.any(axis=0) | ((narrower.T.astype(int) @ below.astype(int)) > 0)
        return types & ~taken

    @cached_property
    def scored(self) -> np.ndarray:
        """bool, (n_names, n_labels): which labels are right for which known one."""
        return self.meant | self.types

    @cached_property
    def akin(self) -> np.ndarray:
        """bool, (n_names, n_labels): which are the same or compatible."""
        return self.scored | self.relation.compatible

    @cached_property
    def confusion(self) -> np.ndarray:
        """(n_names, n_labels): cells by known and predicted label."""
        counts = np.zeros((len(self.names), len(self.labels)), dtype=int)
        np.add.at(counts, (self.codes, self.predicted), 1)
        return counts

    @cached_property
    def scored_as(self) -> list[str]:
        """(n_names,): the labels that the model has to predict, "" for what it cannot; types of them last."""
        asked = (part & self.predictable & self.can[:, np.newaxis] for part in (self.meant, self.types))
        return [
            " or ".join([*self.labels[meant], *self.labels[types]])
            for meant, types in zip(*asked, strict=True)
        ]

    def of_final(self, relation: np.ndarray) -> np.ndarray:
        """bool, (n_cells,): whether the final label stands so to the known one. relation: as `scored`."""
        if not len(self.labels):
            return np.zeros(len(self.codes), dtype=bool)
        return relation[self.codes, self.final] & ~self.left


def _table(cells: Compared, shown: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a known label: `COLUMNS` and the cells by predicted label, those `shown`; and the latter alone."""
    import pandas as pd

    sizes, can, understood = cells.sizes, cells.can, cells.relation.understood

    def share(which: np.ndarray, told: np.ndarray) -> np.ndarray:
        """Of each known label's cells; NaN for labels that it cannot be told of."""
        return np.where(told, np.bincount(cells.codes, which, minlength=len(sizes)) / sizes, np.nan).round(4)

    recall, precision, f1 = _scores(cells.scored, cells.codes, cells.predicted, can)
    table = pd.DataFrame(
        {
            "truth": cells.names.astype(object),
            "cl_id": cells.relation.cl_ids,
            "known_to_model": np.select([cells.own, can, understood], [YES, BROADER, NO], NOT_UNDERSTOOD),
            "scored_as": cells.scored_as,
            "n_cells": sizes,
            "recall": recall.round(4),
            "recall_final": share(cells.of_final(cells.scored), can),
            "precision": precision.round(4),
            "f1": f1.round(4),
            "share_unassigned": share(cells.left, np.ones_like(can)),
            "predicted_same_or_compatible": share(cells.akin[cells.codes, cells.predicted], understood),
            "share_same_or_compatible": share(cells.of_final(cells.akin), understood),
            "most_common": cells.labels[cells.confusion.argmax(axis=1)],
            "most_common_share": (cells.confusion.max(axis=1) / sizes).round(4),
        }
    )
    counts = pd.DataFrame(cells.confusion[:, shown], index=cells.names, columns=cells.labels[shown])
    return pd.concat([table, counts.add_prefix(PREDICTED).reset_index(drop=True)], axis=1), counts


def _headline(cells: Compared, order: Sequence[int]) -> dict[str, Any]:
    """The numbers of all cells together. order: of the known labels."""
    right, counted = cells.scored[cells.codes, cells.predicted], cells.can[cells.codes]
    same, akin = cells.of_final(cells.relation.same), cells.of_final(cells.akin)
    understood = cells.relation.understood
    error = expected_calibration_error(cells.confidence[counted], right[counted]) if counted.any() else None

    def n_cells(which: np.ndarray) -> dict[str, int]:
        return {str(cells.names[i]): int(cells.sizes[i]) for i in order if which[i]}

    return {
        "n_cells": len(cells.codes),
        "n_known": int(counted.sum()),
        "accuracy": _mean(right[counted]),
        "macro_f1": _macro_f1(cells),
        "accuracy_assigned": _mean(right[counted & ~cells.left]),
        "calibration_error": None if error is None else round(error, 4),
        "share_same": _mean(same),
        "share_compatible": _mean(akin & ~same),
        "share_unassigned": _mean(cells.left),
        "share_different": _mean(~(akin | cells.left) & understood[cells.codes]),
        "share_not_understood": _mean(~cells.left & ~understood[cells.codes]),
        "scored_as": {
            str(cells.names[i]): cells.scored_as[i] for i in order if cells.can[i] and not cells.own[i]
        },
        "types_of": {
            str(cells.names[i]): cells.labels[cells.types[i] & cells.predictable].tolist()
            for i in order
            if (cells.types[i] & cells.predictable).any()
        },
        "unknown_labels": n_cells(~cells.can & understood),
        "not_understood": n_cells(~understood),
    }


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def _scores(
    scored: np.ndarray, codes: np.ndarray, guess: np.ndarray, can: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and F1 of each known label, (n_names,); NaN for those that the model cannot give.

    scored: bool (n_names, n_labels), which labels of the model are right for which known one. codes, guess: (n_cells,),
    rows and columns of it. can: bool (n_names,), whether the model has a label for it.
    """
    right = scored[codes, guess]
    counted = can[codes]
    recall, precision, f1 = (np.full(len(scored), np.nan) for _ in range(3))
    for i in np.flatnonzero(can):
        called = counted & scored[i][guess]
        recall[i] = right[codes == i].mean()
        precision[i] = right[called].mean() if called.any() else 0.0
        total = recall[i] + precision[i]
        f1[i] = 2 * recall[i] * precision[i] / total if total else 0.0
    return recall, precision, f1


def _macro_f1(cells: Compared) -> float | None:
    """The mean F1 of what is scored: known labels that score as the same labels are one class."""
    scored, counted = cells.scored[cells.can], cells.can[cells.codes]
    _, first, class_of = np.unique(
        scored[:, cells.predictable], axis=0, return_index=True, return_inverse=True
    )
    row = np.cumsum(cells.can) - 1
    codes = class_of.ravel()[row[cells.codes[counted]]]
    _, _, f1 = _scores(scored[first], codes, cells.predicted[counted], np.ones(len(first), dtype=bool))
    return _mean(f1)


def _order(cells: Compared) -> tuple[list[int], list[int]]:
    """Rows: the labels that the model can give, then the others, the largest first. Columns that have cells: so that
    what agrees lies on the diagonal, then the largest first.
    """
    rows = sorted(range(len(cells.sizes)), key=lambda i: (not cells.can[i], -cells.sizes[i], i))
    totals = cells.confusion.sum(axis=0)
    used = [int(i) for i in np.argsort(-totals, kind="stable") if totals[i]]
    matched = [j for i in rows for j in used if cells.scored[i, j]]
    return rows, list(dict.fromkeys([*matched, *used]))
