"""FAB where there is nothing to find or nothing to follow, and its settings."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks.fab import FAB
from bcgan_tf.errors import UserError
from helpers.linear_task import Linear, linear_model
from helpers.toy_models import sharp_network

both_aims = pytest.mark.parametrize("targeted", [True, False], ids=["targeted", "untargeted"])
each_kind = pytest.mark.parametrize(
    ("eps", "targeted", "norm"),
    [(None, True, "l2"), (0.2, True, "linf"), (0.2, False, "l2")],
    ids=["targeted-unbounded", "targeted", "untargeted"],
)


@each_kind
def test_a_boundary_outside_the_box_is_not_reached(eps, targeted, norm):
    model = Linear(np.float32([[0, 1], [0, 1]]), np.float32([0, -2.1]))
    images = np.random.default_rng(0).uniform(0, 1, (5, 2)).astype(np.float32)
    attack = FAB(eps, norm=norm, targeted=targeted, steps=10)
    assert not attack(model, images, np.zeros(5, int)).success.any()


@each_kind
def test_a_zero_gradient_is_a_failure(eps, targeted, norm):
    model, images, labels = linear_model(6)

    def masked(batch: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(model(batch)) + 0.0 * model(batch)

    result = FAB(eps, norm=norm, targeted=targeted, steps=5)(masked, images, labels)
    assert not result.success.any()
    np.testing.assert_array_equal(result.adversarials, images)


@each_kind
def test_a_gradient_of_nan_is_an_error(eps, targeted, norm):
    model, images, labels = linear_model(3)

    @tf.custom_gradient
    def broken(batch: tf.Tensor):
        return tf.identity(batch), lambda upstream: np.nan * upstream

    attack = FAB(eps, norm=norm, targeted=targeted, steps=3)
    with pytest.raises(UserError, match="gradient is NaN or infinite"):
        attack(lambda batch: model(broken(batch)), images, labels)


@both_aims
def test_a_missing_gradient_is_an_error(targeted):
    model, images, labels = linear_model(3)
    with pytest.raises(UserError, match="no gradient"):
        FAB(0.2, targeted=targeted)(lambda batch: model(tf.round(batch)) * 1.0, images, labels)


def test_eps_zero_returns_the_inputs():
    model, images, labels = sharp_network(6, 6, 1, count=19)
    result = FAB(0)(model, images, labels)
    np.testing.assert_array_equal(result.adversarials, images)
    assert result.robust_accuracy == 1


def test_names_and_settings():
    named = [FAB(0.3), FAB(0.3, targeted=False), FAB(None, norm="l2"), FAB(1, norm="l2")]
    assert [attack.name for attack in named] == ["FAB-T", "FAB", "FAB-T-L2", "FAB-T-L2"]
    assert FAB(0.3).config() == {
        "batch_size": 250,
        "seed": 0,
        "eps": 0.3,
        "norm": "linf",
        "targeted": True,
        "steps": 100,
        "restarts": 1,
        "target_classes": 9,
        "alpha_max": 0.1,
        "eta": 1.05,
        "beta": 0.9,
    }
    assert "target_classes" not in FAB(0.3, targeted=False).config()
    assert json.loads(json.dumps(FAB(None).config()))["eps"] is None
    rounds = [FAB(0.3, restarts=2).rounds, FAB(0.3, targeted=False, restarts=2).rounds]
    assert rounds == [18, 2] and FAB(None, restarts=2).rounds == 1


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: FAB(-0.1), "eps is -0.1"),
        (lambda: FAB(8), r"pixels lie in \[0, 1\]"),
        (lambda: FAB(None, norm="l1"), "norm is 'l1'"),
        (lambda: FAB(None, steps=0), "steps is 0"),
        (lambda: FAB(0.1, restarts=0), "restarts is 0"),
        (lambda: FAB(0.1, target_classes=0), "target_classes is 0"),
        (lambda: FAB(0.1, alpha_max=1.5), "alpha_max is 1.5"),
        (lambda: FAB(0.1, eta=0.9), "eta is 0.9"),
        (lambda: FAB(0.1, beta=1.0), "beta is 1"),
        (lambda: FAB(None, beta=0.0), "beta is 0"),
        (lambda: FAB(None, batch_size=0), "batch_size is 0"),
    ],
)
def test_settings_out_of_range(build, match):
    with pytest.raises(UserError, match=match) as caught:
        build()
    assert "\n" not in str(caught.value)
