"""The part of a sample's page that tells what its cells are called: by label, by cluster, and both together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe import verdicts
from cellscribe.contract import UNASSIGNED
from cellscribe.report_evidence import MarkerEvidence
from cellscribe.report_inputs import Cells
from cellscribe.report_words import WHY_UNASSIGNED, count, percent, readable
from cellscribe.words import plural

if TYPE_CHECKING:
    import pandas as pd

TYPES_BY_CLUSTER = 18
# Of a user's own there may be hundreds.
CLUSTERS_SHOWN = 100
GENES_SHOWN = 6
# Of so many clusters that are all weak a table is a wall that says one thing.
FEWEST_FOLDED = 20
# Of a type with fewer cells, or with a smaller part left unassigned, the page need not warn.
FEWEST_TO_MISS, PART_MISSED = 20, 0.25
MOST_TYPES_MISSED = 4
# Of a broader name: of fewer cells, or of a smaller part of the sample, the genes show a mixture.
FEWEST_OF_BROADER, PART_OF_BROADER = 50, 0.01
# Below this precision in the model's own test a label is not to be relied on; of fewer cells the page need not warn.
POOR_PRECISION, PART_POOR = 0.5, 0.01
# Where a larger part of the cells has no name, what is said of single types only hides that.
MOSTLY_UNASSIGNED = 0.8


def composition(
    cells: Cells,
    evidence: MarkerEvidence,
    manifest: dict[str, Any],
    tested: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """One row a final label, the largest first, `unassigned` last. tested: `label_scores` of the model."""
    labels, counts = np.unique(cells.final.astype(str), return_counts=True)
    order = sorted(range(len(labels)), key=lambda i: (labels[i] == UNASSIGNED, -counts[i], labels[i]))
    support = {one.label: one for one in evidence.named}
    known = labels_of(manifest)
    largest = max(counts)
    left = _left_by_label(cells)
    rows = []
    for i in order:
        name, members = str(labels[i]), cells.final == labels[i]
        signs = _median_signs(cells, members)
        cl_id = str(known.get(name, {}).get("cl_id") or cells.cl_ids.get(name, ""))
        if name == UNASSIGNED:
            cl_id = ""
        rows.append(
            {
                "label": name,
                "colour": evidence.colours[name],
                "broader": is_broader(name, known),
                "cl_id": cl_id,
                "cl_url": _cell_ontology_url(cl_id),
                "cl_name": known.get(name, {}).get("cl_name", ""),
                "n": count(counts[i]),
                "share": percent(counts[i] / len(cells.final)),
                "width": 100 * counts[i] / largest,
                "uncertainty": f"{np.median(cells.uncertainty[members]):.2f}",
                "distance": "–" if cells.distance is None else f"{np.median(cells.distance[members]):.2f}",
                "unexpected": signs.get("Unexpected genes", "–"),
                "novelty": signs.get("Median novelty", ""),
                "support": support.get(name),
                "left": "" if name == UNASSIGNED else count(left[name]),
                "tested": {
                    score: (f"{value:.2f}", value < POOR_PRECISION)
                    for score, value in tested.get(name, {}).items()
                    if score in ("precision", "recall")
                },
            }
        )
    return rows


def missed_types(cells: Cells) -> list[str]:
    """A sentence for each type of whose cells a large part was left unassigned, so that its share is too small.

    Cells with too few counts have no part in it: the type is not what kept them from a name.
    """
    enough = cells.reason != "low_information"
    sizes = Counter(cells.predicted[enough].tolist())
    left = Counter(cells.predicted[enough & cells.unassigned].tolist())
    missed = [
        name for name in left if sizes[name] >= FEWEST_TO_MISS and left[name] > PART_MISSED * sizes[name]
    ]
    apart = "" if enough.all() else " and have enough counts"
    return [
        f"{left[name]:,} of the {sizes[name]:,} cells that come closest to {name}{apart} were left unassigned: either "
        f"they are something else, or the model is too strict with them. Look at their genes before you compare "
        f"shares of {name} between samples."
        for name in sorted(missed, key=lambda name: (-left[name], name))[:MOST_TYPES_MISSED]
    ]


def poor_labels(tested: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The labels of a poor precision in the model's own test, as a share in words. tested: `label_scores`."""
    return {
        label: percent(scores["precision"], 0)
        for label, scores in tested.items()
        # 0 is also of a label that no cell of the test got.
        if 0 < scores.get("precision", 1) < POOR_PRECISION
    }


