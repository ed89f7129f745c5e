"""The Square attack's L2 changes: bumps into which a query moves the mass of two windows.

Reference: Andriushchenko et al. 2020, "Square Attack", section 3.4 and algorithm 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.square_windows import Draws, Plan

# Avoids a division by zero in windows that were not changed yet.
_TINY = 1e-12


def bump(rows: int, columns: int, *, transposed: bool = False) -> np.ndarray:
    """A pyramid on the upper half and a negative one on the lower, ``[rows, columns]``, norm 1.

    At distance ``d`` (the larger of rows and columns) from its center, a pyramid on ``[h, w]`` is
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
    change = np.zeros(shape)
    change[top : top + len(grid), left : left + grid.shape[1]] = grid
    return (change * (eps / np.linalg.norm(change))).astype(np.float32)


def proposals(
    images: tf.Tensor, eps: float, plan: Plan, chunk: tf.Tensor
) -> Callable[[tf.Tensor, Draws], tf.Tensor]:
    """The function from the last iterate to the candidates of one query.

    In the first window, each channel's change is turned halfway towards a new bump; its size makes
    up for the mass of the second window, which is emptied, and for what eps leaves unused. So the
    norm is eps again, until clipping to [0, 1] takes some of it.
    """
    windows, bumps = plan.windows(chunk), _bumps(plan, chunk)

    def propose(x_adv: tf.Tensor, draws: Draws) -> tf.Tensor:
        change = x_adv - images
        elsewhere = change - windows(draws.corners[:, 0]) * change
        old = change - elsewhere
        elsewhere -= windows(draws.corners[:, 1]) * elsewhere

        masses = _masses(change)
        unused = eps**2 - tf.reduce_sum(masses, -1, keepdims=True)  # of all channels together
        mass = masses - _masses(elsewhere) + unused / plan.channels
        new = old / (_TINY + tf.sqrt(_masses(old))) + draws.signs * bumps(draws)
        new *= tf.sqrt(tf.maximum(mass, 0.0)) / (_TINY + tf.sqrt(_masses(new)))
        return tf.clip_by_value(images + (elsewhere + new), 0.0, 1.0)

    return propose


def _masses(change: tf.Tensor) -> tf.Tensor:
    """The squared norm of each channel, ``[M, 1, 1, C]``."""
    return tf.reduce_sum(tf.square(change), [1, 2], keepdims=True)


def _bumps(plan: Plan, chunk: tf.Tensor) -> Callable[[Draws], tf.Tensor]:
    """The function from draws to the bump in each first window, ``[M, H, W, C]``, zero outside."""

    def shifted(chunk: np.ndarray) -> np.ndarray:
        """The bump's rows, and one of zeros, for both directions and every first column."""
        rows, columns = plan.sizes[int(chunk)]
        firsts = plan.width - columns + 1
        table = np.zeros((2, firsts, rows + 1, plan.width, plan.channels), np.float32)
        for coin in (0, 1):
            values = bump(rows, columns, transposed=bool(coin))[..., None]
            for first in range(firsts):
                table[coin, first, :rows, first : first + columns] = values
        return table.reshape(-1, plan.width * plan.channels)

    table = tf.numpy_function(shifted, [chunk], tf.float32, stateful=False)
    table = tf.ensure_shape(table, [None, plan.width * plan.channels])
    rows, columns = tf.unstack(tf.gather(plan.sizes, chunk))

    def bumps(draws: Draws) -> tf.Tensor:
        first_row, first_column = draws.corners[:, 0, :1], draws.corners[:, 0, 1:]
        place = tf.range(plan.height) - first_row
        place = tf.where((place >= 0) & (place < rows), place, rows)
        which = draws.coins[:, None] * (plan.width - columns + 1) + first_column
        return plan.assemble(table, which * (rows + 1) + place)

    return bumps
