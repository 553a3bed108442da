"""A small model that others could have made to CELLxGENE Annotate's contract: an MLflow folder with a pickled
`python_model.pkl`, as real ones are, without our manifest. It names cells by the genes that mark each label.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import small_model

BLOOD = {
    "B cell": ["MS4A1", "CD79A", "CD79B", "BANK1"],
    "T cell": ["CD3D", "CD3E", "IL7R", "TRAC", "CD2"],
    "natural killer cell": ["NKG7", "GNLY", "KLRD1", "PRF1"],
    "monocyte": ["LYZ", "S100A8", "S100A9", "CST3", "FCN1"],
}
SIMULATED = {
    label: [f"SYM{i * small_model.MARKERS_EACH + k}" for k in range(small_model.MARKERS_EACH)]
    for i, label in enumerate(small_model.TYPES)
}


def make_foreign_model(
    folder: Path,
    markers: dict[str, list[str]] = SIMULATED,
    behaviour: str = "good",
    trace: Path | None = None,
    **save: object,
) -> Path:
    """Write the model. behaviour: `good`, or what goes wrong with it; see `Namer.predict`. trace: a file that is there
    once any of its code was run.
    """
    import cloudpickle
    import mlflow.pyfunc

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.pyfunc.save_model(
                folder,
                python_model=namer(markers, behaviour, trace),
                **{"pip_requirements": ["anndata", "numpy", "pandas", "scipy"], **save},
            )
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    return folder


def namer(markers: dict[str, list[str]], behaviour: str, trace: Path | None) -> object:
    """The model's code, made here so that nothing but a test that makes one imports MLflow."""
    from mlflow.pyfunc import PythonModel

    class Namer(PythonModel):
        """Answers requests as the contract of `cellxgene annotate` 1.3.0 has them."""

        def __init__(self) -> None:
            self.markers, self.behaviour = markers, behaviour

        def load_context(self, context):
            if trace is not None:
                trace.touch()

        def predict(self, context, model_input, params=None):
            import json
            import os
            from pathlib import Path

            import anndata
            import numpy as np

            asked = json.loads(model_input.iloc[0, 0])
            print("asked:", json.dumps({key: asked[key] for key in sorted(asked) if "path" not in key}))
            print("environment:", " ".join(sorted(os.environ)), "in", Path.cwd().name, "at", Path.home().name)
            if self.behaviour == "raises":
                raise ValueError("no such tissue")
            if self.behaviour == "writes nothing and says 0":
                print("error: Annotation failed!", flush=True)
                os._exit(0)
            adata = anndata.read_h5ad(asked["query_dataset_h5ad_path"])
            key = asked["annotation_prefix"]
            column = asked.get("gene_column_name")
            genes = [str(gene) for gene in (adata.var[column] if column else adata.var_names)]
            place = {gene: i for i, gene in enumerate(genes)}
            scores = np.zeros((adata.n_obs, len(self.markers)), dtype=np.float32)
            for i, named in enumerate(self.markers.values()):
                found = [place[gene] for gene in named if gene in place]
                if found:
                    scores[:, i] = np.asarray(np.log1p(adata.X[:, found]).mean(axis=1)).ravel()
            exact = np.exp(6 * (scores - scores.max(axis=1, keepdims=True)))
            share = exact / exact.sum(axis=1, keepdims=True)
            labels = np.array(list(self.markers), dtype=object)[share.argmax(axis=1)]
            adata.obs[f"{key}_predicted"] = labels
            adata.obs[f"{key}_predicted"] = adata.obs[f"{key}_predicted"].astype("category")
            adata.obs[f"{key}_predicted_uncertainty"] = 1 - share.max(axis=1)
            adata.obsm[key] = scores
            adata.obsm[f"{key}_umap"] = scores[:, :2] * 3
            adata.uns[f"{key}_predictions"] = {"model_url": "theirs"}
            if self.behaviour == "drops cells":
                adata = adata[5:].copy()
            if self.behaviour == "shuffles cells":
                adata = adata[::-1].copy()
            if self.behaviour == "gives labels alone":
                del adata.obsm[key], adata.obsm[f"{key}_umap"], adata.uns[f"{key}_predictions"]
            adata.write_h5ad(asked["output_h5ad_path"])
            return [asked["output_h5ad_path"]]

    return Namer()
