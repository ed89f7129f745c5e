"""Pictures and histograms of an evaluation, read back from the PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from bcgan_tf.report import evaluation_figures as figures
from bcgan_tf.report.distances import distance_bins
from bcgan_tf.report.style import BLUE, INK, ORANGE


def read(path: Path) -> np.ndarray:
    return matplotlib.image.imread(path)[..., :3]


def pixels(png: np.ndarray, color: str) -> np.ndarray:
    """Rows and columns of a color."""
    return np.argwhere(np.abs(png - to_rgb(color)).max(-1) < 0.02)


def test_bins_hold_every_image_once() -> None:
    distances = np.array([0.0, 0.0, 0.004, 0.01, 0.0100001, 0.3, np.inf])
    found = distance_bins({"best": distances, "fgsm": distances[2:3]})
    edges, best = np.array(found["edges"]), found["readings"]["best"]
    assert edges[0] == 0 and edges[-1] == pytest.approx(0.3) and len(edges) == 31
    assert (best["misclassified"], best["not_found"]) == (2, 1)
    # 0.004 and 0.01 up to the first edge, which rounding must not move; 0.3 in the last bin.
    assert best["counts"][:3] == [3, 0, 0] and best["counts"][-1] == 1 and sum(best["counts"]) == 4
    assert found["readings"]["fgsm"]["counts"][0] == 1


def test_a_search_on_a_grid_fills_the_bins_evenly() -> None:
    grid = np.arange(1, 48) * 0.01
    counts = distance_bins({"fgsm": grid})["readings"]["fgsm"]["counts"]
    assert counts == [1] * 47


@pytest.mark.parametrize("distances", [np.array([]), np.array([0.0]), np.array([np.inf, 0.0])])
def test_nothing_found_is_no_bar(distances: np.ndarray) -> None:
    best = distance_bins({"best": distances})["readings"]["best"]
    assert sum(best["counts"]) == 0
    assert best["misclassified"] + best["not_found"] == len(distances)


def test_the_histogram_is_as_high_as_its_counts(tmp_path: Path) -> None:
    bins = distance_bins({"best": np.repeat([0.05, 0.15], [40, 20])})
    png = read(figures.distance_histogram(bins, tmp_path / "a.png", eps=0.1))
    bars = pixels(png, BLUE)
    left, right = bars[:, 1].min(), bars[:, 1].max()
    middle = (left + right) / 2
    tall, short = (bars[(bars[:, 1] < middle) == side][:, 0] for side in (True, False))
    assert np.ptp(tall) == pytest.approx(2 * np.ptp(short), abs=4)
    # The line of the threat model stands between them.
    lines = pixels(png, ORANGE)[:, 1]
    assert left < np.median(lines) < right
    far = read(figures.distance_histogram(bins, tmp_path / "b.png", eps=0.9))
    assert not pixels(far, ORANGE).size


def test_the_curve_runs_from_the_clean_accuracy_to_the_bound(tmp_path: Path) -> None:
    curve = [[0.0, 1.0], [0.25, 0.5], [0.5, 0.0]]

    def draw(name: str, **options: Any) -> np.ndarray:
        return read(figures.robust_accuracy_curves({"net": curve}, tmp_path / name, **options))

    bounded = draw("a.png", largest_class=0.5)
    line = pixels(bounded, BLUE)
    line = line[line[:, 0] > bounded.shape[0] * 0.15]  # below the legend
    # The bound lies right of the curve's end, as high as the curve is at eps 0.25.
    dashes = pixels(bounded, INK)
    dashes = dashes[(dashes[:, 1] > line[:, 1].max() + 3) & (dashes[:, 0] > line[:, 0].min())]
    assert len(dashes) > 30
    half = dashes[:, 1].min() - line[:, 1].min()
    middle = line[np.abs(line[:, 1] - line[:, 1].min() - half / 2) < 4]
    assert np.median(dashes[:, 0]) == pytest.approx(np.median(middle[:, 0]), abs=6)
    # In L2 that bound is another, and is not drawn.
    assert np.array_equal(draw("b.png", largest_class=0.5, norm="l2"), draw("c.png", norm="l2"))
    assert not np.array_equal(
        draw("d.png"), draw("e.png", measured={"net": (0.3, 0.4, (0.3, 0.5))})
    )


def test_a_flat_zero_line_can_be_seen(tmp_path: Path) -> None:
    curves = {
        "iterations": [0, 1, 2],
        "PGD-2": [0.0, 0.0, 0.0],
        "PGD-2 margin": [-900.0, -900.0, -900.0],
        "PGD-1 (margin loss)": [0.0, 3.0],
        "PGD-1 (margin loss) margin": [-900.0, None],
        "n": 5,
    }
    assert figures.loss_series(curves) == ["PGD-2", "PGD-1 (margin loss)"]
    png = read(figures.loss_against_iteration(curves, tmp_path / "a.png"))
    middle = png.shape[1] // 2
    for half in (png[40:, :middle], png[40:, middle:]):
        line = pixels(half, BLUE)
        assert np.ptp(line[:, 1]) > middle * 0.6  # from the first iteration to the last
    only = {"iterations": [0, 1], "PGD-1": [0.0, 0.0], "PGD-1 margin": [None, None]}
    assert pixels(read(figures.loss_against_iteration(only, tmp_path / "b.png")), BLUE).size


def examples(path: Path, guesses: list[str], change: float = 0.25) -> np.ndarray:
    images = np.full((2, 6, 6, 1), 0.5, np.float32)
    shifted = images.copy()
    shifted[:, :3] += change
    return read(
        figures.example_images(
            images, shifted, path, labels=["3", "7"], predictions=guesses, attacks=["Square", "T"]
        )
    )


def test_only_wrong_examples_are_framed(tmp_path: Path) -> None:
    assert not pixels(examples(tmp_path / "a.png", ["3", "7"]), ORANGE).size
    assert pixels(examples(tmp_path / "b.png", ["3", "1"]), ORANGE).size


def test_the_difference_is_amplified_around_grey(tmp_path: Path) -> None:
    png = examples(tmp_path / "a.png", ["3", "1"], change=0.02)
    lower = png[int(png.shape[0] * 0.68) :]
    # Half of each difference is the largest change, white; the rest has not changed, grey.
    grey = np.abs(lower - 0.5).max(-1) < 0.01
    assert grey.any()
    rows = np.flatnonzero(grey.any(1))
    column = int(np.median(np.flatnonzero(grey[rows[len(rows) // 2]])))
    above = lower[rows[0] - 20, column]
    assert np.all(above > 0.99)
    unchanged = examples(tmp_path / "b.png", ["3", "7"], change=0.0)
    assert np.isfinite(unchanged).all()


def test_colour_images_and_vectors_are_drawn(tmp_path: Path) -> None:
    for number, shape in enumerate(((1, 4, 4, 3), (1, 4))):
        images = np.zeros(shape, np.float32)
        path = tmp_path / f"{number}.png"
        figures.example_images(images, images + 1, path, labels=["a"], predictions=["b"])
        assert read(path).std() > 0


def test_names_of_pictures_do_not_meet() -> None:
    linf = {"suite": "standard", "norm": "linf", "eps": 0.3}
    assert figures.figure_name("loss", "net", linf) == "loss-net-standard-linf-0.3.png"
    free = {"suite": None, "norm": "l2", "eps": None}
    assert figures.figure_name("curve", "net", free) == "curve-net-attacks-l2-unbounded.png"
    names = {figures.figure_name("loss", model, linf) for model in ("a/b", "a b", "../b", "a?b")}
    assert len(names) == 4 and not any("/" in name for name in names)
