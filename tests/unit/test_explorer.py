"""What CELLxGENE Explorer does not show of a file is told."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cellscribe.explorer import explorer_warnings


def test_a_column_with_more_values_than_explorer_shows_is_told_with_what_to_do() -> None:
    obs = pd.DataFrame({"name": [f"cell {i}" for i in range(1001)], "number": np.arange(1001) / 2})
    obs["clone"] = pd.Categorical(np.arange(1001) % 7, categories=range(1200))
    obs["fits"] = pd.Categorical([str(i % 1000) for i in range(1001)])
    (warning,) = explorer_warnings(obs, ["X_umap"])
    assert "'name' (1,001), 'clone' (1,200)" in warning and "--max-category-items 1200" in warning
    assert "fits" not in warning and "number" not in warning
    assert explorer_warnings(obs[["fits", "number"]], []) == []


def test_embeddings_beyond_those_that_explorer_lists_are_told() -> None:
    keys = [f"X_map_{i:02d}" for i in range(31)]
    assert explorer_warnings(pd.DataFrame(), [*keys[:30], "latent"]) == []
    (warning,) = explorer_warnings(pd.DataFrame(), keys)
    assert "map_30" in warning and "map_29" not in warning
