"""Do the genes agree with the names? A verdict for each label and for each cluster, by the markers of its type.

`RULE` says how, in the words that the report prints. The thresholds were chosen on pbmc3k and on the six samples of
multistudy, with markers of the one for the cells of the other (benchmarks/verdicts.py); docs/outputs.md has what was
measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.contract import UNASSIGNED
from cellscribe.differential import MIN_CELLS_TO_TEST
from cellscribe.markers import GroupStatistics, Marker

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = SUPPORTED, WEAK, CONTRADICTED, NOT_JUDGED = "supported", "weak", "contradicted", "not judged"
MIN_CELLS_TO_JUDGE = 5
MARKERS_JUDGED = 10
MIN_MARKERS_PRESENT = 3
MOST_WARNINGS = 6
# Shares of the difference that a gene makes in the reference.
LEAST_DIFFERENCE, NOT_MORE_THAN = 0.2, 0.5
STANDARD_ERRORS = 2
# So that a few cells that happen to be alike do not seem certain (log-normalised units, squared).
PSEUDO_VARIANCE = 0.05
# Log-normalised units; a marker whose difference in the reference is less is taken to have this one.
SMALLEST_DIFFERENCE = 0.1
SHARE_UP, SHARE_NOT_UP = 0.6, 0.7
LEAST_RISE = 0.33
SOMEWHAT_MORE, CLEARLY_MORE = 0.1, 0.25
# A marker of another type is absent where this part of its share in the reference is not reached.
ABSENT = 0.25
GENES_NAMED = 4
# A cluster whose commonest name has less of its cells holds several types.
SHARE_OF_ONE_TYPE = 0.5
OTHER_CELLS, REFERENCE = "other cells", "reference"
# The part of the coreceptor of CD8 T cells that NK cells lack, human and mouse: the Cell Ontology defines the type by
# the coreceptor. Naive CD8 T cells have it, and few other genes that mark CD8 T cells as a whole. Its ids are its
# names in a model without symbols.
DEFINING = frozenset(("CD8B", "CD8B1", "ENSG00000172116", "ENSMUSG00000053044"))

RULE = (
    f"Each name is judged by the model's first {MARKERS_JUDGED} marker genes of that type which this sample"
    " measures, in all cells of the name or of the cluster, against the cells of other types. A gene goes up where its"
    " mean log-normalised expression is higher, by at least"
    f" {100 * LEAST_DIFFERENCE:.0f} % of the difference that it makes in the reference and by"
    f" {STANDARD_ERRORS} standard errors. It does not go up where the difference stays below"
    f" {100 * NOT_MORE_THAN:.0f} % of the reference's even with {STANDARD_ERRORS} standard errors added. In between,"
    " cells or counts are too few to tell. The rise of a type is the share of the reference's difference that is"
    " there, 0 to 1, the mean of its markers. A name is supported where at least"
    f" {100 * SHARE_UP:.0f} % of its markers go up, the rise is at least {LEAST_RISE}, and no other type's markers"
    f" rise by more than {SOMEWHAT_MORE} further. It is contradicted where at least {100 * SHARE_NOT_UP:.0f} % do not"
    f" go up, or another type's markers rise by more than {CLEARLY_MORE} further. All else is weak, as are fewer than"
    f" {MIN_CELLS_TO_JUDGE} cells or {MIN_MARKERS_PRESENT} measured markers, a name that would be contradicted though"
    " CD8B, by which CD8 T cells are defined, is among its markers and goes up, and a cluster of whose cells fewer than"
    " half have the name. Another type counts where"
    f" {100 * SHARE_UP:.0f} % of its markers go up, without those that both types have; a broader or finer type of the"
    " name never speaks against it. Where cells of other types are too few, the reference's take their place; then, and"
    f" where no type's markers rise by {LEAST_RISE} anywhere in the sample, only another type's markers can contradict"
    " a name."
)

VERDICT_COLUMNS = (
    "cluster",
    "n_cells",
    "label",
    "share",
    "predicted",
    "judged_as",
    "verdict",
    "points_to",
    "n_markers",
    "n_up",
    "n_not_up",
    "rise",
    "points_to_rise",
    "compared_with",
    "genes_up",
    "genes_not_up",
    "top_genes",
    "reason",
)


@dataclass(frozen=True)
class MarkerCall:
    """One expected marker as it is in this sample; means are log-normalised, `mean_rest` of the cells compared with."""

    symbol: str
    mean: float
    share: float
    mean_rest: float
    up: bool
    not_up: bool
    """Neither is set where cells or counts are too few to tell."""
    rise: float
    """How much of the reference's difference is there, 0 to 1."""
    higher_in: str = ""
    """The label whose cells express it more, "" where that is this one."""


