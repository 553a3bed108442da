"""Writing a model folder, whoever made the model."""

from __future__ import annotations

import datetime
import importlib.metadata
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellscribe.cli import log, warn
from cellscribe.errors import InputError
from cellscribe.io import read_json, umask, write_json
from cellscribe.label_map import read_label_map, tell_unknown
from cellscribe.model import manifest
from cellscribe.model.manifest import MANIFEST, write_manifest
from cellscribe.model.ontology import (
    LINEAGE,
    Ontology,
    build_ontology,
    find_cl_ids,
    lineage_level,
    plain_name,
)
from cellscribe.training.evaluate import Evaluation
from cellscribe.words import plural, some

if TYPE_CHECKING:
    from cellscribe.training.options import ModelOptions
    from cellscribe.training.reference import LabelledCells


def manifest_pattern(*path: str) -> str:
    """The pattern that schema_model.json holds a field to."""
    fields = read_json(Path(manifest.__file__).with_name("schema_model.json"))["properties"]
    for key in path:
        fields = fields[key]
    return str(fields["pattern"])


def check_names(name: str, version: str, output: Path, levels: Sequence[str] = ()) -> None:
    """Raises InputError for names and an output that would only fail once everything is done."""
    level_pattern = manifest_pattern("levels", "items", "properties", "name")
    for option, text, pattern, allowed in (
        ("--name", name, manifest_pattern("name"), "letters, digits, '.', '_' and '-'"),
        ("--version", version, manifest_pattern("version"), "letters, digits, '.', '+', '_' and '-'"),
        *(("--levels", level, level_pattern, "letters, digits and '_'") for level in levels),
    ):
        if not re.search(pattern, text):
            raise InputError(
                f"{option} '{text}' may hold only {allowed}, begin with a letter or digit, and have at most 64 of them",
                "Choose another name; a level is called as its obs column is.",
            )
    if output.resolve() == Path.cwd() or output.is_mount():
        raise InputError(
            "--output is the current folder or a mounted one, which cannot be replaced",
            "Name a folder that does not exist yet.",
            file=output,
        )
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not (output / MANIFEST).is_file()):
        raise InputError(
            "--output exists and is no model folder, so it is not replaced",
            "Name a folder that does not exist yet.",
            file=output,
        )


def place_labels(names: Sequence[str], cl_map: Path | None) -> tuple[dict[str, str], Ontology]:
    """Each label's Cell Ontology id ("" where unknown), and the ontology around them.

    Raises InputError for ids and names in `cl_map` that the Cell Ontology does not have.
    """
    given = read_label_map(cl_map, "cl_id", keep_blank=True) if cl_map else {}
    tell_unknown("--cl_map", given, names)
    cl_ids = find_cl_ids(names, given)
    for name in names:
        if given.get(name) and not cl_ids[name]:
            raise InputError(
                f"'{given[name]}', given for '{name}', is neither an id (CL:0000084) nor a name in the Cell Ontology",
                "Correct it, or leave it empty if the label has none.",
                file=cl_map,
            )
    try:
        ontology = build_ontology(list(cl_ids.values()))
    except KeyError as error:
        raise InputError(f"{error.args[0]} is not in the Cell Ontology", "Correct it in --cl_map.") from None
    for name in names:
        if not cl_ids[name]:
            log(f"label '{name}' has no Cell Ontology id: give one with --cl_map (columns label, cl_id)")
    return cl_ids, ontology


def tell_related(cl_ids: Mapping[str, str], ontology: Ontology) -> None:
    """Warn of labels that are one type by their Cell Ontology ids, and log which lie below another.

    cl_ids: each label's id, "" where it has none.
    """
    of_id: dict[str, list[str]] = {}
    for label, cl_id in cl_ids.items():
        if cl_id:
            of_id.setdefault(cl_id, []).append(label)
    for cl_id, labels in of_id.items():
        # Those that are written almost alike are told of where labels are read.
        if len({plain_name(label) for label in labels}) > 1:
            warn(
                f"{some(labels, quoted=True)} are one type by their ids, {cl_id} ({ontology.name(cl_id)}), and learned "
                "as different ones: call them alike with --label_map if they are one."
            )
        below = [
            label for other, own in of_id.items() if cl_id in ontology.lineage(other)[1:] for label in own
        ]
        if below:
            log(
                f"{some(labels, quoted=True)} lies above {some(below, quoted=True)} in the Cell Ontology: the model "
                "takes it for cells that are none of these"
            )


