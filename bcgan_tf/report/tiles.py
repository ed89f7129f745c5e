"""One image in a figure: drawn, named, and framed where a model is wrong about it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from bcgan_tf.report.style import FAINT, INK, ORANGE, literal


def picture(axes: Axes, image: np.ndarray) -> None:
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


def judge(axes: Axes, caption: str, *, wrong: bool, fontsize: float = 8) -> None:
    """Writes a caption below an image; starred and framed where the answer is wrong."""
    axes.set_xlabel(
        literal(f"{caption} *" if wrong else caption),
        fontsize=fontsize,
        color=ORANGE if wrong else INK,
        labelpad=2,
    )
    for spine in axes.spines.values():
        spine.set_color(ORANGE if wrong else FAINT)
        spine.set_linewidth(1.8 if wrong else 0.6)


def name_row(first: Axes, name: str) -> None:
    """Writes a row's name left of its first image."""
    first.set_ylabel(
        literal(name), rotation=0, ha="right", va="center", fontsize=8, color=INK, labelpad=8
    )
