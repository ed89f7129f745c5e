"""What every attack, defense and classifier must hold, whatever it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import Attack
from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.data import Dataset
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.errors import UserError
from bcgan_tf.models.defended_classifier import DefenseGANClassifier
from helpers.toy_models import sharp_network

# Networks that a defense's precision is not of: the frozen classifier, and the oracle that judges.
AS_GIVEN = (("gan", "classifier"), ("oracle", "classifier"))


def assert_attack_contract(attack: Attack, atol: float = 1e-5) -> None:
    """On 23 images of a network that rounds alike in all batches; two of them are misclassified.

    The radius must break some of the images and not all, so that they finish at different times.
    Pixels found in other batches may differ by ``atol``.
    """
    model, images, labels = sharp_network(6, 6, 1)
    labels[[3, 11]] = (labels[[3, 11]] + 1) % 5
    given = images.copy()
    traces: list[int] = []

    def spy(batch: tf.Tensor) -> tf.Tensor:
        traces.append(1)
        return model(batch)

    seen: list[tuple[int, int]] = []
    prepared = attack.prepare(spy)
    result = prepared(images, labels)
    traced = len(traces)
    np.testing.assert_array_equal(images, given)
    _assert_result(attack, result, model, images, labels)

    # Other batches: traced as often, the same examples, and progress to the end.
    small = dataclasses.replace(attack, batch_size=4).prepare(spy)
    parts = small(images, labels, progress=lambda *done: seen.append(done[:2]))
    assert len(traces) == 2 * traced
    np.testing.assert_array_equal(parts.success, result.success)
    np.testing.assert_allclose(parts.adversarials, result.adversarials, rtol=0, atol=atol)
    total = 21 * attack.rounds
    assert len(seen) >= 5 and all(of == total for _, of in seen)
    assert seen == sorted(seen) and seen[-1] == (total, total)

    # Some images alone: neither their number nor their neighbors matter, their index does.
    some = np.array([22, 7, 3, 12])
    part = small(images[some], labels[some], indices=some)
    np.testing.assert_allclose(part.adversarials, result.adversarials[some], rtol=0, atol=atol)

    # Only those that are asked for.
    mask = np.arange(23) % 2 == 0
    left = prepared(images, labels, mask=mask)
    np.testing.assert_array_equal(left.attacked, mask & result.clean_correct)
    np.testing.assert_array_equal(left.success, mask & result.success)
    np.testing.assert_array_equal(left.adversarials[~mask], images[~mask])
    assert len(traces) == 2 * traced

    # Always wrong: nothing to attack.
    wrong = model(tf.constant(images)).numpy().argmin(-1)
    none = prepared(images, wrong)
    assert none.clean_accuracy == none.robust_accuracy == 0 and np.isnan(none.success_rate)
    assert none.to_dict()["success_rate"] is None
    np.testing.assert_array_equal(none.adversarials, images)

    config = attack.config()
    assert json.loads(json.dumps(config, allow_nan=False)) == config
    assert dataclasses.replace(attack) == attack
    for setting, value in (("batch_size", 0), ("batch_size", 2.5), ("seed", -1)):
        with pytest.raises(UserError, match=f"{setting} is {value}"):
            dataclasses.replace(attack, **{setting: value})


def _assert_result(attack: Attack, result: Any, model: Any, images: Any, labels: Any) -> None:
    """The result is what the model says of the images that came back."""
    found, count = result.adversarials, len(images)
    assert found.dtype == np.float32 and found.shape == images.shape
    assert found.min() >= 0 and found.max() <= 1 and np.isfinite(found).all()
    change = (found.astype(np.float64) - images).reshape(count, -1)
    np.testing.assert_allclose(result.linf, np.abs(change).max(1), atol=1e-12)
    np.testing.assert_allclose(result.l2, np.linalg.norm(change, axis=1), atol=1e-9)
    if isinstance(attack, BoundedAttack) and attack.eps is not None:
        assert (result.linf if attack.norm == "linf" else result.l2).max() <= attack.eps + 1e-6
        assert 0 < result.success.sum() < result.attacked.sum()

    rerun = model(tf.constant(found)).numpy().argmax(-1)
    clean = model(tf.constant(images)).numpy().argmax(-1)
    np.testing.assert_array_equal(result.clean_correct, clean == labels)
    np.testing.assert_array_equal(result.success, (clean == labels) & (rerun != labels))
    np.testing.assert_array_equal(result.robust, (clean == labels) & (rerun == labels))
    np.testing.assert_array_equal(found[~result.clean_correct], images[~result.clean_correct])
    assert result.success.any() and result.n == count
    assert result.clean_accuracy == np.mean(clean == labels)
    assert result.robust_accuracy == np.mean((clean == labels) & (rerun == labels))
    assert result.success_rate == pytest.approx(1 - result.robust_accuracy / result.clean_accuracy)

    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert written["attack"] == attack.name and written["n"] == count
    assert written["config"] == attack.config()
    assert written["l2"]["mean"] == pytest.approx(result.l2[result.success].mean())
    assert written["robust_accuracy"] == result.robust_accuracy


def assert_defense_contract(
    defense: Defense, classifier: keras.Model, data: Dataset, folder: Path
) -> None:
    """Hardens, and hardens again from what the folder holds.

    Args:
        defense: with settings that train in seconds.
        classifier: in float32.
    """
    before = [np.array(weight) for weight in classifier.weights]
    stages: list[str] = []
    policies: dict[str, set[str]] = {}

    class Policies(keras.callbacks.Callback):
        def __init__(self, stage: str) -> None:
            super().__init__()
            self.stage = stage

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            assert all(np.isfinite(value) for value in (logs or {}).values())
            for name in ("classifier", "generator", "discriminator", "critic"):
                network = getattr(self.model, name, None)
                if network is not None and (self.stage, name) not in AS_GIVEN:
                    found = {layer.dtype_policy.name for layer in network.layers if layer.weights}
                    policies[f"{self.stage}: {name}"] = found

    hardened = defense.harden(
        classifier,
        data,
        directory=folder,
        callbacks=lambda stage: stages.append(stage) or [Policies(stage)],
    )
    assert stages and sorted(path.name for path in folder.iterdir()) == sorted(stages)
    dtype = getattr(defense, "dtype", None)
    assert policies and all((dtype or "float32") in found for found in policies.values()), policies

    # The given classifier is as it was; what comes out is another model in its precision.
    for old, new in zip(before, classifier.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert isinstance(hardened, keras.Model) and hardened is not classifier and hardened.trainable
    images = data.test.scaled(0, 4)
    logits = np.asarray(hardened(images, training=False))
    assert logits.shape == (4, data.num_classes) and logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert {layer.dtype_policy.name for layer in _layers(hardened)} == {"float32"}
    if not isinstance(hardened, DefenseGANClassifier):  # a file for Keras alone
        assert "bcgan_tf" not in json.dumps(keras.saving.serialize_keras_object(hardened))

    # Resumed, the finished stages are read and not trained again.
    again = defense.harden(classifier, data, directory=folder, resume=True)
    for one, other in zip(hardened.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other)

    # Settings are frozen, checked, and JSON.
    with pytest.raises(dataclasses.FrozenInstanceError):
        defense.seed = 1  # type: ignore[misc]
    config = defense.config()
    assert config["defense"] == defense.name
    assert json.loads(json.dumps(config, allow_nan=False)) == config
    if dtype is not None:
        with pytest.raises(UserError, match="dtype is 'int8'; choose float32 or mixed_bfloat16"):
            dataclasses.replace(defense, dtype="int8")


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    return [inner for layer in model.layers for inner in getattr(layer, "layers", None) or [layer]]


def assert_model_contract(build: Callable[..., keras.Model], folder: Path) -> None:
    """A classifier's builder: ``build(seed=..., dtype=...)``, its answers, and its file."""
    model, again, other = build(seed=7), build(seed=7), build(seed=8)
    assert [layer.name for layer in model.layers] == [layer.name for layer in again.layers]
    for one, same in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    assert any((one != another).any() for one, another in pairs)
    # Built-in layers alone, so that Keras reads the file by itself.
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    assert model.layers[-1].activation is keras.activations.linear

    images = np.random.default_rng(0).random((3, *model.input_shape[1:]), "float32")

    def answers(model: keras.Model, images: np.ndarray = images) -> np.ndarray:
        logits = np.asarray(model(images, training=False))
        assert logits.dtype == np.float32 and np.isfinite(logits).all()
        assert logits.shape == (len(images), model.output_shape[-1])
        return logits

    logits = answers(model)
    np.testing.assert_array_equal(answers(model), logits)
    np.testing.assert_allclose(answers(model, images[1:2]), logits[1:2], atol=1e-5)
    assert 0 < np.abs(answers(build(seed=7, dtype="mixed_bfloat16")) - logits).max() < 0.1

    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    np.testing.assert_array_equal(answers(loaded), logits)
    assert [weight.path for weight in loaded.weights] == [weight.path for weight in model.weights]
