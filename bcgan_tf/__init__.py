"""Harden Keras image classifiers against adversarial examples, and measure the result.

The public names stand in ``__init__.pyi`` and are imported on first use: ``import bcgan_tf`` and
``bcgan-tf --help`` load no TensorFlow.
"""

from __future__ import annotations

import os
import sys

import lazy_loader

from bcgan_tf.version import __version__ as __version__


def _pin_keras_backend() -> None:
    """Choose Keras' TensorFlow backend, or say clearly that another one was forced."""
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise ImportError(
            f"bcgan_tf needs Keras' TensorFlow backend, but KERAS_BACKEND={backend!r} is set; "
            "unset it or set KERAS_BACKEND=tensorflow"
        )
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config") and keras.config.backend() != backend:
        raise ImportError(
            f"bcgan_tf needs Keras' TensorFlow backend, but Keras is already imported with "
            f"{keras.config.backend()!r}; import bcgan_tf first, or set KERAS_BACKEND=tensorflow"
        )


_pin_keras_backend()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
