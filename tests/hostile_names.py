"""Names that mean something to a shell, a page, a spreadsheet or a template, and what to look for where they went."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from small_model import TYPES, simulate, small_model

from cellscribe.model.manifest import write_manifest

# What a shell would leave, and what a page would hold, if one of the names were ever more than a name.
SPRUNG, PLANTED = "sprung", "planted"
LABELS = dict(
    zip(
        TYPES,
        (
            '=HYPERLINK("http://planted","x")',
            "<planted onplanted=1>\"onplanted=\"x'onplanted='x",
            "$(touch sprung)`touch sprung`;touch sprung;' \\",
            "@SUM(1)\u202e</script><planted>{{ 7 * 191 }}",
            "-2+3\tNK\ncell",
        ),
        strict=True,
    )
)
NAMES = (
    *(
        "=cmd|' /C calc'!A0",
        "+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "<planted>",
        '"onplanted="x',
        "</script><planted>",
    ),
    *(
        "$(touch sprung)",
        "`touch sprung`",
        ";touch sprung;",
        "' ; touch sprung ; '",
        "-rf",
        "--help",
        "a\tb",
        "a\nb",
    ),
    *(
        "{{ 7 * 191 }}",
        "${7*191}",
        "%s%n",
        "../../sprung",
        "\u202egnp",
        "\x1b[2J",
        "x" * 3000,
        "javascript:planted",
        "#",
    ),
)
FORMULA = tuple("=+-@＝＋－＠\t\r\n")


def hostile_cells(n_cells: int, seed: int = 0) -> anndata.AnnData:
    """Simulated cells whose genes, barcodes, columns and labels are all hostile. `known`: the labels."""
    adata = simulate(n_cells, seed=seed)
    symbols = adata.var_names.to_numpy(dtype=object).copy()
    # Among the genes that mark each type, so that they come to every table and page.
    for i, name in enumerate(NAMES):
        symbols[25 * (i % len(TYPES)) + i // len(TYPES)] = f"{name}{i}"
    adata.var_names = symbols
    adata.var["gene_symbols"] = symbols
    adata.var["<planted>"] = [NAMES[i % len(NAMES)] for i in range(adata.n_vars)]
    adata.obs_names = [f"{NAMES[i % len(NAMES)]}{i}" for i in range(n_cells)]
    adata.obs["cell_type"] = adata.obs["cell_type"].map(LABELS)
    adata.obs["known"] = adata.obs["cell_type"]
    for name in ("=1+1", "<planted>", '"onplanted="x', "$(touch sprung)", "\u202ex", "{{ 7 * 191 }}"):
        adata.obs[name] = pd.Categorical([NAMES[i % 7] for i in range(n_cells)])
    adata.obs["number"] = np.arange(n_cells) - 5.0
    return adata


def hostile_model(folder: Path) -> Path:
    """The small model, its labels hostile, as whoever made it could have called them."""
    shutil.copytree(small_model("logistic"), folder)
    for name in ("manifest.json", "markers.json"):
        renamed = _renamed(json.loads((folder / name).read_text()))
        (folder / name).write_text(json.dumps(renamed))
    fields = json.loads((folder / "manifest.json").read_text())
    for written_anew in ("format", "format_version", "files"):
        del fields[written_anew]
    write_manifest(
        folder, fields | {"description": NAMES[5], "licence": NAMES[6], "citation": "{{ 7 * 191 }}"}
    )
    return folder


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {LABELS.get(key, key): _renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    return LABELS.get(value, value) if isinstance(value, str) else value


class Page(HTMLParser):
    """The elements of a page, and the names of their attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {str(value) for name, value in attrs if name in ("href", "src", "action", "style")}

    def faults(self) -> list[str]:
        """Elements, attributes and links that came from a name."""
        wrong = [*self.elements, *self.attributes] + [link for link in self.links if "javascript" in link]
        return [one for one in wrong if PLANTED in one or "javascript" in one]


def formulas(table: Path) -> list[str]:
    """The cells of a tab-separated table that a spreadsheet would run; numbers are none."""
    packed = table.suffix == ".gz"
    text = (gzip.decompress(table.read_bytes()) if packed else table.read_bytes()).decode()
    found = []
    for row in csv.reader(io.StringIO(text, newline=""), delimiter="\t"):
        found += [cell for cell in row if cell.startswith(FORMULA) and not is_number(cell)]
    return found


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
