"""What must hold of every user's model: attacked, hardened and exported as it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import click.testing
import keras
import numpy as np
import tensorflow as tf

import bcgan_tf
from bcgan_tf.attacks import PGD
from bcgan_tf.cli import main
from bcgan_tf.evaluation import suite_run
from bcgan_tf.keras_graph import all_layers
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.loading.keras_file import read_keras_file
from bcgan_tf.loading.model import load_model
from bcgan_tf.loading.python_code import register_custom_objects
from helpers import own_layers
from helpers.users_models import UsersModel

EPS = 0.05


@contextmanager
def short_attack() -> Iterator[None]:
    """One short attack in place of the suite."""

    def attacks(name: str, eps: float, *, num_classes: int, precision: str, **shared: Any):
        return (PGD(eps, steps=3, **shared),)

    with mock.patch.object(suite_run, "suite", attacks):
        yield


def as_it_is(case: UsersModel, folder: Path) -> dict[str, float]:
    """Trains, attacks, hardens and exports a model, and compares what it answers everywhere.

    Args:
        case: the model.
        folder: for its files; empty.

    Returns:
        Shares of 160 images that are right: ``accuracy``, ``robust`` and, where it can be hardened,
        ``hardened``; and ``training`` and ``rest``, the seconds that these took.
    """
    started = time.monotonic()
    model, (images, labels) = case.trained(), case.data(160)
    trained = time.monotonic()
    answered = [model(case.shown(images[i : i + 40]), training=False) for i in range(0, 160, 40)]
    own = np.concatenate([_classes(answer, case) for answer in answered])
    found = {"accuracy": float((own == labels).mean())}
    assert found["accuracy"] > 0.8
    shown, shared = case.shown(images[:40]), {"convention": case.convention}
    with _own_layers_known(case):
        given = _given(case, model, folder)
        # Attacked: its clean accuracy is what its user measures. A function of tensors has been
        # converted where it was read.
        said = shared if isinstance(given, keras.Model) else {}
        before = bcgan_tf.evaluate(given, images, labels, eps=EPS, diagnose=False, **said)
        assert before.clean_accuracy == found["accuracy"] > before.robust_accuracy
        found["robust"] = before.robust_accuracy
        for command, message in case.refused.items():
            _refused(command, folder / "net", message)
        if case.refused:
            return found

        # Hardened: a model of the user's own convention.
        kept = given.get_weights()
        defense = bcgan_tf.defenses.PGDTraining(
            eps=EPS, epochs=2, ramp_epochs=0, batch_size=32, steps=2, learning_rate=1e-3
        )
        hardened = defense.harden(given, images, labels, **shared)
        assert type(hardened) is type(given) and _precisions(hardened) == _precisions(given)
        assert _equal(given.get_weights(), kept) and not _equal(hardened.get_weights(), kept)
        answers = hardened(shown, training=False)
        after = load_classifier(hardened, image_shape=images.shape[1:], **shared)
        inside = np.asarray(after(images[:40] / np.float32(255), training=False)).argmax(1)
        np.testing.assert_array_equal(_classes(answers, case), inside)
        found["hardened"] = float((inside == labels[:40]).mean())
        assert found["hardened"] > 0.8
        path = bcgan_tf.export(hardened, folder / "served", **shared)

    # Exported: the same answers by plain TensorFlow and by plain Keras.
    module = tf.saved_model.load(str(path))
    served = module.serve(tf.constant(*shown.values() if isinstance(shown, dict) else [shown]))
    (file,) = (path / "assets.extra").glob("*.keras")
    loaded = keras.models.load_model(file, custom_objects=dict(case.objects))
    for other in (served, loaded(shown, training=False)):
        for pair in zip(keras.tree.flatten(other), keras.tree.flatten(answers), strict=True):
            theirs, mine = (np.asarray(part, np.float32) for part in pair)
            np.testing.assert_allclose(theirs, mine, atol=case.tolerance)
    return found | {"training": trained - started, "rest": time.monotonic() - trained}


def _given(case: UsersModel, model: keras.Model, folder: Path) -> Any:
    """What the package gets: the object, what it reads of a file, or a function of tensors."""
    if case.suffix is None:
        return model
    if not case.suffix:
        model.export(folder / "net", verbose=False)
        shape = case.data(1)[0].shape[1:]
        return load_model(
            folder / "net", image_shape=shape, num_classes=case.classes, convention=case.convention
        )
    file = folder / f"net{case.suffix}"
    model.save(file)
    return read_keras_file(file)


@contextmanager
def _own_layers_known(case: UsersModel) -> Iterator[None]:
    """As in a command with ``--custom-objects``, and as before at the end."""
    objects = keras.saving.get_custom_objects()
    before = dict(objects)
    try:
        if case.objects:
            register_custom_objects(Path(own_layers.__file__))
        yield
    finally:
        objects.clear()
        objects.update(before)


def _precisions(model: keras.Model) -> list[str]:
    """Of the layers that compute: a model and its input have their own, which Keras drops."""
    plain = [layer for layer in all_layers(model) if not isinstance(layer, keras.Model)]
    return [layer.dtype_policy.name for layer in plain if layer.weights]


def _equal(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(some, others, strict=True))


def _refused(command: str, path: Path, message: str) -> None:
    arguments = {
        "harden": ["harden", "--dataset", "digits", "--classifier", str(path)],
        "export": ["export", str(path)],
    }
    result = click.testing.CliRunner().invoke(main, arguments[command])
    assert result.exit_code == 1 and message in result.stderr, result.output


def _classes(answer: Any, case: UsersModel) -> np.ndarray:
    part = np.asarray(answer[case.output] if case.output else answer, np.float32)
    if part.shape[1] > 1:
        return part.argmax(1)
    middle = 0.5 if case.loss == "binary_crossentropy" else 0.0
    return np.int64(part[:, 0] > middle)
