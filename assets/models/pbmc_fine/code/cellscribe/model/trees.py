"""Gradient-boosted trees of a model's file, given to xgboost only as what they must be.

xgboost walks a tree wherever its numbers point, so that a file with a wrong one can end the process or never end. Here
the file is read by a parser of our own; what xgboost loads is written anew from the trees that were found to be whole.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from cellscribe.model.ubjson import parse_ubjson

LARGEST = 2**30
NO_NODE, NO_PARENT = -1, 2**31 - 1
_NUMBER = r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?"


def load_trees(path: Path, n_features: int, n_labels: int) -> Any:
    """An `xgboost.Booster` of `path` (UBJSON), which gives (n_cells, n_labels) for (n_cells, n_features).

    Raises ValueError, KeyError or TypeError where the file is not that of such trees.
    """
    import xgboost

    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size:,} bytes")
    found = whole_trees(parse_ubjson(path.read_bytes()), n_features, n_labels)
    booster = xgboost.Booster()
    booster.load_model(bytearray(json.dumps(found).encode()))
    return booster


def whole_trees(value: Any, n_features: int, n_labels: int) -> dict[str, Any]:
    """The trees of a parsed file in xgboost's own form, with nothing in it but what was checked."""
    learner = value["learner"]
    if learner["objective"]["name"] != "multi:softprob" or learner["gradient_booster"]["name"] != "gbtree":
        raise ValueError("these are no trees that give a probability for each label")
    sizes = learner["learner_model_param"]
    if (int(sizes["num_feature"]), int(sizes["num_class"])) != (n_features, n_labels):
        raise ValueError(
            f"they are for {sizes['num_feature']} dimensions and {sizes['num_class']} labels, and the model has "
            f"{n_features} and {n_labels}"
        )
    model = learner["gradient_booster"]["model"]
    trees = [_whole_tree(tree, number, n_features) for number, tree in enumerate(model["trees"])]
    labels = _integers(model["tree_info"], len(trees), 0, n_labels)
    rounds = [int(end) for end in model["iteration_indptr"]]
    if not trees or rounds[0] != 0 or rounds[-1] != len(trees) or sorted(rounds) != rounds:
        raise ValueError("its rounds are not those of its trees")
    return {
        "version": [int(part) for part in model_version(value)],
        "learner": {
            "attributes": {},
            "feature_names": [],
            "feature_types": [],
            "learner_model_param": {
                "base_score": _base_score(sizes["base_score"], n_labels),
                "boost_from_average": "1",
                "num_class": str(n_labels),
                "num_feature": str(n_features),
                "num_target": "1",
            },
            "objective": {
                "name": "multi:softprob",
                "softmax_multiclass_param": {"num_class": str(n_labels)},
            },
            "gradient_booster": {
                "name": "gbtree",
                "model": {
                    "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
                    "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
                    "iteration_indptr": rounds,
                    "tree_info": labels.tolist(),
                    "trees": trees,
                },
            },
        },
    }


def model_version(value: Any) -> list[int]:
    """The release of xgboost that wrote the trees, which tells it how to read them."""
    parts = [int(part) for part in value["version"]]
    if len(parts) != 3 or not all(0 <= part < 100 for part in parts):
        raise ValueError(f"{parts} is no release of xgboost")
    return parts


def _base_score(text: Any, n_labels: int) -> str:
    """Where every label starts, as xgboost writes it: one number, or one a label in brackets."""
    numbers = re.findall(_NUMBER, str(text))
    listed = f"[{','.join(numbers)}]"
    if str(text) not in (listed, *numbers) or len(numbers) not in (1, n_labels):
        raise ValueError(f"{str(text)[:40]!r} is no score to start from")
    if not np.isfinite([float(number) for number in numbers]).all():
        raise ValueError("the scores to start from are not finite")
    return str(text)


def _whole_tree(tree: Any, number: int, n_features: int) -> dict[str, Any]:
    """One tree in which every node but the root is a child, and of one node: no path comes back."""
    n = len(tree["left_children"])
    if not n:
        raise ValueError(f"tree {number} has no node")
    left, right = (_integers(tree[side], n, NO_NODE, n) for side in ("left_children", "right_children"))
    inner = left != NO_NODE
    children = np.concatenate([left[inner], right[inner]])
    if (inner != (right != NO_NODE)).any() or (children == 0).any() or len(np.unique(children)) < n - 1:
        raise ValueError(f"the nodes of tree {number} are no tree")
    features = np.asarray(tree["split_indices"])
    if len(features) != n or not ((features[inner] >= 0) & (features[inner] < n_features)).all():
        raise ValueError(f"tree {number} asks for a dimension that is not there")
    features = np.where(inner, features, 0)
    conditions = np.asarray(tree["split_conditions"], dtype=np.float32)
    if conditions.shape != (n,) or not np.isfinite(conditions).all():
        raise ValueError(f"tree {number} has a value that is no number")
    if any(int(kind) for kind in tree.get("split_type", ())):
        raise ValueError(f"tree {number} splits by categories")
    parents = np.full(n, NO_PARENT, dtype=np.int64)
    parents[left[inner]] = parents[right[inner]] = np.flatnonzero(inner)
    zeros = [0.0] * n
    return {
        "id": number,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(n_features),
            "num_nodes": str(n),
            "size_leaf_vector": "1",
        },
        "left_children": left.tolist(),
        "right_children": right.tolist(),
        "parents": parents.tolist(),
        "split_indices": features.tolist(),
        "split_conditions": conditions.astype(float).tolist(),
        "split_type": [0] * n,
        "default_left": _integers(tree["default_left"], n, 0, 2).tolist(),
        "base_weights": zeros,
        "loss_changes": zeros,
        "sum_hessian": zeros,
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
    }


def _integers(values: Any, n: int, least: int, beyond: int) -> np.ndarray:
    """Whole numbers from `least` up to, but without, `beyond`: int64 (n,)."""
    numbers = np.asarray(values)
    if numbers.shape != (n,) or (n and numbers.dtype.kind not in "iu"):
        raise ValueError(
            f"{numbers.shape} values of kind {numbers.dtype} where {n:,} whole numbers are needed"
        )
    if n and (numbers.min() < least or numbers.max() >= beyond):
        raise ValueError(f"a number is not from {least} to {beyond - 1}")
    return numbers.astype(np.int64)
