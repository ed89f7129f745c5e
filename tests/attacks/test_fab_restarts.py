"""FAB's restarts and random starts: what they add, and what they must not change."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks.fab import FAB
from helpers.linear_task import ORDERS, linear_model


def test_without_eps_the_nearest_of_all_targets_and_restarts_is_kept():
    model, images, labels = linear_model(6)
    one, all_, again = (
        FAB(None, norm="l2", steps=10, **more)(model, images, labels).l2
        for more in ({"target_classes": 1}, {}, {"restarts": 2})
    )
    # The final search brings each of them only to about 1e-4 of its boundary.
    assert (all_ <= one * 1.001).all() and (all_ < one * 0.95).any()
    assert (again <= all_ * 1.001).all()


def test_restarts_leave_a_plateau():
    """Within 0.02 around the image nothing changes; beyond, the boundary is at 0.6."""

    def plateau(images: tf.Tensor) -> tf.Tensor:
        away = tf.maximum(images - 0.5, 0.02)
        return tf.concat([tf.zeros_like(away), away - 0.1], axis=1)

    images, labels = np.full((200, 1), 0.5, np.float32), np.zeros(200, int)
    assert not FAB(0.15, steps=10)(plateau, images, labels).success.any()
    for eps in (0.15, None):
        attack = FAB(eps, steps=10, restarts=3, target_classes=1)
        result = attack(plateau, images, labels)
        # Random starts lie on both sides alike: 1 - 2**-2.
        assert result.success_rate == pytest.approx(0.75, abs=0.1)
        np.testing.assert_allclose(result.linf[result.success], 0.1, rtol=1e-2)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_lie_on_a_sphere_and_depend_on_the_index_alone(norm):
    attack = FAB(None, norm=norm, seed=3, targeted=False)

    def start(count: int, number: int, distance: float) -> np.ndarray:
        images, indices = tf.fill([count, 3], 0.5), tf.range(count, dtype=tf.int64)
        drawn = attack._start(images, indices, tf.constant(number, tf.int64), [distance] * count)
        return drawn.numpy() - 0.5

    assert not start(5, 0, np.inf).any()
    far, near = start(500, 1, np.inf), start(500, 1, 0.2)
    order = ORDERS[norm]
    half = {"linf": 0.15, "l2": 0.5}[norm]
    np.testing.assert_allclose(np.linalg.norm(far, order, axis=1), half, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(near, order, axis=1), 0.1, rtol=1e-4)
    np.testing.assert_allclose(near / 0.1, far / half, atol=1e-5)
    assert np.abs(far.mean(0) / half).max() < 0.12
    np.testing.assert_array_equal(start(7, 1, np.inf), far[:7])
    assert abs(np.corrcoef(start(500, 2, np.inf)[:, 0], far[:, 0])[0, 1]) < 0.15
