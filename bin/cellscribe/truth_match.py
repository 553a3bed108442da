"""How labels that are known, in whatever words these are written, stand to the labels of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from cellscribe.model.ontology import NO_ANCESTORS, ROOTS, find_cl_ids, lineages, plain_name


@dataclass(frozen=True)
class Relation:
    """How each known label stands to each label of the model; arrays are bool (n_truth, n_labels).

    same: they mean one type. compatible: one is an ancestor of the other in the Cell Ontology. broader: the label of
    the model that stands for a finer known one (several where they are of one term). below: a type of the known one, by
    the Cell Ontology or as one of several labels that a model has for one term; none of one that says "other". cl_ids:
    (n_truth,), "" where none is known. understood: bool (n_truth,), false where neither a label nor a term of a type
    matches the words.
    """

    cl_ids: list[str]
    same: np.ndarray
    compatible: np.ndarray
    broader: np.ndarray
    below: np.ndarray
    understood: np.ndarray


def relate(
    truth: Sequence[str],
    labels: Mapping[str, str],
    known: Iterable[str] | None = None,
    meanings: Mapping[str, str] | None = None,
) -> Relation:
    """Find which labels of the model mean what a known label means, which are its kin, and which stands for it.

    labels: the model's label to its Cell Ontology id, "" where it has none. known: those that the model can predict,
    all by default; others, of cells that got a broader name, count by their term beside what the model can predict.
    meanings: the user's own words to the model's, or to an id. A known label that is written as one of the model's, but
    for what `plain_name` leaves out, is that one; any other is its namesake's or its id's term in the Cell Ontology,
    and the same as each label of that term.
    """
    words = [(meanings or {}).get(label.strip(), label) for label in truth]
    plain = [plain_name(label) for label in labels]
    given = {label: cl_id for label, cl_id in labels.items() if cl_id}
    ids = list(find_cl_ids(list(labels), given).values())
    found = find_cl_ids(words)
    predictable = np.isin(list(labels), list(labels if known is None else known))
    cl_ids = []
    same = np.zeros((len(truth), len(labels)), dtype=bool)
    for row, label in enumerate(words):
        same[row] = [plain_name(label) == other for other in plain]
        named = same[row] & predictable if (same[row] & predictable).any() else same[row]
        own = [ids[column] for column in np.flatnonzero(named) if ids[column]]
        cl_ids.append(own[0] if own else found[label])
        if cl_ids[-1]:
            of_term = np.array([cl_ids[-1] == other for other in ids])
            same[row] |= of_term & ~predictable if (same[row] & predictable).any() else of_term
    above = {cl_id: others - ROOTS for cl_id, others in lineages([*cl_ids, *ids]).items()}
    finer = np.array([[one in above.get(other, ()) for other in ids] for one in cl_ids], dtype=bool)
    coarser = np.array([[other in above.get(one, ()) for other in ids] for one in cl_ids], dtype=bool)
    finer, coarser = finer.reshape(same.shape), coarser.reshape(same.shape)
    below = finer & ~same
    for row, label in enumerate(words):
        # Words of a study's own, as "CD4 cm" with the id of CD4 T cells, mean no more than the label that is called so.
        if cl_ids[row] and found[label] == cl_ids[row]:
            below[row] |= np.array([cl_ids[row] == other for other in ids]) & ~same[row]
        below[row] &= "other" not in plain_name(label).split()
    broader = np.zeros_like(same)
    for row in np.flatnonzero(~(same & predictable).any(axis=1)).tolist():
        stands = standing_for(
            cl_ids[row], [cl_id for cl_id, can in zip(ids, predictable, strict=True) if can], above
        )
        broader[row] = predictable & [bool(stands) and cl_id == stands for cl_id in ids]
    types = above.keys() - ROOTS
    understood = same.any(axis=1) | np.array([cl_id in types for cl_id in cl_ids], dtype=bool)
    return Relation(cl_ids, same, (finer | coarser) & ~same, broader, below, understood)


def standing_for(cl_id: str, ids: Iterable[str], above: Mapping[str, frozenset[str]]) -> str:
    """Which of a model's terms has to be predicted for cells of a finer type, or "" where that is not certain.

    ids: the model's. above: the ancestors of each term. The lowest of its ancestors is, where there is one, and where
    no other label of the model might be right too: a memory T cell may be a CD4 T cell.
    """
    ids = {one for one in ids if one} - ROOTS
    over = ids & above.get(cl_id, frozenset())
    lowest = [one for one in over if not any(one in above[other] for other in over)]
    if len(lowest) != 1 or any(_share_a_type(cl_id, other) for other in ids - over):
        return ""
    return lowest[0]


def _share_a_type(one: str, other: str) -> bool:
    """Whether some type is both."""
    return not _covered(one).isdisjoint(_covered(other))


@cache
def _covered(cl_id: str) -> frozenset[str]:
    """A term and all below it."""
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    parser = OntologyParser()
    below = parser.get_term_descendants(cl_id) if parser.is_valid_term_id(cl_id) else []
    return frozenset(term for term in (cl_id, *below) if cl_id not in NO_ANCESTORS.get(term, ()))
