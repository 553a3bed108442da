"""That what REPORT says of a label's genes is of the sample's own mixture of cells, where it tests a draw of them."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from report_factory import cells_named

from cellscribe import differential, report_evidence

N_RARE, RARE_EACH = 40, 25


@pytest.fixture(scope="module")
def many_rare() -> anndata.AnnData:
    """10,000 cells: of A and of B 4,500, and 40 types of 25. `g0` is higher in A than in B, and highest in the rare."""
    generator = np.random.default_rng(0)
    rare = np.repeat([f"rare {i:02d}" for i in range(N_RARE)], RARE_EACH)
    labels = generator.permutation(np.concatenate([np.repeat(["A", "B"], 4500), rare]))
    rates = np.full((len(labels), 20), 2.0)
    rates[:, 0] = np.select([labels == "A", labels == "B"], [1.0, 0.1], 4.0)
    # Each rare type has a gene of its own.
    rates[:, 1] = np.where(labels == "rare 00", 8.0, 0.02)
    return anndata.AnnData(
        X=sp.csr_matrix(generator.poisson(rates).astype(np.float32)),
        obs=pd.DataFrame({"cell_type": labels}, index=[f"cell{i}" for i in range(len(labels))]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(20)]),
    )


def row_of(adata: anndata.AnnData, label: str, gene: str) -> dict[str, Any]:
    cells = cells_named(adata.obs["cell_type"])
    evidence = report_evidence.marker_evidence(adata, cells, {}, "gene_ids", final_key="cell_type")
    table = evidence.differential
    (row,) = table[(table["group"] == label) & (table["gene"] == gene)].to_dict("records")
    return dict(row)


@pytest.mark.parametrize(("label", "gene"), [("A", "g0"), ("B", "g0"), ("rare 00", "g0"), ("rare 00", "g1")])
def test_a_draw_tells_of_a_label_against_the_others_as_frequent_as_they_are(
    many_rare: anndata.AnnData, monkeypatch: pytest.MonkeyPatch, label: str, gene: str
) -> None:
    whole = row_of(many_rare, label, gene)
    monkeypatch.setattr(differential, "CELLS_TESTED", 2_000)
    drawn = row_of(many_rare, label, gene)
    assert np.sign(drawn["score"]) == np.sign(whole["score"])
    for column in ("n_in", "n_out", "share_in", "share_out"):
        assert drawn[column] == whole[column]
    assert drawn["log2_fold_change"] == pytest.approx(whole["log2_fold_change"], abs=1e-3)
