"""Named presets: every number of a run, for each data set and defence. Loads no TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from bcgan_tf.errors import UserError
from bcgan_tf.settings.defenses import DEFENSES, DefenseSettings
from bcgan_tf.settings.fields import Checked, OneOf, Setting, parsed, setting, settings_of
from bcgan_tf.settings.kinds import (
    Batch,
    Dtype,
    Epochs,
    Images,
    LearningRate,
    SomeImages,
    Suite,
    Threshold,
    Width,
)

AUTHORS = "authors"  # of the classifier and of bcgan
PRESETS = ("quick", "paper", "robust", AUTHORS)
# The most robust under the suite `standard`, on every data set: docs/results/table1-*.md.
DEFAULT_DEFENSE = "pgd-at"
# The networks for images, and which of a recipe's settings each has.
NETWORKS: dict[str, tuple[str, ...]] = {
    "small_cnn": (),
    "paper_cnn": (),
    "strided_cnn": ("architecture_width", "threshold"),
    "deep_cnn": ("architecture_width", "threshold"),
    "resnet18": ("architecture_width", "dtype"),
}
_NETWORK_OPTIONS = ("architecture_width", "threshold", "dtype")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierSettings(Checked):
    """How the classifier is trained on clean data."""

    architecture: Annotated[str, OneOf(*NETWORKS)] = setting("small_cnn", "Network.")
    architecture_width: Width = setting(1.0, "Factor on the channels; small_cnn has none.")
    threshold: Threshold = setting(
        0.0, "strided_cnn and deep_cnn set pixels this near to 0 or 1 to 0 or 1."
    )
    dtype: Dtype | None = setting(None, "Keras dtype policy of resnet18; none: float32.")
    classifier_epochs: Epochs = setting(4, "Epochs on clean data.")
    classifier_batch_size: Batch = setting(128, "Global batch.")
    classifier_learning_rate: LearningRate = setting(2e-3, "Adam's, decayed by a cosine.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSettings(Checked):
    """How the samples of the defense bcgan are measured."""

    oracle_epochs: Epochs = setting(2, "Epochs of the oracle, which judges bcgan's samples.")
    generated_samples: SomeImages = setting(2000, "Samples of bcgan that are measured.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackSettings(Checked):
    """How both classifiers are attacked in a run."""

    suite: Suite = setting("fast", "Attacks on both models; see `attack`.")
    n: Images = setting(200, "Test images that are attacked; 0: all.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(ClassifierSettings, SampleSettings, AttackSettings):
    """What a preset says beside the settings of a defense; the defaults are MNIST's ``quick``."""

    dataset: str
    preset: str

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        for name in _NETWORK_OPTIONS:
            if name not in NETWORKS[self.architecture] and getattr(self, name) != _default(name):
                having = [network for network, options in NETWORKS.items() if name in options]
                yield f"{self.architecture} has no {name}; {', '.join(having)} have"

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """A recipe with other values for some settings.

        What the preset says of its network goes back to the default where another network is
        chosen that has no such option; what is among ``changes`` does not.

        Raises:
            UserError: values out of range, or an option that the network does not have.
        """
        network = changes.get("architecture", self.architecture)
        left = set(_NETWORK_OPTIONS) - set(NETWORKS.get(network, _NETWORK_OPTIONS))
        return dataclasses.replace(self, **{**{name: _default(name) for name in left}, **changes})


def _default(name: str) -> Any:
    return settings_of(Recipe)[name].default


# What differs from MNIST's "quick". "paper" trains as long as the paper's sources do; what the
# paper leaves open stays as in "quick".
_PAPER = {"classifier_epochs": 20, "oracle_epochs": 10, "generated_samples": 10_000, "n": 1000}
# A network for which dozens of epochs of robust training in bfloat16 fit two hours on two cores.
_DEEP = {"architecture": "deep_cnn", "classifier_epochs": 2, "n": 1000}
_SMALL = {
    "classifier_epochs": 30,
    "classifier_batch_size": 32,
    "oracle_epochs": 20,
    "generated_samples": 1000,
}
# The code of the paper's figures: docs/audit.md.
_AUTHORS = {
    "architecture": "paper_cnn",
    "classifier_epochs": 20,
    "classifier_batch_size": 50,
    "classifier_learning_rate": 2e-4,
}
_RECIPES: dict[tuple[str, str], dict[str, Any]] = {
    ("mnist", "quick"): {},
    ("mnist", "paper"): _PAPER,
    # MNIST is black and white: pixels near either become it.
    ("mnist", "robust"): {**_DEEP, "architecture_width": 0.5, "threshold": 0.4},
    ("mnist", AUTHORS): _AUTHORS,
    ("fashion_mnist", "quick"): {},
    ("fashion_mnist", "paper"): _PAPER,
    ("fashion_mnist", "robust"): _DEEP,
    ("fashion_mnist", "authors"): _AUTHORS,
    ("cifar10", "quick"): {
        "architecture": "resnet18",
        "architecture_width": 0.25,
        "dtype": "mixed_bfloat16",
        "classifier_epochs": 15,
        "n": 100,
    },
    ("cifar10", "paper"): {**_PAPER, "architecture": "resnet18", "classifier_epochs": 60},
    ("digits", "quick"): _SMALL,
    ("digits", "paper"): {**_SMALL, "n": 0},
    ("folder", "quick"): _SMALL,
    ("folder", "paper"): _SMALL,
}

