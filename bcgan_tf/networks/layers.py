"""Layers that Keras lacks: dropout that resumes and differs per replica, spectral normalisation."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bcgan_tf.randomness import fold_in, fold_replica


@keras.saving.register_keras_serializable(package="bcgan_tf")
class ResumableDropout(keras.layers.Layer):
    """Dropout whose mask is a pure function of ``(seed, number of training calls, replica)``.

    ``keras.layers.Dropout`` keeps its generator's state outside the saved weights and hands every
    replica the same mask. Here the call counter is a weight: a reloaded model goes on exactly where
    it stopped, and replicas draw different masks.

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


class _SpectralKernel:
    """Divides a layer's kernel by its largest singular value, by one warm-started power step.

    Keras' own wrapper overwrites the trainable kernel in the forward pass, which replicas cannot
    agree on; here the kernel stays as it is and the gradient flows through the norm.
    Reference: Miyato et al. 2018, "Spectral Normalization for GANs".
    """

    def _build_vector(self) -> None:
        layer: Any = self
        layer.left_vector = layer.add_weight(
            shape=(1, layer.kernel.shape[-1]),
            initializer=keras.initializers.RandomNormal(seed=0),
            trainable=False,
            name="left_vector",
            dtype="float32",
            autocast=False,
        )

    def _normalised_kernel(self, training: bool) -> tf.Tensor:
        layer: Any = self
        kernel = tf.cast(tf.convert_to_tensor(layer.kernel), tf.float32)
        matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
        left = tf.convert_to_tensor(layer.left_vector)
        right = tf.math.l2_normalize(left @ tf.transpose(matrix))
        left = tf.math.l2_normalize(right @ matrix)
        left, right = tf.stop_gradient(left), tf.stop_gradient(right)
        if training:
            layer.left_vector.assign(left)
        sigma = right @ matrix @ tf.transpose(left)
        return kernel / tf.squeeze(sigma)


@keras.saving.register_keras_serializable(package="bcgan_tf")
class SpectralConv2D(_SpectralKernel, keras.layers.Conv2D):
    """``keras.layers.Conv2D`` with a spectrally normalised kernel."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self._build_vector()

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        kernel = tf.cast(self._normalised_kernel(training), inputs.dtype)
        outputs = tf.nn.conv2d(inputs, kernel, self.strides, self.padding.upper())
        return tf.nn.bias_add(outputs, tf.cast(tf.convert_to_tensor(self.bias), inputs.dtype))


@keras.saving.register_keras_serializable(package="bcgan_tf")
class SpectralDense(_SpectralKernel, keras.layers.Dense):
    """``keras.layers.Dense`` with a spectrally normalised kernel."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self._build_vector()

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        kernel = tf.cast(self._normalised_kernel(training), inputs.dtype)
        return inputs @ kernel + tf.cast(tf.convert_to_tensor(self.bias), inputs.dtype)