@dataclass(frozen=True)
class Support:
    """What the expected markers say about the cells of one name."""

    label: str
    n_cells: int
    verdict: str
    """`supported`, `weak`, `contradicted`, or `not judged` where the model has no markers for the name."""
    why: str
    calls: list[MarkerCall] = field(default_factory=list)
    judged_as: str = ""
    """The type whose markers were looked at: the name's own, or a finer type where only that has markers."""
    compared_with: str = ""
    """`other cells` of the sample, or the `reference`."""
    rival: str = ""
    """A type whose own markers rise further in these cells than this name's do, or ""."""
    rival_rise: float = 0.0
    rival_genes: tuple[str, ...] = ()
    """The markers of the rival that go up."""

    @property
    def n_up(self) -> int:
        """How many of the markers go up."""
        return sum(call.up for call in self.calls)

    @property
    def n_not_up(self) -> int:
        """How many certainly do not."""
        return sum(call.not_up for call in self.calls)

    @property
    def rise(self) -> float:
        """Mean over the markers, 0 to 1."""
        return _rise(self.calls)


@dataclass(frozen=True)
class Judge:
    """The sample's cells and the model's markers, ready to judge any set of cells.

    statistics: by group of cells. predicted: (n_groups,), the label that the cells of each group resemble most. Cells
    are held against those whose *predicted* label is another one, so that cells of the same type that were left
    unassigned do not hide its markers. clusters: (n_groups,), the cluster of each group, or again its predicted label.
    located: label to its markers and their columns in `statistics`. expected: the same before they were looked for.
    kin: label to those that are it, its ancestors or its descendants.
    """

    statistics: GroupStatistics
    predicted: np.ndarray
    clusters: np.ndarray
    located: Mapping[str, Sequence[tuple[Marker, int]]]
    expected: Mapping[str, Sequence[Marker]]
    kin: Mapping[str, frozenset[str]]

    @cached_property
    def shows_types(self) -> bool:
        """Whether any type's markers rise by `LEAST_RISE` anywhere; else absence means shallow cells."""
        for members in (self.clusters == name for name in dict.fromkeys(self.clusters.tolist())):
            for label, hits in self.located.items():
                first = hits[:MARKERS_JUDGED]
                if len(first) >= MIN_MARKERS_PRESENT:
                    rest = self._others(self._related(label), members)
                    if rest is not None and _rise(self._calls(first, members, rest)) >= LEAST_RISE:
                        return True
        return False

    def support(self, label: str, members: np.ndarray, judged_as: str = "") -> Support:
        """Judge a name. members: bool (n_groups,), the groups that carry it. judged_as: whose markers to look at."""
        judged_as = judged_as or label
        n = int(self.statistics.n_cells[members].sum())
        if not self.expected.get(judged_as):
            return Support(label, n, NOT_JUDGED, "the model has no markers for this name")
        if n < MIN_CELLS_TO_JUDGE:
            return Support(label, n, WEAK, f"fewer than {MIN_CELLS_TO_JUDGE} cells", judged_as=judged_as)
        hits = self.located.get(judged_as, ())[:MARKERS_JUDGED]
        related = self._related(label) | self._related(judged_as)
        rest = self._others(related, members)
        calls = self._calls(hits, members, rest, judged_as)
        compared_with = REFERENCE if rest is None else OTHER_CELLS
        if len(hits) < MIN_MARKERS_PRESENT:
            why = f"only {len(hits)} of its {len(self.expected[judged_as])} markers are measured here"
            return Support(label, n, WEAK, why, calls, judged_as, compared_with)
        rival, theirs = self._rival(members, judged_as, related, alone=rest is None)
        verdict = _weigh(calls, theirs, absence_counts=rest is not None and self.shows_types)
        spared_by = []
        if verdict == CONTRADICTED:
            spared_by = [call.symbol for call in calls if call.up and call.symbol.upper() in DEFINING]
            verdict = WEAK if spared_by else verdict
        further = _rise(theirs) - _rise(calls)
        if not rival or further <= (SOMEWHAT_MORE if verdict != CONTRADICTED else 0):
            rival, theirs = "", []
        return Support(
            label,
            n,
            verdict,
            _reason(verdict, calls, rival, theirs, self._absent(members, related, hits))
            + "".join(f"; but {gene}, by which the type is defined, goes up" for gene in spared_by)
            + ("" if rest is not None else "; compared with the reference")
            + ("" if judged_as == label else f"; by the markers of {judged_as}"),
            calls,
            judged_as,
            compared_with,
            rival,
            _rise(theirs),
            tuple(call.symbol for call in theirs if call.up),
        )

    def _related(self, label: str) -> frozenset[str]:
        return self.kin.get(label, frozenset()) | {label}

    def _others(self, related: frozenset[str], members: np.ndarray) -> np.ndarray | None:
        """The groups of other types, bool (n_groups,); None where they have too few cells to compare with."""
        rest = ~np.isin(self.predicted, list(related)) & ~members
        n, n_rest = (self.statistics.n_cells[groups].sum() for groups in (members, rest))
        return rest if n_rest >= max(MIN_CELLS_TO_TEST, 0.02 * n) else None

    def _calls(
        self,
        hits: Sequence[tuple[Marker, int]],
        members: np.ndarray,
        rest: np.ndarray | None,
        label: str = "",
    ) -> list[MarkerCall]:
        """Look at markers in some groups. With a `label`, also who of the others expresses them more."""
        columns = [column for _, column in hits]
        n, mean, share = self.statistics.of(members, columns)
        error = (self.statistics.variance(members, columns) + PSEUDO_VARIANCE) / max(n, 1)
        if rest is None:
            mean_rest = np.array([gene.mean_rest for gene, _ in hits])
        else:
            n_rest, mean_rest, _ = self.statistics.of(rest, columns)
            error = error + self.statistics.variance(rest, columns) / n_rest
        expected = np.array([max(gene.mean - gene.mean_rest, SMALLEST_DIFFERENCE) for gene, _ in hits])
        difference, margin = mean - mean_rest, STANDARD_ERRORS * np.sqrt(error)
        up = (difference >= LEAST_DIFFERENCE * expected) & (difference > margin)
        not_up = ~up & (difference + margin < NOT_MORE_THAN * expected)
        rise = np.clip(difference / expected, 0, 1)
        higher_in = self._highest(columns, mean, label) if label else [""] * len(hits)
        return [
            MarkerCall(
                hits[i][0].symbol,
                float(mean[i]),
                float(share[i]),
                float(mean_rest[i]),
                bool(up[i]),
                bool(not_up[i]),
                float(rise[i]),
                higher_in[i],
            )
            for i in range(len(hits))
        ]

    def _highest(self, columns: Sequence[int], mean: np.ndarray, label: str) -> list[str]:
        highest, names = mean.copy(), np.full(len(columns), "", dtype=object)
        for other in sorted(set(self.predicted.tolist()) - {label}):
            n, theirs, _ = self.statistics.of(self.predicted == other, columns)
            if n >= MIN_CELLS_TO_JUDGE:
                names[theirs > highest] = other
                highest = np.maximum(highest, theirs)
        return [str(name) for name in names]

    def _rival(
        self, members: np.ndarray, label: str, related: frozenset[str], *, alone: bool
    ) -> tuple[str, list[MarkerCall]]:
        """The unrelated type whose own markers rise furthest here, if most of them go up. alone: no other cells."""
        own = {column for _, column in self.located.get(label, ())}
        best: tuple[str, list[MarkerCall]] = ("", [])
        for other, genes in sorted(self.located.items()):
            theirs = [(gene, column) for gene, column in genes if column not in own][:MARKERS_JUDGED]
            if other in related or len(theirs) < MIN_MARKERS_PRESENT:
                continue
            calls = self._calls(
                theirs, members, None if alone else self._others(self._related(other), members)
            )
            if sum(call.up for call in calls) >= SHARE_UP * len(calls) and _rise(calls) > _rise(best[1]):
                best = (other, calls)
        return best

    def _absent(
        self, members: np.ndarray, related: frozenset[str], own: Sequence[tuple[Marker, int]]
    ) -> list[str]:
        """A marker that these cells lack of each of the two largest other types, as `CD3D (T cell)`."""
        taken = {column for _, column in own}
        sizes = {
            name: int(self.statistics.n_cells[self.predicted == name].sum())
            for name in set(self.predicted.tolist()) - related
        }
        found: dict[str, str] = {}
        for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
            hits = [hit for hit in self.located.get(name, ()) if hit[1] not in taken][:MARKERS_JUDGED]
            _, _, share = self.statistics.of(members, [column for _, column in hits])
            lacking = [
                gene.symbol
                for (gene, _), part in zip(hits, share, strict=True)
                if part < ABSENT * gene.share and gene.symbol not in found
            ]
            if lacking:
                found[lacking[0]] = name
        return [f"{gene} ({name})" for gene, name in found.items()][:2]


