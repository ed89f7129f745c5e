"""The numbers of the paper's figures: 2, the toy, and 4, the planes around a test image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

from bcgan_tf.settings.fields import Checked, Range
from bcgan_tf.settings.kinds import (
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
    """The numbers of Figure 2; what the paper leaves open has a default.

    Args:
        betas: weights of the boundary term, a panel each.
        steps: of each GAN.
        batch_size: of the GANs and of the classifier.
        learning_rate: of both Adams of each GAN (``beta_1`` 0.5); Odena's.
        latent_dim: size of the generator's noise.
        classifier_steps: of the classifier, Adam from 3e-3 down a cosine.
        samples: generated points that are measured, of both classes alike.
        seed: of weights, order and noise. The GANs share them, so that only beta differs.

    Raises:
        UserError: a setting is out of range.
    """

    betas: tuple[Weight, ...] = (0.0, 0.2, 1.0, 5.0)
    steps: Steps = 5000
    batch_size: Batch = 256
    learning_rate: LearningRate = 2e-4
    latent_dim: LatentDim = 4
    classifier_steps: Steps = 600
    samples: SomeImages = 4000
    seed: Seed = 0

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        if len(set(self.betas)) < len(self.betas):
            yield f"betas are {','.join(map(str, self.betas))}; give each once"

    def to_dict(self) -> dict[str, Any]:
        """All settings, for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundarySettings(Checked):
    """How the planes are chosen and drawn.

    Args:
        index: of the test image; None takes the first one that all models classify right.
        extent: the planes reach from -extent to extent, L2 norm, images in [0, 1].
        resolution: points a side, odd.
        samples: noisy copies that eq. 11 averages over, the paper's m.
        sigma: of that noise, in [0, 1] units.
        eps: Linf radius of the PGD attack that gives a plane its direction, in [0, 1] units.
        pgd_steps: its steps.
        seed: of the noise, of PGD's start and of the random orthogonal direction.

    Raises:
        UserError: a setting is out of range.
    """

    index: Annotated[int, Range(0, 100_000_000)] | None = None
    extent: Annotated[float, Range(0, 10_000, above=True)] = 8.0
    resolution: Annotated[int, Range(3, 2001)] = 101
    samples: Steps = 1000
    sigma: Annotated[float, Range(0, 1, above=True)] = 1 / 255
    eps: TrainingEps = 0.3
    pgd_steps: Steps = 40
    seed: Seed = 0

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        if self.resolution % 2 == 0:
            yield (
                f"resolution {self.resolution} leaves the image between grid points; take an odd "
                "number"
            )

    def to_dict(self) -> dict[str, Any]:
        """All settings, for JSON."""
        return dataclasses.asdict(self)
