"""Whether a model is used with the pixels that it was trained on.

A model that takes other pixels than it gets answers all the same, with a lower accuracy that means
nothing. Its preprocessing may stand outside of it, so that nothing in it shows what it takes: the
usual conventions are tried on labelled images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.checks import as_logits_fn
from bcgan_tf.data import Dataset, Split
from bcgan_tf.data.arrays import as_images
from bcgan_tf.errors import UserError
from bcgan_tf.files import note
from bcgan_tf.loading.adapted import Adapted
from bcgan_tf.loading.classifier import adapted_classifier
from bcgan_tf.settings.convention import INPUT_RANGES, Convention
from bcgan_tf.statistics import compare_paired

# Every convention is tried on so many images, and one that is better there on so many more.
_SCREENED, _CONFIRMED = 100, 500
# What "clearly better" is: this much accuracy, and a McNemar test of this p value. Of the dozen
# conventions that are tried, none must come out by chance.
_LEAST_GAIN, _LARGEST_P = 0.03, 1e-4
# A network that was never trained has learned nothing in any range: the least share that a range
# must give of what lies above chance.
_LEAST_LEARNED = 0.2
_BATCH = 100


def take_in(
    name: str,
    classifier: keras.Model | str | Path,
    data: Dataset,
    convention: Convention | None = None,
) -> Adapted:
    """A user's classifier, checked with the training images; what is converted is told.

    Raises:
        UserError: as of :func:`bcgan_tf.loading.classifier.load_classifier`, or it is clearly more
            accurate on pixels of another range.
    """
    found = adapted_classifier(
        classifier,
        image_shape=data.image_shape,
        num_classes=data.num_classes,
        convention=convention,
    )
    found.tell(name)
    check_with(name, found.classifier, data.train, convention)
    return found


def check_with(name: str, classifier: Any, split: Split, convention: Convention | None) -> None:
    """As :func:`check_convention`, with some images of a split."""
    part = split.take(_CONFIRMED)  # in an order that mixes the classes
    check_convention(name, classifier, part.images, part.labels, convention)


def check_convention(
    name: str,
    classifier: Any,
    images: np.ndarray,
    labels: np.ndarray,
    used: Convention | None = None,
) -> None:
    """Refuses a classifier that is clearly more accurate on pixels of another usual range.

    Args:
        name: of the model, for the message.
        classifier: images in [0, 1] to logits ``[B, K]``, made for ``used``.
        images: ``[N, H, W, C]``, uint8 or floats in [0, 1], in an order that mixes the classes;
            the first 500 are looked at. Vectors are not checked.
        labels: int ``[N]``.
        used: what the model is taken to expect.

    Raises:
        UserError: nothing is stated of its pixels; names the convention under which it is clearly
            better (by 3 points or more, and by an exact McNemar test at 1e-4), and the options that
            say so. Where they are stated, a line on stderr says it instead.
    """
    if images.ndim != 4 or not len(images):
        return
    used = used or Convention()
    images, labels = as_images(images[:_CONFIRMED]), labels[:_CONFIRMED]
    predict = Batched(as_logits_fn(classifier), _BATCH)

    def correct(convention: Convention, part: slice) -> np.ndarray:
        shown = used.to_unit(convention.from_unit(images[part]))
        return predict(np.asarray(shown, np.float32)).argmax(-1) == labels[part]

    first, rest = slice(0, _SCREENED), slice(_SCREENED, None)
    as_used = correct(used, first)
    screened: dict[Convention, np.ndarray] = {}
    for other in _usual(images):
        differs = (other.scale, other.offset) != (used.scale, used.offset)
        if differs and (found := correct(other, first)).sum() > as_used.sum():
            screened[other] = found
    if not screened:
        return
    best = max(screened, key=lambda other: screened[other].sum())
    found, as_used = (
        np.concatenate([part, correct(convention, rest)]) if len(images) > _SCREENED else part
        for convention, part in ((best, screened[best]), (used, as_used))
    )
    gain = found.mean() - as_used.mean()
    chance = np.bincount(labels).max() / len(labels)  # always the largest class
    learned = found.mean() - chance >= _LEAST_LEARNED * (1 - chance)
    if not learned or gain < _LEAST_GAIN or compare_paired(found, as_used).p_value > _LARGEST_P:
        return
    found_out = (
        f"{name} classifies {as_used.mean():.1%} of {len(images)} images right when it gets "
        f"{used.told}, but {found.mean():.1%} with {best.told}: it seems to have been trained on "
        "those"
    )
    if used.stated:  # who says so, knows it
        note(f"{found_out}; {used.options} is kept")
        return
    raise UserError(
        f"{found_out}; say so: {best.options} (in Python: convention=Convention("
        f"{best.arguments})), or keep to {used.told}: {used.options}"
    )


def _usual(images: np.ndarray) -> Iterator[Convention]:
    """The named ones, and pixels standardized by the images' own mean and deviation."""
    colors = images.shape[-1] == 3
    for input_range in INPUT_RANGES:
        if colors or input_range not in ("caffe", "torch"):
            yield Convention(input_range=input_range)
    for axes in [(0, 1, 2, 3), (0, 1, 2)][: 2 if images.shape[-1] > 1 else 1]:
        mean, std = (np.atleast_1d(part(images, axes)) for part in (np.mean, np.std))
        if (std > 0).all():
            yield Convention(mean=_short(mean), std=_short(std))


def _short(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)
