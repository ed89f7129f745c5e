"""Planted gradient masking is caught, and honest robustness is not denied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.pgd import PGD
from bcgan_tf.attacks.square import Square
from bcgan_tf.data import Dataset, load_dataset
from bcgan_tf.data.tfds_source import prepared_version
from bcgan_tf.diagnosis.causes import measure_causes
from bcgan_tf.diagnosis.diagnostics import Diagnosis, diagnose
from bcgan_tf.diagnosis.verdict import Verdict, verdict
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.networks.classifiers import small_cnn
from bcgan_tf.networks.strided_cnn import strided_cnn
from helpers.suites import evaluate

TEMPERATURE = 100.0
# Each with the eps of its threat model.
REAL = {"mnist": 0.3, "fashion_mnist": 0.1}


@dataclass(frozen=True)
class Task:
    """A data set cut small, an eps, and an undefended network for it."""

    data: Dataset
    eps: float
    train: int
    epochs: int
    n: int
    network: keras.Model

    def images(self) -> np.ndarray:
        return self.data.test.scaled(0, self.n)

    def labels(self) -> np.ndarray:
        return self.data.test.labels[: self.n]


def _network(data: Dataset) -> keras.Model:
    """On 28x28 pixels without pooling, and narrow: hundreds of steps are made."""
    if data.image_shape[0] < 28:
        return small_cnn(data.image_shape, data.num_classes, seed=1)
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


def _task(name: str, eps: float, train: int, epochs: int, n: int) -> Task:
    data = load_dataset(name)
    soft = np.eye(data.num_classes, dtype=np.float32)[data.train.labels[:train]]
    network = _fit(_network(data), data.train.scaled(0, train), soft, epochs)
    return Task(data, eps, train, epochs, n, network)


@pytest.fixture(scope="session")
def digits() -> Task:
    return _task("digits", 0.3, 1293, 8, 40)


@pytest.fixture(scope="session", params=REAL)
def real(request) -> Task:
    name = request.param
    if prepared_version(name) is None:
        pytest.skip(f"no prepared {name} (set TFDS_DATA_DIR)")
    return _task(name, REAL[name], 6000, 3, 40)


def _times_100(task: Task) -> Any:
    images = keras.Input(task.data.image_shape)
    return keras.Model(images, keras.layers.Rescaling(100.0)(task.network(images)))


def _rounded(task: Task) -> Any:
    return lambda images: tf.round(task.network(images, training=False))


def _distilled(task: Task) -> Any:
    """Papernot et al. 2016: teacher and student at T = 100, the student used at T = 1."""
    images = task.data.train.scaled(0, task.train)
    hard = np.eye(task.data.num_classes, dtype=np.float32)[task.data.train.labels[: task.train]]
    teacher = _fit(_network(task.data), images, hard, 2 * task.epochs, TEMPERATURE)
    soft = tf.nn.softmax(teacher.predict(images, verbose=0) / TEMPERATURE).numpy()
    return _fit(_network(task.data), images, soft, 2 * task.epochs, TEMPERATURE)


def _noisy(task: Task) -> Any:
    return lambda images: task.network(
        images + tf.random.normal(tf.shape(images), stddev=0.1), training=False
    )


def _quantised(task: Task) -> Any:
    return lambda images: task.network(tf.round(15.0 * images) / 15.0, training=False)


def _judge(
    model: Any, task: Task, calls: int | None = None, **options: Any
) -> tuple[Diagnosis, Verdict]:
    images, labels = task.images(), task.labels()
    attacks = [
        APGD(task.eps),
        APGD(task.eps, loss="dlr"),
        Square(task.eps, queries=500),
    ]
    evaluation = evaluate(model, (images, labels), attacks, eps=task.eps, eot_samples=calls)
    diagnosis = diagnose(
        EvaluationTask(model, images, labels, eps=task.eps),
        evaluation,
        control=task.network,
        surrogate=task.network,
        **options,
    )
    return diagnosis, verdict(evaluation, diagnosis, labels)


# Each with the flag that it must raise.
PLANTED = {
    "logits times 100": (_times_100, "logit scale"),
    "logits rounded": (_rounded, "gradient health"),
    "distilled at T = 100": (_distilled, "gradient health"),
    "noise at every call": (_noisy, "stochastic forward"),
    "input of 16 levels": (_quantised, "gradient health"),
}


# On real data each is shown on one of the two sets.
OF_FASHION = ("logits rounded", "noise at every call", "input of 16 levels")


def _check_planted(task: Task, name: str, **options: Any) -> None:
    build, flag = PLANTED[name]
    calls = None
    if name == "noise at every call":  # several calls an answer
        task, calls = replace(task, n=25), 8
    model = build(task)
    diagnosis, found = _judge(model, task, calls, **options)
    assert diagnosis[flag].raised, diagnosis[flag].text
    assert not found.robust, found.text
    assert found.kind in ("gradient masking", "not robust"), found.text
    if name == "logits rounded":
        # Square stalls where margins move in jumps; the network behind the rounding gives it away.
        assert diagnosis["transfer"].decides and diagnosis["transfer"].value > 0.5
    else:
        # Flags or not, what is reported is the worst case: the undefended network breaks.
        assert found.accuracy < 0.5, found.text
    if name == "noise at every call":
        assert diagnosis.stochastic
    else:
        assert flag in [raised.check for raised in diagnosis.deciding] and flag in found.text


@pytest.mark.skipif(all(map(prepared_version, REAL)), reason="done below, with real data")
@pytest.mark.parametrize("name", PLANTED)
def test_planted_masking_is_flagged_on_digits(digits, name):
    _check_planted(digits, name, rows=np.arange(25))


@pytest.mark.real_data
@pytest.mark.parametrize("name", PLANTED)
def test_planted_masking_is_flagged_on_real_data(real, name):
    if (real.data.name == "mnist") == (name in OF_FASHION):
        pytest.skip("shown on the other set")
    _check_planted(real, name, rows=np.arange(25))


def test_an_undefended_network_is_not_robust_and_not_masked(digits):
    diagnosis, found = _judge(digits.network, digits, rows=np.arange(25))
    assert found.kind == "not robust" and not diagnosis.deciding, found.text


class _Binarised:
    """Black and white before the network, differentiated as if it were not there."""

    def __init__(self, network: keras.Model, with_backward: bool) -> None:
        self._network = network
        if with_backward:
            self.backward = lambda images: network(images, training=False)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return self._network(tf.cast(images > 0.5, tf.float32), training=False)


@pytest.mark.real_data
@pytest.mark.parametrize("with_backward", [False, True], ids=["no gradient", "BPDA"])
def test_binarised_mnist_is_judged_without_gradients_alone(real, with_backward):
    """Nearly all of MNIST's pixels are black or white: what is left at 0.3 is real."""
    if real.data.name != "mnist":
        pytest.skip("only MNIST is black and white")
    model = _Binarised(real.network, with_backward)
    diagnosis, found = _judge(model, real, rows=np.arange(25))
    assert diagnosis.health.missing and diagnosis.health.backward is with_backward
    assert found.kind == "black box only" and not found.robust, found.text
    assert "only black-box and BPDA attacks count" in found.text
    assert 0.3 < found.accuracy < 0.97
    assert ("BPDA through its own stand-in" in found.text) is with_backward


def _adversarially_trained(task: Task, eps: float, epochs: int) -> keras.Model:
    """PGD-AT: each batch is replaced by what PGD makes of it."""
    network = _network(task.data)
    attack = PGD(eps, steps=7, batch_size=64).prepare(network)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(2e-3), loss)
    images, labels = task.data.train.scaled(), task.data.train.labels
    order = np.random.default_rng(1)
    for _ in range(epochs):
        shuffled = order.permutation(len(images))
        for start in range(0, len(images) - 63, 64):
            rows = shuffled[start : start + 64]
            network.train_on_batch(attack(images[rows], labels[rows]).adversarials, labels[rows])
    return network


def test_an_adversarially_trained_network_is_robust(digits):
    eps = 0.1
    network = _adversarially_trained(digits, eps, epochs=12)
    task = Task(digits.data, eps, 0, 0, 60, network)
    images, labels = task.images(), task.labels()
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


def test_the_cause_of_the_scaled_network_is_its_scale(digits):
    causes = measure_causes(
        EvaluationTask(_times_100(digits), digits.images(), digits.labels(), eps=digits.eps),
        digits.network,
        cw_n=8,
    )
    assert "logit scale" in causes.found and "transfer" not in causes.found