def poorly_named(cells: Cells, poor: Mapping[str, str]) -> list[str]:
    """A sentence for each poor label that more than 1 % of the cells have, the largest first. poor: `poor_labels`."""
    sizes = Counter(cells.final.tolist())
    found = [name for name in poor if sizes[name] > PART_POOR * len(cells.final)]
    return [
        f"{plural(sizes[name], 'cell')} {'is' if sizes[name] == 1 else 'are'} called {name}, a name that in the "
        f"model's own test was right for {poor[name]} of the cells that got it: do not rely on it."
        for name in sorted(found, key=lambda name: (-sizes[name], name))
    ]


def _left_by_label(cells: Cells) -> Counter[str]:
    """How many unassigned cells come closest to each label."""
    return Counter(cells.predicted[cells.unassigned].tolist())


def reasons_of_unassigned(cells: Cells) -> list[tuple[str, str, str]]:
    """Why cells have no name, the commonest reason first: number, share of the unassigned, words."""
    reasons, numbers = np.unique(cells.reason[cells.unassigned].astype(str), return_counts=True)
    n_left = max(int(cells.unassigned.sum()), 1)
    return [
        (
            count(n),
            percent(n / n_left),
            WHY_UNASSIGNED[str(name)][2] if str(name) in WHY_UNASSIGNED else readable(str(name)),
        )
        for name, n in sorted(zip(reasons, numbers, strict=True), key=lambda item: -item[1])
    ]


def signs_of_unassigned(cells: Cells) -> dict[str, Any]:
    """What makes unassigned cells strange, by the label that they came closest to: `names`, and `of` each label.

    What the model cannot say is left out.
    """
    of = {
        label: _median_signs(cells, cells.unassigned & (cells.predicted == label))
        for label in dict.fromkeys(cells.predicted[cells.unassigned].tolist())
    }
    return {
        "names": list(next(iter(of.values()), {})),
        "of": {label: list(signs.values()) for label, signs in of.items()},
    }


def _median_signs(cells: Cells, members: np.ndarray) -> dict[str, str]:
    """The medians of what makes cells strange, each by its name on the page. members: bool, (n_obs,)."""
    signs = {}
    if cells.unexpected is not None:
        signs["Unexpected genes"] = f"{100 * np.median(cells.unexpected[members]):.2f} %"
    if cells.novelty is not None:
        signs["Median novelty"] = f"{np.median(cells.novelty[members]):.2f}"
    return signs


def _cell_ontology_url(cl_id: str) -> str:
    """A link for a well-formed id; anything else stays text."""
    return (
        f"https://purl.obolibrary.org/obo/{cl_id.replace(':', '_')}"
        if re.fullmatch(r"CL:\d{7}", cl_id)
        else ""
    )


def cluster_rows(
    cells: Cells,
    annotation: dict[str, Any],
    judged: Sequence[verdicts.ClusterVerdict],
    genes: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """One row a cluster: its name, whether its genes support it, how many of its cells are unassigned or far, and what
    marks it here. genes: those that mark each cluster, the first first.
    """
    by_name = {one.cluster: one for one in judged}
    cluster = np.full(len(cells.final), "", dtype=object) if cells.cluster is None else cells.cluster
    names, codes = np.unique(cluster.astype(str), return_inverse=True)
    code_of = {str(name): code for code, name in enumerate(names)}
    rows = []
    for entry in annotation.get("clusters") or []:
        name = str(entry.get("cluster"))
        members = codes == code_of.get(name, -1)
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
                "genes": ", ".join(genes.get(name, ())[:GENES_SHOWN]),
            }
        )
    return rows


