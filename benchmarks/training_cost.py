"""What a preset's trainings cost on this machine, from a few measured steps of each.

    python benchmarks/training_cost.py --dataset mnist --preset paper

Every row of Table 1 is begun as `bcgan-tf reproduce table1` begins it, on the full training set and
with the preset's own settings, and stopped after a few steps of each of its stages. A stage's cost
is the median step times the steps it would have taken; the first steps, which compile, do not
count. Left out: validation after each epoch, drawing samples, the oracle of the report; on MNIST
they are a few minutes. The step is what is measured, so the order of magnitude is what can be
believed: a GPU runs the same steps far faster.

Defense-GAN's price is paid when it answers: its search is timed for a few steps on a batch and
multiplied by the L and R of the preset, for one image and for a test set of 10,000.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import bcgan_tf  # noqa: F401  (pins the Keras backend)

# isort: split
import keras
import numpy as np

from bcgan_tf.data import Dataset, load_dataset
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.defenses.defense_gan import DefenseGANTraining
from bcgan_tf.reproduction.markdown import duration
from bcgan_tf.reproduction.protocol import PRESETS
from bcgan_tf.reproduction.rows import ROWS, defense_of_row
from bcgan_tf.runs.environment import environment
from bcgan_tf.settings.presets import Recipe, recipe
from bcgan_tf.training.fit import train_classifier
from bcgan_tf.workflows.train import build_classifier

WARM_UP = 3
SEARCH_STEPS, SEARCH_IMAGES = 20, 8
TEST_IMAGES = 10_000


class StageClock(keras.callbacks.Callback):
    """Times the steps of one stage, and stops it after a few."""

    def __init__(self, stage: str, steps: int) -> None:
        super().__init__()
        self.stage = stage
        self.steps = steps
        self.times: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) > WARM_UP + self.steps:
            self.model.stop_training = True

    @property
    def step(self) -> float:
        """Seconds, the median."""
        return statistics.median(np.diff(self.times[WARM_UP:]).tolist())

    @property
    def all_steps(self) -> int:
        return self.params["steps"] * self.params["epochs"]

    @property
    def total(self) -> float:
        return self.step * self.all_steps


def clocks_of(
    defense: Defense | None, network: keras.Model, data: Dataset, chosen: Recipe, steps: int
) -> tuple[list[StageClock], keras.Model]:
    """Each stage's clock, and what came out."""
    clocks: list[StageClock] = []

    def callbacks(stage: str) -> list[keras.callbacks.Callback]:
        clocks.append(StageClock(stage, steps))
        return [clocks[-1]]

    if defense is not None:
        return clocks, defense.harden(network, data, callbacks=callbacks)
    train_classifier(
        lambda: network,
        data,
        epochs=chosen.classifier_epochs,
        batch_size=chosen.classifier_batch_size,
        learning_rate=chosen.classifier_learning_rate,
        seed=0,
        callbacks=callbacks("train"),
    )
    return clocks, network


def search_cost(defense: DefenseGANTraining, defended: Any, images: np.ndarray) -> float:
    """Seconds for one image, with the defence's own L and R."""
    short = dataclasses.replace(defense, steps=SEARCH_STEPS)
    network = short.defended(defended.classifier, defended.reconstruction.generator)
    network(images)
    started = time.perf_counter()
    network(images)
    return (time.perf_counter() - started) / len(images) * defense.steps / SEARCH_STEPS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "fashion_mnist", "cifar10"))
    parser.add_argument("--preset", default="paper", choices=PRESETS)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each stage")
    given = parser.parse_args()

    data, chosen = load_dataset(given.dataset), recipe(given.dataset, given.preset)
    versions = environment()
    print(", ".join(f"{name} {value}" for name, value in versions.items()), flush=True)
    print("| row | stage | a step | steps | in all |\n| --- | --- | --- | --- | --- |", flush=True)
    for row in given.rows:
        keras.utils.set_random_seed(0)
        defense = defense_of_row(row, given.dataset, given.preset)
        network = build_classifier(data, chosen)
        clocks, result = clocks_of(defense, network, data, chosen, given.steps)
        for clock in clocks:
            print(
                f"| {row} | {clock.stage} | {1000 * clock.step:,.0f} ms | {clock.all_steps:,} "
                f"| {duration(clock.total)} |",
                flush=True,
            )
        if isinstance(defense, DefenseGANTraining):
            images = data.test.scaled()[:SEARCH_IMAGES]
            an_image = search_cost(defense, result, images)
            cost = duration(TEST_IMAGES * an_image)
            search = f"search, L = {defense.steps:,}, R = {defense.restarts}"
            print(f"| {row} | {search} | | {TEST_IMAGES:,} images | {cost} |")
        total = math.fsum(clock.total for clock in clocks)
        print(f"| **{row}** | **training** | | | **{duration(total)}** |", flush=True)


if __name__ == "__main__":
    main()
