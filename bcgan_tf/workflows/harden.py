"""The stage that hardens: any defence, and for the paper's what its samples are like."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.data import Dataset
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.distribute import cluster
from bcgan_tf.evaluation.generated_set import measure_generated_set
from bcgan_tf.loading.adapted import Adapted
from bcgan_tf.models.bcgan import BCGAN
from bcgan_tf.report import figures
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.presets import Recipe
from bcgan_tf.training.callbacks import HistoryWriter
from bcgan_tf.workflows.train import finish_training, train_oracle

HARDENED = "hardened.keras"
_GAN_STAGE, _GAN = "gan", "gan.keras"
_GRID_ROWS = 10


def harden(
    run: RunDirectory,
    data: Dataset,
    classifier: keras.Model | Adapted,
    defense: Defense,
    recipe: Recipe,
) -> Path:
    """Hardens a classifier by a defence; a finished stage is not repeated.

    Args:
        run: an open run.
        data: its training and validation splits are used.
        classifier: trained; a model of another convention as it was taken in.
        defense: with its settings.
        recipe: how the samples of a GAN are measured.

    Returns:
        The saved hardened classifier, ``hardened.keras`` in the run's folder.

    Raises:
        UserError: the training failed.
    """
    path = run.path / HARDENED
    if run.stage_done("harden"):
        return path
    keras.utils.set_random_seed(defense.seed)
    hardened = defense.harden(
        classifier,
        data,
        directory=run.checkpoints,
        resume=True,
        callbacks=_Stages(run, data, _inside(classifier), defense, recipe),
    )
    part = defense.trained(_inside(classifier))
    payload = {
        "defense": {**defense.config(), **({"trained": part} if part else {})},
        "titles": dict(defense.stage_titles),
        "classes": data.class_names,
    }
    finish_training(run, "harden", hardened, path, payload)
    return path


def _inside(classifier: keras.Model | Adapted) -> keras.Model:
    return classifier.classifier if isinstance(classifier, Adapted) else classifier


@dataclasses.dataclass(frozen=True)
class _Stages:
    """The callbacks of each stage of a defence, and what is made of a GAN that it trained."""

    run: RunDirectory
    data: Dataset
    classifier: keras.Model
    defense: Defense
    recipe: Recipe

    def __call__(self, stage: str) -> Sequence[keras.callbacks.Callback]:
        if not cluster.is_chief():
            return []
        history = HistoryWriter(self.run.history, stage)
        if stage != _GAN_STAGE:
            return [history]
        return [history, _SampleGrid(self.run.figures / stage, self.data.class_names)]

    def gan_trained(self, gan: BCGAN) -> None:
        """Saves the GAN and measures its samples, with an oracle trained for that."""
        run = self.run
        if not run.stage_done(_GAN_STAGE):
            finish_training(run, _GAN_STAGE, gan, run.path / _GAN)
        if not (run.stage_done("generated_set") and "generated_set" in run.metrics()):
            oracle = self._train_oracle()
            if cluster.is_chief():
                run.add_metrics(generated_set=self._measure_samples(gan, oracle))
                run.finish_stage("generated_set")
        # The next stage draws the same whether the GAN was trained now or before a resume.
        keras.utils.set_random_seed(self.defense.seed)

    def _train_oracle(self) -> Path:
        defense = self.defense
        # In batches of the size that was found possible before the GAN was trained.
        sized = dataclasses.replace(self.recipe, classifier_batch_size=defense.batch_sizes()[-1])
        return train_oracle(self.run, self.data, sized, seed=defense.seed, devices=defense.devices)

    def _measure_samples(self, gan: BCGAN, oracle: Path) -> dict[str, Any]:
        run, data = self.run, self.data
        labels = np.arange(self.recipe.generated_samples) % data.num_classes
        measures = measure_generated_set(
            gan.generate(labels, seed=1),
            labels,
            classifier=self.classifier,
            oracle=keras.models.load_model(oracle),
            real=(data.validation.scaled(), data.validation.labels),
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
    if len(classes) > rows:
        title = f"{title}, " * bool(title) + f"the first {rows} of {len(classes):,} classes"
    labels = np.repeat(np.arange(rows), _GRID_ROWS)
    images = gan.generate(labels, seed=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    return figures.image_grid(
        images, path, columns=_GRID_ROWS, row_labels=list(classes[:rows]), title=title
    )
