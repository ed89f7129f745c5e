"""The settings of every defence. Loads no TensorFlow.

``bcgan_tf.defenses`` has a class of behaviour for each, which inherits from its settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar

from bcgan_tf.settings.fields import Checked, OneOf, Range, setting
from bcgan_tf.settings.kinds import (
    RADIUS,
    Augmentation,
    Batch,
    BelowOne,
    BoundaryLoss,
    CleanRatio,
    Devices,
    Dtype,
    Epochs,
    EpochShare,
    LatentDim,
    LearningRate,
    OptionalEpochs,
    OptionalSteps,
    PositiveWeight,
    Repeats,
    SearchLearningRate,
    Seed,
    Share,
    SomeImages,
    StepRatio,
    Steps,
    Temperature,
    TrainingEps,
    Weight,
    Width,
)

GENERATED = ("boundary", "plain")
_OWN_DTYPE = (
    "Keras dtype policy to train in; none: the classifier's own, which the result always has."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DefenseSettings(Checked):
    """What all defences have.

    A subclass with a ``name`` is a defence that can be asked for by that name.
    """

    name: ClassVar[str] = ""

    seed: Seed = setting(0, "Seed of all draws.")
    devices: Devices | None = setting(
        None, "GPUs (or logical CPUs) to train on; none: all GPUs there are."
    )

    def ignored(self) -> tuple[str, ...]:
        """Settings that the others leave without effect; ``"gan"`` stands for all of its own."""
        return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings(DefenseSettings):
    """What all defences have that train the classifier."""

    train_all: bool = setting(
        False,
        "Train frozen layers too (Keras: trainable=False); else they keep their weights, and a "
        "frozen batch normalization its statistics.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobustSettings(TrainingSettings):
    """Training for a Linf radius."""

    eps: TrainingEps = setting(
        0.3, "Linf radius to defend against, in [0, 1] pixel units.", by_dataset=RADIUS
    )
    eps_ratio: Annotated[float, Range(1, 1_000_000)] = setting(
        1.0, "Radius of training in units of eps; a little above 1 makes eps itself safer."
    )
    ramp_epochs: EpochShare = setting(4.0, "Epochs over which eps rises from 0.")
    epochs: Epochs = setting(16, "Epochs of training.")
    batch_size: Batch = setting(128, "Global number of real images in a batch.")
    learning_rate: LearningRate = setting(
        1e-3, "Adam's for the first half of the steps; then it falls linearly to 0."
    )
    augment: Augmentation = setting(
        "none",
        "Random change of each image before it is attacked. shift: by up to 2 pixels of 28 or 32; "
        "flip: half of the images mirrored (for clothes, not for digits); crop-flip: shifted by up "
        "to an eighth and mirrored (for CIFAR-10).",
    )
    ema_decay: BelowOne = setting(
        0.0,
        "Decay of the moving average of the weights, which is validated and returned; 0: off.",
    )
    validation_samples: SomeImages = setting(
        1000, "Images of the validation split that are attacked after each epoch."
    )
    dtype: Dtype | None = setting(None, _OWN_DTYPE)

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        yield from super().conflicts()
        if self.eps_ratio > 1 / self.eps:
            yield (
                f"eps_ratio is {self.eps_ratio:g}; choose at most {1 / self.eps:g}, where the "
                "radius of training is all of [0, 1]"
            )
        if self.ramp_end() > self.epochs:
            yield (
                f"eps rises until epoch {self.ramp_end():g} of {self.epochs}; "
                "choose more epochs, or a faster rise, such as ramp_epochs=0"
            )

    def ramp_end(self) -> float:
        """Epochs until eps is at its full size."""
        return self.ramp_epochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGDSettings(RobustSettings):
    """Adversarial training with PGD."""

    name: ClassVar[str] = "pgd-at"

    steps: Steps = setting(7, "Steps of the attack in training.")
    step_ratio: StepRatio | None = setting(
        None, "Length of one step in units of eps; none: 2.5 / steps."
    )
    clean_weight: BelowOne = setting(0.0, "Weight of the loss on clean images.")
    accumulate: bool = setting(
        False,
        "Learn from every point on the attack's path, which begins at the image, as code does that "
        "never clears the weights' gradients between the attack and the update.",
    )

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        yield from super().conflicts()
        if self.accumulate and self.clean_weight:
            yield "accumulate has the clean images as the path's beginning: choose clean_weight=0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FGSMSettings(PGDSettings):
    """Adversarial training with one step of eps, half of each batch clean."""

    name: ClassVar[str] = "fgsm-at"

    steps: Steps = setting(1, "Steps of the attack in training.")
    step_ratio: StepRatio | None = setting(1.0, "Length of one step in units of eps.")
    clean_weight: BelowOne = setting(0.5, "Weight of the loss on clean images.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TRADESSettings(PGDSettings):
    """TRADES."""

    name: ClassVar[str] = "trades"

    beta: PositiveWeight = setting(
        1.0, "Weight of the divergence; usual: 1 on MNIST, 6 on CIFAR-10."
    )

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        yield from super(PGDSettings, self).conflicts()  # that of accumulate is none here
        if self.clean_weight:
            yield "TRADES has no clean_weight: its first term is the clean loss already"
        if self.accumulate:
            yield "TRADES has no accumulate: leave it out"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GANSettings(Checked):
    """A boundary conditional GAN and its training.

    The paper publishes none of these numbers; the reason of each default is in
    docs/boundary-samples.md.
    """

    beta: Weight = setting(
        0.1, "Weight of the boundary term in the generator's loss; 0 is a plain ACGAN."
    )
    delay_epochs: EpochShare = setting(2.0, "GAN epochs before beta rises from 0.")
    warmup_epochs: EpochShare = setting(1.0, "GAN epochs over which beta rises linearly.")
    boundary_loss: BoundaryLoss = setting(
        "uniform",
        "The boundary term. uniform: KL(uniform || P(y|x)), the paper's eq. 8; top2: KL to the "
        "uniform distribution over the two likeliest classes.",
    )
    networks: Annotated[str, OneOf("acgan", "infogan")] = setting(
        "acgan",
        "acgan: Odena et al.'s networks, normal noise, classes that are drawn. infogan: as the "
        "code of the paper's figures has it, InfoGAN's networks, uniform noise, the classes of the "
        "real batch, and the learning rate divided by 10 after each quarter of the training.",
    )
    gan_epochs: Epochs = setting(5, "Epochs of GAN training.")
    gan_batch_size: Batch = setting(128, "Global batch of the GAN.")
    gan_learning_rate: LearningRate = setting(8e-4, "Rate of both Adams (beta_1 0.5).")
    generator_width: Width = setting(0.75, "Factor on the generator's channels.")
    discriminator_width: Width = setting(0.5, "Factor on the discriminator's channels.")
    latent_dim: LatentDim = setting(100, "Size of the generator's noise.")
    dropout: BelowOne = setting(0.2, "The discriminator's.")
    real_target: Share = setting(
        0.9, "The discriminator's target for real images (one-sided label smoothing)."
    )
    dtype: Dtype | None = setting(None, "Keras dtype policy to train in; none: float32.")

    def unread(self) -> tuple[str, ...]:
        """Settings that the networks do not have."""
        return ("dropout",) if self.networks == "infogan" else ()

    def boundary_conflicts(self) -> Iterator[str]:
        """A boundary term that is still off, or on its way, when the training ends.

        No conflict of these settings themselves: some defences train such a GAN at beta 0.
        """
        risen = self.delay_epochs + self.warmup_epochs
        if self.beta and risen > self.gan_epochs:
            yield (
                f"the boundary term is at full strength after delay_epochs + warmup_epochs = "
                f"{risen:g} epochs, and gan_epochs is {self.gan_epochs}; choose fewer of the two, "
                "or more gan_epochs"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BCGANSettings(GANSettings, TrainingSettings):
    """The paper's defence: a GAN, then a refinement of the classifier on its samples."""

    name: ClassVar[str] = "bcgan"

    epochs: Epochs = setting(3, "Epochs of refinement.")
    batch_size: Batch = setting(128, "Global number of clean images in a batch of refinement.")
    learning_rate: LearningRate = setting(
        5e-4, "Rate of the refinement's Adam, decayed to 0 by a cosine; alternating: constant."
    )
    refinement: Annotated[str, OneOf("mixed", "alternating")] = setting(
        "mixed",
        "mixed: batches of clean and generated images. alternating: as the code of the paper's "
        "figures has it, an epoch is `generated_batches` batches of generated images, then one "
        "pass over the clean ones; Adam's betas are 0.5 and 0.9.",
    )
    clean_ratio: CleanRatio = setting(
        0.5, "mixed: share of clean images in a batch of refinement; 1: no generated ones."
    )
    generated_batches: OptionalSteps = setting(
        1000, "alternating: batches of generated images before each pass over the clean ones."
    )

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        yield from super().conflicts()
        yield from self.boundary_conflicts()

    def ignored(self) -> tuple[str, ...]:
        """See :meth:`DefenseSettings.ignored`."""
        unread = {"mixed": "generated_batches", "alternating": "clean_ratio"}
        return (*super().ignored(), *self.unread(), unread[self.refinement])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtraExamplesSettings(RobustSettings):
    """Boundary samples, or their controls, in the batches of a robust training."""

    fakes: Annotated[str, OneOf(*GENERATED, "duplicates", "none")] = setting(
        "boundary",
        "Extra examples. boundary: samples of a BCGAN; plain: of the same GAN at beta 0; "
        "duplicates: the batch's real images again, attacked from other starts; none: none.",
    )
    fake_ratio: Annotated[float, Range(0.001, 100)] = setting(1.0, "Extra examples per real image.")
    fake_weight: PositiveWeight = setting(
        0.5, "Weight of the extra examples' mean loss beside that of the real images."
    )
    refresh_epochs: OptionalEpochs = setting(
        0,
        "Train the GAN on for one epoch, against the robust network of that moment, after every "
        "so many epochs; 0: never.",
    )
    gan: GANSettings = setting(GANSettings(), "How the GAN is built and trained.")

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        yield from super().conflicts()
        if self.fakes == "boundary":
            yield from self.gan.boundary_conflicts()

    def ignored(self) -> tuple[str, ...]:
        """See :meth:`DefenseSettings.ignored`."""
        boundary = ("beta", "delay_epochs", "warmup_epochs", "boundary_loss")
        unread = {
            "boundary": (),
            "plain": tuple(f"gan.{name}" for name in boundary),
            "duplicates": ("gan", "oracle_epochs", "refresh_epochs"),
            "none": ("gan", "oracle_epochs", "refresh_epochs", "fake_ratio", "fake_weight"),
        }
        of_networks = (f"gan.{name}" for name in self.gan.unread())
        return (*super().ignored(), *of_networks, *unread[self.fakes])


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilteredExtraSettings(ExtraExamplesSettings):
    """The same where the extra examples' labels are learned."""

    oracle_epochs: OptionalEpochs = setting(
        2,
        "Epochs of the oracle, a network of another architecture trained on real images; samples "
        "that it puts into another class have weight 0. 0: no oracle.",
    )