def lineage_levels(
    ontology: Ontology, names: Sequence[str], cl_ids: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The one coarser level that the Cell Ontology gives; none where it joins no labels."""
    lineage = lineage_level(ontology, names, [cl_ids[name] for name in names])
    return [{"name": LINEAGE, "labels": lineage}] if any(lineage[n] != n for n in names) else []


@contextmanager
def new_model(output: Path) -> Iterator[Path]:
    """Give an empty folder beside `output`; put it in the place of `output` only if the block ends well."""
    # A link is not replaced, but the folder that it leads to.
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".model.") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        yield folder
        if output.exists():
            output.replace(Path(scratch) / "before")
        folder.replace(output)


def finish_model(
    folder: Path, fields: dict[str, Any], ontology: Ontology, evaluation: Evaluation | None
) -> str:
    """Add what every model has to a folder that holds its members: ontology, evaluation, card, MLflow's files and the
    manifest. fields: as for `write_manifest`. evaluation: None for a model that was not tested. Returns the sha256.
    """
    from cellscribe.training.card import write_card
    from cellscribe.training.mlflow_folder import write_mlflow

    write_json(ontology.to_json(), folder / "ontology.json")
    if evaluation is not None:
        write_json(evaluation.as_dict(), folder / "evaluation.json")
    write_card(folder, fields, evaluation)
    write_mlflow(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask())
    return write_manifest(folder, fields)


def write_genes(folder: Path, genes: pd.DataFrame, silent: pd.DataFrame) -> None:
    """Write genes.tsv and silent_genes.tsv. silent: the genes that no label expresses, columns gene_id, symbol."""
    for name, table in (("genes.tsv", genes), ("silent_genes.tsv", silent)):
        table.to_csv(folder / name, sep="\t", index=False, lineterminator="\n")


def manifest_fields(
    options: ModelOptions,
    names: Sequence[str],
    cl_ids: Mapping[str, str],
    ontology: Ontology,
    gene_table: pd.DataFrame,
    cells: LabelledCells | None,
    *,
    training: Mapping[str, Any],
    libraries: Sequence[str],
    **own: Any,
) -> dict[str, Any]:
    """Everything of manifest.json but the files.

    names: the labels, in the model's order. cl_ids: label to Cell Ontology id, "" for none. gene_table: columns
    gene_id, symbol. cells: those that the model learned from, None where they are not known. training: how it learned
    from them. libraries: the packages that made it. own: the fields that follow from none of these, as
    schema_model.json names them, and those that the model has otherwise than they would follow.
    """
    return {
        "version": options.version,
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "description": options.description,
        "licence": options.licence,
        "citation": options.citation,
        "labels": label_entries(names, cl_ids, ontology, cells),
        "genes": gene_entry(gene_table),
        "training": {
            "n_cells": 0 if cells is None else len(cells.labels),
            "n_genes": len(gene_table),
            "sources": [] if cells is None else cells.sources,
            "n_batches": 0 if cells is None else len(np.unique(cells.batches.astype(str))),
            "n_unlabelled": 0 if cells is None else cells.n_unlabelled,
            **training,
        },
        "does_not_know": [
            *([] if cells is None else not_learned(cells, names)),
            *filter(None, (name.strip() for name in options.lacks.split(","))),
        ],
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
        "pipeline_version": options.pipeline_version,
        **own,
    }


def label_entries(
    names: Sequence[str], cl_ids: Mapping[str, str], ontology: Ontology, cells: LabelledCells | None
) -> list[dict[str, Any]]:
    """`labels` of a manifest, with the numbers of cells and of their batches; parameters as of `manifest_fields`."""
    n_cells: Mapping[str, int] = {}
    n_batches: Mapping[str, int] = {}
    if cells is not None:
        of_label = pd.Series(cells.batches.astype(str)).groupby(cells.labels.astype(str))
        n_cells, n_batches = of_label.size().to_dict(), of_label.nunique().to_dict()
    return [
        {
            "label": name,
            "cl_id": cl_ids[name],
            "cl_name": ontology.name(cl_ids[name]),
            "n_cells": n_cells.get(name, 0),
            "n_batches": n_batches.get(name, 0),
        }
        for name in names
    ]


def not_learned(cells: LabelledCells, names: Sequence[str]) -> list[str]:
    """What a model that learned from these cells does not know, though they have it. names: its labels."""
    rare = [
        f"{label} ({plural(number, 'cell')}: too few to learn)"
        for label, number in cells.left_out.items()
        if label not in names
    ]
    return rare + [one.sentence() for one in cells.contested if not one.is_corrected]


def gene_entry(genes: pd.DataFrame) -> dict[str, Any]:
    """`genes` of a manifest. genes: columns gene_id, symbol."""
    return {
        "n": len(genes),
        "id_column": "gene_ids",
        "has_ids": bool((genes["gene_id"] != "").all()),
        "has_symbols": bool((genes["symbol"] != "").all()),
    }
