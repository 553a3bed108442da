from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from small_model import barnyard
from tenx_files import GEX, IDS, SYMBOLS, barcodes, small_counts, write_folder, write_h5_v3

from cellscribe.convert import ConvertOptions, run_convert
from cellscribe.errors import InputError

COUNTS = small_counts()
KEYS = {
    "sample", "path", "source", "counts_from", "counts_recovered_from", "n_cells", "n_genes", "organism", "genomes",
    "genome_prefix_removed", "features", "called_cells", "cellranger_metrics", "notes", "warnings",
}  # fmt: skip


def convert(path: Path, out: Path, **options: Any) -> tuple[ad.AnnData, dict[str, Any]]:
    output, metrics = out / "S.counts.h5ad", out / "S.convert.json"
    run_convert(ConvertOptions(sample="S", input=path, output=output, metrics=metrics, **options))
    return ad.read_h5ad(output), json.loads(metrics.read_text())


def test_the_files_are_what_the_architecture_promises(tmp_path):
    data, report = convert(write_h5_v3(tmp_path / "m.h5", COUNTS), tmp_path, batch="b1")
    assert data.X.format == "csr"
    assert data.X.dtype == np.float32
    assert np.array_equal(data.X.toarray(), COUNTS)
    assert data.raw is None
    assert list(data.obs.columns) == ["sample", "batch"]
    assert set(data.obs["sample"]) == {"S"}
    assert set(data.obs["batch"]) == {"b1"}
    assert list(data.var_names) == SYMBOLS == list(data.var["gene_symbols"])
    assert list(data.var["gene_ids"]) == IDS
    assert data.uns["cellscribe"]["sample"] == "S"
    assert data.uns["cellscribe"]["organism"] == "human" == report["organism"]
    assert json.loads(data.uns["cellscribe"]["convert"]) == report
    assert set(report) == KEYS
    assert (report["n_cells"], report["n_genes"], report["counts_from"]) == (5, 6, "matrix")
    assert report["features"] == {GEX: 6}
    assert report["called_cells"] is None and report["counts_recovered_from"] == ""


def test_the_same_input_gives_the_same_counts_file(tmp_path):
    path = write_h5_v3(tmp_path / "m.h5", COUNTS)
    for folder in ("a", "b"):
        convert(path, tmp_path / folder)
    first, second = ((tmp_path / folder / "S.convert.json").read_bytes() for folder in ("a", "b"))
    assert first == second


def test_other_features_go_to_obsm_and_never_into_x(tmp_path):
    types = [GEX, "Antibody Capture", GEX, GEX, "CRISPR Guide Capture", GEX]
    genomes = ["GRCh38", "", "GRCh38", "GRCh38", "", "GRCh38"]
    path = write_h5_v3(tmp_path / "m.h5", COUNTS, types=types, genomes=genomes)
    data, report = convert(path, tmp_path)
    assert list(data.var_names) == [SYMBOLS[i] for i in (0, 2, 3, 5)]
    assert np.array_equal(data.obsm["antibody_capture"], COUNTS[:, [1]])
    assert data.obsm["antibody_capture"].dtype == np.float32
    assert list(data.uns["feature_names"]["antibody_capture"]) == [SYMBOLS[1]]
    assert list(data.uns["feature_names"]["crispr_guide_capture"]) == [SYMBOLS[4]]
    assert report["features"] == {GEX: 4, "Antibody Capture": 1, "CRISPR Guide Capture": 1}
    assert report["genomes"] == ["GRCh38"]


def test_without_gene_expression_there_is_nothing_to_name(tmp_path):
    path = write_h5_v3(tmp_path / "m.h5", COUNTS, types=["Antibody Capture"] * 6)
    with pytest.raises(InputError, match="no Gene Expression features; there are 6 Antibody Capture"):
        convert(path, tmp_path)


