"""A saved scvi-tools model made into one of ours.

Lopez et al. 2018, Nature Methods 15:1053; Xu et al. 2021, Molecular Systems Biology 17:e9620. The encoder is taken
over as it is; trees and neighbours are trained on labelled reference cells in its latent space; SCANVI's own classifier
is kept beside them. Neither torch nor scvi-tools is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellscribe import genes as gene_names
from cellscribe.align import GeneMatch, check_overlap, looks_like, match_genes
from cellscribe.cli import log, warn
from cellscribe.errors import InputError, ModelFetchError
from cellscribe.importing.calibrate import TestCells, calibrate, gene_names_of
from cellscribe.importing.torch_file import read_torch
from cellscribe.io import scratch_beside, write_json
from cellscribe.label_csv import is_labelled
from cellscribe.model.calibration import UNCALIBRATED
from cellscribe.model.encoder import Encoder
from cellscribe.model.model import NEIGHBOURS, SCANVI, TREES
from cellscribe.model.neighbours import N_NEIGHBOURS
from cellscribe.model.robust import thinned_copy
from cellscribe.model.scvi_model import SCANVI as SCANVI_CLASS
from cellscribe.model.scvi_model import SCVI, ScviModel, plain
from cellscribe.schema import nearest
from cellscribe.training.calibrate import fit_calibration, score_classifiers, unexpected_limit
from cellscribe.training.disk import blocks_of, on_disk
from cellscribe.training.evaluate import Evaluation
from cellscribe.training.folder import (
    check_names,
    finish_model,
    lineage_levels,
    manifest_fields,
    new_model,
    place_labels,
    write_genes,
)
from cellscribe.training.genes import silent_genes
from cellscribe.training.held_out import (
    GENE_SHARES,
    HeldOut,
    Part,
    check_fold,
    folds_of,
    only,
    seen_elsewhere,
    tested_cells,
    unexpected_shares,
)
from cellscribe.training.members import (
    Members,
    as_stored,
    copies_on_disk,
    encode,
    rows_of_copies,
    taught_cells,
    train_trees,
)
from cellscribe.training.options import ModelOptions
from cellscribe.training.reference import LabelledCells, common_labels, read_reference
from cellscribe.training.train import REJECTION, gene_table, markers_of, reference_of, silent_table

PROGRAM = "scvi-tools"
WHAT_TO_GIVE = (
    f"Give the folder (or its model.pt) that a SCVI or SCANVI model of {PROGRAM} 1.0 or later saved."
)
OTHER_CELLS = (
    "Give cells of the same organism with --reference, or name the var column that holds such names with "
    "--gene-column-name. --min-gene-overlap lowers the bar."
)
SEEN_BY_ENCODER = (
    "Trees, neighbours and their calibration were tested on whole batches that they had not seen, but the encoder may "
    "have been trained on these cells: on new donors expect lower scores and less certain labels. Cells new to "
    "the model, given with --test, would say by how much."
)


def read_scvi(path: Path, *, trusted: bool) -> tuple[ScviModel, Path, str]:
    """Read a model that scvi-tools saved: the model, its file, the file's sha256.

    path: the folder, or the model.pt in it. Raises ModelFetchError for what is none, for other classes of models, and
    for SCVI models of which no encoder can be made.
    """
    file = _model_file(path)
    value, sha256 = read_torch(file, program=PROGRAM, trusted=trusted)
    try:
        attributes, registry = value["attr_dict"], value["attr_dict"]["registry_"]
        kind, weights, genes = registry["model_name"], value["model_state_dict"], value["var_names"]
        registry["field_registries"]["X"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFetchError(
            f"this file is no model that {PROGRAM} saved (there is no {error} in it)", WHAT_TO_GIVE, file=file
        ) from None
    if kind not in (SCVI, SCANVI_CLASS):
        raise ModelFetchError(
            f"this is a model of the class {kind}; only {SCVI} and {SCANVI_CLASS} can be imported",
            "Train one of these on the same cells, or train here with --mode train.",
            file=file,
        )
    arrays = {name: array for name, array in weights.items() if isinstance(array, np.ndarray)}
    model = ScviModel(
        kind, arrays, registry, attributes.get("init_params_", {}), [str(name) for name in genes]
    )
    _check_options(model, file)
    try:
        model.encoder(np.zeros(model.n_covariates)).encode(
            sp.csr_matrix((1, len(model.genes)), dtype=np.float32)
        )
        if model.labels:
            model.classifier(model.labels)
    except (KeyError, ValueError, IndexError) as error:
        raise ModelFetchError(
            f"the weights do not fit what the model says of itself ({error})", "Save it again.", file=file
        ) from None
    return model, file, sha256


def _model_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*model.pt"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise ModelFetchError(
            f"the folder holds several models: {names}", "Give one of these files.", file=path
        )
    if any(path.glob("*attr.pkl")):
        raise ModelFetchError(
            f"this model was saved by a {PROGRAM} older than 0.15",
            "Convert it with scvi.model.SCVI.convert_legacy_save, then load and save it with a current one.",
            file=path,
        )
    held = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise ModelFetchError(f"the folder holds no model.pt (it holds {held})", WHAT_TO_GIVE, file=path)


def _check_options(model: ScviModel, file: Path) -> None:
    """Raises ModelFetchError for options under which the latent is not what an `Encoder` gives."""
    options = model.options
    wrong = ""
    if options.get("latent_distribution", "normal") != "normal":
        wrong = f"latent_distribution={options['latent_distribution']!r}, whose latent is drawn at random"
    for name in ("extra_encoder_kwargs", "classifier_parameters"):
        if isinstance(options.get(name), Mapping) and "activation_fn" in options[name]:
            wrong = f"an activation function of its own ({name})"
    if wrong:
        raise ModelFetchError(f"the model has {wrong}: it cannot be imported", "Train it without.", file=file)


@dataclass(frozen=True)
class ScviOptions(ModelOptions):
    """Options of `import_model.py scvi`; see its --help."""

    model: Path
    output: Path
    reference: tuple[Path, ...] = ()
    counts_layer: str | None = None
    gene_column_name: str | None = None
    name: str | None = None
    seed: int = 0
    test: TestCells = field(default_factory=TestCells)
    trust_model_code: bool = False
    cpus: int = 1


@dataclass(frozen=True)
class Placed:
    """The reference in the model's latent space.

    cells: its labels and batches; its counts are on the reference's own genes, or on none where the file holds the
    latent alone. counts: CSR on the model's genes, None where there are none. latent: (n_rows, n_latent) of the cells
    and their altered copies, each encoded with its own covariates; source: (n_rows,), each row's cell. asked, altered:
    (n_cells, n_latent), the cells as a query's would lie, as they are and thinned; altered is None without counts.
    fewer_genes: the same without some of the genes, by the share that is left.
    """

    cells: LabelledCells
    encoder: Encoder
    latent: np.ndarray
    source: np.ndarray
    asked: np.ndarray
    genes: pd.DataFrame
    altered: np.ndarray | None = None
    fewer_genes: Mapping[float, np.ndarray] = field(default_factory=dict)
    counts: sp.csr_matrix | None = None
    notes: tuple[str, ...] = ()


def place_reference(model: ScviModel, options: ScviOptions, name: str, label_key: str, file: Path) -> Placed:
    """Read the labelled cells and encode them.

    Without `options.reference` they are those that the model was saved with. Raises InputError where they cannot be
    read, ModelMismatchError where their genes are not the model's.
    """
    given = options.reference
    if not given:
        saved = file.with_name(file.name.removesuffix("model.pt") + "adata.h5ad")
        if not saved.is_file():
            raise InputError(
                "no labelled cells were given, and the model was saved without its own (adata.h5ad)",
                "Give cells that it was trained on with --reference, and their labels with --label-key.",
                file=file,
            )
        placed = _minified(model, saved, options, label_key)
        if placed is not None:
            return placed
        given = (saved,)
    scratch = scratch_beside(options.output)
    cells = read_reference(
        given,
        label_key,
        batch_key=_batch_key(model, options, given),
        organism=options.organism,
        counts_layer=options.counts_layer,
        gene_column=options.gene_column_name,
        covariates=[column for column in _columns(model) if column],
        no_label=model.unlabelled,
        scratch=scratch,
    )
    genes, match = _genes(model, cells, options, name)
    counts = on_disk((match.on_model(block) for _, block in blocks_of(cells.counts)), len(genes), scratch)
    notes = []
    if model.encodes_covariates:
        absent = [column for column in _columns(model) if column not in cells.covariates]
        numbers = [column for column in model.continuous if column in absent]
        if numbers:
            raise InputError(
                f"the encoder takes the continuous covariate '{numbers[0]}', and the cells have no such obs column",
                f"Add obs['{numbers[0]}'] as the model was trained with it.",
                file=given[0],
            )
        notes += [
            f"The reference cells have no obs column '{column}', which the encoder takes: they were encoded as the "
            "average of its categories."
            for column in absent
        ]
        if model.continuous or model.categorical:
            also = ", ".join([*model.categorical, *model.continuous])
            notes.append(f"A query is encoded with the reference's average of batch, {also}.")
        else:
            notes.append(
                "A query is encoded with the reference's average of batches, or fine-tuned (--surgery)."
            )
    own = model.covariates(cells.covariates)
    encoder = model.encoder(own.mean(axis=0))
    every = np.arange(counts.shape[0])
    copies = copies_on_disk(counts, 1, np.random.default_rng(options.seed), scratch)
    rows, source = rows_of_copies(every, len(every), 1)
    of_rows = own[source] if model.encodes_covariates else None
    to_thin, to_drop = (np.random.default_rng(options.seed + add) for add in (1, 2))
    kept = {share: to_drop.random(counts.shape[1]) < share for share in GENE_SHARES}
    return Placed(
        cells=cells,
        encoder=encoder,
        latent=as_stored(encode(encoder, copies, rows, of_rows)),
        source=source,
        asked=encode(encoder, counts, every),
        altered=encode(encoder, counts, every, alter=partial(thinned_copy, rng=to_thin)),
        fewer_genes={
            share: encode(encoder, counts, every, alter=partial(only, kept=genes))
            for share, genes in kept.items()
        },
        counts=counts,
        genes=genes,
        notes=tuple(notes),
    )


def _columns(model: ScviModel) -> list[str]:
    """The obs columns that the model's covariates come from."""
    batch = model.column("batch")
    return [*([batch] if batch else []), *model.categorical, *model.continuous]


