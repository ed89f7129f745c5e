"""Auto-PGD on models whose answers are known on paper, and what it refuses."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import PGD
from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.objectives import ranked_wrong_class
from bcgan_tf.errors import UserError
from helpers.linear_task import around, images_at

norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def _apgd_dlr(eps: float, **settings) -> APGD:
    return APGD(eps, loss="dlr", **settings)


def _apgd_t(eps: float, **settings) -> APGD:
    return APGD(eps, loss="dlr", targeted=True, **settings)


@norms
@pytest.mark.parametrize(
    ("classes", "build"),
    [(2, APGD), (2, _apgd_dlr), (2, _apgd_t), (3, _apgd_t), (5, _apgd_t)],
    ids=["ce-2", "dlr-2", "t-2", "t-3", "t-5"],
)
def test_success_just_above_the_distance_and_failure_just_below(classes, build, norm):
    """With more than two classes the untargeted losses have local maxima; targets are sure."""
    data = around(0.05, norm, classes, 0.995, 1.005)
    result = build(0.05, norm=norm, steps=50)(*data)
    assert result.clean_accuracy == 1
    np.testing.assert_array_equal(result.success, np.arange(24) < 12)


def _start(attack: APGD, images: np.ndarray) -> np.ndarray:
    zero = tf.constant(0, tf.int64)
    return attack.draw_start(tf.constant(images), tf.range(len(images), dtype=tf.int64), zero)


def test_dlr_is_blind_to_the_scale_that_blinds_cross_entropy(digits_cnn):
    images, labels, eps = digits_cnn.images[:40], digits_cnn.labels[:40], 0.2

    def scaled(batch: tf.Tensor) -> tf.Tensor:
        return 1000.0 * digits_cnn.model(batch, training=False)

    cross_entropy = APGD(eps, steps=30)
    dlr, targeted = APGD(eps, steps=30, loss="dlr"), _apgd_t(eps, steps=30)
    plain = dlr(digits_cnn.model, images, labels)
    assert cross_entropy(scaled, images, labels).success_rate < 0.5
    for attack in (dlr, targeted):
        assert attack(scaled, images, labels).success_rate >= plain.success_rate > 0.8


@norms
def test_gradients_of_exactly_zero_give_no_step(norm):
    def flat(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(images - 2.0) + tf.constant([[3.0, 0.0, 0.0]])

    images, labels = np.full((9, 3), 0.5, np.float32), np.zeros(9, int)
    for attack in (APGD(0.2, norm=norm, steps=20), APGD(0.2, norm=norm, steps=20, loss="dlr")):
        result = attack(flat, images, labels)
        np.testing.assert_allclose(result.adversarials, _start(attack, images), rtol=0, atol=1e-6)
        assert result.success_rate == 0


def test_a_misclassified_iterate_of_low_loss_is_returned():
    """The target's logit rises to the right and never wins; another class wins on the left."""

    def model(images: tf.Tensor) -> tf.Tensor:
        left = 10.0 * (0.35 - images)
        return tf.concat([tf.zeros_like(images), left, images - 1.1, images - 9, images - 9], 1)

    images, labels = np.full((40, 1), 0.5, np.float32), np.zeros(40, int)
    attack = dataclasses.replace(_apgd_t(0.2, target_classes=1), steps=5)
    result = attack(model, images, labels)
    began_left = _start(attack, images).numpy()[:, 0] < 0.5
    assert 0.2 < began_left.mean() < 0.8
    np.testing.assert_array_equal(result.success, began_left)
    np.testing.assert_allclose(result.adversarials[:, 0], np.where(began_left, 0.3, 0.7), atol=1e-6)