def _rise(calls: Sequence[MarkerCall]) -> float:
    return float(np.mean([call.rise for call in calls])) if calls else 0.0


def _weigh(calls: Sequence[MarkerCall], theirs: Sequence[MarkerCall], *, absence_counts: bool) -> str:
    """The verdict by a name's own markers and by its rival's (empty where there is none), as `RULE` says."""
    further = _rise(theirs) - _rise(calls) if theirs else -1.0
    none_up = sum(call.not_up for call in calls) >= SHARE_NOT_UP * len(calls)
    if further > CLEARLY_MORE or (none_up and (absence_counts or further > 0)):
        return CONTRADICTED
    enough = sum(call.up for call in calls) >= SHARE_UP * len(calls) and _rise(calls) >= LEAST_RISE
    return SUPPORTED if enough and further <= SOMEWHAT_MORE else WEAK


def _reason(
    verdict: str,
    calls: Sequence[MarkerCall],
    rival: str,
    theirs: Sequence[MarkerCall],
    absent: Sequence[str],
) -> str:
    """In words: which genes speak for the name, and which against it."""
    up, not_up, unclear = (
        [call.symbol for call in calls if wanted(call)]
        for wanted in (
            lambda call: call.up,
            lambda call: call.not_up,
            lambda call: not call.up and not call.not_up,
        )
    )
    other = f"{_listed([call.symbol for call in theirs if call.up])} up, which mark {rival}" if rival else ""
    of = f"{len(up)} of {len(calls)} markers go up"
    if verdict == SUPPORTED:
        parts = [f"{_listed(up)} up ({of})", f"no {', no '.join(absent)}" if absent else ""]
    elif verdict == CONTRADICTED:
        mine = f"{_listed(up)} up, but less" if len(up) > len(not_up) else f"{_listed(not_up)} not up"
        parts = [other or "no other type's markers clearly go up", f"{mine} ({of})"]
    else:
        enough = len(up) >= SHARE_UP * len(calls)
        faint = (
            f", by {100 * _rise(calls):.0f} % of what the reference has" if _rise(calls) < LEAST_RISE else ""
        )
        parts = [
            (f"{of}{faint}" if enough else f"only {of}") + (f": {_listed(up)}" if up else ""),
            f"too few cells or counts to tell of {_listed(unclear)}" if unclear else "",
            other,
        ]
    return "; ".join(part for part in parts if part)


