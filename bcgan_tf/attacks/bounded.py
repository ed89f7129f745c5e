"""The base of attacks within an Linf or L2 ball."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import cast

import numpy as np
import tensorflow as tf
from cleverhans.tf2 import utils as cleverhans

from bcgan_tf.attacks.attack import Attack
from bcgan_tf.settings.kinds import AttackEps, Norm

_ORDERS = {"linf": np.inf, "l2": 2}


@dataclasses.dataclass(frozen=True)
class BoundedAttack(Attack):
    """An attack whose result stays within ``eps`` of the image.

    Args:
        eps: radius, in units of the [0, 1] pixel range; 0 returns the images.
        norm: ``"linf"`` or ``"l2"``.

    Raises:
        UserError: if a setting is out of range.
    """

    eps: AttackEps
    norm: Norm = dataclasses.field(default="linf", kw_only=True)

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.norm == "linf" and self.eps is not None and self.eps > 1:
            yield f"eps is {self.eps:g}, but pixels lie in [0, 1]; for 0 ... 255 write eps / 255"

    @property
    def idle(self) -> bool:
        return self.eps == 0

    def suffix(self) -> str:
        """``"-L2"`` for the L2 norm, nothing for Linf."""
        return "" if self.norm == "linf" else "-L2"

    def ascend(self, gradient: tf.Tensor, step: float) -> tf.Tensor:
        """The step of length ``step`` that raises the linearized loss most.

        cleverhans' ``optimize_linear`` divides an L2 gradient by at least 1e-6, so steps on a
        confident model become too short. The gradient is therefore scaled to a largest entry of 1
        first; only an exactly zero gradient gives no step.
        """
        if self.norm == "l2":
            axes = list(range(1, len(gradient.shape)))
            largest = tf.reduce_max(tf.abs(gradient), axis=axes, keepdims=True)
            gradient = tf.math.divide_no_nan(gradient, largest)
        return cleverhans.optimize_linear(gradient, step, _ORDERS[self.norm])

    def clip_to_ball(
        self, images: tf.Tensor, candidates: tf.Tensor, radius: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Candidates moved into the ball around ``images`` and into [0, 1].

        Args:
            images: the centers, ``[B, ...]``.
            candidates: of the same shape.
            radius: of each ball, shaped to broadcast against them; None: ``eps``.
        """
        eps = self.eps if radius is None else radius
        change = cleverhans.clip_eta(candidates - images, _ORDERS[self.norm], eps)
        return tf.clip_by_value(images + change, 0.0, 1.0)

    def draw_start(
        self, images: tf.Tensor, indices: tf.Tensor, round_index: tf.Tensor
    ) -> tf.Tensor:
        """A point drawn uniformly from the ball, clipped to [0, 1]; see :meth:`draw_noise`."""
        return tf.clip_by_value(images + self.draw_noise(images, indices, round_index), 0.0, 1.0)

    def draw_noise(self, images: tf.Tensor, indices: tf.Tensor, rounds: tf.Tensor) -> tf.Tensor:
        """A change drawn uniformly from the ball, shaped as ``images``.

        Each example's draw depends on (seed, round, its index) alone, not on its batch. NumPy
        draws it: one stateless draw per example costs TensorFlow 2 ms each on a CPU.

        Args:
            images: what is to be changed.
            indices: int64 ``[B]``, each example's position in the set.
            rounds: an integer scalar, or ``[B]``, one for each example.
        """
        shape = cast(list[int], images.shape[1:].as_list())

        def draw(indices: np.ndarray, rounds: np.ndarray, eps: np.ndarray) -> np.ndarray:
            attack = self._changed({"eps": float(eps)})
            pairs = zip(indices, np.broadcast_to(rounds, indices.shape), strict=True)
            return np.stack([attack._noise(int(i), int(number), shape) for i, number in pairs])

        eps = vars(self).get("exact", {}).get("eps", self.eps)
        inputs = [indices, rounds, tf.cast(eps, tf.float64)]
        noise = tf.numpy_function(draw, inputs, tf.float32, stateful=False)
        return tf.ensure_shape(noise, images.shape)

    def _noise(self, index: int, round_index: int, shape: list[int]) -> np.ndarray:
        """Uniform in the ball; a Philox key per (seed, round), a range of counters per example."""
        bits = np.random.Philox(key=[self.seed, round_index], counter=[0, 0, 0, index])
        generator = np.random.Generator(bits)
        if self.norm == "linf":
            noise = (2 * generator.random(shape, np.float32) - 1) * self.eps
        else:
            direction = generator.standard_normal(shape, np.float32)
            radius = self.eps * generator.random() ** (1 / direction.size)
            noise = direction * (radius / np.linalg.norm(direction))
        return noise.astype(np.float32)

    def project(self, images: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Clips to [0, 1] and to the ball, which float32 rounding may have left."""
        candidates = super().project(images, candidates)
        change = candidates.astype(np.float64) - images
        if self.norm == "linf":
            # eps rounded to float32, as the attack used it: its changes stay equal to the last bit.
            change = np.clip(change, -np.float32(self.eps), np.float32(self.eps))
        else:
            axes = tuple(range(1, change.ndim))
            length = np.sqrt(np.square(change).sum(axis=axes, keepdims=True))
            change *= np.minimum(1.0, self.eps / np.maximum(length, np.finfo(np.float64).tiny))
        return np.clip(images + change, 0.0, 1.0).astype(np.float32)
