"""CellTypist models, from small pickles of the shape that CellTypist writes."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from click.testing import CliRunner
from scipy.special import expit
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler
from small_model import CL_IDS, as_organism, simulate, small_counts, write_cl_map, write_reference

from cellscribe.annotation import annotate_cells
from cellscribe.answer import answer_cells
from cellscribe.contract import OutputNames
from cellscribe.counts_file import open_counts
from cellscribe.errors import ModelFetchError
from cellscribe.importing.celltypist import read_celltypist
from cellscribe.importing.pickles import read_pickle
from cellscribe.mapping import map_cells
from cellscribe.model.manifest import verify_model
from cellscribe.model.model import Model
from import_model import main


def logged(counts) -> np.ndarray:
    dense = np.asarray(counts.todense())
    return np.log1p(1e4 * dense / dense.sum(axis=1, keepdims=True))


def write_pickle(path, labels=tuple(CL_IDS), *, genes=300):
    """Train on the first genes, as CellTypist trains with its SGD solver."""
    adata = simulate(200)
    adata = adata[adata.obs["cell_type"].isin(labels)]
    scaler = StandardScaler().fit(logged(adata.X)[:, :genes])
    scaled = np.minimum(scaler.transform(logged(adata.X)[:, :genes]), 10)
    classifier = SGDClassifier(loss="log_loss", random_state=0).fit(scaled, adata.obs["cell_type"])
    classifier.features = np.array(adata.var_names[:genes])
    described = {"date": "2026-01-01", "details": "Simulated blood", "source": "nobody", "version": "v1"}
    path.write_bytes(pickle.dumps({"Model": classifier, "Scaler_": scaler, "description": described}))
    return classifier, scaler


def expected(classifier, scaler, counts, found) -> np.ndarray:
    """CellTypist's probabilities: genes that the query lacks are left out of the sum. found: bool (n_genes,)."""
    scaled = np.minimum((logged(counts)[:, : len(found)] - scaler.mean_) / scaler.scale_, 10)
    scores = scaled[:, found] @ classifier.coef_[:, found].T + classifier.intercept_
    return expit(np.hstack([-scores, scores]) if scores.shape[1] == 1 else scores)


def imported(folder, *more):
    write_cl_map(folder / "cl.csv")
    arguments = [
        *("celltypist", str(folder / "m.pkl"), "--output", str(folder / "model"), "--organism", "human"),
        *("--cl-map", str(folder / "cl.csv"), "--trust_model_code", *more),
    ]
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("labels", [tuple(CL_IDS), ("B cell", "Monocyte")])
def test_labels_and_probabilities_are_celltypists(tmp_path, labels):
    classifier, scaler = write_pickle(tmp_path / "m.pkl", labels)
    done = imported(tmp_path)
    assert done.exit_code == 0, done.stderr
    assert verify_model(tmp_path / "model")["source"]["program"] == "CellTypist"
    model, cells = Model(tmp_path / "model"), open_counts(small_counts())
    mapping = map_cells(cells, model)
    truth = expected(classifier, scaler, simulate(90, seed=1).X, np.ones(300, dtype=bool))
    np.testing.assert_allclose(expit(mapping.logistic_scores), truth, atol=1e-4)
    annotation = annotate_cells(answer_cells(mapping, model), cells.obs.index, OutputNames.of())
    assert (
        annotation.obs["cxg_cell_type_predicted"].tolist()
        == classifier.classes_[truth.argmax(axis=1)].tolist()
    )
    sure = truth.sum(axis=1) <= 1
    assert sure.any()
    np.testing.assert_allclose(
        annotation.obs["cxg_cell_type_predicted_uncertainty"][sure], 1 - truth.max(axis=1)[sure], atol=1e-4
    )
    assert any(
        "CellTypist's own and was not calibrated" in warning for warning in annotation.info["warnings"]
    )


def test_genes_that_a_query_lacks_are_at_their_mean(tmp_path):
    classifier, scaler = write_pickle(tmp_path / "m.pkl")
    imported(tmp_path)
    adata = simulate(40, seed=1)
    kept = np.arange(400) % 4 > 0
    cells = adata[:, kept].copy()
    from cellscribe.one_file import CountsInMemory

    mapping = map_cells(CountsInMemory(sp.csr_matrix(cells.X), cells.var), Model(tmp_path / "model"))
    only = adata.copy()
    only.X = sp.csr_matrix(adata.X.multiply(kept))
    truth = expected(classifier, scaler, only.X, kept[:300])
    np.testing.assert_allclose(expit(mapping.logistic_scores), truth, atol=1e-4)


