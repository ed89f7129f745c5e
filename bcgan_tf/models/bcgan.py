"""Boundary conditional GAN: ACGAN plus the paper's eq. 8."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bcgan_tf import losses
from bcgan_tf.models.acgan import ACGAN
from bcgan_tf.settings.fields import check
from bcgan_tf.settings.kinds import BoundaryLoss, Weight

# What the generator may minimise to reach the boundary, and the name of each in the logs.
BOUNDARY_LOSSES = {
    "uniform": "kl_to_uniform",
    "top2": "kl_uniform_top2",
}


@keras.saving.register_keras_serializable(package="bcgan_tf")
class BCGAN(ACGAN):
    """ACGAN whose generator also minimises ``beta * KL(U || softmax(C(G(z, c))))``.

    ``C`` is the frozen classifier under defence: it is called with ``training=False`` and no
    gradient reaches its weights; the gradient flows *through* it to the generator.

    Args:
        generator: see :class:`ACGAN`.
        discriminator: see :class:`ACGAN`.
        classifier: the pre-trained classifier, images in [0, 1] to logits.
        beta: weight of the boundary term, at least 0. 0 is a plain ACGAN.
        warmup_steps: steps over which beta rises linearly from 0, after ``delay_steps``. The
            generator first has to draw digits before it can draw ambiguous ones: with the full
            term from the start it finds a few patterns that confuse ``C`` and stays there.
        delay_steps: steps at beta 0 before the rise begins.
        boundary_loss: the boundary term: ``"uniform"``, the paper's; ``"top2"``, the divergence
            from uniform over ``c`` and its runner-up.
        **kwargs: of :class:`ACGAN`.

    Reference: the paper's eq. 8; Lee et al. 2018, "Training Confidence-calibrated Classifiers".
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        *,
        classifier: keras.Model,
        beta: Weight,
        warmup_steps: int = 0,
        delay_steps: int = 0,
        boundary_loss: BoundaryLoss = "uniform",
        **kwargs: Any,
    ):
        check(BCGAN.__init__, beta=beta, boundary_loss=boundary_loss)
        # Before the base class asks for the names of the metrics.
        self.boundary_loss = boundary_loss
        super().__init__(generator, discriminator, **kwargs)
        self.classifier = classifier
        self.beta = beta
        self.warmup_steps = warmup_steps
        self.delay_steps = delay_steps

    def _metric_names(self) -> tuple[str, ...]:
        own = (BOUNDARY_LOSSES[self.boundary_loss], "classifier_confidence")
        return (*super()._metric_names(), *own)

    def current_beta(self, step: tf.Tensor) -> tf.Tensor:
        """The weight of the boundary term at a training step, float32 scalar."""
        after = tf.cast(step, tf.float32) - float(self.delay_steps)
        if self.warmup_steps:
            return self.beta * tf.clip_by_value(after / float(self.warmup_steps), 0.0, 1.0)
        return tf.where(after >= 0, tf.constant(self.beta, tf.float32), 0.0)

    def boundary_term(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """How far the classifier's logits are from a boundary, float32 ``[B]``, before beta."""
        if self.boundary_loss == "top2":
            return losses.kl_uniform_top2(logits, labels)
        return losses.kl_to_uniform(logits)

    def generator_loss(self, fakes: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        logits = self.classifier(fakes, training=False)
        boundary = self.boundary_term(logits, labels)
        self._track(BOUNDARY_LOSSES[self.boundary_loss], boundary)
        self._track("classifier_confidence", tf.reduce_max(tf.nn.softmax(logits), axis=-1))
        return super().generator_loss(fakes, labels, step) + self.current_beta(step) * boundary

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "beta": self.beta,
            "warmup_steps": self.warmup_steps,
            "delay_steps": self.delay_steps,
            "boundary_loss": self.boundary_loss,
        }
