"""Pictures show what they are given: pixels are read back from the PNG."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb

from bcgan_tf.report import evaluation_figures, figures, planes
from bcgan_tf.report.style import BLUE, ORANGE, SERIES, YELLOW


def has_color(png: np.ndarray, color: str, tolerance: float = 0.02) -> bool:
    return bool((np.abs(png[..., :3] - to_rgb(color)).max(-1) < tolerance).any())


def read(path: Path) -> np.ndarray:
    return matplotlib.image.imread(path)


def test_a_grid_shows_its_pixels(tmp_path: Path) -> None:
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    images = np.broadcast_to(colors[:, None, None], (3, 8, 8, 3))
    png = read(figures.image_grid(images, tmp_path / "new" / "grid.png", columns=3))
    where = [np.flatnonzero((png[..., :3] == c / 255).all(-1).any(0)) for c in colors]
    assert all(len(columns) > 20 for columns in where)
    assert where[0].max() < where[1].min() and where[1].max() < where[2].min()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_grey_levels_are_absolute(tmp_path: Path, dtype: Any) -> None:
    top = 255 if dtype is np.uint8 else 1
    images = np.full((1, 4, 4, 1), top, dtype) // 1
    half = (images * 0.5).astype(dtype)
    bright = read(figures.image_grid(images, tmp_path / "a.png"))
    grey = read(figures.image_grid(half, tmp_path / "b.png"))
    middle = tuple(side // 2 for side in bright.shape[:2])
    assert bright[middle][0] == 1.0
    assert grey[middle][0] == pytest.approx(0.5, abs=0.01)


def test_vectors_and_labels_are_drawn(tmp_path: Path) -> None:
    path = figures.image_grid(
        np.eye(4, dtype=np.float32),
        tmp_path / "v.png",
        columns=1,
        row_labels=list("abcd"),
        title="strips",
    )
    assert read(path).std() > 0


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    stage = {"loss": [(1, 1.0), (2, 0.5)], "accuracy": [(1, 0.8), (2, 0.9)]}
    first = figures.curves(stage, tmp_path / "a.png", title="x").read_bytes()
    assert figures.curves(stage, tmp_path / "b.png", title="x").read_bytes() == first


def test_every_metric_has_its_curve(tmp_path: Path) -> None:
    stage = {f"metric_{i}": [(e, i + e / 10) for e in (1, 2, 3)] for i in range(6)}
    png = read(figures.curves(stage, tmp_path / "a.png"))
    assert all(has_color(png, SERIES[i]) for i in range(6))
    one_epoch = read(figures.curves({"loss": [(1, 0.5)]}, tmp_path / "b.png"))
    assert has_color(one_epoch, SERIES[0])


def test_accuracies_over_radii_have_their_heights_and_intervals(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    def draw(*models: Any) -> np.ndarray:
        radii = {f"model {number}": found for number, found in enumerate(models)}
        png = read(evaluation_figures.radii_curves(radii, tmp_path / "a.png"))
        return png[png.shape[0] // 8 :]  # below the legend

    def rows(png: np.ndarray, color: str, part: slice) -> np.ndarray:
        near = np.abs(png[:, part, :3] - to_rgb(color)).max(-1) < 0.02
        return np.flatnonzero(near.any(1))

    png = draw(make.radii(0.8, 0.8), make.radii(0.3, 0.3))
    columns = np.flatnonzero((np.abs(png[..., :3] - to_rgb(BLUE)).max(-1) < 0.02).any(0))
    middle = slice(int(columns.mean()) - 3, int(columns.mean()) + 3)  # between the points
    high, low = (rows(png, color, middle).mean() for color in (BLUE, ORANGE))
    first = slice(columns.min(), columns.min() + 12)
    # The intervals of +- 0.1 are as long as 0.2 of the axis, of which 0.5 lie between the lines.
    assert np.ptp(rows(png, BLUE, first)) == pytest.approx((low - high) * 0.2 / 0.5, abs=4)
    single = make.radii(0.8)
    del single["points"][0]["interval95"]
    assert has_color(draw(single), BLUE)


def plane(shift: float, **changes: Any) -> SimpleNamespace:
    """A boundary at u = shift."""
    axis = np.linspace(-2, 2, 41)
    margin = np.broadcast_to(shift - axis, (41, 41))
    fields = {
        "u": axis,
        "v": axis,
        "class_map": (margin <= 0).astype(int),
        "margin": margin,
        "used_margin_gradient": False,
        "boundary_distance": shift if shift < 2 else None,
    }
    return SimpleNamespace(**{**fields, **changes})


def test_planes_show_each_class_where_it_is(tmp_path: Path) -> None:
    tints = planes._TINTS

    def share(shift: float) -> float:
        png = read(
            planes.boundary_planes(
                {"own": {"original": plane(shift)}}, tmp_path / "a.png", class_names=["cat", "dog"]
            )
        )
        areas = [(np.abs(png[..., :3] - to_rgb(t)).max(-1) < 0.01).sum() for t in tints[:2]]
        return areas[0] / sum(areas)

    assert share(0.0) == pytest.approx(0.5, abs=0.03)
    assert share(1.0) == pytest.approx(0.75, abs=0.03)
    assert share(5.0) == 1.0  # no boundary in sight: no contour, no failure


def test_planes_of_two_models_stand_side_by_side(tmp_path: Path) -> None:
    both = {"original": plane(0.5), "hardened": plane(1.0, used_margin_gradient=True)}
    one = planes.boundary_planes(
        {"a": {"original": plane(0.5)}}, tmp_path / "1.png", class_names=["x", "y"]
    )
    four = planes.boundary_planes(
        {"directions of original": both, "own": both},
        tmp_path / "4.png",
        class_names=["x", "y"],
        title="image 3",
        axes_names={"own": ("G", "h")},
    )
    height, width = read(one).shape[:2]
    assert read(four).shape[1] == 2 * width and read(four).shape[0] > 1.9 * height


def test_a_region_is_named_at_its_deepest_point() -> None:
    inside = np.zeros((9, 9), bool)
    inside[1:8, 1:8] = True
    assert planes._deepest(inside) == (4, 4)


def test_toy_panels_show_data_fakes_and_no_more(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(-1.5, 1, (50, 2)), rng.normal(1.5, 1, (50, 2))])
    labels = np.repeat([0, 1], 50)
    made = {0.0: points[::2], 5.0: np.zeros((30, 2))}
    png = read(
        planes.toy_panels(points, labels, made, tmp_path / "a.png", captions={5.0: "distance 0.1"})
    )
    assert has_color(png, YELLOW, 0.1) and png.shape[1] == 2 * 3.1 * 150


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of text that reach the picture, a formula as such."""
    found: list[str] = []
    draw = RendererAgg.draw_text
    draw_formula = RendererAgg.draw_mathtext

    def noted(self, gc, x, y, s, *others, **options) -> None:
        found.append(s)
        draw(self, gc, x, y, s, *others, **options)

    def formula(self, gc, x, y, s, *others, **options) -> None:
        found.append(f"formula {s}")
        draw_formula(self, gc, x, y, s, *others, **options)

    monkeypatch.setattr(RendererAgg, "draw_text", noted)
    monkeypatch.setattr(RendererAgg, "draw_mathtext", formula)
    return found


