"""The names of everything that annotation adds to a file: the output contract.

The first five are those of CZ CELLxGENE Annotate. docs/outputs.md is checked against this by a test.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable
from dataclasses import dataclass

from cellscribe.errors import InputError

UNASSIGNED = "unassigned"
# What stands in the place of a cluster's name, of a cell that the user's own clusters leave out.
NO_CLUSTER = "no cluster"
# A cell's name in a file of several samples: `sample:barcode`. No sample's name holds it.
MERGED_BY = ":"

REASONS = {
    "": "assigned",
    "ambiguous": "no label is probable enough: it gets the name of a common ancestor that is, or none",
    "disagreement": "several models contradict each other: it gets the name of a common ancestor, or none",
    "novel": "far from every reference cell, expressing genes that none of them does, or stranger to the model than "
    "nearly all known cells",
    "low_information": "too few counts on the model's genes",
}
# What makes a cell `novel`, in the order in which the reason's words name it.
FAR, UNEXPECTED_GENES, STRANGE = "far", "unexpected_genes", "strange"


def free_name(name: str, taken: Container[str]) -> str:
    """`name`, or the first of `name_2`, `name_3`, ... that is not taken: for a column of a stranger's table."""
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(free for free in names if free not in taken)


def kept_column(name: str, columns: Container[str]) -> str:
    """The column of obs that has what the input had under `name`: CONVERT takes two names for its own."""
    return f"input_{name}" if name in ("sample", "batch") and f"input_{name}" in columns else name


def explorer_keys(key: str) -> set[str]:
    """What an embedding is called in the file for CELLxGENE Discover: Explorer lists `X_` and a letter."""
    return {f"X_{key}", f"X_c{key.removeprefix('X_')}"}


@dataclass(frozen=True)
class OutputNames:
    """Keys of the output, for `key` = `cxg_cell_type` (with a run name: `cxg_cell_type_<run>`)."""

    key: str

    def __post_init__(self) -> None:
        if not self.key or "/" in self.key:
            raise InputError(
                f"'{self.key}' cannot name the new columns: it is empty or holds a '/', which parts keys in an h5ad",
                "Change --annotation_prefix, --annotation_type or --run_name.",
            )

    @classmethod
    def of(cls, prefix: str = "cxg", kind: str = "cell_type", run_name: str = "") -> OutputNames:
        """Join the annotation prefix, the annotation type and the run name.

        Raises InputError where a run would take the names of one without a run name, as a run called `final` would.
        """
        names = cls("_".join(part for part in (prefix, kind, run_name) if part))
        plain = "_".join(part for part in (prefix, kind) if part)
        if run_name and plain and (taken := sorted(names.every() & cls(plain).every())):
            raise InputError(
                f"the run name '{run_name}' would give '{taken[0]}', which a run without a name has already",
                "Choose another --run_name.",
            )
        return names

    def every(self, levels: Iterable[str] = ()) -> set[str]:
        """All names, those of coarser levels of labels included."""
        own = {getattr(self, name) for name, kind in vars(type(self)).items() if isinstance(kind, property)}
        return own | {name for level in levels for name in (self.level(level), self.level_uncertainty(level))}

    def arrays(self) -> set[str]:
        """The names of obsm."""
        return {self.embedding, self.umap, self.umap_explorer, self.reference_umap, self.probabilities}

    def columns(self, levels: Iterable[str] = ()) -> set[str]:
        """The names of obs, those of coarser levels of labels included."""
        return self.every(levels) - self.arrays() - {self.predictions}

    # the five of CZ CELLxGENE Annotate
    @property
    def predicted(self) -> str:
        """obs: the most probable label, always filled (categorical)."""
        return f"{self.key}_predicted"

    @property
    def uncertainty(self) -> str:
        """obs: 0 confident to 1 uncertain; 1 - uncertainty is the chance of being right."""
        return f"{self.key}_predicted_uncertainty"

    @property
    def embedding(self) -> str:
        """obsm: the cells in the reference embedding."""
        return self.key

    @property
    def umap(self) -> str:
        """obsm: UMAP computed on that projection."""
        return f"{self.key}_umap"

    @property
    def predictions(self) -> str:
        """uns: the model, its version, parameters, gene overlap, date."""
        return f"{self.key}_predictions"

    # ours
    @property
    def umap_explorer(self) -> str:
        """obsm: the same UMAP under a name that CELLxGENE Explorer lists."""
        return f"X_{self.key}_umap"

    @property
    def reference_umap(self) -> str:
        """obsm: each cell placed on the reference's own UMAP."""
        return f"X_{self.key}_ref_umap"

    @property
    def probabilities(self) -> str:
        """obsm: the probability of every label, in the order of the labels that `predictions` lists."""
        return f"{self.key}_probabilities"

    @property
    def final(self) -> str:
        """obs: the label after rejection: a label, an ancestor's name, or `unassigned`."""
        return f"{self.key}_final"

    @property
    def reason(self) -> str:
        """obs: why the final label is not the predicted one."""
        return f"{self.key}_reason"

    @property
    def cl_id(self) -> str:
        """obs: the Cell Ontology id of the predicted label."""
        return f"{self.key}_cl_id"

    @property
    def final_cl_id(self) -> str:
        """obs: the Cell Ontology id of the final label."""
        return f"{self.key}_final_cl_id"

    @property
    def cluster(self) -> str:
        """obs: Leiden cluster in the reference embedding, or the user's own (`--cluster_key`)."""
        return f"{self.key}_cluster"

    @property
    def cluster_label(self) -> str:
        """obs: the label with most votes in the cell's cluster."""
        return f"{self.key}_cluster_label"

    @property
    def cluster_final(self) -> str:
        """obs: the commonest label after rejection in the cell's cluster."""
        return f"{self.key}_cluster_final"

    @property
    def cluster_vote(self) -> str:
        """obs: the share of the cluster's cells that voted for that label."""
        return f"{self.key}_cluster_vote"

    @property
    def reference_distance(self) -> str:
        """obs: mean distance to the nearest reference cells, as a quantile of the reference's own (0 to 1)."""
        return f"{self.key}_ref_distance"

    @property
    def unexpected(self) -> str:
        """obs: share of a cell's counts on genes that no reference type expresses (0 to 1)."""
        return f"{self.key}_unexpected"

    @property
    def agreeing(self) -> str:
        """obs: with several models, how many of them agree with the predicted label."""
        return f"{self.key}_agreeing_models"

    def of_model(self, name: str) -> OutputNames:
        """The names of one of several models' own columns."""
        return OutputNames(f"{self.key}_{name}")

    @property
    def novelty(self) -> str:
        """obs: share of known cells that look less strange to the model (0 to 1)."""
        return f"{self.key}_novelty"

    @property
    def set_size(self) -> str:
        """obs: how many labels are in the set that holds the right one for nine cells of ten."""
        return f"{self.key}_set_size"

    def level(self, name: str) -> str:
        """obs: the label at a coarser level, by summed probabilities."""
        return f"{self.key}_{name}"

    def level_uncertainty(self, name: str) -> str:
        """obs: its uncertainty."""
        return f"{self.key}_{name}_uncertainty"
