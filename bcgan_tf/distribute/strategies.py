"""The ``tf.distribute`` strategy of a training, and the check of its batch size."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import tensorflow as tf

from bcgan_tf.distribute import cluster
from bcgan_tf.errors import UserError, first_line


@functools.cache
def join() -> tf.distribute.MultiWorkerMirroredStrategy | None:
    """Joins the workers that ``TF_CONFIG`` names, and waits until all are there.

    A program calls it once, before anything else uses TensorFlow; ``bcgan-tf train`` and ``harden``
    do. :func:`strategy` gives what it returned from then on.

    Returns:
        None where ``TF_CONFIG`` is not set or names one worker.

    Raises:
        UserError: ``TF_CONFIG`` cannot be used, TensorFlow was used before, or a worker is missing.
    """
    found = cluster.named()
    if found is None:
        return None
    try:
        chosen = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UserError(
            f"TensorFlow was used before the {found.workers} workers of {cluster.VARIABLE} were "
            "joined; call bcgan_tf.distribute.join() at the beginning of the program"
        ) from error
    except tf.errors.OpError as error:
        raise UserError(
            f"the {found.workers} workers of {cluster.VARIABLE} cannot be joined "
            f"({first_line(error)}); start all of them, and check the addresses"
        ) from error
    cluster.join(found)
    return chosen


def strategy(devices: int | None = None) -> tf.distribute.Strategy | None:
    """The strategy for this machine: ``MirroredStrategy`` for several devices, None for one.

    After :func:`join` it is that of all workers, over all their GPUs.

    Args:
        devices: how many to use: GPUs where there are any, else logical CPUs. None: all GPUs.

    Returns:
        A strategy, or None for one device. Equal calls return the same object: several strategies
        in one process disturb each other's collectives.

    Raises:
        UserError: there are fewer devices; of several workers one would not use all of its own; or
            ``TF_CONFIG`` names several that were not joined.
    """
    if several := cluster.joined() or cluster.named():
        return _of_workers(several.workers, devices)
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


def _of_workers(workers: int, devices: int | None) -> tf.distribute.Strategy:
    if cluster.joined() is None:
        raise UserError(
            f"{cluster.VARIABLE} names {workers} workers, with which only `train` and `harden` "
            "train, and programs that call bcgan_tf.distribute.join(); unset it to train on this "
            "machine"
        )
    chosen: Any = join()
    own = chosen.num_replicas_in_sync // workers
    if devices not in (None, own):
        raise UserError(
            f"{devices} devices were asked for; each of the {workers} workers of "
            f"{cluster.VARIABLE} uses all of its own, here {own}: leave out --devices"
        )
    return chosen


@functools.cache
def _mirrored(names: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    # NCCL needs GPUs; among CPU devices only the reduction to one device is sound.
    gpu = "GPU" in names[0]
    operations = None if gpu else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=operations)


def replicated(model: Any) -> tf.distribute.Strategy | None:
    """The strategy that a model was made under; None for one device."""
    chosen = model.distribute_strategy
    kinds = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    return chosen if isinstance(chosen, kinds) else None


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
