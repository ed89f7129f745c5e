"""Running a graph over many examples in batches: one trace, few batch sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

_SHAPES, _SHAPES_OF_THREADS = 8, 32
# Without an accelerator two batches run at once: small operations use only part of a processor.
_THREADS = 2
_WORTH_A_THREAD = 64
_LEAST_ROWS = 8


class Batched:
    """A function of tensors, applied to arrays of any length.

    It is traced once, with a free batch dimension. Batches have at most eight sizes, multiples of
    an eighth of the largest; repeated rows fill them up. GPUs tune kernels for every new size, and
    the number of survivors changes with every attack. Without a GPU or TPU two halves of a large
    batch run at once, of at most 32 sizes.

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
            total: the largest number of rows over several calls, which fixes the batch sizes.
                None: the rows of ``arrays``.
            report: called with the number of rows done, after every batch.
        """
        count = len(arrays[0])
        largest = min(self.batch_size, max(count, total or count))
        threads = _THREADS if largest >= _THREADS * _WORTH_A_THREAD and not _accelerated() else 1
        largest = max(1, largest // threads)
        unit = math.ceil(largest / (_SHAPES if threads == 1 else _SHAPES_OF_THREADS))
        # Each thread gets as many batches, if they are not too small for it.
        batches = _rounded_up(
            math.ceil(count / largest), min(threads, max(1, count // _LEAST_ROWS))
        )
        rows = math.ceil(count / batches)

        def batch(start: int) -> list[tf.Tensor]:
            taken = np.arange(start, min(start + rows, count))
            padded = np.resize(taken, min(largest, _rounded_up(len(taken), unit)))
            inputs = [tf.constant(array[padded]) for array in arrays]
            return inputs + [tf.constant(value) for value in constants]

        starts = range(0, count, rows)
        compiled = self._traced(batch(0), len(arrays))

        def run(start: int) -> np.ndarray:
            return compiled(*batch(start)).numpy()[: min(rows, count - start)]

        pieces = []
        pool = ThreadPoolExecutor(threads) if threads > 1 and len(starts) > 1 else None
        try:
            for start, piece in zip(starts, (pool.map if pool else map)(run, starts), strict=True):
                pieces.append(piece)
                if report is not None:
                    report(start + len(piece))
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        return np.concatenate(pieces)

    def once(self, rows: np.ndarray) -> np.ndarray:
        """The function of these rows, in one batch without padding."""
        return self.traced(rows)(tf.constant(rows)).numpy()

    def traced(self, rows: np.ndarray) -> Any:
        """The concrete graph of a function of one tensor, for rows of this shape and dtype."""
        return self._traced([tf.constant(rows)], 1)

    def _traced(self, inputs: list[tf.Tensor], free: int) -> Callable[..., Any]:
        """The concrete graph; the first ``free`` inputs have a free batch dimension."""
        compiled = self._compiled
        if compiled is None:
            specs = [
                tf.TensorSpec([None, *x.shape[1:]] if position < free else [], x.dtype)
                for position, x in enumerate(inputs)
            ]
            compiled = self._compiled = self._graph.get_concrete_function(*specs)
        return compiled


def _accelerated() -> bool:
    return bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def _rounded_up(count: int, unit: int) -> int:
    return math.ceil(count / unit) * unit
