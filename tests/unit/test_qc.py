from __future__ import annotations

import gzip
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cellscribe.errors import InputError, NothingLeftError
from cellscribe.qc import (
    Bounds,
    QcOptions,
    assess,
    cell_metrics,
    cell_reasons,
    filtered,
    find_bounds,
    join_reasons,
    mad_bounds,
    run_qc,
)

SYMBOLS = ["MT-CO1", "MT-ND1", "RPL3", "RPS6", "HBA1", *(f"GENE{i}" for i in range(195))]


def make(n_cells: int = 200, seed: int = 0, symbols: list[str] = SYMBOLS) -> anndata.AnnData:
    """Cells of one kind, about 1,000 counts each, 2 % of them mitochondrial."""
    rng = np.random.default_rng(seed)
    weights = np.ones(len(symbols))
    weights[:2] = 2.0
    counts = rng.poisson(1000 * weights / weights.sum(), size=(n_cells, len(symbols)))
    return wrap(sparse.csr_matrix(counts.astype(np.float32)), symbols)


def wrap(counts: sparse.csr_matrix, symbols: list[str]) -> anndata.AnnData:
    var = pd.DataFrame({"gene_ids": [""] * len(symbols), "gene_symbols": symbols}, index=symbols)
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(counts.shape[0])])
    return anndata.AnnData(counts, obs=obs, var=var, uns={"cellscribe": {"sample": "s", "organism": "human"}})


def spoil(adata: anndata.AnnData) -> anndata.AnnData:
    """Make cell 0 nearly empty, cell 1 huge, cell 2 dying, cell 3 empty and cell 4 both small and dying."""
    counts = adata.X.tolil()
    counts[0] = 0
    counts[0, 10:40] = 1
    counts[1] = counts[1] * 40
    counts[2, 0] = 800
    counts[3] = 0
    counts[4] = 0
    counts[4, 0] = 30
    adata.X = counts.tocsr().astype(np.float32)
    return adata