def test_what_it_wrote_itself_is_read_again_whole(tmp_path):
    types = ["Gene Expression", "Antibody Capture", *["Gene Expression"] * 4]
    first, _ = convert(write_h5_v3(tmp_path / "m.h5", COUNTS, types=types), tmp_path)
    first.write_h5ad(tmp_path / "again.h5ad")
    second, _ = convert(tmp_path / "again.h5ad", tmp_path)
    assert np.array_equal(second.obsm["antibody_capture"], first.obsm["antibody_capture"])
    assert list(second.uns["feature_names"]["antibody_capture"]) == [SYMBOLS[1]]


def two_genomes(tmp_path: Path, genomes: list[str] | None = None) -> Path:
    counts = np.zeros((4, 7), dtype=int)
    counts[:3, :3] = 9
    counts[3, 3:6] = 5
    counts[0, 3] = 1
    counts[:, 6] = 2
    ids = [f"GRCh38_{i}" for i in IDS[:3]] + [f"mm10___ENSMUSG0000000000{i}" for i in range(3)] + ["CD3"]
    symbols = [f"GRCh38_{s}" for s in SYMBOLS[:3]] + [
        "mm10___Cd3e",
        "mm10___Lyz2",
        "mm10___Hbb-bs",
        "CD3_TotalSeqB",
    ]
    types = [GEX] * 6 + ["Antibody Capture"]
    return write_h5_v3(
        tmp_path / "two.h5", counts, ids, symbols, types, genomes or ["GRCh38"] * 3 + ["mm10"] * 3 + [""]
    )


@pytest.mark.parametrize("none", [None, ""])
def test_several_genomes_are_named_with_their_cells_and_counts(tmp_path, none):
    with pytest.raises(InputError, match=r"(?s)GRCh38: 3 cells.* 81 counts.*mm10: 1 cells.* 16 counts"):
        convert(two_genomes(tmp_path), tmp_path, genome=none)


@pytest.mark.parametrize("named", [True, False], ids=["named", "by prefix alone"])
def test_a_chosen_genome_is_read_alone_and_without_its_prefix(tmp_path, named):
    path = two_genomes(tmp_path, None if named else [""] * 7)
    data, report = convert(path, tmp_path, genome="mm10")
    assert list(data.var_names) == ["Cd3e", "Lyz2", "Hbb-bs"]
    assert data.var["gene_ids"].iloc[0] == "ENSMUSG00000000000"
    assert (data.n_obs, report["organism"], report["genomes"]) == (1, "mouse", ["mm10"])
    assert report["genome_prefix_removed"] == "mm10"
    assert data.obsm["antibody_capture"].tolist() == [[2.0]]
    assert any("3 cells with most counts on another genome" in note for note in report["notes"])


@pytest.mark.parametrize("named", ["by ids", "by symbols"])
def test_cells_of_two_organisms_in_one_matrix_are_refused_unless_one_is_chosen(tmp_path, named):
    cells = barnyard()
    if named == "by symbols":
        ribosome = [f"{stem}{i}" for stem in ("RPL", "Rpl") for i in range(4, 24)]
        cells.var_names = [*ribosome[:20], *cells.var_names[20:-20], *ribosome[20:]]
        cells.var = cells.var[[]]
    cells.write_h5ad(tmp_path / "both.h5ad")
    seen = r"(?s)genes of 2 genomes:\n  human: 30 cells.*\n  mouse: 30 cells.*--genome human"
    with pytest.raises(InputError, match=seen):
        convert(tmp_path / "both.h5ad", tmp_path)
    data, report = convert(tmp_path / "both.h5ad", tmp_path, genome="mouse")
    assert (data.n_obs, report["organism"], report["genomes"]) == (30, "mouse", ["mouse"])
    assert 390 <= data.n_vars <= 400 and all(name.startswith("M") for name in data.obs_names)


