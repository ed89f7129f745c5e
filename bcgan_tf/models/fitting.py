"""One way to fit any of the models: seeded stream, checkpoints, resume, progress on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bcgan_tf.data import Split, evaluation_batches, steps_per_epoch, training_stream
from bcgan_tf.distribute import check_batch_size
from bcgan_tf.models.checkpoints import EpochCheckpoint, StopOnNonFinite, restore


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
        UserError: non-finite losses, an indivisible batch, or an alien checkpoint.
    """
    mirrored = isinstance(model.distribute_strategy, tf.distribute.MirroredStrategy)
    check_batch_size(batch_size, model.distribute_strategy if mirrored else None)
    done, history = restore(model, directory) if directory and resume else (0, [])
    own: list[keras.callbacks.Callback] = [StopOnNonFinite(directory)]
    recorder = None
    if directory is not None:
        recorder = EpochCheckpoint(directory, history=history)
        own.append(recorder)
    if done < epochs:
        # Keras reports on stdout, which here belongs to results.
        with contextlib.redirect_stdout(sys.stderr):
            result = model.fit(
                training_stream(split, batch_size=batch_size, seed=seed, start_epoch=done),
                initial_epoch=done,
                epochs=epochs,
                steps_per_epoch=steps_per_epoch(split, batch_size),
                validation_data=evaluation_batches(validation, 500) if validation else None,
                callbacks=[*callbacks, *own],
                shuffle=False,  # the stream is shuffled already
                verbose=1 if sys.stderr.isatty() else 2,
            )
        if recorder is None:
            columns = result.history
            history = [
                {"epoch": e, **{k: float(v[i]) for k, v in columns.items()}}
                for i, e in enumerate(result.epoch)
            ]
    return recorder.history if recorder is not None else history
