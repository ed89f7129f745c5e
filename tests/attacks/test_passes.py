"""What a search spends is counted as it is spent."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import APGD, FAB, PGD, Square
from bcgan_tf.attacks.passes import Passes

IMAGES = np.random.default_rng(0).uniform(0.3, 0.7, size=(12, 3, 3, 1)).astype(np.float32)
WEIGHTS = tf.constant(np.random.default_rng(1).normal(size=(9, 4)), tf.float32)


def certain(images: tf.Tensor) -> tf.Tensor:
    """Logits with a gradient, of which class 0 stays the largest."""
    return 1e-3 * tf.matmul(tf.reshape(images, [-1, 9]), WEIGHTS) + tf.constant([1.0, 0, 0, 0])


LABELS = np.zeros(12, np.int64)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (PGD(0.1, steps=7), Passes(7 * 12, 7 * 12)),
        # The last point is judged with its gradient.
        (APGD(0.1, steps=10), Passes(11 * 12, 11 * 12)),
        # Each of nine rounds looks at the clean image; three have a target.
        (
            APGD(0.1, loss="dlr", targeted=True, steps=10),
            Passes((9 + 3 * 11) * 12, 3 * 11 * 12),
        ),
        (Square(0.1, queries=30), Passes(31 * 12, 0)),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_an_attack_that_breaks_nothing_spends_its_budget(attack, expected):
    found = attack(certain, IMAGES, LABELS)
    assert not found.success.any()
    assert found.passes == expected
    assert found.to_dict()["passes"] == {"forward": expected.forward, "backward": expected.backward}


def test_gradients_of_all_classes_are_counted_each():
    found = FAB(0.1, targeted=False, steps=5)(certain, IMAGES, LABELS)
    assert found.passes.backward == 4 * 5 * 12


def test_examples_that_fall_cost_nothing_more():
    def wrong(images: tf.Tensor) -> tf.Tensor:
        return certain(images) - 2.0 * tf.cast(images[:, :1, 0, 0] != first, tf.float32) * [
            1,
            0,
            0,
            0,
        ]

    first = IMAGES[0, 0, 0, 0]
    some = np.repeat(IMAGES[:1], 8, axis=0)
    spent = [
        PGD(0.1, steps=40, random_start=True)(function, some, LABELS[:8]).passes.forward
        for function in (certain, wrong)
    ]
    assert spent[0] == 40 * 8 and spent[1] < 4 * 8


def test_two_calls_are_counted_apart():
    prepared = PGD(0.1, steps=3).prepare(certain)
    assert [prepared(IMAGES, LABELS).passes.forward for _ in range(2)] == [36, 36]