def _batch_key(model: ScviModel, options: ScviOptions, files: tuple[Path, ...]) -> str | None:
    """The obs column of batches: that which was asked for, or the model's own where all files have it."""
    if options.test.batch_key or not (own := model.column("batch")):
        return options.test.batch_key
    return own if all(own in _obs_columns(file) for file in files) else None


def _obs_columns(path: Path) -> set[str]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return set(file["obs"])
    except (OSError, KeyError):
        return set()  # read_reference says what is wrong


def _genes(
    model: ScviModel, cells: LabelledCells, options: ScviOptions, name: str
) -> tuple[pd.DataFrame, GeneMatch]:
    """The model's genes by id and symbol, where the reference has both, and which reference gene is which."""
    genes = _own_genes(model)
    var = pd.DataFrame(
        {"gene_ids": cells.genes["gene_id"].to_numpy(), "gene_symbols": cells.genes["symbol"].to_numpy()}
    )
    match = match_genes(var.set_axis(cells.genes["symbol"].astype(str), axis=0), genes)
    told, _ = gene_names.detect_organism(genes["gene_id"].to_numpy(), genes["symbol"].to_numpy())
    for warning in check_overlap(
        match,
        gene_names_of(cells.genes),
        model=name,
        # The model's, and not the cells': which of the two is the wrong one is what the reader must know.
        organism=told if told in gene_names.ORGANISMS else cells.organism,
        minimum=options.test.min_gene_overlap,
        warn_below=0.8,
        advice=f"The model's own look like {looks_like(pd.Series(model.genes))}. {OTHER_CELLS}",
    ):
        warn(warning)
    log(f"{int(match.found.sum()):,} of the model's {len(genes):,} genes are in the reference")
    there, which = match.selector.tocoo().row, match.selector.tocoo().col
    for column in ("gene_id", "symbol"):
        theirs = pd.Series("", index=np.arange(len(genes)), dtype=object)
        theirs.iloc[which] = cells.genes[column].to_numpy()[there]
        twice = theirs.duplicated(keep=False)
        genes[column] = np.where((genes[column] == "") & ~twice, theirs, genes[column])
    return genes, match


