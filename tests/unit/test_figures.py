import io

import numpy as np
import pytest
from PIL import Image

from cellscribe import figures
from cellscribe.colours import PALETTE, UNASSIGNED_COLOUR, cluster_colours, label_colours, other_colours
from cellscribe.contract import UNASSIGNED
from cellscribe.drawing import as_png, data_uri, printable

HOSTILE = ["$\\frac{1}{0}$", "<script>alert(1)</script>", "_hidden", "細胞\n二", "x" * 300]


def size_of(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


@pytest.fixture
def points():
    return np.random.default_rng(0).normal(size=(200, 2))


def test_labels_keep_their_colours_from_sample_to_sample():
    known = ["B cell", "T cell", "Monocyte"]
    first = label_colours(["Monocyte", UNASSIGNED, "T cell"], known)
    second = label_colours(["T cell", "lymphocyte"], known)
    assert first["T cell"] == second["T cell"]
    assert first[UNASSIGNED] == second[UNASSIGNED] == UNASSIGNED_COLOUR
    assert len({first["Monocyte"], first["T cell"], second["lymphocyte"]}) == 3


def test_broader_names_keep_their_colours_whatever_else_is_on_the_page():
    known = ["B cell", "T cell", "Monocyte"]
    alone = label_colours(["lymphocyte"], known)["lymphocyte"]
    many = label_colours(["mature T cell", "myeloid leukocyte", "T cell", "lymphocyte"], known)
    assert many["lymphocyte"] == alone
    # These two have the same place.
    both = label_colours(["leukocyte", "lymphocyte"], known)
    assert both["leukocyte"] == alone != both["lymphocyte"]
    every = [f"broader {i}" for i in range(33)]
    assert len(set(label_colours(every, known).values())) == 37


def test_the_labels_of_a_sample_differ_even_where_the_model_knows_hundreds():
    known = [f"type {i}" for i in range(300)]
    shown = known[::10]
    colours = label_colours(shown, known)
    assert len({colours[name] for name in shown}) == len(shown)


@pytest.mark.parametrize("n_labels", [3, 30, 36, 60])
def test_clusters_never_have_the_colours_of_labels_in_the_same_order(n_labels):
    labels = label_colours([f"type {i}" for i in range(n_labels)], [])
    clusters = other_colours([str(i) for i in range(20)], labels)
    assert len(clusters) == len(set(clusters.values())) == 20
    assert not any(labels.get(f"type {i}") == clusters[str(i)] for i in range(20))
    assert n_labels > 3 or not set(labels.values()) & set(clusters.values())


def test_colours_of_the_palette_are_all_different_and_none_is_grey():
    assert len(set(PALETTE)) == 36
    for colour in PALETTE:
        channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert max(channels) - min(channels) > 25, colour


def test_hostile_names_are_drawn_as_they_are(points):
    values = np.array(HOSTILE * 40, dtype=object)
    colours = label_colours(HOSTILE, HOSTILE)
    assert size_of(figures.umap_by_category(points, values, colours))[0] > 500
    assert size_of(figures.small_multiples(points, values, colours))[0] > 500
    groups = [figures.DotPlotGroup(name, name, np.ones(5), np.full(5, 0.5)) for name in HOSTILE]
    assert size_of(figures.dot_plot(groups, [(HOSTILE[0], HOSTILE)], colours, 2.0))[0] > 500


def test_control_characters_and_long_names_are_shortened():
    assert printable("a\x00b\nc") == "a b c"
    assert printable("x" * 300, 10) == "x" * 9 + "…"


def test_unassigned_cells_lie_below_the_others(points):
    values = np.array(["B cell"] * 200 + [UNASSIGNED] * 200, dtype=object)
    colours = label_colours(["B cell", UNASSIGNED], [])
    both = figures.umap_by_category(np.vstack([points, points]), values, colours)
    image = np.asarray(Image.open(io.BytesIO(both)).convert("RGB")).reshape(-1, 3).astype(int)

    def pixels(colour: str) -> int:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return int((np.abs(image - wanted).max(axis=1) < 40).sum())

    assert pixels(colours["B cell"]) > 2 * pixels(UNASSIGNED_COLOUR)


def test_each_of_many_labels_has_its_own_colour_in_the_dot_plot():
    labels = [f"type {i}" for i in range(30)]
    colours = label_colours(labels, [])
    shades = np.random.default_rng(0).uniform(size=(30, 60))
    groups = [figures.DotPlotGroup(name, name, shades[i], shades[i]) for i, name in enumerate(labels)]
    png = figures.dot_plot(groups, [(name, ["a", "b"]) for name in labels], colours, 1.0)
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
    for name in labels:
        wanted = [int(colours[name][i : i + 2], 16) for i in (1, 3, 5)]
        assert (image == wanted).all(axis=1).sum() > 20, name


def test_at_most_fifty_thousand_cells_are_drawn_each_once():
    chosen = figures.drawn_cells(200_000)
    assert len(np.unique(chosen)) == len(chosen) == figures.MAX_POINTS
    assert sorted(figures.drawn_cells(10)) == list(range(10))


@pytest.mark.parametrize("n", [1, 2])
def test_a_handful_of_cells_can_be_drawn(n):
    points, values = np.zeros((n, 2)), np.full(n, "B cell", dtype=object)
    colours = label_colours(["B cell"], [])
    assert figures.umap_by_category(points, values, colours, background=np.ones((3, 2)))
    assert figures.umap_by_number(points, np.zeros(n))
    assert figures.histogram(np.ones(n), np.zeros(n, dtype=bool), "uncertainty")


@pytest.mark.parametrize("n", [1, 40])
def test_a_confusion_matrix_is_drawn_of_few_and_of_many_labels_whatever_their_names(n):
    names = [f"$type_{i}$ " + "x" * 60 for i in range(n)]
    shares = np.column_stack([np.eye(n) * 0.9, np.full(n, 0.1)])
    assert len(figures.confusion_plot(shares, names, names)) < 600_000


def test_an_island_of_a_few_cells_is_on_the_map():
    generator = np.random.default_rng(0)
    coordinates = np.vstack([generator.normal(size=(10_000, 2)), generator.normal(12, 0.1, size=(5, 2))])
    values = np.repeat(["many", "few"], [10_000, 5]).astype(object)
    drawn = figures.umap_by_category(
        coordinates, values, {"many": "#1f77b4", "few": "#ff0000"}, width=4, height=3, named=False
    )
    image = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(int)
    red = (image[..., 0] > 200) & (image[..., 1] < 120) & (image[..., 2] < 120)
    assert red.any()


def test_names_are_left_off_a_map_where_they_say_nothing(points):
    values = np.array(["a", "b"] * 100, dtype=object)
    colours = label_colours(["a", "b"], [])
    drawn = [figures.umap_by_category(points, values, colours, named=named) for named in (True, False)]
    assert drawn[0] != drawn[1]


@pytest.fixture
def drawn(monkeypatch):
    """The axes of every figure that is drawn, the last one's last."""
    axes = []
    monkeypatch.setattr(figures, "as_png", lambda figure: (axes.extend(figure.axes), as_png(figure))[1])
    return axes


def test_names_of_few_cells_are_left_to_the_legend(points, drawn):
    values = np.array(["many"] * 190 + ["few"] * 10, dtype=object)
    colours = label_colours(["many", "few"], [])
    for least, names in ((0.0, {"many", "few"}), (0.05, {"many", "few"}), (0.06, {"many"})):
        figures.umap_by_category(points, values, colours, least_share=least)
        assert {text.get_text().strip() for text in drawn[-1].texts} == names


def test_the_note_of_a_histogram_stands_above_its_tallest_bar(drawn):
    values = np.repeat([0.5, 0.97], [20, 180])
    figures.histogram(values, values < 0.6, "distance", line=0.99, note="beyond 99 % of the reference")
    assert drawn[-1].get_ylim()[1] == pytest.approx(1.18 * 180)


def test_the_ends_of_the_fold_change_say_where_genes_lie_beyond_them(drawn):
    fold = np.append(np.linspace(-2, 2, 50), [15.0, 20.0])
    figures.score_plot(
        np.array([f"G{i}" for i in range(52)], dtype=object), fold, 3 * fold, np.ones(52, dtype=bool)
    )
    assert [label.get_text() for label in drawn[-1].get_xticklabels()] == ["−8", "−4", "0", "4", "≥ 8"]
    assert drawn[-1].get_xticks()[[0, -1]].tolist() == [-8, 8]


def test_figures_are_the_same_every_time(points):
    values = np.array(["a", "b"] * 100, dtype=object)
    colours = label_colours(["a", "b"], [])
    assert figures.umap_by_category(points, values, colours) == figures.umap_by_category(
        points, values, colours
    )


def test_a_data_uri_is_a_png():
    uri = data_uri(figures.histogram(np.linspace(0, 1, 50), np.zeros(50, dtype=bool), "x"))
    assert uri.startswith("data:image/png;base64,iVBORw0KGgo")


def test_clusters_of_one_size_have_their_colours_by_name_and_cells_in_none_are_grey():
    labels = label_colours(["B cell"], ["B cell"])
    cluster = np.array(["c", "b", "a", "a", "none", "none", "none"], dtype=object)
    found = cluster_colours(cluster, labels, "none")
    assert found == other_colours(["a", "b", "c"], labels) | {"none": UNASSIGNED_COLOUR}
    assert cluster_colours(cluster, labels) == other_colours(["none", "a", "b", "c"], labels)
