"""The pictures of an evaluation: curves, histogram, examples. They take results, never models."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from bcgan_tf.report.findings import SEARCHES
from bcgan_tf.report.style import (
    FAINT,
    INK,
    MARKERS,
    ORANGE,
    SERIES,
    caption_image,
    draw_image,
    escape_mathtext,
    headline,
    label_row,
    legend,
    new_figure,
    save,
    shortened,
    style_axes,
)
from bcgan_tf.report.table import NORMS, eps_text, interval_of, percent

# From this Linf distance on every image reaches the grey one.
GRAY = 0.5
_MARGIN = " margin"
# Of the type below an image.
_INCHES_A_LETTER = 0.058


def figure_name(kind: str, model: str, evaluation: Mapping[str, Any]) -> str:
    """The file name of a picture of one model under one threat model, such as ``examples-...``.

    Args:
        kind: ``"examples"``, ``"curve"``, ``"loss"`` or ``"distances"``.
        model: its name, whatever characters that has.
        evaluation: ``Evaluation.to_dict()``, or its ``suite``, ``norm`` and ``eps`` alone.
    """
    eps = evaluation.get("eps")
    radius = "unbounded" if eps is None else f"{eps:.4g}"
    parts = (kind, model, evaluation.get("suite") or "attacks", evaluation.get("norm", ""), radius)
    wanted = "-".join(map(str, parts))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", wanted)
    if name == wanted:
        return f"{name}.png"
    # Two names must not meet in one file because of the characters that they lost.
    return f"{name}-{zlib.crc32(wanted.encode(errors='surrogatepass')):08x}.png"


def robust_accuracy_curves(
    curves: Mapping[str, Sequence[Sequence[float]]],
    path: Path,
    *,
    norm: str = "linf",
    largest_class: float | None = None,
    measured: Mapping[str, tuple[float, float, tuple[float, float]]] | None = None,
) -> Path:
    """Robust accuracy over eps, one line a model, with both ends that are known beforehand.

    Args:
        curves: model to pairs of eps, from 0, and robust accuracy; at eps 0 it is the clean one.
        path: the PNG to write.
        norm: of eps, ``"linf"`` or ``"l2"``.
        largest_class: share of the most frequent class, drawn as the bound that no model exceeds
            from Linf 0.5 on; None: no line.
        measured: model to eps, worst case and its 95 % interval of an evaluation, drawn as a point.
    """
    figure = new_figure(7.2, 3.3)
    axes = figure.add_subplot()
    end = max((point[0] for curve in curves.values() for point in curve), default=0.0)
    for number, (model, curve) in enumerate(curves.items()):
        color = SERIES[number % len(SERIES)]
        eps, left = np.asarray(curve, float).T
        label = model
        if len(curves) == 1:
            label = f"{model}: smallest perturbation found"
            # Beside the point, the text would lie where the interval at a small eps is drawn.
            label += f"; clean {percent(left[0])}" if eps[0] == 0 else ""
        axes.plot(eps, left, color=color, linewidth=1.8, label=label)
        if eps[0] == 0:
            axes.plot([0], [left[0]], "o", color=color, markersize=6, clip_on=False, zorder=4)
        if measured and model in measured:
            at, share, (low, high) = measured[model]
            beside = at + _aside(number, len(curves), end)
            bars = axes.errorbar(
                [beside], [share], [[max(share - low, 0.0)], [max(high - share, 0.0)]],
                fmt="D", color=color if len(curves) > 1 else ORANGE, markersize=5, capsize=4,
                zorder=5,
            )  # fmt: skip
            if not number:
                bars.set_label("worst case of the attacks, 95 % interval")
            end = max(end, at)
    if norm == "linf" and largest_class is not None:
        # The line needs room to be seen where the curve ends at 0.5.
        end = max(end, GRAY * 1.15)
        axes.plot(
            [GRAY, end], [largest_class] * 2, "--", color=INK, linewidth=1.6,
            label=f"bound from eps 0.5 on: largest class, {percent(largest_class)}",
        )  # fmt: skip
        axes.axvline(GRAY, color=FAINT, linewidth=0.8)
    _style_over_eps(axes, norm, "robust accuracy", ncols=1 if len(curves) < 3 else 2)
    axes.set_xlim(0, end or 1.0)
    return save(figure, path)


def _aside(number: int, count: int, span: float) -> float:
    """How far one of ``count`` intervals at the same eps is moved, so that none hides another."""
    return (number - (count - 1) / 2) * 0.008 * span


def _style_over_eps(axes: Axes, norm: str, y: str, *, ncols: int) -> None:
    style_axes(axes, x=f"eps ({NORMS[norm]}, in [0, 1] pixel units)", y=y)
    axes.set_ylim(-0.02, 1.09)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend(axes, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=ncols)


def radii_curves(radii: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Accuracy under one attack over its radii, with 95 % intervals, one line a model.

    Args:
        radii: model to its ``radii`` in metrics.json, all of one norm.
        path: the PNG to write.
    """
    figure = new_figure(7.2, 3.3)
    axes = figure.add_subplot()
    end = max(point["eps"] for found in radii.values() for point in found["points"])
    for number, (model, found) in enumerate(radii.items()):
        points = sorted(found["points"], key=lambda point: point["eps"])
        shares = np.array([point["accuracy"] for point in points], float)
        ends = [interval_of(point) or (point["accuracy"],) * 2 for point in points]
        low, high = np.array(ends, float).reshape(-1, 2).T
        axes.errorbar(
            [point["eps"] + _aside(number, len(radii), end) for point in points],
            shares,
            np.maximum([shares - low, high - shares], 0.0),
            fmt=f"{MARKERS[number % len(MARKERS)]}-",
            color=SERIES[number % len(SERIES)],
            linewidth=1.6,
            markersize=5,
            capsize=4,
            label=model,
        )
    norm = next(iter(radii.values()))["norm"]
    _style_over_eps(axes, norm, "accuracy under attack", ncols=len(radii))
    # The intervals at eps 0 stay clear of the axis and its labels.
    axes.set_xlim(-0.03 * end, 1.03 * end or 1.0)
    return save(figure, path)


