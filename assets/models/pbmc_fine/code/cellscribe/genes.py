"""What a matrix's genes are: Ensembl ids, symbols, genome prefixes, organism, and the gene sets of QC."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cellscribe.errors import InputError

GENE_SETS = Path(__file__).resolve().parent / "gene_sets"
ORTHOLOGS = GENE_SETS / "human_mouse_orthologs.tsv.gz"
SYMBOLS = GENE_SETS / "symbols.tsv.gz"
ORGANISMS = ("human", "mouse")
# Several organisms in one matrix, as in a barnyard experiment; one that is neither human nor mouse.
MIXED, OTHER = "mixed", "other"
QC_SETS = ("mt", "ribo", "hb")
# RefSeq's symbols of the 13 proteins of the mitochondrial genome. One of them alone is no proof: PTGS1 was called COX1
# too.
REFSEQ_MT = frozenset(
    ["ND1", "ND2", "ND3", "ND4", "ND4L", "ND5", "ND6", "COX1", "COX2", "COX3", "ATP6", "ATP8", "CYTB"]
)
NEARLY_ALL = 0.75

# GENCODE marks the copy on the Y chromosome of a gene that also lies on X behind the version.
ENSEMBL = re.compile(r"(ENS[A-Z]{0,6}G\d{11})(?:\.\d+)?(_PAR_Y)?")
ENSEMBL_PREFIX = re.compile(r"(ENS[A-Z]*?G)\d")
# An id and a symbol in one name, in either order: ENSG00000198851.2_CD3E, CD3E|ENSG00000198851.
COMBINED = re.compile(rf"(?:(?P<before>.*?)[_|:;,/. -]+)?{ENSEMBL.pattern}(?:[_|:;,/. -]+(?P<after>.*))?")
ENSEMBL_ORGANISM = {"ENSG": "human", "ENSMUSG": "mouse"}
# Ids of any other organism, and whose they are: ENSRNOG is the rat's.
OTHER_PREFIX = re.compile(r"ENS([A-Z]{3})G")
OTHER_ORGANISM = {
    "BTA": "cow",
    "CAF": "dog",
    "CJA": "marmoset",
    "CPO": "guinea pig",
    "DAR": "zebrafish",
    "ECA": "horse",
    "FCA": "cat",
    "GAL": "chicken",
    "MFA": "crab-eating macaque",
    "MMU": "rhesus macaque",
    "MPU": "ferret",
    "OAR": "sheep",
    "OCU": "rabbit",
    "PTR": "chimpanzee",
    "RNO": "rat",
    "SSC": "pig",
}
ASSEMBLY_PREFIX = re.compile(
    r"((?:GRC[a-z]|hg|mm|rn|mRatBN|Rnor_|Sscrofa|dm|danRer)\d[A-Za-z0-9.]*)[_-]+(?=[^_-])"
)
# A share of features that cannot be chance, and yet leaves room for spike-ins and transgenes.
CLEAR_MAJORITY = 0.8
# How much of a matrix is another organism's, and how many of its mitochondrial and ribosomal genes are there, where
# symbols alone tell of a mixture.
MIXTURE, MIXTURE_QC_GENES = 0.2, 10
UPPER = re.compile(r"(?=.)[A-Z0-9.\-_/@]*(orf[0-9A-Z]+)?")
TITLE = re.compile(r"([A-Z][a-z0-9.\-]+|mt-[A-Z][a-z0-9]+)[A-Za-z0-9.\-]*")
ID_COLUMNS = ("gene_ids", "gene_id", "feature_id", "ensembl_id", "ensembl_ids", "ensembl", "ENSEMBL", "id")
SYMBOL_COLUMNS = (
    "gene_symbols",
    "gene_symbol",
    "feature_name",
    "symbol",
    "symbols",
    "SYMBOL",
    "gene_name",
    "gene_names",
    "hgnc_symbol",
    "mgi_symbol",
    "gene_short_name",
    "name",
    "features",
    "gene",
)


@dataclass(frozen=True)
class GeneIdentity:
    """Names of genes, in the order of the matrix; every array has shape (n_genes,) and dtype object."""

    names: np.ndarray
    gene_ids: np.ndarray
    gene_symbols: np.ndarray
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_organism(text: str) -> str:
    """`human`, `mouse` or `auto` for any accepted spelling; InputError for others."""
    known = {
        "auto": "auto",
        "": "auto",
        "human": "human",
        "homo sapiens": "human",
        "homo_sapiens": "human",
        "mouse": "mouse",
        "mus musculus": "mouse",
        "mus_musculus": "mouse",
    }
    organism = known.get(text.strip().lower())
    if organism is None:
        raise InputError(f"organism '{text}' is not known", "Give human, mouse or auto.")
    return organism


def as_text(values: object) -> np.ndarray:
    """Values as `column_text` writes them, without spaces around: object array of str, (n,)."""
    return pd.Series(column_text(values), dtype=object).str.strip().to_numpy(dtype=object)


def column_text(values: object) -> np.ndarray:
    """Values as text to the letter, spaces too: object array of str, (n,); missing ones become "", 3.0 becomes "3"."""
    if isinstance(getattr(values, "dtype", None), pd.CategoricalDtype):
        column = pd.Categorical(values)
        # Missing ones have the code -1.
        return np.append(column_text(column.categories), "").astype(object)[column.codes]
    series = pd.Series(np.asarray(values, dtype=object))
    series = series.where(series.notna(), "")
    if pd.api.types.infer_dtype(series) == "string":
        return series.to_numpy(dtype=object)
    # A column of whole numbers of which some are missing comes as 3.0.
    whole = pd.Series([_whole(value) for value in series], dtype=object)
    return whole.astype(str).to_numpy(dtype=object)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float | np.floating) and value.is_integer() else value


def ensembl_ids(values: np.ndarray) -> np.ndarray:
    """Ensembl gene ids without version, "" for what is none. Shape (n,)."""
    found = (ENSEMBL.fullmatch(value) for value in values)
    return np.array([match[1] + (match[2] or "") if match else "" for match in found], dtype=object)


def parted_names(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Names of an id and a symbol in one (`ENSG..._CD3E`, `CD3E|ENSG....2`) as ids and symbols, each (n,).

    What a name lacks is "", and so are symbols that are no gene's own (`gene:ENSG...`). None where no clear majority of
    the names holds an id.
    """
    # A look for three letters is all that other names cost.
    if share(np.array(["ENS" in value for value in values])) < CLEAR_MAJORITY:
        return None
    found = [COMBINED.fullmatch(value) for value in values]
    if share(np.array([match is not None for match in found])) < CLEAR_MAJORITY:
        return None
    ids = [match[2] + (match[3] or "") if match else "" for match in found]
    symbols = [
        (match["before"] or match["after"] or "") if match else value
        for match, value in zip(found, values, strict=True)
    ]
    # A gene without a symbol has its id twice.
    own = ["" if ENSEMBL.fullmatch(symbol) else symbol for symbol in symbols]
    if len(set(own)) < 0.5 * sum(symbol != "" for symbol in own):
        own = [""] * len(own)
    return np.array(ids, dtype=object), np.array(own, dtype=object)


