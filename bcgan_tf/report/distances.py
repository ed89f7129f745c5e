"""Minimum perturbations as a histogram that fits into metrics.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

# More bars than this cannot be told apart.
_MOST_BINS = 50
# Of a bin's width: float32 images put a distance that is meant to be at its edge this far off.
_ROUNDING = 1e-4


def distance_bins(distances: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Counts of minimum perturbations on one grid, JSON-able.

    The bins' width is 1, 2 or 5 times a power of ten, so that a search on such a grid falls
    evenly into them.

    Args:
        distances: reading, such as ``"best"``, to float ``[N]``: 0 for an image that is
            misclassified as it is, infinite where nothing was found.

    Returns:
        ``edges`` in [0, 1] pixel units, from 0 to the largest distance found; and per reading
        ``counts`` (above the lower edge, up to the upper one), ``misclassified`` and
        ``not_found``, which together are all ``N``.
    """
    found = np.concatenate([array[np.isfinite(array)] for array in distances.values()] or [[0.0]])
    top = float(found.max(initial=0.0)) or 1.0
    width = _width(top / _MOST_BINS)
    bins = max(1, math.ceil(top / width - _ROUNDING))
    edges = np.arange(bins + 1) * width
    counts = {}
    for reading, array in distances.items():
        inside = array[np.isfinite(array) & (array > 0)]
        place = np.clip(np.ceil(inside / width - _ROUNDING).astype(int) - 1, 0, bins - 1)
        counts[reading] = {
            "counts": np.bincount(place, minlength=bins).tolist(),
            "misclassified": int((array == 0).sum()),
            "not_found": int(np.isinf(array).sum()),
        }
    return {"edges": edges.round(12).tolist(), "readings": counts}


def _width(least: float) -> float:
    """The next of 1, 2 or 5 times a power of ten: 0.0079 gives 0.01."""
    unit = 10.0 ** math.floor(math.log10(least))
    return next(step * unit for step in (1, 2, 5, 10) if step * unit >= least * (1 - _ROUNDING))