# What differs from the defaults of the GAN whose samples a defence trains on.
_PAPER_GAN = {
    "gan_epochs": 50,
    "gan_learning_rate": 2e-4,
    "generator_width": 1.0,
    "discriminator_width": 1.0,
    "dropout": 0.5,
    "delay_epochs": 20.0,
    "warmup_epochs": 10.0,
}
_SMALL_GAN = {
    "gan_epochs": 50,
    "gan_batch_size": 32,
    "delay_epochs": 20.0,
    "warmup_epochs": 10.0,
}
# The divergence from uniform is averaged over ten classes there, so that its 0.1 is 0.01 here.
_AUTHORS_GAN = {
    "networks": "infogan",
    "beta": 0.01,
    "delay_epochs": 0.0,
    "warmup_epochs": 0.0,
    "gan_epochs": 200,
    "gan_batch_size": 50,
    "gan_learning_rate": 2e-4,
    "generator_width": 1.0,
    "discriminator_width": 1.0,
    "real_target": 1.0,
}
_GANS: dict[tuple[str, str], dict[str, Any]] = {
    ("mnist", AUTHORS): _AUTHORS_GAN,
    ("fashion_mnist", "authors"): _AUTHORS_GAN,
    ("mnist", "paper"): _PAPER_GAN,
    ("fashion_mnist", "paper"): _PAPER_GAN,
    ("cifar10", "quick"): {
        "gan_epochs": 10,
        "delay_epochs": 5.0,
        "warmup_epochs": 2.0,
        "dtype": "mixed_bfloat16",
    },
    ("cifar10", "paper"): {**_PAPER_GAN, "gan_epochs": 100},
    # A step on 8x8 pixels takes milliseconds, and 2,000 steps leave most samples without label.
    ("digits", "quick"): {
        **_SMALL_GAN,
        "gan_epochs": 120,
        "delay_epochs": 70.0,
        "warmup_epochs": 20.0,
    },
    ("digits", "paper"): {**_SMALL_GAN, "gan_epochs": 400},
    ("folder", "quick"): _SMALL_GAN,
    ("folder", "paper"): {**_SMALL_GAN, "gan_epochs": 400},
}

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
_PAPER_SEARCH = {"steps": 12_000, "gan_epochs": 926}
_REFINEMENT = {"epochs": 20}
# 500,000,000 generated images, which would take days on two cores: `-o epochs=` shortens it.
_AUTHORS_REFINEMENT = {
    "refinement": "alternating",
    "epochs": 10_000,
    "batch_size": 50,
    "learning_rate": 2e-4,
}
_SMALL_REFINEMENT = {"epochs": 20, "batch_size": 32}
# What differs from the defaults of a defence, its GAN aside.
_DEFENSES: dict[str, dict[tuple[str, str], dict[str, Any]]] = {
    "bcgan": {
        ("mnist", AUTHORS): _AUTHORS_REFINEMENT,
        ("fashion_mnist", "authors"): _AUTHORS_REFINEMENT,
        ("mnist", "paper"): _REFINEMENT,
        ("fashion_mnist", "paper"): _REFINEMENT,
        ("cifar10", "paper"): _REFINEMENT,
        ("digits", "quick"): _SMALL_REFINEMENT,
    },
    "fgsm-at": {
        ("mnist", "quick"): {**_ONE_STEP, "epochs": 10},
        ("mnist", "paper"): {**_ONE_STEP, "epochs": 80},
        ("fashion_mnist", "quick"): {**_ONE_STEP, "epochs": 10},
        ("fashion_mnist", "paper"): {**_ONE_STEP, "epochs": 80},
        ("cifar10", "quick"): {**_CIFAR, "epochs": 10},
        ("cifar10", "paper"): {**_CIFAR_LONG, "epochs": 200},
        ("digits", "quick"): _SMALL_DATA,
    },
    "pgd-at": {
        ("mnist", "quick"): {**_MIXED, "epochs": 5, "ramp_epochs": 2.0},
        ("mnist", "paper"): {"steps": 40, "epochs": 80},
        ("mnist", "robust"): {**_LONG, "augment": "shift", "steps": 10, "eps_ratio": 1.1},
        ("fashion_mnist", "quick"): {**_MIXED, "epochs": 10, "ramp_epochs": 2.0},
        ("fashion_mnist", "paper"): {"steps": 20, "epochs": 80},
        ("fashion_mnist", "robust"): {**_LONG, "augment": "flip"},
        ("cifar10", "quick"): {**_CIFAR, "epochs": 12, "steps": 3},
        ("cifar10", "paper"): {**_CIFAR_LONG, "epochs": 200, "steps": 7},
        ("digits", "quick"): _SMALL_DATA,
    },
    "trades": {
        ("mnist", "quick"): {**_MIXED, "epochs": 12},
        ("mnist", "paper"): {"steps": 40, "epochs": 100},
        ("mnist", "robust"): {**_LONG, "augment": "shift", "beta": 6.0},
        ("fashion_mnist", "quick"): {**_MIXED, "epochs": 10, "ramp_epochs": 2.0},
        ("fashion_mnist", "paper"): {"steps": 20, "epochs": 100},
        ("fashion_mnist", "robust"): {**_LONG, "augment": "flip", "beta": 8.0},
        ("cifar10", "quick"): {**_CIFAR, "epochs": 10, "steps": 3, "beta": 6.0},
        ("cifar10", "paper"): {**_CIFAR_LONG, "epochs": 100, "steps": 10, "beta": 6.0},
        ("digits", "quick"): _SMALL_DATA,
    },
    "ibp": {
        ("mnist", "quick"): {"eps_ratio": 7 / 6},
        ("mnist", "paper"): {"eps_ratio": 4 / 3, "epochs": 100, "ramp_epochs": 40.0},
        ("mnist", "robust"): {**_LONG_IBP, "eps_ratio": 7 / 6},
        ("fashion_mnist", "quick"): {"eps_ratio": 1.1},
        ("fashion_mnist", "paper"): {"eps_ratio": 1.1, "epochs": 100, "ramp_epochs": 40.0},
        ("fashion_mnist", "robust"): {**_LONG_IBP, "eps_ratio": 1.1},
        ("cifar10", "quick"): {"eps_ratio": 1.1, "epochs": 10, "ramp_epochs": 5.0},
        ("cifar10", "paper"): {"eps_ratio": 1.1, "epochs": 200, "ramp_epochs": 80.0},
        ("digits", "quick"): {"epochs": 60, "batch_size": 32, "ramp_epochs": 30.0},
    },
    "distillation": {
        ("mnist", "quick"): {"epochs": 12},
        ("fashion_mnist", "quick"): {"epochs": 30},
        ("cifar10", "quick"): {"initial_epochs": 8, "epochs": 12, "learning_rate": 0.1},
        ("digits", "quick"): {
            "epochs": 40,
            "initial_epochs": 5,
            "batch_size": 32,
            "learning_rate": 5e-2,
        },
    },
    "defense-gan": {
        ("mnist", "quick"): _SMALL_WGAN,
        ("mnist", "paper"): _PAPER_SEARCH,
        ("fashion_mnist", "quick"): _SMALL_WGAN,
        ("fashion_mnist", "paper"): _PAPER_SEARCH,
        ("cifar10", "quick"): {**_SMALL_WGAN, "gan_epochs": 40},
        ("cifar10", "paper"): _PAPER_SEARCH,
        ("digits", "quick"): {**_SMALL_WGAN, "gan_epochs": 60, "restarts": 4},
    },
}
# Boundary samples are added to a training as it is without them.
_WITHOUT_FAKES = {"bcgan-at": "pgd-at", "bcgan-trades": "trades", "bcgan-ibp": "ibp"}


