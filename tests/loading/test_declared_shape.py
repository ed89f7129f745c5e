"""What a Keras file says of the images its model takes, without being loaded."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from bcgan_tf.loading.declared_shape import declared_images


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((20, 30, 3), {"image_size": (20, 30), "color": "rgb"}),
        ((20, 30, 1), {"image_size": (20, 30), "color": "grayscale"}),
        ((20, 30), {"image_size": (20, 30), "color": "grayscale"}),
        ((3, 20, 30), {"image_size": (20, 30), "color": "rgb"}),
        ((None, None, 3), {"color": "rgb"}),
        ((600,), {}),
    ],
)
def test_the_input_that_a_file_declares(tmp_path, suffix, functional, shape, expected):
    images = keras.Input(shape)
    pooled = layers.Lambda(lambda x: keras.ops.sum(x, axis=range(1, x.ndim)))
    model = keras.Sequential([images, pooled, layers.Reshape((1,)), layers.Dense(2)])
    if functional:
        model = keras.Model(images, model.layers[-1](model.layers[-2](pooled(images))))
    path = tmp_path / f"model{suffix}"
    model.save(path)
    assert declared_images(path) == expected


def test_a_file_that_says_nothing(tmp_path):
    for name in ("a.keras", "b.h5"):
        (tmp_path / name).write_text("no model")
        assert declared_images(tmp_path / name) == {}
    assert declared_images(tmp_path / "gone.keras") == {}