def table(**columns: object) -> pd.DataFrame:
    base = dict.fromkeys(("total_counts", "n_genes_by_counts", "pct_counts_mt"), 0.0)
    return pd.DataFrame({**base, "pct_counts_ribo": 0.0, "pct_counts_hb": 0.0, **columns})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where QC of the spoilt sample `s`, as `in.h5ad`, has been done."""
    folder = tmp_path_factory.mktemp("qc")
    adata = make()
    adata.obs["donor"] = "d1"
    adata.obsm["antibody_capture"] = np.ones((adata.n_obs, 3), dtype=np.float32)
    spoil(adata).write_h5ad(folder / "in.h5ad")
    run_qc(folder / "in.h5ad", QcOptions("s"), folder=folder)
    return folder


def test_metrics_are_what_adding_up_by_hand_gives() -> None:
    counts = sparse.csr_matrix(np.array([[1, 0, 3, 0, 6, 0], [0, 0, 0, 0, 0, 0]], dtype=np.float32))
    masks = {
        "mt": np.array([1, 1, 0, 0, 0, 0], dtype=bool),
        "ribo": np.array([0, 0, 1, 0, 0, 0], dtype=bool),
        "hb": np.array([0, 0, 0, 0, 1, 0], dtype=bool),
    }
    found = cell_metrics(counts, masks)
    assert found.to_numpy().tolist() == [[10, 3, 10, 30, 60], [0, 0, 0, 0, 0]]


def test_metrics_agree_with_plain_sums_on_real_cells(shared_data: Path) -> None:
    adata = anndata.read_h5ad(shared_data / "labelled" / "kang_ctrl_labelled.h5ad")
    ribo = adata.var_names.str.startswith("RPL")
    nothing = np.zeros(adata.n_vars, dtype=bool)
    found = cell_metrics(adata.X.tocsr().astype(np.float32), {"mt": nothing, "ribo": ribo, "hb": nothing})
    total = np.asarray(adata.X.sum(axis=1)).ravel()
    share = 100 * np.asarray(adata.X[:, ribo].sum(axis=1)).ravel() / total
    np.testing.assert_array_equal(found["total_counts"], total)
    np.testing.assert_array_equal(found["n_genes_by_counts"], np.asarray((adata.X > 0).sum(axis=1)).ravel())
    np.testing.assert_allclose(found["pct_counts_ribo"], share, rtol=1e-5)


def test_mad_bounds_lie_at_as_many_standard_deviations_of_a_normal_sample() -> None:
    values = np.random.default_rng(0).normal(10, 2, 100_000)
    assert mad_bounds(values, 3, 0) == pytest.approx((4, 16), abs=0.1)


def test_a_mad_of_zero_does_not_remove_every_cell_that_differs() -> None:
    counts = np.r_[np.full(80, 1000.0), np.full(20, 1500.0)]
    metrics = table(
        total_counts=counts, n_genes_by_counts=counts / 2, pct_counts_mt=np.r_[np.zeros(80), np.full(20, 4.0)]
    )
    bounds, _ = find_bounds(metrics, QcOptions("s"))
    assert (join_reasons(cell_reasons(metrics, bounds)) == "").all()


def test_fixed_bounds_override_those_of_the_mad_side_by_side() -> None:
    metrics = table(total_counts=np.random.default_rng(0).lognormal(8, 0.3, 500))
    by_mad, _ = find_bounds(metrics, QcOptions("s"))
    bounds, _ = find_bounds(metrics, QcOptions("s", min_counts=2000))
    counts = bounds["total_counts"]
    assert (counts.lower, counts.lower_source, counts.source) == (2000, "fixed", "fixed")
    assert (counts.upper, counts.upper_source) == (by_mad["total_counts"].upper, "mad")


def test_ribosomal_and_haemoglobin_shares_have_no_bound_unless_set() -> None:
    metrics = table(total_counts=np.full(50, 1000.0), pct_counts_ribo=np.linspace(0, 90, 50))
    bounds, _ = find_bounds(metrics, QcOptions("s", max_pct_hb=5))
    assert bounds["pct_counts_ribo"] == Bounds()
    assert bounds["pct_counts_hb"] == Bounds(None, 5, "off", "fixed")


def test_zero_mads_switch_the_bounds_off() -> None:
    metrics = table(total_counts=np.arange(1.0, 51))
    bounds, notes = find_bounds(metrics, QcOptions("s", n_mads=0, n_mads_mt=0))
    assert {bound.source for bound in bounds.values()} == {"off"}
    assert notes == []


def test_tiny_samples_are_judged_by_fixed_bounds_alone_and_say_so() -> None:
    metrics = table(total_counts=np.r_[np.full(18, 1000.0), 1.0])
    bounds, notes = find_bounds(metrics, QcOptions("s", max_counts=5000))
    assert bounds["total_counts"] == Bounds(None, 5000, "off", "fixed")
    assert bounds["pct_counts_mt"].source == "off"
    assert "Only 19 cells" in notes[0]


def test_a_population_with_many_genes_is_kept_and_said() -> None:
    rng = np.random.default_rng(0)
    genes = np.r_[rng.normal(500, 20, 800), rng.normal(6000, 200, 200)]
    metrics = table(total_counts=genes, n_genes_by_counts=genes)
    bounds, notes = find_bounds(metrics, QcOptions("s"))
    assert bounds["n_genes_by_counts"].upper is None
    assert any("20% of the cells lie above" in note and "max_genes" in note for note in notes)
    assert (join_reasons(cell_reasons(metrics, bounds)) == "").all()


def test_many_dying_cells_are_removed_and_said() -> None:
    mt = np.r_[np.full(800, 3.0), np.full(200, 60.0)]
    bounds, notes = find_bounds(table(total_counts=np.full(1000, 3000.0), pct_counts_mt=mt), QcOptions("s"))
    assert 3 < (bounds["pct_counts_mt"].upper or 0) < 60
    assert any("20% of the cells" in note and "max_pct_mt" in note for note in notes)


def test_one_mitochondrial_count_does_not_remove_a_shallow_cell() -> None:
    rng = np.random.default_rng(0)
    total = rng.integers(8, 16, 1000)
    mt = rng.binomial(total, 0.03)
    metrics = table(total_counts=total.astype(float), pct_counts_mt=100 * mt / total)
    bounds, _ = find_bounds(metrics, QcOptions("s"))
    assert np.mean(metrics["pct_counts_mt"] > (bounds["pct_counts_mt"].upper or 0)) < 0.05


def test_bounds_that_no_cell_can_meet_are_refused() -> None:
    with pytest.raises(InputError, match=r"genes \(500\) lie above the most \(200\)"):
        find_bounds(table(total_counts=np.ones(30)), QcOptions("s", min_genes=500, max_genes=200))


def test_no_mitochondrial_gene_is_said_and_switches_its_bound_off() -> None:
    adata = make(symbols=[f"GENE{i}" for i in range(200)])
    result = assess(adata, adata.X, QcOptions("s", doublets="off", max_pct_mt=5))
    assert result.bounds["pct_counts_mt"] == Bounds()
    assert not result.mt_known and assess(make(), make().X, QcOptions("s", doublets="off")).mt_known
    assert any("No mitochondrial gene" in note for note in result.warnings)


def test_a_mitochondrial_share_that_nothing_tells_is_missing_and_no_nought(tmp_path: Path) -> None:
    adata = make(symbols=[f"GENE{i}" for i in range(200)])
    adata.X = sparse.vstack([adata.X[:-1], adata.X[-1:] * 40]).tocsr()
    adata.write_h5ad(tmp_path / "s.counts.h5ad")
    report = run_qc(tmp_path / "s.counts.h5ad", QcOptions("s", doublets="off"), folder=tmp_path)
    removed = pd.read_csv(tmp_path / "s.removed.tsv.gz", sep="\t")
    kept = anndata.read_h5ad(tmp_path / "s.filtered.h5ad").obs
    assert len(removed) == 1 and removed["pct_counts_mt"].isna().all()
    assert kept["pct_counts_mt"].isna().all() and kept["pct_counts_ribo"].notna().all()
    assert not report["mt_known"]


def test_every_reason_of_a_cell_is_named() -> None:
    adata = spoil(make())
    result = assess(adata, adata.X, QcOptions("s", doublets="off"))
    assert list(result.reasons[:5]) == [
        "low_counts;low_genes",
        "high_counts",
        "high_mt",
        "low_counts;low_genes",
        "low_counts;low_genes;high_mt",
    ]
    assert result.passes[5:].all()


def test_a_cell_without_counts_never_passes() -> None:
    adata = make(12)
    adata.X = sparse.vstack([adata.X[:11], sparse.csr_matrix((1, adata.n_vars), dtype=np.float32)]).tocsr()
    result = assess(adata, adata.X, QcOptions("s", n_mads=0, n_mads_mt=0, doublets="off"))
    assert list(np.flatnonzero(~result.passes)) == [11]


def test_removed_cells_are_listed_with_every_reason_and_every_metric(done: Path) -> None:
    report = json.loads((done / "s.qc.json").read_text())
    removed = pd.read_csv(done / "s.removed.tsv.gz", sep="\t")
    kept = anndata.read_h5ad(done / "s.filtered.h5ad")
    assert list(removed.columns) == [
        "barcode",
        "reasons",
        "total_counts",
        "n_genes_by_counts",
        "pct_counts_mt",
        "pct_counts_ribo",
        "pct_counts_hb",
        "doublet_score",
    ]
    assert sorted([*removed["barcode"], *kept.obs_names]) == sorted(make().obs_names)
    row = removed.set_index("barcode").loc["cell4"]
    assert row["reasons"] == "low_counts;low_genes;high_mt"
    assert (row["total_counts"], row["n_genes_by_counts"], row["pct_counts_mt"]) == (30, 1, 100)
    named = removed["reasons"].str.split(";").explode().value_counts().to_dict()
    assert report["removed_by"] == named
    assert report["n_cells_before"] - report["n_cells_after"] == len(removed)


def test_flag_keeps_every_cell_and_marks_what_filter_removes(done: Path, tmp_path: Path) -> None:
    report = run_qc(done / "in.h5ad", QcOptions("s", mode="flag"), folder=tmp_path)
    kept = anndata.read_h5ad(done / "s.filtered.h5ad")
    marked = anndata.read_h5ad(tmp_path / "s.filtered.h5ad")
    assert marked.n_obs == report["n_cells_after"] == 200
    assert list(marked.obs_names[marked.obs["qc_pass"]]) == list(kept.obs_names)
    assert list(marked.obs["qc_reasons"] == "") == list(marked.obs["qc_pass"])
    tables = [gzip.decompress((folder / "s.removed.tsv.gz").read_bytes()) for folder in (done, tmp_path)]
    assert tables[0] == tables[1]


def test_the_filtered_file_keeps_its_contract(done: Path) -> None:
    out = anndata.read_h5ad(done / "s.filtered.h5ad")
    assert sparse.isspmatrix_csr(out.X) or isinstance(out.X, sparse.csr_array)
    assert out.X.dtype == np.float32
    assert out.obsm["antibody_capture"].shape == (out.n_obs, 3)
    assert set(out.obs["donor"]) == {"d1"}
    assert out.obs["predicted_doublet"].dtype == bool
    assert out.obs["qc_pass"].dtype == bool
    assert np.isfinite(out.obs["doublet_score"]).all()
    assert json.loads(out.uns["cellscribe"]["qc"]) == json.loads((done / "s.qc.json").read_text())
    assert out.uns["cellscribe"]["organism"] == "human"


def test_qc_json_has_what_the_architecture_names(done: Path) -> None:
    report = json.loads((done / "s.qc.json").read_text())
    named = (
        "sample mode n_cells_before n_cells_after n_genes_before n_genes_after thresholds removed_by warnings"
    )
    assert {*named.split(), "before", "after", "doublets"} <= set(report)
    assert {"lower", "upper", "source"} <= set(report["thresholds"]["total_counts"])
    assert set(report["doublets"]) == {"status", "threshold", "expected_rate", "n", "message"}
    assert set(report["before"]["pct_counts_mt"]) == {"median", "q25", "q75", "min", "max"}
    assert report["before"]["total_counts"]["min"] == 0 < report["after"]["total_counts"]["min"]


def test_too_few_cells_left_names_sample_numbers_reason_and_remedy_and_writes_nothing(tmp_path: Path) -> None:
    make(60).write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(NothingLeftError) as caught:
        run_qc(tmp_path / "in.h5ad", QcOptions("lung_3", min_genes=5000), folder=tmp_path)
    message = str(caught.value)
    for part in (
        "'lung_3'",
        "0 of 60 cells",
        "fewer than 10",
        "low_genes (60 cells",
        "5,000 genes",
        "lower min_genes",
    ):
        assert part in message
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5ad"]


def test_flag_does_not_stop_where_cells_are_bad_but_many(tmp_path: Path) -> None:
    make(60).write_h5ad(tmp_path / "in.h5ad")
    report = run_qc(tmp_path / "in.h5ad", QcOptions("s", mode="flag", min_genes=5000), folder=tmp_path)
    assert (report["n_cells_after"], report["n_cells_pass"], report["after"]) == (60, 0, {})


@pytest.mark.parametrize(("minimum", "n_genes"), [(0, 200), (1, 199), (2, 198)])
def test_genes_are_all_kept_unless_a_minimum_of_cells_is_set(minimum: int, n_genes: int) -> None:
    counts = make().X.tolil()
    counts[:, 10:12] = 0
    counts[0, 11] = 1
    adata = wrap(counts.tocsr().astype(np.float32), SYMBOLS)
    options = QcOptions("s", min_cells_per_gene=minimum, doublets="off")
    out, cells, genes = filtered(adata, adata.X, assess(adata, adata.X, options), options)
    assert out.n_vars == genes.sum() == n_genes
    assert cells.all()
    assert ("GENE6" in out.var_names) == (minimum < 2)


@pytest.mark.parametrize(("action", "removed"), [("remove", True), ("flag", False), ("off", False)])
def test_doublets_are_removed_only_when_asked(shared_data: Path, action: str, removed: bool) -> None:
    adata = anndata.read_h5ad(shared_data / "labelled" / "kang_ctrl_labelled.h5ad")
    adata = wrap(adata.X.tocsr().astype(np.float32), list(adata.var_names))
    result = assess(adata, adata.X, QcOptions("s", doublets=action, expected_doublet_rate=0.05))
    assert result.doublets.calls.any() == (action != "off")
    assert any("doublet" in text for text in result.reasons) == removed


@pytest.mark.parametrize("name", ["pbmc3k_labelled", "pbmc4k_labelled", "kang_ctrl_labelled"])
def test_real_labelled_cells_are_kept(shared_data: Path, name: str) -> None:
    real = anndata.read_h5ad(shared_data / "labelled" / f"{name}.h5ad")
    adata = wrap(real.X.tocsr().astype(np.float32), list(real.var_names))
    result = assess(adata, adata.X, QcOptions(name))
    lost = pd.Series(~result.passes).groupby(real.obs["cell_type"].astype(str).to_numpy()).mean()
    labelled = (real.obs["cell_type"].astype(str) != "unlabelled").to_numpy()
    assert (~result.passes[labelled]).mean() < 0.05
    assert lost.drop("unlabelled", errors="ignore").max() < 0.15
