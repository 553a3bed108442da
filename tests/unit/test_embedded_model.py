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

MODELS = ("pbmc", "pbmc_fine")
# What the labels of pbmc_fine are among those of the sets.
COARSE = {
    "Naive CD4 T cell": "CD4 T cell",
    "Memory CD4 T cell": "CD4 T cell",
    "Naive CD8 T cell": "CD8 T cell",
    "Memory CD8 T cell": "CD8 T cell",
    "Classical monocyte": "Monocyte",
    "Non-classical monocyte": "Monocyte",
    "Conventional dendritic cell": "Dendritic cell",
    "Plasmacytoid dendritic cell": "Dendritic cell",
}


def opened(root, name: str) -> Model:
    folder = root / "assets" / "models" / name
    if not (folder / "manifest.json").is_file():
        pytest.skip(f"assets/models/{name} is not there")
    return Model(folder)


@pytest.fixture(scope="module")
def model(root) -> Model:
    return opened(root, "pbmc")


@pytest.mark.parametrize("name", MODELS)
def test_it_carries_the_library_as_it_is(root, name) -> None:
    carried = opened(root, name).folder / "code" / "cellscribe"
    files = sorted(path.relative_to(carried) for path in carried.rglob("*") if path.is_file())
    assert [str(name) for name in files] == sorted(FOR_INFERENCE)
    library = root / "bin" / "cellscribe"
    stale = [str(name) for name in files if not filecmp.cmp(carried / name, library / name, shallow=False)]
    assert stale == [], "renew it: docs/models.md says how"


@pytest.mark.parametrize("name", MODELS)
def test_the_folder_is_whole_and_small(root, name) -> None:
    manifest = verify_model(opened(root, name).folder)
    assert manifest["organism"] == "human"
    assert sum(file["size"] for file in manifest["files"].values()) < 10 * 2**20


@pytest.mark.parametrize(
    ("cells", "least", "least_of_monocytes"), [("kang_ctrl", 0.925, 0.7), ("pbmc4k", 0.86, None)]
)
def test_finer_labels_are_as_good_as_promised(root, shared_data, cells, least, least_of_monocytes) -> None:
    model = opened(root, "pbmc_fine")
    adata = anndata.read_h5ad(shared_data / "labelled" / f"{cells}_labelled.h5ad")
    answer = answer_cells(map_cells(CountsInMemory(sp.csr_matrix(adata.X), adata.var), model), model)
    predicted = pd.Series(np.array(answer.labels, dtype=object)[answer.predicted])
    truth = adata.obs["cell_type_harmonized"].astype(str).to_numpy()
    known = truth != "unlabelled"
    assert (predicted.replace(COARSE).to_numpy() == truth)[known].mean() >= least
    if least_of_monocytes:
        own = adata.obs["cell_type"].astype(str).to_numpy()
        for published, label in (
            ("CD14+ Monocytes", "Classical monocyte"),
            ("FCGR3A+ Monocytes", "Non-classical monocyte"),
        ):
            assert (predicted == label)[own == published].mean() >= least_of_monocytes


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


def test_kang_is_named_as_well_as_promised(scored):
    # its own labels call naive CD8 T cells CD4 T cells; many of its monocytes, which were cultured, look novel
    accuracy, macro, error, left = scored("kang_ctrl_labelled")
    assert accuracy >= 0.935
    assert macro >= 0.78
    assert error <= 0.04
    assert left <= 0.2


def test_pbmc4k_is_named_as_well_as_promised(scored):
    accuracy, macro, error, left = scored("pbmc4k_labelled")
    assert accuracy >= 0.855
    assert macro >= 0.855
    assert error <= 0.08
    assert left <= 0.06
