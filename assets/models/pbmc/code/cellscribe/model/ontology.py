"""The Cell Ontology around a model's labels: ids, ancestors, coarser levels.

Built once, at training, from the tables that `cellxgene-ontology-guide` ships; a model carries what it needs,
so annotation looks nothing up.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

LINEAGE = "lineage"
SAYS_NOTHING = 0.75
# cell, native cell, eukaryotic cell, animal cell: that one of these covers a type says nothing of it.
ROOTS = frozenset(("CL:0000000", "CL:0000003", "CL:0000255", "CL:0000548"))
# Type 1 conventional dendritic cells (XCR1, CLEC9A) stand below plasmacytoid ones in the ontology, beside their true
# parent: confused with these they would be called plasmacytoid, and agree with them.
NO_ANCESTORS = {"CL:0002394": frozenset(("CL:0000784",))}
GREEK = {letter: unicodedata.name(letter).split()[-1].lower() for letter in "αβγδεζηθικμνξοπρστυφχψω"} | {
    "λ": "lambda"
}
GREEK_LETTERS = re.compile(r"[α-ω]+")
# Hyphens, dashes and minus signs of every shape; soft hyphens and spaces without width are left out.
DASHES = dict.fromkeys(map(ord, "\u02d7\u2010\u2012\u2013\u2014\u2015\u2212\u2796"), "-")
UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
# What stands behind a marker and is no hyphen, whatever comes next: raised, or typed as a minus behind a number.
MINUS = re.compile(r"\u207b|(?<=\d)\u2212")
# Accents of Latin and Greek letters; marks of other scripts make other letters.
ACCENTS = re.compile(r"(?<=[a-zα-ω])[\u0300-\u036f]+")
# Signs in brackets, or raised by a caret: CD4(+), CD4^-.
SET_APART = re.compile(r"\s?\(([+-])\)|\^([+-])")
# The hyphen of CD4-CD8+ is a minus, as a sign stands behind the other marker.
BETWEEN_MARKERS = re.compile(r"(?<![^\W_])(cd\d+[a-z]*)-(?=(?:cd\d+[a-z]*-)*cd\d+[a-z]*(?:\+|-(?![^\W_])))")


@dataclass(frozen=True)
class Term:
    """A Cell Ontology term, `ancestors` the nearest first, the term itself left out."""

    cl_id: str
    name: str
    ancestors: tuple[str, ...]


@dataclass(frozen=True)
class Ontology:
    """terms: by id, the labels' own and all their ancestors'. curated: ids of broad classes that people use."""

    terms: Mapping[str, Term]
    curated: frozenset[str]

    def name(self, cl_id: str) -> str:
        """The term's name, or "" for an unknown id."""
        return self.terms[cl_id].name if cl_id in self.terms else ""

    def lineage(self, cl_id: str) -> tuple[str, ...]:
        """The term itself, then its ancestors, the nearest first; empty for an unknown id."""
        return (cl_id, *self.terms[cl_id].ancestors) if cl_id in self.terms else ()

    def to_json(self) -> dict[str, Any]:
        """As it stands in a model's ontology.json."""
        return {
            "terms": {
                term.cl_id: {"name": term.name, "ancestors": list(term.ancestors)}
                for term in self.terms.values()
            },
            "curated": sorted(self.curated),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ontology:
        """Read what `to_json` gave."""
        terms = {
            cl_id: Term(cl_id, str(term["name"]), tuple(map(str, term["ancestors"])))
            for cl_id, term in value["terms"].items()
        }
        return cls(terms, frozenset(map(str, value["curated"])))


def build_ontology(cl_ids: Sequence[str]) -> Ontology:
    """The ontology around these ids (empty ones are passed over).

    Raises KeyError for an id that the Cell Ontology does not have.
    """
    from cellxgene_ontology_guide.curated_ontology_term_lists import get_curated_ontology_term_list
    from cellxgene_ontology_guide.entities import CuratedOntologyTermList
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    parser = OntologyParser()
    wanted: set[str] = set()
    for cl_id in filter(None, cl_ids):
        if not parser.is_valid_term_id(cl_id):
            raise KeyError(cl_id)
        wanted |= {cl_id, *_ancestors(parser, cl_id)}
    terms = {}
    for cl_id in sorted(wanted):
        distances = _ancestors(parser, cl_id)
        ancestors = sorted((a for a in distances if a in wanted), key=lambda a: (distances[a], a))
        terms[cl_id] = Term(cl_id, parser.get_term_label(cl_id) or cl_id, tuple(ancestors))
    curated = set(get_curated_ontology_term_list(CuratedOntologyTermList.CELL_SUBCLASS))
    return Ontology(terms, frozenset(curated & wanted))


def is_term(cl_id: str) -> bool:
    """Whether the Cell Ontology has a term of this id."""
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    return bool(cl_id) and OntologyParser().is_valid_term_id(cl_id)


def lineages(cl_ids: Sequence[str]) -> dict[str, frozenset[str]]:
    """The ancestors of each id, itself left out; ids that the Cell Ontology does not have are passed over."""
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    parser = OntologyParser()
    known = [cl_id for cl_id in dict.fromkeys(cl_ids) if cl_id and parser.is_valid_term_id(cl_id)]
    return {cl_id: frozenset(_ancestors(parser, cl_id)) for cl_id in known}


def _ancestors(parser: OntologyParser, cl_id: str) -> dict[str, int]:
    """The ancestors of a term with how many steps they are away, without those that it has by mistake."""
    distances = parser.get_term_ancestors_with_distances(cl_id)
    wrong = NO_ANCESTORS.get(cl_id, frozenset()) | {cl_id}
    return {term: distance for term, distance in distances.items() if term not in wrong}


def find_cl_ids(labels: Sequence[str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The Cell Ontology id of each label: as given, else by name or exact synonym, else as it is commonly called, else
    "".

    Names are compared as `plain_name` gives them ("CD20+ Monocytes" does not become "monocyte": only whole names count,
    but "cell" may be missing). A given value may be an id or a term's name. Names of terms that say nothing, such as
    "cell", and those that mean other cells elsewhere, such as "alpha cell" and "Vip" (`known_names`), give no id.
    """
    from cellscribe.common_names import common_id

    known = known_names()
    given = given or {}
    result = {}
    for label in labels:
        wanted = given.get(label, label)
        found = (
            wanted
            if re.fullmatch(r"CL:\d{7}", wanted)
            else known.get(plain_name(wanted)) or common_id(wanted, known)
        )
        result[label] = "" if found in ROOTS and label not in given else found
    return result


def known_names() -> dict[str, str]:
    """Names and exact synonyms of the Cell Ontology's terms, as `plain_name` gives them, to ids.

    A name goes before another term's synonym. Left out are those that two terms share, synonyms that mostly mean
    something else (`MISLEADING`), and Greek letters, of which each tissue has its own.
    """
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    from cellscribe.common_names import MISLEADING

    parser = OntologyParser()
    names: dict[str, set[str]] = {}
    synonyms: dict[str, set[str]] = {}
    for name, cl_id in parser.get_term_label_to_id_map("CL").items():
        if parser.is_term_deprecated(cl_id):
            continue
        names.setdefault(plain_name(name), set()).add(cl_id)
        for synonym in map(plain_name, parser.get_term_synonyms(cl_id)):
            if synonym not in MISLEADING:
                synonyms.setdefault(synonym, set()).add(cl_id)
    greek = {f"{letter} cell" for letter in GREEK.values()}
    return {
        name: next(iter(cl_ids))
        for name, cl_ids in (synonyms | names).items()
        if len(cl_ids) == 1 and name not in greek
    }


def plain_name(name: str) -> str:
    """A name without case, plural, accents and punctuation, its Greek letters spelled out.

    Letters of every script are kept, and a `+`, and a `-` that says what a cell lacks: "CD4⁻ αβ T-cells" is
    "cd4- alpha beta t cell". A name of punctuation alone stays as it is, so that no two of these are alike.
    """
    text = re.sub(r"\+(?=[^\W_])", "+ ", spelled_out(name))
    text = re.sub(r"(?<![^\W_])-|-(?=[^\W_])", " ", text)
    # Not \W, as the vowels of some scripts are marks.
    text = "".join(c if c in "+-" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join(map(singular, text.split())) or name.strip()


def spelled_out(name: str) -> str:
    """A name in lower case and without accents, in which Greek letters are words, all dashes are `-`, and no letter
    follows one that says what a cell lacks.
    """
    text = unicodedata.normalize("NFKD", MINUS.sub("(-)", name)).casefold()
    text = ACCENTS.sub("", unicodedata.normalize("NFKD", text).translate(DASHES | UNSEEN))
    text = GREEK_LETTERS.sub(_greek_words, unicodedata.normalize("NFC", text))
    return BETWEEN_MARKERS.sub(r"\1- ", SET_APART.sub(r"\1\2 ", text))


def _greek_words(letters: re.Match[str]) -> str:
    """Greek letters as words, apart from what they stand beside, but for a number: γδT, but Vδ2 (Vdelta2)."""
    before, after = letters.string[: letters.start()][-1:], letters.string[letters.end() :][:1]
    words = " ".join(GREEK[letter] for letter in letters[0])
    start = " " if before.isalnum() and not after.isdigit() else ""
    return f"{start}{words}{' ' if after.isalpha() else ''}"


def singular(word: str) -> str:
    """A word without the s of a plural."""
    return word[:-1] if word.endswith("s") and len(word) > 3 else word


def descendants(ontology: Ontology, cl_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """For each term, which of the labels it covers.

    cl_ids: one id a label ("" where unknown). Returns term -> bool (n_labels,), true where the label is the term or
    below it.
    """
    covers: dict[str, np.ndarray] = {}
    for position, cl_id in enumerate(cl_ids):
        for term in ontology.lineage(cl_id):
            covers.setdefault(term, np.zeros(len(cl_ids), dtype=bool))[position] = True
    return covers


def lineage_level(ontology: Ontology, labels: Sequence[str], cl_ids: Sequence[str]) -> dict[str, str]:
    """A coarser level: labels joined under the broad classes that they share.

    A broad class (CELLxGENE's curated list of cell subclasses) counts where it covers at least two labels and at most
    half of them. The class that joins most labels is taken first, of equals the one nearest to its labels; a label
    without one stays itself. Returns label -> coarse label; equal to the labels where nothing can be joined.
    """
    covers = descendants(ontology, cl_ids)
    most = max(2, len(labels) // 2)
    left = np.ones(len(labels), dtype=bool)
    coarse = dict(zip(labels, labels, strict=True))
    while True:
        joined = {
            term: covers[term] & left
            for term in sorted(ontology.curated)
            if term in covers and covers[term].sum() <= most and (covers[term] & left).sum() >= 2
        }
        if not joined:
            return coarse
        best = min(
            joined, key=lambda term: (-int(joined[term].sum()), _steps(ontology, cl_ids, term, joined[term]))
        )
        for position in np.flatnonzero(joined[best]).tolist():
            coarse[labels[position]] = ontology.name(best)
        left &= ~joined[best]


def _steps(ontology: Ontology, cl_ids: Sequence[str], term: str, inside: np.ndarray) -> int:
    """How many nearer ancestors the labels have, summed: small for a class that fits them closely."""
    return sum(ontology.lineage(cl_ids[position]).index(term) for position in np.flatnonzero(inside).tolist())


def nearest_safe_ancestor(
    ontology: Ontology,
    covers: Mapping[str, np.ndarray],
    cl_id: str,
    probabilities: np.ndarray,
    least: float,
) -> str:
    """The nearest term at or above a label whose labels' summed probability reaches `least`, or "".

    probabilities: (n_labels,). The label's own term counts where other labels lie at or below it. A term that covers
    more than three quarters of the labels says nothing, and is passed over.
    """
    for term in ontology.lineage(cl_id):
        inside = covers[term]
        if inside.sum() == 1 or inside.sum() > SAYS_NOTHING * len(inside):
            continue
        if probabilities[inside].sum() >= least:
            return term
    return ""
