"""Ways to make a classifier more robust, all behind ``harden(classifier, x, y)``."""

from bcgan_tf.defenses.adversarial_training import FGSMTraining, PGDTraining, TRADESTraining
from bcgan_tf.defenses.boundary_adversarial import BoundaryPGDTraining, BoundaryTRADESTraining
from bcgan_tf.defenses.boundary_gan import BCGANTraining
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.defenses.defense_gan import DefenseGANTraining
from bcgan_tf.defenses.distillation import DistillationTraining
from bcgan_tf.defenses.ibp import BoundaryIBPTraining, IBPTraining
from bcgan_tf.settings.defenses import GANSettings

__all__ = [
    "BCGANTraining",
    "BoundaryIBPTraining",
    "BoundaryPGDTraining",
    "BoundaryTRADESTraining",
    "Defense",
    "DefenseGANTraining",
    "DistillationTraining",
    "FGSMTraining",
    "GANSettings",
    "IBPTraining",
    "PGDTraining",
    "TRADESTraining",
]