def presets(dataset: str) -> tuple[str, ...]:
    """The presets of a data set; none where it has no recipe."""
    return tuple(preset for preset in PRESETS if (_kind(dataset), preset) in _RECIPES)


def recipe(dataset: str, preset: str = "quick") -> Recipe:
    """The preset of a dataset; folders of images take MNIST's, scaled to few images a class.

    Args:
        dataset: a name that ``bcgan_tf.load_dataset`` knows.
        preset: ``"quick"`` (minutes on two cores), ``"paper"`` (the paper's lengths), or, for
            MNIST and Fashion-MNIST, ``"robust"`` (a network and trainings for robust accuracy, up
            to two hours on two cores) and ``"authors"`` (network, GAN and refinement of the code
            that the paper's figures most likely come from).

    Raises:
        UserError: no such preset, or a dataset that has none.
    """
    if dataset == "gaussians":
        raise UserError("gaussians is the 2-D toy and has no preset; use `bcgan-tf toy`")
    known = presets(dataset)
    if not known:
        advice = "see `bcgan-tf datasets`"
        if Path(dataset).is_dir():
            advice = f"for a folder of images write folder:{dataset}"
        raise UserError(f"there is no preset for the dataset {dataset!r}; {advice}")
    if preset not in known:
        raise UserError(f"{dataset} has no preset {preset!r}; choose one of {', '.join(known)}")
    return Recipe(dataset=dataset, preset=preset, **recipe_changes(dataset, preset))


