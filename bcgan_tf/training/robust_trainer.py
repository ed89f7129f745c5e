"""The base of robust trainers: a growing radius, a moving average of the weights, validation."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from bcgan_tf import losses, randomness
from bcgan_tf.attacks.preprocessing import as_attacked, monotone_preprocessing
from bcgan_tf.keras_graph import frozen_weights
from bcgan_tf.networks.copies import clone
from bcgan_tf.settings.fields import check
from bcgan_tf.settings.kinds import BelowOne, TrainingEps
from bcgan_tf.training.classifier_trainer import BatchBuilder, ClassifierTrainer
from bcgan_tf.training.inner_maximization import InnerMaximization, Objective
from bcgan_tf.training.own_augmentation import OwnAugmentation

_VALIDATION_START = 18
# The attack of validation, stronger than those of training.
_VALIDATION = InnerMaximization(steps=20)


class RobustTrainer(ClassifierTrainer):
    """A classifier trainer for a Linf ball of radius eps; subclasses write ``train_step``.

    Augmentation layers at the beginning of the classifier are drawn before the attack.

    Validation reports ``accuracy`` on clean images and ``robust_accuracy`` under 20 steps of PGD
    at the full eps, which shows at once when the network overfits to the attack of training.

    Args:
        classifier: functional model, float32 images in [0, 1] to logits ``[B, K]``.
        eps: Linf radius of validation, in [0, 1] pixel units.
        training_eps: the radius that training rises to; None: ``eps``.
        ramp_steps: training steps over which it rises linearly from 0. Without this rise a small
            network gives the same answer to all images at a large eps, and never learns more.
        ema_decay: of the moving average of the weights, which is then what is validated and
            saved (:attr:`eval_model`); 0 is off.
        seed: of the attack's starts and of ``build_batch``.
        build_batch: see :class:`ClassifierTrainer`. Its weights may be ``[B', 2]``: of the first
            and of the second term of a loss that has two.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        eps: TrainingEps,
        training_eps: TrainingEps | None = None,
        ramp_steps: int = 0,
        ema_decay: BelowOne = 0.0,
        seed: int = 0,
        build_batch: BatchBuilder | None = None,
        **kwargs: Any,
    ):
        check(RobustTrainer.__init__, eps=eps, training_eps=training_eps, ema_decay=ema_decay)
        super().__init__(classifier, seed=seed, build_batch=build_batch, **kwargs)
        self.eps = eps
        self.training_eps = eps if training_eps is None else training_eps
        self.ramp_steps = ramp_steps
        self.ema_decay = ema_decay
        self.ema_model = clone(classifier) if ema_decay else None
        self._frozen = frozen_weights(classifier)
        # The attacks see the network's preprocessing with a usable gradient.
        self._attacked = as_attacked(classifier)
        self._parts = monotone_preprocessing(classifier)
        self._augmentation = OwnAugmentation.of(classifier)
        self._eval_attacked = as_attacked(self.eval_model)
        self._robust_accuracy = keras.metrics.SparseCategoricalAccuracy(name="robust_accuracy")

    @property
    def eval_model(self) -> keras.Model:
        """The classifier that is validated and saved: the moving average, if there is one."""
        return self.classifier if self.ema_model is None else self.ema_model

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, self._robust_accuracy]

    def get_metrics_result(self) -> dict[str, Any]:
        """The metrics that were updated in this epoch, summed over all replicas.

        A step may return fewer metrics than there are; Keras would then log one replica's values.
        """
        metrics: list[Any] = self.metrics
        counts = {m.name: float(keras.ops.convert_to_numpy(m.count)) for m in metrics}
        results = super().get_metrics_result()
        return {name: value for name, value in results.items() if counts[name]}

    def current_eps(self) -> tf.Tensor:
        """The radius at this step of training, float32 scalar."""
        if not self.ramp_steps:
            return tf.constant(self.training_eps, tf.float32)
        share = tf.cast(self.optimizer.iterations, tf.float32) / self.ramp_steps
        return self.training_eps * tf.minimum(share, 1.0)

    def adversarial_examples(
        self,
        attack: InnerMaximization,
        images: tf.Tensor,
        objective: Objective,
        eps: tf.Tensor,
        seed: tf.Tensor,
        *,
        whole_path: bool = False,
    ) -> tf.Tensor:
        """Adversarial examples for :meth:`training_logits`: pixels, or preprocessed pixels."""
        if self._parts is None:
            return attack(self._attacked, images, eps, objective, seed, whole_path=whole_path)
        before, after = self._parts
        return attack(
            lambda prepared: after(prepared, training=False),
            images,
            eps,
            objective,
            seed,
            prepare=lambda pixels: before(pixels, training=False),
            whole_path=whole_path,
        )

    def training_logits(self, adversarial: tf.Tensor) -> tf.Tensor:
        """Logits in training mode of the output of :meth:`adversarial_examples`."""
        if self._parts is not None:
            return self._parts[1](adversarial, training=True)
        return self.clean_logits(adversarial)

    def clean_logits(self, images: tf.Tensor) -> tf.Tensor:
        """Logits in training mode of images that are augmented already."""
        if self._augmentation is None:
            return self.classifier(images, training=True)
        return self._augmentation.in_training(images)

    def _built_batch(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images, *rest = super()._built_batch(images, labels)
        if self._augmentation is not None:
            images = self._augmentation.augmented(images)
        return images, *rest

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        seed = randomness.step_seed(self.seed, _VALIDATION_START, tf.constant(0))
        adversarial = _VALIDATION(
            self._eval_attacked,
            images,
            tf.constant(self.eps, tf.float32),
            lambda logits: losses.cross_entropy(labels, logits),
            seed,
        )
        logits = self.eval_model(images, training=False)
        self._loss.update_state(losses.cross_entropy(labels, logits), weights)
        self._accuracy.update_state(labels, logits, weights)
        attacked = self.eval_model(adversarial, training=False)
        # Correct on both images: an attack never makes a wrong answer right.
        both = tf.where(
            tf.equal(tf.argmax(logits, -1), tf.cast(labels, tf.int64))[:, None], attacked, logits
        )
        self._robust_accuracy.update_state(labels, both, weights)
        return {metric.name: metric.result() for metric in self.metrics}

    def _descend(self, tape: tf.GradientTape, objective: tf.Tensor) -> None:
        """One step of the optimizer, and of the moving average of the weights."""
        super()._descend(tape, objective)
        if self.ema_model is None:
            return
        # A smaller decay in the first steps, so that the average follows the weights early on.
        steps = tf.cast(self.optimizer.iterations, tf.float32)
        decay = tf.minimum(self.ema_decay, steps / (steps + 10.0))
        for mean, weight in zip(self.ema_model.weights, self.classifier.weights, strict=True):
            # Counts, and what does not change: an average with itself would be rounded.
            if not keras.backend.is_float_dtype(mean.dtype) or id(weight) in self._frozen:
                continue
            mean.assign(decay * mean + (1.0 - decay) * tf.cast(weight, mean.dtype))


def weights_of_terms(weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The weights ``[B]`` of a loss's first and second term, from ``[B]`` or ``[B, 2]``."""
    if len(weights.shape) == 1:
        return weights, weights
    return weights[:, 0], weights[:, 1]
