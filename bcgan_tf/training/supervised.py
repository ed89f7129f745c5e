"""Training of a network from its initial weights on real images: classifiers and oracles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.distribute import check_batch_size, scope, strategy
from bcgan_tf.training.classifier_trainer import BatchBuilder, ClassifierTrainer
from bcgan_tf.training.fit import fit


def trained_from(
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
    """What ``build`` makes, trained with cross entropy.

    Args:
        build: makes the network, images in [0, 1] to logits ``[B, K]``; called in the strategy's
            scope.
        data: its training and validation splits are used.
        epochs: of training.
        batch_size: global.
        learning_rate: of Adam, decayed to 0 by a cosine.
        seed: of the order and of what ``build_batch`` draws.
        devices: see :class:`bcgan_tf.Defense`.
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