def share(mask: np.ndarray) -> float:
    """Share of true values; 0 for none at all."""
    return float(np.mean(mask)) if len(mask) else 0.0


# Genome prefixes -------------------------------------------------------------------------------------


def prefix_genomes(values: np.ndarray) -> np.ndarray:
    """The assembly that each name carries as a prefix (`GRCh38___ENSG...` gives GRCh38), "" for none."""
    found = (ASSEMBLY_PREFIX.match(value) for value in values)
    return np.array([match[1] if match else "" for match in found], dtype=object)


def strip_genome_prefix(values: np.ndarray, genomes: Sequence[str]) -> tuple[np.ndarray, str]:
    """Names without `genome_`, and the prefix taken off ("" where a clear majority carries none).

    values: shape (n_genes,). genomes: names that the file gives; assemblies known by name are tried too.
    """
    seen = pd.Series(prefix_genomes(values))
    common = seen[seen != ""].value_counts()
    for genome in dict.fromkeys([*sorted(genomes, key=len, reverse=True), *common.index[:1]]):
        pattern = re.compile(re.escape(genome) + r"[_-]+(?=[^_-])") if genome else None
        if pattern is None:
            continue
        ends = [match.end() if (match := pattern.match(value)) else 0 for value in values]
        if share(np.array(ends) > 0) >= CLEAR_MAJORITY:
            stripped = [value[end:] for value, end in zip(values, ends, strict=True)]
            return np.array(stripped, dtype=object), genome
    return values, ""


