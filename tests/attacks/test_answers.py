"""A model that is no function of each image is refused by whoever attacks it, with the reason."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM
from bcgan_tf.attacks.answers import check_answers
from bcgan_tf.attacks.expectation import expectation
from bcgan_tf.diagnosis.diagnostics import diagnose
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.loading.model import load_model
from bcgan_tf.perturbation.minimum_perturbation import minimum_perturbation
from helpers.linear_task import IMAGES, LABELS, linear
from helpers.suites import evaluate

MEMBERS = [linear, lambda images: -linear(images)]


def _chosen(images):
    return random.choice(MEMBERS)(images)


def _numpy_noise(images):
    return linear(images) + np.random.default_rng().normal(size=4).astype(np.float32)


@tf.function
def _chosen_within(images):
    return _chosen(images)


def _chosen_and_noisy(images):
    return _chosen(images + tf.random.normal(tf.shape(images), stddev=0.01))


class Random(keras.Model):
    def call(self, images):
        return _chosen(images)


class _Counting:
    calls = 0

    def __call__(self, images):
        self.calls += 1
        return linear(images) + tf.one_hot(self.calls % 4, 4)


FROZEN = {
    "choice": _chosen,
    "NumPy": _numpy_noise,
    "inner function": lambda images: _chosen_within(images),
    "beside a draw of the graph": _chosen_and_noisy,
    "Keras": Random(),
    "counter": _Counting(),
    "mean": expectation(_chosen, 2),
}


@pytest.mark.parametrize("name", FROZEN)
def test_draws_outside_the_graph_are_refused(name):
    with pytest.raises(
        UserError, match=r"draws outside TensorFlow's graph.*numpy_function"
    ) as caught:
        check_answers(FROZEN[name], IMAGES)
    assert "\n" not in str(caught.value) and "batch" not in str(caught.value)


def _rare(rows: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.random.uniform(tf.concat([rows, [4]], 0)) < 0.05, tf.float32)


def test_one_gradient_a_call_is_not_enough():
    with pytest.raises(UserError, match=r"calls tf\.py_function.*numpy_function"):
        check_answers(lambda images: tf.py_function(linear, [images], tf.float32), IMAGES)


FIT = {
    "plain": lambda images: linear(images),
    "noise for all": lambda images: linear(images) + tf.random.normal([1, 4]),
    "noise for each": lambda images: linear(images + tf.random.normal(tf.shape(images))),
    "called anew": lambda images: tf.ensure_shape(
        tf.numpy_function(lambda pixels: np.asarray(_chosen(pixels)), [images], tf.float32),
        [None, 4],
    ),
    "rare draws": lambda images: linear(images) + 20 * _rare(tf.shape(images)[:1]),
    "rare networks": lambda images: tf.cond(
        tf.random.uniform([]) < 0.1, lambda: linear(images), lambda: -linear(images)
    ),
    "masked": lambda images: tf.concat([linear(images), 0 * linear(images)[:, :1] - 1e9], 1),
    "rounded": lambda images: tf.round(4 * linear(images)),
    "half precision": lambda images: tf.cast(
        tf.reshape(tf.cast(images, tf.bfloat16), [-1, 16]) @ tf.ones([16, 4], tf.bfloat16),
        "float32",
    ),
}


@pytest.mark.parametrize("name", FIT)
def test_other_models_are_not(name):
    for _ in range(6):  # draws differ
        check_answers(lambda images: FIT[name](images), IMAGES)


def _normalized() -> keras.Model:
    image = keras.Input((4, 4, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8)(keras.layers.Flatten()(image)))
    return keras.Model(image, keras.layers.Dense(4)(x))


def test_rows_that_depend_on_the_batch_are_refused_and_the_weights_kept():
    model = _normalized()
    before = model.get_weights()
    check_answers(model, IMAGES)
    with pytest.raises(UserError, match=r"other images of the batch; calling it changes its weig"):
        check_answers(lambda images: model(images, training=True), IMAGES)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(UserError, match="other images of the batch"):
        check_answers(lambda images: linear(images - tf.reduce_mean(images, 0)), IMAGES)
    with pytest.raises(UserError, match="other images of the batch"):  # noise by the place in it
        check_answers(
            lambda images: linear(images + tf.random.stateless_normal(tf.shape(images), [1, 2])),
            IMAGES[:1],
        )


def test_a_call_that_changes_weights_is_refused_even_where_its_rows_are_fit():
    weight = tf.Variable(1.0)

    def model(images):
        weight.assign(0.9 * weight)
        return linear(images)

    with pytest.raises(UserError, match="cannot be attacked: calling it changes its weights; call"):
        check_answers(model, IMAGES)
    assert weight.numpy() == 1.0


def test_a_model_of_one_batch_size_is_one_line():
    with pytest.raises(UserError, match="takes 8 images, but not more or fewer") as caught:
        check_answers(lambda images: linear(tf.reshape(images, [8, 16])), IMAGES)
    assert "\n" not in str(caught.value)


ATTACKED = {
    "evaluate": lambda model: evaluate(model, (IMAGES, LABELS), [FGSM(0.1)]),
    "attack": lambda model: FGSM(0.1)(model, IMAGES, LABELS),
    "diagnose": lambda model: diagnose(EvaluationTask(model, IMAGES, LABELS, eps=0.1)),
    "minimum perturbation": lambda model: minimum_perturbation(
        EvaluationTask(model, IMAGES, LABELS)
    ),
}


@pytest.mark.parametrize("where", ATTACKED)
def test_whoever_attacks_looks(where):
    model = _normalized()
    with pytest.raises(UserError, match="draws outside"):
        ATTACKED[where](_chosen)
    with pytest.raises(UserError, match="other images of the batch; calling it changes"):
        ATTACKED[where](lambda images: model(images, training=True))


def test_so_does_loading(tmp_path):
    file = tmp_path / "drawing.py"
    file.write_text(
        "import random\nimport tensorflow as tf\n"
        "def net(x):\n    return tf.reshape(x, [-1, 16])[:, :3] * random.random()\n"
    )
    with pytest.raises(UserError, match=r"drawing\.py:net: the model cannot be attacked: it draws"):
        load_model(f"{file}:net", image_shape=(4, 4, 1), num_classes=3)
