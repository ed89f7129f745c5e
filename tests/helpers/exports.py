"""Images as servers get them, and what an exported classifier is called."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from bcgan_tf.data.dataset import Split

NAMES = tuple("abcd")
CARD = {
    "defense": {"name": "bcgan", "beta": 0.3},
    "clean_accuracy": 0.97,
    "robust_accuracy": [
        {"attack": "pgd", "eps": 0.1, "n": 200, "accuracy": 0.31},
        {"attack": "cw-l2", "eps": None, "n": 100, "accuracy": np.float64(0.0)},
    ],
    "run": "20260101-120000-run-digits",
}


def pixels(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, *shape), dtype=np.uint8)


def scaled(images: np.ndarray) -> np.ndarray:
    """As the training data is scaled."""
    return Split(images, np.zeros(len(images), np.int64)).scaled()


def encoded(images: np.ndarray, file_format: str = "PNG", **options) -> np.ndarray:
    def encode(image: np.ndarray) -> bytes:
        stream = io.BytesIO()
        grey = image.shape[-1] == 1
        Image.fromarray(image[..., 0] if grey else image).save(stream, file_format, **options)
        return stream.getvalue()

    return np.array([encode(image) for image in images], dtype=object)