def _own_genes(model: ScviModel) -> pd.DataFrame:
    names = np.array(model.genes, dtype=object)
    ids = gene_names.ensembl_ids(names)
    return pd.DataFrame({"gene_id": ids, "symbol": np.where(ids == "", names, "").astype(object)})


def _minified(model: ScviModel, file: Path, options: ScviOptions, label_key: str) -> Placed | None:
    """The cells of a minified model, of which there is no more than the latent; None where the file has counts."""
    import anndata

    adata = anndata.read_h5ad(file, backed="r")
    try:
        stored = [
            model.registry["field_registries"].get("latent_qzm", {}).get("data_registry", {}).get("attr_key")
        ]
        stored += [f"{model.kind.lower()}_latent_qzm", f"_{model.kind.lower()}_latent_qzm", "X_latent_qzm"]
        key = next((key for key in stored if key and key in adata.obsm), None)
        if key is None or adata.X[:100].sum():
            return None
        obs, latent = adata.obs, np.asarray(adata.obsm[key], dtype=np.float32)
    finally:
        adata.file.close()
    batch_key = options.test.batch_key or model.column("batch")
    for column in filter(None, (label_key, options.test.batch_key)):
        if column not in obs:
            raise InputError(
                f"there is no obs column '{column}'; there are: {', '.join(map(str, obs.columns))}"
                f"{nearest(column, map(str, obs.columns))}",
                "Name one of these, or give labelled cells with --reference.",
                file=file,
            )
    labels = gene_names.as_text(obs[label_key])
    labelled = is_labelled(labels, model.unlabelled)
    common, left_out = common_labels(labels[labelled], label_key, file)
    rows = np.flatnonzero(labelled)[common]
    genes = _own_genes(model)
    organism, _ = gene_names.check_organism(
        gene_names.read_organism(options.organism), genes["gene_id"].to_numpy(), genes["symbol"].to_numpy()
    )
    if organism == "unknown":
        raise InputError(
            f"the organism cannot be told from the model's genes ({', '.join(model.genes[:3])}, ...)",
            "Give --organism human or --organism mouse.",
            file=file,
        )
    batches = (
        gene_names.as_text(obs[batch_key]) if batch_key in obs else np.full(len(obs), "all", dtype=object)
    )
    cells = LabelledCells(
        counts=sp.csr_matrix((len(rows), 0), dtype=np.float32),
        genes=genes.iloc[:0],
        labels=labels[rows],
        batches=batches[rows],
        organism=organism,
        sources=[file.name],
        left_out=left_out,
        n_unlabelled=int((~labelled).sum()),
        covariates=obs.iloc[rows],
    )
    notes = [
        "The model was saved without counts (minified): it has no marker genes, no genes that its types lack, and no "
        "copies of thinned cells."
    ]
    default = None
    if model.encodes_covariates:
        default = model.covariates(cells.covariates).mean(axis=0)
        notes.append(
            "Its encoder takes covariates: the test cells lie where their own batch puts them, while a query is "
            "encoded with the reference's average, or fine-tuned (--surgery)."
        )
    return Placed(
        cells=cells,
        encoder=model.encoder(default),
        latent=as_stored(latent[rows]),
        source=np.arange(len(rows)),
        asked=latent[rows],
        genes=genes,
        notes=tuple(notes),
    )


