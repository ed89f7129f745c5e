"""A model is known by what it answers: another one of the same name is never taken for it."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation import archive
from bcgan_tf.evaluation.state import differing, fingerprint
from bcgan_tf.files import as_json
from bcgan_tf.loading.model import load_model
from bcgan_tf.workflows.attack import keep_identity
from helpers.evaluations import SETTINGS, attack_toy, open_run
from helpers.linear_task import IMAGES, LABELS, WEIGHTS
from helpers.suites import evaluate

OTHER = WEIGHTS + np.float32(0.01)
OTHER[:, 0] -= 0.02
SUBJECT = (IMAGES, LABELS)


def _linear(weights):
    return lambda images: tf.reshape(images, [-1, 16]) @ weights


class Scaled(keras.Model):
    """Answers by an attribute that no configuration tells."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, images):
        return self.scale * (tf.reshape(images, [-1, 16]) @ WEIGHTS)


def _with_backward(weights):
    def model(images):
        return tf.round(_linear(WEIGHTS)(images))

    model.backward = _linear(weights)
    return model


PAIRS = {
    "a lambda": (_linear(WEIGHTS), _linear(OTHER)),
    "an attribute": (Scaled(1.0), Scaled(2.0)),
    "a stand-in": (_with_backward(WEIGHTS), _with_backward(OTHER)),
    "a spread": (
        lambda x: _linear(WEIGHTS)(x) + tf.random.normal([1, 4], stddev=0.1),
        lambda x: _linear(WEIGHTS)(x) + tf.random.normal([1, 4], stddev=0.4),
    ),
    "a mean": (
        lambda x: _linear(WEIGHTS)(x) + tf.random.normal([1, 4], stddev=0.1),
        lambda x: (
            _linear(WEIGHTS + np.eye(16, 4, dtype="f"))(x) + tf.random.normal([1, 4], stddev=0.1)
        ),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_state_of_another_model_is_refused(tmp_path, name):
    one, other = PAIRS[name]
    for _ in range(2):
        evaluate(one, SUBJECT, [FGSM(0.1)], state=tmp_path, eot_samples=1)
    with pytest.raises(UserError, match=r"other settings: model \(it answers otherwise\); use"):
        evaluate(other, SUBJECT, [FGSM(0.1)], state=tmp_path, eot_samples=1)


def test_shards_of_two_models_do_not_merge():
    def shard(weights, number):
        return evaluate(_linear(weights), SUBJECT, [FGSM(0.1)], shard=(number, 2))

    assert archive.merge([shard(WEIGHTS, 1), shard(WEIGHTS, 2)]).n == 60
    with pytest.raises(UserError, match="differ in identity: in their answers; merge"):
        archive.merge([shard(WEIGHTS, 1), shard(OTHER, 2)])


def test_rounding_is_no_other_model():
    """As on another machine, in half precision, or with a class that is masked out."""

    def half(order):
        def model(images):
            pixels = tf.cast(tf.reshape(images, [-1, 16]), tf.bfloat16)
            kernel = tf.constant(WEIGHTS, tf.bfloat16)
            parts = [pixels[:, i : i + 1] @ kernel[i : i + 1] for i in order]
            logits = tf.cast(sum(parts[1:], parts[0]), tf.float32)
            return tf.pad(logits, [[0, 0], [0, 1]], constant_values=-np.inf)

        return model

    one = fingerprint(half(range(16)), *SUBJECT)
    other = fingerprint(half(range(15, -1, -1)), *SUBJECT)
    kept = json.loads(json.dumps(as_json(one)))
    assert one["answers"] != other["answers"] and differing(kept, other) == []
    exact = fingerprint(_linear(WEIGHTS), *SUBJECT)
    permuted = fingerprint(lambda x: _linear(WEIGHTS[::-1])(x[:, ::-1, ::-1]), *SUBJECT)
    assert differing(exact, permuted) == []
    assert differing(exact, fingerprint(_linear(WEIGHTS * 1.001), *SUBJECT)) == ["answers"]
    # Answers to other images say nothing of the model.
    assert differing(exact, fingerprint(_linear(WEIGHTS), IMAGES[1:], LABELS[1:])) == ["data"]


def _kept(weights) -> keras.Model:
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(image)))
    model.set_weights([weights, np.zeros(4, np.float32)])
    return model


def test_a_file_that_a_function_reads_and_others_are_known_too(tmp_path):
    """``mod.py:classify`` loads ``w.keras``, which is then replaced."""

    def loaded(weights):
        _kept(weights).save(tmp_path / "w.keras")
        name = f"mod_{len(list(tmp_path.glob('mod_*')))}.py"
        # Each process runs the file anew; here the same text under another name stands for that.
        (tmp_path / name).write_text(
            f"import keras\nnet = keras.models.load_model({str(tmp_path / 'w.keras')!r})\n"
            "def classify(images):\n    return net(images)\n"
        )
        return load_model(f"{tmp_path / name}:classify", image_shape=(4, 4, 1), num_classes=4)

    first, again, other = loaded(WEIGHTS), loaded(WEIGHTS), loaded(OTHER)
    assert first.fingerprint == other.fingerprint
    few = dataclasses.replace(SETTINGS, n=4, suite="paper")
    attack_toy(tmp_path / "run", few, model=first)
    attack_toy(tmp_path / "run", few, model=again)
    with pytest.raises(UserError, match="m: the answers of the model are others than those of"):
        attack_toy(tmp_path / "run", few, model=other)
    # What the diagnosis compares it with, likewise.
    with open_run(tmp_path / "others") as run:
        keep_identity(run, "surrogate", first, IMAGES, LABELS)
        keep_identity(run, "surrogate", again, IMAGES, LABELS)
        with pytest.raises(UserError, match="surrogate: the answers of the model are others"):
            keep_identity(run, "surrogate", other, IMAGES, LABELS)
