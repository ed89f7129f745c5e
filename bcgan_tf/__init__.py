"""Harden Keras image classifiers with boundary conditional GANs, and measure the result.

The public names below are imported on first use, so that `import bcgan_tf` (and `bcgan-tf --help`)
does not load TensorFlow.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"


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

# Public name -> the module it comes from.
_MODULES = {
    "ACGAN": "bcgan_tf.models.acgan",
    "APGD": "bcgan_tf.attacks.apgd",
    "Attack": "bcgan_tf.attacks.attack",
    "AttackResult": "bcgan_tf.attacks.attack",
    "BCGAN": "bcgan_tf.models.bcgan",
    "BCGANDefense": "bcgan_tf.defenses.boundary_gan",
    "BoundaryIBPTraining": "bcgan_tf.defenses.ibp",
    "BoundaryPGDTraining": "bcgan_tf.defenses.boundary_adversarial",
    "BoundaryTRADES": "bcgan_tf.defenses.boundary_adversarial",
    "CarliniWagnerL2": "bcgan_tf.attacks.carlini_wagner",
    "ClassifierTrainer": "bcgan_tf.models.classifier_trainer",
    "Dataset": "bcgan_tf.data.dataset",
    "Defense": "bcgan_tf.defenses.defense",
    "DefenseGAN": "bcgan_tf.defenses.defense_gan",
    "DefensiveDistillation": "bcgan_tf.defenses.distillation",
    "Evaluation": "bcgan_tf.evaluation.robust_accuracy",
    "FAB": "bcgan_tf.attacks.fab",
    "FGSM": "bcgan_tf.attacks.fgsm",
    "FGSMTraining": "bcgan_tf.defenses.adversarial_training",
    "GANSettings": "bcgan_tf.defenses.gan_settings",
    "IBPTraining": "bcgan_tf.defenses.ibp",
    "PGD": "bcgan_tf.attacks.pgd",
    "PGDTraining": "bcgan_tf.defenses.adversarial_training",
    "Split": "bcgan_tf.data.dataset",
    "Square": "bcgan_tf.attacks.square",
    "TRADES": "bcgan_tf.defenses.adversarial_training",
    "UserError": "bcgan_tf.errors",
    "bpda": "bcgan_tf.attacks.bpda",
    "certified": "bcgan_tf.certification",
    "certified_accuracy": "bcgan_tf.certification",
    "diagnose": "bcgan_tf.evaluation.diagnostics",
    "evaluate": "bcgan_tf.evaluation.runner",
    "expectation": "bcgan_tf.attacks.expectation",
    "export": "bcgan_tf.serving",
    "load": "bcgan_tf.data",
    "load_classifier": "bcgan_tf.classifier_io",
    "load_model": "bcgan_tf.model_source",
    "minimum_perturbation": "bcgan_tf.evaluation.minimum_perturbation",
    "mlp": "bcgan_tf.networks.classifiers",
    "resnet18": "bcgan_tf.networks.classifiers",
    "small_cnn": "bcgan_tf.networks.classifiers",
    "strided_cnn": "bcgan_tf.networks.strided_cnn",
    "deep_cnn": "bcgan_tf.networks.deep_cnn",
    "suite": "bcgan_tf.attacks.suites",
    "through_preprocessing": "bcgan_tf.attacks.preprocessing",
    "verdict": "bcgan_tf.evaluation.verdict",
}

__all__ = [  # noqa: RUF022  (the names of _MODULES, in its order)
    "__version__",
    "ACGAN",
    "APGD",
    "Attack",
    "AttackResult",
    "BCGAN",
    "BCGANDefense",
    "BoundaryIBPTraining",
    "BoundaryPGDTraining",
    "BoundaryTRADES",
    "CarliniWagnerL2",
    "ClassifierTrainer",
    "Dataset",
    "Defense",
    "DefenseGAN",
    "DefensiveDistillation",
    "Evaluation",
    "FAB",
    "FGSM",
    "FGSMTraining",
    "GANSettings",
    "IBPTraining",
    "PGD",
    "PGDTraining",
    "Split",
    "Square",
    "TRADES",
    "UserError",
    "bpda",
    "certified",
    "certified_accuracy",
    "deep_cnn",
    "diagnose",
    "evaluate",
    "expectation",
    "export",
    "load",
    "load_classifier",
    "load_model",
    "minimum_perturbation",
    "mlp",
    "resnet18",
    "small_cnn",
    "strided_cnn",
    "suite",
    "through_preprocessing",
    "verdict",
]

if TYPE_CHECKING:
    from bcgan_tf.attacks.apgd import APGD
    from bcgan_tf.attacks.attack import Attack, AttackResult
    from bcgan_tf.attacks.bpda import bpda
    from bcgan_tf.attacks.carlini_wagner import CarliniWagnerL2
    from bcgan_tf.attacks.expectation import expectation
    from bcgan_tf.attacks.fab import FAB
    from bcgan_tf.attacks.fgsm import FGSM
    from bcgan_tf.attacks.pgd import PGD
    from bcgan_tf.attacks.preprocessing import through_preprocessing
    from bcgan_tf.attacks.square import Square
    from bcgan_tf.attacks.suites import suite
    from bcgan_tf.certification import certified, certified_accuracy
    from bcgan_tf.classifier_io import load_classifier
    from bcgan_tf.data import load
    from bcgan_tf.data.dataset import Dataset, Split
    from bcgan_tf.defenses.adversarial_training import TRADES, FGSMTraining, PGDTraining
    from bcgan_tf.defenses.boundary_adversarial import BoundaryPGDTraining, BoundaryTRADES
    from bcgan_tf.defenses.boundary_gan import BCGANDefense
    from bcgan_tf.defenses.defense import Defense
    from bcgan_tf.defenses.defense_gan import DefenseGAN
    from bcgan_tf.defenses.distillation import DefensiveDistillation
    from bcgan_tf.defenses.gan_settings import GANSettings
    from bcgan_tf.defenses.ibp import BoundaryIBPTraining, IBPTraining
    from bcgan_tf.errors import UserError
    from bcgan_tf.evaluation.diagnostics import diagnose
    from bcgan_tf.evaluation.minimum_perturbation import minimum_perturbation
    from bcgan_tf.evaluation.robust_accuracy import Evaluation
    from bcgan_tf.evaluation.runner import evaluate
    from bcgan_tf.evaluation.verdict import verdict
    from bcgan_tf.model_source import load_model
    from bcgan_tf.models.acgan import ACGAN
    from bcgan_tf.models.bcgan import BCGAN
    from bcgan_tf.models.classifier_trainer import ClassifierTrainer
    from bcgan_tf.networks.classifiers import mlp, resnet18, small_cnn
    from bcgan_tf.networks.deep_cnn import deep_cnn
    from bcgan_tf.networks.strided_cnn import strided_cnn
    from bcgan_tf.serving import export


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
