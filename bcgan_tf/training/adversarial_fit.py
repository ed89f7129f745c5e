"""Adversarial training by a user's own `compile` and `fit`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf import randomness
from bcgan_tf.attacks.pgd import PGD
from bcgan_tf.attacks.preprocessing import as_attacked
from bcgan_tf.data.arrays import as_images
from bcgan_tf.errors import UserError
from bcgan_tf.loading.classifier import adapted_classifier
from bcgan_tf.training.inner_maximization import InnerMaximization
from bcgan_tf.training.own_augmentation import OwnAugmentation

# Purpose of the draws of the attack's starts.
_START = 19


def adversarial(
    model: keras.Model, *, eps: float, steps: int = 7, norm: str = "linf", seed: int = 0
) -> keras.Model:
    """A model whose `fit` trains `model` on adversarial examples of itself.

    Compile and fit what is returned as usual: loss, optimizer, metrics, callbacks, class and
    sample weights, `tf.data` and `MirroredStrategy` are Keras' own. Every batch is first attacked
    by PGD, which raises the compiled loss; augmentation layers at the beginning of `model` are
    drawn before that. `model` itself is trained, in place.

    In the log, `loss` and the metrics of training are of the adversarial examples; those with
    `val_`, and what `evaluate` returns, are of the clean images. For the robust accuracy after each
    epoch add :class:`bcgan_tf.training.RobustAccuracy`. `save`, and so `ModelCheckpoint`, writes
    `model` as an ordinary Keras model, without the optimizer.

    Args:
        model: float32 images in [0, 1] to logits `[B, K]`, built; compile the result with a loss of
            logits (`from_logits=True`).
        eps: radius of the ball, in [0, 1] pixel units.
        steps: of PGD, each of `2.5 * eps / steps` from a random start.
        norm: of the ball, `"linf"` or `"l2"`.
        seed: of the random starts.

    Raises:
        UserError: a value is out of range, or `model` is no such classifier. From `compile`: the
            loss is one of probabilities. From `fit`: the images are not floats in [0, 1].

    Example:
        >>> robust = bcgan_tf.training.adversarial(model, eps=0.1)
        >>> robust.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> robust.fit(x_train, y_train, validation_split=0.1)
        >>> model.save("robust.keras")

    Reference: Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks".
    """
    PGD(eps, norm=norm, steps=steps, seed=seed)  # checks the values, together
    wanted = (
        "Give one of images in [0, 1] to logits, without softmax, or harden it by "
        "bcgan_tf.defenses.PGDTraining, which takes others as they are"
    )
    try:
        found = adapted_classifier(model)
    except UserError as error:
        raise UserError(f"{error}. {wanted}") from error
    if found.lines:
        raise UserError(
            f"the model is trained as it is, without: {'; '.join(found.lines)}. {wanted}"
        )
    with model.distribute_strategy.scope():
        return _Adversarial(model, eps, InnerMaximization(steps=steps, norm=norm), seed)


class _Adversarial(keras.Model):
    """See :func:`adversarial`."""

    def __init__(
        self, classifier: keras.Model, eps: float, attack: InnerMaximization, seed: int
    ) -> None:
        super().__init__(name=f"adversarial_{classifier.name}")
        self.classifier = classifier
        self._eps, self._attack, self._seed = eps, attack, seed
        self._attacked = as_attacked(classifier)
        self._augmentation = OwnAugmentation.of(classifier)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """The classifier's logits; its augmentation is drawn by :meth:`train_step`."""
        if training and self._augmentation is not None:
            return self._augmentation.in_training(inputs)
        return self.classifier(inputs, training=training)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As of any Keras model."""
        super().compile(*args, **kwargs)
        loss = keras.losses.get(self.loss) if isinstance(self.loss, str) else self.loss
        # Keras' functions, such as sparse_categorical_crossentropy, take probabilities by default.
        name = f"{getattr(loss, '__module__', '')}.{getattr(loss, '__name__', '')}"
        function = name.startswith("keras.") and name.endswith("crossentropy")
        if getattr(loss, "from_logits", not function) is False:
            raise UserError(
                "the loss takes probabilities, and the model gives logits; compile with a loss of "
                "logits, such as keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
            )

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As of any Keras model; refuses arrays whose images are not in [0, 1]."""
        if isinstance(x, np.ndarray) and x.dtype != np.uint8:
            as_images(x)
        return super().fit(x, *args, **kwargs)

    def train_step(self, data: Any) -> Any:
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if not images.dtype.is_floating:
            raise UserError(
                f"the images are {images.dtype.name}, and the model is trained on floats in "
                "[0, 1]; give x.astype('float32') / 255"
            )

        images = tf.cast(images, tf.float32)
        if self._augmentation is not None:
            images = self._augmentation.augmented(images)

        def objective(logits: Any) -> Any:
            return self.compute_loss(images, labels, logits, training=False)

        found = self._attack(
            self._attacked,
            images,
            tf.constant(self._eps, tf.float32),
            objective,
            randomness.step_seed(self._seed, _START, self.optimizer.iterations),
        )
        return super().train_step((found, labels, weights))

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the classifier, as an ordinary Keras model."""
        self.classifier.save(*args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """Saves the classifier's weights."""
        self.classifier.save_weights(*args, **kwargs)

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """Loads the classifier's weights."""
        self.classifier.load_weights(*args, **kwargs)
