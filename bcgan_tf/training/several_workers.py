"""Keras' ``fit`` under ``MultiWorkerMirroredStrategy``, in which it fails by itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf


def is_of_workers(chosen: tf.distribute.Strategy | None) -> bool:
    """Whether a strategy is one of several workers."""
    return isinstance(chosen, tf.distribute.MultiWorkerMirroredStrategy)


@contextlib.contextmanager
def fit_of_workers(model: keras.Model) -> Iterator[None]:
    """Inside the ``with``, ``fit`` trains a model of several workers; of any other as always.

    Keras 3.15 builds the model from a batch of one worker and averages the logs of a step as if
    they had rows, and both fail (keras #20585). Here a built model is not built again, and the logs
    of a step are those of this worker; those of an epoch are, as ever, the metrics over all.

    Args:
        model: built, with one step per execution.
    """
    if not is_of_workers(model.distribute_strategy):
        yield
        return
    own = {
        "_maybe_symbolic_build": lambda **_: None,
        "_make_function": functools.partial(_function, model.distribute_strategy),
    }
    for name, function in own.items():
        # An attribute of the instance hides the method of its class.
        object.__setattr__(model, name, function)
    try:
        yield
    finally:
        for name in own:
            object.__delattr__(model, name)


def _function(strategy: tf.distribute.Strategy, step: Callable[..., Any]) -> Any:
    """What Keras calls for each step of training, or of validation."""

    @tf.function(reduce_retracing=True)
    def function(iterator: Any) -> Any:
        outputs = strategy.run(step, args=(next(iterator),))
        first = lambda value: strategy.experimental_local_results(value)[0]  # noqa: E731
        return tf.nest.map_structure(first, outputs)

    return function


def rows_of_worker(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Any:
    """Endless batches for ``fit`` of several workers: each gets its rows of every batch.

    Args:
        batches: of all replicas together, the same on all workers; each divides by the number of
            replicas.
        strategy: of the workers.
    """
    replicas = strategy.num_replicas_in_sync

    def own(context: tf.distribute.InputContext) -> tf.data.Dataset:
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        def part(*arrays: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return tuple(_by_replica(array, replicas)[first : first + local] for array in arrays)

        return batches.map(part).unbatch().repeat().prefetch(tf.data.AUTOTUNE)

    return strategy.distribute_datasets_from_function(own)


def _by_replica(rows: tf.Tensor, replicas: int) -> tf.Tensor:
    each = (rows.shape[0] or tf.shape(rows)[0]) // replicas
    return tf.reshape(rows, [replicas, each, *rows.shape[1:]])
