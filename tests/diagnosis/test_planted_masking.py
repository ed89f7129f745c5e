"""Planted gradient masking is caught, and honest robustness is not denied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.square import Square
from bcgan_tf.data import Dataset, load_dataset
from bcgan_tf.defenses.adversarial_training import PGDTraining
from bcgan_tf.diagnosis.diagnostics import Diagnosis, diagnose
from bcgan_tf.diagnosis.verdict import Verdict, verdict
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.networks.strided_cnn import strided_cnn
from helpers.suites import evaluate

TEMPERATURE = 100.0


@dataclass(frozen=True)
class Task:
    """Some images, an eps, and an undefended network for them."""

    data: Dataset
    eps: float
    train: int
    network: keras.Model
    n: int = 40

    def images(self) -> np.ndarray:
        return self.data.test.scaled(0, self.n)

    def labels(self) -> np.ndarray:
        return self.data.test.labels[: self.n]


def _network(data: Dataset) -> keras.Model:
    return strided_cnn(data.image_shape, data.num_classes, width=0.5, seed=1)


def _loss(temperature: float = 1.0) -> Callable[[Any, Any], Any]:
    """Cross entropy of logits / temperature, with soft labels."""

    def loss(soft: Any, logits: Any) -> Any:
        return tf.nn.softmax_cross_entropy_with_logits(soft, logits / temperature)

    return loss


def _fit(
    network: keras.Model, images: np.ndarray, soft: np.ndarray, epochs: int, temperature: float = 1
) -> keras.Model:
    network.compile(keras.optimizers.Adam(2e-3), _loss(temperature))
    network.fit(images, soft, batch_size=64, epochs=epochs, verbose=0, shuffle=False)
    return network


def _task(data: Dataset, eps: float, train: int, epochs: int) -> Task:
    soft = np.eye(data.num_classes, dtype=np.float32)[data.train.labels[:train]]
    network = _fit(_network(data), data.train.scaled(0, train), soft, epochs)
    return Task(data, eps, train, network)


@pytest.fixture(scope="module")
def digits() -> Task:
    return _task(load_dataset("digits"), 0.3, 1293, 10)


def _rounded(task: Task) -> Any:
    return lambda images: tf.round(task.network(images, training=False))


def _distilled(task: Task) -> Any:
    """Papernot et al. 2016: teacher and student at T = 100, the student used at T = 1."""
    epochs = 10
    images = task.data.train.scaled(0, task.train)
    hard = np.eye(task.data.num_classes, dtype=np.float32)[task.data.train.labels[: task.train]]
    teacher = _fit(_network(task.data), images, hard, epochs, TEMPERATURE)
    soft = tf.nn.softmax(teacher.predict(images, verbose=0) / TEMPERATURE).numpy()
    return _fit(_network(task.data), images, soft, epochs, TEMPERATURE)


def _noisy(task: Task) -> Any:
    return lambda images: task.network(
        images + tf.random.normal(tf.shape(images), stddev=0.1), training=False
    )


def _quantised(task: Task) -> Any:
    return lambda images: task.network(tf.round(15.0 * images) / 15.0, training=False)


def _judge(
    model: Any, task: Task, calls: int | None = None, **others: Any
) -> tuple[Diagnosis, Verdict]:
    images, labels = task.images(), task.labels()
    attacks = [
        APGD(task.eps),
        APGD(task.eps, loss="dlr"),
        Square(task.eps, queries=500),
    ]
    evaluation = evaluate(model, (images, labels), attacks, eps=task.eps, eot_samples=calls)
    subject = EvaluationTask(model, images, labels, eps=task.eps)
    diagnosis = diagnose(subject, evaluation, rows=np.arange(25), **others)
    return diagnosis, verdict(evaluation, diagnosis, labels)


# Each with the flags that it must raise.
PLANTED = {
    "logits rounded": (_rounded, ("gradient health",)),
    "distilled at T = 100": (_distilled, ("gradient health", "logit scale")),
    "noise at every call": (_noisy, ("stochastic forward",)),
    "input of 16 levels": (_quantised, ("gradient health",)),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_masking_is_flagged(digits, name):
    build, flags = PLANTED[name]
    rounded, noisy = name == "logits rounded", name == "noise at every call"
    diagnosis, found = _judge(
        build(digits),
        digits,
        calls=8 if noisy else None,  # several calls an answer
        surrogate=digits.network if rounded else None,
    )
    for flag in flags:
        assert diagnosis[flag].raised, diagnosis[flag].text
    assert not found.robust, found.text
    assert found.kind in ("gradient masking", "not robust"), found.text
    if rounded:
        # Square stalls where margins move in jumps; the network behind the rounding gives it away.
        assert diagnosis["transfer"].decides and diagnosis["transfer"].value > 0.5
    else:
        # Flags or not, what is reported is the worst case: the undefended network breaks.
        assert found.accuracy < 0.5, found.text
    if noisy:  # averaged, which takes fewer images
        assert diagnosis.stochastic and (diagnosis.calls, diagnosis.n) == (20, 10)
        drawn = diagnosis["stochastic forward"]
        assert drawn.grade == "notice" and not drawn.decides and drawn.value == 1.0
    else:
        assert set(flags) <= {raised.check for raised in diagnosis.deciding}
        assert all(flag in found.text for flag in flags)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("logits rounded", "the model has no gradient"),
        ("distilled at T = 100", None),  # its margin has one, which constraint relaxation follows
        ("input of 16 levels", "the model has no gradient"),
    ],
)
def test_the_fast_suite_goes_on_where_it_must(digits, name, reason):
    model = PLANTED[name][0](digits)
    found = evaluate(model, (digits.images(), digits.labels()), "fast", eps=digits.eps)
    told = f"went on with standard in float32, because {reason}"
    assert found.fallback == (reason and told)
    assert name == "logits rounded" or found.robust_accuracy < 0.5


def test_an_undefended_network_is_not_robust_and_not_masked(digits):
    diagnosis, found = _judge(
        digits.network, digits, control=digits.network, surrogate=digits.network
    )
    assert found.kind == "not robust" and not diagnosis.deciding, found.text


class _Binarised:
    """Black and white before the network, differentiated as if it were not there."""

    def __init__(self, network: keras.Model) -> None:
        self._network = network
        self.backward = lambda images: network(images, training=False)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return self._network(tf.cast(images > 0.5, tf.float32), training=False)


@pytest.mark.real_data
def test_binarised_mnist_is_judged_without_gradients_alone(mnist):
    """Nearly all of MNIST's pixels are black or white: what is left at 0.3 is real."""
    task = _task(mnist, 0.3, 4000, 3)
    diagnosis, found = _judge(_Binarised(task.network), task)
    assert diagnosis.health.missing and diagnosis.health.backward
    assert found.kind == "black box only" and not found.robust, found.text
    assert "only black-box and BPDA attacks count" in found.text
    assert 0.3 < found.accuracy < 0.97
    assert "BPDA through its own stand-in" in found.text


def test_an_adversarially_trained_network_is_robust(digits):
    eps, data = 0.1, digits.data
    defense = PGDTraining(eps=eps, epochs=8, batch_size=32, ramp_epochs=3, learning_rate=2e-3)
    network = defense.harden(_network(data), data)
    images, labels = data.test.scaled(0, 60), data.test.labels[:60]
    attacks = [
        APGD(eps),
        APGD(eps, loss="dlr", targeted=True, target_classes=3),
        Square(eps, queries=500),
    ]
    evaluation = evaluate(network, (images, labels), attacks, eps=eps)
    diagnosis = diagnose(
        EvaluationTask(network, images, labels, eps=eps),
        evaluation,
        surrogate=digits.network,
        rows=np.arange(25),
    )
    evidence = [flag.text for flag in diagnosis.raised if flag.grade == "evidence"]
    found = verdict(evaluation, diagnosis, labels)
    assert not evidence, evidence
    assert found.robust and found.kind == "robust", found.text
    assert found.accuracy == evaluation.robust_accuracy > 0.6
    undefended = evaluate(digits.network, (images, labels), attacks[:1], eps=eps).robust_accuracy
    assert found.accuracy > undefended + 0.1
