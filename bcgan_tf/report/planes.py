"""Pictures of decision boundaries: planes through an image (figure 4), the 2-D toy (figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from bcgan_tf.report.style import (
    BLUE,
    INK,
    ORANGE,
    YELLOW,
    escape_mathtext,
    headline,
    new_figure,
    save,
    shortened,
    style_axes,
)

# Light enough for dark letters on top; classes past the last begin anew and are told apart by name.
_TINTS = (
    "#9ecae1", "#fdbe85", "#a8ddb5", "#e7b8d4", "#fff2a8",
    "#c7c1e3", "#d9d9d9", "#f4a8a0", "#b7e4dd", "#d8c7a9",
)  # fmt: skip
# A region smaller than this share of the plane gets no name.
_NAMED_SHARE = 0.01


class Plane(Protocol):
    """What is drawn of ``bcgan_tf.perturbation.boundary_plane.BoundaryPlane``."""

    @property
    def u(self) -> np.ndarray: ...
    @property
    def v(self) -> np.ndarray: ...
    @property
    def class_map(self) -> np.ndarray: ...
    @property
    def margin(self) -> np.ndarray: ...
    @property
    def used_margin_gradient(self) -> bool: ...
    @property
    def boundary_distance(self) -> float | None: ...


def boundary_planes(
    planes: Mapping[str, Mapping[str, Plane]],
    path: Path,
    *,
    class_names: Sequence[str],
    title: str = "",
    axes_names: Mapping[str, tuple[str, str]] | None = None,
) -> Path:
    """Predicted classes on planes through one image, models side by side.

    Args:
        planes: kind of plane, such as ``"directions of original"``, to model to plane: a row each.
        path: the PNG to write.
        class_names: of the classes in the maps.
        title: over the figure.
        axes_names: kind of plane to what ``u`` and ``v`` stand for.
    """
    models = list(dict.fromkeys(model for row in planes.values() for model in row))
    figure = new_figure(3.5 * len(models), 3.5 * len(planes) + (0.35 if title else 0.05))
    headline(figure, title, fontsize=11)
    grid = figure.subplots(len(planes), len(models), squeeze=False)
    for row, (kind, of_models) in zip(grid, planes.items(), strict=True):
        u_name, v_name = (axes_names or {}).get(kind, ("u", "v"))
        for axes, model in zip(row, models, strict=True):
            if model not in of_models:
                axes.set_axis_off()
                continue
            plane = of_models[model]
            _plane(axes, plane, class_names)
            note = ", margin gradient" if plane.used_margin_gradient else ""
            style_axes(
                axes, title=f"{model} ({kind}{note})", x=f"{u_name} (L2)", y=f"{v_name} (L2)"
            )
            axes.title.set_fontsize(8.5)
            axes.grid(False)
    return save(figure, path)


def _plane(axes: Axes, plane: Plane, class_names: Sequence[str]) -> None:
    u, v = plane.u, plane.v
    half = (u[1] - u[0]) / 2
    axes.imshow(
        plane.class_map % len(_TINTS),
        origin="lower",
        extent=(u[0] - half, u[-1] + half, v[0] - half, v[-1] + half),
        cmap=ListedColormap(_TINTS),
        vmin=-0.5,
        vmax=len(_TINTS) - 0.5,
        interpolation="nearest",
    )
    if plane.margin.min() < 0 < plane.margin.max():
        axes.contour(u, v, plane.margin, levels=[0.0], colors=[INK], linewidths=1.4)
    for label in np.unique(plane.class_map):
        inside = plane.class_map == label
        if inside.mean() >= _NAMED_SHARE:
            row, column = _deepest(inside)
            axes.text(
                u[column],
                v[row],
                escape_mathtext(shortened(class_names[int(label)])),
                ha="center",
                va="center",
                fontsize=8,
                color=INK,
            )
    axes.plot(0, 0, "+", color=INK, markersize=9, markeredgewidth=1.6)
    if plane.boundary_distance is not None:
        axes.annotate(
            f"{plane.boundary_distance:.2f}",
            (plane.boundary_distance, 0),
            xytext=(3, -9),
            textcoords="offset points",
            fontsize=7,
            color=INK,
        )
        axes.plot([0, plane.boundary_distance], [0, 0], ":", color=INK, linewidth=1)


def _deepest(inside: np.ndarray) -> tuple[int, int]:
    """The point of a region that is furthest from its edge (in steps along the axes)."""
    best, left = inside, inside
    while left.any():
        best = left
        framed = np.pad(left, 1)
        left = (
            left
            & framed[:-2, 1:-1]
            & framed[2:, 1:-1]
            & framed[1:-1, :-2]
            & framed[1:-1, 2:]
        )  # fmt: skip
    rows, columns = np.nonzero(best)
    middle = len(rows) // 2
    return int(rows[middle]), int(columns[middle])


def toy_panels(
    points: np.ndarray,
    labels: np.ndarray,
    fakes: Mapping[float, np.ndarray],
    path: Path,
    *,
    captions: Mapping[float, str] | None = None,
    shown: int = 1000,
) -> Path:
    """Figure 2: the two classes in red and blue, generated points in yellow, the Bayes boundary.

    Args:
        points: float ``[N, 2]``, the data.
        labels: int ``[N]``, 0 or 1.
        fakes: beta to float ``[M, 2]``, generated points; a panel each.
        path: the PNG to write.
        captions: beta to a line under its panel's title.
        shown: of each panel's data and generated points; they are taken in order.
    """
    figure = new_figure(3.1 * len(fakes), 4.2)
    row = figure.subplots(1, len(fakes), sharex=True, sharey=True, squeeze=False)[0]
    limit = float(np.ceil(np.abs(points).max()))
    for number, (axes, (beta, made)) in enumerate(zip(row, fakes.items(), strict=True)):
        for label, color in ((0, ORANGE), (1, BLUE)):
            part = points[:shown][labels[:shown] == label]
            axes.scatter(
                *part.T, s=5, color=color, alpha=0.45, linewidths=0, label=f"class {label}"
            )
        axes.scatter(
            *made[:shown].T,
            s=7,
            color=YELLOW,
            edgecolors=INK,
            linewidths=0.25,
            label="generated",
        )
        axes.plot([-limit, limit], [limit, -limit], color=INK, linewidth=1.4, label="boundary")
        caption = (captions or {}).get(beta, "")
        style_axes(axes, title=f"beta {beta:g}" + (f"\n{caption}" if caption else ""), x="x1")
        axes.title.set_fontsize(8.5)
        axes.set_aspect("equal")
        axes.set_xlim(-limit, limit)
        axes.set_ylim(-limit, limit)
        if not number:
            axes.set_ylabel("x2", fontsize=9, color=INK)
    handles, names = row[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8,
        labelcolor=INK, markerscale=2,
    )  # fmt: skip
    return save(figure, path)