# Identity --------------------------------------------------------------------------------------------


def text_columns(var: pd.DataFrame) -> dict[str, np.ndarray]:
    """The index (as "index") and every text column of `var`, by name."""
    columns = {"index": as_text(var.index)}
    for name in var.columns:
        values = var[name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            values = values.astype(object)
        if values.dtype == object or pd.api.types.is_string_dtype(values.dtype):
            columns[str(name)] = as_text(values)
    return columns


@dataclass(frozen=True)
class _Names:
    """One of the genes' sets of names. Every array has shape (n_genes,).

    values: the names, ids in the place of names that hold an id and a symbol. ids: the Ensembl ids among them, "" for
    what is none. symbols: those cut out of the names, None where there are none. first: the first name as it was, where
    ids were cut out of the names, else "".
    """

    values: np.ndarray
    ids: np.ndarray
    symbols: np.ndarray | None = None
    first: str = ""

    @property
    def share_of_ids(self) -> float:
        return share(self.ids != "")


def identify_genes(
    var: pd.DataFrame, gene_column: str | None = None, genomes: Sequence[str] = ()
) -> tuple[GeneIdentity, str]:
    """Find Ensembl ids and symbols wherever `var` holds them; returns them and the genome prefix removed.

    var: one row a gene. gene_column: the column that names the genes, instead of the index. Where there are ids alone,
    symbols are looked up by them. Raises InputError where `gene_column` does not exist.
    """
    columns, prefix = _columns_without_prefix(var, gene_column, genomes)
    names_of = {name: _read_names(values) for name, values in columns.items()}
    main = gene_column or "index"
    id_column = _id_column(names_of, main, named=gene_column is not None)
    symbol_column = _symbol_column(names_of, main)
    n_genes = len(var)
    nothing = np.full(n_genes, "", dtype=object)
    gene_ids = names_of[id_column].ids if id_column else nothing
    symbols = nothing
    if symbol_column:
        read = names_of[symbol_column]
        symbols = read.values if read.symbols is None else read.symbols
    elif id_column:
        symbols = looked_up_symbols(gene_ids)
    # What names a gene that has neither: for a file of numbers, these.
    raw_ids = names_of[id_column or ("gene_ids" if "gene_ids" in names_of else main)].values
    names, n_shared = unique_names(symbols, np.where(gene_ids != "", gene_ids, raw_ids))

    notes = [
        f"The Ensembl ids were cut out of the names in the genes' {_called(name)} ({read.first})."
        for name, read in names_of.items()
        if read.first
    ]
    warnings = []
    if id_column:
        n_ids = int((gene_ids != "").sum())
        notes.append(
            f"Ensembl ids were read from the genes' {_called(id_column)} ({n_ids:,} of {n_genes:,})."
        )
    if symbol_column:
        notes.append(f"Gene symbols were read from the genes' {_called(symbol_column)}.")
    elif n_found := int((symbols != "").sum()):
        notes.append(
            f"The genes have no symbols: those of today were looked up by the ids ({n_found:,} of {n_genes:,} found)."
        )
    if prefix:
        notes.append(f"The genome prefix '{prefix}' was taken off the names of genes.")
    if n_genes and not id_column and not symbol_column:
        example = ", ".join(names_of[main].values[:3])
        warnings.append(f"The genes' names are neither Ensembl ids nor symbols ({example}, ...).")
    repeated = pd.Series(gene_ids)[gene_ids != ""]
    if n_repeated := int(repeated.duplicated().sum()):
        notes.append(f"{n_repeated:,} Ensembl ids occur more than once; what names one gene is summed.")
    if n_shared:
        notes.append(
            f"{n_shared:,} genes share their symbol with another; their names are the symbol and the id."
        )
    return GeneIdentity(names, gene_ids, symbols, notes, warnings), prefix


def _columns_without_prefix(
    var: pd.DataFrame, gene_column: str | None, genomes: Sequence[str]
) -> tuple[dict[str, np.ndarray], str]:
    """`text_columns` and the one that the user names, whatever it holds, without a genome's prefix; and the prefix."""
    columns = text_columns(var)
    if gene_column and gene_column not in columns:
        if gene_column not in var.columns:
            raise InputError(
                f"the genes have no column '{gene_column}'; there are: {', '.join(columns)}",
                "Give one of these as gene_column, or none to use the index.",
            )
        columns[gene_column] = as_text(var[gene_column])
    prefix = ""
    for name, values in columns.items():
        columns[name], removed = strip_genome_prefix(values, genomes)
        prefix = prefix or removed
    return columns, prefix


def _read_names(values: np.ndarray) -> _Names:
    """Find ids in names, shape (n_genes,), cut out where a name holds a symbol too."""
    ids = ensembl_ids(values)
    if share(ids != "") >= CLEAR_MAJORITY or (parts := parted_names(values)) is None:
        return _Names(values, ids)
    ids, symbols = parts
    return _Names(
        values=np.where(ids != "", ids, values).astype(object),
        ids=ids,
        symbols=symbols if (symbols != "").any() else None,
        first=values[0],
    )


def _id_column(names_of: dict[str, _Names], main: str, *, named: bool) -> str | None:
    """The column with the most Ensembl ids, None where none has any. named: whether the user names `main`."""
    order = list(dict.fromkeys([main, *(name for name in ID_COLUMNS if name in names_of), *names_of]))
    best = max(order, key=lambda name: (names_of[name].share_of_ids, -order.index(name)))
    own = names_of[main]
    if named:
        # Ids that the user names go before others, of which there may be more: those of another organism's orthologues.
        if own.share_of_ids >= 0.5 * share(own.values != "") > 0:
            return main
        # And so do symbols that the user names before another species' ids.
        if not own.share_of_ids and detect_organism(names_of[best].ids, [])[0] == OTHER:
            return None
    return best if names_of[best].share_of_ids else None


def _symbol_column(names_of: dict[str, _Names], main: str) -> str | None:
    """The column of symbols: the named one or the index, unless that holds ids or plain numbers; else one that holds
    them beside ids.
    """
    for name in (main, *SYMBOL_COLUMNS, "index"):
        if name not in names_of or names_of[name].share_of_ids >= 0.5:
            continue
        numbers = [value.isdigit() or value == "" for value in names_of[name].values]
        if share(np.array(numbers, dtype=bool)) < 0.5:
            return name
    return next((name for name, names in names_of.items() if names.symbols is not None), None)


def _called(column: str) -> str:
    return "index" if column == "index" else f"column '{column}'"


def has_symbol_tables() -> bool:
    """Whether the tables that symbols.py reads are here: the code that a model carries has none of them."""
    return ORTHOLOGS.is_file() and SYMBOLS.is_file()


def looked_up_symbols(gene_ids: np.ndarray) -> np.ndarray:
    """Today's symbols by Ensembl ids, "" for what is not known, and for all where there are no tables of them."""
    if not has_symbol_tables():
        return np.full(len(gene_ids), "", dtype=object)
    from cellscribe.symbols import symbols_of_ids

    return symbols_of_ids(gene_ids)


def unique_names(symbols: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, int]:
    """Unique names to search by: the symbol, `SYMBOL_id` where several share it, the id where there is none.

    Returns the names, shape (n_genes,), and how many genes share their symbol.
    """
    from anndata.utils import make_index_unique

    symbols_series = pd.Series(symbols)
    shared = (symbols_series.duplicated(keep=False) & (symbols_series != "")).to_numpy()
    different = shared & (ids != symbols) & (ids != "")
    names = np.where(different, symbols + "_" + ids, np.where(symbols != "", symbols, ids)).astype(object)
    names[names == ""] = "unnamed"
    index = pd.Index(names, dtype=object)
    if not index.is_unique:
        index = make_index_unique(index)
    return index.to_numpy(dtype=object), int(shared.sum())


# Organism --------------------------------------------------------------------------------------------


def detect_organism(gene_ids: np.ndarray, symbols: Sequence[str] | np.ndarray) -> tuple[str, str]:
    """`human`, `mouse`, `mixed` (of several organisms), `other` (of neither) or `unknown`, and a clause that says why.

    By the prefix of Ensembl ids; without these by the way that symbols are written (CD3E or Cd3e) and by the
    names of mitochondrial and ribosomal genes.
    """
    prefixes = pd.Series(_ensembl_prefixes(gene_ids), dtype=object)
    prefixes = prefixes[prefixes != ""].value_counts()
    if prefixes.sum() >= max(1, 0.1 * len(gene_ids)):
        first = str(prefixes.index[0])
        if prefixes.iloc[0] >= 0.9 * prefixes.sum():
            example = next(value for value in gene_ids if value.startswith(first))
            begin = f"its Ensembl ids begin with {first} ({example})"
            if first in ENSEMBL_ORGANISM:
                return ENSEMBL_ORGANISM[first], begin
            if species := OTHER_PREFIX.fullmatch(first):
                return OTHER, f"{begin}, as those of {OTHER_ORGANISM.get(species[1], 'another species')} do"
            return "unknown", begin
        found = ", ".join(f"{n:,} {prefix}" for prefix, n in prefixes.items())
        return MIXED, f"its Ensembl ids are of several organisms ({found})"

    names = [name for name in symbols if re.match(r"[A-Za-z]{2}", name)]
    if not names:
        return "unknown", "its genes have neither Ensembl ids nor symbols"
    upper = sum(1 for name in names if UPPER.fullmatch(name))
    title = sum(1 for name in names if TITLE.fullmatch(name))
    known = {
        organism: len(set(names) & {name for _, found in qc_gene_sets(organism).values() for name in found})
        for organism in ORGANISMS
    }
    if min(upper, title) >= MIXTURE * len(names) and min(known.values()) >= MIXTURE_QC_GENES:
        examples = ", ".join([*_examples(names, "human"), *_examples(names, "mouse")])
        return MIXED, f"its gene symbols are of human and mouse ({examples}; {upper:,} and {title:,})"
    for organism, other, written in (("human", "mouse", upper), ("mouse", "human", title)):
        if written >= 0.5 * len(names) and known[organism] >= known[other]:
            return organism, (
                f"its gene symbols are written as {organism} ones ({', '.join(_examples(names, organism))}; "
                f"{written:,} of {len(names):,})"
            )
    return "unknown", f"its gene symbols are of no known kind ({', '.join(names[:3])})"


def organism_of_each(gene_ids: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """Each gene's organism in a matrix of several, (n_genes,): `human`, `mouse`, another's prefix of ids, or "".

    By Ensembl ids where there are any, else by the way that symbols are written.
    """
    prefixes = _ensembl_prefixes(gene_ids)
    if (prefixes != "").any():
        return np.array([ENSEMBL_ORGANISM.get(prefix, prefix) for prefix in prefixes], dtype=object)
    written = (
        "human" if UPPER.fullmatch(name) else "mouse" if TITLE.fullmatch(name) else "" for name in symbols
    )
    return np.array(list(written), dtype=object)


def _ensembl_prefixes(gene_ids: np.ndarray) -> np.ndarray:
    """ENSG, ENSMUSG, ..., "" for what is no Ensembl id. Shape (n_genes,)."""
    matches = (ENSEMBL_PREFIX.match(value) for value in gene_ids)
    return np.array([match[1] if match else "" for match in matches], dtype=object)


def _examples(names: list[str], organism: str) -> list[str]:
    pattern = re.compile(r"[A-Z]{2}[A-Z0-9]*" if organism == "human" else r"[A-Z][a-z]+\d*[a-z]*")
    return [name for name in names if pattern.fullmatch(name)][:3] or names[:3]


def check_organism(asked: str, gene_ids: np.ndarray, symbols: np.ndarray) -> tuple[str, str]:
    """The organism to go on with, and a sentence for the reader.

    asked: `human`, `mouse` or `auto`. Raises InputError where the genes are clearly of another organism, or of several.
    """
    seen, why = detect_organism(gene_ids, symbols)
    if seen == OTHER:
        # Whatever was asked: symbols alone, which look like human ones in most mammals, do not make cells human.
        raise InputError(
            f"the genes are of neither human nor mouse: {why}",
            "Only human and mouse cells are named. Convert the ids to human or mouse ones by one-to-one orthologues "
            "first, and name the column of these, or of the orthologues' symbols, with gene_column "
            "(--gene_column_name).",
        )
    if seen == MIXED:
        raise InputError(
            f"the genes are of more than one organism: {why}",
            "Give the cells and genes of one organism; --genome human or --genome mouse reads one of a sample of both.",
        )
    if asked == "auto":
        return seen, f"The organism was taken to be {seen}: {why}."
    if seen not in ("unknown", asked):
        raise InputError(
            f"the organism is given as {asked}, but the data look like {seen}: {why}",
            f"Give organism {seen} (or auto), or the {asked} data.",
        )
    return asked, f"The organism was given: {asked}."


# Gene sets of quality control ------------------------------------------------------------------------


@functools.cache
def qc_genes(organism: str) -> pd.DataFrame:
    """The genes of the sets: columns `gene_id`, `symbol`, `set`.

    organism: `human`, `mouse`, or anything else for both together. Source: gene_sets/README.md.
    """
    tables = [
        pd.read_csv(GENE_SETS / f"{name}_qc_genes.tsv", sep="\t", dtype=str)
        for name in ((organism,) if organism in ORGANISMS else ORGANISMS)
    ]
    return pd.concat(tables, ignore_index=True)


def qc_gene_sets(organism: str) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Ensembl ids and symbols of the sets `mt`, `ribo`, `hb`. organism: of `qc_genes`."""
    table = qc_genes(organism)
    return {
        name: (frozenset(part["gene_id"]), frozenset(part["symbol"]))
        for name, part in ((name, table[table["set"] == name]) for name in QC_SETS)
    }


def gene_set_masks(var: pd.DataFrame, organism: str) -> dict[str, np.ndarray]:
    """Which genes are mitochondrial, ribosomal, haemoglobin: bool arrays of shape (n_genes,) by set.

    var: with `gene_ids` and `gene_symbols`, as CONVERT writes them. A gene is in a set by its id, or by its symbol of
    any year; symbols are compared without case, and every symbol that begins with `MT-` is mitochondrial. So are those
    of RefSeq (ND1, COX1), which has no `MT-`, where nearly all of them are there and no other mitochondrial gene.
    """
    from cellscribe.align import match_genes

    ids = as_text(var["gene_ids"]).astype(str)
    # R turns the hyphen into a dot, which none of these genes has.
    symbols = np.array(
        [symbol.lower().replace(".", "-") for symbol in as_text(var["gene_symbols"])], dtype=object
    )
    table = qc_genes(organism)
    rows, found = match_genes(var, table).selector.nonzero()
    of_set = np.full(len(var), "", dtype=object)
    of_set[rows] = table["set"].to_numpy(dtype=object)[found]
    masks = {}
    for name, (set_ids, set_symbols) in qc_gene_sets(organism).items():
        lower = {symbol.lower() for symbol in set_symbols}
        masks[name] = of_set == name
        masks[name] |= np.isin(ids, list(set_ids)) | np.isin(symbols.astype(str), list(lower))
    masks["mt"] |= np.array([symbol.startswith(("mt-", "mt_")) for symbol in symbols], dtype=bool)
    refseq = np.array([symbol.upper() in REFSEQ_MT for symbol in symbols], dtype=bool)
    if not masks["mt"].any() and len(set(symbols[refseq])) >= NEARLY_ALL * len(REFSEQ_MT):
        masks["mt"] = refseq
    return masks
