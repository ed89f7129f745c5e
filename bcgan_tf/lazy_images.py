"""Images that are read, or made, row by row when they are asked for."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.errors import UserError


class LazyImages(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of `N` images that reads only the rows it is asked for.

    Indexing gives arrays in memory, of the rows asked for alone. Whatever else is done with it, as
    with any array, reads all of them.

    Args:
        read: positions, int `[B]`, to the images at them, `[B, ...]`.
        shape: of all that can be read, `(N, ...)`.
        dtype: of the pixels.
        rows: which of them, int `[M]`; all by default.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], np.ndarray],
        shape: tuple[int, ...],
        dtype: Any = np.float32,
        rows: np.ndarray | None = None,
    ) -> None:
        self._read, self._stored = read, shape
        self._rows = np.arange(shape[0]) if rows is None else rows
        self.dtype = np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the rows that this is of, `(M, ...)`."""
        return (len(self._rows), *self._stored[1:])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._stored)

    @property
    def size(self) -> int:
        """Number of pixel values."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self._rows)

    def of_rows(self, rows: Any) -> LazyImages:
        """Some rows of these; nothing is read."""
        return LazyImages(self._read, self._stored, self.dtype, self._rows[rows])

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple) and key and isinstance(key[0], int | np.integer | slice):
            kept = (slice(None),) if isinstance(key[0], slice) else ()
            return self[key[0]][(*kept, *key[1:])]
        if key is None or key is Ellipsis or isinstance(key, tuple):
            return np.asarray(self)[key]
        rows = self._rows[key]
        if not np.size(rows):
            return np.empty((*np.shape(rows), *self._stored[1:]), self.dtype)
        found = self._read(np.atleast_1d(rows))
        return found if np.ndim(rows) else found[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [np.asarray(one) if isinstance(one, LazyImages) else one for one in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __reduce__(self) -> Any:
        # Images in a file travel as its name, all others as an array.
        if isinstance(self._read, functools.partial):
            return LazyImages, (self._read, self._stored, self.dtype, self._rows)
        return np.asarray, (np.asarray(self),)


class ScaledImages(LazyImages):
    """uint8 images as float32 in [0, 1].

    Args:
        source: uint8 `[N, ...]`, an array or lazy.
        scale: float32, what is multiplied with.
        rows: which of them, int `[M]`; all by default.
    """

    def __init__(self, source: Any, scale: np.float32, rows: np.ndarray | None = None) -> None:
        super().__init__(lambda taken: source[taken] * scale, source.shape, np.float32, rows)
        self._source, self._scale = source, scale

    @property
    def pixels(self) -> Any:
        """The uint8 images."""
        return rows_of(self._source, self._rows)

    def of_rows(self, rows: Any) -> ScaledImages:
        """Some rows of these; nothing is read."""
        return ScaledImages(self._source, self._scale, self._rows[rows])


def rows_of(images: Any, rows: Any) -> Any:
    """Some rows of an array, or of lazy images, which reads nothing."""
    return images.of_rows(rows) if isinstance(images, LazyImages) else images[rows]


def file_images(
    path: Path, shape: tuple[int, ...], dtype: Any = np.uint8, offset: int = 0
) -> LazyImages:
    """Images in a file of raw pixels, one after another.

    The file is mapped for as long as reading takes, so that its pages do not stay part of this
    process's memory.

    Args:
        path: of the file.
        shape: of all images in it, `(N, ...)`.
        dtype: of the pixels.
        offset: bytes before the first.
    """
    read = functools.partial(_from_file, path, _stamp(path), shape, dtype, offset)
    return LazyImages(read, shape, dtype)


def _stamp(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _from_file(
    path: Path,
    stamp: tuple[int, int],
    shape: tuple[int, ...],
    dtype: Any,
    offset: int,
    rows: np.ndarray,
) -> np.ndarray:
    if not path.is_file() or _stamp(path) != stamp:
        raise UserError(f"{path} was changed since its images were opened; open it again")
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))[rows]


def in_chunks(images: Any) -> Iterator[np.ndarray]:
    """An array or lazy images, `[N, ...]`, part by part: so many at a time as take 64 MiB."""
    each = chunk_rows(images.shape, len(images), images.dtype.itemsize)
    for start in range(0, len(images), each):
        yield np.ascontiguousarray(images[start : start + each])


def overlaid(images: Any, rows: np.ndarray, others: Any) -> LazyImages:
    """Images of which those at some rows are others.

    Args:
        images: `[N, ...]`, an array or lazy.
        rows: int `[M]`.
        others: `[M, ...]`, an array or lazy; read only where they are asked for.
    """
    place = np.full(len(images), -1)
    place[rows] = np.arange(len(rows))

    def read(wanted: np.ndarray) -> np.ndarray:
        found, there = np.array(images[wanted]), place[wanted] >= 0
        found[there] = others[place[wanted[there]]]
        return found

    return LazyImages(read, images.shape, images.dtype)


def joined_images(parts: Sequence[Any], order: Any = slice(None)) -> Any:
    """Parts of a set, one after another: an array where all are arrays, else lazily.

    Args:
        parts: arrays or lazy images ``[N_i, ...]``, at least one.
        order: positions among those of all parts.
    """
    if not any(isinstance(part, LazyImages) for part in parts):
        return np.concatenate(list(parts))[order]
    ends = np.cumsum([len(part) for part in parts])

    def read(rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *parts[0].shape[1:]), parts[0].dtype)
        of_part = np.searchsorted(ends, rows, side="right")
        for number in np.unique(of_part):
            here = of_part == number
            found[here] = parts[number][rows[here] - (ends[number] - len(parts[number]))]
        return found

    shape = (int(ends[-1]), *parts[0].shape[1:])
    return LazyImages(read, shape, parts[0].dtype).of_rows(order)


def chunk_rows(shape: tuple[int, ...], most: int, itemsize: int = 4) -> int:
    """How many images of ``shape[1:]`` to have in memory at once: 64 MiB, at most ``most``."""
    return max(1, min(most, (1 << 26) // max(1, itemsize * math.prod(shape[1:]))))
