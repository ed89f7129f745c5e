"""Expectation over transformation: a model that draws random numbers, averaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.answers import derived
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.logits import logits_differ

SAMPLES = 20
PASSES = 5


def expectation(logits_fn: Any, samples: int = SAMPLES) -> LogitsFn:
    """The mean logits of ``samples`` calls, as a model that attacks take.

    The gradient of a single call of a stochastic model points elsewhere at the next call, and a
    success may not last. Attacks therefore optimize the mean logits, and the mean logits decide
    whether an example is broken.

    Args:
        logits_fn: a Keras model or a callable, images to logits ``[B, K]``. Its randomness must
            be TensorFlow's; one that draws by NumPy is refused by every attack.
        samples: calls that are averaged, one after the other; time and memory of the gradient are
            proportional to it.

    Reference: Athalye, Engstrom, Ilyas, Kwok 2018, "Synthesizing Robust Adversarial Examples";
    20 samples as in AutoAttack's version for randomised defences.
    """
    checks.check_positive_int("samples", samples)
    forward = checks.as_logits_fn(logits_fn)

    def mean_logits(images: tf.Tensor) -> tf.Tensor:
        drawn = tf.map_fn(
            lambda _: forward(images),
            tf.range(samples),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        return tf.reduce_mean(drawn, axis=0)

    return derived(mean_logits, logits_fn)


def differing_answers(model: Any, images: np.ndarray, batch_size: int = 250) -> float:
    """Share of images whose logits differ between five passes, beyond rounding."""
    predict = Batched(checks.as_logits_fn(model), batch_size)
    first, *others = (predict(images) for _ in range(PASSES))
    return float(np.logical_or.reduce([logits_differ(first, one) for one in others]).mean())
