"""Training in another precision than that of the classifier that was given."""

from __future__ import annotations

import keras

from bcgan_tf.defenses.defense import copy_classifier
from bcgan_tf.errors import UserError
from bcgan_tf.keras_graph import copy_in


def in_precision(classifier: keras.Model, dtype: str | None) -> keras.Model:
    """A copy that computes in ``dtype``, its images and logits in float32; None: itself.

    Raises:
        UserError: a layer cannot be rebuilt from its configuration.
    """
    if dtype is None:
        return classifier
    try:
        return copy_in(classifier, dtype, ends="float32")
    except Exception as error:  # a layer of a user's own may fail in any way
        reason = str(error).splitlines()[-1]
        raise UserError(
            f"the classifier cannot be rebuilt in {dtype} ({reason}); leave out dtype"
        ) from error


def as_given(classifier: keras.Model, trained: keras.Model, dtype: str | None) -> keras.Model:
    """What was ``trained`` in ``dtype``, in the precision of ``classifier``; None: itself."""
    if dtype is None:
        return trained
    result = copy_classifier(classifier)
    result.set_weights(trained.get_weights())
    result.trainable = True
    return result
