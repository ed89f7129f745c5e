"""What every source of data hands out: `Split` and `Dataset`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bcgan_tf.errors import UserError
from bcgan_tf.lazy_images import rows_of

# One factor for every path from uint8 to [0, 1] (here, in tf.data, in tf.image): a division would
# be rewritten to this product by TensorFlow's graph optimiser, but not by NumPy.
PIXEL_SCALE = np.float32(1 / 255)


@dataclass(frozen=True, eq=False)
class Split:
    """Examples and their labels, in a fixed order.

    Args:
        images: uint8 in 0 ... 255, or float32: `[N, H, W, C]` in [0, 1], or `[N, D]` vectors in
            their own units. `LazyImages` where they are kept in a file: their rows are read when
            they are asked for.
        labels: int64 `[N]`, class indices from 0.

    Raises:
        UserError: when the arrays have another type or shape, or different lengths.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.images.dtype not in (np.uint8, np.float32) or self.images.ndim < 2:
            raise UserError(
                f"images must be uint8 or float32, [N, H, W, C] or [N, D], not "
                f"{self.images.dtype} {list(self.images.shape)}; convert them first"
            )
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise UserError(
                f"labels must be int64 [{len(self.images)}], one per image, not "
                f"{self.labels.dtype} {list(self.labels.shape)}; convert them first"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def scaled(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Examples `start` to `stop` as float32: uint8 scaled to [0, 1], floats unchanged."""
        part = self.images[start:stop]
        return part * PIXEL_SCALE if part.dtype == np.uint8 else part.copy()

    def take(self, n: int, seed: int = 0) -> Split:
        """A random subset: the first `n` (at most `len(self)`) of a permutation fixed by `seed`.

        The subsets of one seed are nested, so a larger `n` only adds examples.

        Raises:
            UserError: when `n` < 1.
        """
        if n < 1:
            raise UserError(f"cannot take {n} examples; ask for at least 1")
        return self.rows(np.random.RandomState(seed).permutation(len(self))[:n])

    def rows(self, rows: np.ndarray | slice) -> Split:
        """Some of the examples; of images in a file a view, which reads nothing."""
        return Split(rows_of(self.images, rows), self.labels[rows])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with its three splits. The test split never trains or selects anything.

    Args:
        name: short name, fit for a file name.
        train: what models learn from.
        validation: disjoint from `train`; for choices made during training.
        test: for final numbers only.
        class_names: one name per class index.
        summary: of images of a user's own: how many were read, what was converted, skipped and how
            they were split, JSON-able; `text` says it in one line.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one example: `(H, W, C)`, or `(D,)` for vectors."""
        return self.train.images.shape[1:]


def stratified_split(split: Split, count: int, *, seed: int) -> tuple[Split, Split]:
    """Carves `count` examples out of `split`, each class in proportion: (what is left, carved).

    Every class that occurs gives at least one example and keeps at least one; both parts keep
    the original order. Depends on `seed` and the labels only: NumPy freezes the streams of
    `RandomState` for ever, unlike those of `default_rng`.

    Raises:
        UserError: when a class has fewer than 2 examples, or `count` would empty the classes.
    """
    sizes = np.bincount(split.labels)
    shares = sizes * (count / len(split))
    present = sizes > 0
    carved = np.where(present, np.maximum(1, shares.astype(np.int64)), 0)
    if np.any(carved[present] >= sizes[present]):
        raise UserError(
            f"cannot set aside {count} of {len(split)} examples in {present.sum()} classes, the "
            f"smallest of {sizes[present].min()}; every class needs at least 2 and must keep one"
        )
    # Images left over by rounding down go to the classes that lost most by it.
    missing = max(0, count - int(carved.sum()))
    carved[np.argsort(carved - shares, kind="stable")[:missing]] += 1
    carved = np.minimum(carved, np.maximum(sizes - 1, 0))
    random = np.random.RandomState(seed)
    chosen = np.zeros(len(split), bool)
    for label, number in enumerate(carved):
        members = np.flatnonzero(split.labels == label)
        chosen[random.permutation(members)[:number]] = True
    return split.rows(np.flatnonzero(~chosen)), split.rows(np.flatnonzero(chosen))


def grouped_split(
    split: Split, share: float, *, groups: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Carves a share out of `split`, each class in proportion, no group divided.

    A group counts for the class of its first example. Every class gives at least one group and
    keeps at least one.

    Args:
        split: examples and labels; only the labels are looked at.
        share: of each class, above 0 and below 1.
        groups: int `[N]`, the group of each example: copies of one image have the same.
        seed: of the choice.

    Returns:
        The rows that are left, and those carved, both in the original order.

    Raises:
        UserError: a class has fewer than 2 groups.
    """
    _, first, of_row = np.unique(groups, return_index=True, return_inverse=True)
    sizes, labels = np.bincount(of_row), split.labels[first]
    random = np.random.RandomState(seed)
    carved = np.zeros(len(first), bool)
    poor = []
    for label in np.unique(split.labels):
        members = random.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            poor.append(label)
            continue
        wanted = share * sizes[members].sum()
        before = np.cumsum(sizes[members]) - sizes[members]
        number = int(np.sum(before + sizes[members] / 2 <= wanted))
        carved[members[: min(max(1, number), len(members) - 1)]] = True
    if poor:
        raise UserError(
            f"class {', '.join(map(str, poor))} (of 0 ... {split.labels.max()}) has too few images "
            "that are no copies of one another to be split; add some, or split the images yourself"
        )
    chosen = carved[of_row]
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
