"""The straight lines from an image along which a change of class is searched."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.objectives import Objective, loss_gradient, objective, ranked_wrong_class
from bcgan_tf.attacks.primitives import margins
from bcgan_tf.evaluation.task import EvaluationTask

ORDERS = {"linf": np.inf, "l2": 2}

# Wrong classes aimed at, and other classes whose nearest image is aimed at, at most.
_CLASSES = 9


def length(changes: np.ndarray, norm: str) -> np.ndarray:
    """The norm of each row of ``changes [N, ...]``, float64 ``[N]``."""
    flat = changes.reshape(len(changes), math.prod(changes.shape[1:])).astype(np.float64)
    return np.linalg.norm(flat, ORDERS[norm], axis=1)


def unit(directions: np.ndarray, norm: str) -> np.ndarray:
    """Each row scaled to length 1; rows of zeros stay zero."""
    wide = (-1, *[1] * (directions.ndim - 1))
    # By the largest entry first: the square of a float32 gradient of 1e-30 is zero.
    for order in dict.fromkeys(("linf", norm)):
        size = length(directions, order).reshape(wide)
        directions = directions / np.where(size > 0, size, 1.0)
    return directions.astype(np.float32)


def fgsm_direction(gradient: np.ndarray, norm: str) -> np.ndarray:
    """Where one step of length 1 raises the linearized loss most: the sign, or ``g / ||g||2``."""
    return unit(np.sign(gradient) if norm == "linf" else gradient, norm)


def cross_entropy_gradients(task: EvaluationTask) -> np.ndarray:
    """The gradient of each image's own cross entropy, float32 ``[N, ...]``, as float32 has it."""
    return _gradients(task, objective("ce", targeted=False))


def gradient_directions(
    task: EvaluationTask, cross_entropy: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Directions of length 1 that gradients suggest, beside FGSM's own.

    They are, for the cross entropy, the margin ``max_{i != y} z_i - z_y``, and ``z_t - z_y`` of the
    nine likeliest wrong classes ``t``: FGSM's direction; for the cross entropy also that of the
    other norm, the gradient itself for Linf and its sign for L2. A pixel at 0 or 1 that would leave
    the box stays where it is, and does not count in the length.

    Args:
        task: the model, the images and the norm of the length.
        cross_entropy: its gradients, see :func:`cross_entropy_gradients`.

    Yields:
        A name, and directions ``[N, ...]``; zero where there is no gradient or no such class.
    """
    images, norm, logits_fn = task.images, task.norm, task.attacked

    def inward(gradient: np.ndarray, towards: str = norm) -> np.ndarray:
        leaves = ((images <= 0) & (gradient < 0)) | ((images >= 1) & (gradient > 0))
        return unit(fgsm_direction(np.where(leaves, 0, gradient), towards), norm)

    yield "cross entropy", inward(cross_entropy)
    yield "cross entropy, other norm", inward(cross_entropy, "l2" if norm == "linf" else "linf")
    margin = _gradients(task, lambda true, _, logits: margins(logits, true))
    yield "margin", inward(margin)

    def to_target(images: tf.Tensor, labels: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
        targets, exists = ranked_wrong_class(logits_fn(images), labels, rank)
        gradient = loss_gradient(logits_fn, _gap, images, labels, targets)[0]
        return tf.einsum("b,b...->b...", tf.cast(exists, tf.float32), gradient)

    aimed = Batched(to_target, task.batch_size)
    for rank in range(_CLASSES):
        gradient = aimed(images, task.labels, constants=(np.int64(rank),))
        if not gradient.any():  # past the last class, or saturated
            break
        yield f"wrong class {rank + 1}", inward(gradient)


def random_signs(indices: np.ndarray, shape: tuple[int, ...], count: int, seed: int) -> np.ndarray:
    """``count`` directions of random signs per image, int8 ``[N, count, *shape]``.

    Those of an image depend on ``seed`` and its index alone.
    """
    size = int(np.prod(shape))
    drawn = [
        np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, 0, 0, int(index)])).bytes(
            -(-count * size // 8)
        )
        for index in indices
    ]
    bits = np.stack([np.unpackbits(np.frombuffer(row, np.uint8)) for row in drawn])
    signs = bits[:, : count * size].astype(np.int8) * 2 - 1
    return signs.reshape(len(indices), count, *shape)


def plain_images(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Constant images: gray, within 0.5 Linf of every image, black and white."""
    values = {"gray": 0.5, "black": 0.0, "white": 1.0}
    return {name: np.full(shape, value, np.float32) for name, value in values.items()}


def nearest_of_other_classes(
    images: np.ndarray, labels: np.ndarray, *, batch_size: int
) -> np.ndarray:
    """The nearest image of each other class, nearest class first.

    Near is meant in L2 for either norm: in Linf nearly all pairs of images are 1 apart.

    Args:
        images: float32 ``[N, ...]``, all classified right.
        labels: int64 ``[N]``.
        batch_size: rows of the table of distances that are in memory at once.

    Returns:
        Positions, int64 ``[N, min(9, classes - 1)]``; no columns where all labels are one.
    """
    flat = images.reshape(len(images), -1)
    squares = np.square(flat).sum(axis=1)
    classes = np.unique(labels)
    members = [np.flatnonzero(labels == one) for one in classes]
    pieces = []
    for start in range(0, len(flat), batch_size):
        rows = slice(start, start + batch_size)
        distances = squares[rows, None] + squares - 2 * flat[rows] @ flat.T
        nearest = np.stack([of[distances[:, of].argmin(axis=1)] for of in members], axis=1)
        lengths = np.take_along_axis(distances, nearest, axis=1)
        lengths[labels[rows, None] == classes] = np.inf
        order = lengths.argsort(axis=1, kind="stable")[:, : min(_CLASSES, len(classes) - 1)]
        pieces.append(np.take_along_axis(nearest, order, axis=1))
    return np.concatenate(pieces)


def _gradients(task: EvaluationTask, loss: Objective) -> np.ndarray:
    logits_fn = task.attacked

    def rows(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return loss_gradient(logits_fn, loss, images, labels, labels)[0]

    return Batched(rows, task.batch_size)(task.images, task.labels)


def _gap(labels: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    true, target = (tf.gather(logits, of, axis=1, batch_dims=1) for of in (labels, targets))
    return target - true
