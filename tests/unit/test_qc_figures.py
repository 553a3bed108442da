from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from cellscribe.doublets import skipped
from cellscribe.qc import Bounds, QcOptions, QcResult, cell_reasons, find_bounds, join_reasons
from cellscribe.qc_figures import KEPT, REMOVED, _kernel_density, _lines, _some, qc_figures, short


def result(n_cells: int, **options: float) -> QcResult:
    rng = np.random.default_rng(0)
    counts = np.round(rng.lognormal(8.2, 0.6, n_cells))
    metrics = pd.DataFrame(
        {
            "total_counts": counts,
            "n_genes_by_counts": np.round(counts**0.85),
            "pct_counts_mt": rng.gamma(3, 1.5, n_cells),
            "pct_counts_ribo": rng.uniform(5, 40, n_cells),
            "pct_counts_hb": np.zeros(n_cells),
        }
    )
    bounds, notes = find_bounds(metrics, QcOptions("s", **options))  # type: ignore[arg-type]
    reasons = join_reasons(cell_reasons(metrics, bounds))
    return QcResult(metrics, bounds, skipped(n_cells, 0.01, ""), reasons, notes)


def has_colour(png: bytes, colour: str) -> bool:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3).astype(int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(pixels - wanted).max(axis=1) <= 12).any())


@pytest.mark.parametrize("n_cells", [1, 2, 50, 60_000])
def test_three_small_readable_figures_for_any_number_of_cells(n_cells: int) -> None:
    figures = qc_figures("s", result(n_cells))
    assert set(figures) == {"violin", "knee", "scatter"}
    for png in figures.values():
        assert len(png) < 120_000
        assert Image.open(io.BytesIO(png)).width >= 700


def test_removed_cells_and_bounds_stand_out() -> None:
    figures = qc_figures("s", result(300, min_counts=2000))
    assert all(has_colour(png, REMOVED) for png in figures.values())
    assert has_colour(figures["knee"], KEPT)


def test_nothing_is_drawn_as_removed_where_nothing_is_bounded() -> None:
    figures = qc_figures("s", result(300, n_mads=0, n_mads_mt=0))
    narrow = Image.open(io.BytesIO(figures["knee"])).convert("RGB")
    # the legend keeps its dot, the plot itself has none
    buffer = io.BytesIO()
    narrow.crop((0, int(0.1 * narrow.height), narrow.width, narrow.height)).save(buffer, "PNG")
    assert not has_colour(buffer.getvalue(), REMOVED)


def test_a_share_that_was_not_measured_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    draw = Axes.set_title
    monkeypatch.setattr(
        Axes, "set_title", lambda self, text, **options: (titles.append(text), draw(self, text, **options))[1]
    )
    found = result(50)
    drawn = qc_figures("s", replace(found, mt_known=False))
    assert titles == ["Counts", "Genes", "Ribosomal %", "Haemoglobin %"]
    assert has_colour(drawn["scatter"], KEPT) and not has_colour(qc_figures("s", found)["scatter"], KEPT)


def test_the_same_sample_gives_the_same_bytes() -> None:
    assert qc_figures("s", result(100)) == qc_figures("s", result(100))


def test_hostile_names_are_drawn_as_they_are() -> None:
    assert qc_figures("$\\frac{1}{$ <b>漢字\n" + "x" * 300, result(30))


def test_cells_without_counts_can_be_drawn() -> None:
    empty = result(30)
    empty.metrics.loc[0, ["total_counts", "n_genes_by_counts"]] = 0
    assert qc_figures("s", empty)


def test_a_thinned_figure_keeps_the_share_of_removed_cells() -> None:
    passes = np.arange(100_000) % 10 != 0
    rows = _some(passes, np.random.default_rng(0), 5_000)
    assert len(rows) == 5_000
    assert (~passes[rows]).mean() == pytest.approx(0.1, abs=0.001)


def test_a_bound_that_no_cell_comes_near_is_named_only_where_the_user_set_it() -> None:
    ends = (500.0, 40_000.0)
    assert _lines(Bounds(14.5, 949_312.0, "mad", "mad"), ends) == []
    assert _lines(Bounds(14.5, 20_000.0, "fixed", "mad"), ends) == [
        (False, 14.5, False, "≥ 14.5 (set)"),
        (True, 20_000.0, True, "≤ 20k"),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(7.81, "7.81"), (692.3, "692"), (1_420, "1.4k"), (21_915, "22k"), (949_312, "949k"), (1.2e6, "1.2M")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_the_density_is_scipys() -> None:
    from scipy.stats import gaussian_kde

    values = np.random.default_rng(0).normal(2, 3, 500)
    grid = np.linspace(-8, 12, 200)
    np.testing.assert_allclose(_kernel_density(values, grid), gaussian_kde(values)(grid), rtol=1e-9)
