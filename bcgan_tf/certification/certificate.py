"""What interval bounds prove of a model, as a report has it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bcgan_tf.certification.certified import certified
from bcgan_tf.certification.interval_bounds import require_bounds
from bcgan_tf.errors import UserError
from bcgan_tf.statistics import wilson_interval


def proved(
    model: keras.Model, images: Any, labels: Any, eps: float, *, batch_size: int = 250
) -> np.ndarray:
    """bool ``[N]``: of which images interval bounds prove the true label within eps.

    Of none, where they do not know a layer of the model. Arguments as of :func:`certificate`.
    """
    try:
        require_bounds(model)
    except UserError:
        return np.zeros(len(labels), bool)
    return certified(model, images, labels, eps, batch_size=batch_size)


def certificate(
    model: keras.Model, images: Any, labels: Any, eps: float, *, batch_size: int = 250
) -> dict[str, Any] | None:
    """The certified accuracy for a report; None where nothing is proved.

    Interval bounds prove nothing of most networks that were not trained for them, and there are
    layers that they do not know: neither is evidence against a network.

    Args:
        model: any Keras classifier, images to logits.
        images: float32 ``[N, ...]`` in [0, 1].
        labels: int ``[N]``, the true classes.
        eps: Linf radius, in [0, 1] pixel units.
        batch_size: bounds the memory; changes nothing else.

    Returns:
        ``accuracy``, ``interval95`` (Wilson), ``n`` and ``method``, JSON-able.
    """
    found = proved(model, images, labels, eps, batch_size=batch_size)
    if not found.any():
        return None
    return {
        "accuracy": float(found.mean()),
        "interval95": list(wilson_interval(int(found.sum()), len(found))),
        "n": len(found),
        "method": "interval bounds",
    }
