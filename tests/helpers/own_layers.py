"""Layers of a user's own, unknown to Keras: what ``--custom-objects`` runs.

As in keras.io's image classification with a vision transformer.
"""

from __future__ import annotations

from typing import Any

import keras

layers = keras.layers


class Patches(layers.Layer):
    """Cuts images ``[B, H, W, C]`` into square patches, each a vector."""

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
        self.size = size

    def call(self, images: Any) -> Any:
        _, height, width, channels = images.shape
        count = (height // self.size) * (width // self.size)
        patches = keras.ops.image.extract_patches(images, self.size)
        return keras.ops.reshape(patches, (-1, count, self.size**2 * channels))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"size": self.size}


class PatchEncoder(layers.Layer):
    """Projects patches ``[B, N, D]`` and adds what it has learned of their places."""

    def __init__(self, count: int, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.count, self.width = count, width
        self.projection = layers.Dense(width)
        self.place = layers.Embedding(count, width)

    def call(self, patches: Any) -> Any:
        places = keras.ops.expand_dims(keras.ops.arange(self.count), 0)
        return self.projection(patches) + self.place(places)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"count": self.count, "width": self.width}
