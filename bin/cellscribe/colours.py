"""Colours of labels and clusters, the same ones in every figure and on every page."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cellscribe.contract import UNASSIGNED

# The first eight after Okabe & Ito and Paul Tol; each next one as far as possible (OKLab) from those before,
# seen with normal vision, deuteranopia and protanopia (Machado et al. 2009). No greys: those are unassigned.
# fmt: off
PALETTE = (
    "#4477AA", "#E69F00", "#228B73", "#CC6677", "#56B4E9", "#882255", "#B8A53A", "#7B61C9", "#24E4B4",
    "#845400", "#3C3CA8", "#A87800", "#9084FC", "#F078B4", "#0C5478", "#54D8F0", "#C0CC78", "#CCA884",
    "#904854", "#A86048", "#306C78", "#783C24", "#A878CC", "#60549C", "#E4C000", "#48A8A8", "#C08454",
    "#4878F0", "#3C54C0", "#D88484", "#F084E4", "#846C00", "#60849C", "#6CCCC0", "#A89000", "#FC9060",
)
# fmt: on
UNASSIGNED_COLOUR = "#C9CDD2"


def label_colours(labels: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Give each label its colour, the same one in every figure.

    labels: those of this sample, the largest first. known: the model's, in its own order; where they are few
    enough they keep their colours from page to page, as does a broader name, whose place behind them comes of its
    letters: the next free one where another broader name of the page has it. `unassigned` is grey.
    """
    names = list(dict.fromkeys(label for label in labels if label != UNASSIGNED))
    own = list(dict.fromkeys(label for label in known if label != UNASSIGNED))
    broader = sorted(set(names) - set(own))
    if not own or len(own) + len(broader) > len(PALETTE):
        colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    else:
        colours = dict(zip(own, PALETTE, strict=False))
        free = PALETTE[len(own) :]
        for name in broader:
            place = zlib.crc32(name.encode()) % len(free)
            while free[place] in colours.values():
                place = (place + 1) % len(free)
            colours[name] = free[place]
    return {**colours, UNASSIGNED: UNASSIGNED_COLOUR}


def labels_said(said: Mapping[str, Any]) -> list[str]:
    """The labels that a model can give, in its order, as uns tells them of an annotation; [] where it does not."""
    labels = said.get("labels", ())
    return [str(label) for label in ([] if isinstance(labels, str) else labels)]


def other_colours(names: Sequence[str], taken: Mapping[str, str]) -> dict[str, str]:
    """Colours for what lies beside labels on a map of its own, as clusters, from behind those of the labels on.

    So that a cluster does not look as if it were a label. names: the largest first. taken: the labels' colours.
    """
    used = set(taken.values())
    free = [colour for colour in PALETTE if colour not in used]
    # Where labels take all or nearly all, the order is another one at least.
    order = free + [colour for colour in reversed(PALETTE) if colour in used]
    return {name: order[i % len(order)] for i, name in enumerate(names)}


def cluster_colours(cluster: np.ndarray, taken: Mapping[str, str], no_cluster: str = "") -> dict[str, str]:
    """`other_colours` of clusters, of ones of the same size in the order of their names; `no_cluster` is grey.

    cluster: text (n_cells,), each cell's. taken: the labels' colours. no_cluster: what stands for that of cells that
    are in none; "" where all are in one.
    """
    names, sizes = np.unique(cluster.astype(str), return_counts=True)
    largest_first = names[np.argsort(-sizes, kind="stable")].tolist()
    colours = other_colours([name for name in largest_first if name != no_cluster], taken)
    return colours | ({no_cluster: UNASSIGNED_COLOUR} if no_cluster else {})
