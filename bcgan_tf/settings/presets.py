"""Named presets: every number of a run, per dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from bcgan_tf.errors import UserError
from bcgan_tf.settings.fields import Checked, OneOf, settings_of
from bcgan_tf.settings.kinds import (
    Batch,
    BelowOne,
    BoundaryLoss,
    CleanRatio,
    Dtype,
    Epochs,
    EpochShare,
    Images,
    LatentDim,
    LearningRate,
    Share,
    SomeImages,
    Suite,
    Threshold,
    Weight,
    Width,
)

PRESETS = ("quick", "paper", "robust")
# The names of bcgan_tf.defenses.presets.DEFENSES, for those who do not load TensorFlow.
DEFENSES = (
    "bcgan",
    "fgsm-at",
    "pgd-at",
    "trades",
    "bcgan-at",
    "bcgan-trades",
    "ibp",
    "bcgan-ibp",
    "distillation",
    "defense-gan",
)
# The most robust of them under the suite `standard`, on every data set: docs/results/table1-*.md.
DEFAULT_DEFENSE = "pgd-at"
# The networks for images, and which of a recipe's settings each has.
NETWORKS: dict[str, tuple[str, ...]] = {
    "small_cnn": (),
    "strided_cnn": ("architecture_width", "threshold"),
    "deep_cnn": ("architecture_width", "threshold"),
    "resnet18": ("architecture_width",),
}
_NETWORK_OPTIONS = ("architecture_width", "threshold")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
    """The settings of training, hardening and attacking; the defaults are MNIST's ``quick``.

    Fields named like :class:`bcgan_tf.defenses.BCGANTraining`'s (``harden_*`` for its refinement)
    mean the same. ``suite`` attacks both models on ``n`` test images (0: all).
    """

    dataset: str
    preset: str
    architecture: Annotated[str, OneOf(*NETWORKS)] = "small_cnn"
    architecture_width: Width = 1.0
    threshold: Threshold = 0.0
    classifier_epochs: Epochs = 4
    classifier_batch_size: Batch = 128
    classifier_learning_rate: LearningRate = 2e-3
    oracle_epochs: Epochs = 2
    gan_epochs: Epochs = 5
    gan_batch_size: Batch = 128
    gan_learning_rate: LearningRate = 8e-4
    generator_width: Width = 0.75
    discriminator_width: Width = 0.5
    dropout: BelowOne = 0.2
    latent_dim: LatentDim = 100
    real_target: Share = 0.9
    dtype: Dtype | None = None
    beta: Weight = 0.1
    delay_epochs: EpochShare = 2.0
    warmup_epochs: EpochShare = 1.0
    boundary_loss: BoundaryLoss = "uniform"
    harden_epochs: Epochs = 3
    harden_batch_size: Batch = 128
    harden_learning_rate: LearningRate = 5e-4
    clean_ratio: CleanRatio = 0.5
    generated_samples: SomeImages = 2000
    suite: Suite = "standard"
    n: Images = 200

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

    def to_dict(self) -> dict[str, Any]:
        """All settings, for JSON."""
        return dataclasses.asdict(self)


def _default(name: str) -> Any:
    return settings_of(Recipe)[name].default


# What differs from MNIST's "quick". "paper" trains as long as the paper's sources do and attacks
# all that the paper attacks; what the paper leaves open stays as in "quick".
_IMAGES_QUICK: dict[str, Any] = {}
_IMAGES_PAPER: dict[str, Any] = {
    "classifier_epochs": 20,
    "oracle_epochs": 10,
    "gan_epochs": 50,
    "gan_learning_rate": 2e-4,
    "generator_width": 1.0,
    "discriminator_width": 1.0,
    "dropout": 0.5,
    "delay_epochs": 20.0,
    "warmup_epochs": 10.0,
    "harden_epochs": 20,
    "generated_samples": 10_000,
    "n": 1000,
}
_CIFAR: dict[str, Any] = {
    "architecture": "resnet18",
}
# A network for which dozens of epochs of robust training in bfloat16 fit two hours on two cores.
_DEEP: dict[str, Any] = {
    "architecture": "deep_cnn",
    "classifier_epochs": 2,
    "n": 1000,
}
_SMALL: dict[str, Any] = {
    "classifier_epochs": 30,
    "classifier_batch_size": 32,
    "oracle_epochs": 20,
    "gan_epochs": 50,
    "gan_batch_size": 32,
    "delay_epochs": 20.0,
    "warmup_epochs": 10.0,
    "harden_epochs": 20,
    "harden_batch_size": 32,
    "generated_samples": 1000,
}
# A step on 8x8 pixels takes milliseconds, and 2,000 steps leave most samples without their label.
_DIGITS: dict[str, Any] = {
    **_SMALL,
    "gan_epochs": 120,
    "delay_epochs": 70.0,
    "warmup_epochs": 20.0,
}
_RECIPES: dict[tuple[str, str], dict[str, Any]] = {
    ("mnist", "quick"): _IMAGES_QUICK,
    ("mnist", "paper"): _IMAGES_PAPER,
    ("fashion_mnist", "quick"): _IMAGES_QUICK,
    ("fashion_mnist", "paper"): _IMAGES_PAPER,
    # MNIST is black and white: pixels near either become it.
    ("mnist", "robust"): {**_DEEP, "architecture_width": 0.5, "threshold": 0.4},
    ("fashion_mnist", "robust"): _DEEP,
    ("cifar10", "quick"): {
        **_CIFAR,
        "architecture_width": 0.25,
        "classifier_epochs": 15,
        "gan_epochs": 10,
        "delay_epochs": 5.0,
        "warmup_epochs": 2.0,
        "dtype": "mixed_bfloat16",
        "n": 100,
    },
    ("cifar10", "paper"): {**_IMAGES_PAPER, **_CIFAR, "classifier_epochs": 60, "gan_epochs": 100},
    ("digits", "quick"): _DIGITS,
    ("digits", "paper"): {
        **_SMALL,
        "gan_epochs": 400,
        "n": 0,
    },
}


def presets(dataset: str) -> tuple[str, ...]:
    """The presets of a data set; none where it has no recipe."""
    if dataset.startswith("folder:"):
        return ("quick", "paper")
    return tuple(preset for preset in PRESETS if (dataset, preset) in _RECIPES)


def recipe(dataset: str, preset: str = "quick") -> Recipe:
    """The preset of a dataset; folders of images take MNIST's, scaled to few images a class.

    Args:
        dataset: a name that ``bcgan_tf.load`` knows.
        preset: ``"quick"`` (minutes on two cores), ``"paper"`` (the paper's lengths), or, for
            MNIST and Fashion-MNIST, ``"robust"`` (a network and trainings for robust accuracy, up
            to two hours on two cores).

    Raises:
        UserError: no such preset, or a dataset that has none.
    """
    if dataset == "gaussians":
        raise UserError("gaussians is the 2-D toy and has no preset; use `bcgan-tf toy`")
    known = presets(dataset)
    if not known:
        raise UserError(f"there is no preset for the dataset {dataset!r}; see `bcgan-tf datasets`")
    if preset not in known:
        raise UserError(f"{dataset} has no preset {preset!r}; choose one of {', '.join(known)}")
    if dataset.startswith("folder:"):
        changes = _SMALL if preset == "quick" else {**_SMALL, "gan_epochs": 400}
    else:
        changes = _RECIPES[dataset, preset]
    return Recipe(dataset=dataset, preset=preset, **changes)
