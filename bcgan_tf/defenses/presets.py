"""Every defence by name, with its settings for a data set and a preset."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bcgan_tf.defenses.adversarial_training import TRADES, FGSMTraining, PGDTraining
from bcgan_tf.defenses.boundary_gan import BCGANDefense
from bcgan_tf.defenses.defense import Defense
from bcgan_tf.defenses.defense_gan import DefenseGAN
from bcgan_tf.defenses.distillation import DefensiveDistillation
from bcgan_tf.errors import UserError

DEFENSES: dict[str, type[Defense]] = {
    defense.name: defense
    for defense in (
        BCGANDefense,
        FGSMTraining,
        PGDTraining,
        TRADES,
        DefensiveDistillation,
        DefenseGAN,
    )
}
# Linf radius that adversarial training defends against, in [0, 1] pixel units.
EPS = {"mnist": 0.3, "fashion_mnist": 0.1, "cifar10": 8 / 255, "digits": 0.15}
_ADVERSARIAL = ("fgsm-at", "pgd-at", "trades")
_NOT_OPTIONS = ("seed", "devices")

_SMALL_DATA = {"epochs": 30, "batch_size": 32, "ramp_epochs": 8.0}
_CIFAR = {"ramp_epochs": 0.0}
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
_PAPER_SEARCH = {"steps": 12_000, "gan_epochs": 926}
_CHANGES: dict[tuple[str, str, str], dict[str, Any]] = {
    ("pgd-at", "mnist", "quick"): {"epochs": 12},
    ("trades", "mnist", "quick"): {"epochs": 12},
    ("pgd-at", "mnist", "paper"): {"steps": 40, "epochs": 80},
    ("trades", "mnist", "paper"): {"steps": 40, "epochs": 100},
    ("fgsm-at", "mnist", "quick"): {**_ONE_STEP, "epochs": 10},
    ("fgsm-at", "mnist", "paper"): {**_ONE_STEP, "epochs": 80},
    ("pgd-at", "fashion_mnist", "quick"): {"epochs": 10, "ramp_epochs": 2.0},
    ("trades", "fashion_mnist", "quick"): {"epochs": 10, "ramp_epochs": 2.0},
    ("pgd-at", "fashion_mnist", "paper"): {"steps": 20, "epochs": 80},
    ("trades", "fashion_mnist", "paper"): {"steps": 20, "epochs": 100},
    ("fgsm-at", "fashion_mnist", "quick"): {**_ONE_STEP, "epochs": 10},
    ("fgsm-at", "fashion_mnist", "paper"): {**_ONE_STEP, "epochs": 80},
    ("pgd-at", "cifar10", "quick"): {**_CIFAR, "epochs": 5, "steps": 3},
    ("trades", "cifar10", "quick"): {**_CIFAR, "epochs": 4, "steps": 3, "beta": 6.0},
    ("fgsm-at", "cifar10", "quick"): {**_CIFAR, "epochs": 6},
    ("pgd-at", "cifar10", "paper"): {**_CIFAR, "epochs": 200, "steps": 7},
    ("trades", "cifar10", "paper"): {**_CIFAR, "epochs": 100, "steps": 10, "beta": 6.0},
    ("fgsm-at", "cifar10", "paper"): {**_CIFAR, "epochs": 200},
    ("pgd-at", "digits", "quick"): _SMALL_DATA,
    ("trades", "digits", "quick"): _SMALL_DATA,
    ("fgsm-at", "digits", "quick"): _SMALL_DATA,
    **{
        ("defense-gan", name, "quick"): _SMALL_WGAN
        for name in ("mnist", "fashion_mnist", "cifar10")
    },
    **{
        ("defense-gan", name, "paper"): _PAPER_SEARCH
        for name in ("mnist", "fashion_mnist", "cifar10")
    },
    ("defense-gan", "digits", "quick"): {**_SMALL_WGAN, "gan_epochs": 60, "restarts": 4},
    ("distillation", "mnist", "quick"): {"epochs": 12},
    ("distillation", "fashion_mnist", "quick"): {"epochs": 12},
    ("distillation", "cifar10", "quick"): {"epochs": 6},
    ("distillation", "digits", "quick"): {
        "epochs": 40,
        "initial_epochs": 5,
        "batch_size": 32,
        "learning_rate": 5e-2,
    },
}


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
            and adversarial training then needs ``eps`` among the options.
        preset: ``"quick"`` or ``"paper"``.
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
    settings = dict(_CHANGES.get((name, known, preset), {}))
    if small and preset == "paper":
        settings = dict(_CHANGES.get((name, known, "quick"), {}))
    if name in _ADVERSARIAL:
        if dataset in EPS:
            settings.setdefault("eps", EPS[dataset])
        elif "eps" not in given:
            raise UserError(
                f"{name} needs the radius to defend against: for images of your own pass "
                "-o eps=... (in [0, 1] pixel units, such as 8/255)"
            )
    settings |= {option: _value(kind, option, value) for option, value in given.items()}
    return kind(**settings, seed=seed, devices=devices)


def settings_of(kind: type[Defense]) -> dict[str, tuple[str, Any]]:
    """Each option of a defence with its type and default."""
    return {
        field.name: (str(field.type), field.default)
        for field in dataclasses.fields(kind)
        if field.name not in _NOT_OPTIONS
    }


def _value(kind: type[Defense], option: str, value: Any) -> Any:
    known = settings_of(kind)
    if option not in known:
        raise UserError(f"{kind.name} has no option {option!r}; it has {', '.join(known)}")
    if not isinstance(value, str):
        return value
    wanted = known[option][0]
    if "None" in wanted and value.lower() == "none":
        return None
    try:
        return _parsed(wanted, value)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{option}={value} is no {wanted}; give one such as {known[option][1]}"
        ) from error


def _parsed(wanted: str, text: str) -> Any:
    if wanted.startswith("bool"):
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
            text.lower()
        ]
    if wanted.startswith("int"):
        return int(text)
    if wanted.startswith("float"):
        above, slash, below = text.partition("/")
        return float(above) / float(below) if slash else float(text)
    return text
