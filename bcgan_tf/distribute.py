"""The ``tf.distribute`` strategy of a training, and the check of its batch size."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import tensorflow as tf

from bcgan_tf.errors import UserError


def strategy(devices: int | None = None) -> tf.distribute.Strategy | None:
    """The strategy for this machine: ``MirroredStrategy`` for several devices, None for one.

    Args:
        devices: how many to use: GPUs where there are any, else logical CPUs. None: all GPUs.

    Returns:
        A strategy, or None for one device. Equal calls return the same object: several strategies
        in one process disturb each other's collectives.

    Raises:
        UserError: there are fewer devices.
    """
    gpus = tf.config.list_logical_devices("GPU")
    available = gpus or tf.config.list_logical_devices("CPU")
    count = (len(gpus) or 1) if devices is None else devices
    if count < 1 or count > len(available):
        kind = "GPUs" if gpus else "CPU devices"
        raise UserError(
            f"{count} devices were asked for and {len(available)} {kind} are there; "
            f"choose --devices between 1 and {len(available)}"
        )
    return _mirrored(tuple(d.name for d in available[:count])) if count > 1 else None


@functools.cache
def _mirrored(names: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    # NCCL needs GPUs; among CPU devices only the reduction to one device is sound.
    gpu = "GPU" in names[0]
    operations = None if gpu else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=operations)


def scope(chosen: tf.distribute.Strategy | None) -> contextlib.AbstractContextManager[Any]:
    """The strategy's scope, in which models and optimizers are made; nothing for None."""
    return chosen.scope() if chosen is not None else contextlib.nullcontext()


def check_batch_size(batch_size: int, chosen: tf.distribute.Strategy | None) -> None:
    """Refuses a global batch that the replicas cannot share equally.

    Raises:
        UserError: ``batch_size`` is not a multiple of the number of replicas.
    """
    replicas = chosen.num_replicas_in_sync if chosen is not None else 1
    if batch_size % replicas:
        raise UserError(
            f"the batch size {batch_size} is for all {replicas} devices together and does not "
            f"divide by {replicas}; choose a multiple of {replicas}"
        )
