"""Running a graph over many examples: traced once, in a few shapes, within bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

_SHAPES = 8


class Batched:
    """A function of tensors, applied to arrays of any length.

    It is traced once, with a free batch dimension. Batches come in at most eight sizes, multiples
    of an eighth of the largest, filled up with rows of their own: graphics processors tune their
    kernels anew for each size, and the survivors of attacks are a new number each time.

    Args:
        function: of tensors ``[B, ...]`` (and scalar constants after them) to a tensor ``[B, ...]``
            whose rows do not depend on each other.
        batch_size: most rows at once.
    """

    def __init__(self, function: Callable[..., tf.Tensor], batch_size: int) -> None:
        self._graph = tf.function(function, autograph=False)
        self._compiled: Callable[..., Any] | None = None
        self.batch_size = batch_size

    def __call__(
        self,
        *arrays: np.ndarray,
        constants: tuple[Any, ...] = (),
        total: int | None = None,
        report: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """The function's rows for all rows of ``arrays``, at least one.

        Args:
            arrays: of one length.
            constants: scalars passed after them, in every batch alike.
            total: how many rows there are at most, over several calls; the sizes of batches
                follow from it. None: those of ``arrays``.
            report: called with the number of rows done, after every batch.
        """
        pieces, count = [], len(arrays[0])
        largest = min(self.batch_size, max(count, total or count))
        unit = math.ceil(largest / _SHAPES)
        batches = math.ceil(count / largest)
        rows = min(largest, _rounded_up(math.ceil(count / batches), unit))
        for start in range(0, count, rows):
            taken = np.arange(start, min(start + rows, count))
            padded = np.resize(taken, min(largest, _rounded_up(len(taken), unit)))
            inputs = [tf.constant(array[padded]) for array in arrays]
            inputs += [tf.constant(value) for value in constants]
            compiled = self._compiled
            if compiled is None:
                free = [
                    tf.TensorSpec([None, *array.shape[1:]], x.dtype)
                    for array, x in zip(arrays, inputs, strict=False)
                ]
                fixed = [tf.TensorSpec([], x.dtype) for x in inputs[len(arrays) :]]
                compiled = self._compiled = self._graph.get_concrete_function(*free, *fixed)
            pieces.append(compiled(*inputs).numpy()[: len(taken)])
            if report is not None:
                report(int(taken[-1]) + 1)
        return np.concatenate(pieces)


def _rounded_up(count: int, unit: int) -> int:
    return math.ceil(count / unit) * unit
