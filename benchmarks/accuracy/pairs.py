"""Every reference and query of the benchmark: one small function each, split by donor or study, never by cell."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from accuracy import alterations

if TYPE_CHECKING:
    import anndata

FILES = {
    "pbmc3k": "pbmc3k_labelled",
    "multistudy": "multistudy_pbmc_6samples",
    "kang_ctrl": "kang_ctrl_labelled",
    "pbmc4k": "pbmc4k_labelled",
    "scmix_p1": "scmix_sc_celseq2_5cl_p1",
    "scmix_p2": "scmix_sc_celseq2_5cl_p2",
}
SAMPLES = ("10x_6K", "10x_8K", "SCP424_pbmc1", "SCP424_pbmc2", "SRR11038995", "SRR7244582")
# pbmc4k and 10x_8K are one donor's cells, pbmc3k and 10x_6K probably too.
SAME_DONOR = {"pbmc4k": "10x_8K", "pbmc3k": "10x_6K"}
# Eight donors of one pool, in four folds of two, each about a quarter of the cells.
KANG_FOLDS = (("1015", "1039"), ("1488", "107"), ("1244", "101"), ("1256", "1016"))
COARSE, FINE, SHARED_FINE = "cell_type_harmonized", "cell_type", "shared_fine"
UNLABELLED = "unlabelled"
# One finer vocabulary for pbmc3k and kang_ctrl, which both tell the monocytes apart.
TO_SHARED_FINE = {
    "Naive CD4 T": "CD4 T cell",
    "Memory CD4 T": "CD4 T cell",
    "CD4 T cells": "CD4 T cell",
    "CD8 T": "CD8 T cell",
    "CD8 T cells": "CD8 T cell",
    "CD14+ Mono": "CD14+ monocyte",
    "CD14+ Monocytes": "CD14+ monocyte",
    "FCGR3A+ Mono": "FCGR3A+ monocyte",
    "FCGR3A+ Monocytes": "FCGR3A+ monocyte",
    "B": "B cell",
    "B cells": "B cell",
    "NK": "NK cell",
    "NK cells": "NK cell",
    "DC": "Dendritic cell",
    "Dendritic cells": "Dendritic cell",
    "Platelet": "Platelet",
    "Megakaryocytes": "Platelet",
    UNLABELLED: UNLABELLED,
}
CL_IDS = {
    "B cell": "CL:0000236",
    "CD4 T cell": "CL:0000624",
    "CD8 T cell": "CL:0000625",
    "Dendritic cell": "CL:0000451",
    "Monocyte": "CL:0000576",
    "NK cell": "CL:0000623",
    "Other T cell": "CL:0000084",
    "Platelet": "CL:0000233",
    "CD14+ monocyte": "CL:0001054",
    "FCGR3A+ monocyte": "CL:0002396",
}
BLOOD_TYPES = ("B cell", "CD4 T cell", "CD8 T cell", "Dendritic cell", "Monocyte", "NK cell", "Platelet")


@dataclass(frozen=True)
class Sets:
    """The labelled files of a folder, each read when first used.

    Cells without a label are left out. obs of what `get` gives: label, batch (what a model should see as one batch) and
    donor; X: raw counts, CSR float32.
    """

    folder: Path

    def get(self, name: str, labels: str = COARSE) -> anndata.AnnData:
        """A file's cells, labelled by one of its vocabularies."""
        cells = _read(self.folder / f"{FILES[name]}.h5ad", name)
        fine = cells.obs[FINE].astype(str)
        known = fine.map(TO_SHARED_FINE) if labels == SHARED_FINE else cells.obs[labels].astype(str)
        cells = cells[(known != UNLABELLED).to_numpy()].copy()
        cells.obs["label"] = known[known != UNLABELLED].to_numpy()
        cells.obs = cells.obs[["label", "batch", "donor"]]
        return cells


