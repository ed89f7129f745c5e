"""The pictures of a report. They take results, never models, and return the PNG they wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bcgan_tf.report.style import (
    INK,
    MARKERS,
    SERIES,
    draw_image,
    escape_mathtext,
    headline,
    legend,
    new_figure,
    save,
    shortened,
    style_axes,
)

Curve = Sequence[tuple[int, float]]
_VALIDATION = "val_"
# About the size of an image and of the gap between two, in a grid's pixels.
_CELL_PIXELS = 88
_GAP_PIXELS = 6


def curves(stage: Mapping[str, Curve], path: Path, *, title: str = "") -> Path:
    """Training curves of one stage: accuracies on the left, all other metrics on the right.

    Args:
        stage: metric to ``[(epoch, value), ...]``, as ``History.read()[stage]`` has them; a
            metric ``val_x`` is drawn dashed in the color of ``x``.
        path: the PNG to write.
        title: over the figure.
    """
    plain = list(dict.fromkeys(name.removeprefix(_VALIDATION) for name in stage))
    groups = {
        "accuracy": [name for name in plain if "accuracy" in name],
        "value": [name for name in plain if "accuracy" not in name],
    }
    groups = {label: names for label, names in groups.items() if names}
    figure = new_figure(4.6 * max(len(groups), 1), 2.6)
    headline(figure, title, fontsize=11)
    for position, (label, names) in enumerate(groups.items()):
        axes = figure.add_subplot(1, len(groups), position + 1)
        for number, name in enumerate(names):
            _curve(axes, stage, name, number)
        style_axes(axes, x="epoch", y="accuracy" if label == "accuracy" else "loss and other terms")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if label == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        legend(axes, ncols=1 if len(names) < 4 else 2)
    return save(figure, path)


def _curve(axes: Axes, stage: Mapping[str, Curve], name: str, number: int) -> None:
    color, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
    for key, line in ((name, "-"), (_VALIDATION + name, "--")):
        if points := stage.get(key):
            label = name if key == name else f"{name} (validation)"
            axes.plot(
                [epoch for epoch, _ in points],
                [value for _, value in points],
                line,
                color=color,
                marker=marker,
                markersize=3.5 if len(points) < 30 else 0,
                linewidth=1.6,
                label=label.replace("_", " "),
            )


def image_grid(
    images: np.ndarray,
    path: Path,
    *,
    columns: int | None = None,
    row_labels: Sequence[str] = (),
    title: str = "",
) -> Path:
    """Images in rows, left to right.

    Args:
        images: ``[N, H, W, 1 or 3]``, uint8 or float in [0, 1]; or vectors ``[N, D]``, which are
            drawn as strips of grey. At least one.
        path: the PNG to write.
        columns: images a row; by default about as many as rows.
        row_labels: a name before each row, cut where it is long, or none at all.
        title: over the figure.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    cell = 0.62 if len(images) > 60 else 0.8
    label = 0.9 if row_labels else 0.0
    top = 0.35 if title else 0.05
    figure = new_figure(columns * cell + label + 0.1, rows * cell + top)
    headline(figure, title)
    _mosaic(figure, images, rows, columns, row_labels)
    return save(figure, path)


def _mosaic(
    figure: Figure, images: np.ndarray, rows: int, columns: int, row_labels: Sequence[str]
) -> None:
    """All images as one: axes of their own would cost a second for a hundred, every epoch."""
    pixels = np.asarray(images)
    pixels = pixels[:, None, :, None] if pixels.ndim == 2 else pixels
    top = 255 if np.issubdtype(pixels.dtype, np.integer) else 1.0
    height, width, channels = pixels.shape[1:]
    enlarged = max(1, round(_CELL_PIXELS / max(height, width)))
    tall, wide = (height * enlarged, width * enlarged)
    step_y, step_x = tall + _GAP_PIXELS, wide + _GAP_PIXELS
    canvas = np.ones((rows * step_y, columns * step_x, channels))
    for number, image in enumerate(pixels):
        y, x = (number // columns) * step_y, (number % columns) * step_x
        block = np.clip(image / top, 0, 1).repeat(enlarged, axis=0).repeat(enlarged, axis=1)
        canvas[y : y + tall, x : x + wide] = block
    axes = figure.subplots()
    axes.set_axis_off()
    draw_image(axes, canvas)
    for number, text in enumerate(row_labels):
        axes.text(
            -_GAP_PIXELS,
            number * step_y + tall / 2,
            escape_mathtext(shortened(text)),
            ha="right",
            va="center",
            fontsize=8,
            color=INK,
        )
