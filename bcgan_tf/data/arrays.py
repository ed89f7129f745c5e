"""What Keras users have, as a `Split` or a `Dataset`: arrays, `tf.data` and `PyDataset`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.data.dataset import PIXEL_SCALE, Dataset, Split, stratified_split
from bcgan_tf.errors import UserError
from bcgan_tf.lazy_images import LazyImages, ScaledImages
from bcgan_tf.settings.fields import refuse

# torchattacks #136: images that went through a float32 round trip miss the range by 3e-8.
_RANGE_TOLERANCE = 1e-6
_BATCH = 256

Shape = Sequence[int | None]


def as_images(x: Any, *, lazy: bool = False) -> Any:
    """Images as float32 `[N, ...]` in [0, 1]: an array, or lazily those of `LazyImages`.

    Args:
        x: uint8 in 0 ... 255, which is divided by 255; or floats in [0, 1]. What misses [0, 1] by
            rounding is clipped to it.
        lazy: divide uint8 images only when they are asked for, so that all of them are never in
            memory as float32.

    Raises:
        UserError: another type or range, NaN, infinite values, or no example.
    """
    faults: list[str] = []
    images = _stored(x, None, faults)
    refuse(faults)
    if images.dtype != np.uint8:
        return images
    if lazy or isinstance(images, LazyImages):
        return ScaledImages(images, PIXEL_SCALE)
    return images * PIXEL_SCALE


def as_labels(y: Any, count: int) -> np.ndarray:
    """Labels as int64 class indices `[count]`.

    Args:
        y: classes `[N]` or `[N, 1]`, as integers or as floats with integer values; or one-hot
            rows `[N, K]` of any number type.
        count: of the images.

    Raises:
        UserError: neither of these, not one per image, or negative.
    """
    faults: list[str] = []
    labels = _classes(y, count, faults)
    refuse(faults)
    return labels


def as_split(x: Any, y: Any = None, *, image_shape: Shape | None = None) -> Split:
    """Images and labels in one of the forms that Keras users have them in.

    Args:
        x: images as of :func:`as_images`, with `y`; or, without, a pair `(x, y)`, a `Split`, or a
            finite `tf.data.Dataset` of such pairs, in batches or not, or a finite
            `keras.utils.PyDataset` of batches of them. Read into memory.
        y: labels as of :func:`as_labels`.
        image_shape: what the model takes, `(H, W, C)`, None where a side is free. Images
            `[N, H, W]` get an axis for the one channel where it asks for one.

    Returns:
        The images uint8 where they were, else float32 in [0, 1]; the labels int64.

    Raises:
        UserError: all that is wrong with both, in one message.
    """
    faults: list[str] = []
    split = _split(x, y, image_shape, faults)
    refuse(faults)
    assert split is not None
    return split


def as_dataset(
    x: Any,
    y: Any = None,
    *,
    image_shape: Shape | None = None,
    validation_split: float = 0.1,
    validation_data: Any = None,
    seed: int = 0,
) -> Dataset:
    """What a defence trains on and validates with; its test split is empty.

    Its classes are 0 ... the largest label.

    Args:
        x: see :func:`as_split`; a `Dataset` is returned as it is.
        y: likewise.
        image_shape: see :func:`as_split`.
        validation_split: share of each class that is set aside for validation, above 0 and
            below 1.
        validation_data: what :func:`as_split` takes, in place of a share.
        seed: of the choice of the share.

    Raises:
        UserError: all that is wrong with both parts, in one message; or too few examples of a
            class to set one aside.
    """
    if isinstance(x, Dataset):
        if y is not None or validation_data is not None:
            raise UserError("a Dataset holds labels and validation images; leave out the others")
        return x
    faults: list[str] = []
    train = _split(x, y, image_shape, faults)
    validation = None
    if validation_data is not None:
        apart: list[str] = []
        validation = _split(validation_data, None, image_shape, apart)
        faults += [f"validation_data: {fault}" for fault in apart]
    elif not 0 < validation_split < 1:
        faults.append(
            f"validation_split is {validation_split!r}; choose a share above 0 and below 1"
        )
    if train is not None and validation is not None:
        shapes = [part.images.shape[1:] for part in (train, validation)]
        if shapes[0] != shapes[1]:
            faults.append(f"the images are {shapes[0]}, those of validation_data {shapes[1]}")
    refuse(faults)
    assert train is not None
    if validation is None:
        count = max(1, round(validation_split * len(train)))
        train, validation = stratified_split(train, count, seed=seed)
    none = Split(train.images[:0], train.labels[:0])
    classes = 1 + max(part.labels.max() for part in (train, validation))
    return Dataset("arrays", train, validation, none, tuple(map(str, range(classes))))


def _split(x: Any, y: Any, image_shape: Shape | None, faults: list[str]) -> Split | None:
    if isinstance(x, Split) and y is None:
        return x
    if isinstance(x, tf.data.Dataset | keras.utils.PyDataset):
        if y is not None:
            faults.append(f"{_called(x)} gives its labels itself; leave out y")
            return None
        collected: Any = _collected if isinstance(x, tf.data.Dataset) else _batches
        x, y = collected(x, image_shape, faults)
    elif y is None:
        if not isinstance(x, tuple | list) or len(x) != 2:
            faults.append(
                f"the labels are missing beside a {type(x).__name__}; give images and labels, or "
                "a tf.data.Dataset or a keras.utils.PyDataset of both"
            )
            return None
        x, y = x
    if x is None:
        return None
    before = len(faults)
    images = _stored(x, image_shape, faults)
    labels = _classes(y, len(images), faults)
    return Split(images, labels) if len(faults) == before else None


def _collected(
    data: tf.data.Dataset, image_shape: Shape | None, faults: list[str]
) -> tuple[Any, Any]:
    """All (images, labels) of a pipeline; what is not in batches is put into some."""
    spec: Any = data.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        faults.append("the tf.data.Dataset gives other elements than (images, labels); map it")
        return None, None
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        faults.append("the tf.data.Dataset never ends; leave out repeat(), or take(n) of it")
        return None, None
    images, labels = (part.shape for part in spec)
    # One-hot labels of single images have an axis too, seldom of the length of the images' first.
    single = labels.rank == 0 or (images.rank and labels.rank and images[0] != labels[0])
    if single or (image_shape is not None and images.is_compatible_with(image_shape)):
        data = data.batch(_BATCH)
    batches = list(data.as_numpy_iterator())
    if not batches:
        faults.append("the tf.data.Dataset is empty; give at least one example")
        return None, None
    found = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    return found[0], found[1]


def _batches(
    data: keras.utils.PyDataset, image_shape: Shape | None, faults: list[str]
) -> tuple[Any, Any]:
    """All (images, labels) of the batches of a PyDataset, in its order."""
    del image_shape
    if data.num_batches is None:
        faults.append("the PyDataset never ends; give it a __len__, the number of its batches")
        return None, None
    found: list[Any] = [data[index] for index in range(data.num_batches)]
    if any(not isinstance(batch, tuple | list) or len(batch) != 2 for batch in found):
        faults.append("the PyDataset gives other batches than (images, labels); leave out the rest")
        return None, None
    if not found:
        faults.append("the PyDataset is empty; give at least one batch")
        return None, None
    parts: list[Any] = [[np.asarray(part) for part in batch] for batch in zip(*found, strict=True)]
    if len({image.shape[1:] for image in parts[0]}) > 1:
        return list(itertools.chain(*parts[0])), np.concatenate(parts[1])
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def _called(data: Any) -> str:
    return "a tf.data.Dataset" if isinstance(data, tf.data.Dataset) else "a PyDataset"


def _stored(x: Any, image_shape: Shape | None, faults: list[str]) -> Any:
    """uint8 as it is, or float32 in [0, 1]; what is wrong is added to ``faults``."""
    try:
        images: Any = x if isinstance(x, LazyImages) else np.asarray(x)
    except ValueError:  # rows of different lengths
        images = np.empty(len(x), object)
    if images.dtype == object:
        faults.append("the images have different shapes; resize them to one")
        return images
    if images.ndim < 2 or images.size == 0:
        faults.append(
            f"the images have shape {images.shape}; give at least one example, [N, H, W, C], "
            "[N, H, W] or [N, D]"
        )
        return np.atleast_1d(images)
    wanted = tuple(image_shape or ())
    if images.ndim == len(wanted) == 3 and wanted[-1] in (1, None):
        images = images[..., np.newaxis]
    if images.dtype == np.uint8 or isinstance(images, LazyImages):
        return images
    if images.dtype.kind != "f":
        faults.append(
            f"the images are {images.dtype}; give uint8 in 0 ... 255, or floats in [0, 1]"
        )
        return images
    low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all():
        faults.append("the images contain NaN or infinite values; remove those examples")
    elif low < -_RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:
        faults.append(
            f"the images are floats in [{low:g}, {high:g}], not in [0, 1]; divide pixels of "
            "0 ... 255 by 255 or give them as uint8, whatever the model takes: that is said by "
            "its convention or done by its own layers"
        )
    return np.clip(images, 0.0, 1.0).astype(np.float32)


def _classes(y: Any, count: int, faults: list[str]) -> np.ndarray:
    """int64 `[count]`; what is wrong is added to ``faults``."""
    none = np.zeros(count, np.int64)
    try:
        labels = np.asarray(y)
    except ValueError:
        faults.append("the labels have different lengths; give one class per image")
        return none
    if labels.dtype.kind not in "biuf":
        faults.append(f"the labels are {labels.dtype}; give integer classes or one-hot rows")
        return none
    one_hot = labels.ndim == 2 and labels.shape[1] > 1
    if labels.shape[:1] != (count,) or labels.ndim > 2 or labels.shape[1:] == (0,):
        faults.append(f"{count} images came with labels of shape {labels.shape}; give [{count}]")
    elif one_hot and not (((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()):
        faults.append(
            f"the labels have shape {labels.shape}, but their rows are not one-hot (a single 1, "
            "else 0); give one class per image"
        )
    elif not (np.isfinite(labels) & (labels == np.round(labels))).all():
        faults.append(f"the labels are {labels.dtype} and not all integers; give integer classes")
    elif labels.min() < 0:
        faults.append(f"label {labels.min()} is negative; classes are 0 ... K-1")
    else:
        return (labels.argmax(1) if one_hot else labels.reshape(count)).astype(np.int64)
    return none