@functools.lru_cache(maxsize=8)
def _read(path: Path, name: str) -> anndata.AnnData:
    import anndata

    cells = anndata.read_h5ad(path)
    donors = cells.obs["donor"] if "donor" in cells.obs else np.full(cells.n_obs, name)
    cells.obs["donor"] = np.asarray(donors, dtype=str)
    # kang_ctrl's donors were pooled into one library; as a reference, its donors are what can be held out
    cells.obs["batch"] = cells.obs["donor"].to_numpy()
    cells.obs_names = [f"{name}:{cell}" for cell in cells.obs_names]
    return cells


Cells = tuple["anndata.AnnData", "anndata.AnnData"]
Build = Callable[[Sets, np.random.Generator], Cells]


@dataclass(frozen=True)
class Pair:
    """A reference and a query. family: what it asks. build: gives both, with labels in obs; random only by `rng`."""

    name: str
    family: str
    build: Build
    quick: bool = False


def joined(*parts: anndata.AnnData) -> anndata.AnnData:
    """Cells of several files on the genes that all of them have (by symbol)."""
    import anndata

    if len(parts) == 1:
        return parts[0]
    whole = anndata.concat(parts, join="inner", merge="first")
    whole.X = whole.X.tocsr()
    return whole


def reference_of(sets: Sets, name: str, query: str, *, strict: bool = False) -> anndata.AnnData:
    """pbmc3k, multistudy, or both. strict: without the sample that shares its donor with the query."""
    names = ("pbmc3k", "multistudy") if name == "both" else (name,)
    parts = [sets.get(part) for part in names]
    if strict:
        parts = [part[part.obs["batch"] != SAME_DONOR[query]].copy() for part in parts]
    return joined(*parts)


def as_query(cells: anndata.AnnData, name: str) -> anndata.AnnData:
    """Queries of one library are one batch; samples of several studies stay apart."""
    if name != "multistudy":
        cells.obs["batch"] = name
    return cells


def across(reference: str, query: str, *, strict: bool = False) -> Build:
    """One study names another."""
    return lambda sets, rng: (
        reference_of(sets, reference, query, strict=strict),
        as_query(sets.get(query), query),
    )


def across_fine(reference: str, query: str) -> Build:
    """One study names another by the finer vocabulary that both have."""
    return lambda sets, rng: (sets.get(reference, SHARED_FINE), as_query(sets.get(query, SHARED_FINE), query))


def held_out(name: str, donors: tuple[str, ...], labels: str) -> Build:
    """Whole donors or samples of one file are named by the others."""

    def build(sets: Sets, rng: np.random.Generator) -> Cells:
        cells = sets.get(name, labels)
        inside = cells.obs["donor"].isin(donors).to_numpy()
        return cells[~inside].copy(), as_query(cells[inside].copy(), name)

    return build


def altered_query(cells_of: Build, change: Callable[..., anndata.AnnData], *values: float) -> Build:
    """A reference names a query that was made harder."""

    def build(sets: Sets, rng: np.random.Generator) -> Cells:
        reference, cells = cells_of(sets, rng)
        extra = () if change is alterations.panel else (rng,)
        return reference, change(cells, *values, *extra)

    return build


def wrong_labels(query: str, share: float) -> Build:
    """Both references, a share of their labels wrong, name a query."""

    def build(sets: Sets, rng: np.random.Generator) -> Cells:
        reference, cells = across("both", query)(sets, rng)
        reference.obs["label"] = alterations.with_wrong_labels(reference.obs["label"].to_numpy(), share, rng)
        return reference, cells

    return build


def left_out(query: str, label: str) -> Build:
    """Both references without one type meet a query that holds it."""

    def build(sets: Sets, rng: np.random.Generator) -> Cells:
        reference, cells = across("both", query)(sets, rng)
        return reference[(reference.obs["label"] != label).to_numpy()].copy(), cells

    return build


