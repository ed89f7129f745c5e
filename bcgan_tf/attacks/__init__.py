"""Attacks: a frozen configuration that is called on a model, images and true labels."""

from __future__ import annotations

from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.bpda import bpda
from bcgan_tf.attacks.carlini_wagner import CarliniWagnerL2
from bcgan_tf.attacks.constraint_relaxation import ConstraintRelaxation
from bcgan_tf.attacks.expectation import expectation
from bcgan_tf.attacks.fab import FAB
from bcgan_tf.attacks.fgsm import FGSM
from bcgan_tf.attacks.pgd import PGD
from bcgan_tf.attacks.preprocessing import through_preprocessing
from bcgan_tf.attacks.result import AttackResult
from bcgan_tf.attacks.square import Square
from bcgan_tf.attacks.suites import suite

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "PGD",
    "Attack",
    "AttackResult",
    "CarliniWagnerL2",
    "ConstraintRelaxation",
    "Square",
    "bpda",
    "expectation",
    "suite",
    "through_preprocessing",
]
