"""Images in a file of raw pixels: an array as far as a `Split` needs one, read row by row."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np


class FileImages:
    """uint8 `[N, ...]` in a file, or some rows of it.

    Indexing gives arrays in memory, of the rows asked for alone. The file is mapped for as long as
    that takes, so that its pages do not stay part of this process's memory.

    Args:
        path: N images of raw pixels, one after another.
        shape: of all images in the file, `(N, H, W, C)`.
        rows: which of them; all by default.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, shape: tuple[int, ...], rows: np.ndarray | None = None) -> None:
        self._path, self._stored = path, shape
        self._rows = np.arange(shape[0]) if rows is None else rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the rows that this is of, `(N, H, W, C)`."""
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

    def of_rows(self, rows: Any) -> Any:
        """Some rows of these; nothing is read."""
        return FileImages(self._path, self._stored, self._rows[rows])

    def __getitem__(self, key: Any) -> np.ndarray:
        rows = self._rows[key]
        if not np.size(rows):
            return np.empty((*np.shape(rows), *self._stored[1:]), np.uint8)
        mapped = np.memmap(self._path, np.uint8, "r", shape=self._stored)
        found = np.asarray(mapped)[rows]
        return found.copy() if found.base is not None else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.uint8, copy=False)
