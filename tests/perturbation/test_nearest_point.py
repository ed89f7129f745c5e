"""Searches along lines, on models whose classes change where one says."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.perturbation.nearest_point import NearestPoint


def _slabs(*edges: float):
    """Two classes by the first pixel alone: it changes at every edge."""

    def logits(images: tf.Tensor) -> tf.Tensor:
        crossed = tf.reduce_sum(tf.cast(images[:, :1] > tf.constant(edges), tf.float32), axis=1)
        is_one = tf.math.floormod(crossed, 2)
        return tf.stack([1 - 2 * is_one, 2 * is_one - 1], 1)

    return logits


def _record(model, pixels=(0.0, 0.5), **changed) -> NearestPoint:
    images = np.array([[pixel, 0.3] for pixel in pixels], np.float32)
    return _nearest(model, images, np.zeros(len(images), np.int64), **changed)


def _nearest(model, images, labels, *, norm="linf", limit=1.0) -> NearestPoint:
    return NearestPoint(EvaluationTask(model, images, labels, norm=norm, batch_size=4), limit)


ALONG_FIRST = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
ROWS = np.arange(2)


def test_the_first_change_on_a_grid_is_not_jumped_over_by_what_follows():
    nearest = _record(_slabs(0.62, 0.68))
    t = nearest.first_change(ROWS, ALONG_FIRST, np.full(2, 0.05), np.ones(2))
    np.testing.assert_allclose(t, [0.65, 0.15])
    # Beyond the second edge it is right again; a grid of 0.1 steps over the slab.
    t = nearest.first_change(ROWS, ALONG_FIRST, np.full(2, 0.1), np.ones(2))
    np.testing.assert_array_equal(t, [np.inf, np.inf])
    # The end of the reach is looked at, whether on the grid or not; nothing beyond it.
    t = nearest.first_change(ROWS, ALONG_FIRST, np.full(2, 0.1), np.array([0.63, 0.119]))
    np.testing.assert_allclose(t, [0.63, np.inf])
    assert np.isinf(nearest.first_change(ROWS, 0 * ALONG_FIRST, np.full(2, 0.1), np.ones(2))).all()


def test_a_line_is_searched_and_refined_to_the_edge():
    nearest = _record(_slabs(0.62))
    nearest.search_line("a line", ALONG_FIRST, step=0.05)
    np.testing.assert_allclose(nearest.distance, [0.62, 0.12], atol=1e-4)
    assert (nearest.points[:, 0] > 0.62).all() and (nearest.points[:, 1] == np.float32(0.3)).all()
    assert list(nearest.found_by) == ["a line", "a line"]
    before = nearest.distance.copy()
    # Nothing farther replaces it.
    nearest.offer("far", ROWS, np.array([[1.0, 0.3], [0.8, 0.3]], np.float32))
    np.testing.assert_array_equal(nearest.distance, before)


def test_an_end_or_a_limit_ends_a_line():
    nearest = _record(_slabs(0.62), limit=0.3)
    nearest.search_line("a line", ALONG_FIRST, step=0.05)
    assert np.isinf(nearest.distance[0]) and nearest.distance[1] == pytest.approx(0.12, abs=1e-4)
    nearest = _record(_slabs(0.62))
    nearest.search_line("a line", ALONG_FIRST, step=0.05, reach=np.array([0.7, 0.1]))
    assert nearest.distance[0] == pytest.approx(0.62, abs=1e-4) and np.isinf(nearest.distance[1])


def test_distances_are_those_after_clipping():
    nearest = _record(_slabs(0.62), norm="l2")
    diagonal = np.array([[1.0, -1.0]] * 2, np.float32) / np.float32(2**0.5)
    nearest.search_line("a line", diagonal, step=0.05)
    # The second pixel stops at 0.
    np.testing.assert_allclose(nearest.distance, [np.hypot(0.62, 0.3), np.hypot(0.12, 0.12)], 1e-3)


def test_points_count_only_where_the_model_is_wrong_and_by_their_own_distance():
    nearest = _record(_slabs(0.62))
    nearest.offer("points", ROWS, np.array([[0.7, 0.9], [0.6, 0.3]], np.float32))
    assert nearest.distance[0] == pytest.approx(0.7) and np.isinf(nearest.distance[1])
    # On its line to the image the edge is at 0.62; the second pixel then is 0.6 * 62 / 70 away.
    nearest.offer_lines("lines", ROWS[:1], np.array([[0.7, 0.9]], np.float32))
    assert nearest.distance[0] == pytest.approx(0.62, abs=1e-3)


def test_a_point_just_beyond_the_edge_is_still_refined():
    nearest = _record(_slabs(0.62))
    nearest.offer_lines("lines", ROWS[:1], np.array([[0.625, 0.3]], np.float32))
    assert nearest.distance[0] == pytest.approx(0.62, abs=1e-5)


def test_a_look_ahead_asks_once_and_refines():
    nearest = _record(_slabs(0.62))
    nearest.offer("points", ROWS, np.array([[0.7, 0.3], [0.7, 0.3]], np.float32))
    nearest.look_ahead("random", ROWS, np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32))
    np.testing.assert_allclose(nearest.distance, [0.62, 0.2], atol=2e-4)
    assert list(nearest.found_by) == ["random", "points"]


def test_ties_of_rounded_logits_count_as_argmax_does_and_rounding_does_not():
    def tied(images: tf.Tensor) -> tf.Tensor:
        gap = tf.round(4 * images[:, 0] - 2)  # -2 ... 2, 0 near 0.5
        return tf.stack([tf.zeros_like(gap), gap], 1)

    images = np.array([[0.9], [0.1]], np.float32)
    labels = np.array([1, 0])
    nearest = _nearest(tied, images, labels)
    middle = np.full((2, 1), 0.5, np.float32)
    # In a tie the first class is the answer: wrong for label 1, right for label 0.
    np.testing.assert_array_equal(nearest.wrong(ROWS, middle), [True, False])

    def close(images: tf.Tensor) -> tf.Tensor:
        return tf.stack([tf.fill(tf.shape(images)[:1], 100.0), 100.0 + 2e-5 * images[:, 0]], 1)

    # Class 1 is ahead by one spacing of float32: another kernel may see it otherwise.
    nearest = _nearest(close, images, np.zeros(2, int))
    assert not nearest.wrong(ROWS, middle).any()
