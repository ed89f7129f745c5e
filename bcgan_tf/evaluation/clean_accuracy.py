"""Clean accuracy of a classifier that is not attacked, and whether it is one to rely on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from bcgan_tf import progress
from bcgan_tf.data import Split, evaluation_batches
from bcgan_tf.errors import UserError
from bcgan_tf.runs.history import History
from bcgan_tf.statistics import wilson_interval

# Test images for a model that searches for each answer.
_SEARCHED = 200
# Below the validation accuracy by more than this, at the upper end of its interval, is far below.
_FAR = 0.1
# Stages of a run that train another network than its hardened classifier.
_OTHERS = ("train", "oracle")


def clean_accuracy(
    model: keras.Model, test: Split, *, seed: int = 0, validation: float | None = None
) -> dict[str, Any]:
    """``clean_accuracy``, its 95 % ``clean_interval95`` and ``n``, on all of a split.

    With ``suspicion``, a sentence, where :func:`suspicion` has one. Of Defense-GAN, which searches
    for each answer, on 200 of the images, with progress.

    Args:
        model: images in [0, 1] to logits.
        test: images and labels.
        seed: of the starting points of Defense-GAN's search.
        validation: accuracy on validation images when it was trained.
    """
    if getattr(model, "answers_by_search", False):
        test, searching = test.take(_SEARCHED, seed=0), cast(Any, model)
        with progress.told("Defense-GAN's search on test images") as count:
            answers = searching.logits(test.scaled(), seed=seed, progress=count).argmax(-1)
    else:
        batches = evaluation_batches(test, 500).as_numpy_iterator()
        answers = np.concatenate(
            [np.argmax(model(images, training=False), -1) for images, _ in batches]
        )
    correct = answers == test.labels
    right = int(correct.sum())
    doubt = suspicion(correct, test.labels, validation)
    return {
        "clean_accuracy": right / len(test),
        "clean_interval95": list(wilson_interval(right, len(test))),
        "n": len(test),
        **({"suspicion": doubt} if doubt else {}),
    }


def suspicion(
    correct: np.ndarray, labels: np.ndarray, validation: float | None = None
) -> str | None:
    """Why a clean accuracy suggests that the model is used in another way than it was trained.

    It does where it is, as far as its 95 % interval (Wilson) tells, no more than the share of the
    largest class, which is at least 1 / K; or where that interval ends more than 10 points below
    the validation accuracy.

    Args:
        correct: bool ``[N]``, whether the clean image is classified right, ``N >= 1``.
        labels: int ``[N]``, the true classes.
        validation: accuracy on validation images when it was trained, in [0, 1]; None: not known.

    Returns:
        A sentence without its full stop; None where nothing is suspicious.
    """
    n, right = len(correct), int(np.count_nonzero(correct))
    low, high = wilson_interval(right, n)
    largest = float(np.unique(labels, return_counts=True)[1].max() / n)
    found = []
    if low <= largest:
        found.append(
            "no better, as far as can be told, than always answering with the largest class "
            f"({100 * largest:.1f} %)"
        )
    if validation is not None and high + _FAR < validation:
        found.append(f"far below the {100 * validation:.1f} % on validation images in its training")
    if not found:
        return None
    return (
        f"Suspicious clean accuracy: {100 * right / n:.1f} % ({100 * low:.1f} to {100 * high:.1f}) "
        f"of {n:,} test images is {' and '.join(found)}; before you go by the other numbers, check "
        "the range of the model's inputs, the order of its classes, and the images"
    )


def trained_accuracy(model: Any) -> float | None:
    """The validation accuracy with which a model's training ended; None where it is not known.

    Args:
        model: the file of a classifier in a run's folder, whose history.csv is read; or a Keras
            model that was just trained by ``fit``.
    """
    metrics: dict[str, list[float]] = {}
    if isinstance(model, Path):
        metrics = _of_run(model)
    elif isinstance(history := getattr(getattr(model, "history", None), "history", None), dict):
        metrics = history
    for name, values in metrics.items():
        if name.startswith("val_") and "acc" in name and not {"top", "robust"} & {*name.split("_")}:
            last = float(values[-1]) if values else math.nan
            return last if 0 <= last <= 1 else None
    return None


def _of_run(file: Path) -> dict[str, list[float]]:
    """The metrics of the stage that trained a file, by the names of a run's files."""
    try:
        stages = History(file.parent / "history.csv").read()
    except (UserError, OSError):
        return {}
    if file.name == "classifier.keras":
        chosen = [stages.get("train", {})]
    elif file.name == "hardened.keras":
        chosen = [found for stage, found in stages.items() if stage not in _OTHERS]
    else:
        chosen = []
    last = chosen[-1] if chosen else {}
    return {name: [value for _, value in points] for name, points in last.items()}