def all_pairs() -> dict[str, Pair]:
    """Every pair by its name, the most telling first."""
    pairs = [
        Pair(f"{reference}-to-{query}", "across studies", across(reference, query), quick)
        for query in ("kang_ctrl", "pbmc4k")
        for reference, quick in (("both", False), ("pbmc3k", query == "kang_ctrl"), ("multistudy", False))
    ]
    pairs += [
        Pair(f"{reference}-to-{query}", "across studies", across(reference, query))
        for reference, query in (("pbmc3k", "multistudy"), ("multistudy", "pbmc3k"))
    ]
    pairs += [
        Pair(f"{reference}-to-{query}-strict", "other donors", across(reference, query, strict=True))
        for reference, query in (("both", "pbmc4k"), ("multistudy", "pbmc4k"), ("multistudy", "pbmc3k"))
    ]
    pairs += [
        Pair(
            "pbmc3k-to-multistudy-strict",
            "other donors",
            lambda sets, rng: (sets.get("pbmc3k"), _without(sets.get("multistudy"), SAME_DONOR["pbmc3k"])),
        ),
        Pair("scmix_p1-to-scmix_p2", "cell lines", across("scmix_p1", "scmix_p2"), True),
    ]
    pairs += [
        Pair(
            f"held-out-kang_{fold}-{name}",
            "held-out donors, made harder",
            altered_query(held_out("kang_ctrl", donors, COARSE), change, value),
        )
        for fold, donors in enumerate(KANG_FOLDS, start=1)
        for name, change, value in (
            ("counts_10", alterations.thinned, 0.1),
            ("genes_2000", alterations.random_genes, 2000),
        )
    ]
    for kind, labels in (("", COARSE), ("-fine", FINE)):
        family = f"held-out donors{', fine labels' if kind else ''}"
        pairs += [
            Pair(f"held-out-{sample}{kind}", family, held_out("multistudy", (sample,), labels))
            for sample in SAMPLES
        ]
        pairs += [
            Pair(f"held-out-kang_{fold}{kind}", family, held_out("kang_ctrl", donors, labels))
            for fold, donors in enumerate(KANG_FOLDS, start=1)
        ]
    pairs += [
        Pair(f"{reference}-to-{query}-fine", "across studies, fine labels", across_fine(reference, query))
        for reference, query in (("pbmc3k", "kang_ctrl"), ("kang_ctrl", "pbmc3k"))
    ]
    for query in ("kang_ctrl", "pbmc4k"):
        pairs += [
            Pair(
                f"both-to-{query}-counts_{round(100 * share)}",
                "fewer counts",
                altered_query(across("both", query), alterations.thinned, share),
            )
            for share in (0.5, 0.25, 0.1)
        ]
        pairs += [
            Pair(
                f"both-to-{query}-genes_{number}",
                "fewer genes",
                altered_query(across("both", query), alterations.random_genes, number),
            )
            for number in (2000, 1000)
        ]
        pairs += [
            Pair(
                f"both-to-{query}-panel_500",
                "fewer genes",
                altered_query(across("both", query), alterations.panel, 500),
            ),
            Pair(
                f"both-to-{query}-soup_20",
                "ambient RNA",
                altered_query(across("both", query), alterations.with_soup, 0.2),
            ),
        ]
        pairs += [
            Pair(f"both-to-{query}-wrong_{round(100 * share)}", "wrong labels", wrong_labels(query, share))
            for share in (0.01, 0.1)
        ]
    for query, types in (
        ("kang_ctrl", BLOOD_TYPES),
        ("pbmc4k", tuple(t for t in BLOOD_TYPES if t not in ("Dendritic cell", "Platelet"))),
    ):
        pairs += [
            Pair(
                f"both-to-{query}-without_{label.replace(' ', '_')}",
                "a type left out",
                left_out(query, label),
            )
            for label in types
        ]
    return {pair.name: pair for pair in pairs}


def _without(cells: anndata.AnnData, sample: str) -> anndata.AnnData:
    return cells[(cells.obs["batch"] != sample).to_numpy()].copy()


def chosen(wanted: str) -> list[Pair]:
    """Pairs named by comma-separated names, patterns (`held-out-*`) or families. Raises KeyError for an unknown one."""
    pairs, result = all_pairs(), {}
    for name in filter(None, (part.strip() for part in wanted.split(","))):
        found = [p for p in pairs.values() if fnmatch.fnmatchcase(p.name, name) or p.family == name]
        if not found:
            raise KeyError(name)
        result |= {pair.name: pair for pair in found}
    return list(result.values()) if wanted else list(pairs.values())
