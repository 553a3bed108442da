"""The embedded model on studies that it was not trained on: never worse than was promised."""

import filecmp

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import f1_score

from cellscribe import clusters
from cellscribe.annotation import annotate_cells
from cellscribe.answer import answer_cells
from cellscribe.contract import OutputNames
from cellscribe.mapping import map_cells
from cellscribe.model.calibration import expected_calibration_error
from cellscribe.model.manifest import verify_model
from cellscribe.model.model import Model
from cellscribe.one_file import CountsInMemory
from cellscribe.training.mlflow_folder import FOR_INFERENCE


@pytest.fixture(scope="module")
def model(root) -> Model:
    folder = root / "assets" / "models" / "pbmc"
    if not (folder / "manifest.json").is_file():
        pytest.skip("assets/models/pbmc is not there")
    return Model(folder)


def test_it_carries_the_library_as_it_is(model, root) -> None:
    carried = model.folder / "code" / "cellscribe"
    files = sorted(path.relative_to(carried) for path in carried.rglob("*") if path.is_file())
    assert [str(name) for name in files] == sorted(FOR_INFERENCE)
    library = root / "bin" / "cellscribe"
    stale = [str(name) for name in files if not filecmp.cmp(carried / name, library / name, shallow=False)]
    assert stale == [], "renew it: docs/models.md says how"


@pytest.fixture
def scored(model, shared_data, monkeypatch):
    """Accuracy, macro-F1 and calibration error of every labelled cell of a study, and the share left unassigned."""
    monkeypatch.setattr(clusters, "umap_layout", lambda embedding, *_, **__: clusters.flat_layout(embedding))

    def _scored(name: str) -> tuple[float, float, float, float]:
        adata = anndata.read_h5ad(shared_data / "labelled" / f"{name}.h5ad")
        mapping = map_cells(CountsInMemory(sp.csr_matrix(adata.X), adata.var), model)
        annotation = annotate_cells(answer_cells(mapping, model), adata.obs_names, OutputNames.of())
        truth = adata.obs["cell_type_harmonized"].astype(str).to_numpy()
        predicted = annotation.obs["cxg_cell_type_predicted"].astype(str).to_numpy()
        confidence = 1 - annotation.obs["cxg_cell_type_predicted_uncertainty"].to_numpy()
        known = ~pd.Series(truth).isin(["unlabelled", "nan", ""]).to_numpy()
        right = predicted[known] == truth[known]
        macro = f1_score(
            truth[known], predicted[known], labels=np.unique(truth[known]), average="macro", zero_division=0
        )
        error = expected_calibration_error(confidence[known], right)
        left = annotation.obs["cxg_cell_type_final"].astype(str).to_numpy()[known] == "unassigned"
        print(f"{name}: accuracy {right.mean():.4f}, macro-F1 {macro:.4f}, calibration error {error:.4f}")
        return float(right.mean()), float(macro), error, float(left.mean())

    return _scored


def test_the_folder_is_whole_and_small(model):
    manifest = verify_model(model.folder)
    assert manifest["organism"] == "human"
    assert sum(file["size"] for file in manifest["files"].values()) < 10 * 2**20


def test_kang_is_named_as_well_as_promised(scored):
    # its own labels call naive CD8 T cells CD4 T cells; many of its monocytes, which were cultured, look novel
    accuracy, macro, error, left = scored("kang_ctrl_labelled")
    assert accuracy >= 0.935
    assert macro >= 0.78
    assert error <= 0.04
    assert left <= 0.17


def test_pbmc4k_is_named_as_well_as_promised(scored):
    accuracy, macro, error, left = scored("pbmc4k_labelled")
    assert accuracy >= 0.855
    assert macro >= 0.855
    assert error <= 0.08
    assert left <= 0.06
