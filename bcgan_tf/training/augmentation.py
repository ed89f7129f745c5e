"""Random changes of images that do not change their class."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from bcgan_tf import randomness
from bcgan_tf.settings.kinds import AUGMENTATIONS as NAMES

# (images [B, H, W, C], seed int32 [2]) -> images
Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_NOISE, _SCALE, _SHIFT = range(3)
_DOWN, _RIGHT, _MIRROR = 11, 12, 13


def noisy_shifted_batch(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    noise: float = 0.4,
    shift: float = 1 / 14,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gaussian noise of random strength and a random shift, for a net that should see shapes.

    Args:
        images: float32 ``[B, H, W, C]`` in [0, 1]; vectors ``[B, D]`` are left as they are.
        labels: int ``[B]``.
        seed: int32 ``[2]``, stateless.
        noise: largest standard deviation, drawn uniformly for each image.
        shift: largest shift, as a share of the side; one for the whole batch.

    Returns:
        ``(images, labels, weights 1)``; the images clipped to [0, 1].
    """
    weights = tf.ones(tf.shape(labels), tf.float32)
    if len(images.shape) != 4:
        return images, labels, weights
    seed = randomness.fold_replica(seed)
    scale = tf.random.stateless_uniform(
        tf.stack([tf.shape(images)[0], 1, 1, 1]), randomness.fold_in(seed, _SCALE), maxval=noise
    )
    images += scale * tf.random.stateless_normal(tf.shape(images), randomness.fold_in(seed, _NOISE))
    reach = max(1, round(int(images.shape[1] or 1) * shift))
    by = tf.random.stateless_uniform(
        [2], randomness.fold_in(seed, _SHIFT), -reach, reach + 1, dtype=tf.int32
    )
    # What is rolled over an edge is the other side's background.
    return tf.clip_by_value(tf.roll(images, by, axis=[1, 2]), 0.0, 1.0), labels, weights


def shifted_images(images: tf.Tensor, seed: tf.Tensor, *, shift: float = 1 / 14) -> tf.Tensor:
    """Every image moved by its own random offset; what moves in from outside is 0.

    Args:
        images: float32 ``[B, H, W, C]``.
        seed: int32 ``[2]``, stateless; replicas get their part of one draw.
        shift: largest shift as a share of the height, at least one pixel: 2 of 28 or of 32.

    Returns:
        float32 ``[B, H, W, C]``.
    """
    rows = tf.shape(images)[0]
    height, width = (int(side or 0) for side in images.shape[1:3])
    reach = max(1, round(height * shift))
    offsets = [
        randomness.global_labels(randomness.fold_in(seed, which), rows, 2 * reach + 1)
        for which in (_DOWN, _RIGHT)
    ]
    sides = [[0, 0], [reach, reach], [reach, reach], [0, 0]]
    lines, columns = (
        offset[:, None] + tf.range(side)
        for offset, side in zip(offsets, (height, width), strict=True)
    )
    moved = tf.gather(tf.pad(images, sides), lines, axis=1, batch_dims=1)
    return tf.gather(moved, columns, axis=2, batch_dims=1)


def mirrored_crops(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Every image moved by up to an eighth of its height, and half of them mirrored.

    What residual networks on CIFAR-10 are trained with: crops of 32 pixels out of 40.

    Args:
        images: float32 ``[B, H, W, C]``.
        seed: int32 ``[2]``, stateless; replicas get their part of one draw.

    Returns:
        float32 ``[B, H, W, C]``.
    """
    return mirrored_images(shifted_images(images, seed, shift=1 / 8), seed)


def mirrored_images(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Half of the images mirrored, left to right.

    Args:
        images: float32 ``[B, H, W, C]``.
        seed: int32 ``[2]``, stateless; replicas get their part of one draw.

    Returns:
        float32 ``[B, H, W, C]``.
    """
    mirror = randomness.global_labels(
        randomness.fold_in(seed, _MIRROR), tf.shape(images)[0], num_classes=2
    )
    return tf.where(tf.equal(mirror, 1)[:, None, None, None], images[:, :, ::-1], images)


_CHANGES = (None, shifted_images, mirrored_images, mirrored_crops)
AUGMENTATIONS: dict[str, Augmentation | None] = dict(zip(NAMES, _CHANGES, strict=True))
