"""Ways to make a classifier more robust, all behind ``harden(classifier, data)``."""

from bcgan_tf.defenses.adversarial_training import TRADES, FGSMTraining, PGDTraining
from bcgan_tf.defenses.boundary_gan import BCGANDefense
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.defenses.defense_gan import DefenseGAN
from bcgan_tf.defenses.distillation import DefensiveDistillation

__all__ = [
    "TRADES",
    "BCGANDefense",
    "Defense",
    "DefenseGAN",
    "DefensiveDistillation",
    "FGSMTraining",
    "PGDTraining",
]