def test_filtered_cells_of_another_species_are_not_taken_for_empty_droplets(tmp_path):
    """Of 600 mouse and 400 human cells, none is lost though the mouse cells hold hardly a human count."""
    human = np.hstack([np.full((400, 3), 500), np.full((400, 3), 2)])
    mouse = np.hstack([np.full((600, 3), 2), np.full((600, 3), 500)])
    symbols = ["CD3D", "MS4A1", "NKG7", "Cd3d", "Ms4a1", "Nkg7"]
    path = write_h5_v3(
        tmp_path / "two.h5",
        np.vstack([mouse, human]),
        IDS[:3] + [name.replace("ENSG", "ENSMUSG") for name in IDS[3:]],
        symbols,
        [GEX] * 6,
        ["GRCh38"] * 3 + ["mm10"] * 3,
    )
    data, report = convert(path, tmp_path, genome="GRCh38")
    assert (data.n_obs, report["called_cells"]) == (400, None)


@pytest.mark.parametrize("named", [True, False])
def test_a_genome_is_chosen_by_its_organism_too(tmp_path, named):
    path = two_genomes(tmp_path, None if named else [""] * 7)
    data, report = convert(path, tmp_path, genome="mouse")
    assert (data.n_obs, report["genomes"]) == (1, ["mm10"])
    alone = write_h5_v3(tmp_path / "one.h5", COUNTS, genomes=["GRCh38_chr21"] * 6)
    assert convert(alone, tmp_path, genome="human")[1]["genomes"] == ["GRCh38_chr21"]
    with pytest.raises(InputError, match="no genome 'mouse'; there is GRCh38_chr21"):
        convert(alone, tmp_path, genome="mouse")


def test_droplets_without_a_count_on_the_chosen_genome_are_told_of(tmp_path):
    """A run of human cells alone on a reference of two species, unfiltered."""
    rng = np.random.default_rng(0)
    human = np.vstack([rng.integers(100, 300, (60, 3)), rng.integers(0, 2, (3000, 3))])
    counts = np.hstack([human, np.zeros_like(human)])
    path = write_h5_v3(
        tmp_path / "two.h5",
        counts,
        IDS[:3] + [name.replace("ENSG", "ENSMUSG") for name in IDS[3:]],
        ["CD3D", "MS4A1", "NKG7", "Cd3d", "Ms4a1", "Nkg7"],
        [GEX] * 6,
        ["GRCh38"] * 3 + ["mm10"] * 3,
    )
    with pytest.raises(InputError, match="no cell has counts on the genes of 'mm10'"):
        convert(path, tmp_path, genome="mm10")


def test_an_unknown_genome_is_refused(tmp_path):
    with pytest.raises(InputError, match="no genome 'rn6'"):
        convert(two_genomes(tmp_path), tmp_path, genome="rn6")
    with pytest.raises(InputError, match="no genome 'rn6'; there is GRCh38"):
        convert(write_h5_v3(tmp_path / "one.h5", COUNTS), tmp_path, genome="rn6")


def test_a_wrong_organism_is_refused(tmp_path):
    path = write_h5_v3(tmp_path / "m.h5", COUNTS)
    assert convert(path, tmp_path, organism="Homo sapiens")[1]["organism"] == "human"
    with pytest.raises(InputError, match="given as mouse, but the data look like human"):
        convert(path, tmp_path, organism="mouse")


def test_unknown_genes_are_a_warning(tmp_path):
    path = write_h5_v3(tmp_path / "m.h5", COUNTS, ids=[f"gene{i}" for i in range(6)], symbols=list("abcdef"))
    _, report = convert(path, tmp_path)
    assert report["organism"] == "unknown"
    assert any("unknown" in warning for warning in report["warnings"])


def test_repeated_barcodes_are_made_unique_with_a_warning(tmp_path):
    path = write_h5_v3(tmp_path / "m.h5", COUNTS, names=["A-1", "A-1", "B-1", "C-1", "D-1"])
    data, report = convert(path, tmp_path)
    assert data.obs_names.is_unique
    assert any("1 barcodes occur more than once" in warning for warning in report["warnings"])


