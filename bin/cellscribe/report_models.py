"""The part of a sample's page that several models need: what each says, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellscribe import figures, markers
from cellscribe.colours import other_colours
from cellscribe.drawing import data_uri
from cellscribe.io import read_json

if TYPE_CHECKING:
    import pandas as pd

# A map a model, three in a row.
MAPS_SHOWN = 6


def joint_manifest(manifests: Sequence[dict[str, Any]], annotation: dict[str, Any]) -> dict[str, Any]:
    """What the page says of the models together, in the form of one model's manifest: the only one as it is.

    The labels are those of the consensus (`labels` and `cl_ids` of annotation.json): it has one for what two models
    call differently.
    """
    if len(manifests) == 1:
        return manifests[0]
    names: dict[str, str] = {}
    for manifest in manifests:
        for entry in manifest.get("labels") or []:
            names.setdefault(str(entry.get("cl_id") or ""), str(entry.get("cl_name") or ""))
    unknown = [list(manifest.get("does_not_know") or []) for manifest in manifests]
    citations = dict.fromkeys(str(manifest.get("citation") or "") for manifest in manifests)
    return {
        "labels": [
            {"label": label, "cl_id": cl_id, "cl_name": names.get(cl_id, "") if cl_id else ""}
            for label, cl_id in zip(annotation["labels"], annotation["cl_ids"], strict=True)
        ],
        "does_not_know": [name for name in unknown[0] if all(name in other for other in unknown)],
        "citation": "; ".join(citation for citation in citations if citation),
    }


def own_labels(manifests: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Every label of every model under the model's own name, to its Cell Ontology id, "" where it has none."""
    return {
        str(entry["label"]): str(entry.get("cl_id") or "")
        for manifest in reversed(manifests)
        for entry in manifest.get("labels") or []
    }


def label_scores(folders: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Recall and precision of each label that a model's own test had cells of; of several models none, as they were
    tested apart. A label that was held out whole has none: the model that was tested on it had not learned it.
    """
    if len(folders) != 1:
        return {}
    rows = read_optional(folders[0] / "evaluation.json").get("per_label") or []
    return {str(row["label"]): row for row in rows if row["n_cells"] and row.get("tested", True)}


def joint_markers(
    folders: Sequence[Path], manifests: Sequence[dict[str, Any]], used: set[str]
) -> dict[str, list[markers.Marker]]:
    """Each label's expected markers, of the first model that has it, under the name that the consensus gives it.

    used: the labels of this sample. A broad label that is not among them is left out where another model has finer ones
    of it: its markers would rise in all of these, and seem to contradict them.
    """
    expected: dict[str, list[markers.Marker]] = {}
    names: dict[str, str] = {}
    broad: set[str] = set()
    for folder, manifest in zip(folders, manifests, strict=True):
        own = markers.read_markers(read_optional(folder / "markers.json"))
        ids = [str(entry.get("cl_id") or "") for entry in manifest.get("labels") or []]
        for entry, cl_id in zip(manifest.get("labels") or [], ids, strict=True):
            label = str(entry.get("label"))
            name = names.setdefault(cl_id, label) if cl_id and ids.count(cl_id) == 1 else label
            if label in own:
                expected.setdefault(name, own[label])
        for label in sorted(own.keys() - {str(entry.get("label")) for entry in manifest.get("labels") or []}):
            expected.setdefault(label, own[label])
        terms = read_optional(folder / "ontology.json").get("terms", {})
        broad |= {ancestor for cl_id in ids if cl_id in terms for ancestor in terms[cl_id]["ancestors"]}
    if len(folders) > 1:
        for cl_id in broad & names.keys():
            if names[cl_id] not in used:
                expected.pop(names[cl_id], None)
    return expected


def relatives(
    folders: Sequence[Path], manifests: Sequence[dict[str, Any]], cl_ids: dict[str, str]
) -> dict[str, frozenset[str]]:
    """For each label with a Cell Ontology id: the labels that are the same, its ancestors or its descendants.

    cl_ids: the ids of this sample's labels, broad ones too; those of the models' own are taken from the manifests.
    """
    ids = {label: cl_id for label, cl_id in cl_ids.items() if cl_id}
    above: dict[str, set[str]] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        for entry in manifest.get("labels") or []:
            if entry.get("cl_id"):
                ids.setdefault(str(entry.get("label")), str(entry["cl_id"]))
        for cl_id, term in read_optional(folder / "ontology.json").get("terms", {}).items():
            above.setdefault(cl_id, {cl_id}).update(term["ancestors"])
    return {
        label: frozenset(
            other
            for other, other_id in ids.items()
            if other_id in above.get(cl_id, {cl_id}) or cl_id in above.get(other_id, {other_id})
        )
        for label, cl_id in ids.items()
    }


def read_optional(path: Path) -> dict[str, Any]:
    """A JSON file of a model folder; {} where the model has none, as those made by others."""
    return dict(read_json(path)) if path.is_file() else {}


def model_parts(
    annotation: dict[str, Any],
    obs: pd.DataFrame,
    umap: np.ndarray | None,
    colours: dict[str, str],
    manifests: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """What the page shows of several models; empty for one.

    umap: (n_obs, 2), the consensus's, on which each model's final labels are drawn.
    """
    models = annotation.get("models") or []
    if not models:
        return {}
    said = annotation.get("agreement") or {}
    rows: list[dict[str, Any]] = []
    maps: list[tuple[str, str]] = []
    for info, manifest in zip(models, manifests, strict=True):
        title = f"{info['model']['name']} {info['model']['version']}".strip()
        final = obs[info["names"]["final"]].astype(str).to_numpy(dtype=object)
        if umap is not None and len(maps) < MAPS_SHOWN:
            more = [name for name in np.unique(final.astype(str)).tolist() if name not in colours]
            beside = other_colours(more, colours)
            png = figures.umap_by_category(umap, final, beside | colours, **figures.SMALL)
            maps.append((title, data_uri(png)))
        rows.append(
            {
                "title": title,
                "kind": info["model"]["kind"],
                "n_labels": len(manifest.get("labels") or []) or None,
                "found": info["n_genes_found"],
                "of": info["n_model_genes"],
                "overlap": info["gene_overlap"],
                "unassigned": info["unassigned"] / max(info["n_cells"], 1),
                "uncertainty": f"{info['median_uncertainty']:.2f}",
                "licence": str(manifest.get("licence") or ""),
                "sha256": info["model"]["sha256"],
                "url": info["model"]["url"],
                "column": info["names"]["final"],
            }
        )
    titles = [row["title"] for row in rows]
    return {
        "rows": rows,
        "maps": maps,
        "pairs": [
            {
                "names": [titles[i] for i in pair["models"]],
                **{key: pair[key] for key in ("same", "broader", "contradict")},
            }
            for pair in said.get("pairs") or []
        ],
        "labels": said.get("labels") or [],
    }
