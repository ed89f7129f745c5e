"""Keras classifiers as users make them, attacked, hardened and exported as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import bcgan_tf
from bcgan_tf.attacks import PGD
from bcgan_tf.evaluation import runner
from bcgan_tf.loading.classifier import load_classifier
from helpers.users_models import MODELS, UsersModel

EPS = 0.05


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One short attack in place of the suite."""

    def attacks(name: str, eps: float, *, num_classes: int, **shared: Any) -> tuple[Any, ...]:
        return (PGD(eps, steps=3, **shared),)

    monkeypatch.setattr(runner, "suite", attacks)


@pytest.fixture(params=MODELS)
def case(request) -> UsersModel:
    return MODELS[request.param]


def _classes(answer: Any, case: UsersModel) -> np.ndarray:
    part = np.asarray(answer[case.output] if case.output else answer, np.float32)
    if part.shape[1] > 1:
        return part.argmax(1)
    middle = 0.5 if case.loss == "binary_crossentropy" else 0.0
    return np.int64(part[:, 0] > middle)


def test_as_it_is(case: UsersModel, quick, tmp_path: Path) -> None:
    model, (images, labels) = case.trained(), case.data(160)
    kept = model.get_weights()
    own = _classes(model.predict(case.shown(images), batch_size=40, verbose=0), case)
    accuracy = float((own == labels).mean())
    assert accuracy > 0.8
    shared = {"convention": case.convention}

    # Attacked: its clean accuracy is what its user measures.
    before = bcgan_tf.evaluate(model, images, labels, eps=EPS, diagnose=False, **shared)
    assert before.clean_accuracy == accuracy >= before.robust_accuracy

    # Hardened: a model of the user's own convention.
    defense = bcgan_tf.defenses.PGDTraining(
        eps=EPS, epochs=2, ramp_epochs=0, batch_size=32, steps=2, learning_rate=1e-3
    )
    hardened = defense.harden(model, images, labels, **shared)
    assert type(hardened) is type(model)
    for old, now in zip(kept, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    shown = case.shown(images[:40])
    answers = hardened.predict(shown, batch_size=40, verbose=0)
    after = load_classifier(hardened, image_shape=images.shape[1:], **shared)
    inside = np.asarray(after(images[:40] / np.float32(255))).argmax(1)
    np.testing.assert_array_equal(_classes(answers, case), inside)
    changed = [
        not np.array_equal(old, now) for old, now in zip(kept, hardened.get_weights(), strict=True)
    ]
    assert any(changed)

    # Exported: the same answers by plain TensorFlow and by plain Keras.
    folder = bcgan_tf.export(hardened, tmp_path / "net", **shared)
    given = next(iter(shown.values())) if isinstance(shown, dict) else shown
    module = tf.saved_model.load(str(folder))
    served = module.serve(tf.constant(given))
    files = [file for file in (folder / "assets.extra").glob("*.keras")]
    loaded = [keras.models.load_model(file)(shown, training=False) for file in files]
    for found in [served, *loaded]:
        for mine, other in zip(keras.tree.flatten(found), keras.tree.flatten(answers), strict=True):
            np.testing.assert_allclose(np.asarray(mine, np.float32), other, atol=case.tolerance)
