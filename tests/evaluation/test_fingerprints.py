"""Two models are one where they have the same weights and do the same with them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.attacks import FGSM, suite
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.state import model_digest
from helpers.suites import evaluate

IMAGES = np.random.default_rng(0).uniform(size=(6, 4, 4, 1)).astype(np.float32)
LABELS = np.arange(6) % 3
KERNELS = [
    np.random.default_rng(1).normal(size=shape).astype(np.float32)
    for shape in ((16, 5), (5,), (5, 3), (3,))
]


def network(*, activation="relu", scale=1.0, skip=False, dtype=None, name=None) -> keras.Model:
    image = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(scale)(image))
    hidden = keras.layers.Dense(5, activation=activation, dtype=dtype)(x)
    read = keras.layers.Add()([hidden, hidden]) if skip else keras.layers.Identity()(hidden)
    model = keras.Model(image, keras.layers.Dense(3, name=name)(read))
    model.set_weights(KERNELS)
    return model


def test_the_same_network_built_again_is_the_same(tmp_path):
    first = network()
    assert model_digest(first) == model_digest(network()) == model_digest(network(name="logits"))
    first.save(tmp_path / "model.keras")
    assert model_digest(keras.models.load_model(tmp_path / "model.keras")) == model_digest(first)


@pytest.mark.parametrize(
    "changed",
    [{"activation": "tanh"}, {"scale": 100.0}, {"skip": True}, {"dtype": "mixed_bfloat16"}],
    ids=lambda changed: next(iter(changed)),
)
def test_what_computes_something_else_is_another(changed, tmp_path):
    assert model_digest(network(**changed)) != model_digest(network())
    data = (IMAGES, network()(IMAGES).numpy().argmax(1))
    evaluate(network(), data, [FGSM(0.1)], state=tmp_path)
    with pytest.raises(UserError, match="other settings: model"):
        evaluate(network(**changed), data, [FGSM(0.1)], state=tmp_path)


def test_attacks_on_survivors_are_not_taken_for_attacks_on_all(tmp_path):
    shared = {"eps": 0.1, "state": tmp_path}
    evaluate(network(), (IMAGES, LABELS), attacks="standard", **shared)
    attacks = suite("standard", 0.1, num_classes=3)
    with pytest.raises(UserError, match="survivors_only"):
        evaluate(network(), (IMAGES, LABELS), attacks, **shared)


def test_a_model_that_cannot_describe_itself_has_its_weights():
    class Mine(keras.Model):
        def get_config(self):
            raise NotImplementedError

    assert model_digest(Mine()) == model_digest(Mine()) != model_digest(network())
