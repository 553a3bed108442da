from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from tenx_files import IDS, SYMBOLS, small_counts, whole, write_folder, write_h5_v2, write_h5_v3

from cellscribe.counts import Counts
from cellscribe.errors import InputError
from cellscribe.tenx import read_tenx
from cellscribe.tenx_metrics import read_metrics
from cellscribe.tenx_places import find_input

COUNTS = small_counts()


def read(path: Path, genome: str | None = None) -> Counts:
    return read_tenx(find_input(path), genome)


def holds_the_counts(counts: Counts) -> bool:
    return (
        np.array_equal(whole(counts.matrix).toarray(), COUNTS)
        and whole(counts.matrix).dtype == np.float32
        and list(counts.var.index) == SYMBOLS
        and list(counts.var["gene_ids"]) == IDS
    )


@pytest.mark.parametrize(
    ("place", "version", "compress"),
    [
        ("filtered_feature_bc_matrix", 3, True),
        ("filtered_feature_bc_matrix", 3, False),
        ("filtered_gene_bc_matrices/GRCh38", 2, False),
        ("filtered_gene_bc_matrices/GRCh38", 2, True),
        ("count/sample_filtered_feature_bc_matrix", 3, True),
    ],
)
@pytest.mark.parametrize("above", ["", "outs", "run1/outs"])
def test_matrix_folders_of_every_version_are_found_and_read(tmp_path, place, version, compress, above):
    write_folder(tmp_path / above / place, COUNTS, version=version, compress=compress)
    counts = read(tmp_path)
    assert holds_the_counts(counts)
    assert counts.source == f"10x_mtx_v{version}"
    assert not counts.named_raw


@pytest.mark.parametrize(
    "place",
    [
        "filtered_feature_bc_matrix.h5",
        "outs/filtered_feature_bc_matrix.h5",
        "per_sample_outs/one/count/sample_filtered_feature_bc_matrix.h5",
        "outs/per_sample_outs/one/count/sample_filtered_feature_bc_matrix.h5",
        "outs/multi/per_sample_outs/one/sample_filtered_feature_bc_matrix.h5",
        "5k_pbmc_filtered_feature_bc_matrix.h5",
    ],
)
def test_h5_files_are_found_wherever_cell_ranger_puts_them(tmp_path, place):
    write_h5_v3(tmp_path / place, COUNTS)
    counts = read(tmp_path)
    assert holds_the_counts(counts)
    assert counts.source == "10x_h5_v3"
    assert any(Path(place).name in note for note in counts.notes) or "per_sample" in place


def test_a_v2_h5_is_read_with_its_genome(tmp_path):
    counts = read(write_h5_v2(tmp_path / "filtered_gene_bc_matrices_h5.h5", {"hg19": COUNTS}))
    assert holds_the_counts(counts)
    assert (counts.source, set(counts.genomes)) == ("10x_h5_v2", {"hg19"})


def test_h5_is_preferred_to_mtx_and_filtered_to_raw(tmp_path):
    write_h5_v3(tmp_path / "filtered_feature_bc_matrix.h5", COUNTS)
    write_folder(tmp_path / "filtered_feature_bc_matrix", COUNTS + 1)
    write_h5_v3(tmp_path / "raw_feature_bc_matrix.h5", COUNTS + 2)
    assert holds_the_counts(read(tmp_path))
    (tmp_path / "filtered_feature_bc_matrix.h5").unlink()
    assert read(tmp_path).source == "10x_mtx_v3"
    shutil.rmtree(tmp_path / "filtered_feature_bc_matrix")
    assert read(tmp_path).named_raw