# The training comes first: the defaults of its own win over those of RobustSettings.
@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundaryPGDSettings(PGDSettings, FilteredExtraSettings):
    """PGD training on real images and boundary samples."""

    name: ClassVar[str] = "bcgan-at"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundaryTRADESSettings(TRADESSettings, ExtraExamplesSettings):
    """TRADES with boundary samples in its divergence."""

    name: ClassVar[str] = "bcgan-trades"


@dataclasses.dataclass(frozen=True, kw_only=True)
class IBPSettings(RobustSettings):
    """Training on interval bounds; eps rises after ``warmup_epochs``."""

    name: ClassVar[str] = "ibp"

    ramp_epochs: EpochShare = setting(12.0, "Epochs over which eps rises from 0.")
    epochs: Epochs = setting(30, "Epochs of training.")
    kappa: BelowOne = setting(
        0.5, "What the weight of the loss on the images falls to while eps rises; it starts at 1."
    )
    attack_steps: OptionalSteps = setting(
        0, "Steps of PGD on the images of the first term of the loss; 0: clean images."
    )
    warmup_epochs: EpochShare = setting(1.0, "Epochs on clean images before eps rises.")
    start: Annotated[str, OneOf("ibp", "given")] = setting(
        "ibp",
        "Initial weights. ibp: those with which bounds keep their width from layer to layer; "
        "given: the classifier's own.",
    )

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        yield from super().conflicts()
        if self.dtype not in (None, "float32"):
            yield f"dtype is {self.dtype}; bounds are computed in float32: leave it out"

    def ramp_end(self) -> float:
        """See :meth:`RobustSettings.ramp_end`."""
        return self.warmup_epochs + self.ramp_epochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundaryIBPSettings(IBPSettings, FilteredExtraSettings):
    """Training on interval bounds of real images and boundary samples."""

    name: ClassVar[str] = "bcgan-ibp"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationSettings(TrainingSettings):
    """Defensive distillation."""

    name: ClassVar[str] = "distillation"

    temperature: Temperature = setting(100.0, "T, of the teacher's and the student's softmax.")
    initial_epochs: Epochs = setting(1, "Epochs of the network that both start from.")
    epochs: Epochs = setting(50, "Epochs of the teacher, and again of the student.")
    batch_size: Batch = setting(128, "Global batch.")
    learning_rate: LearningRate = setting(1e-2, "Rate of SGD with Nesterov momentum 0.9.")
    dtype: Dtype | None = setting(None, _OWN_DTYPE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DefenseGANSettings(DefenseSettings):
    """Defense-GAN."""

    name: ClassVar[str] = "defense-gan"

    steps: Steps = setting(
        200, "L, gradient steps of each search; the BCGAN paper has 12,000, Defense-GAN's 200."
    )
    restarts: Repeats = setting(10, "R, searches for each image, of which the best counts.")
    search_learning_rate: SearchLearningRate = setting(10.0, "Rate of the search.")
    momentum: BelowOne = setting(0.7, "Momentum of the search.")
    decay: bool = setting(True, "Lower the search's learning rate tenfold for its last fifth.")
    bpda: bool = setting(
        True, "Give the defended classifier a gradient: the identity in place of the search's."
    )
    gan_epochs: Epochs = setting(
        30, "Epochs of GAN training; Defense-GAN's 200,000 generator steps are 926 on MNIST."
    )
    gan_batch_size: Batch = setting(50, "Global number of real images in one update of the critic.")
    gan_learning_rate: LearningRate = setting(1e-4, "Rate of both Adams (0.5, 0.9).")
    critic_steps: Repeats = setting(5, "Updates of the critic per update of the generator.")
    penalty: Weight = setting(10.0, "Weight of the gradient penalty.")
    latent_dim: LatentDim = setting(128, "Size of the generator's noise.")
    generator_width: Width = setting(1.0, "Factor on the generator's channels.")
    critic_width: Width = setting(1.0, "Factor on the critic's channels.")
    dtype: Dtype | None = setting(
        None, "Keras dtype policy to train the GAN in; the search is in float32."
    )


DEFENSES: dict[str, type[DefenseSettings]] = {
    kind.name: kind
    for kind in (
        BCGANSettings,
        FGSMSettings,
        PGDSettings,
        TRADESSettings,
        BoundaryPGDSettings,
        BoundaryTRADESSettings,
        IBPSettings,
        BoundaryIBPSettings,
        DistillationSettings,
        DefenseGANSettings,
    )
}
