"""The projection against an independent search over the dual variable, and answers by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks.box_projection import box_projection

ORDERS = {"linf": np.inf, "l2": 2}
both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def _projected(points, normals, gaps, norm) -> np.ndarray:
    arrays = [np.asarray(array, np.float32) for array in (points, normals, gaps)]
    return tf.function(box_projection)(*arrays, norm=norm).numpy().astype(np.float64)


def _searched(point, normal, gap, norm) -> np.ndarray:
    """One row, in float64: the multiplier of the hyperplane by bisection, over clipped points."""
    direction = np.sign(normal) if norm == "linf" else normal

    def change(multiplier: float) -> np.ndarray:
        return np.clip(point + multiplier * direction, 0, 1) - point

    low, high = (0.0, 1e6) if gap > 0 else (-1e6, 0.0)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if normal @ change(middle) < gap else (low, middle)
    return change((low + high) / 2)


def _problems(seed: int, rows: int, pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, many pixels of which lie at an end, and reachable gaps of both signs."""
    rng = np.random.default_rng(seed)
    points = np.clip(rng.uniform(-0.5, 1.5, (rows, pixels)), 0, 1)
    normals = rng.normal(size=(rows, pixels)) * rng.choice([0, 0.1, 1, 10], (rows, pixels))
    least = np.where(normals > 0, -points, 1 - points) * normals
    most = np.where(normals > 0, 1 - points, -points) * normals
    share = rng.uniform(0.01, 0.99, rows)
    gaps = np.where(rng.random(rows) < 0.5, share * least.sum(1), share * most.sum(1))
    return points, normals, gaps


@both_norms
@pytest.mark.parametrize("pixels", [1, 2, 5, 40, 784])
def test_it_is_the_searched_solution(norm, pixels):
    points, normals, gaps = _problems(pixels, 60, pixels)
    found = _projected(points, normals, gaps, norm)
    expected = [_searched(*row, norm) for row in zip(points, normals, gaps, strict=True)]
    assert (found != 0).any()
    # The multiplier is unique; float32 inputs move it by their rounding.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@both_norms
def test_no_feasible_change_is_smaller(norm):
    """Against points of a dense sample of the hyperplane within the box, in three dimensions."""
    grid = np.linspace(0, 1, 201)
    first, second = (axis.ravel() for axis in np.meshgrid(grid, grid, indexing="ij"))
    points, normals, gaps = _problems(3, 30, 3)
    normals[:, 2] = np.where(np.abs(normals[:, 2]) < 0.05, 0.5, normals[:, 2])
    least = np.where(normals > 0, -points, 1 - points) * normals
    most = np.where(normals > 0, 1 - points, -points) * normals
    gaps = np.clip(gaps, 0.9 * least.sum(1), 0.9 * most.sum(1))
    found = _projected(points, normals, gaps, norm)
    close = 0
    for point, normal, gap, change in zip(points, normals, gaps, found, strict=True):
        assert normal @ change == pytest.approx(gap, abs=1e-5)
        assert (point + change > -1e-6).all() and (point + change < 1 + 1e-6).all()
        third = (gap + normal @ point - normal[0] * first - normal[1] * second) / normal[2]
        inside = (third >= 0) & (third <= 1)
        sampled = np.stack([first, second, third], axis=1)[inside]
        lengths = np.linalg.norm(sampled - point, ORDERS[norm], axis=1)
        length = np.linalg.norm(change, ORDERS[norm])
        if inside.any():
            assert length <= lengths.min() + 1e-6
            close += lengths.min() < length + 0.02
    assert close >= 20  # the sample comes near, so the comparison says something


@pytest.mark.parametrize(
    ("norm", "gap", "change"),
    [
        # The first pixel reaches its end after 0.1; from then on the others bridge the rest.
        ("linf", 0.2, [0.05, 0.05, -0.05]),
        ("linf", 0.4, [0.1, 0.1, -0.1]),
        ("linf", 0.8, [0.1, 0.3, -0.3]),
        ("linf", -0.4, [-0.1, -0.1, 0.1]),
        ("l2", 0.12, [0.04, 0.02, -0.02]),
        ("l2", 0.3, [0.1, 0.05, -0.05]),
        ("l2", 0.6, [0.1, 0.2, -0.2]),
        ("l2", -0.6, [-0.2, -0.1, 0.1]),
    ],
)
def test_by_hand(norm, gap, change):
    found = _projected([[0.9, 0.5, 0.5]], [[2.0, 1.0, -1.0]], [gap], norm)
    np.testing.assert_allclose(found, [change], rtol=0, atol=1e-7)


@both_norms
def test_out_of_reach_it_goes_to_the_nearest_corner(norm):
    points, normals = [[0.2, 0.7, 0.4]] * 3, [[1.0, -2.0, 0.0]] * 3
    # Reachable are gaps from -0.8 to 2.2; the third pixel does not matter, and stays.
    found = _projected(points, normals, [5.0, -5.0, np.inf], norm)
    up, down = [0.8, -0.7, 0.0], [-0.2, 0.3, 0.0]
    np.testing.assert_allclose(found, [up, down, up], rtol=0, atol=1e-7)
    # Exactly as far as it reaches.
    np.testing.assert_allclose(
        _projected([[0.25, 0.5, 0.4]], normals[:1], [1.75], norm), [[0.75, -0.5, 0.0]], atol=1e-6
    )


@both_norms
def test_without_a_normal_or_a_gap_nothing_moves(norm):
    points = np.random.default_rng(0).uniform(0, 1, (3, 4))
    normals = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, -1, 2, 0]])
    for gaps in ([0.0, 1.0, 0.0], [-1.0, np.inf, 0.0]):
        np.testing.assert_array_equal(_projected(points, normals, gaps, norm), np.zeros((3, 4)))


@both_norms
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e25])
def test_the_scale_of_the_normal_does_not_matter(norm, scale):
    points, normals, gaps = _problems(9, 30, 20)
    expected = _projected(points, normals, gaps, norm)
    scaled = _projected(points, scale * normals, scale * gaps, norm)
    np.testing.assert_allclose(scaled, expected, rtol=0, atol=1e-5)


@both_norms
def test_rows_do_not_depend_on_each_other(norm):
    points, normals, gaps = _problems(5, 40, 30)
    whole = _projected(points, normals, gaps, norm)
    for row in range(0, 40, 7):
        one = _projected(points[row : row + 1], normals[row : row + 1], gaps[row : row + 1], norm)
        np.testing.assert_allclose(one[0], whole[row], rtol=0, atol=1e-6)


@both_norms
def test_every_pixel_may_end_at_another_time(norm):
    """The longest climb: rooms and weights such that each Newton step ends one pixel."""
    pixels = 40
    room = 0.9 * 0.5 ** np.arange(pixels)[::-1]
    weights = 4.0 ** np.arange(pixels)[::-1]
    points, normals = 1 - room[None], weights[None]
    gaps = [0.999 * float(weights @ room)]
    found = _projected(points, normals, gaps, norm)
    expected = _searched(np.float32(points[0]), np.float32(normals[0]), np.float32(gaps[0]), norm)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)