def test_targets_are_ranked_by_the_clean_logits():
    logits = tf.constant([[5.0, 1, 3, 2], [0, 9, -np.inf, 4], [2, 2, 2, 2]])
    labels = tf.constant([0, 1, 2], tf.int64)
    ranked = [ranked_wrong_class(logits, labels, tf.constant(r, tf.int64)) for r in range(5)]
    exists = np.transpose([there for _, there in ranked])
    np.testing.assert_array_equal(exists, [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    classes = np.transpose([found for found, _ in ranked])
    np.testing.assert_array_equal(classes[0, :3], [2, 3, 1])
    np.testing.assert_array_equal(classes[1, :2], [3, 0])
    assert sorted(classes[2, :3]) == [0, 1, 3]


class _Counter:
    """A model that counts the images it was run on."""

    def __init__(self, model) -> None:
        self._model, self._count = model, tf.Variable(0, dtype=tf.int64)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        self._count.assign_add(tf.shape(images, tf.int64)[0])
        return self._model(images, training=False)

    def count(self, attack: APGD, images: np.ndarray, labels: np.ndarray) -> int:
        self._count.assign(0)
        self.result = attack(self, images, labels)
        return int(self._count)


def test_broken_examples_cost_little(digits_cnn):
    counter = _Counter(digits_cnn.model)
    images, labels = digits_cnn.images, digits_cnn.labels
    # Clean, and run again on the result, in 2 of these; 101 points an example for those that stand.
    assert counter.count(APGD(0.4), images, labels) < 8 * len(images)
    assert counter.count(APGD(1e-6), images, labels) > 98 * len(images)


def test_rounds_without_a_target_do_nothing():
    model, images, labels = images_at(0.05, "linf", 3)
    counter = _Counter(lambda batch, training: model(batch))
    two = counter.count(_apgd_t(0.04, target_classes=2, steps=20), images, labels)
    nine = counter.count(_apgd_t(0.04, target_classes=9, steps=20), images, labels)
    assert two >= 2 * 21 * 12
    assert nine - two <= 7 * 2 * 12  # the clean logits and the run on what came back
    assert counter.result.success_rate == 0
    assert np.isfinite(counter.result.adversarials).all()


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("targeted", [False, True])
def test_an_undefended_network_falls_and_a_targeted_attack_needs_no_fewer_images(
    digits_cnn, loss, targeted
):
    attack = APGD(0.3, loss=loss, targeted=targeted, steps=30)
    result = attack(digits_cnn.model, digits_cnn.images, digits_cnn.labels)
    assert result.robust_accuracy <= 0.01 and result.clean_accuracy >= 0.95


def test_it_is_no_weaker_than_pgd(digits_cnn):
    images, labels, eps = digits_cnn.images, digits_cnn.labels, 0.08
    pgd = PGD(eps, steps=40)(digits_cnn.model, images, labels)
    apgd = APGD(eps, steps=40)(digits_cnn.model, images, labels)
    assert 0.1 < pgd.robust_accuracy < 0.9
    assert apgd.robust_accuracy <= pgd.robust_accuracy + 0.01


def test_a_gradient_that_breaks_down_is_not_called_robust():
    weights = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    images = np.random.default_rng(0).uniform(0, 1, (6, 4)).astype(np.float32)
    labels = (images @ weights).argmax(-1)

    @tf.custom_gradient
    def broken(batch: tf.Tensor):
        return batch @ weights, lambda upstream: batch * float("nan")

    def brittle(batch: tf.Tensor) -> tf.Tensor:
        clean = tf.reduce_all(tf.abs(batch - 0.5) < 10, axis=1) & (batch[:, 0] == images[:, 0])
        return batch @ weights + tf.where(clean, 0.0, float("nan"))[:, None]

    for attack in (APGD(0.1, norm="l2", steps=5), _apgd_t(0.1, steps=5)):
        with pytest.raises(UserError, match="gradient is NaN or infinite"):
            attack(broken, images, labels)
    for attack in (APGD(0.1), _apgd_t(0.1)):
        with pytest.raises(UserError, match="no gradient"):
            attack(lambda batch: tf.round(10 * batch) @ weights, images, labels)
    with pytest.raises(UserError, match="NaN logits on images changed by APGD"):
        APGD(0.1, steps=5)(brittle, images, labels)


def test_names_and_configurations():
    builds = [APGD(0.1), APGD(0.1, loss="dlr"), _apgd_t(0.1), _apgd_t(1, norm="l2")]
    assert [attack.name for attack in builds] == ["APGD-CE", "APGD-DLR", "APGD-T", "APGD-T-L2"]
    assert [attack.rounds for attack in builds] == [1, 1, 9, 9]
    assert _apgd_t(0.1, restarts=2, target_classes=4).rounds == 8
    assert APGD(0.3, steps=10).config() == {
        "batch_size": 250,
        "seed": 0,
        "eps": 0.3,
        "norm": "linf",
        "loss": "ce",
        "targeted": False,
        "steps": 10,
        "restarts": 1,
        "checkpoints": [2, 3, 4, 5, 6, 7, 8, 9, 10],
    }
    config = json.loads(json.dumps(_apgd_t(0.3).config()))
    assert config["target_classes"] == 9
    assert config["loss_of_few_classes"] == "targeted margin where K < 4"


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"loss": "cw"}, "loss is 'cw'; choose ce or dlr"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"target_classes": 2.5}, "target_classes is 2.5"),
        ({"eps": -1.0}, "eps is -1.0"),
    ],
)
def test_settings_out_of_range(settings, match):
    with pytest.raises(UserError, match=match):
        APGD(**({"eps": 0.1} | settings))