MONEY, DOLLAR, BROKEN = "$5_$10", "$", r"$\frac$"  # the last is no formula that can be drawn


def test_dollars_in_names_are_dollars_in_grids(tmp_path: Path, drawn: list[str]) -> None:
    images = np.full((2, 6, 6, 1), 0.5, np.float32)
    names = {"labels": [MONEY, DOLLAR], "title": f"of {BROKEN}"}
    guesses = [MONEY, BROKEN]
    evaluation_figures.example_images(
        images, images, tmp_path / "b.png", predictions=guesses, attacks=[MONEY, ""], **names
    )
    assert {f"class {MONEY}", f"class {DOLLAR}", f"of {BROKEN}"} < set(drawn)
    assert {f"answer {BROKEN} *", MONEY, "not attacked"} < set(drawn)
    assert drawn.count(f"answer {MONEY}") == 2
    drawn.clear()
    labels = [MONEY, DOLLAR]
    figures.image_grid(images, tmp_path / "c.png", columns=1, row_labels=labels, title=BROKEN)
    assert sorted(drawn) == sorted([BROKEN, *labels])
    assert not any(text.startswith("formula") for text in drawn)


def test_long_names_of_classes_are_cut_in_grids(tmp_path: Path, drawn: list[str]) -> None:
    images = np.full((2, 6, 6, 1), 0.5, np.float32)
    names = ["n" * 16, "Chesapeake Bay retriever"]
    figures.image_grid(images, tmp_path / "a.png", columns=1, row_labels=names)
    assert sorted(drawn) == ["Chesapeake Bay …", "n" * 16]


def test_dollars_in_names_are_dollars_beside_axes(
    tmp_path: Path, drawn: list[str], make: SimpleNamespace
) -> None:
    planes.boundary_planes(
        {f"of {MONEY}": {BROKEN: plane(0.0)}},
        tmp_path / "a.png",
        class_names=[MONEY, DOLLAR],
        title=f"image of {MONEY}",
        axes_names={f"of {MONEY}": (MONEY, BROKEN)},
    )
    told = {MONEY, DOLLAR, f"image of {MONEY}", f"{BROKEN} (of {MONEY})"}
    assert told | {f"{MONEY} (L2)", f"{BROKEN} (L2)"} <= set(drawn)
    evaluation_figures.radii_curves(
        {MONEY: make.radii(0.5), BROKEN: make.radii(0.1)}, tmp_path / "b.png"
    )
    assert drawn.count(MONEY) == 2 and drawn.count(BROKEN) == 1
    evaluation_figures.robust_accuracy_curves({BROKEN: [[0.0, 0.9], [0.3, 0.1]]}, tmp_path / "c")
    assert f"{BROKEN}: smallest perturbation found; clean 90.0 %" in drawn
    assert not any(text.startswith("formula") for text in drawn)