def members_of(
    placed: Placed, codes: np.ndarray, n_labels: int, rows: np.ndarray, options: ScviOptions
) -> Members:
    """Trees and neighbours of some of the cells. codes: (n_cells,); rows: bool (n_cells,)."""
    own = np.flatnonzero(rows)
    taught, known = taught_cells(codes[own], n_labels, options.seed)
    inside = np.isin(placed.source, own[taught])
    source, latent = placed.source[inside], placed.latent[inside]
    trees = train_trees(latent, codes[source], n_labels, cpus=options.cpus, seed=options.seed)
    kept = np.isin(source, own[known])
    latent, source = latent[kept], source[kept]
    return Members(placed.encoder, trees, None, latent, source, codes[source], len(known), n_labels)


def hold_out(placed: Placed, codes: np.ndarray, names: list[str], options: ScviOptions) -> HeldOut:
    """Train trees and neighbours without each fold of batches in turn, and name its cells as a query's."""
    cells = placed.cells
    folds = folds_of(cells.batches, codes, seed=options.seed)
    parts: list[Part] = []
    unexpected = []
    fewer: dict[float, list[Part]] = {share: [] for share in placed.fewer_genes}
    for fold in range(folds.max() + 1):
        inside, held = folds != fold, np.flatnonzero(folds == fold)
        check_fold(codes, cells.batches, inside, held, names)
        held = tested_cells(held, options.seed)
        members = members_of(placed, codes, len(names), inside, options)
        parts.append((members.latent_probabilities(placed.asked[held]), held, False))
        if placed.altered is not None:
            parts.append((members.latent_probabilities(placed.altered[held]), held, True))
        unexpected.append(unexpected_shares(cells.counts, codes, len(names), np.flatnonzero(inside), held))
        for share, latent in placed.fewer_genes.items():
            fewer[share].append((members.latent_probabilities(latent[held]), held, False))
    return HeldOut.of(parts, unexpected, [], fewer, seen_elsewhere(codes, folds))


