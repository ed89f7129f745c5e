"""How good a set of generated samples is: true labels, nearness to the boundary, diversity."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf import losses

# Images per call of a model; it bounds the memory.
_BATCH = 500


@dataclasses.dataclass(frozen=True)
class GeneratedSet:
    """Measures of generated samples; the useful ones are labelled truly *and* near the boundary.

    Attributes:
        n: samples measured.
        oracle_accuracy: share that the oracle, a net of another architecture that is in no loss,
            puts into the class ``c`` they were asked for: label truth.
        classifier_accuracy: share that the classifier under defence puts into ``c``.
        confidence: the classifier's mean largest probability.
        entropy: its mean entropy in nats, at most ``log K``.
        margin: its mean top-1 minus top-2 logit, 0 on a decision boundary.
        useful: share with a true label and a largest probability below 0.9.
        diversity: mean L2 distance of two samples of one class.
        real_diversity: the same of real images.
    """

    n: int
    oracle_accuracy: float
    classifier_accuracy: float
    confidence: float
    entropy: float
    margin: float
    useful: float
    diversity: float
    real_diversity: float

    @property
    def relative_diversity(self) -> float:
        """Diversity as a share of the real data's."""
        return self.diversity / self.real_diversity

    def to_dict(self) -> dict[str, float]:
        """All measures, for JSON."""
        return {**dataclasses.asdict(self), "relative_diversity": self.relative_diversity}


def intra_class_distance(
    images: np.ndarray, labels: np.ndarray, *, pairs: int = 200, seed: int = 0
) -> float:
    """Mean L2 distance of two different examples of one class, averaged over the classes.

    Args:
        images: float ``[N, ...]`` in [0, 1].
        labels: int ``[N]``.
        pairs: random pairs per class; a class with fewer than two examples is left out.
        seed: of the pairs.

    Returns:
        A distance in [0, 1] pixel units; NaN when no class has two examples.
    """
    rng = np.random.default_rng(seed)
    means = []
    for label in np.unique(labels):
        members = images[labels == label].reshape(np.count_nonzero(labels == label), -1)
        if len(members) < 2:
            continue
        first = rng.integers(0, len(members), pairs)
        second = (first + rng.integers(1, len(members), pairs)) % len(members)
        means.append(np.linalg.norm(members[first] - members[second], axis=1).mean())
    return float(np.mean(means)) if means else float("nan")


def measure_generated_set(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    classifier: keras.Model,
    oracle: keras.Model,
    real: tuple[np.ndarray, np.ndarray],
) -> GeneratedSet:
    """Measures generated samples as the project's reports print them.

    Args:
        images: float32 ``[N, ...]`` in [0, 1], generated.
        labels: int ``[N]``, the classes they were asked for.
        classifier: the net under defence; images to logits.
        oracle: a trained net of another architecture; images to logits.
        real: real images, float32 ``[M, ...]`` in [0, 1], and their labels, int ``[M]``, for the
            diversity to compare with.
    """
    logits = _logits(classifier, images)
    by_oracle = _logits(oracle, images).argmax(-1)
    probabilities = tf.nn.softmax(logits).numpy()
    confidence = probabilities.max(-1)
    return GeneratedSet(
        n=len(images),
        oracle_accuracy=float(np.mean(by_oracle == labels)),
        classifier_accuracy=float(np.mean(logits.argmax(-1) == labels)),
        confidence=float(confidence.mean()),
        entropy=float(-np.mean(np.sum(probabilities * np.log(probabilities + 1e-12), -1))),
        margin=float(tf.reduce_mean(losses.top_two_margin(tf.constant(logits)))),
        useful=float(np.mean((by_oracle == labels) & (confidence < 0.9))),
        diversity=intra_class_distance(images, labels),
        real_diversity=intra_class_distance(*real),
    )


def _logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [
            model(images[start : start + _BATCH], training=False).numpy()
            for start in range(0, len(images), _BATCH)
        ]
    )