def test_several_samples_of_a_multi_run_are_listed(tmp_path):
    for sample in ("donor_a", "donor_b"):
        write_h5_v3(
            tmp_path / f"outs/per_sample_outs/{sample}/count/sample_filtered_feature_bc_matrix.h5", COUNTS
        )
    write_h5_v3(tmp_path / "outs/multi/count/raw_feature_bc_matrix.h5", COUNTS)
    with pytest.raises(InputError, match=r"(?s)2 samples.*donor_a.*donor_b") as caught:
        read(tmp_path)
    assert "its own row" in str(caught.value)
    assert holds_the_counts(read(tmp_path / "outs/per_sample_outs/donor_b"))


def test_several_runs_in_one_folder_are_listed(tmp_path):
    for run in ("a", "b"):
        write_h5_v3(tmp_path / run / "outs/filtered_feature_bc_matrix.h5", COUNTS)
    with pytest.raises(InputError, match=r"(?s)2 samples.*/a/outs.*/b/outs"):
        read(tmp_path)


def test_junk_files_are_ignored(tmp_path):
    folder = write_folder(tmp_path / "filtered_feature_bc_matrix", COUNTS)
    for name in ("._matrix.mtx.gz", "._features.tsv.gz", ".DS_Store"):
        (folder / name).write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "._filtered_feature_bc_matrix.h5").write_bytes(b"junk")
    assert holds_the_counts(read(tmp_path))
    assert holds_the_counts(read(folder))


def test_files_with_a_prefix_are_read_but_not_those_of_two_samples(tmp_path):
    write_folder(tmp_path, COUNTS, prefix="GSM1_a_")
    assert holds_the_counts(read(tmp_path))
    write_folder(tmp_path, COUNTS, prefix="GSM2_b_")
    with pytest.raises(InputError, match=r"GSM1_a_.*GSM2_b_"):
        read(tmp_path)


def test_quoted_fields_and_names_that_look_missing_are_read_as_they_are(tmp_path):
    symbols = ["NA", "nan", *SYMBOLS[2:]]
    counts = read(write_folder(tmp_path, COUNTS, quote='"', symbols=symbols))
    assert list(counts.var.index) == symbols
    assert list(counts.var["gene_ids"]) == IDS


def test_two_genomes_of_version_2_are_an_error_until_one_is_chosen(tmp_path):
    path = write_h5_v2(tmp_path / "m.h5", {"hg19": COUNTS, "mm10": COUNTS[:2]})
    with pytest.raises(InputError, match=rf"(?s)hg19: 5 cells, {COUNTS.sum()} counts.*mm10: 2 cells"):
        read(path)
    assert read(path, "mm10").matrix.shape == (2, 6)
    with pytest.raises(InputError, match="no genome 'rn6'"):
        read(path, "rn6")


def test_two_genome_folders_of_version_2_are_an_error_until_one_is_chosen(tmp_path):
    for genome in ("hg19", "mm10"):
        write_folder(tmp_path / "outs/filtered_gene_bc_matrices" / genome, COUNTS, version=2, compress=False)
    with pytest.raises(InputError, match=r"(?s)2 genomes.*hg19: 5 cells.*mm10: 5 cells"):
        read(tmp_path)
    assert set(read(tmp_path, "mm10").genomes) == {"mm10"}