@pytest.mark.parametrize("shape", [(0, 6), (5, 0), (5, 6)])
def test_an_empty_matrix_is_refused_with_its_size(tmp_path, shape):
    n_cells, n_genes = shape
    path = write_h5_v3(tmp_path / "m.h5", np.zeros(shape), IDS[:n_genes], SYMBOLS[:n_genes])
    with pytest.raises(InputError, match=f"empty: {n_cells} cells, {n_genes} features"):
        convert(path, tmp_path)


def test_one_cell_is_enough(tmp_path):
    data, _ = convert(write_folder(tmp_path / "filtered_feature_bc_matrix", COUNTS[:1]), tmp_path)
    assert data.shape == (1, 6)


def unfiltered(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    counts = sp.vstack([sp.csr_matrix(rng.poisson(300, (50, 6))), sp.csr_matrix(rng.poisson(0.3, (3000, 6)))])
    return write_h5_v3(tmp_path / "raw_feature_bc_matrix.h5", counts.tocsr())


def test_an_unfiltered_matrix_has_its_cells_called(tmp_path):
    data, report = convert(unfiltered(tmp_path), tmp_path, seed=1)
    assert data.n_obs == 50 == report["n_cells"]
    assert set(report["called_cells"]) == {
        "method",
        "n_droplets",
        "n_cells",
        "lower",
        "retain",
        "fdr",
        "n_undecided",
    }
    assert (report["called_cells"]["n_droplets"], report["called_cells"]["n_cells"]) == (3050, 50)


def test_every_barcode_of_an_unfiltered_matrix_is_a_cell_where_the_user_says_so(tmp_path):
    data, report = convert(unfiltered(tmp_path), tmp_path, call_cells="false")
    assert data.n_obs == 3050
    assert report["called_cells"] is None
    assert any("most of them empty (3,050 barcodes" in warning for warning in report["warnings"])


def test_cells_are_called_where_that_is_forced(tmp_path):
    counts = np.vstack([np.full((3, 6), 400), np.full((300, 6), 1)])
    path = write_h5_v3(tmp_path / "m.h5", counts)
    assert convert(path, tmp_path)[0].n_obs == 303
    assert convert(path, tmp_path, call_cells="true")[0].n_obs == 3


def test_an_h5ad_keeps_its_columns_and_embeddings_but_neither_raw_nor_layers(tmp_path):
    data = ad.AnnData(
        np.log1p(COUNTS).astype(np.float32),
        obs=pd.DataFrame(
            {"donor": pd.Categorical(list("aabbc")), "batch": list("vwxyz"), "n/a": 1, "doublet_score": 0.5},
            barcodes(5),
        ),
        var=pd.DataFrame({"gene_ids": [f"{i}.3" for i in IDS], "means": np.arange(6.0)}, SYMBOLS),
        layers={"counts": sp.csc_matrix(COUNTS)},
        obsm={"X_umap": np.zeros((5, 2), dtype=np.float32)},
        uns={"log1p": {"base": None}},
    )
    data.obs["passed"] = pd.array([True, None, True, True, True], dtype="boolean")
    data.raw = data
    # Older versions of anndata let such names pass.
    with ad.settings.override(disallow_forward_slash_in_h5ad=False):
        data.write_h5ad(tmp_path / "in.h5ad")
    out, report = convert(tmp_path / "in.h5ad", tmp_path)
    assert report["counts_from"] == "layers/counts"
    assert np.array_equal(out.X.toarray(), COUNTS)
    assert out.raw is None
    assert "counts" not in out.layers
    assert list(out.obsm) == ["X_umap"]
    assert list(out.obs["donor"]) == list("aabbc")
    assert list(out.obs["input_batch"]) == list("vwxyz")
    assert list(out.obs["input_doublet_score"]) == [0.5] * 5
    assert set(out.obs["batch"]) == {"S"}
    assert "n_a" in out.obs
    assert list(out.var["means"]) == list(range(6))
    assert list(out.var["gene_ids"]) == IDS
    assert set(out.uns) == {"cellscribe"}


def test_an_h5ad_by_ids_gets_symbols_as_names(tmp_path):
    data = ad.AnnData(sp.csr_matrix(COUNTS), var=pd.DataFrame({"feature_name": SYMBOLS}, IDS))
    data.obs_names = barcodes(5)
    data.write_h5ad(tmp_path / "in.h5ad")
    out, _ = convert(tmp_path / "in.h5ad", tmp_path)
    assert list(out.var_names) == SYMBOLS
    assert list(out.var["gene_ids"]) == IDS


def test_the_gene_column_names_the_genes(tmp_path):
    data = ad.AnnData(sp.csr_matrix(COUNTS), var=pd.DataFrame({"mine": SYMBOLS}, [f"x{i}" for i in range(6)]))
    data.obs_names = barcodes(5)
    data.write_h5ad(tmp_path / "in.h5ad")
    assert list(convert(tmp_path / "in.h5ad", tmp_path, gene_column="mine")[0].var_names) == SYMBOLS
    with pytest.raises(InputError, match="no column 'yours'; there are: index, mine"):
        convert(tmp_path / "in.h5ad", tmp_path, gene_column="yours")


def test_the_output_holds_plain_strings_for_older_readers(tmp_path):
    convert(write_h5_v3(tmp_path / "m.h5", COUNTS), tmp_path)
    with h5py.File(tmp_path / "S.counts.h5ad") as file:
        for name in ("obs/_index", "var/_index", "var/gene_ids"):
            assert file[name].attrs["encoding-type"] == "string-array"


@pytest.mark.parametrize(
    ("place", "shape", "organism", "prefix"),
    [
        ("cellranger/pbmc_cellranger_1.3", (4122, 33694), "human", ""),
        ("cellranger/eccite_adt_hto", (500, 19521), "human", "hg19"),
        ("cellranger/eccite_adt_hto/filtered_feature_bc_matrix", (500, 19521), "human", "hg19"),
        ("cellranger/scanpy_10x_fixtures/10x_data/1.2.0", (12, 343), "human", ""),
        ("cellranger/scanpy_10x_fixtures/10x_data/int-ids", (5, 6), "mouse", ""),
        ("cellranger/scvi_citeseq_10k_protein_v3", (1024, 100), "human", ""),
        ("cellranger/r_chromium_cr2_cr3_outs/cellranger_v3", (100, 100), "human", ""),
        ("cellranger/soupx_toy_v2_raw_filtered", (62, 226), "human", ""),
        ("labelled/actinn_mouse_immune_1000.h5ad", (1000, 14063), "mouse", ""),
        ("labelled/pbmc3k_labelled.h5ad", (2700, 32738), "human", ""),
    ],
)
def test_real_input_is_converted_with_the_right_organism(
    shared_data, tmp_path, place, shape, organism, prefix
):
    data, report = convert(shared_data / place, tmp_path)
    assert data.shape == shape
    assert (report["organism"], report["genome_prefix_removed"]) == (organism, prefix)
    assert report["called_cells"] is None
    assert data.var_names.is_unique
    assert not data.var_names.str.startswith("hg19_").any()
    assert (data.X.data == np.rint(data.X.data)).all()


def test_real_multiple_genomes_need_a_choice(shared_data, tmp_path):
    path = shared_data / "cellranger/scanpy_10x_fixtures/10x_data/1.2.0/multiple_genomes.h5"
    with pytest.raises(
        InputError, match=r"(?s)another_genome: 12 cells, 13 counts.*hg19_chr21: 12 cells, 12 counts"
    ):
        convert(path, tmp_path)
    assert convert(path, tmp_path, genome="hg19_chr21")[0].shape == (12, 343)
