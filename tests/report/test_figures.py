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


def has_colour(png: np.ndarray, colour: str, tolerance: float = 0.02) -> bool:
    return bool((np.abs(png[..., :3] - to_rgb(colour)).max(-1) < tolerance).any())


def bounding_width(png: np.ndarray, colour: str) -> int:
    columns = np.flatnonzero((np.abs(png[..., :3] - to_rgb(colour)).max(-1) < 0.02).any(0))
    return int(columns[-1] - columns[0]) if columns.size else 0


def read(path: Path) -> np.ndarray:
    return matplotlib.image.imread(path)


def test_a_grid_shows_its_pixels(tmp_path: Path) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    images = np.broadcast_to(colours[:, None, None], (3, 8, 8, 3))
    png = read(figures.image_grid(images, tmp_path / "new" / "grid.png", columns=3))
    where = [np.flatnonzero((png[..., :3] == c / 255).all(-1).any(0)) for c in colours]
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
    assert all(has_colour(png, SERIES[i]) for i in range(6))
    one_epoch = read(figures.curves({"loss": [(1, 0.5)]}, tmp_path / "b.png"))
    assert has_colour(one_epoch, SERIES[0])


def test_only_wrong_predictions_are_framed(tmp_path: Path) -> None:
    images = np.full((2, 6, 6, 1), 0.5, np.float32)

    def draw(guesses: list[str]) -> np.ndarray:
        path = figures.adversarial_grid(
            images,
            {"PGD-40, eps 0.3": images},
            tmp_path / "a.png",
            labels=["3", "7"],
            predictions={"PGD-40, eps 0.3": guesses},
            title="original",
        )
        return read(path)

    assert not has_colour(draw(["3", "7"]), ORANGE)
    assert has_colour(draw(["3", "1"]), ORANGE)


def test_bars_are_as_long_as_the_accuracies(tmp_path: Path, metrics: dict[str, Any]) -> None:
    for share in (0.25, 0.5, 1.0):
        for name, value in (("original", share), ("hardened", share / 2)):
            metrics["models"][name] = {"clean_accuracy": value, "n": 100, "attacks": []}
        png = read(figures.robust_accuracy_bars(metrics, tmp_path / "a.png"))
        lower = png[png.shape[0] // 4 :]  # below the legend
        assert bounding_width(lower, BLUE) == pytest.approx(
            2 * bounding_width(lower, ORANGE), abs=6
        )


def test_a_model_that_was_not_attacked_has_no_bar(tmp_path: Path, metrics: dict[str, Any]) -> None:
    metrics["models"]["hardened"]["attacks"] = []
    metrics["models"]["hardened"]["worst_case"] = []
    assert figures.robust_accuracy_bars(metrics, tmp_path / "a.png").exists()


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
    assert has_colour(png, YELLOW, 0.1) and png.shape[1] == 2 * 3.1 * 150


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
    figures.adversarial_grid(
        images, {MONEY: images}, tmp_path / "a.png", predictions={MONEY: guesses}, **names
    )
    assert sorted(drawn) == sorted(
        ["test image", MONEY, DOLLAR, f"of {BROKEN}", MONEY, MONEY, f"{BROKEN} *"]
    )
    drawn.clear()
    evaluation_figures.example_images(
        images, images, tmp_path / "b.png", predictions=guesses, attacks=[MONEY, ""], **names
    )
    assert {MONEY, DOLLAR, f"of {BROKEN}", f"{BROKEN} *"} < set(drawn) and drawn.count(MONEY) == 3
    drawn.clear()
    labels = [MONEY, DOLLAR]
    figures.image_grid(images, tmp_path / "c.png", columns=1, row_labels=labels, title=BROKEN)
    assert sorted(drawn) == sorted([BROKEN, *labels])
    assert not any(text.startswith("formula") for text in drawn)


def test_dollars_in_names_are_dollars_beside_axes(
    tmp_path: Path, drawn: list[str], metrics: dict[str, Any]
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
    models = metrics["models"]
    metrics["models"] = {MONEY: models["original"], BROKEN: models["hardened"]}
    models["original"]["attacks"][0]["attack"] = MONEY
    figures.robust_accuracy_bars(metrics, tmp_path / "b.png", title=f"bars of {MONEY}")
    assert drawn.count(MONEY) == 2 and {BROKEN, f"bars of {MONEY}"} <= set(drawn)
    assert any(text.startswith(f"{MONEY}, eps") for text in drawn)
    evaluation_figures.robust_accuracy_curves({BROKEN: [[0.0, 0.9], [0.3, 0.1]]}, tmp_path / "c")
    assert f"{BROKEN}: smallest perturbation found" in drawn
    assert not any(text.startswith("formula") for text in drawn)