def _listed(genes: Sequence[str]) -> str:
    return ", ".join(genes[:GENES_NAMED])


def judge_labels(judge: Judge, final: np.ndarray) -> tuple[list[Support], list[Support]]:
    """Judge every final label, and the unassigned cells by the label that they came closest to; the largest first.

    final: (n_groups,), the final label of each of the judge's groups.
    """
    named = [judge.support(name, final == name) for name in sorted(set(final.tolist()) - {UNASSIGNED})]
    left = [
        judge.support(name, (judge.predicted == name) & (final == UNASSIGNED))
        for name in sorted(set(judge.predicted[final == UNASSIGNED].tolist()))
    ]
    return sorted(named, key=lambda one: -one.n_cells), sorted(left, key=lambda one: -one.n_cells)


# --- clusters ---


@dataclass(frozen=True)
class ClusterVerdict:
    """What the markers say about one cluster. share: of its cells, those that have its label, 0 to 1."""

    cluster: str
    n_cells: int
    label: str
    """The commonest final label; `unassigned` where that is commonest."""
    share: float
    predicted: str
    """The commonest predicted label."""
    support: Support

    @property
    def named(self) -> bool:
        """Whether its commonest final label is a name, which the verdict is then about."""
        return self.label != UNASSIGNED

    @property
    def mixed(self) -> bool:
        """Whether its commonest name is that of fewer than half of its cells."""
        return self.named and self.share < SHARE_OF_ONE_TYPE

    @property
    def why(self) -> str:
        """The verdict in words; of a mixed cluster first that it is one, and how far each type's markers rise."""
        one = self.support
        if not self.mixed:
            return one.why
        rises = [(one.rival, one.rival_rise)] if one.rival else []
        rises += [(one.judged_as, one.rise)] if one.calls else []
        said = ", ".join(
            f"those of {label} to {100 * rise:.0f} %"
            if i
            else f"the markers of {label} rise to {100 * rise:.0f} % of what the reference has"
            for i, (label, rise) in enumerate(rises)
        )
        return f"holds several types{': ' if said else ''}{said}; {one.why}"


