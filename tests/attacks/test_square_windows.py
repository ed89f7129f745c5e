"""The pieces of the Square attack: schedule, windows, random numbers, starts and bumps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks.square import Square
from bcgan_tf.attacks.square_l2 import bump
from bcgan_tf.attacks.square_windows import Plan, window_share, window_size


def test_the_share_is_halved_at_the_queries_of_the_paper():
    shares = {0: 1, 9: 1, 10: 2, 49: 2, 50: 4, 199: 4, 200: 8, 500: 16, 999: 16, 1000: 32}
    shares |= {2000: 64, 3999: 64, 4000: 128, 4999: 128, 6000: 256, 7999: 256, 8000: 512}
    for query, divisor in shares.items():
        assert window_share(query) == 0.8 / divisor
        assert window_share(query, 0.3) == 0.3 / divisor


def test_the_sides_of_the_windows():
    shares = [0.8 / 2**halvings for halvings in range(10)]
    sides = [window_size(share, 28, 28) for share in shares]
    assert sides == [(s, s) for s in (25, 18, 13, 9, 6, 4, 3, 2, 2, 1)]
    sides = [window_size(share, 8, 8) for share in shares]
    assert sides == [(s, s) for s in (7, 5, 4, 3, 2, 1, 1, 1, 1, 1)]
    # L2: odd, and 3 at least, as far as the image goes.
    sides = [window_size(share, 28, 28, "l2") for share in shares]
    assert sides == [(s, s) for s in (25, 19, 13, 9, 7, 5, 3, 3, 3, 3)]
    assert window_size(0.01, 2, 2, "l2") == (2, 2)
    # A vector: an interval of that share; an oblong image: a square as long as one fits.
    assert [window_size(share, 1, 64)[1] for share in shares[:7]] == [51, 26, 13, 6, 3, 2, 1]
    assert window_size(0.8, 1, 64)[0] == window_size(0.05, 64, 1)[1] == 1
    assert window_size(0.8, 4, 25) == (4, 20) and window_size(0.1, 4, 25) == (3, 3)


@pytest.mark.parametrize("queries", [1, 10, 11, 137, 5000])
def test_the_chunks_add_up_and_keep_to_the_schedule(queries):
    plan = Plan(queries, 0.8, [28, 28, 1], norm="linf", windows=1, seed=0)
    assert plan.lengths.sum() == queries and plan.lengths.max() <= 100
    by_query = np.repeat(plan.sizes, plan.lengths, axis=0)
    assert by_query.tolist() == [list(window_size(window_share(q), 28, 28)) for q in range(queries)]


def test_windows_reach_every_place_and_signs_every_pattern():
    plan = Plan(200, 0.8, [5, 7, 70], norm="linf", windows=2, seed=3)
    last = len(plan.lengths) - 1
    draws = plan.draw(tf.constant(last), tf.range(40, dtype=tf.int64), tf.constant(0, tf.int64))
    assert plan.sizes[last].tolist() == [3, 3]
    corners, coins, signs = (values.numpy() for values in draws)
    assert corners.shape == (50, 40, 2, 2) and signs.shape == (50, 40, 1, 1, 70)
    for window in (0, 1):
        places, counts = np.unique(corners[:, :, window].reshape(-1, 2), axis=0, return_counts=True)
        assert places.tolist() == [[row, column] for row in range(3) for column in range(5)]
        # 2,000 draws over 15 places; the standard deviation of each count is 11.2.
        assert np.abs(counts - 2000 / 15).max() < 5 * 11.2
    assert set(signs.ravel()) == {-1, 1} and set(coins.ravel()) == {0, 1}
    assert np.abs(signs.mean(axis=(0, 1))).max() < 5 / math.sqrt(2000)
    # Neither channels, nor examples, nor queries repeat each other.
    flat = signs.reshape(2000, 70)
    assert np.abs(np.corrcoef(flat.T) - np.eye(70)).max() < 0.15
    assert len(np.unique(flat, axis=0)) == 2000

    inside = plan.windows(tf.constant(last))(tf.constant([[0, 4], [2, 1]])).numpy()
    expected = np.zeros((2, 5, 7, 70))
    expected[0, :3, 4:], expected[1, 2:, 1:4] = 1, 1
    np.testing.assert_array_equal(inside, expected)


def test_the_start_is_stripes_of_eps_clipped():
    images = np.random.default_rng(0).uniform(0, 1, (40, 6, 5, 3)).astype(np.float32)
    attack = Square(0.3)
    indices = tf.range(40, dtype=tf.int64)
    start = attack.draw_start(tf.constant(images), indices, tf.constant(0, tf.int64)).numpy()
    up = np.float32(images + np.float32(0.3)).clip(0, 1)
    down = np.float32(images - np.float32(0.3)).clip(0, 1)
    went_up = start == up
    assert (went_up | (start == down)).all()
    # One sign for each column and channel (0.3 changes every pixel), as likely + as -.
    np.testing.assert_array_equal(went_up, np.broadcast_to(went_up[:, :1], went_up.shape))
    assert len(np.unique(went_up[:, 0].reshape(40, -1), axis=0)) == 40
    assert abs(went_up[:, 0].mean() - 0.5) < 5 * 0.5 / math.sqrt(600)
    again = attack.draw_start(tf.constant(images), indices, tf.constant(1, tf.int64)).numpy()
    assert (again != start).any(axis=(1, 2, 3)).all()  # another restart, another start


def test_a_bump_by_hand():
    # Halves of 1x3 (distances 1, 0, 1 of at most 1) and 2x3 (its centre is in its second row).
    ring, top = 1 / 4, 1 + 1 / 4
    upper = np.array([[ring, top, ring]])
    lower = np.array([[ring, ring, ring], [ring, top, ring]])
    expected = np.concatenate(
        [upper / np.linalg.norm(upper), -lower / np.linalg.norm(lower)]
    ) / math.sqrt(2)
    np.testing.assert_allclose(bump(3, 3), expected, rtol=1e-6)
    np.testing.assert_allclose(bump(3, 3, transposed=True), expected.T, rtol=1e-6)
    for rows, columns in [(1, 1), (1, 5), (2, 2), (25, 25), (4, 9)]:
        values = bump(rows, columns)
        assert values.shape == (rows, columns) and np.linalg.norm(values) == pytest.approx(1)


def test_the_l2_start_is_a_grid_of_bumps_of_norm_eps():
    images = tf.fill([30, 28, 28, 2], 0.5)
    indices = tf.range(30, dtype=tf.int64)
    start = Square(1.0, norm="l2").draw_start(images, indices, tf.constant(0, tf.int64))
    change = start.numpy().astype(np.float64) - 0.5
    np.testing.assert_allclose(np.sqrt(np.square(change).sum((1, 2, 3))), 1, rtol=1e-6)
    # 5x5 bumps of side 5 in the middle, one pixel free on the first sides, two on the last.
    assert (change[:, [0, 26, 27]] == 0).all() and (change[:, :, [0, 26, 27]] == 0).all()
    cells = change[:, 1:26, 1:26].reshape(30, 5, 5, 5, 5, 2).transpose(0, 1, 3, 5, 2, 4)
    cells = cells.reshape(-1, 5, 5) * math.sqrt(50)
    bumps = np.stack([sign * b for b in (bump(5, 5), bump(5, 5).T) for sign in (-1, 1)])
    distances = np.abs(cells[:, None] - bumps).max((2, 3))
    assert (distances.min(1) < 1e-5).all()
    counts = np.bincount(distances.argmin(1), minlength=4)  # expected 375 each, deviation 17
    assert np.abs(counts - 375).max() < 5 * 17
