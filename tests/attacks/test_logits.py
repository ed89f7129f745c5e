"""A common offset and masked classes change nothing: known answers of what looks at logits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks.expectation import differing_answers
from bcgan_tf.attacks.logits import check_digits, logits_differ, masked_classes
from bcgan_tf.errors import UserError

MASKS = [-1e4, -1e9, np.finfo(np.float32).min, -np.inf]


def _drawn(count: int = 40, classes: int = 5, scale: float = 4.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, (count, classes)).astype(np.float32)


def _with_mask(logits: np.ndarray, mask: float) -> np.ndarray:
    return np.concatenate([logits, np.full((len(logits), 1), mask, np.float32)], 1)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("offset", [0.0, 1e5, -1e5])
def test_logits_that_differ_do_so_beside_any_mask_and_offset(mask, offset):
    logits = _drawn()
    moved = logits.copy()
    moved[::2, 2] += 0.1
    first, second = (_with_mask(one, mask) + np.float32(offset) for one in (logits, moved))
    assert logits_differ(first, second).tolist() == [True, False] * 20
    assert not logits_differ(first, first).any()
    assert not logits_differ(_with_mask(logits, mask), first).any()  # the offset alone
    # Rounding is no difference, at any scale of the logits.
    for scale in (1e-4, 1.0, 1e4):
        rounded = logits * np.float32(scale * (1 + 1e-6))
        assert not logits_differ(logits * np.float32(scale), rounded).any()


def test_a_class_masked_in_one_set_only_is_a_difference():
    logits = _drawn()
    assert logits_differ(_with_mask(logits, -np.inf), _with_mask(logits, -5.0)).all()
    unfit = np.full_like(logits, np.nan)
    assert logits_differ(logits, unfit).all() and not logits_differ(unfit, unfit).any()


@pytest.mark.parametrize("mask", MASKS)
def test_the_masked_classes_are_those_and_no_others(mask):
    for scale in (1e-3, 1.0, 4.0):
        found = masked_classes(_with_mask(_drawn(scale=scale), mask))
        assert found.tolist() == [False] * 5 + [True]
    assert not masked_classes(_drawn(scale=1e5)).any()


def test_an_offset_that_leaves_float32_no_digits_is_refused():
    for logits in (_drawn(), _drawn() + np.float32(1e5), _drawn(scale=1e6)):
        check_digits(logits)
    with pytest.raises(UserError, match=r"the logits lie around 1e\+08.*subtract the common offset"):
        check_digits(_drawn() + np.float32(1e8))


@pytest.mark.parametrize("mask", MASKS)
def test_a_draw_is_seen_beside_a_masked_class(mask):
    """Noise on a hundredth of the pixels of a linear model, and a class that is never meant."""
    weights = tf.constant(np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32))
    images = np.random.default_rng(2).uniform(size=(12, 9)).astype(np.float32)

    def model(x, drawn=True):
        if drawn:
            x += tf.random.normal(tf.shape(x), stddev=0.01)
        return tf.pad(x @ weights, [[0, 0], [0, 1]], constant_values=mask)

    assert differing_answers(model, images) == 1.0
    assert differing_answers(lambda x: model(x, drawn=False), images) == 0.0
