"""Data sets as arrays in memory, and the tf.data pipelines over them.

`load_dataset` and `datasets` do not import TensorFlow until data are read through it, so a wrong
name or a missing copy is reported at once.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bcgan_tf.data import array_source, digits, folder, gaussians, prepared, table, tfds_source
from bcgan_tf.data.dataset import Dataset, Split
from bcgan_tf.errors import UserError
from bcgan_tf.settings.images import ImageSettings, ImageSize

if TYPE_CHECKING:
    from bcgan_tf.data.batches import evaluation_batches, steps_per_epoch, training_stream

__all__ = [
    "Dataset",
    "DatasetInfo",
    "Split",
    "datasets",
    "evaluation_batches",
    "load_dataset",
    "steps_per_epoch",
    "training_stream",
]

_EMBEDDED = {
    "digits": (digits.load, "handwritten digits, 8x8x1, 1,437 + 360, 10 classes"),
    "gaussians": (gaussians.load, "two 2-D Gaussians with a known best classifier, 2 classes"),
}
# What stands before the colon: what follows, what that is, and what it must hold.
_OWN = {
    "folder": (
        "PATH",
        "your own images",
        "PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/*",
    ),
    "csv": ("FILE", "your own images", "lines of path,label or path,label,split"),
    "npz": ("FILE", "your own arrays", "x_train, y_train, x_test, y_test, perhaps x_val, y_val"),
    "tfds": ("NAME", "tensorflow-datasets' image classification", "a prepared copy, --data-dir"),
    "keras": ("NAME", "keras.datasets", f"{', '.join(array_source.KERAS_DATASETS)}; downloaded"),
}


@dataclass(frozen=True)
class DatasetInfo:
    """One line of the list of data sets: can it be read here, and from where."""

    name: str
    summary: str
    prepared: bool
    location: str


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    image_size: int | Sequence[int] | None = None,
    color: str | None = None,
    interpolation: str = "bilinear",
    skip_broken: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads a data set by name.

    Args:
        name: `mnist`, `fashion_mnist`, `cifar10`, `digits`, `gaussians`, or images of your own:

            - `folder:PATH` with `PATH/train/CLASS/*` and `PATH/test/CLASS/*`, or `PATH/CLASS/*`;
            - `csv:FILE` with the columns path, label and perhaps split;
            - `npz:FILE` with the arrays x_train, y_train, x_test, y_test, perhaps x_val, y_val;
            - `tfds:NAME`, an image classification set of tensorflow-datasets that is prepared;
            - `keras:NAME`, one of `keras.datasets`, downloaded on first use.
        data_dir: folder of tensorflow-datasets' prepared copies; default TFDS_DATA_DIR, then
            ~/tensorflow_datasets.
        seed: which training examples become the validation split; 0 to 2**32 - 1. The test split
            does not depend on it.
        image_size: `(height, width)` that images of your own are resized to; None: as they are,
            which must be of one size.
        color: `"grayscale"` or `"rgb"`, what they become; None: `"rgb"` if one has colour.
        interpolation: of resizing; `"bilinear"` as in Keras' `image_dataset_from_directory`, or
            another method of `tf.image.resize`.
        skip_broken: go on without files that cannot be read as images.
        cache_dir: folder to keep the decoded images in, from where they are read as they are
            needed; None: in memory, and in `~/.cache/bcgan_tf` (XDG_CACHE_HOME) what is too much
            for it. Not for arrays.

    Raises:
        UserError: for an unknown name, and whatever is wrong with the data, in one message.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed {seed} is out of range; use 0 to {2**32 - 1}")
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    settings = ImageSettings(
        image_size=None if image_size is None else ImageSize(*image_size),
        color=color,
        interpolation=interpolation,
        skip_broken=skip_broken,
    )
    kind, colon, rest = name.partition(":")
    if colon and kind in _OWN:
        match kind:
            case "folder":
                return folder.load(rest, settings, cache_dir=cache_dir, seed=seed)
            case "csv":
                return table.load(rest, settings, cache_dir=cache_dir, seed=seed)
            case "npz":
                return array_source.load_npz(rest, settings, seed=seed)
            case "keras":
                return array_source.load_keras(rest, settings, seed=seed)
            case _:
                return prepared.load(
                    rest, settings, data_dir=data_dir, cache_dir=cache_dir, seed=seed
                )
    if name in _EMBEDDED:
        return _EMBEDDED[name][0](seed=seed)
    if name in tfds_source.SOURCES:
        return tfds_source.load(name, data_dir=data_dir, seed=seed)
    known = [*tfds_source.SOURCES, *_EMBEDDED]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    *names, last = [*known, *(f"{kind}:{what}" for kind, (what, *_) in _OWN.items())]
    raise UserError(f"unknown data set {name!r}; {hint}use {', '.join(names)} or {last}")


def datasets(*, data_dir: str | os.PathLike[str] | None = None) -> tuple[DatasetInfo, ...]:
    """All names that `load_dataset` knows, and which can be read here without a network."""
    rows = []
    for name, source in tfds_source.SOURCES.items():
        try:
            found = tfds_source.prepared_version(name, data_dir)
            location = str(found) if found else "downloaded on first use"
        except UserError as error:
            found, location = None, str(error)
        rows.append(DatasetInfo(name, source.summary, found is not None, location))
    for name, (_, summary) in _EMBEDDED.items():
        rows.append(DatasetInfo(name, summary, True, "embedded"))
    for name, path in prepared.prepared_names(data_dir).items():
        if name not in tfds_source.SOURCES:
            rows.append(DatasetInfo(f"tfds:{name}", _OWN["tfds"][1], True, str(path)))
    for kind, (what, summary, holds) in _OWN.items():
        rows.append(DatasetInfo(f"{kind}:{what}", summary, True, holds))
    return tuple(rows)


def __getattr__(name: str) -> Any:
    if name in ("evaluation_batches", "steps_per_epoch", "training_stream"):
        from bcgan_tf.data import batches

        return getattr(batches, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
