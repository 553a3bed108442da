"""The genes of all samples: which gene of one sample is which of another's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from cellscribe.align import other_spellings
from cellscribe.cli import log
from cellscribe.genes import as_text, unique_names
from cellscribe.words import plural


def ids_of_one_gene(files: Sequence[tuple[Sequence[str], Sequence[str]]]) -> dict[str, str]:
    """Ensembl ids of one gene in releases of different years, the older to the newer: two that one symbol has in
    different files, and that no file has side by side (CCL5 was ENSG00000161570 and is ENSG00000271503).

    files: the ids and the symbols of each file's genes, "" where unknown. The newer of two is the one of the larger
    number.
    """
    ids_of: list[dict[str, set[str]]] = []
    for ids, symbols in files:
        own: dict[str, set[str]] = {}
        for gene_id, symbol in zip(ids, symbols, strict=True):
            if gene_id and symbol:
                own.setdefault(symbol, set()).add(gene_id)
        ids_of.append(own)
    there = [set(ids) for ids, _ in files]
    newer: dict[str, str] = {}
    used: set[str] = set()
    for symbol in sorted(set[str]().union(*ids_of)):
        each = [of.get(symbol, set()) for of in ids_of]
        both = set[str]().union(*each)
        if len(both) != 2 or max(map(len, each)) == 2 or both & used or any(both <= ids for ids in there):
            continue
        old, new = sorted(both)
        newer[old] = new
        used |= both
    return newer


def join_genes(tables: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """The union of the samples' genes, and each sample's genes' columns in it, int32 (n_genes,).

    A gene is the same by its Ensembl id, or by one of another year (`ids_of_one_gene`); where one of two has none, by
    its symbol, if that is one gene's alone in its sample and in the union; then by another spelling of that symbol
    (`other_spellings`), if no sample has both. Genes keep the order, and the symbols, in which they are first seen.
    Columns: `gene_ids`, `gene_symbols`, `n_samples`: in how many samples the gene was measured. The index is unique, as
    in a sample's file.
    """
    ids: list[str] = []
    symbols: list[str] = []
    by_id: dict[tuple[str, int], int] = {}
    by_symbol: dict[str, list[int]] = {}
    seen: dict[tuple[bytes, bytes], np.ndarray] = {}
    named = [_identity(table) for table in tables]
    keys = [("\n".join(own_ids).encode(), "\n".join(own_symbols).encode()) for own_ids, own_symbols in named]
    distinct = dict(zip(keys, named, strict=True))
    newer = ids_of_one_gene(list(distinct.values()))
    for key, (own_ids, own_symbols) in distinct.items():
        today = [newer.get(gene_id, gene_id) for gene_id in own_ids]
        seen[key] = _place(today, own_symbols, ids, symbols, by_id, by_symbol)
    genes = pd.DataFrame({"gene_id": ids, "symbol": symbols}, dtype=object)
    onto = _join_respelled(genes, list(seen.values()))
    kept = onto == np.arange(len(onto))
    if n_joined := int((~kept).sum()):
        log(f"{plural(n_joined, 'gene')} of samples joined with others' by another spelling of the symbol")
    column = (np.cumsum(kept) - 1).astype(np.int32)[onto]
    places = [column[seen[key]] for key in keys]
    measured = np.zeros(int(kept.sum()), dtype=np.int32)
    for place in places:
        measured[place] += 1
    id_array, symbol_array = (genes[name].to_numpy(dtype=object)[kept] for name in ("gene_id", "symbol"))
    names, _ = unique_names(symbol_array, id_array)
    var = pd.DataFrame(
        {"gene_ids": id_array, "gene_symbols": symbol_array, "n_samples": measured},
        index=pd.Index(names, dtype=object),
    )
    return var, places


def _identity(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    names = as_text(table.index)
    ids = as_text(table["gene_ids"]) if "gene_ids" in table else np.full(len(table), "", dtype=object)
    symbols = as_text(table["gene_symbols"]) if "gene_symbols" in table else names
    return ids.tolist(), np.where(symbols != "", symbols, names).tolist()


def _place(
    own_ids: Sequence[str],
    own_symbols: Sequence[str],
    ids: list[str],
    symbols: list[str],
    by_id: dict[tuple[str, int], int],
    by_symbol: dict[str, list[int]],
) -> np.ndarray:
    """Find each gene's column in the union, adding those that are new; the union's tables grow in place."""
    once = dict.fromkeys(own_symbols, 0)
    for symbol in own_symbols:
        once[symbol] += 1
    times: dict[str, int] = {}
    taken: set[int] = set()
    place = np.empty(len(own_ids), dtype=np.int32)
    # Genes with an id first: what has none takes what they leave.
    for i in sorted(range(len(own_ids)), key=lambda i: own_ids[i] == ""):
        gene_id, symbol = own_ids[i], own_symbols[i]
        times[gene_id] = times.get(gene_id, 0) + 1
        key = (gene_id, times[gene_id])
        column = by_id.get(key) if gene_id else None
        if column is None and once[symbol] == 1 and len(by_symbol.get(symbol, ())) == 1:
            candidate = by_symbol[symbol][0]
            if candidate not in taken and (not gene_id or not ids[candidate]):
                column = candidate
        if column is None and not gene_id and once[symbol] > 1:
            # Genes of one symbol without an id: the first with the first, and so on.
            column = next((c for c in by_symbol.get(symbol, ()) if c not in taken and not ids[c]), None)
        if column is None:
            column = len(ids)
            ids.append(gene_id)
            symbols.append(symbol)
            by_symbol.setdefault(symbol, []).append(column)
        if gene_id:
            ids[column] = gene_id
            by_id.setdefault(key, column)
        taken.add(column)
        place[i] = column
    return place


def _join_respelled(genes: pd.DataFrame, places: Sequence[np.ndarray]) -> np.ndarray:
    """The gene that each gene of the union is one with by another spelling of its symbol, else itself: int (n_genes,).

    genes: of the union, `gene_id` ("" for none) and `symbol`; one that takes in another gets its id, in place. places:
    of each different set of genes, as `_place` gives them. Genes are joined with those of earlier sets, and none that
    lie side by side in any set: there they are two.
    """
    measured = np.zeros((len(places), len(genes)), dtype=bool)
    for row, place in zip(measured, places, strict=True):
        row[place] = True
    onto = np.arange(len(genes))
    first = measured.argmax(axis=0)
    ids = genes["gene_id"].to_numpy(dtype=object, copy=True)
    alone = ~genes["symbol"].duplicated(keep=False).to_numpy(dtype=bool)
    for number in range(1, len(places)):
        new = np.flatnonzero(alone & (first == number))
        old = np.flatnonzero(alone & (first < number) & (onto == np.arange(len(onto))))
        # Two genes with an id are the same by that alone.
        if (ids[new] != "").all() and (ids[old] != "").all():
            continue
        for one, other in _respelled(genes.iloc[new], genes.iloc[old]):
            i, known = new[one], old[other]
            apart = (ids[i] and ids[known]) or (measured[:, i] & measured[:, known]).any()
            if onto[i] == i and not apart:
                onto[i] = known
                ids[known] = ids[known] or ids[i]
                measured[:, known] |= measured[:, i]
    genes["gene_id"] = ids
    return onto


def _respelled(genes: pd.DataFrame, others: pd.DataFrame) -> Iterator[tuple[int, int]]:
    """Pairs of rows of two tables whose symbols are spellings of one gene's, the safest first.

    genes, others: `gene_id` and `symbol`, each symbol once. A row that would pair with two by one kind of spelling
    pairs with none by it.
    """
    row = {symbol: i for i, symbol in enumerate(genes["symbol"])}
    other_row = {symbol: i for i, symbol in enumerate(others["symbol"])}
    kinds = zip(other_spellings(genes, former=True), other_spellings(others, former=True), strict=False)
    for own_names, other_names in kinds:
        pairs = {(i, other_row[name]) for name, i in own_names.items() if name in other_row}
        pairs |= {(row[name], j) for name, j in other_names.items() if name in row}
        times, other_times = Counter(i for i, _ in pairs), Counter(j for _, j in pairs)
        yield from sorted((i, j) for i, j in pairs if times[i] == other_times[j] == 1)
