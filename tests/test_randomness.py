"""Stateless draws: repeatable, distinct by purpose, step and replica, one draw over replicas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import randomness


def on_replicas(strategy, draw):
    """``draw()`` on every replica: a list of arrays."""

    @tf.function
    def run():
        return strategy.run(draw)

    return [part.numpy() for part in strategy.experimental_local_results(run())]


def noise(seed=0, purpose=0, step=0, rows=6):
    key = randomness.step_seed(seed, purpose, tf.constant(step))
    return randomness.global_normal(key, rows, 5).numpy()


def test_draws_repeat():
    np.testing.assert_array_equal(noise(3, 1, 7), noise(3, 1, 7))


def test_draws_differ_by_seed_purpose_and_step():
    draws = [noise(*key) for key in itertools.product((0, 1), (0, 1), (0, 1))]
    for one, other in itertools.combinations(draws, 2):
        assert not np.isin(one, other).any()


def test_the_step_may_be_of_any_integer_type():
    for dtype in (tf.int32, tf.int64):
        key = randomness.step_seed(1, 2, tf.constant(5, dtype))
        assert key.dtype == tf.int32
        np.testing.assert_array_equal(key, randomness.step_seed(1, 2, tf.constant(5)))


def test_the_noise_is_standard_normal():
    draw = noise(rows=4000)
    assert abs(draw.mean()) < 0.03
    assert abs(draw.std() - 1) < 0.03


def test_labels_are_uniform():
    labels = randomness.global_labels(randomness.step_seed(0, 0, tf.constant(0)), 5000, 5)
    assert labels.dtype == tf.int32
    counts = np.bincount(labels, minlength=5)
    assert len(counts) == 5
    assert counts.min() > 900


@pytest.mark.parametrize("kind", ["normal", "labels"])
def test_replicas_share_out_the_draw_of_one(two_replicas, kind):
    key = randomness.step_seed(4, 1, tf.constant(9))

    def draw(rows):
        if kind == "normal":
            return randomness.global_normal(key, rows, 3)
        return randomness.global_labels(key, rows, 1000)

    parts = on_replicas(two_replicas, lambda: draw(4))
    assert [len(part) for part in parts] == [4, 4]
    np.testing.assert_array_equal(np.concatenate(parts), draw(8))
    assert not np.isin(parts[0], parts[1]).any()


def test_a_number_of_rows_known_only_in_the_graph(two_replicas):
    key = randomness.step_seed(4, 1, tf.constant(9))

    def draw():
        return randomness.global_normal(key, tf.constant(2) * 2, 3)

    parts = on_replicas(two_replicas, draw)
    np.testing.assert_array_equal(
        np.concatenate(parts), randomness.global_normal(key, tf.constant(8), 3)
    )


def test_a_folded_replica_changes_the_seed(two_replicas):
    key = tf.constant([1, 2])
    first, second = on_replicas(two_replicas, lambda: randomness.fold_replica(key))
    assert (first != second).any()
    np.testing.assert_array_equal(first, randomness.fold_replica(key))  # no replicas: the first


def test_seeds_reach_as_far_as_numpys():
    seeds = [0, 1, 2**31 - 1, 2**31, 3_000_000_000, 2**32 - 1]
    drawn = [tuple(randomness.step_seed(seed, 5, tf.constant(2)).numpy()) for seed in seeds]
    assert len(set(drawn)) == len(seeds)
