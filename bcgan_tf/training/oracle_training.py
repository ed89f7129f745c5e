"""The oracle of a defence: it says which generated images show the class they were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from bcgan_tf.data import Dataset
from bcgan_tf.networks.oracle import oracle as build_oracle
from bcgan_tf.training.augmentation import noisy_shifted_batch
from bcgan_tf.training.supervised import trained_from


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
    oracle = trained_from(
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
