"""Small trainings of every kind, for the workers of a cluster and for one process alone.

As a program it is one worker: it joins those of ``TF_CONFIG``, does the trainings, then the command
lines that it is given, and leaves what it found in its working directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf import distribute, randomness
from bcgan_tf.data import Dataset, Split, load_dataset
from bcgan_tf.defenses import PGDTraining, TRADESTraining
from bcgan_tf.models import BCGAN
from bcgan_tf.models.wgan_gp import WGANGP
from bcgan_tf.networks.layers import ResumableDropout
from bcgan_tf.training.alternating_trainer import AlternatingTrainer
from bcgan_tf.training.fit import fit
from bcgan_tf.training.inner_maximization import InnerMaximization
from helpers.linear_gan import BATCH, initial_arrays, linear_gan
from helpers.small_networks import (
    SHAPE,
    glorot,
    small_classifier,
    small_discriminator,
    small_generator,
)

Result = dict[str, np.ndarray]
_ROWS = 4


class _Descent:
    """A defence by plain SGD: Adam would enlarge what rounding leaves."""

    def make_optimizer(self, steps: int) -> keras.optimizers.Optimizer:
        del steps
        return keras.optimizers.SGD(0.1)


class _PGD(_Descent, PGDTraining):
    pass


class _TRADES(_Descent, TRADESTraining):
    @property
    def attack(self) -> InnerMaximization:
        """From its usual start, close to the image, rounding decides the gradient's sign."""
        return InnerMaximization(steps=self.steps)


def numbered(weights: Sequence[Any], logs: Sequence[dict[str, float]]) -> Result:
    """Weights and logs under names."""
    found = {f"weight {i}": np.array(w) for i, w in enumerate(weights)}
    for number, log in enumerate(logs):
        found |= {f"log {number} {name}": np.array(float(v)) for name, v in log.items()}
    return found


def few(data: Dataset) -> Dataset:
    """96 images, and 33 for validation: its batch has no whole share for each of two workers."""
    return dataclasses.replace(
        data, train=data.train.take(96), validation=data.train.take(33, seed=1)
    )


def hardened(defense: Any, data: Dataset) -> Result:
    logs: list[dict[str, float]] = []
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, log: logs.append(dict(log)))
    found = defense.harden(small_classifier(dropout=0), few(data), callbacks=[told])
    return numbered(found.get_weights(), logs)


def step_of_boundary_gan(data: Dataset) -> Result:
    """One step of the linear BCGAN, for which NumPy's is known."""
    del data
    arrays = initial_arrays()
    gan = linear_gan(arrays, distribute.strategy())
    split = Split(arrays["images"], arrays["labels"])
    fit(gan, split, epochs=1, batch_size=BATCH, seed=0)
    return numbered([*gan.generator.get_weights(), *gan.discriminator.get_weights()], [])


def boundary_gan(data: Dataset) -> Result:
    with distribute.scope(distribute.strategy()):
        gan = BCGAN(
            small_generator(),
            small_discriminator(dropout=0),
            classifier=small_classifier(dropout=0),
            beta=0.5,
            num_classes=10,
            seed=3,
        )
        gan.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    logs = fit(gan, few(data).train, epochs=2, batch_size=16, seed=0)
    return numbered([*gan.generator.get_weights(), *gan.discriminator.get_weights()], logs)


def wgan(data: Dataset) -> Result:
    with distribute.scope(distribute.strategy()):
        noise, image = keras.Input((4,)), keras.Input(SHAPE)
        pixels = keras.layers.Dense(64, "sigmoid", kernel_initializer=glorot(1))(noise)
        hidden = keras.layers.Dense(8, "tanh", kernel_initializer=glorot(2))(
            keras.layers.Flatten()(image)
        )
        score = keras.layers.Dense(1, kernel_initializer=glorot(3))(hidden)
        gan = WGANGP(
            keras.Model(noise, keras.layers.Reshape(SHAPE)(pixels)),
            keras.Model(image, keras.layers.Reshape(())(score)),
            critic_steps=2,
        )
        gan.compile(keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.05))
    logs = fit(gan, few(data).train, epochs=1, batch_size=16, seed=0)
    return numbered([*gan.generator.get_weights(), *gan.critic.get_weights()], logs)


def alternating(data: Dataset) -> Result:
    def generate(rows: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = randomness.global_uniform(seed, rows, 64)
        return tf.reshape(images, [rows, *SHAPE]), tf.cast(10 * images[:, 0], tf.int32)

    with distribute.scope(distribute.strategy()):
        trainer = AlternatingTrainer(
            small_classifier(dropout=0),
            generate=generate,
            generated_batches=3,  # drawn one by one: those of each replica are then one's rows
            real_batches=6,
            batch_size=16,
        )
        trainer.compile(keras.optimizers.SGD(0.1))
    images, told = few(data).train, [trainer.callback()]
    logs = fit(trainer, images, epochs=2, batch_size=16, seed=0, callbacks=told, steps_at_once=3)
    return numbered(trainer.classifier.get_weights(), logs)


_SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 16, "seed": 5}
_ATTACK = {"eps": 0.1, "steps": 2, "ramp_epochs": 0}
TRAININGS: dict[str, Callable[[Dataset], Result]] = {
    "step": step_of_boundary_gan,
    "bcgan": boundary_gan,
    "wgan": wgan,
    "pgd-at": lambda data: hardened(_PGD(**_ATTACK, **_SETTINGS), data),
    "trades": lambda data: hardened(_TRADES(**_ATTACK, **_SETTINGS), data),
    "alternating": alternating,
}


def drawn() -> Result:
    """What the replicas of this process draw: noise and a mask of dropout."""
    chosen: Any = distribute.strategy() or tf.distribute.get_strategy()
    with chosen.scope():
        dropout = ResumableDropout(0.5)
        dropout.build((None, 32))

    @tf.function
    def draw() -> Any:
        rows = _ROWS // chosen.num_replicas_in_sync
        seed = randomness.step_seed(1, 2, tf.constant(3))
        noise = randomness.global_normal(seed, rows, 5)
        return noise, dropout(tf.ones([rows, 32]), training=True)

    noise, mask = chosen.run(draw)
    return {
        "noise": np.concatenate(chosen.experimental_local_results(noise)),
        "mask": np.concatenate(chosen.experimental_local_results(mask)),
    }


_WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate")


def noting_writes(folder: Path, found: list[str]) -> None:
    """Notes from now on what this process writes in a folder."""

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        wrote = event in _WRITES
        if event == "open":
            mode, flags = arguments[1:]
            wrote = any(c in mode for c in "wax+") if mode else bool(flags & 3)
        if wrote and str(folder) in str(arguments[0]):
            found.append(f"{event} {arguments[0]}")

    sys.addaudithook(hear)


def _worker(folder: Path, commands: Sequence[Sequence[str]]) -> None:
    distribute.join()
    data = load_dataset("digits")
    for name, training in TRAININGS.items():
        print(name, file=sys.stderr, flush=True)
        np.savez(f"{name}.npz", **training(data))  # type: ignore[arg-type]
    np.savez("drawn.npz", **drawn())  # type: ignore[arg-type]
    from bcgan_tf.cli import main

    writes: list[str] = []
    noting_writes(folder, writes)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for command in commands:
            print(command, file=sys.stderr, flush=True)
            main(list(command), standalone_mode=False)
    Path("cli.json").write_text(json.dumps({"writes": writes, "stdout": printed.getvalue()}))


if __name__ == "__main__":
    _worker(Path(sys.argv[1]), json.loads(sys.argv[2]))