def test_members(
    placed: Placed, held: HeldOut, codes: np.ndarray, names: list[str], seed: int
) -> tuple[dict[str, Any], Evaluation]:
    """The calibration by held-out batches, marked as seen by the encoder, and what it scores."""
    calibration = fit_calibration(held, codes, placed.cells.batches, names)
    evaluation = score_classifiers(
        held,
        calibration,
        codes,
        placed.cells.batches,
        names,
        seed,
        held_from="from trees, neighbours and the weights of the pool, though not from the encoder",
    )
    return {name: fitted | {"seen_by": "encoder"} for name, fitted in calibration.items()}, evaluation


def labels_column(model: ScviModel, options: ScviOptions, file: Path) -> str:
    """The obs column of labels: that which was asked for, else the model's own. Raises InputError for neither."""
    label_key = options.test.label_key or model.column("labels")
    if not label_key:
        raise InputError(
            "the model was trained without labels, so that the column of labels must be named",
            "Give --label-key, an obs column of the reference.",
            file=file,
        )
    return label_key


def labels_of(model: ScviModel, cells: LabelledCells) -> tuple[list[str], bool, list[str]]:
    """The labels, whether SCANVI's own classifier is kept for them, and a sentence where it cannot be.

    It is kept where it knows all labels of the cells; then the labels are all that it knows.
    """
    names, own = cells.names, set(model.labels)
    if not own:
        return names, False, []
    if set(names) <= own:
        return sorted(own), True, []
    other = ", ".join(sorted(set(names) - own)[:5])
    note = f"{SCANVI_CLASS}'s own classifier was left out: it does not know the labels {other}."
    log(note)
    return names, False, [note]


def members_kept(keeps_scanvi: bool) -> list[dict[str, Any]]:
    """`members` of the manifest. keeps_scanvi: whether SCANVI's own classifier is one of them."""
    return [
        {"name": NEIGHBOURS, "parameters": {"k": N_NEIGHBOURS}},
        {"name": TREES, "parameters": {}},
        *([{"name": SCANVI, "parameters": {}}] if keeps_scanvi else []),
    ]


