"""Every defence by name, with its settings for a data set and a preset."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bcgan_tf.defenses.adversarial_training import FGSMTraining, PGDTraining, TRADESTraining
from bcgan_tf.defenses.boundary_adversarial import (
    BoundaryPGDTraining,
    BoundaryTRADESTraining,
    FilteredBoundaryTraining,
)
from bcgan_tf.defenses.boundary_gan import BCGANTraining
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.defenses.defense_gan import DefenseGANTraining
from bcgan_tf.defenses.distillation import DistillationTraining
from bcgan_tf.defenses.ibp import BoundaryIBPTraining, IBPTraining
from bcgan_tf.defenses.robust_training import RobustTraining
from bcgan_tf.errors import UserError
from bcgan_tf.settings.defenses import GANSettings
from bcgan_tf.settings.fields import Setting, parsed, settings_of
from bcgan_tf.settings.kinds import RADIUS

DEFENSES: dict[str, type[Defense]] = {
    defense.name: defense
    for defense in (
        BCGANTraining,
        FGSMTraining,
        PGDTraining,
        TRADESTraining,
        BoundaryPGDTraining,
        BoundaryTRADESTraining,
        IBPTraining,
        BoundaryIBPTraining,
        DistillationTraining,
        DefenseGANTraining,
    )
}
# Linf radius that adversarial training defends against, in [0, 1] pixel units.
EPS = RADIUS
_WITH_EPS = tuple(name for name, kind in DEFENSES.items() if issubclass(kind, RobustTraining))
_NOT_OPTIONS = ("seed", "devices")

_SMALL_DATA = {"epochs": 30, "batch_size": 32, "ramp_epochs": 8.0}
# A step of the paper's small CNN takes two thirds of the time on processors that know bfloat16.
_MIXED = {"dtype": "mixed_bfloat16"}
_CIFAR = {"ramp_epochs": 0.0}
_CIFAR_LONG = {**_CIFAR, "augment": "crop-flip"}
# About an hour on one core with the network of the preset.
_LONG = {**_MIXED, "epochs": 45, "ramp_epochs": 6.0, "ema_decay": 0.999}
_LONG_IBP = {"epochs": 40, "ramp_epochs": 15.0, "ema_decay": 0.999}
# Half of each batch is clean, so that training starts without a ramp.
_ONE_STEP = {"ramp_epochs": 0.0}
# A quarter of the width for a WGAN that two cores train in ten minutes.
_SMALL_WGAN = {
    "generator_width": 0.25,
    "critic_width": 0.25,
    "gan_learning_rate": 5e-4,
    "critic_steps": 3,
    "gan_epochs": 7,
}
# The GAN, and the oracle's epochs, as the recipes of the data set have them.
_SMALL_GAN = GANSettings(gan_epochs=50, gan_batch_size=32, delay_epochs=20.0, warmup_epochs=10.0)
_DIGITS_GAN = dataclasses.replace(_SMALL_GAN, gan_epochs=120, delay_epochs=70.0, warmup_epochs=20.0)
_PAPER_GAN = GANSettings(
    gan_epochs=50,
    gan_learning_rate=2e-4,
    generator_width=1.0,
    discriminator_width=1.0,
    dropout=0.5,
    delay_epochs=20.0,
    warmup_epochs=10.0,
)
_GAN = {
    ("mnist", "paper"): (_PAPER_GAN, 10),
    ("fashion_mnist", "paper"): (_PAPER_GAN, 10),
    ("cifar10", "quick"): (
        GANSettings(gan_epochs=10, delay_epochs=5.0, warmup_epochs=2.0, dtype="mixed_bfloat16"),
        2,
    ),
    ("cifar10", "paper"): (dataclasses.replace(_PAPER_GAN, gan_epochs=100), 10),
    ("digits", "quick"): (_DIGITS_GAN, 20),
    ("folder", "quick"): (_SMALL_GAN, 20),
    ("digits", "paper"): (dataclasses.replace(_SMALL_GAN, gan_epochs=400), 20),
}
_PAPER_SEARCH = {"steps": 12_000, "gan_epochs": 926}
_CHANGES: dict[tuple[str, str, str], dict[str, Any]] = {
    ("pgd-at", "mnist", "quick"): {"epochs": 12},
    ("trades", "mnist", "quick"): {**_MIXED, "epochs": 12},
    ("pgd-at", "mnist", "paper"): {"steps": 40, "epochs": 80},
    ("trades", "mnist", "paper"): {"steps": 40, "epochs": 100},
    ("fgsm-at", "mnist", "quick"): {**_ONE_STEP, "epochs": 10},
    ("fgsm-at", "mnist", "paper"): {**_ONE_STEP, "epochs": 80},
    ("pgd-at", "fashion_mnist", "quick"): {**_MIXED, "epochs": 10, "ramp_epochs": 2.0},
    ("trades", "fashion_mnist", "quick"): {**_MIXED, "epochs": 10, "ramp_epochs": 2.0},
    ("pgd-at", "fashion_mnist", "paper"): {"steps": 20, "epochs": 80},
    ("trades", "fashion_mnist", "paper"): {"steps": 20, "epochs": 100},
    ("fgsm-at", "fashion_mnist", "quick"): {**_ONE_STEP, "epochs": 10},
    ("fgsm-at", "fashion_mnist", "paper"): {**_ONE_STEP, "epochs": 80},
    ("pgd-at", "cifar10", "quick"): {**_CIFAR, "epochs": 12, "steps": 3},
    ("trades", "cifar10", "quick"): {**_CIFAR, "epochs": 10, "steps": 3, "beta": 6.0},
    ("fgsm-at", "cifar10", "quick"): {**_CIFAR, "epochs": 10},
    ("pgd-at", "cifar10", "paper"): {**_CIFAR_LONG, "epochs": 200, "steps": 7},
    ("trades", "cifar10", "paper"): {**_CIFAR_LONG, "epochs": 100, "steps": 10, "beta": 6.0},
    ("fgsm-at", "cifar10", "paper"): {**_CIFAR_LONG, "epochs": 200},
    ("pgd-at", "mnist", "robust"): {**_LONG, "augment": "shift", "steps": 10, "eps_ratio": 1.1},
    ("trades", "mnist", "robust"): {**_LONG, "augment": "shift", "beta": 6.0},
    ("pgd-at", "fashion_mnist", "robust"): {**_LONG, "augment": "flip"},
    ("trades", "fashion_mnist", "robust"): {**_LONG, "augment": "flip", "beta": 8.0},
    ("ibp", "mnist", "robust"): {**_LONG_IBP, "eps_ratio": 7 / 6},
    ("ibp", "fashion_mnist", "robust"): {**_LONG_IBP, "eps_ratio": 1.1},
    ("ibp", "mnist", "quick"): {"eps_ratio": 7 / 6},
    ("ibp", "mnist", "paper"): {"eps_ratio": 4 / 3, "epochs": 100, "ramp_epochs": 40.0},
    ("ibp", "fashion_mnist", "quick"): {"eps_ratio": 1.1},
    ("ibp", "fashion_mnist", "paper"): {"eps_ratio": 1.1, "epochs": 100, "ramp_epochs": 40.0},
    ("ibp", "cifar10", "quick"): {"eps_ratio": 1.1, "epochs": 10, "ramp_epochs": 5.0},
    ("ibp", "cifar10", "paper"): {"eps_ratio": 1.1, "epochs": 200, "ramp_epochs": 80.0},
    ("ibp", "digits", "quick"): {"epochs": 60, "batch_size": 32, "ramp_epochs": 30.0},
    ("pgd-at", "digits", "quick"): _SMALL_DATA,
    ("trades", "digits", "quick"): _SMALL_DATA,
    ("fgsm-at", "digits", "quick"): _SMALL_DATA,
    **{("defense-gan", name, "quick"): _SMALL_WGAN for name in ("mnist", "fashion_mnist")},
    ("defense-gan", "cifar10", "quick"): {**_SMALL_WGAN, "gan_epochs": 40},
    **{
        ("defense-gan", name, "paper"): _PAPER_SEARCH
        for name in ("mnist", "fashion_mnist", "cifar10")
    },
    ("defense-gan", "digits", "quick"): {**_SMALL_WGAN, "gan_epochs": 60, "restarts": 4},
    ("distillation", "mnist", "quick"): {"epochs": 12},
    ("distillation", "fashion_mnist", "quick"): {"epochs": 30},
    ("distillation", "cifar10", "quick"): {"initial_epochs": 8, "epochs": 12, "learning_rate": 0.1},
    ("distillation", "digits", "quick"): {
        "epochs": 40,
        "initial_epochs": 5,
        "batch_size": 32,
        "learning_rate": 5e-2,
    },
}
# Boundary samples are added to a training as it is without them.
_WITHOUT_FAKES = {"bcgan-at": "pgd-at", "bcgan-trades": "trades", "bcgan-ibp": "ibp"}


def defense(
    name: str,
    dataset: str,
    preset: str = "quick",
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    devices: int | None = None,
) -> Defense:
    """A defence with a preset's settings.

    Args:
        name: one of :data:`DEFENSES`.
        dataset: a name that ``bcgan_tf.load`` knows; a folder of images takes those of digits,
            and training for a radius then needs ``eps`` among the options.
        preset: ``"quick"``, ``"paper"`` or ``"robust"``.
        options: settings to change, as values or as text.
        seed: of everything the defence draws.
        devices: see :class:`Defense`.

    Raises:
        UserError: no such defence or setting, or a value that is none.
    """
    if name not in DEFENSES:
        raise UserError(f"there is no defense {name!r}; choose one of {', '.join(DEFENSES)}")
    kind = DEFENSES[name]
    given = dict(options or {})
    small = dataset.startswith("folder:")
    known = "digits" if small else dataset
    preset = "quick" if small else preset
    settings = _preset(name, known, preset) | _gan(name, "folder" if small else dataset, preset)
    if name in _WITH_EPS:
        if dataset in EPS:
            settings.setdefault("eps", EPS[dataset])
        elif "eps" not in given:
            raise UserError(
                f"{name} needs the radius to defend against: for images of your own pass "
                "-o eps=... (in [0, 1] pixel units, such as 8/255)"
            )
    chosen = parsed(name, options_of(kind), given)
    settings |= {option: value for option, value in chosen.items() if "." not in option}
    for outer in {option.partition(".")[0] for option in chosen} - set(chosen):
        inner = {o.partition(".")[2]: v for o, v in chosen.items() if o.startswith(f"{outer}.")}
        default = settings.get(outer, settings_of(kind)[outer].default)
        settings[outer] = dataclasses.replace(default, **inner)
    found = kind(**settings, seed=seed, devices=devices)
    unread = {*found.ignored()}
    if useless := [option for option in given if unread & {option, option.partition(".")[0]}]:
        raise UserError(
            f"{name} does not read {', '.join(useless)} beside its other settings; leave it out"
        )
    return found


def _preset(name: str, dataset: str, preset: str) -> dict[str, Any]:
    """What a preset changes of a defence's defaults, its GAN aside."""
    name = _WITHOUT_FAKES.get(name, name)
    found = _CHANGES.get((name, dataset, preset))
    if found is None and dataset == "digits":  # the defaults are of a set forty times as large
        found = _CHANGES.get((name, dataset, "quick"))
    return dict(found or {})


def _gan(name: str, dataset: str, preset: str) -> dict[str, Any]:
    """What it changes of the GAN whose samples are added to a training."""
    if name not in _WITHOUT_FAKES or (dataset, preset) not in _GAN:
        return {}
    gan, oracle_epochs = _GAN[dataset, preset]
    if issubclass(DEFENSES[name], FilteredBoundaryTraining):
        return {"gan": gan, "oracle_epochs": oracle_epochs}
    return {"gan": gan}


def options_of(kind: type[Defense]) -> dict[str, Setting]:
    """The options of a defence; those of its GAN are ``gan.beta`` etc."""
    found: dict[str, Setting] = {}
    for name, setting in settings_of(kind).items():
        if dataclasses.is_dataclass(setting.default):
            inner = settings_of(type(setting.default))
            found |= {f"{name}.{part}": entry for part, entry in inner.items()}
        elif name not in _NOT_OPTIONS:
            found[name] = setting
    return found