def loss_against_iteration(curves: Mapping[str, Any], path: Path) -> Path:
    """Mean cross entropy (left) and mean margin (right) of each run of gradient ascent.

    Args:
        curves: what :func:`bcgan_tf.diagnosis.loss_curves.loss_curves` returns.
        path: the PNG to write.
    """
    names = loss_series(curves)
    figure = new_figure(9.2, 3.0)
    titles = ("mean cross entropy (nats)", "mean margin (logits)")
    for position, (title, ending) in enumerate(zip(titles, ("", _MARGIN), strict=True)):
        axes = figure.add_subplot(1, 2, position + 1)
        for number, name in enumerate(names):
            values = np.asarray(curves.get(name + ending, []), float)  # None becomes NaN: a gap
            steps = np.asarray(curves["iterations"][: len(values)])
            # The short runs on top of the long one, told apart by more than color.
            axes.plot(
                steps, values, ("-", "--", ":", "-.")[number % 4], linewidth=1.8,
                color=SERIES[number % len(SERIES)], label=name, zorder=5 - number,
            )  # fmt: skip
            if len(values):
                axes.plot(
                    steps[-1:], values[-1:], MARKERS[number % len(MARKERS)], markersize=5,
                    color=SERIES[number % len(SERIES)], zorder=6,
                )  # fmt: skip
        style_axes(axes, x="iteration", y=title)
        axes.set_xlim(left=0)
        if ending:
            axes.axhline(0, color=INK, linewidth=0.8)
            axes.annotate(
                "wrong above, right below",
                (1, 0), xycoords=("axes fraction", "data"), xytext=(-2, 3),
                textcoords="offset points", fontsize=7, color=INK, ha="right",
            )  # fmt: skip
        else:
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            # A line at exactly 0 must not vanish in the frame.
            low, high = axes.get_ylim()
            axes.set_ylim(low - 0.04 * (high - low), high if high - low > 1e-6 else 1.0)
            legend(axes, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
    return save(figure, path)


def loss_series(curves: Mapping[str, Any]) -> list[str]:
    """The names of the runs in a dict of loss curves."""
    return [
        name
        for name, values in curves.items()
        if isinstance(values, list) and name != "iterations" and not name.endswith(_MARGIN)
    ]


def distance_histogram(
    bins: Mapping[str, Any], path: Path, *, norm: str = "linf", eps: float | None = None
) -> Path:
    """How far the nearest adversarial example of each image is, one panel a reading.

    Args:
        bins: what :func:`bcgan_tf.report.distances.distance_bins` returns.
        path: the PNG to write.
        norm: of the distances.
        eps: of the threat model, drawn as a line.
    """
    edges, readings = np.asarray(bins["edges"], float), bins["readings"]
    figure = new_figure(7.2, 0.5 + 1.15 * len(readings))
    grid = figure.subplots(len(readings), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for number, (axes, (name, found)) in enumerate(zip(grid, readings.items(), strict=True)):
        axes.bar(
            edges[:-1], found["counts"], np.diff(edges), align="edge",
            color=SERIES[number % len(SERIES)], linewidth=0,
        )  # fmt: skip
        last = number == len(readings) - 1
        style_axes(
            axes, y="images", x=f"{NORMS[norm]} distance, in [0, 1] pixel units" if last else ""
        )
        aside = (
            f"{SEARCHES.get(name, (name,))[0]}\n"
            f"misclassified as they are: {found['misclassified']:,}\n"
            f"nothing found: {found['not_found']:,}"
        )
        axes.text(
            1.01, 0.98, escape_mathtext(aside), transform=axes.transAxes, fontsize=7.5, color=INK,
            va="top", ha="left",
        )  # fmt: skip
        if eps is not None and eps <= edges[-1]:
            axes.axvline(eps, color=ORANGE, linewidth=1.4)
            if not number:
                axes.annotate(
                    f"eps {eps_text(eps)}", (eps, 1), xycoords=("data", "axes fraction"),
                    xytext=(3, -8), textcoords="offset points", fontsize=7.5, color=ORANGE,
                )  # fmt: skip
    return save(figure, path)


def example_images(
    images: np.ndarray,
    adversarials: np.ndarray,
    path: Path,
    *,
    labels: Sequence[str],
    predictions: Sequence[str],
    clean_predictions: Sequence[str] | None = None,
    attacks: Sequence[str] = (),
    title: str = "",
) -> Path:
    """Test images, what an attack made of them, and the difference, amplified around grey.

    Below the first row stand the true class and the model's answer, below the second the attack
    and the answer then; answers that are wrong are starred and framed.

    Args:
        images: ``[N, H, W, C]``, float in [0, 1]; a column each. Vectors ``[N, D]`` are strips.
        adversarials: the same shape.
        path: the PNG to write.
        labels: the true class names, ``N``.
        predictions: the class names that the model gives for the adversarials, ``N``.
        clean_predictions: those for the images; None: they are right.
        attacks: what broke each image, ``N``, or none at all; ``""``: it was not attacked.
        title: over the figure.
    """
    count = len(images)
    clean = list(labels) if clean_predictions is None else list(clean_predictions)
    change = np.asarray(adversarials, np.float64) - images
    largest = float(np.abs(change).max(initial=0.0))
    factor = 0.5 / largest if largest > 0 else 1.0
    short = [shortened(name) for name in labels]
    seen = [f"class {name}\nanswer {shortened(guess)}"
            for name, guess in zip(short, clean, strict=True)]  # fmt: skip
    told = [f"answer {shortened(guess)}" for guess in predictions]
    if attacks:
        told = [f"{attack or 'not attacked'}\n{text}"
                for text, attack in zip(told, attacks, strict=True)]  # fmt: skip
    lengths = [_length(one) for one in np.abs(change).reshape(count, -1)]
    rows = (
        ("test image", images, seen, clean),
        ("adversarial", adversarials, told, predictions),
        (f"difference,\ntimes {factor:.2g}", 0.5 + factor * change, lengths, labels),
    )
    longest = max(map(len, (text for line in [*seen, *told] for text in line.split("\n"))))
    width = max(1.02, _INCHES_A_LETTER * (longest + 2))
    figure = new_figure(width * count + 1.1, 3 * width + 0.9 + (0.35 if title else 0.0))
    headline(figure, title)
    grid = figure.subplots(3, count, squeeze=False)
    for line, (name, pictures, captions, guesses) in zip(grid, rows, strict=True):
        for number, axes in enumerate(line):
            draw_image(axes, pictures[number])
            wrong = guesses[number] != labels[number]
            caption_image(axes, captions[number], wrong=wrong, fontsize=7)
        label_row(line[0], name)
    return save(figure, path)


def _length(change: np.ndarray) -> str:
    return f"Linf {change.max():.3f}\nL2 {np.sqrt(np.square(change).sum()):.2f}"