def write_members(
    folder: Path,
    model: ScviModel,
    placed: Placed,
    members: Members,
    names: list[str],
    *,
    keeps_scanvi: bool,
    seed: int,
) -> None:
    """Write what the model names cells by, and the markers of its labels, where there are counts to find them in."""
    cells = placed.cells
    placed.encoder.save(folder / "encoder.safetensors")
    members.trees.save_model(folder / "trees.ubj")
    reference_of(members, cells.batches, seed).save(folder / "reference.safetensors")
    if keeps_scanvi:
        model.classifier(names).save(folder / "scanvi.safetensors")
    if model.encodes_covariates:
        model.save(folder)
    if placed.counts is not None:
        markers = markers_of(placed.counts, placed.genes, cells.codes, cells.batches, cells.names)
        write_json({label: markers.get(label, []) for label in names}, folder / "markers.json")


def run_import_scvi(options: ScviOptions) -> Path:
    """Write a model folder from a saved SCVI or SCANVI model; returns it.

    Raises ModelFetchError for what is no such model, InputError for cells and options that cannot be used,
    ModelMismatchError where the cells' genes are not the model's.
    """
    own_name = (options.model.parent if options.model.is_file() else options.model).resolve().name
    name = options.name or own_name
    check_names(name, options.version, options.output)
    model, file, sha256 = read_scvi(options.model, trusted=options.trust_model_code)
    label_key = labels_column(model, options, file)
    placed = place_reference(model, options, name, label_key, file)
    cells = placed.cells
    names, keeps_scanvi, left_out = labels_of(model, cells)
    notes = [*([] if options.test.files else [SEEN_BY_ENCODER]), *placed.notes, *left_out]
    codes = np.array([names.index(label) for label in cells.labels])
    cl_ids, ontology = place_labels(names, options.cl_map)
    log(
        f"reference: {len(codes):,} cells, {len(names)} labels, {len(np.unique(cells.batches.astype(str)))} batches"
    )
    held = hold_out(placed, codes, names, options)
    calibration, evaluation = test_members(placed, held, codes, names, options.seed)
    if keeps_scanvi:
        calibration[SCANVI] = {"method": UNCALIBRATED, "weights": {SCANVI: 1.0}}
    members = members_of(placed, codes, len(names), np.ones(len(codes), dtype=bool), options)
    genes = _gene_table(placed, members)
    fields = manifest_fields(
        options,
        names,
        cl_ids,
        ontology,
        genes,
        cells,
        name=name,
        kind="scvi",
        organism=cells.organism,
        label_key=label_key,
        levels=lineage_levels(ontology, names, cl_ids),
        members=members_kept(keeps_scanvi),
        calibration=calibration,
        rejection=REJECTION
        | {"unexpected_share": unexpected_limit(held) if placed.counts is not None else 1.0},
        training={
            "batch_key": options.test.batch_key or model.column("batch"),
            "parameters": plain(model.options),
            "seed": options.seed,
        },
        source={
            "program": PROGRAM,
            "version": model.version,
            "file": f"{own_name}/{file.name}",
            "sha256": sha256,
            "details": {"Class": model.kind, "Batches in training": str(len(model.batches))},
            "notes": notes,
        },
        evaluation=evaluation.headline,
        libraries=("numpy", "scipy", "scikit-learn", "xgboost"),
    )
    with new_model(options.output) as folder:
        write_genes(folder, genes, silent_table(cells.genes, silent_genes(cells.counts, codes, len(names))))
        write_members(folder, model, placed, members, names, keeps_scanvi=keeps_scanvi, seed=options.seed)
        test = replace(options.test, label_key=label_key)
        fields, tested = calibrate(folder, fields, test, options.seed)
        sha256 = finish_model(folder, fields, ontology, tested or evaluation)
    log(
        f"model '{name} {options.version}' written to {options.output}: {len(names)} labels, {len(genes):,} genes, "
        + ("calibrated on test cells" if tested else "calibrated on cells that the encoder may have seen")
        + f" (sha256 {sha256[:12]})"
    )
    return options.output


def _gene_table(placed: Placed, members: Members) -> pd.DataFrame:
    """genes.tsv; without counts the genes' weights alone say how much each matters."""
    if placed.counts is not None:
        return gene_table(placed.genes, placed.counts, members)
    weight = np.abs(placed.encoder.weights[0]).sum(axis=1)
    return placed.genes.assign(mean=0.0, importance=(weight / max(weight.sum(), 1e-12)).round(7))
