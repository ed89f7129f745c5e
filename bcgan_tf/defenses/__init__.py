"""Ways to make a classifier more robust, all behind ``harden(classifier, data)``."""

from bcgan_tf.defenses.adversarial_training import TRADES, FGSMTraining, PGDTraining
from bcgan_tf.defenses.boundary_adversarial import BoundaryPGDTraining, BoundaryTRADES
from bcgan_tf.defenses.boundary_gan import BCGANDefense
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.defenses.defense_gan import DefenseGAN
from bcgan_tf.defenses.distillation import DefensiveDistillation
from bcgan_tf.defenses.gan_settings import GANSettings
from bcgan_tf.defenses.ibp import BoundaryIBPTraining, IBPTraining

__all__ = [
    "TRADES",
    "BCGANDefense",
    "BoundaryIBPTraining",
    "BoundaryPGDTraining",
    "BoundaryTRADES",
    "Defense",
    "DefenseGAN",
    "DefensiveDistillation",
    "FGSMTraining",
    "GANSettings",
    "IBPTraining",
    "PGDTraining",
]
