"""Ways to make a classifier more robust, all behind ``harden(classifier, data)``."""

from bcgan_tf.defenses.boundary_gan import BCGANDefense
from bcgan_tf.defenses.defense import Defense

__all__ = ["BCGANDefense", "Defense"]
