"""How a figure of the report is begun and ended: its style, its ink, its PNG."""

from __future__ import annotations

import base64
import io
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, QUIET, RULE_COLOUR, ACCENT = "#1F2A37", "#5B6675", "#DDE2E8", "#35618E"
DPI = 160


def printable(text: str, longest: int = 30) -> str:
    """Shorten a name from a user to one line that a figure can hold."""
    clean = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in str(text))
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Give a figure, in inches, in the report's style. Names are never read as formulas ($...$)."""
    import logging

    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A name may hold letters that the font lacks; a box in the figure is enough, the tables have the name.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    style: dict[str, Any] = {
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same figure on every machine
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": QUIET,
        "axes.edgecolor": RULE_COLOUR,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
    }
    import warnings

    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        yield figure


def as_png(figure: Figure, most_colours: int | None = None) -> bytes:
    """PNG of a figure, in half the time of matplotlib's own `savefig`. most_colours: at most 256, a third of the size;
    other colours become their nearest.
    """
    from PIL import Image

    figure.canvas.draw()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")  # type: ignore[attr-defined]
    if most_colours:
        drawn = drawn.quantize(most_colours, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", optimize=most_colours is not None)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """Embed a PNG in a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