def recipe_changes(dataset: str, preset: str) -> dict[str, Any]:
    """What a preset changes of the defaults of a recipe."""
    return dict(_RECIPES[_kind(dataset), preset])


def defense_settings(
    name: str,
    dataset: str,
    preset: str = "quick",
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    devices: int | None = None,
) -> DefenseSettings:
    """The settings of a defence for a data set and a preset.

    Args:
        name: one of :data:`DEFENSES`.
        dataset: a name that ``bcgan_tf.load_dataset`` knows; a folder of images takes the trainings
            of digits, and one for a radius then needs ``eps`` among the options.
        preset: ``"quick"``, ``"paper"``, ``"robust"``, or, for ``bcgan``, ``"authors"``.
        options: settings to change, as values or as text; those of its GAN are ``gan.beta`` etc.
        seed: of everything the defence draws.
        devices: to train on.

    Raises:
        UserError: no such defence or setting, a value that is none, or a preset that the defence
            does not have.
    """
    if name not in DEFENSES:
        raise UserError(f"there is no defense {name!r}; choose one of {', '.join(DEFENSES)}")
    if preset == AUTHORS and name != "bcgan":
        raise UserError(
            f"{name} has no preset {AUTHORS}: choose the defense bcgan, or another preset"
        )
    kind, given = DEFENSES[name], dict(options or {})
    known = settings_of(kind)
    chosen = parsed(name, options_of(kind), given)
    settings = preset_changes(name, dataset, preset)
    for key, entry in known.items():
        if dataset in entry.by_dataset:
            settings.setdefault(key, entry.by_dataset[dataset])
        elif entry.by_dataset and key not in chosen:
            raise UserError(
                f"{name} needs the radius to defend against: for images of your own pass "
                f"-o {key}=... (in [0, 1] pixel units, such as 8/255)"
            )
    settings |= chosen
    for part in [option for option in settings if "." in option]:
        outer, _, inner = part.partition(".")
        before = settings.get(outer, known[outer].default)
        settings[outer] = dataclasses.replace(before, **{inner: settings.pop(part)})
    found = kind(**settings, seed=seed, devices=devices)
    unread = {*found.ignored()}
    if useless := [option for option in given if unread & {option, option.partition(".")[0]}]:
        raise UserError(
            f"{name} does not read {', '.join(useless)} beside its other settings; leave it out"
        )
    return found


def preset_changes(name: str, dataset: str, preset: str) -> dict[str, Any]:
    """What a preset changes of a defence's defaults, by option."""
    table = _DEFENSES.get(_WITHOUT_FAKES.get(name, name), {})
    if _kind(dataset) in ("digits", "folder"):  # the defaults are of a set forty times as large
        found = table.get(("digits", "quick"), {})
    else:
        found = table.get((dataset, preset), {})
    key, gan = (_kind(dataset), preset), "gan." if name in _WITHOUT_FAKES else ""
    if gan or name == "bcgan":
        found = {**found, **{gan + part: value for part, value in _GANS.get(key, {}).items()}}
    if "oracle_epochs" in settings_of(DEFENSES[name]) and key in _RECIPES:
        found = {**found, "oracle_epochs": recipe(dataset, preset).oracle_epochs}
    return dict(found)


def options_of(kind: type[DefenseSettings]) -> dict[str, Setting]:
    """The options of a defence; those of its GAN are ``gan.beta`` etc."""
    found: dict[str, Setting] = {}
    for name, entry in settings_of(kind).items():
        if isinstance(entry.default, Checked):
            inner = settings_of(type(entry.default))
            found |= {f"{name}.{part}": setting for part, setting in inner.items()}
        elif name not in settings_of(DefenseSettings):
            found[name] = entry
    return found


def _kind(dataset: str) -> str:
    return "folder" if ":" in dataset else dataset  # images of a user's own, whatever the source
