"""The augmentation layers at the beginning of a classifier, in adversarial training."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.files import note
from bcgan_tf.keras_graph import (
    LeadingStep,
    all_layers,
    augmentations,
    graph_of,
    is_augmentation,
    leading_steps,
    parts_after,
)

_UNKNOWN_SIDE = 16


class OwnAugmentation(NamedTuple):
    """Draws a classifier's augmentation before the attack instead of after it.

    A network that is trained on adversarial examples would shift, turn or mirror each of them after
    the attack, which undoes the attack: the network learns to resist what is left of it.

    Attributes:
        before: the layers up to the last augmentation; without it, ``scale * images + offset``.
        after: the rest of the classifier.
        scale: float32 ``[C]``.
        offset: float32 ``[C]``.
    """

    before: keras.Model
    after: keras.Model
    scale: np.ndarray
    offset: np.ndarray

    @classmethod
    def of(cls, classifier: keras.Model) -> OwnAugmentation | None:
        """None for a classifier that does not begin with augmentation, scaled or not.

        A line on stderr names augmentation elsewhere in it.

        Args:
            classifier: functional or built sequential, float32 images in [0, 1] to logits.
        """
        steps = leading_steps(classifier)
        found = [place for place, step in enumerate(steps) if is_augmentation(step.operation)]
        taken = cls._taken(classifier, steps[: found[-1] + 1]) if found else None
        drawn = augmentations(taken.before) if taken else []
        if later := [layer.name for layer in augmentations(classifier) if layer not in drawn]:
            note(
                f"augmentation that is not at the beginning of the classifier ({', '.join(later)}) "
                "is drawn after the attack of training, and undoes part of it; put it first, "
                "before layers with weights or of another size"
            )
        return taken

    @classmethod
    def _taken(cls, classifier: keras.Model, steps: list[LeadingStep]) -> OwnAugmentation | None:
        before, after = parts_after(classifier, steps)
        shape = [side or _UNKNOWN_SIDE for side in graph_of(classifier).inputs[0].shape[1:]]

        def plain(images: np.ndarray) -> np.ndarray:
            given = tf.constant(images, tf.float32)
            return np.asarray(tf.cast(before(given, training=False), tf.float32))

        offset = plain(np.zeros((1, *shape))).reshape(-1, shape[-1])[0]
        scale = plain(np.ones((1, *shape))).reshape(-1, shape[-1])[0] - offset
        pixels = np.random.default_rng(0).random((4, *shape), np.float32)
        half = any(layer.compute_dtype != "float32" for layer in all_layers(before))
        largest = (0.02 if half else 1e-5) * np.abs(scale).max()
        close = np.allclose(plain(pixels), scale * pixels + offset, rtol=0, atol=largest)
        return cls(before, after, scale, offset) if close and (scale != 0).all() else None

    def augmented(self, images: tf.Tensor) -> tf.Tensor:
        """Images ``[B, ...]`` in [0, 1], augmented by one draw."""
        drawn = tf.cast(self.before(images, training=True), tf.float32)
        return tf.clip_by_value((drawn - self.offset) / self.scale, 0.0, 1.0)

    def in_training(self, images: tf.Tensor) -> Any:
        """The classifier's logits in training mode, but for its augmentation."""
        return self.after(self.before(images, training=False), training=True)
