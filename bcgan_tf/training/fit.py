"""Training of any model: seeded batches, checkpoints, resume, progress on stderr."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bcgan_tf import interruption
from bcgan_tf.data import Dataset, Split, evaluation_batches, steps_per_epoch, training_stream
from bcgan_tf.distribute.strategies import check_batch_size, replicated, scope, strategy
from bcgan_tf.errors import UserError
from bcgan_tf.networks.oracle import oracle as build_oracle
from bcgan_tf.training.augmentation import noisy_shifted_batch
from bcgan_tf.training.callbacks import EpochLines
from bcgan_tf.training.checkpoints import (
    BestWeights,
    EpochCheckpoint,
    Restored,
    StopOnNonFinite,
    has_checkpoint,
    restore,
)
from bcgan_tf.training.classifier_trainer import BatchBuilder, ClassifierTrainer
from bcgan_tf.training.fused_normalization import fused_normalization
from bcgan_tf.training.several_workers import fit_of_workers, is_of_workers, rows_of_worker


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
    steps_at_once: int = 1,
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
        steps_at_once: steps that are one graph, at most, where they are so short that starting
            each by itself takes a good part of its time.

    Returns:
        One dict of logs per epoch, those of earlier attempts included.

    Raises:
        UserError: non-finite losses, an indivisible batch, an alien checkpoint, none that is
            whole, or checkpoints in ``directory`` without ``resume``.
        KeyboardInterrupt: a signal came (:mod:`bcgan_tf.interruption`); with a ``directory``, the
            training can be resumed after the step at which it ended.
    """
    chosen = replicated(model)
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
    validation_steps = None
    if is_of_workers(chosen):
        steps_at_once = 1  # validation, whose batches have no end then, would take as many
        if validated is not None:
            validation_steps = int(validated.cardinality())
            validated = rows_of_worker(validated, chosen)
    history = list(found.history)

    def train(done: int, steps_done: int, *more: keras.callbacks.Callback) -> Any:
        stream = training_stream(
            split, batch_size=batch_size, seed=seed, start_epoch=done, start_step=steps_done
        )
        if is_of_workers(chosen):
            stream = rows_of_worker(stream, chosen)
        # A divisor: Keras takes whole executions, beyond the steps that it is asked for.
        at_once = math.gcd(steps - steps_done, steps_at_once)
        if at_once != model.steps_per_execution:
            model.steps_per_execution, model.train_function = at_once, None
        return model.fit(
            stream,
            initial_epoch=done,
            epochs=epochs,
            steps_per_epoch=steps - steps_done,
            validation_data=validated,
            validation_steps=validation_steps,
            callbacks=[*callbacks, *own, *more],
            shuffle=False,  # the stream is shuffled already
            verbose=1 if terminal else 0,
        )

    # Keras reports on stdout, which here belongs to results.
    with (
        _interruptible(),
        contextlib.redirect_stdout(sys.stderr),
        fused_normalization(model),
        fit_of_workers(model),
    ):
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


def train_classifier(
    build: Callable[[], keras.Model],
    data: Dataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    devices: int | None = None,
    build_batch: BatchBuilder | None = None,
    directory: Path | None = None,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.Model:
    """Trains a new network with cross entropy.

    Args:
        build: makes the network, images in [0, 1] to logits ``[B, K]``; called in the strategy's
            scope.
        data: its training and validation splits are used.
        epochs: of training.
        batch_size: global.
        learning_rate: of Adam, decayed to 0 by a cosine.
        seed: of the order and of what ``build_batch`` draws.
        devices: see :class:`bcgan_tf.defenses.Defense`.
        build_batch: see :class:`ClassifierTrainer`.
        directory: for checkpoints; None keeps none.
        resume: go on from what ``directory`` holds.
        callbacks: more Keras callbacks.

    Raises:
        UserError: the batch does not divide over the devices, or the training became non-finite.
    """
    chosen = strategy(devices)
    check_batch_size(batch_size, chosen)
    with scope(chosen):
        network = build()
        trainer = ClassifierTrainer(network, seed=seed, build_batch=build_batch)
        steps = epochs * steps_per_epoch(data.train, batch_size)
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        trainer.compile(keras.optimizers.Adam(schedule))
    fit(
        trainer,
        data.train,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        validation=data.validation,
        directory=directory,
        resume=resume,
        callbacks=callbacks,
    )
    return network


def train_oracle(
    data: Dataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float = 2e-3,
    seed: int,
    devices: int | None,
    directory: Path | None,
    resume: bool,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.Model:
    """Trains an oracle: a network that says which generated images show the class asked for.

    Its architecture differs from the classifiers'; it sees noisy, shifted real images, and is
    frozen afterwards.

    Args:
        data: its training and validation splits are used.
        epochs: of training.
        batch_size: global.
        learning_rate: of Adam, decayed to 0 by a cosine.
        seed: of the initial weights, the order and the noise.
        devices: see :class:`bcgan_tf.defenses.Defense`.
        directory: for checkpoints; None keeps none.
        resume: go on from what ``directory`` holds.
        callbacks: more Keras callbacks.

    Returns:
        Images in [0, 1] to logits ``[B, K]``.
    """
    oracle = train_classifier(
        lambda: build_oracle(data.image_shape, data.num_classes, seed=seed),
        data,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        devices=devices,
        build_batch=noisy_shifted_batch,
        directory=directory,
        resume=resume,
        callbacks=callbacks,
    )
    oracle.trainable = False
    return oracle


class _OneEpoch(keras.callbacks.Callback):
    """Ends ``fit`` after one epoch: a resumed epoch has fewer steps than the others."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = True


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raises a signal that the callbacks deferred when the training ends, if not before."""
    try:
        yield
    finally:
        interruption.defer(False)
    interruption.check()


def _validation_batches(
    split: Split, chosen: tf.distribute.Strategy | None, *, batch_size: int = 500
) -> tf.data.Dataset:
    """Batches of the split in order; under a strategy, padded with rows of weight 0.

    A replica without rows crashes or gives NaN, so each batch is padded to a multiple of the
    number of replicas.
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