def test_a_truncated_gz_is_named(tmp_path):
    folder = write_folder(tmp_path, small_counts(200))
    whole = (folder / "matrix.mtx.gz").read_bytes()
    (folder / "matrix.mtx.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"matrix.mtx.gz.*cut short"):
        read(folder)


def test_a_truncated_h5_is_named(tmp_path):
    path = write_h5_v3(tmp_path / "cut.h5", small_counts(2000))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"cut.h5.*cut short"):
        read(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    path.write_text("gene,cell\n")
    with pytest.raises(InputError, match=r"no HDF5 file \(10 bytes\)"):
        read(path)


def test_names_that_do_not_fit_the_matrix_are_counted(tmp_path):
    folder = write_folder(tmp_path, COUNTS, compress=False)
    (folder / "barcodes.tsv").write_text("AAAC-1\nAAAG-1\n")
    with pytest.raises(
        InputError, match="6 features and 5 cells, but there are 6 feature names and 2 barcodes"
    ):
        read(folder)


def test_a_missing_file_is_named_with_what_is_there(tmp_path):
    folder = write_folder(tmp_path, COUNTS)
    (folder / "barcodes.tsv.gz").unlink()
    with pytest.raises(InputError, match=r"barcodes.tsv .*is missing; the folder holds features.tsv.gz"):
        read(folder)


def test_a_folder_without_a_matrix_says_what_it_holds(tmp_path):
    (tmp_path / "fastqs").mkdir()
    with pytest.raises(InputError, match=r"no Cell Ranger matrix.*it holds fastqs"):
        read(tmp_path)


OTHER_PROGRAMS = [
    ("Solo.out/Gene/filtered/matrix.mtx", "STARsolo", "Gene/filtered"),
    ("Gene/raw/matrix.mtx.gz", "STARsolo", "Gene/raw"),
    ("counts_unfiltered/cells_x_genes.mtx", "kb", "`kb count` with --h5ad"),
    ("cells_x_genes.total.mtx", "kb", "`kb count` with --h5ad"),
    ("alevin/quants_mat.mtx", "alevin-fry", "pyroe convert"),
    ("alevin/quants_mat.gz", "alevin-fry", "pyroe convert"),
    ("s1_filtered.h5", "CellBender", "s1_filtered.h5."),
]


@pytest.mark.parametrize(("place", "program", "says"), OTHER_PROGRAMS)
@pytest.mark.parametrize("above", ["", "run/"])
def test_folders_of_other_programs_are_told_by_what_they_hold(tmp_path, above, place, program, says):
    (tmp_path / above / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / above / place).write_bytes(b"x")
    with pytest.raises(InputError, match="no Cell Ranger matrix") as caught:
        find_input(tmp_path)
    assert f"output of {program}: " in caught.value.todo and says in caught.value.todo


def test_of_starsolo_the_folders_of_cells_are_named_and_read(tmp_path):
    for place in ("Gene/raw", "Gene/filtered", "GeneFull/filtered", "Velocyto/filtered"):
        write_folder(tmp_path / "aSolo.out" / place, COUNTS, compress=False)
    for given, below in ((tmp_path, "aSolo.out/"), (tmp_path / "aSolo.out", "")):
        with pytest.raises(InputError, match="no Cell Ranger matrix") as caught:
            find_input(given)
        assert (
            f"give the folder of one matrix, {below}Gene/filtered, {below}GeneFull/filtered ("
            in caught.value.todo
        )
    with pytest.raises(InputError, match="no Cell Ranger matrix") as caught:
        find_input(tmp_path / "aSolo.out" / "Gene")
    assert "one matrix, filtered (" in caught.value.todo
    assert holds_the_counts(read(tmp_path / "aSolo.out/Gene/filtered"))


@pytest.mark.parametrize(
    ("there", "named"),
    [
        (["counts_unfiltered/adata.h5ad"], "counts_unfiltered/adata.h5ad"),
        (["counts_unfiltered/adata.h5ad", "counts_filtered/adata.h5ad"], "counts_filtered/adata.h5ad"),
        (["counts_unfiltered/cellranger/matrix.mtx"], "counts_unfiltered/cellranger"),
        (["counts_filtered/cellranger/matrix.mtx"], "counts_filtered/cellranger"),
    ],
)
def test_of_kb_what_can_be_read_is_named(tmp_path, there, named):
    for name in ("counts_unfiltered/cells_x_genes.mtx", *there):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        find_input(tmp_path)
    assert f"output of kb: give {named}," in caught.value.todo


def test_an_h5ad_of_simpleaf_is_named(tmp_path):
    (tmp_path / "alevin").mkdir()
    for name in ("quants_mat.mtx", "quants.h5ad"):
        (tmp_path / "alevin" / name).write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        find_input(tmp_path)
    assert "give alevin/quants.h5ad" in caught.value.todo


@pytest.mark.parametrize("feature", [99, -1])
def test_parts_that_disagree_inside_an_h5_are_refused(tmp_path, feature):
    path = write_h5_v3(tmp_path / "m.h5", COUNTS)
    with h5py.File(path, "a") as file:
        indices = file["matrix/indices"]
        indices[0] = feature
    with pytest.raises(InputError, match=f"feature {feature}, but there are 6"):
        read(path)


def test_a_matrix_of_fractions_is_refused(tmp_path):
    folder = write_folder(tmp_path, np.log1p(COUNTS))
    with pytest.raises(InputError, match="log1p-normalised"):
        read(folder)


def test_metrics_of_count_are_read_as_numbers(tmp_path):
    path = tmp_path / "metrics_summary.csv"
    path.write_text(
        'Estimated Number of Cells,Mean Reads per Cell,Valid Barcodes,Sample\n"4,122",24,98.0%,x\n'
    )
    assert read_metrics(path) == {
        "Estimated Number of Cells": 4122,
        "Mean Reads per Cell": 24,
        "Valid Barcodes": 0.98,
        "Sample": "x",
    }


def test_metrics_of_multi_keep_their_category(tmp_path):
    path = tmp_path / "metrics_summary.csv"
    path.write_text(
        "Category,Library Type,Grouped By,Group Name,Metric Name,Metric Value\n"
        'Cells,Gene Expression,,,Cells,"5,100"\n'
        "Library,Gene Expression,Fastq ID,lane1,Number of reads,10\n"
        "Library,Antibody Capture,,,Confidently mapped,97.25%\n"
    )
    assert read_metrics(path) == {
        "Cells / Gene Expression / Cells": 5100,
        "Library / Gene Expression / Number of reads / lane1": 10,
        "Library / Antibody Capture / Confidently mapped": 0.9725,
    }


def test_metrics_are_found_beside_the_matrix(tmp_path):
    write_h5_v3(tmp_path / "outs/filtered_feature_bc_matrix.h5", COUNTS)
    (tmp_path / "outs/metrics_summary.csv").write_text('Estimated Number of Cells\n"5"\n')
    for path in (tmp_path, tmp_path / "outs/filtered_feature_bc_matrix.h5"):
        assert read(path).metrics == {"Estimated Number of Cells": 5}


TABLE = [
    ("pbmc_cellranger_1.3", 4122, {"Gene Expression": 33694}, "10x_h5_v2"),
    ("pbmc_cellranger_1.3/outs/filtered_gene_bc_matrices", 4122, {"Gene Expression": 33694}, "10x_mtx_v2"),
    ("pbmc4k", 2170, {"Gene Expression": 33694}, "10x_h5_v3"),
    ("pbmc4k/raw_feature_bc_matrix_SEMISYNTHETIC.h5", 32170, {"Gene Expression": 33694}, "10x_h5_v3"),
    ("pbmc_unfiltered_droplets", 100000, {"Gene Expression": 5000}, "10x_h5_v3"),
    ("eccite_adt_hto", 500, {"Gene Expression": 19521, "Antibody Capture": 53}, "10x_h5_v3"),
    (
        "eccite_adt_hto/filtered_feature_bc_matrix",
        500,
        {"Gene Expression": 19521, "Antibody Capture": 53},
        "10x_mtx_v3",
    ),
    ("scvi_citeseq_10k_protein_v3", 1024, {"Gene Expression": 100, "Antibody Capture": 17}, "10x_mtx_v3"),
    ("scanpy_10x_fixtures/10x_data/1.2.0", 12, {"Gene Expression": 343}, "10x_h5_v2"),
    ("scanpy_10x_fixtures/10x_data/3.0.0", 1107, {"Gene Expression": 507}, "10x_h5_v3"),
    (
        "scanpy_10x_fixtures/10x_data/3.0.0/filtered_feature_bc_matrix",
        1107,
        {"Gene Expression": 507},
        "10x_mtx_v3",
    ),
    ("scanpy_10x_fixtures/10x_data/int-ids", 5, {"Gene Expression": 6}, "10x_mtx_v3"),
    ("r_chromium_cr2_cr3_outs/cellranger_v2", 100, {"Gene Expression": 100}, "10x_mtx_v2"),
    ("r_chromium_cr2_cr3_outs/cellranger_v3/pbmc", 100, {"Gene Expression": 100}, "10x_mtx_v3"),
    ("soupx_toy_v2_raw_filtered", 62, {"Gene Expression": 226}, "10x_mtx_v2"),
    ("soupx_toy_v2_raw_filtered/raw_gene_bc_matrices", 1289, {"Gene Expression": 226}, "10x_mtx_v2"),
]


@pytest.mark.parametrize(("folder", "n_cells", "features", "source"), TABLE, ids=[row[0] for row in TABLE])
def test_every_real_folder_is_read_whole(shared_data, folder, n_cells, features, source):
    counts = read(shared_data / "cellranger" / folder)
    kinds, numbers = np.unique(counts.feature_types.astype(str), return_counts=True)
    assert dict(zip(kinds.tolist(), numbers.tolist(), strict=True)) == features
    assert counts.matrix.shape == (n_cells, sum(features.values()))
    assert counts.source == source
    assert whole(counts.matrix).sum() > 0


def test_h5_and_folder_of_a_real_run_hold_the_same(shared_data):
    outs = shared_data / "cellranger/pbmc_cellranger_1.3/outs"
    h5, mtx = read(outs), read(outs / "filtered_gene_bc_matrices")
    assert (whole(h5.matrix) != whole(mtx.matrix)).nnz == 0
    assert h5.obs.index.equals(mtx.obs.index)
    assert h5.var.equals(mtx.var)
    assert h5.metrics == mtx.metrics
    assert h5.metrics["Estimated Number of Cells"] == 4122
    assert h5.metrics["Valid Barcodes"] == 0.98


def test_real_names_of_another_run_are_refused(shared_data):
    with pytest.raises(
        InputError,
        match="117 features and 1,024 cells, but there are 118 feature names and more than 1,024",
    ):
        read(shared_data / "cellranger/scvi_citeseq_10k_protein_v3/old")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("%%MatrixMarket matrix coordinate pattern general\n6 5 1\n1 1\n", "pattern general"),
        ("%%MatrixMarket matrix coordinate real hermitian\n6 5 1\n1 1 1\n", "real hermitian"),
        ("%%MatrixMarket matrix array integer general\n6 5\n1\n", "no sparse"),
        ("%%MatrixMarket matrix coordinate integer general\n6 5 1\n1 1 1 1\n", "cut short or damaged"),
        ("%%MatrixMarket matrix coordinate integer general\n6 5 1\n7 1 1\n", "not from 1 to 6"),
        ("%%MatrixMarket matrix coordinate integer general\n6 5 1\n0 1 1\n", "not from 1 to 6"),
        ("%%MatrixMarket matrix coordinate integer general\n6 5 99999\n1 1 1\n", "says that it holds 99,999"),
        ("%%MatrixMarket matrix coordinate integer general\n6 5\n", "sizes are not there"),
        ("%%MatrixMarket matrix coordinate integer general\n6 5 -1\n", "sizes are not there"),
        ("%%MatrixMarket\n", "first line"),
        ("", "first line"),
    ],
)
def test_a_matrix_mtx_that_is_none_is_told_by_what_is_wrong(tmp_path, head, words):
    folder = write_folder(tmp_path / "m", COUNTS, compress=False)
    (folder / "matrix.mtx").write_text(head)
    with pytest.raises(InputError, match=words):
        read(folder)
