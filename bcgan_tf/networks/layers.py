"""Dropout whose masks can be resumed and differ between replicas."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bcgan_tf.randomness import fold_in, fold_replica


@keras.saving.register_keras_serializable(package="bcgan_tf")
class ResumableDropout(keras.layers.Layer):
    """Dropout whose mask is a pure function of ``(seed, number of training calls, replica)``.

    ``keras.layers.Dropout`` does not save its generator's state, and gives every replica the same
    mask. Here the number of calls is a weight, so that a reloaded model continues with the next
    mask; replicas draw different masks.

    Args:
        rate: share of units dropped, in [0, 1).
        seed: int.
    """

    def __init__(self, rate: float, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {rate}")
        self.rate = rate
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        self.calls = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, name="calls"
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or self.rate == 0:
            return inputs
        count = tf.convert_to_tensor(self.calls)
        self.calls.assign(count + 1)
        seed = fold_replica(fold_in(tf.constant([self.seed, 0]), count))
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed=seed)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
