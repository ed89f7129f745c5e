"""The one linear classifier, whose distances to the other classes are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

ORDERS = {"linf": np.inf, "l2": 2}


@dataclass(frozen=True, eq=False)
class Linear:
    """Logits ``scale * (x W + b)``, with weights ``[D, K]``."""

    weights: np.ndarray
    bias: np.ndarray | float = 0.0
    scale: float = 1.0

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(images, [tf.shape(images)[0], len(self.weights)])
        return self.scale * (flat @ self.weights + self.bias)

    def distances(self, images: np.ndarray, labels: np.ndarray, norm: str) -> np.ndarray:
        """To every class, [N, K]: |z_y - z_t| / ||w_y - w_t||_q; infinite for the true one.

        The norm q is the dual of ``norm``; the box [0, 1] is not looked at.
        """
        logits = images.reshape(len(images), -1).astype(np.float64) @ self.weights + self.bias
        found = np.full(logits.shape, np.inf)
        for (row, other), logit in np.ndenumerate(logits):
            label = labels[row]
            if other != label:
                normal = self.weights[:, label] - self.weights[:, other]
                length = np.linalg.norm(normal, 1 if norm == "linf" else 2)
                found[row, other] = (logits[row, label] - logit) / length
        return found


def linear_model(classes: int) -> tuple[Linear, np.ndarray, np.ndarray]:
    """A linear model whose boundaries lie well within the box around its 24 images of 5x4.

    Its normals differ in length, so that the likeliest other class is often not the nearest.
    """
    rng = np.random.default_rng(classes)
    weights = rng.normal(size=(20, classes)) * rng.uniform(0.3, 2.0, classes)
    weights -= weights.mean(0)
    images = rng.uniform(0.4, 0.6, (24, 5, 4, 1)).astype(np.float32)
    model = Linear(weights.astype(np.float32))
    return model, images, model(tf.constant(images)).numpy().argmax(-1)


def images_at(
    distance: float, norm: str, classes: int, count: int = 12, *, seed: int | None = None
) -> tuple[Linear, np.ndarray, np.ndarray]:
    """A linear model of 4x3x1 images around gray, all ``distance`` from the nearest other class.

    The box does not bind: no pixel is nearer to black or white than 0.2. The seed, else the number
    of classes, chooses the model and the images.
    """
    rng = np.random.default_rng(classes if seed is None else seed)
    weights = rng.normal(size=(12, classes))
    model = Linear(weights.astype(np.float32), (-0.5 * weights.sum(0)).astype(np.float32))
    images, labels = [], []
    while len(images) < count:
        direction = rng.normal(size=12)
        logits = direction @ weights
        label = int(logits.argmax())
        normals = weights[:, [label]] - np.delete(weights, label, axis=1)
        gaps = direction @ normals / np.linalg.norm(normals, 1 if norm == "linf" else 2, axis=0)
        image = 0.5 + direction * distance / gaps.min()
        if image.min() > 0.2 and image.max() < 0.8:
            images.append(image)
            labels.append(label)
    return model, np.float32(images).reshape(count, 4, 3, 1), np.array(labels)


def around(
    distance: float,
    norm: str,
    classes: int,
    below: float,
    above: float,
    *,
    seed: int | None = None,
) -> tuple[Linear, np.ndarray, np.ndarray]:
    """24 such images: 12 at ``below * distance``, then 12 at ``above * distance``."""
    model, near, near_labels = images_at(below * distance, norm, classes, seed=seed)
    _, far, far_labels = images_at(above * distance, norm, classes, seed=seed)
    return model, np.concatenate([near, far]), np.concatenate([near_labels, far_labels])


# A task: 60 images, of which five are misclassified, and a radius that half of them survive.
_RNG = np.random.default_rng(5)
IMAGES = _RNG.uniform(0.2, 0.8, (60, 4, 4, 1)).astype(np.float32)
WEIGHTS = _RNG.normal(size=(16, 4)).astype(np.float32)
linear = Linear(WEIGHTS)
LABELS = linear(tf.constant(IMAGES)).numpy().argmax(-1).astype(np.int64)
LABELS[:5] = (LABELS[:5] + 1) % 4


def distances() -> np.ndarray:
    """Linf distances of the task's images to the nearest other class; 0 where misclassified."""
    return np.maximum(linear.distances(IMAGES, LABELS, "linf").min(1), 0)


EPS = float(np.median(distances()))
