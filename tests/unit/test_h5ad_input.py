from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tenx_files import IDS, SYMBOLS, barcodes, small_counts

from cellscribe.counts import Counts
from cellscribe.errors import InputError
from cellscribe.feature_kinds import ANTIBODY_NAME, TYPE_COLUMNS
from cellscribe.genes import GENE_SETS
from cellscribe.h5ad_input import read_h5ad

COUNTS = small_counts(8)
# Corrected by gene first, so that no counts can be recovered.
LOGGED = np.log1p(COUNTS * np.linspace(0.8, 1.3, 6)).astype(np.float32)
SCALED = ((COUNTS - COUNTS.mean(0)) / COUNTS.std(0)).astype(np.float32)


def adata(x, **kwargs) -> ad.AnnData:
    n = x.shape[0]
    return ad.AnnData(
        x,
        obs=pd.DataFrame({"donor": ["a"] * n}, index=barcodes(n)),
        var=pd.DataFrame({"gene_ids": IDS}, index=SYMBOLS),
        **kwargs,
    )


def written(tmp_path, data: ad.AnnData):
    path = tmp_path / "in.h5ad"
    data.write_h5ad(path)
    return path


@pytest.mark.parametrize(
    "kind",
    [sp.csr_matrix, sp.csc_matrix, np.asarray],
    ids=["csr", "csc", "dense"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint16"])
def test_counts_in_x_are_read_in_any_form(tmp_path, kind, dtype):
    counts = read_h5ad(written(tmp_path, adata(kind(COUNTS.astype(dtype)))))
    assert counts.counts_from == "X"
    assert np.array_equal(counts.matrix.toarray(), COUNTS)
    assert counts.matrix.dtype == np.float32
    assert counts.matrix.format == "csr"
    assert list(counts.obs["donor"]) == ["a"] * 8


def with_raw(x, raw) -> ad.AnnData:
    data = adata(sp.csr_matrix(x))
    data.raw = adata(sp.csr_matrix(raw))
    return data


def test_raw_is_looked_at_before_x(tmp_path):
    counts = read_h5ad(written(tmp_path, with_raw(COUNTS + 1, COUNTS)))
    assert counts.counts_from == "raw.X"
    assert np.array_equal(counts.matrix.toarray(), COUNTS)


def test_x_is_used_where_raw_holds_no_counts_and_that_is_said(tmp_path):
    counts = read_h5ad(written(tmp_path, with_raw(COUNTS, LOGGED)))
    assert counts.counts_from == "X"
    assert any("raw.X was passed over" in note and "log1p" in note for note in counts.notes)


def test_raw_with_more_genes_than_x_brings_its_own_genes(tmp_path):
    data = with_raw(LOGGED, COUNTS)[:, :3].copy()
    counts = read_h5ad(written(tmp_path, data))
    assert counts.matrix.shape == (8, 6)
    assert list(counts.var.index) == SYMBOLS


def test_a_layer_is_found_where_x_is_scaled(tmp_path):
    data = adata(SCALED, layers={"logcounts": LOGGED, "counts": sp.csr_matrix(COUNTS)})
    counts = read_h5ad(written(tmp_path, data))
    assert counts.counts_from == "layers/counts"
    assert np.array_equal(counts.matrix.toarray(), COUNTS)
    assert any("X was passed over" in note and "scaled" in note for note in counts.notes)


def test_parts_of_the_molecules_are_never_taken_for_the_counts(tmp_path):
    part = sp.csr_matrix(COUNTS // 2)
    data = adata(LOGGED, layers={"ambiguous": part, "spliced": part, "matrix": sp.csr_matrix(COUNTS)})
    assert read_h5ad(written(tmp_path, data)).counts_from == "layers/matrix"
    del data.layers["matrix"]
    with pytest.raises(
        InputError, match=r"some of each cell's molecules alone \(layers/ambiguous, layers/spliced\)"
    ):
        read_h5ad(written(tmp_path, data))
    assert read_h5ad(written(tmp_path, data), "spliced").counts_from == "layers/spliced"
    with pytest.raises(InputError) as error:
        read_h5ad(written(tmp_path, data), "X")
    assert "Use counts_layer" not in str(error.value)


def of_velocyto(x, **layers) -> ad.AnnData:
    """Spliced counts as X or elsewhere, beside those of the rest."""
    parts = {"spliced": COUNTS // 2 + 1, "unspliced": COUNTS - COUNTS // 2, "ambiguous": COUNTS // 3}
    layers |= {name: sp.csr_matrix(values.astype(np.uint16)) for name, values in parts.items()}
    return adata(x, layers=layers)


SPLICED = (COUNTS // 2 + 1).astype(np.float32)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, np.asarray], ids=["csr", "csc", "dense"])
def test_a_part_of_the_molecules_that_is_x_too_is_never_read_without_a_word(tmp_path, kind):
    path = written(tmp_path, of_velocyto(kind(SPLICED)))
    read = read_h5ad(path)
    assert read.counts_from == "X" and np.array_equal(read.matrix.toarray(), SPLICED)
    (warning,) = read.warnings
    assert "X holds the same as layers/spliced" in warning and "--counts_layer X" in warning
    assert not read_h5ad(path, "X").warnings


def test_counts_of_all_molecules_come_before_a_part_that_is_x_too(tmp_path):
    whole = sp.csr_matrix(COUNTS.astype(np.float32))
    read = read_h5ad(written(tmp_path, of_velocyto(SPLICED, matrix=whole)))
    assert read.counts_from == "layers/matrix" and not read.warnings
    assert any("X was passed over" in note and "the same as layers/spliced" in note for note in read.notes)
    read = read_h5ad(written(tmp_path, of_velocyto(COUNTS)))
    assert read.counts_from == "X" and not read.warnings


def test_a_part_of_the_molecules_is_seen_in_raw_with_more_genes(tmp_path):
    data = of_velocyto(SPLICED)
    data.raw = data
    data.X = LOGGED
    read = read_h5ad(written(tmp_path, data[:, [4, 1]].copy()))
    assert read.counts_from == "raw.X" and "raw.X holds the same as layers/spliced" in read.warnings[0]


@pytest.mark.parametrize(
    ("name", "place"), [("umis", "layers/umis"), ("X", "X"), ("raw", "raw.X"), ("raw.X", "raw.X")]
)
def test_the_named_place_is_used(tmp_path, name, place):
    data = with_raw(COUNTS, COUNTS)
    data.layers["umis"] = sp.csr_matrix(COUNTS)
    assert read_h5ad(written(tmp_path, data), name).counts_from == place


def test_an_unknown_layer_is_an_error_that_lists_what_there_is(tmp_path):
    data = adata(COUNTS, layers={"spliced": COUNTS})
    with pytest.raises(InputError, match=r"no counts layer 'umis'; there are: X, layers/spliced"):
        read_h5ad(written(tmp_path, data), "umis")


def test_a_named_layer_without_counts_says_where_counts_are(tmp_path):
    data = adata(COUNTS, layers={"norm": LOGGED})
    with pytest.raises(
        InputError, match=r"(?s)'norm' does not hold raw counts.*log1p.*X \(.*raw counts"
    ) as caught:
        read_h5ad(written(tmp_path, data), "norm")
    assert "Use counts_layer X" in str(caught.value)


def test_no_counts_at_all_says_what_each_matrix_looks_like(tmp_path):
    data = with_raw(SCALED, LOGGED)
    data.layers["norm"] = sp.csr_matrix(COUNTS * np.linspace(31.3, 35.7, 6))
    with pytest.raises(InputError) as caught:
        read_h5ad(written(tmp_path, data))
    message = str(caught.value)
    for part in (
        "raw.X (min",
        "log1p-normalised",
        "X (min -",
        "scaled",
        "layers/norm",
        "normalised to a common total",
    ):
        assert part in message


def test_zeros_of_a_dense_matrix_do_not_pass_for_integers(tmp_path):
    dense = np.zeros((8, 6), dtype=np.float32)
    dense[0, :2] = (0.7, 1.3)
    with pytest.raises(InputError, match="log1p-normalised"):
        read_h5ad(written(tmp_path, adata(dense)))


def test_counts_of_named_features_come_along_and_what_does_not_is_told(tmp_path):
    data = adata(COUNTS)
    many = np.arange(8 * 60, dtype=np.float32).reshape(8, 60)
    data.obsm.update({"antibody_capture": many, "latent": many, "X_umap": many[:, :2]})
    data.uns["feature_names"] = {"antibody_capture": np.array([f"CD{i}" for i in range(60)], dtype=object)}
    read = read_h5ad(written(tmp_path, data))
    assert set(read.obsm) == {"antibody_capture", "X_umap"}
    assert (read.obsm["antibody_capture"] == many).all()
    assert list(read.feature_names["antibody_capture"][:2]) == ["CD0", "CD1"]
    assert any("Of obsm latent was left out" in note for note in read.notes)


def test_columns_of_every_kind_are_read(tmp_path):
    data = adata(sp.csr_matrix(COUNTS))
    data.obs["category"] = pd.Categorical(["x", "y"] * 4)
    data.obs["nullable"] = pd.array([1, None] * 4, dtype="Int64")
    data.obs["flag"] = [True, False] * 4
    data.obs.index = pd.Index(range(8)).astype(str)
    counts = read_h5ad(written(tmp_path, data))
    assert list(counts.obs["category"]) == ["x", "y"] * 4
    assert counts.obs["nullable"].isna().sum() == 4
    assert list(counts.obs.index) == [str(i) for i in range(8)]


def test_small_embeddings_are_kept_and_large_ones_dropped(tmp_path):
    data = adata(sp.csr_matrix(COUNTS))
    data.obsm["X_umap"] = np.ones((8, 2), dtype=np.float32)
    data.obsm["X_wide"] = np.ones((8, 51), dtype=np.float32)
    data.obsm["table"] = pd.DataFrame({"a": range(8)}, index=data.obs_names)
    assert list(read_h5ad(written(tmp_path, data)).obsm) == ["X_umap"]


def test_feature_types_and_genomes_of_scanpy_are_recognised(tmp_path):
    data = adata(sp.csr_matrix(COUNTS))
    data.var["feature_types"] = pd.Categorical(["Gene Expression"] * 5 + ["Antibody Capture"])
    data.var["genome"] = ["GRCh38"] * 5 + [""]
    counts = read_h5ad(written(tmp_path, data))
    assert list(counts.feature_types)[-2:] == ["Gene Expression", "Antibody Capture"]
    assert list(counts.genomes)[-2:] == ["GRCh38", ""]


def test_a_biotype_column_is_not_taken_for_feature_types(tmp_path):
    data = adata(sp.csr_matrix(COUNTS))
    data.var["feature_type"] = "protein_coding"
    assert set(read_h5ad(written(tmp_path, data)).feature_types) == {"Gene Expression"}


GENES, ANTIBODIES = "Gene Expression", "Antibody Capture"


def typed(tmp_path, names=SYMBOLS, **columns) -> Counts:
    data = adata(sp.csr_matrix(COUNTS))
    data.var_names = names
    for name, values in columns.items():
        data.var[name] = values
    return read_h5ad(written(tmp_path, data))


@pytest.mark.parametrize("column", TYPE_COLUMNS)
@pytest.mark.parametrize(
    ("gene", "antibody"),
    [
        ("RNA", "ADT"),
        ("Gene", "Protein"),
        ("gene_expression", "protein"),
        ("GENE EXPRESSION", "antibody-capture"),
    ],
)
def test_kinds_of_features_are_known_by_other_programs_words(tmp_path, column, gene, antibody):
    read = typed(tmp_path, **{column: [gene] * 4 + [antibody, "HTO"]})
    assert list(read.feature_types) == [GENES] * 4 + [ANTIBODIES, "HTO"]
    assert not read.warnings


def test_the_column_that_tells_more_kinds_apart_is_believed(tmp_path):
    read = typed(tmp_path, feature_types=GENES, modality=["rna"] * 4 + ["protein"] * 2)
    assert list(read.feature_types) == [GENES] * 4 + [ANTIBODIES] * 2


@pytest.mark.parametrize(
    ("values", "n_genes", "said"),
    [
        (["one"] * 4 + ["two"] * 2, 6, "(one, two)"),
        (["one"] * 4 + ["ADT"] * 2, 4, "(one)"),
        ([None] * 4 + ["ADT"] * 2, 4, "(no word)"),
        (["RNA"] * 3 + [None, "ADT", "ADT"], 4, "(no word)"),
        (["ADT"] * 6, 0, ""),
        (["one"] * 6, 6, ""),
        (["gene"] * 3 + ["ncRNA_gene", "ncRNA_gene", "pseudogene"], 6, "(ncRNA_gene)"),
        (["coding"] * 4 + ["lncRNA"] * 2, 6, "(coding)"),
        ([GENES] * 4 + ["Custom"] * 2, 4, ""),
        (["protein_coding"] * 3 + ["lncRNA", "IG_C_gene", "misc_RNA"], 6, ""),
        (["protein_coding"] * 3 + ["lncRNA", "misc_RNA", "ADT"], 5, ""),
    ],
)
def test_kinds_in_unknown_words_count_as_genes_and_that_is_said(tmp_path, values, n_genes, said):
    read = typed(tmp_path, feature_type=values)
    assert (read.feature_types == GENES).sum() == n_genes
    assert len(read.warnings) == bool(said)
    assert all("'feature_type'" in warning and said in warning for warning in read.warnings)


@pytest.mark.parametrize(
    "name",
    ["CD3_TotalSeqB", "AB_CD3", "ADT_CD3", "CD3_ADT", "CD3_PROT", "CD3-TotalSeqB", "anti-CD3", "Hashtag1"],
)
@pytest.mark.parametrize("place", ["index", "feature_name"])
def test_genes_that_are_named_like_antibodies_are_told(tmp_path, name, place):
    names = [*SYMBOLS[:5], name]
    read = typed(tmp_path, names) if place == "index" else typed(tmp_path, feature_name=names)
    (warning,) = read.warnings
    assert f"1 of 6 features are named like antibodies or hashtags ({name})" in warning
    assert not typed(tmp_path, names, feature_types=[GENES] * 5 + [ANTIBODIES]).warnings


def test_no_gene_is_named_like_an_antibody():
    table = pd.read_csv(GENE_SETS / "human_mouse_orthologs.tsv.gz", sep="\t", dtype=str, na_filter=False)
    assert not [name for name in np.unique(table.to_numpy(str)) if ANTIBODY_NAME.search(name)]


def test_a_file_from_before_anndata_0_7_is_read(tmp_path):
    path = tmp_path / "old.h5ad"
    matrix = sp.csr_matrix(COUNTS.astype(np.float32))
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", matrix.shape
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        obs = np.zeros(8, dtype=[("index", "S20"), ("donor", "i1")])
        obs["index"], obs["donor"] = barcodes(8), [0, 1] * 4
        var = np.zeros(6, dtype=[("index", "S10"), ("gene_ids", "S20")])
        var["index"], var["gene_ids"] = SYMBOLS, IDS
        file["obs"], file["var"] = obs, var
        file["uns/donor_categories"] = np.array([b"d1", b"d2"])
    counts = read_h5ad(path)
    assert np.array_equal(counts.matrix.toarray(), COUNTS)
    assert list(counts.obs["donor"]) == ["d1", "d2"] * 4
    assert list(counts.var.index) == SYMBOLS
    assert list(counts.var["gene_ids"]) == IDS
    assert list(counts.obs.index) == barcodes(8)


def test_a_damaged_matrix_is_an_input_error(tmp_path):
    path = written(tmp_path, adata(sp.csr_matrix(COUNTS)))
    with h5py.File(path, "a") as file:
        del file["X/indptr"]
        file["X/indptr"] = np.array([0, 1])
    with pytest.raises(InputError, match="cannot be read"):
        read_h5ad(path)


def test_a_file_without_a_matrix_is_an_input_error(tmp_path):
    data = ad.AnnData(obs=pd.DataFrame(index=barcodes(3)), var=pd.DataFrame(index=SYMBOLS))
    with pytest.raises(InputError, match="no X, no raw and no layers"):
        read_h5ad(written(tmp_path, data))
