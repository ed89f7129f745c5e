"""Random changes of a batch that leave its labels true."""

from __future__ import annotations

import tensorflow as tf

from bcgan_tf import randomness

_NOISE, _SCALE, _SHIFT = range(3)


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
