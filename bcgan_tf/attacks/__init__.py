"""Attacks: a frozen configuration that is called on a model, images and true labels."""

from __future__ import annotations

from bcgan_tf.attacks.attack import Attack, AttackResult
from bcgan_tf.attacks.carlini_wagner import CarliniWagnerL2
from bcgan_tf.attacks.fgsm import FGSM
from bcgan_tf.attacks.pgd import PGD

__all__ = ["FGSM", "PGD", "Attack", "AttackResult", "CarliniWagnerL2"]
