"""One way to fit any of the models: seeded stream, checkpoints, resume, progress on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bcgan_tf import interruption
from bcgan_tf.data import Split, evaluation_batches, steps_per_epoch, training_stream
from bcgan_tf.distribute import check_batch_size
from bcgan_tf.errors import UserError
from bcgan_tf.progress import EpochLines
from bcgan_tf.training.best_weights import BestWeights
from bcgan_tf.training.checkpoints import (
    EpochCheckpoint,
    Restored,
    StopOnNonFinite,
    has_checkpoint,
    restore,
)
from bcgan_tf.training.fused_normalization import fused_normalization


def fit(
    model: Any,
    split: Split,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    validation: Split | None = None,
    directory: Path | None = None,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[dict[str, float]]:
    """Trains a compiled model to ``epochs``, from the newest checkpoint when resuming.

    Args:
        model: one of this package's models, compiled.
        split: the training examples.
        epochs: total, those of an earlier attempt included.
        batch_size: global, over all replicas; only full batches are used.
        seed: of the order of the examples.
        validation: measured after each epoch; selects nothing.
        directory: for checkpoints; None keeps none.
        resume: go on from the newest checkpoint in ``directory``.
        callbacks: more Keras callbacks.

    Returns:
        One dict of logs per epoch, those of earlier attempts included.

    Raises:
        UserError: non-finite losses, an indivisible batch, an alien checkpoint, none that is
            whole, or checkpoints in ``directory`` without ``resume``.
        KeyboardInterrupt: a signal came (:mod:`bcgan_tf.interruption`); with a ``directory``, the
            training can be resumed after the step at which it ended.
    """
    mirrored = isinstance(model.distribute_strategy, tf.distribute.MirroredStrategy)
    chosen = model.distribute_strategy if mirrored else None
    check_batch_size(batch_size, chosen)
    if directory and not resume and has_checkpoint(directory):
        # Later ones of an earlier training would win over this one's when it is resumed.
        raise UserError(f"{directory} holds checkpoints; resume them, or choose another folder")
    best = next((one for one in callbacks if isinstance(one, BestWeights)), None)
    found = restore(model, directory, best) if directory and resume else Restored()
    steps = steps_per_epoch(split, batch_size)
    own: list[keras.callbacks.Callback] = [StopOnNonFinite(directory)]
    recorder = None
    if directory is not None:
        recorder = EpochCheckpoint(directory, restored=found, steps=steps, best=best)
        own.append(recorder)
    terminal = sys.stderr.isatty()
    if not terminal:
        own.append(EpochLines(directory.name if directory is not None else "training"))
    validated = _validation_batches(validation, chosen) if validation else None
    history = list(found.history)

    def train(done: int, steps_done: int, *more: keras.callbacks.Callback) -> Any:
        stream = training_stream(
            split, batch_size=batch_size, seed=seed, start_epoch=done, start_step=steps_done
        )
        return model.fit(
            stream,
            initial_epoch=done,
            epochs=epochs,
            steps_per_epoch=steps - steps_done,
            validation_data=validated,
            callbacks=[*callbacks, *own, *more],
            shuffle=False,  # the stream is shuffled already
            verbose=1 if terminal else 0,
        )

    # Keras reports on stdout, which here belongs to results.
    with _interruptible(), contextlib.redirect_stdout(sys.stderr), fused_normalization(model):
        done = found.epochs
        if found.steps and done < epochs:
            train(done, found.steps, _OneEpoch())
            done += 1
        if done < epochs:
            columns = train(done, 0)
            if recorder is None:
                history = [
                    {"epoch": e, **{k: float(v[i]) for k, v in columns.history.items()}}
                    for i, e in enumerate(columns.epoch)
                ]
    return recorder.history if recorder is not None else history


class _OneEpoch(keras.callbacks.Callback):
    """Ends ``fit`` after the rest of an epoch: the others have more steps."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = True


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Signals that the training's callbacks deferred are obeyed at the latest at its end."""
    try:
        yield
    finally:
        interruption.defer(False)
    interruption.check()


def _validation_batches(
    split: Split, chosen: tf.distribute.Strategy | None, *, batch_size: int = 500
) -> tf.data.Dataset:
    """The split in order; under a strategy with weights, so that no replica is left without rows.

    A replica without rows crashes or gives NaN. Batches are filled up to a multiple of the
    replicas by rows of weight 0.
    """
    batches = evaluation_batches(split, batch_size)
    if chosen is None:
        return batches
    replicas = chosen.num_replicas_in_sync

    def fill(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rows = tf.shape(labels)[0]
        missing = -rows % replicas
        return (
            tf.concat([images, tf.repeat(images[:1], missing, axis=0)], axis=0),
            tf.concat([labels, tf.repeat(labels[:1], missing, axis=0)], axis=0),
            tf.concat([tf.ones([rows]), tf.zeros([missing])], axis=0),
        )

    return batches.map(fill)
