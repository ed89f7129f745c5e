"""A common offset and masked classes change nothing: known answers of what looks at logits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import APGD, FAB, FGSM, PGD, CarliniWagnerL2, Square
from bcgan_tf.attacks.checks import look_like_probabilities
from bcgan_tf.attacks.expectation import differing_answers
from bcgan_tf.attacks.logits import check_digits, logits_differ, masked_classes
from bcgan_tf.errors import UserError
from helpers.linear_task import Linear

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
    with pytest.raises(
        UserError, match=r"the logits lie around 1e\+08.*subtract the common offset"
    ):
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


class _Masked:
    """A small network of ``real`` classes, among others that are masked out, and an offset."""

    def __init__(self, real: int, masks: tuple[float, ...] = (), offset: float = 0.0) -> None:
        draws = np.random.default_rng(real)
        self.hidden = draws.normal(0, 1, (12, 16))
        self.output = draws.normal(0, 1, (16, real))
        self.masks = np.float32(masks)
        self.offset = np.float32(offset)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(tf.cast(images, tf.float64), [tf.shape(images)[0], 12])
        logits = tf.cast(tf.tanh((flat - 0.5) @ self.hidden) @ self.output, tf.float32)
        masked = tf.zeros_like(logits[:, :1]) + self.masks
        return tf.concat([logits, masked], 1) + self.offset


def _images(model: _Masked, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(4).uniform(0.3, 0.7, (count, 4, 3, 1)).astype(np.float32)
    return images, model(tf.constant(images)).numpy().argmax(1)


ATTACKS = {
    "FGSM": FGSM(0.05),
    "PGD": PGD(0.05, steps=5),
    "APGD-CE": APGD(0.05, steps=10),
    "APGD-DLR": APGD(0.05, loss="dlr", steps=10),
    "APGD-T": APGD(0.05, loss="dlr", targeted=True, steps=5),
    "CW": CarliniWagnerL2(steps=20, binary_search_steps=3, learning_rate=0.1, initial_const=1.0),
    "FAB": FAB(0.05, targeted=False, steps=5),
    "FAB-T": FAB(0.05, steps=5),
    "Square": Square(0.05, queries=50),
}


# Where a model has few classes, losses look at those that are left: 2, of a target 3.
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_takes_masked_classes_for_none(name):
    """Its examples are those of the network that does not have them."""
    real = 2 if name in ("APGD-DLR", "FAB-T", "Square") else 3
    plain = _Masked(real)
    images, labels = _images(plain)
    expected = ATTACKS[name](plain, images, labels)
    lowest = float(np.finfo(np.float32).min)
    found = ATTACKS[name](_Masked(real, (lowest, -np.inf)), images, labels)
    np.testing.assert_array_equal(found.success, expected.success)
    np.testing.assert_allclose(found.adversarials, expected.adversarials, atol=1e-5)
    assert expected.success.any()


def test_carlini_wagner_succeeds_as_near_beside_a_common_offset():
    """Float32 numbers are 0.06 apart at 1e6: a hundredth of what the logits differ by."""
    draws = np.random.default_rng(2)
    weights = draws.normal(0, 50, (12, 4)).astype(np.float32)
    plain = Linear(weights, -0.5 * weights.sum(0))
    images = draws.uniform(0.1, 0.9, (20, 4, 3, 1)).astype(np.float32)
    labels = plain(tf.constant(images)).numpy().argmax(1)
    attack = CarliniWagnerL2(steps=60, learning_rate=0.05, binary_search_steps=5)
    expected = attack(plain, images, labels)
    found = attack(lambda images: plain(images) + 1e6, images, labels)
    exact = plain.distances(images, labels, "l2").min(1)
    clear = exact > 0.1
    assert clear.sum() > 6 and found.success.all() and expected.success.all()
    np.testing.assert_allclose(found.l2[clear], expected.l2[clear], rtol=0.05)


def test_outputs_are_probabilities_beside_a_masked_class_too():
    rows = np.random.default_rng(0).dirichlet(np.ones(4), 6).astype(np.float32)
    for outputs in (rows, _with_mask(rows, -1e9), _with_mask(rows, -np.inf)):
        assert look_like_probabilities(outputs)
    assert not look_like_probabilities(_with_mask(np.log(rows), -np.inf))
    assert not look_like_probabilities(np.full((2, 3), -np.inf, np.float32))
