"""How every figure looks, and how it reaches the disk: the same bytes for the same numbers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bcgan_tf.files import replace_file

# Okabe and Ito's colours: they stay apart in every common form of colour blindness.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, YELLOW, BLACK = "#56B4E9", "#E69F00", "#F0E442", "#222222"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, BLACK, "#7F7F7F")
MARKERS = "osD^vPX*"
INK, FAINT = "#333333", "#C9CDD2"
DOTS_PER_INCH = 150


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of so many inches; no window, no global state."""
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def literal(text: object) -> str:
    """For Matplotlib: text in which ``$`` is a dollar sign, and begins no formula.

    For all that is drawn of names that a user chose: of classes, models, data. What cannot be
    printed, which Matplotlib may not know how to draw, is a question mark.
    """
    drawn = "".join(c if c.isprintable() or c == "\n" else "?" for c in str(text))
    return drawn.replace("$", r"\$")


def headline(figure: Figure, title: str, *, fontsize: float = 10) -> None:
    """A title over the whole figure; none where it is empty."""
    if title:
        figure.suptitle(literal(title), x=0.01, ha="left", fontsize=fontsize, color=INK)


def dress(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> Axes:
    """Titles, labels with units, a quiet frame."""
    axes.set_title(literal(title), loc="left", fontsize=10, color=INK, fontweight="bold")
    axes.set_xlabel(literal(x), fontsize=9, color=INK)
    axes.set_ylabel(literal(y), fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    axes.grid(True, color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    return axes


def legend(axes: Axes, **options: Any) -> None:
    """A frameless legend in small type."""
    handles, labels = axes.get_legend_handles_labels()
    names = [literal(label) for label in labels]
    axes.legend(handles, names, frameon=False, fontsize=8, labelcolor=INK, **options)


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return replace_file(path, content.getvalue())
