"""The 2-D toy of the paper's Figure 2: two unit Gaussians whose best classifier is known exactly.

Class 0 is centred on (-1.5, -1.5), class 1 on (1.5, 1.5), both with identity covariance. So the
Bayes boundary is x1 + x2 = 0, and p(y = 1 | x) = sigmoid(3 (x1 + x2)).
"""

from __future__ import annotations

import math

import numpy as np

from bcgan_tf.data.dataset import Dataset, Split, stratified_split

MEAN = 1.5
TRAIN_PER_CLASS = 2000
_VALIDATION_PER_CLASS = 200
_TEST_PER_CLASS = 5000
_DRAW_SEED = 0

# Phi(-sqrt(2) MEAN), the mass of one class on the wrong side of the boundary: 1.7 %.
BAYES_ERROR = 0.5 * math.erfc(MEAN)


def load(*, seed: int = 0) -> Dataset:
    """2,000 training, 200 validation and 5,000 test points a class, float32 `[N, 2]`; 2 classes.

    Args:
        seed: chooses the validation points; the points themselves are always the same.
    """
    random = np.random.RandomState(_DRAW_SEED)
    pool = _draw(random, TRAIN_PER_CLASS + _VALIDATION_PER_CLASS)
    test = _draw(random, _TEST_PER_CLASS)
    train, validation = stratified_split(pool, 2 * _VALIDATION_PER_CLASS, seed=seed)
    return Dataset("gaussians", train, validation, test, ("lower left", "upper right"))


def _draw(random: np.random.RandomState, per_class: int) -> Split:
    """Both classes, alternating, so that any prefix is balanced."""
    labels = np.arange(2 * per_class, dtype=np.int64) % 2
    centers = np.where(labels[:, np.newaxis] == 1, MEAN, -MEAN)
    points = random.standard_normal((len(labels), 2)) + centers
    return Split(points.astype(np.float32), labels)
