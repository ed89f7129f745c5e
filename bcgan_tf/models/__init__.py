"""``keras.Model`` subclasses with a custom ``train_step``."""

from bcgan_tf.models.acgan import ACGAN
from bcgan_tf.models.bcgan import BCGAN

__all__ = ["ACGAN", "BCGAN"]
