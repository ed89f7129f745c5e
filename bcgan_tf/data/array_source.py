"""Data sets that are arrays: `npz:FILE`, and Keras' own as `keras:NAME`."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.data import tfds_source
from bcgan_tf.data.dataset import Dataset, Split, stratified_split
from bcgan_tf.data.image_files import summarized
from bcgan_tf.data.pictures import COLORED, GRAYED, RESIZED, recolored, resized
from bcgan_tf.errors import UserError, first_line
from bcgan_tf.settings.fields import refuse
from bcgan_tf.settings.images import ImageSettings

KERAS_DATASETS = ("mnist", "fashion_mnist", "cifar10", "cifar100")
_PARTS = {"train": "train", "val": "validation", "test": "test"}
_CHUNK = 256


def load_npz(
    path: str | os.PathLike[str], settings: ImageSettings | None = None, *, seed: int = 0
) -> Dataset:
    """The arrays x_train, y_train, x_test, y_test of an ``.npz`` file, and x_val, y_val if given.

    Args:
        path: of the file. Images and labels are as of :func:`bcgan_tf.data.arrays.as_split`; an
            array ``class_names`` of texts names the classes.
        settings: what the images become; the defaults without.
        seed: chooses the validation images, a tenth of the training images, where none are given.

    Raises:
        UserError: all that is wrong with the file, in one message.
    """
    file = Path(path).expanduser()
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file; give an .npz file") from error
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{file}: no readable .npz file of plain arrays ({first_line(error)}); write it with "
            "numpy.savez"
        ) from error
    wanted = [f"{axis}_{part}" for part in ("train", "test") for axis in "xy"]
    if arrays.keys() & {"x_val", "y_val"}:
        wanted += ["x_val", "y_val"]
    if missing := [name for name in wanted if name not in arrays]:
        raise UserError(
            f"{file}: no array {', '.join(missing)} (it has {', '.join(arrays) or 'none'}); write "
            "it with numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...)"
        )
    parts = {
        _PARTS[part]: (arrays[f"x_{part}"], arrays[f"y_{part}"])
        for part in _PARTS
        if f"x_{part}" in arrays
    }
    names = arrays.get("class_names")
    chosen = None if names is None else [str(name) for name in names.ravel()]
    return _of_arrays(f"npz-{file.stem}", str(file), parts, chosen, settings, seed)


def load_keras(name: str, settings: ImageSettings | None = None, *, seed: int = 0) -> Dataset:
    """One of :data:`KERAS_DATASETS`, which Keras downloads on its first use.

    Args:
        name: of the data set.
        settings: what the images become; the defaults without.
        seed: chooses the validation images, a tenth of the training images.

    Raises:
        UserError: another name, or it cannot be downloaded.
    """
    if name not in KERAS_DATASETS:
        raise UserError(
            f"keras.datasets has no images called {name!r}; choose {', '.join(KERAS_DATASETS)}"
        )
    import keras

    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:  # network, disk, checksums: Keras has no common base class
        raise UserError(
            f"keras.datasets.{name} is not here and cannot be downloaded ({first_line(error)}); "
            "put Keras' copy into ~/.keras/datasets"
        ) from error
    source = tfds_source.SOURCES.get(name)
    names = source.class_names if source else None
    parts = {"train": train, "test": test}
    return _of_arrays(f"keras-{name}", f"keras.datasets.{name}", parts, names, settings, seed)


def _of_arrays(
    name: str,
    source: str,
    parts: Mapping[str, tuple[Any, Any]],
    class_names: Sequence[str] | None,
    settings: ImageSettings | None,
    seed: int,
) -> Dataset:
    from bcgan_tf.data.arrays import as_split

    faults: list[str] = []
    splits: dict[str, Split] = {}
    for part, (x, y) in parts.items():
        try:
            # [N, H, W] gets its one channel.
            splits[part] = as_split(x, y, image_shape=(None, None, 1) if x.ndim == 3 else None)
        except UserError as error:
            faults.append(f"{source}, {part}: {error}")
    shapes = {part: split.images.shape[1:] for part, split in splits.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{part} {shape}" for part, shape in shapes.items())
        faults.append(f"{source}: the images have several shapes, {told}; make them one")
    classes = 1 + max((int(split.labels.max()) for split in splits.values()), default=0)
    if class_names is not None and len(class_names) < classes:
        faults.append(f"{source}: {len(class_names)} class_names, but {classes} classes")
    refuse(faults)
    converted: dict[str, int] = {}
    splits = {
        part: Split(converted_images(split.images, settings, converted), split.labels)
        for part, split in splits.items()
    }
    rule = "as given"
    if "validation" not in splits:
        train = splits["train"]
        splits["train"], splits["validation"] = stratified_split(
            train, round(0.1 * len(train)), seed=seed
        )
        rule += f"; a tenth of the training images for validation (seed {seed})"
    names = tuple(class_names or map(str, range(classes)))
    three = splits["train"], splits["validation"], splits["test"]
    if splits["train"].images.ndim != 4:
        return Dataset(name, *three, names)
    return Dataset(name, *three, names, summarized(three, converted, {}, (), rule, None))


def converted_images(
    images: np.ndarray, settings: ImageSettings | None, converted: dict[str, int]
) -> np.ndarray:
    """Images ``[N, H, W, C]`` in the size and colour that are asked for; vectors as they are.

    Args:
        images: uint8, or floats in [0, 1].
        settings: None: as they are.
        converted: counts what was done.
    """
    if settings is None or images.ndim != 4:
        return images
    channels = {None: images.shape[-1], "grayscale": 1, "rgb": 3}[settings.color]
    size = settings.image_size or images.shape[1:3]
    if (*size, channels) == images.shape[1:]:
        return images
    if channels != images.shape[-1]:
        what = COLORED if channels == 3 else GRAYED
        converted[what] = converted.get(what, 0) + len(images)
    if tuple(size) != images.shape[1:3]:
        converted[RESIZED] = converted.get(RESIZED, 0) + len(images)
    found = np.empty((len(images), *size, channels), images.dtype)
    for start in range(0, len(images), _CHUNK):
        rows = slice(start, start + _CHUNK)
        part = recolored(images[rows], channels)
        found[rows] = resized(part, (size[0], size[1]), settings.interpolation)
    return found
