"""What the features of an .h5ad are: genes, antibodies, or else, by the columns of var and by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cellscribe.counts import GENE_EXPRESSION
from cellscribe.genes import ID_COLUMNS, SYMBOL_COLUMNS, as_text
from cellscribe.words import some

TYPE_COLUMNS = ("feature_types", "feature_type", "feature_class", "modality")
ANTIBODIES = "Antibody Capture"
# How other programs than Cell Ranger spell its kinds of features: in small letters, words apart by one blank.
SPELLINGS = {
    GENE_EXPRESSION: (
        *("gene expression", "gene", "genes", "rna", "scrna", "gex", "expression", "transcriptome"),
        *("mrna", "ncrna", "lncrna", "pseudogene"),
    ),
    ANTIBODIES: (
        *("antibody capture", "antibody", "antibodies", "adt", "adts", "ab", "cite", "cite seq", "protein"),
        *("proteins", "prot", "surface protein", "cell surface protein", "antibody derived tags"),
    ),
}
KIND_OF = {spelling: kind for kind, spellings in SPELLINGS.items() for spelling in spellings}
# Kinds that keep their own word, and are no genes.
OTHER_KINDS = (
    *(
        "crispr guide capture",
        "crispr",
        "guide",
        "guides",
        "grna",
        "sgrna",
        "multiplexing capture",
        "hto",
        "htos",
    ),
    *("hashtag", "hashtags", "antigen capture", "peaks", "peak", "atac", "chromatin accessibility"),
)
# Its column holds what genes are for, and not what was measured.
BIOTYPE = "protein coding"
NO_WORD = ("", "nan", "none", "na")
# No gene of human or mouse is called so.
ANTIBODY_NAME = re.compile(
    r"totalseq|^(?:ab|adt|prot|hto)[_-]|^anti[-_]|^hashtag|"
    r"[_.-](?:adt|prot|protein|hto)(?:[_.-]?\d+)?$",
    re.IGNORECASE,
)
TYPES_TODO = f"give var a column feature_types that says '{GENE_EXPRESSION}' of genes and '{ANTIBODIES}' of antibodies."


def feature_types(var: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """The kind of each row in Cell Ranger's words, object (n_features,), and warnings of what may be none of genes."""
    types, warnings = np.full(len(var), GENE_EXPRESSION, dtype=object), []
    columns = [TypeColumn.of(var, name) for name in TYPE_COLUMNS if name in var]
    # A column may say of all rows that they are genes, and another one which are not.
    useful = sorted((column for column in columns if column.tells), key=lambda column: column.rank)
    if useful:
        types = useful[0].types
        if left := useful[0].taken_for_genes:
            warnings.append(_unknown_kinds(useful[0].name, left))
    elif strange := [column for column in columns if len(column.taken_for_genes) > 1]:
        warnings.append(_unknown_kinds(strange[0].name, strange[0].taken_for_genes))
    named = _named_like_antibodies(var, types == GENE_EXPRESSION)
    if named:
        warnings.append(
            f"{len(named):,} of {len(var):,} features are named like antibodies or hashtags ({some(named)}), and "
            f"were counted as genes, which spoils quality control: {TYPES_TODO}"
        )
    return types, warnings


def _unknown_kinds(name: str, values: Sequence[str]) -> str:
    said = some([value or "no word" for value in values])
    return (
        f"The genes' column '{name}' does not say in known words what some features are ({said}): they "
        f"were counted as genes. Where some are none, {TYPES_TODO}"
    )


@dataclass(frozen=True)
class TypeColumn:
    """A column of var that says what features are. types: in Cell Ranger's words, object (n_features,).

    tells: whether its words are known; taken_for_genes: those that are not, and were taken for genes'.
    """

    name: str
    types: np.ndarray
    tells: bool
    taken_for_genes: list[str]

    @classmethod
    def of(cls, var: pd.DataFrame, name: str) -> TypeColumn:
        """Read one."""
        values = as_text(var[name])
        words = {value: " ".join(re.split(r"[\W_]+", value.lower())).strip() for value in pd.unique(values)}
        kinds = {value: KIND_OF.get(word, value) for value, word in words.items()}
        known = [value for value, word in words.items() if word in KIND_OF or word in OTHER_KINDS]
        if GENE_EXPRESSION in words:
            # Beside genes in Cell Ranger's own words, every other word is of something else.
            taken = [value for value, word in words.items() if word in NO_WORD]
        else:
            taken = [value for value in words if value not in known]
        kinds |= dict.fromkeys(taken, GENE_EXPRESSION)
        return cls(
            name,
            np.array([kinds[value] for value in values], dtype=object),
            tells=bool(known),
            taken_for_genes=[] if BIOTYPE in words.values() else taken,
        )

    @property
    def rank(self) -> int:
        """Less for columns that tell more kinds apart."""
        return -len(set(self.types))


def _named_like_antibodies(var: pd.DataFrame, among: np.ndarray) -> list[str]:
    """Names that no gene has. among: which rows to look at, bool (n_features,)."""
    rows = var[among]
    columns = [rows.index, *(rows[name] for name in (*SYMBOL_COLUMNS, *ID_COLUMNS) if name in rows)]
    for values in columns:
        names = [name for name in as_text(values) if ANTIBODY_NAME.search(name)]
        # What most rows share is the name of something else.
        if 0 < len(names) <= len(rows) / 2:
            return names
    return []
