"""Known answers of every loss term, and the one reduction under replicas."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import losses

LOGITS = np.float32([[2, 0, -1], [0, 0, 0], [1, 3, 3]])
LABELS = np.int64([0, 2, 1])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_cross_entropy():
    expected = [math.log(1 + math.exp(-2) + math.exp(-3)), math.log(3), math.log(2 + math.exp(-2))]
    np.testing.assert_allclose(expected, [0.16985, 1.09861, 0.75862], atol=1e-5)
    found = losses.cross_entropy(LABELS, LOGITS)
    assert found.shape == (3,)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_kl_to_uniform_literals():
    # mean of -log p minus log 3; for [2, 0, -1]: logsumexp - 1/3 - log 3
    expected = [
        math.log(math.exp(2) + 1 + math.exp(-1)) - 1 / 3 - math.log(3),
        0,
        math.log(math.e + 2 * math.exp(3)) - 7 / 3 - math.log(3),
    ]
    np.testing.assert_allclose(expected, [0.73790, 0, 0.32667], atol=1e-5)
    np.testing.assert_allclose(losses.kl_to_uniform(LOGITS), expected, atol=1e-5)


def test_kl_to_uniform_is_the_divergence_from_the_uniform_distribution():
    logits = np.random.default_rng(0).normal(0, 4, (200, 10)).astype(np.float32)
    wide = logits.astype(np.float64)
    p = np.exp(wide - wide.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    expected = np.sum(0.1 * np.log(0.1 / p), axis=-1)
    found = losses.kl_to_uniform(logits).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert (found > 0).all()


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("level", [-50.0, 0.0, 7.5])
def test_kl_to_uniform_is_zero_at_equal_logits(classes, level):
    found = losses.kl_to_uniform(np.full((2, classes), level, np.float32))
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_kl_to_uniform_survives_extreme_logits():
    found = losses.kl_to_uniform(np.float32([[1000, 0], [-1000, 1000]]))
    np.testing.assert_allclose(found, [500 - math.log(2), 1000 - math.log(2)], rtol=1e-6)


def test_the_gradient_of_kl_to_uniform_is_p_minus_one_over_k():
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(losses.kl_to_uniform(logits))
    expected = tf.nn.softmax(logits) - 1 / 3
    np.testing.assert_allclose(tape.gradient(total, logits), expected, atol=1e-6)


def test_the_boundary_term_is_alive_where_the_reverse_divergence_is_dead():
    """A sample of confidence 1 - 1e-9: the reason for KL(U || P) and against KL(P || U)."""
    logits = tf.constant([[21.0, 0.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ours = losses.kl_to_uniform(logits)
        p = tf.nn.softmax(logits)
        reverse = tf.reduce_sum(p * tf.nn.log_softmax(logits), -1) + math.log(2)
    np.testing.assert_allclose(tape.gradient(ours, logits), [[0.5, -0.5]], atol=1e-5)
    assert np.abs(tape.gradient(reverse, logits)).max() < 1e-7


def gradient_of(loss, *arguments):
    """The gradient of the summed loss with respect to the first argument."""
    first = tf.constant(arguments[0])
    with tf.GradientTape() as tape:
        tape.watch(first)
        total = tf.reduce_sum(loss(first, *arguments[1:]))
    return tape.gradient(total, first).numpy()


def test_kl_uniform_top2_literals():
    # log(e^2 + 1 + e^-1) - log 2 - (2 + 0)/2, runner-up 1; all equal: log 3 - log 2; the label 0 of
    # [1, 3, 3] is not among the two largest: log(e + 2e^3) - log 2 - (1 + 3)/2.
    expected = [
        math.log(math.exp(2) + 1 + math.exp(-1)) - math.log(2) - 1,
        math.log(1.5),
        math.log(math.e + 2 * math.exp(3)) - math.log(2) - 2,
    ]
    np.testing.assert_allclose(expected, [0.47670, 0.40547, 1.06547], atol=1e-5)
    np.testing.assert_allclose(losses.kl_uniform_top2(LOGITS, [0, 2, 0]), expected, atol=1e-5)


def test_kl_uniform_top2_is_zero_where_two_classes_share_everything():
    logits = np.float32([[7, 7, -60, -60], [7, -60, 7, -60], [7, 7, -60, -60]])
    found = losses.kl_uniform_top2(logits, [0, 2, 2])
    np.testing.assert_allclose(found[:2], 0, atol=1e-6)
    assert found[2] > 30  # nothing is left for the label itself
    three = losses.kl_uniform_top2(np.float32([[7, 7, 7, -60]]), [0])
    np.testing.assert_allclose(three, math.log(1.5), atol=1e-5)  # a third of the mass is elsewhere


def test_the_gradient_of_kl_uniform_top2_is_p_minus_a_half_at_both():
    halves = np.float32([[0.5, 0.5, 0], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    found = gradient_of(losses.kl_uniform_top2, LOGITS, [0, 2, 0])
    np.testing.assert_allclose(found, tf.nn.softmax(LOGITS) - halves, atol=1e-6)
    # Alive where the classifier is sure of the label.
    sure = gradient_of(losses.kl_uniform_top2, np.float32([[30, 0, 0]]), [0])
    np.testing.assert_allclose(sure, [[0.5, -0.5, 0]], atol=1e-6)


def test_both_divergences_agree_for_two_classes():
    logits = np.random.default_rng(0).normal(0, 3, (50, 2)).astype(np.float32)
    labels = np.arange(50) % 2
    np.testing.assert_allclose(
        losses.kl_uniform_top2(logits, labels), losses.kl_to_uniform(logits), atol=1e-5
    )


def test_discriminator_loss():
    found = losses.acgan_discriminator_loss(
        np.float32([0.5, -2]),
        np.float32([-1, 3]),
        LOGITS[:2],
        LOGITS[1:],
        np.int64([0, 2]),
        np.int32([1, 0]),
    )
    classes = losses.cross_entropy([0, 2], LOGITS[:2]) + losses.cross_entropy([1, 0], LOGITS[1:])
    source = [softplus(-0.5) + softplus(-1), softplus(2) + softplus(3)]
    np.testing.assert_allclose(source, [0.78734, 5.17552], atol=1e-5)
    np.testing.assert_allclose(found, classes + np.float32(source), atol=1e-5)


def test_label_smoothing_touches_only_the_real_source_term():
    real, fake = np.float32([0.5, -2]), np.float32([-1, 3])
    plain, smooth = (
        losses.acgan_discriminator_loss(
            real, fake, LOGITS[:2], LOGITS[1:], LABELS[:2], LABELS[1:], real_target=target
        )
        for target in (1.0, 0.9)
    )
    # -0.9 log s(x) - 0.1 log s(-x) = softplus(-x) + 0.1 x
    np.testing.assert_allclose(smooth - plain, 0.1 * real, atol=1e-5)


def test_generator_loss_is_the_non_saturating_one():
    found = losses.acgan_generator_loss(np.float32([-4, 0, 4]), LOGITS, LABELS)
    source = [softplus(4), math.log(2), softplus(-4)]
    np.testing.assert_allclose(source, [4.01815, 0.69315, 0.01815], atol=1e-5)
    np.testing.assert_allclose(
        found, np.float32(source) + losses.cross_entropy(LABELS, LOGITS), atol=1e-5
    )


def test_top_two_margin():
    np.testing.assert_allclose(losses.top_two_margin(LOGITS), [2, 0, 0], atol=1e-6)


WIDE = np.float32([[4, 1, 3, 0, -2], [4, 1, 3, 0, -2], [4, 1, 3, 0, -2], [-1, -1, -7, 5, 5]])


def test_dlr():
    # Sorted 4, 3, 1, 0, -2. Right: -(4 - 3) / (4 - 1); wrong: (4 - 1) / 3, (4 - -2) / 3.
    found = losses.dlr(np.int64([0, 1, 4, 3]), WIDE)
    assert found.shape == (4,)
    # The last is a tie, 5 and 5, at which the loss is 0.
    np.testing.assert_allclose(found, [-1 / 3, 1, 2, 0], rtol=1e-6)


def test_targeted_dlr():
    # (z_t - z_y) / (4 - (1 + 0) / 2); the last: (5 - 5) and (5 - -1).
    found = losses.targeted_dlr(np.int64([0, 0, 1, 3]), np.int64([1, 4, 2, 4]), WIDE)
    assert found.shape == (4,)
    np.testing.assert_allclose(found, [-3 / 3.5, -6 / 3.5, 2 / 3.5, 0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_dlr_and_its_direction_do_not_change_with_the_scale_of_the_logits(scale):
    logits = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    labels, targets = logits.argmax(-1), logits.argmin(-1)

    def both(scale: float) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for loss in (losses.dlr, lambda y, z: losses.targeted_dlr(y, targets, z)):
            with tf.GradientTape() as tape:
                scaled = tf.constant(scale * logits)
                tape.watch(scaled)
                values = loss(labels, scaled)
            found.append((values.numpy(), scale * tape.gradient(values, scaled).numpy()))
        return found

    for (value, gradient), (plain, plain_gradient) in zip(both(scale), both(1.0), strict=True):
        np.testing.assert_allclose(value, plain, rtol=1e-5)
        np.testing.assert_allclose(gradient, plain_gradient, rtol=1e-4, atol=1e-6)
        assert (np.abs(plain_gradient).max(1) > 0.05).all()


@pytest.mark.parametrize(
    ("logits", "dlr", "targeted"),
    [
        ([[3.0, 1.0]], -2, -2),  # two classes: both are margins
        ([[3.0, 1.0, 2.0]], -0.5, -2),  # three: the targeted one is a margin
        ([[3.0, 1.0, -math.inf, 2.0]], -0.5, -2),  # three and one masked out
        ([[3.0, 1.0, -math.inf, -math.inf]], -2, -2),
    ],
)
def test_dlr_of_few_classes_is_the_margin(logits, dlr, targeted):
    logits = tf.constant(logits)
    losses_by_hand = {
        losses.dlr: ((tf.constant([0]), logits), dlr),
        losses.targeted_dlr: ((tf.constant([0]), tf.constant([1]), logits), targeted),
    }
    for loss, (arguments, expected) in losses_by_hand.items():
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(*arguments)
        np.testing.assert_allclose(value, [expected], rtol=1e-6)
        gradient = tape.gradient(value, logits).numpy()
        assert np.isfinite(gradient).all() and gradient[0, 0] < 0 < gradient[0].max()


def test_dlr_stays_finite_where_all_logits_are_equal():
    same = tf.zeros([2, 5])
    assert losses.dlr([0, 1], same).numpy().tolist() == [0, 0]
    assert losses.targeted_dlr([0, 1], [2, 0], same).numpy().tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_low_precision_logits_give_float32_losses(dtype):
    logits = tf.cast(LOGITS, dtype)
    for found in (
        losses.cross_entropy(LABELS, logits),
        losses.kl_to_uniform(logits),
        losses.kl_uniform_top2(logits, LABELS),
        losses.acgan_generator_loss(logits[:, 0], logits, LABELS),
        losses.top_two_margin(logits),
        losses.dlr(LABELS, logits),
        losses.targeted_dlr(LABELS, np.roll(LABELS, 1), logits),
    ):
        assert found.dtype == tf.float32


def test_the_average_is_over_the_global_batch(two_replicas):
    values = np.float32([1, 2, 3, 6])
    assert losses.average(values) == 3.0

    @tf.function
    def on_replicas(reduce):
        def one_replica():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            rows = tf.gather(values, 2 * replica + tf.range(2))
            return reduce(rows)

        return two_replicas.reduce("SUM", two_replicas.run(one_replica), axis=None)

    assert on_replicas(losses.average) == 3.0
    assert on_replicas(tf.reduce_mean) == 6.0  # what the one reduction is there to prevent


@pytest.mark.parametrize("mask", [-1e9, np.finfo(np.float32).min, -np.inf])
def test_masked_classes_and_a_common_offset_change_no_loss(mask):
    """Each loss, and its gradient, is that of the classes that are there."""
    draws = np.random.default_rng(7)
    plain, other = (draws.normal(0, 3, (6, 3)).astype(np.float32) for _ in range(2))
    labels, targets = np.array([0, 1, 2, 0, 1, 2]), np.array([1, 2, 0, 2, 0, 1])

    def taken(loss, *logits, wide):
        logits = [tf.constant(one) for one in logits]
        with tf.GradientTape() as tape:
            tape.watch(logits)
            given = logits
            if wide:
                pads = [[0, 0], [0, 2]]
                given = [tf.pad(one + 64.0, pads, constant_values=mask) for one in logits]
            values = loss(*given)
        return [values, *tape.gradient(values, logits)]

    for loss, logits in (
        (lambda z: losses.cross_entropy(labels, z), [plain]),
        (losses.kl_to_uniform, [plain]),
        (lambda z: losses.kl_uniform_top2(z, labels), [plain]),
        (losses.top_two_margin, [plain]),
        (losses.kl_divergence, [plain, other]),
        (lambda z: losses.dlr(labels, z), [plain]),
    ):
        expected, found = (taken(loss, *logits, wide=wide) for wide in (False, True))
        for one, two in zip(expected, found, strict=True):
            np.testing.assert_allclose(two, one, atol=2e-5)
    if mask == -np.inf:  # attacks give a class that is masked out with a finite number this one
        few = functools.partial(losses.targeted_dlr, labels, targets)
        for one, two in zip(*(taken(few, plain, wide=w) for w in (False, True)), strict=True):
            np.testing.assert_allclose(two, one, atol=2e-5)
