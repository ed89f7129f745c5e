"""scikit-learn's 1,797 real handwritten digits of 8x8 pixels: embedded, no network."""

from __future__ import annotations

import numpy as np

from bcgan_tf.data.dataset import Dataset, Split, stratified_split

_TEST_SIZE = 360
# The test set is the same for every seed that a user may choose.
_TEST_SEED = 0


def load(*, seed: int = 0) -> Dataset:
    """1,293 training, 144 validation and 360 test images, uint8 8x8x1; 10 classes.

    Args:
        seed: chooses the validation images; the test images are always the same.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 17 grey levels, 0 ... 16, spread over 0 ... 255.
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    everything = Split(pixels, bunch.target.astype(np.int64))
    rest, test = stratified_split(everything, _TEST_SIZE, seed=_TEST_SEED)
    train, validation = stratified_split(rest, round(0.1 * len(rest)), seed=seed)
    return Dataset("digits", train, validation, test, tuple("0123456789"))
