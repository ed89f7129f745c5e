"""A loop over attack steps in one graph; finished examples leave the batch."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import tensorflow as tf


class LoopState(Protocol):
    """The state of the ``M`` examples in the batch: a NamedTuple with these two fields and others.

    All fields are ``[M, ...]``.
    """

    @property
    def finished(self) -> tf.Tensor:
        """bool ``[M]``: needs no further step; ``x_adv`` must stay as it is from then on."""
        ...

    @property
    def x_adv(self) -> tf.Tensor:
        """``[M, ...]``, the candidate to return."""
        ...


_S = TypeVar("_S", bound=LoopState)

# While the body of a loop is traced: the positions of its rows.
_ROWS: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar("rows", default=None)


def rows_at_work() -> tf.Tensor | None:
    """Which of the loop's examples the batch at hand holds: int32 ``[M]``, positions in ``[0, B)``.

    For a function that ``advance`` calls and that is not the same for all examples. None outside
    of a loop, where all are at hand in their order.
    """
    return _ROWS.get()


def masked_while_loop(
    advance: Callable[[tf.Tensor, _S], _S], state: _S, iterations: int
) -> tf.Tensor:
    """Advances all examples until each is finished or the iterations are used up.

    Finished examples leave the batch. It shrinks to a multiple of an eighth of its first size, and
    repeated rows fill it up: TensorFlow tunes kernels for every new shape, so at most eight occur.

    Args:
        advance: from the iteration, an int32 scalar from 0, and the state of ``M`` examples to
            their next state. A row's next state must not depend on the other rows.
        state: the state of all ``B`` examples at the start.
        iterations: at most this many.

    Returns:
        ``x_adv`` of all examples, ``[B, ...]``.
    """
    count = tf.shape(state.finished)[0]
    unit = (count + 7) // 8

    def open_rows(rows: tf.Tensor, state: _S) -> tf.Tensor:
        # Repeated rows have the row number `count`: their results are dropped, and they do not keep
        # the loop going. On a random model they may differ from the row they repeat.
        return tf.logical_not(state.finished) & (rows < count)

    def unfinished(step: tf.Tensor, rows: tf.Tensor, state: _S, results: tf.Tensor) -> tf.Tensor:
        del results
        return (step < iterations) & tf.reduce_any(open_rows(rows, state))

    def body(step: tf.Tensor, rows: tf.Tensor, state: _S, results: tf.Tensor) -> tuple[Any, ...]:
        token = _ROWS.set(tf.minimum(rows, count - 1))
        try:
            state = advance(step, state)
        finally:
            _ROWS.reset(token)
        standing = tf.where(open_rows(rows, state))[:, 0]
        left = tf.shape(standing)[0]
        size = (left + unit - 1) // unit * unit

        def shrink() -> tuple[Any, ...]:
            kept = tf.gather(standing, tf.range(size) % left)
            smaller = tf.nest.map_structure(lambda values: tf.gather(values, kept), state)
            own = tf.where(tf.range(size) < left, tf.gather(rows, kept), count)
            return own, smaller, _merged(results, rows, state)

        smaller_is_possible = (left > 0) & (size < tf.shape(rows)[0])
        kept = tf.cond(smaller_is_possible, shrink, lambda: (rows, state, results))
        return step + 1, *kept

    def free(values: tf.Tensor) -> tf.TensorShape:
        return tf.TensorShape([None]) + values.shape[1:]

    # The extra row at the end takes the results of repeated rows.
    results = tf.concat([state.x_adv, tf.zeros_like(state.x_adv[:1])], axis=0)
    start = (tf.constant(0), tf.range(count), state, results)
    invariants = (
        tf.TensorShape([]),
        tf.TensorShape([None]),
        tf.nest.map_structure(free, state),
        free(state.x_adv),
    )
    final: Any = tf.while_loop(unfinished, body, start, shape_invariants=invariants)
    _, rows, last, results = final
    return _merged(results, rows, cast(LoopState, last))[:count]


def _merged(results: tf.Tensor, rows: tf.Tensor, state: LoopState) -> tf.Tensor:
    return tf.tensor_scatter_nd_update(results, rows[:, None], state.x_adv)
