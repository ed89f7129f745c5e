"""The settings of the paper's figures: 2, the toy, and 4, the planes around a test image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated

from bcgan_tf.settings.fields import Checked, Range, setting
from bcgan_tf.settings.kinds import (
    RADIUS,
    Batch,
    LatentDim,
    LearningRate,
    Seed,
    SomeImages,
    Steps,
    TrainingEps,
    Weight,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToySettings(Checked):
    """The settings of Figure 2; what the paper leaves open has a default.

    The GANs share the seed, so that only beta differs.
    """

    betas: tuple[Weight, ...] = setting(
        (0.0, 0.2, 1.0, 5.0), "Weights of the boundary term, a panel each."
    )
    steps: Steps = setting(5000, "Training steps of each GAN.")
    batch_size: Batch = setting(256, "Images of a step, of the GANs and of the classifier.")
    learning_rate: LearningRate = setting(2e-4, "Rate of both Adams of each GAN (beta_1 0.5).")
    latent_dim: LatentDim = setting(4, "Size of the generator's noise.")
    classifier_steps: Steps = setting(
        600, "Training steps of the classifier; Adam's rate falls from 3e-3 by a cosine."
    )
    samples: SomeImages = setting(4000, "Generated points that are measured, of both classes.")
    seed: Seed = setting(0, "Seed of weights, order and noise.")

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        if len(set(self.betas)) < len(self.betas):
            yield f"betas are {','.join(map(str, self.betas))}; give each once"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundarySettings(Checked):
    """How the planes of Figure 4 are chosen and drawn."""

    index: Annotated[int, Range(0, 100_000_000)] | None = setting(
        None, "Index of the test image; none: the first that all models get right."
    )
    extent: Annotated[float, Range(0, 10_000, above=True)] = setting(
        8.0, "The planes reach from -extent to extent, L2 norm, images in [0, 1]."
    )
    resolution: Annotated[int, Range(3, 2001)] = setting(101, "Points a side, odd.")
    samples: Steps = setting(1000, "Noisy copies that the gradient is averaged over (eq. 11's m).")
    sigma: Annotated[float, Range(0, 1, above=True)] = setting(
        1 / 255, "Standard deviation of that noise, in [0, 1] pixel units."
    )
    eps: TrainingEps = setting(
        0.3,
        "Linf radius of the PGD attack that gives a plane its direction, in [0, 1] pixel units.",
        by_dataset=RADIUS,
    )
    pgd_steps: Steps = setting(40, "Steps of that attack.")
    seed: Seed = setting(0, "Seed of the noise, of PGD's start and of the random direction.")

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        if self.resolution % 2 == 0:
            yield (
                f"resolution {self.resolution} leaves the image between grid points; take an odd "
                "number"
            )
