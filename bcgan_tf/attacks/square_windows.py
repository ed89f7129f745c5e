"""Where the Square attack's windows lie: their size, their positions, and the random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# The windows' share of the image is halved from each of these queries on.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
# Most queries between two draws of random numbers, which is where broken examples leave the batch.
_CHUNK = 100


def window_share(query: int, p_init: float = 0.8) -> float:
    """The share of the image that the window of a query covers, queries counted from 0.

    ``p_init``, halved from queries 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 on, however
    many queries there are in all.
    """
    return p_init / 2 ** sum(query >= halving for halving in _HALVINGS)


def window_size(share: float, height: int, width: int, norm: str = "linf") -> tuple[int, int]:
    """Rows and columns of a window that covers a share of the image.

    A square of side ``round(sqrt(share * height * width))``, at least 1; for L2 at least 3, and
    odd. Where that does not fit, as in a vector (``height == 1``), the window spans the shorter
    side, and as much of the longer one as makes up the share.
    """

    def rounded(length: float) -> int:
        if norm == "linf":
            return max(round(length), 1)
        return max(round(length), 3) // 2 * 2 + 1

    shorter, longer = sorted((height, width))
    rows = columns = rounded(math.sqrt(share * height * width))
    if height != width and (shorter == 1 or rows > shorter):
        rows = columns = rounded(share * longer)
    return min(rows, height), min(columns, width)


class Draws(NamedTuple):
    """The random numbers of one query, or with a leading ``[L]`` of all queries of a chunk."""

    corners: tf.Tensor  # int32 [M, W, 2]: the first row and column of each of W windows
    coins: tf.Tensor  # int32 [M]: 0 or 1
    signs: tf.Tensor  # float32 [M, 1, 1, C]: -1 or 1


class Plan:
    """The queries in chunks, within each of which the windows' size is the same.

    Args:
        queries: in all.
        p_init: share of the image that the first windows cover.
        shape: ``[H, W, C]`` of an image.
        norm: ``"linf"`` or ``"l2"``.
        windows: how many of them a query draws.
        seed: of all draws.
    """

    def __init__(
        self, queries: int, p_init: float, shape: list[int], *, norm: str, windows: int, seed: int
    ) -> None:
        self.height, self.width, self.channels = shape
        self._windows, self._seed = windows, seed
        # The chunks begin at the same queries whatever their number, so that more queries go on
        # where fewer end.
        begins = [0]
        while begins[-1] < queries:
            ends = [halving for halving in _HALVINGS if halving > begins[-1]]
            begins.append(min([begins[-1] + _CHUNK, *ends]))
        self._drawn = np.diff(begins)
        self.lengths = np.diff(np.minimum(begins, queries)).astype(np.int32)
        shares = [window_share(begin, p_init) for begin in begins[:-1]]
        sizes = [window_size(share, self.height, self.width, norm) for share in shares]
        self.sizes = np.array(sizes, np.int32)

    def draw(self, chunk: tf.Tensor, indices: tf.Tensor, round_index: tf.Tensor) -> Draws:
        """The random numbers of a chunk's queries, each example's from a stream of its own."""

        def draw(chunk: np.ndarray, indices: np.ndarray, round_index: np.ndarray):
            return self._draw(int(chunk), indices, int(round_index))

        types = [tf.int32, tf.int32, tf.float32]
        drawn = tf.numpy_function(draw, [chunk, indices, round_index], types, stateful=False)
        shapes = [None, None, self._windows, 2], [None, None], [None, None, 1, 1, self.channels]
        corners, coins, signs = map(tf.ensure_shape, drawn, shapes)
        return Draws(corners, coins, signs)

    def _draw(
        self, chunk: int, indices: np.ndarray, round_index: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # 64 random bits for each number, and for each 64 signs: bits as they come are five times
        # as fast as a Generator's integers, and the same in every version of NumPy.
        numbers = 2 * self._windows + 1
        words = numbers + math.ceil(self.channels / 64)
        length, streams = int(self._drawn[chunk]), []
        for index in indices:
            # Counter word 2 is 0 where the start is drawn.
            counter = [0, 0, chunk + 1, int(index)]
            bits = np.random.Philox(key=[self._seed, round_index], counter=counter)
            streams.append(bits.random_raw(length * words))
        raw = np.stack(streams).reshape(len(indices), length, words).swapaxes(0, 1)

        rows, columns = self.sizes[chunk]
        positions = [self.height - rows + 1, self.width - columns + 1] * self._windows
        bounds = np.array([*positions, 2], np.uint64)
        drawn = ((raw[..., :numbers] >> np.uint64(32)) * bounds >> np.uint64(32)).astype(np.int32)
        corners = drawn[..., :-1].reshape(length, len(indices), self._windows, 2)

        place = np.arange(self.channels, dtype=np.uint64)
        chosen = raw[..., numbers:][..., place // np.uint64(64)] >> (place % np.uint64(64))
        signs = (2 * (chosen & np.uint64(1)).astype(np.float32) - 1)[:, :, None, None, :]
        return corners, drawn[..., -1], signs

    def windows(self, chunk: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        """The function from corners ``[M, 2]`` to float32 ``[M, H, W, C]``, 1 in the window."""
        rows, columns = tf.unstack(tf.gather(self.sizes, chunk))
        # Whole rows are looked up: comparing each pixel's place takes three times as long.
        firsts = tf.range(self.width - columns + 2)[:, None, None]
        places = tf.range(self.width)[:, None] + tf.zeros([self.channels], tf.int32)
        table = (places >= firsts) & (places < firsts + columns)
        outside = self.width - columns + 1
        table &= firsts < outside  # the last one is the row that the window does not touch
        table = tf.reshape(tf.cast(table, tf.float32), [-1, self.width * self.channels])

        def inside(corners: tf.Tensor) -> tf.Tensor:
            place = tf.range(self.height) - corners[:, :1]
            touched = (place >= 0) & (place < rows)
            return self.assemble(table, tf.where(touched, corners[:, 1:], outside))

        return inside

    def assemble(self, table: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """Images ``[M, H, W, C]`` from the rows ``chosen [M, H]`` of a table ``[T, W * C]``."""
        return tf.reshape(tf.gather(table, chosen), [-1, self.height, self.width, self.channels])
