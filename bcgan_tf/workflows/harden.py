"""The stage that hardens: any defence, and for the paper's what its samples are like."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.data import Dataset
from bcgan_tf.defenses import BCGANTraining
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.defenses.presets import defense as defense_named
from bcgan_tf.distribute import scope, strategy
from bcgan_tf.evaluation.generated_set import measure_generated_set
from bcgan_tf.models.bcgan import BCGAN
from bcgan_tf.report import figures
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.presets import Recipe
from bcgan_tf.training.callbacks import HistoryWriter
from bcgan_tf.workflows.train import finish_training, train_oracle

HARDENED = "hardened.keras"
_GAN = "gan.keras"
_GRID_ROWS = 10


def harden(
    run: RunDirectory,
    data: Dataset,
    classifier: keras.Model,
    recipe: Recipe,
    *,
    defense: str,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    devices: int | None = None,
) -> Path:
    """Hardens a classifier by a defence; a finished stage is not repeated.

    Args:
        run: an open run.
        data: its training and validation splits are used.
        classifier: trained; images in [0, 1] to logits.
        recipe: names the data set and the preset, and says how BCGAN's samples are measured.
        defense: one of :data:`bcgan_tf.settings.defenses.DEFENSES`.
        options: settings of the defence to change.
        seed: of all draws.
        devices: see :class:`bcgan_tf.defenses.Defense`.

    Returns:
        The saved hardened classifier, ``hardened.keras`` in the run's folder.

    Raises:
        UserError: no such defence or option, or the training failed.
    """
    path = run.path / HARDENED
    if run.stage_done("harden"):
        return path
    chosen = chosen_defense(recipe, defense, options=options, seed=seed, devices=devices)
    if isinstance(chosen, BCGANTraining):
        hardened = _hardened_by_bcgan(run, data, classifier, chosen, recipe)
    else:
        keras.utils.set_random_seed(seed)
        hardened = chosen.harden(
            classifier,
            data,
            directory=run.checkpoints,
            resume=True,
            callbacks=lambda stage: [HistoryWriter(run.history, stage)],
        )
    payload = {
        "defense": chosen.config(),
        "titles": dict(chosen.stage_titles),
        "classes": data.class_names,
    }
    finish_training(run, "harden", hardened, path, payload)
    return path


def chosen_defense(
    recipe: Recipe,
    defense: str,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    devices: int | None = None,
) -> Defense:
    """The defence that :func:`harden` would use.

    Raises:
        UserError: no such defence or option.
    """
    return defense_named(
        defense, recipe.dataset, recipe.preset, options=options, seed=seed, devices=devices
    )


def _hardened_by_bcgan(
    run: RunDirectory,
    data: Dataset,
    classifier: keras.Model,
    defense: BCGANTraining,
    recipe: Recipe,
) -> keras.Model:
    """Trains the GAN and an oracle, measures the samples, refines the classifier."""
    gan = _trained_gan(run, data, classifier, defense)
    if not run.stage_done("generated_set"):
        measures = _measure_generated(run, data, classifier, gan, recipe, defense)
        run.finish_stage("generated_set", measures)
    keras.utils.set_random_seed(defense.seed)
    return defense.refine(
        classifier,
        gan,
        data,
        directory=run.checkpoints / "harden",
        resume=True,
        callbacks=[HistoryWriter(run.history, "harden")],
    )


def _trained_gan(
    run: RunDirectory, data: Dataset, classifier: keras.Model, defense: BCGANTraining
) -> BCGAN:
    path = run.path / _GAN
    if run.stage_done("gan"):
        with scope(strategy(defense.devices)):
            return keras.models.load_model(path)
    gan = defense.train_gan(
        classifier,
        data,
        directory=run.checkpoints / "gan",
        resume=True,
        callbacks=[
            HistoryWriter(run.history, "gan"),
            _SampleGrid(run.figures / "gan", data.class_names),
        ],
    )
    finish_training(run, "gan", gan, path)
    return gan


def _measure_generated(
    run: RunDirectory,
    data: Dataset,
    classifier: keras.Model,
    gan: BCGAN,
    recipe: Recipe,
    defense: BCGANTraining,
) -> dict[str, Any]:
    # In batches of the size that was found possible before the GAN was trained.
    sized = dataclasses.replace(recipe, classifier_batch_size=defense.batch_size)
    oracle_path = train_oracle(run, data, sized, seed=defense.seed, devices=defense.devices)
    labels = np.arange(recipe.generated_samples) % data.num_classes
    measures = measure_generated_set(
        gan.generate(labels, seed=1),
        labels,
        classifier=classifier,
        oracle=keras.models.load_model(oracle_path),
        real_images=data.validation.scaled(),
        real_labels=data.validation.labels,
    )
    draw_samples(gan, run.figures / "boundary_samples.png", data.class_names)
    return {**measures.to_dict(), "classes": data.num_classes}


class _SampleGrid(keras.callbacks.Callback):
    """Draws what the GAN makes of the same noise after every epoch."""

    def __init__(self, folder: Path, classes: Sequence[str]):
        super().__init__()
        self.folder = folder
        self.classes = classes

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        gan: Any = self.model
        draw_samples(
            gan,
            self.folder / f"samples_epoch_{epoch + 1:04d}.png",
            self.classes,
            title=f"epoch {epoch + 1}",
        )


def draw_samples(gan: BCGAN, path: Path, classes: Sequence[str], *, title: str = "") -> Path:
    """A picture of generated samples, one row a class (at most ten classes)."""
    rows = min(len(classes), _GRID_ROWS)
    labels = np.repeat(np.arange(rows), _GRID_ROWS)
    images = gan.generate(labels, seed=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    return figures.image_grid(
        images, path, columns=_GRID_ROWS, row_labels=list(classes[:rows]), title=title
    )
