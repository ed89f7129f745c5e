"""The oracle of a defence: it says which generated images show the class they were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from bcgan_tf.data import Dataset, steps_per_epoch
from bcgan_tf.distribute import check_batch_size, scope, strategy
from bcgan_tf.models.augmentation import noisy_shifted_batch
from bcgan_tf.models.classifier_trainer import ClassifierTrainer
from bcgan_tf.models.fitting import fit
from bcgan_tf.networks.oracle import oracle as build_oracle


def trained_oracle(
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
    """A net unlike the classifiers, trained on noisy and shifted real images, then frozen.

    Args:
        data: its training and validation splits are used.
        epochs: of training.
        batch_size: global.
        learning_rate: of Adam, decayed to 0 by a cosine.
        seed: of the initial weights, the order and the noise.
        devices: see :class:`bcgan_tf.Defense`.
        directory: for checkpoints; None keeps none.
        resume: go on from what ``directory`` holds.
        callbacks: more Keras callbacks.

    Returns:
        Images in [0, 1] to logits ``[B, K]``.
    """
    chosen = strategy(devices)
    check_batch_size(batch_size, chosen)
    with scope(chosen):
        oracle = build_oracle(data.image_shape, data.num_classes, seed=seed)
        trainer = ClassifierTrainer(oracle, seed=seed, build_batch=noisy_shifted_batch)
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
    oracle.trainable = False
    return oracle