def verdict_counts(judged: Sequence[verdicts.ClusterVerdict]) -> list[tuple[str, int]]:
    """How many clusters that got a name have each verdict, those that none has left out; then how many got no name."""
    given = [one.support.verdict for one in judged if one.named]
    counts = [(verdict_, given.count(verdict_)) for verdict_ in verdicts.VERDICTS if verdict_ in given]
    return [*counts, ("left unassigned", len(judged) - len(given))] if len(given) < len(judged) else counts


def too_shallow_to_tell(judged: Sequence[verdicts.ClusterVerdict], cells: Cells) -> bool:
    """Whether the genes of many clusters tell nothing of any, as most cells have too few counts."""
    return (
        len(judged) >= FEWEST_FOLDED
        and all(one.support.verdict == verdicts.WEAK for one in judged)
        and bool((cells.reason == "low_information").mean() > 0.5)
    )


def supported_clusters(judged: Sequence[verdicts.ClusterVerdict]) -> str:
    """How many of the clusters that got a name are supported by their genes; "" where none could be judged."""
    given = [one.support.verdict for one in judged if one.named]
    if not set(given) - {verdicts.NOT_JUDGED}:
        return ""
    n = given.count(verdicts.SUPPORTED)
    return f"{n} of {plural(len(given), 'named cluster')} {'is' if n == 1 else 'are'} supported by the genes."


def is_broader(label: str, known: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a final label is no type of the model's but a broader name. known: the model's labels, {} unknown.

    By name: `Other T cell` of a model may have the id of `T cell`, which covers all its T cells.
    """
    return bool(known) and label not in known and label != UNASSIGNED


def handfuls(cells: Cells, manifest: dict[str, Any]) -> list[str]:
    """The broader names of so few cells that these are a mixed handful, sorted: what marks them is noise."""
    known = labels_of(manifest)
    least = max(FEWEST_OF_BROADER, PART_OF_BROADER * len(cells.final))
    sizes = Counter(cells.final.tolist())
    return sorted(name for name, n in sizes.items() if n < least and is_broader(name, known))


def labels_of(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The labels that a manifest tells of, by name."""
    return {str(entry.get("label")): entry for entry in manifest.get("labels") or []}


def names_given(cells: Cells, manifest: dict[str, Any]) -> tuple[str, str]:
    """How many types were named, and the words for it, with the number of broader names."""
    known = labels_of(manifest)
    given = set(cells.final) - {UNASSIGNED}
    broader = sum(is_broader(name, known) for name in given)
    n = len(given) - broader
    also = f" and {plural(broader, 'broader name')}" if broader else ""
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
    """The same as a grid for the page: the largest types as columns, all others together in the last; the largest
    clusters as rows.
    """
    table = types_by_cluster(cells)
    if cells.cluster is None:
        return {}
    sizes = table.groupby("predicted")["n_cells"].sum().sort_values(ascending=False, kind="stable")
    shown = [str(name) for name in sizes.index[:TYPES_BY_CLUSTER]]
    rows: list[dict[str, Any]] = []
    for cluster, part in table.groupby("cluster", sort=False):
        if len(rows) == CLUSTERS_SHOWN:
            break
        own = dict(zip(part["predicted"].astype(str), part["n_cells"], strict=True))
        total = sum(own.values())
        numbers = [own.get(name, 0) for name in shown]
        if len(sizes) > len(shown):
            numbers.append(total - sum(numbers))
        rows.append(
            {"cluster": str(cluster), "n": count(total), "cells": [(count(n), n / total) for n in numbers]}
        )
    return {"types": shown, "others": len(sizes) - len(shown), "rows": rows}
