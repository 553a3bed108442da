"""What the page of a sample is made from: the files that REPORT is given, and what is read of the annotated cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe.contract import UNASSIGNED, OutputNames
from cellscribe.errors import InputError
from cellscribe.genes import column_text

if TYPE_CHECKING:
    import anndata


@dataclass(frozen=True)
class ReportInputs:
    """The files of one sample that the page is made from, and where it goes."""

    sample: str
    annotated: Path
    convert: Path
    qc: Path
    annotation: Path
    qc_violin: Path
    qc_knee: Path
    qc_scatter: Path
    models: Sequence[Path]
    output: Path
    markers: Path
    differential: Path
    clusters: Path
    verdicts: Path
    verdict_summary: Path
    truth: Path
    truth_summary: Path
    compare: str = ""
    truth_key: str = ""
    truth_csv: Path | None = None
    truth_map: Path | None = None
    curation: Path | None = None
    pipeline_version: str = "unknown"


@dataclass(frozen=True)
class Cells:
    """The columns of obs and obsm that the page shows; every array has one row a cell.

    no_cluster: what stands in `cluster` for cells that are in none; "" where all are in one.
    """

    predicted: np.ndarray
    final: np.ndarray
    reason: np.ndarray
    uncertainty: np.ndarray
    distance: np.ndarray | None
    unexpected: np.ndarray | None
    novelty: np.ndarray | None
    cluster: np.ndarray | None
    umap: np.ndarray | None
    reference_umap: np.ndarray | None
    cl_ids: dict[str, str]
    no_cluster: str = ""

    @property
    def unassigned(self) -> np.ndarray:
        """bool, (n_obs,): the cells without a name."""
        return self.final == UNASSIGNED


def read_cells(adata: anndata.AnnData, annotation: dict[str, Any], inputs: ReportInputs) -> Cells:
    """Pick what the page needs by the names that annotation.json gives.

    Raises InputError naming the column that is not there.
    """
    names = annotation.get("names") or {}

    def column(name: str) -> Any:
        key = names.get(name, "")
        if key not in adata.obs:
            raise InputError(
                f"obs has no column '{key or name}', which annotation.json gives as its '{name}'",
                "Give the annotated.h5ad and the annotation.json of the same run of ANNOTATE.",
                sample=inputs.sample,
                file=inputs.annotated,
            )
        return adata.obs[key]

    def optional(name: str) -> Any:
        return adata.obs[names[name]] if names.get(name) in adata.obs else None

    def coordinates(name: str) -> np.ndarray | None:
        if names.get(name) not in adata.obsm:
            return None
        values = np.asarray(adata.obsm[names[name]], dtype=np.float64)
        usable = values.ndim == 2 and values.shape[1] >= 2 and len(values) and np.isfinite(values).all()
        return values[:, :2] if usable else None

    if not adata.n_obs:
        raise InputError(
            "there are no cells to report on",
            "Give an annotated.h5ad with cells in it; the sample's qc.json says why QC removed the others.",
            sample=inputs.sample,
            file=inputs.annotated,
        )
    in_none = annotation.get("in_no_cluster") or {}
    predicted, final = column_text(column("predicted")), column_text(column("final"))
    distance, cluster = optional("reference_distance"), optional("cluster")
    unexpected, novelty = optional("unexpected"), optional("novelty")
    cl_ids: dict[str, str] = {}
    output = OutputNames(str(names["predicted"]).removesuffix("_predicted"))
    for labels, key in ((predicted, names.get("cl_id")), (final, output.final_cl_id)):
        if key in adata.obs:
            for label, cl_id in dict.fromkeys(zip(labels, column_text(adata.obs[key]), strict=True)):
                cl_ids.setdefault(label, cl_id)
    return Cells(
        predicted=predicted,
        final=final,
        reason=column_text(column("reason")),
        uncertainty=np.nan_to_num(column("uncertainty").to_numpy(dtype=np.float64), nan=1.0),
        distance=None if distance is None else np.nan_to_num(distance.to_numpy(dtype=np.float64), nan=1.0),
        unexpected=None if unexpected is None else np.nan_to_num(unexpected.to_numpy(dtype=np.float64)),
        novelty=None if novelty is None else np.nan_to_num(novelty.to_numpy(dtype=np.float64)),
        cluster=None if cluster is None else column_text(cluster),
        umap=coordinates("umap"),
        reference_umap=coordinates("reference_umap"),
        cl_ids=cl_ids,
        no_cluster=str(in_none["name"]) if in_none.get("n_cells") else "",
    )


def plain_uns(adata: anndata.AnnData, annotation: dict[str, Any]) -> dict[str, Any]:
    """The provenance that ANNOTATE left in uns: an object, or JSON text of one."""
    names = annotation.get("names") or {}
    key = OutputNames(str(names["predicted"]).removesuffix("_predicted")).predictions
    value = adata.uns.get(names.get("predictions", key), {})
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return dict(value) if hasattr(value, "items") else {}