def judge_clusters(
    judge: Judge, cluster: np.ndarray, predicted: np.ndarray, final: np.ndarray, *, no_cluster: str = ""
) -> list[ClusterVerdict]:
    """Judge every cluster by the commonest name of its cells, the largest cluster first.

    cluster, predicted, final: (n_obs,), of each cell. no_cluster: what `cluster` has for cells that are in none, and
    have no verdict; "" where all are in one.
    A name without markers, as a broad one, is judged by those of a finer label: of those that its cells resemble, the
    one that most of the cluster does. A cluster without a name is judged by what its unassigned cells resemble most.
    """
    verdicts = []
    # Numbers, as texts of a million cells compared with each of a thousand names take minutes.
    names, codes = np.unique(cluster.astype(str), return_inverse=True)
    for code, name in enumerate(names.tolist()):
        if no_cluster and name == no_cluster:
            continue
        members = codes == code
        label, n_label = _most(final[members])
        closest, _ = _most(predicted[members])
        judged_as = label
        if not judge.expected.get(label):
            resembled, has_it = predicted[members].astype(str), final[members] == label
            # Few cells of a cluster may have a broad name, and these may resemble another type than the cluster is of.
            shown = has_it if label == UNASSIGNED else np.isin(resembled, resembled[has_it])
            judged_as, _ = _most(resembled[shown])
        n = int(members.sum())
        support = judge.support(label, judge.clusters == name, judged_as)
        one = ClusterVerdict(name, n, label, n_label / n, closest, support)
        if one.mixed and support.verdict == SUPPORTED:
            one = replace(one, support=replace(support, verdict=WEAK))
        verdicts.append(one)
    return sorted(verdicts, key=lambda one: (-one.n_cells, len(one.cluster), one.cluster))


def _most(labels: np.ndarray) -> tuple[str, int]:
    """The most frequent label and its number of cells; of several, the first by name."""
    names, numbers = np.unique(labels.astype(str), return_counts=True)
    return str(names[numbers.argmax()]), int(numbers.max())


def verdict_table(verdicts: Sequence[ClusterVerdict], top_genes: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """One row a cluster, with the columns `VERDICT_COLUMNS`. top_genes: those that mark each cluster in this sample."""
    import pandas as pd

    rows = [
        (
            one.cluster,
            one.n_cells,
            one.label,
            round(one.share, 4),
            one.predicted,
            one.support.judged_as,
            one.support.verdict,
            one.support.rival,
            len(one.support.calls),
            one.support.n_up,
            one.support.n_not_up,
            f"{one.support.rise:.3f}" if one.support.calls else "",
            f"{one.support.rival_rise:.3f}" if one.support.rival else "",
            one.support.compared_with,
            ",".join(call.symbol for call in one.support.calls if call.up),
            ",".join(call.symbol for call in one.support.calls if call.not_up),
            ",".join(top_genes.get(one.cluster, ())),
            one.why,
        )
        for one in verdicts
    ]
    return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))


def count_verdicts(verdicts: Sequence[ClusterVerdict]) -> dict[str, Any]:
    """How many of the clusters that got a name have each verdict."""
    given = [one.support.verdict for one in verdicts if one.named]
    return {
        "n_clusters": len(verdicts),
        "n_clusters_named": len(given),
        **{f"n_clusters_{verdict.replace(' ', '_')}": given.count(verdict) for verdict in VERDICTS},
    }


def verdict_warnings(verdicts: Sequence[ClusterVerdict]) -> list[str]:
    """A sentence for each cluster whose commonest name its genes contradict; one for all those beyond MOST_WARNINGS.

    Where fewer than half of the cells have this name, it is the mixture that is told of.
    """
    against = [one for one in verdicts if one.named and one.support.verdict == CONTRADICTED]
    sentences = [
        f"Cluster {one.cluster} ({_cells_of(one)}) {one.why}."
        if one.mixed
        else f"The genes contradict the name of cluster {one.cluster} ({_cells_of(one)})"
        + (f" and point to {one.support.rival}" if one.support.rival else "")
        + f": {one.why}."
        for one in against[:MOST_WARNINGS]
    ]
    if more := [one.cluster for one in against[MOST_WARNINGS:]]:
        clusters = "1 more cluster" if len(more) == 1 else f"{len(more)} more clusters"
        sentences.append(f"The genes contradict the commonest name of {clusters}: {', '.join(more)}.")
    return sentences


def _cells_of(one: ClusterVerdict) -> str:
    """How many cells a cluster has, and what share of them has its name."""
    called = "all" if one.share == 1 else f"{100 * one.share:.0f} %"
    return f"{one.n_cells:,} cells, {called} of them called {one.label}"
