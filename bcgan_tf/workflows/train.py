"""The stages that train a network from its initial weights: the classifier and the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.distribute import cluster
from bcgan_tf.distribute.strategies import check_batch_size, strategy
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.clean_accuracy import clean_accuracy
from bcgan_tf.evaluation.state import digest
from bcgan_tf.files import replacing
from bcgan_tf.networks import classifiers
from bcgan_tf.networks.oracle import oracle as build_oracle
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.presets import NETWORKS, Recipe
from bcgan_tf.training.augmentation import noisy_shifted_batch
from bcgan_tf.training.callbacks import HistoryWriter
from bcgan_tf.training.classifier_trainer import BatchBuilder
from bcgan_tf.training.fit import train_classifier

CLASSIFIER = "classifier.keras"
_ORACLE = "oracle.keras"
_TITLES = {
    "train": "Classifier",
    "oracle": "Oracle, which measures the samples and trains nothing",
}


def check_training(data: Dataset, recipe: Recipe, devices: int | None = None) -> None:
    """Refuses, before there is a run, what :func:`train` could not use.

    Raises:
        UserError: a batch that does not divide over the devices or is larger than the training
            split, or a network that cannot be built for these images.
    """
    check_batch_size(recipe.classifier_batch_size, strategy(devices))
    steps_per_epoch(data.train, recipe.classifier_batch_size)
    build_classifier(data, recipe)


def train(
    run: RunDirectory, data: Dataset, recipe: Recipe, *, seed: int = 0, devices: int | None = None
) -> Path:
    """Trains the recipe's classifier on clean data.

    Returns:
        The saved classifier, ``classifier.keras`` in the run's folder.
    """
    return _train_once(
        run,
        data,
        "train",
        CLASSIFIER,
        lambda: build_classifier(data, recipe, seed=seed),
        epochs=recipe.classifier_epochs,
        recipe=recipe,
        seed=seed,
        devices=devices,
    )


def build_classifier(data: Dataset, recipe: Recipe, *, seed: int = 0) -> keras.Model:
    """The recipe's classifier with its initial weights."""
    options: dict[str, Any] = {
        name.removeprefix("architecture_"): getattr(recipe, name)
        for name in NETWORKS[recipe.architecture]
    }
    return classifiers.classifier(
        recipe.architecture, data.image_shape, data.num_classes, seed=seed, **options
    )


def train_oracle(
    run: RunDirectory, data: Dataset, recipe: Recipe, *, seed: int = 0, devices: int | None = None
) -> Path:
    """Trains the net that judges generated samples and is in no loss.

    It sees noisy, shifted images, so that it goes by shapes: a plainly trained net calls a sample
    something else for a texture that a person does not see.

    Returns:
        The saved oracle, ``oracle.keras`` in the run's folder.
    """
    return _train_once(
        run,
        data,
        "oracle",
        _ORACLE,
        lambda: build_oracle(data.image_shape, data.num_classes, seed=seed),
        epochs=recipe.oracle_epochs,
        recipe=recipe,
        seed=seed,
        devices=devices,
        build_batch=noisy_shifted_batch,
    )


def _train_once(
    run: RunDirectory,
    data: Dataset,
    stage: str,
    file: str,
    build: Any,
    *,
    epochs: int,
    recipe: Recipe,
    seed: int,
    devices: int | None,
    build_batch: BatchBuilder | None = None,
) -> Path:
    path = run.path / file
    if run.stage_done(stage):
        return path
    keras.utils.set_random_seed(seed)
    model = train_classifier(
        build,
        data,
        epochs=epochs,
        batch_size=recipe.classifier_batch_size,
        learning_rate=recipe.classifier_learning_rate,
        seed=seed,
        devices=devices,
        build_batch=build_batch,
        directory=run.checkpoints / stage,
        resume=True,
        callbacks=[HistoryWriter(run.history, stage)] if cluster.is_chief() else [],
    )
    payload = {"classes": data.class_names, "titles": {stage: _TITLES[stage]}}
    finish_training(run, stage, model, path, payload)
    return path


def measure_clean_accuracy(
    run: RunDirectory,
    data: Dataset,
    models: Mapping[str, keras.Model],
    *,
    validation: Mapping[str, float | None] | None = None,
    seed: int = 0,
    unfinished: bool | None = None,
) -> dict[str, Any]:
    """Adds the accuracy of each model on all test images to metrics.json, beside what is there.

    Args:
        run: open for writing.
        data: its test set is used.
        models: by name.
        validation: accuracies on validation images in the training of each model, where known.
        seed: of the starting points of Defense-GAN's search.
        unfinished: whether more is to be measured.

    Returns:
        The content of metrics.json.
    """
    known = run.metrics().get("models", {})
    found = {
        name: {
            **known.get(name, {}),
            **clean_accuracy(model, data.test, seed=seed, validation=(validation or {}).get(name)),
        }
        for name, model in models.items()
    }
    return run.add_metrics(dataset=data.name, models=found, unfinished=unfinished)


def finish_training(
    run: RunDirectory,
    stage: str,
    model: keras.Model,
    path: Path,
    payload: Mapping[str, Any] | None = None,
) -> None:
    """Saves what a stage trained in the run's folder, and marks the stage as finished.

    Of several workers, only the chief does.

    Raises:
        UserError: the stage was finished before, its file is damaged, and the training that makes
            it again had lost its checkpoints: later stages go by weights that are no more.
    """
    if not cluster.is_chief():
        return
    weights = digest(*model.get_weights())
    if run.stage_payload(stage, {}).get("weights", weights) != weights:
        raise UserError(
            f"{path} was damaged, and cannot be made again as it was: the checkpoints are other "
            "ones; start a new run in another folder"
        )
    save_model(model, path)
    run.finish_stage(stage, {**(payload or {}), "weights": weights}, files=[path])


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a ``.keras`` file, whole and on the disk when it returns."""
    with replacing(path) as partial:
        model.save(partial)
