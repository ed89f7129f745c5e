"""Clean accuracy of a classifier that is not attacked."""

from __future__ import annotations

from typing import Any, cast

import keras
import numpy as np

from bcgan_tf import progress
from bcgan_tf.data import Split, evaluation_batches
from bcgan_tf.statistics import wilson_interval

# Test images for a model that searches for each answer.
_SEARCHED = 200


def clean_accuracy(model: keras.Model, test: Split, *, seed: int = 0) -> dict[str, Any]:
    """``clean_accuracy``, its 95 % ``clean_interval95`` and ``n``, on all of a split.

    Of Defense-GAN, which searches for each answer, on 200 of its images, with progress.

    Args:
        model: images in [0, 1] to logits.
        test: images and labels.
        seed: of the starting points of Defense-GAN's search.
    """
    if getattr(model, "answers_by_search", False):
        test, searching = test.take(_SEARCHED, seed=0), cast(Any, model)
        with progress.told("Defense-GAN's search on test images") as count:
            logits = searching.logits(test.scaled(), seed=seed, progress=count)
        correct = int((logits.argmax(-1) == test.labels).sum())
    else:
        correct = sum(
            int(np.sum(np.argmax(model(images, training=False), -1) == labels))
            for images, labels in evaluation_batches(test, 500).as_numpy_iterator()
        )
    return {
        "clean_accuracy": correct / len(test),
        "clean_interval95": list(wilson_interval(correct, len(test))),
        "n": len(test),
    }
