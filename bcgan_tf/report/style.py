"""How every figure looks, and how it reaches the disk: the same bytes for the same numbers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bcgan_tf.files import replace_file

# Okabe and Ito's colors: they stay apart in every common form of color blindness.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, YELLOW, BLACK = "#56B4E9", "#E69F00", "#F0E442", "#222222"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, BLACK, "#7F7F7F")
MARKERS = "osD^vPX*"
INK, FAINT = "#333333", "#C9CDD2"
DOTS_PER_INCH = 150
# Letters of a class's name beside or below an image.
_LONGEST_NAME = 16


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of so many inches; no window, no global state."""
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def escape_mathtext(text: object) -> str:
    """Text for Matplotlib in which ``$`` is a dollar sign and begins no formula.

    Every name that a user chose (of a class, a model, a data set) goes through here before it is
    drawn. A character that cannot be printed becomes a question mark.
    """
    drawn = "".join(c if c.isprintable() or c == "\n" else "?" for c in str(text))
    return drawn.replace("$", r"\$")


def shortened(name: str) -> str:
    """A class's name that fits beside or below an image."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\u2026"


def headline(figure: Figure, title: str, *, fontsize: float = 10) -> None:
    """A title over the whole figure; none where it is empty."""
    if title:
        figure.suptitle(escape_mathtext(title), x=0.01, ha="left", fontsize=fontsize, color=INK)


def style_axes(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> Axes:
    """Sets the title, the labels (with units), the grid and a quiet frame."""
    axes.set_title(escape_mathtext(title), loc="left", fontsize=10, color=INK, fontweight="bold")
    axes.set_xlabel(escape_mathtext(x), fontsize=9, color=INK)
    axes.set_ylabel(escape_mathtext(y), fontsize=9, color=INK)
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
    names = [escape_mathtext(label) for label in labels]
    axes.legend(handles, names, frameon=False, fontsize=8, labelcolor=INK, **options)


def draw_image(axes: Axes, image: np.ndarray) -> None:
    """Draws ``[H, W, 1 or 3]`` or ``[H, W]``, uint8 or float in [0, 1]; ``[D]`` is a strip."""
    image = np.asarray(image)
    pixels = image[None] if image.ndim == 1 else image
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    top = 255 if np.issubdtype(pixels.dtype, np.integer) else 1.0
    if pixels.ndim == 3:
        axes.imshow(np.clip(pixels / top, 0, 1), interpolation="nearest")
    else:
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def caption_image(axes: Axes, caption: str, *, wrong: bool, fontsize: float = 8) -> None:
    """Writes a caption below an image; starred and framed where the answer is wrong."""
    axes.set_xlabel(
        escape_mathtext(f"{caption} *" if wrong else caption),
        fontsize=fontsize,
        color=ORANGE if wrong else INK,
        labelpad=2,
    )
    for spine in axes.spines.values():
        spine.set_color(ORANGE if wrong else FAINT)
        spine.set_linewidth(1.8 if wrong else 0.6)


def label_row(first: Axes, name: str) -> None:
    """Writes a row's name left of its first image."""
    first.set_ylabel(
        escape_mathtext(name),
        rotation=0,
        ha="right",
        va="center",
        fontsize=8,
        color=INK,
        labelpad=8,
    )


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return replace_file(path, content.getvalue())
