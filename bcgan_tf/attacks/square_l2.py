"""The Square attack's L2 changes: bumps into which a query moves the mass of two windows.

Reference: Andriushchenko et al. 2020, "Square Attack", section 3.4 and algorithm 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.square_windows import Draws, Plan

# Keeps a window that was not changed so far from a division by zero.
_TINY = 1e-12


def bump(rows: int, columns: int, *, transposed: bool = False) -> np.ndarray:
    """A pyramid on the upper half and a negative one on the lower, ``[rows, columns]``, norm 1.

    At distance ``d`` (the larger of rows and columns) from its centre, a pyramid on ``[h, w]`` is
    the sum of ``1 / k**2`` from ``k = d + 1`` to ``max(h, w) // 2 + 1``. ``transposed`` puts them
    left and right.
    """
    if transposed:
        return bump(columns, rows).T
    upper = rows // 2
    stacked = np.concatenate([_pyramid(upper, columns), -_pyramid(rows - upper, columns)])
    return (stacked / np.linalg.norm(stacked)).astype(np.float32)


def _pyramid(rows: int, columns: int) -> np.ndarray:
    far = np.maximum(
        np.abs(np.arange(rows) - rows // 2)[:, None],
        np.abs(np.arange(columns) - columns // 2)[None, :],
    )
    steps = 1.0 / np.arange(1, max(rows, columns) // 2 + 2) ** 2
    heights = steps[::-1].cumsum()[::-1]  # by distance
    pyramid = heights[far]
    return pyramid / max(np.linalg.norm(pyramid), _TINY)


def start(generator: np.random.Generator, shape: list[int], eps: float) -> np.ndarray:
    """A grid of bumps of random signs and directions, float32 ``[H, W, C]``, of norm ``eps``.

    Five bumps along the shorter side, or along a vector; one for each pixel of tiny images.
    """
    height, width, channels = shape
    if min(height, width) > 1:
        rows = columns = max(min(height, width) // 5, 1)
    else:
        rows, columns = max(height // 5, 1), max(width // 5, 1)
    bumps = [bump(rows, columns), bump(rows, columns, transposed=True)]
    down, across = height // rows, width // columns
    top, left = (height - down * rows) // 2, (width - across * columns) // 2

    kinds = generator.integers(0, 2, (down, across))
    signs = generator.integers(0, 2, (down, across, channels)) * 2.0 - 1.0
    grid = np.stack(bumps)[kinds][..., None] * signs[:, :, None, None, :]
    grid = grid.transpose(0, 2, 1, 3, 4).reshape(down * rows, across * columns, channels)
    found = np.zeros(shape)
    found[top : top + len(grid), left : left + grid.shape[1]] = grid
    return (found * (eps / np.linalg.norm(found))).astype(np.float32)


def proposals(
    images: tf.Tensor, eps: float, plan: Plan, chunk: tf.Tensor
) -> Callable[[tf.Tensor, Draws], tf.Tensor]:
    """The function from what was found last to the candidates of one query.

    In the first window, each channel's change is turned halfway towards a new bump; its size makes
    up for the mass of the second window, which is emptied, and for what eps leaves unused. The
    whole is then scaled to norm ``eps`` and clipped to [0, 1].
    """
    size = tf.gather(plan.sizes, chunk)
    lookup = _bump_lookup(plan, chunk)

    def propose(found: tf.Tensor, draws: Draws) -> tf.Tensor:
        change = found - images
        squares = tf.square(change)
        first = tf.cast(plan.inside(draws.corners[:, 0], size), tf.float32)
        second = tf.cast(plan.inside(draws.corners[:, 1], size), tf.float32)
        either = tf.maximum(first, second)

        old = first * change
        old /= _TINY + _norm(old, [1, 2])
        new = old + draws.signs * lookup(draws)
        new /= _TINY + _norm(new, [1, 2])
        unused = tf.maximum(eps**2 - tf.reduce_sum(squares, [1, 2, 3], keepdims=True), 0.0)
        mass = tf.reduce_sum(either * squares, [1, 2], keepdims=True) + unused / plan.channels
        moved = (1.0 - either) * change + new * tf.sqrt(mass)
        return tf.clip_by_value(images + moved * (eps / (_TINY + _norm(moved, [1, 2, 3]))), 0, 1)

    return propose


def _norm(values: tf.Tensor, axes: list[int]) -> tf.Tensor:
    return tf.sqrt(tf.reduce_sum(tf.square(values), axes, keepdims=True))


def _bump_lookup(plan: Plan, chunk: tf.Tensor) -> Callable[[Draws], tf.Tensor]:
    """The function from draws to the bump in each first window, ``[M, H, W, 1]``, zero outside."""
    sizes, kinds = np.unique(plan.sizes, axis=0, return_inverse=True)
    rows, columns = sizes.max(axis=0)
    # One row and one column of zeros more, for all pixels outside.
    table = np.zeros((len(sizes), 2, rows + 1, columns + 1), np.float32)
    for kind, (high, wide) in enumerate(sizes):
        for transposed in (False, True):
            table[kind, int(transposed), :high, :wide] = bump(high, wide, transposed=transposed)
    entries = tf.constant(table.ravel())
    kind = tf.gather(kinds.ravel().astype(np.int32), chunk)

    def place(corner: tf.Tensor, length: int, outside: int) -> tf.Tensor:
        offset = tf.range(length) - corner
        return tf.where(offset < 0, outside, tf.minimum(offset, outside))

    def lookup(draws: Draws) -> tf.Tensor:
        corners = draws.corners[:, 0]
        row = place(corners[:, :1], plan.height, rows)[:, :, None]
        column = place(corners[:, 1:], plan.width, columns)[:, None, :]
        which = (2 * kind + draws.coins)[:, None, None]
        return tf.gather(entries, (which * (rows + 1) + row) * (columns + 1) + column)[..., None]

    return lookup
