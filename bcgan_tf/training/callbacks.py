"""Keras callbacks that report what a training does, epoch by epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import keras

from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.pgd import PGD
from bcgan_tf.data.arrays import as_split
from bcgan_tf.errors import UserError
from bcgan_tf.loading.classifier import adapted_classifier, input_shape
from bcgan_tf.runs.history import History
from bcgan_tf.settings.convention import Convention
from bcgan_tf.settings.fields import checked
from bcgan_tf.settings.kinds import AttackEps, Epochs, Norm, Seed, SomeImages

_PGD_STEPS = 20


class HistoryWriter(keras.callbacks.Callback):
    """Writes every epoch's logs to a run's history.csv; a resume replaces the rows it repeats.

    Pass it to ``fit`` before the callback that saves checkpoints: then every epoch that a resume
    skips has its row.

    Args:
        history: of the run.
        stage: the name that the rows get.
    """

    def __init__(self, history: History, stage: str) -> None:
        super().__init__()
        self.history = history
        self.stage = stage
        self._started = False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._started = False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if not self._started:
            self.history.keep(self.stage, epoch)
            self._started = True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.history.append(self.stage, epoch + 1, logs or {})


class EpochLines(keras.callbacks.Callback):
    """Prints one line per epoch on stderr, where Keras' progress bar cannot be drawn.

    Args:
        name: of the training; each line begins with it.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        numbers = ", ".join(
            f"{name.replace('_', ' ')} {float(value):.4g}" for name, value in (logs or {}).items()
        )
        seconds = time.monotonic() - self._started
        print(
            f"{self.name} epoch {epoch + 1}/{self.params['epochs']}, {seconds:.1f} s: {numbers}",
            file=sys.stderr,
            flush=True,
        )


class RobustAccuracy(keras.callbacks.Callback):
    """Measures the robust accuracy after epochs of a user's own `fit`.

    Writes `val_robust_accuracy`, the share of all images that are right and stay so under attack,
    into the epoch's logs. Callbacks after it in the list can monitor it with `mode="max"`, such as
    `EarlyStopping` and `ModelCheckpoint`. It is a signal for training, from one attack on a few
    images, and not a verdict: that is :func:`bcgan_tf.evaluate`'s.

    Args:
        x: images, or a `tf.data.Dataset`; see :func:`bcgan_tf.data.arrays.as_split`.
        y: labels, beside images only.
        eps: radius of PGD with 20 steps, in [0, 1] pixel units.
        norm: `"linf"` or `"l2"`.
        attack: another attack, in place of `eps` and `norm`.
        n: images to attack, drawn once from `x`; all of them if there are fewer.
        every: epochs between measurements; the logs of those between have no value.
        seed: of the choice of images and of PGD's starts.
        convention: the pixels that the model takes, where not those of [0, 1], and which of its
            outputs classifies.

    Raises:
        UserError: neither or both of `eps` and `attack`, or a value is out of range. When training
            begins: unfit images or labels, or a model that is no classifier of such to logits.

    Example:
        >>> watch = RobustAccuracy(x_val, y_val, eps=0.1)
        >>> keep = keras.callbacks.ModelCheckpoint(
        ...     "best.keras", monitor="val_robust_accuracy", mode="max", save_best_only=True
        ... )
        >>> model.fit(x, y, epochs=20, callbacks=[watch, keep])
    """

    @checked
    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        eps: AttackEps | None = None,
        norm: Norm = "linf",
        attack: Attack | None = None,
        n: SomeImages = 500,
        every: Epochs = 1,
        seed: Seed = 0,
        convention: Convention | None = None,
    ) -> None:
        super().__init__()
        if (eps is None) == (attack is None):
            raise UserError("give either eps, for PGD, or an attack")
        self.attack = attack or PGD(eps or 0.0, norm=norm, steps=_PGD_STEPS, seed=seed)
        self._x, self._y, self._n, self._every, self._seed = x, y, n, every, seed
        self._convention = convention

    def on_train_begin(self, logs: Any = None) -> None:
        """Finds out before the first epoch whether the model can be attacked."""
        model: Any = self.model
        split = as_split(self._x, self._y, image_shape=input_shape(model))
        part = split.take(self._n, seed=self._seed)
        self._images, self._labels = part.scaled(), part.labels
        self._taken = adapted_classifier(
            model, image_shape=self._images.shape[1:], convention=self._convention
        )
        self._prepared = self.attack.prepare(self._taken.classifier)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the value to the logs."""
        if (epoch + 1) % self._every == 0 and logs is not None:
            self._taken.refresh()
            found = self._prepared(self._images, self._labels)
            logs["val_robust_accuracy"] = found.robust_accuracy