def test_test_cells_calibrate_it_and_give_it_a_score(tmp_path):
    write_pickle(tmp_path / "m.pkl")
    write_reference(simulate(150, seed=5), tmp_path / "test.h5ad")
    done = imported(
        tmp_path, "--test", str(tmp_path / "test.h5ad"), "--label-key", "cell_type", "--batch-key", "donor"
    )
    assert done.exit_code == 0, done.stderr
    model = Model(tmp_path / "model")
    assert model.is_calibrated("logistic")
    assert model.manifest["evaluation"]["accuracy"] > 0.9
    assert "given as new to the model (test.h5ad)" in (tmp_path / "model" / "card.md").read_text()
    mapping = map_cells(open_counts(small_counts()), model)
    members = model.member_probabilities(
        latent=None, distances=None, indices=None, logistic_scores=mapping.logistic_scores
    )
    np.testing.assert_allclose(model.pooled(members, "logistic").sum(axis=1), 1)


def test_test_cells_of_other_genes_are_refused_with_what_an_import_can_do(tmp_path):
    write_pickle(tmp_path / "m.pkl")
    write_reference(as_organism(simulate(60), "human"), tmp_path / "test.h5ad")
    done = imported(tmp_path, "--test", str(tmp_path / "test.h5ad"), "--label-key", "cell_type")
    assert done.exit_code == 4
    assert "The model's own look like human symbols (SYM0" in done.stderr
    assert "leave --test out" in done.stderr and "--min-gene-overlap" in done.stderr
    assert "--orthologs" not in done.stderr


def test_repeated_genes_are_told_apart_as_celltypist_does(tmp_path):
    write_pickle(tmp_path / "m.pkl")
    imported(tmp_path)
    adata = simulate(10, seed=1)
    symbols = adata.var_names.to_numpy().copy()
    symbols[7] = "SYM3"
    var = pd.DataFrame({"gene_symbols": symbols}, index=[f"row{i}" for i in range(400)])
    from cellscribe.one_file import CountsInMemory

    mapping = map_cells(CountsInMemory(sp.csr_matrix(adata.X), var), Model(tmp_path / "model"))
    without = np.delete(np.arange(300), 7)
    assert mapping.info["n_genes_found"] == 299
    np.testing.assert_array_equal(mapping.n_model_counts, np.asarray(adata.X[:, without].sum(axis=1)).ravel())


def test_a_pickle_is_not_read_unless_trusted(tmp_path):
    write_pickle(tmp_path / "m.pkl")
    with pytest.raises(ModelFetchError, match="--trust_model_code"):
        read_celltypist(tmp_path / "m.pkl", trusted=False)


class Evil:
    def __reduce__(self):
        return (exec, ("open('owned', 'w')",))


def test_what_a_pickle_would_run_is_not_run_even_when_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps({"Model": Evil()}))
    with pytest.raises(ModelFetchError, match=r"names builtins\.exec"):
        read_pickle(path, program="CellTypist", trusted=True)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no model of CellTypist"),
        (b"not a pickle", "no model of CellTypist"),
        (b"\x80\x63N.", "newer than this Python reads"),
        (pickle.dumps([1, 2]), "no CellTypist model"),
        (pickle.dumps({"Model": 1, "Scaler_": 2}), "no CellTypist model"),
    ],
)
def test_a_wrong_pickle_is_an_error_that_says_why(tmp_path, content, says):
    path = tmp_path / "m.pkl"
    path.write_bytes(content)
    with pytest.raises(ModelFetchError, match=says):
        read_celltypist(path, trusted=True)


def test_a_model_whose_parts_do_not_fit_is_refused(tmp_path):
    classifier, scaler = write_pickle(tmp_path / "m.pkl")
    classifier.features = classifier.features[:-1]
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"Model": classifier, "Scaler_": scaler}))
    with pytest.raises(ModelFetchError, match="does not fit together: 5 labels, 299 genes"):
        read_celltypist(tmp_path / "m.pkl", trusted=True)
