"""tf.data pipelines over a `Split`: a resumable training stream, and ordered evaluation batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf.data.dataset import PIXEL_SCALE, Split
from bcgan_tf.errors import UserError
from bcgan_tf.lazy_images import LazyImages

# Values of one batch of an evaluation: 64 MiB as float32. Large images come in smaller batches.
_MOST_VALUES = 2**24
# Folded into the shuffle's seed, so that data order and model noise of one seed are unrelated.
_SHUFFLE = 0x5B


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Number of full batches in `split`: the length of one epoch of `training_stream`.

    Raises:
        UserError: when `batch_size` < 1 or larger than the split.
    """
    if batch_size < 1:
        raise UserError(f"batch size {batch_size} is not possible; use at least 1")
    if batch_size > len(split):
        raise UserError(
            f"batch size {batch_size} is larger than the split of {len(split)} examples; "
            "use a smaller batch size"
        )
    return len(split) // batch_size


def training_stream(
    split: Split, *, batch_size: int, seed: int, start_epoch: int = 0, start_step: int = 0
) -> tf.data.Dataset:
    """Endless shuffled batches of (examples, labels), `steps_per_epoch` of them an epoch.

    The order of epoch e depends only on (seed, e), so a stream that starts at epoch k repeats what
    an uninterrupted one would have seen. Batches are full and of static size; the few examples
    left over at the end of an epoch differ from epoch to epoch.

    Args:
        split: kept in memory once, as uint8; of images in a file, only the batches are.
        batch_size: the global batch size, over all replicas.
        seed: any integer of 32 bits.
        start_epoch: the first epoch to produce.
        start_step: batches of that epoch to leave out.

    Returns:
        float32 `[batch_size, ...]` (pixels in [0, 1]; vectors unchanged) and int64 `[batch_size]`.

    Raises:
        UserError: when `batch_size` does not fit the split.
    """
    steps = steps_per_epoch(split, batch_size)
    read = _reader(split)
    random: Any = tf.random  # the stubs lack the one name and mistake the other's types
    base = tf.constant(np.array([seed & 0xFFFFFFFF, _SHUFFLE], np.uint32).view(np.int32))

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        key = random.fold_in(base, tf.cast(epoch, tf.int32))
        rows = random.experimental.stateless_shuffle(tf.range(len(split)), key)
        batches = tf.reshape(rows[: steps * batch_size], [steps, batch_size])
        return tf.data.Dataset.from_tensor_slices(batches)

    stream = tf.data.Dataset.counter(start_epoch).flat_map(order).skip(start_step)
    stream = stream.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return _finish(stream)


def evaluation_batches(split: Split, batch_size: int) -> tf.data.Dataset:
    """All of `split` once and in order, the last batch possibly smaller.

    Returns:
        float32 `[B, ...]` (pixels in [0, 1]; vectors unchanged) and int64 `[B]`, B <= `batch_size`,
        and less where the images are so large that a batch would take more than 64 MiB.

    Raises:
        UserError: when `batch_size` < 1.
    """
    if batch_size < 1:
        raise UserError(f"batch size {batch_size} is not possible; use at least 1")
    batch_size = min(batch_size, max(1, _MOST_VALUES // math.prod(split.images.shape[1:])))
    rows = tf.data.Dataset.range(len(split)).batch(batch_size)
    read = _reader(split)
    return _finish(rows.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True))


def _reader(split: Split) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """A function of rows that gives their examples, scaled, and their labels."""
    stored: Any = split.images
    with tf.device("CPU:0"):  # a GPU gets batches, never the whole split
        labels = tf.convert_to_tensor(split.labels)
        images = None if isinstance(stored, LazyImages) else tf.convert_to_tensor(stored)

    def read(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if images is not None:
            return _scale(tf.gather(images, rows)), tf.gather(labels, rows)
        found: Any = tf.numpy_function(stored.__getitem__, [rows], tf.uint8, stateful=False)
        found = tf.ensure_shape(found, [*rows.shape, *stored.shape[1:]])
        return _scale(found), tf.gather(labels, rows)

    return read


def _scale(images: tf.Tensor) -> tf.Tensor:
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) * tf.constant(PIXEL_SCALE)
    return images


def _finish(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetch, and the options: one source in memory has no files to shard over workers."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
