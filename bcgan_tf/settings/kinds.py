"""The ranges that several settings share.

The upper bounds are far beyond what any training or attack here was ever run with; they are there
so that a slip of the keyboard is an error at once, not after hours or when the memory ends.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, NamedTuple

from bcgan_tf.settings.fields import OneOf, Range

_MOST_SHARDS = 1_000_000
_MOST_WORKERS = 1024
# The Linf radius of each data set, [0, 1] pixel units: that of published results, and for digits
# one that leaves a robust network something to lose.
RADIUS = {"mnist": 0.3, "fashion_mnist": 0.1, "cifar10": 8 / 255, "digits": 0.1}

Epochs = Annotated[int, Range(1, 100_000)]
# Parts of epochs, such as a delay; 0: none.
EpochShare = Annotated[float, Range(0, 100_000)]
# Epochs of what may be left out; 0: it is.
OptionalEpochs = Annotated[int, Range(0, 100_000)]
Batch = Annotated[int, Range(1, 1_000_000)]
Steps = Annotated[int, Range(1, 1_000_000)]
OptionalSteps = Annotated[int, Range(0, 1_000_000)]
Repeats = Annotated[int, Range(1, 10_000)]
# Below the least, float32 weights no longer change.
LearningRate = Annotated[float, Range(1e-12, 100)]
# Linf radius of a training, [0, 1] pixel units; less is within float32's rounding.
TrainingEps = Annotated[float, Range(1e-6, 1)]
# Linf or L2 radius of an attack, [0, 1] pixel units; at 0 the images are returned as they are.
AttackEps = Annotated[float, Range(0, 10_000)]
# Factor on the channels of a network.
Width = Annotated[float, Range(0.001, 16)]
LatentDim = Annotated[int, Range(1, 100_000)]
# Of a moving average or a momentum, or the rate of dropout.
BelowOne = Annotated[float, Range(0, 1, below=True)]
Share = Annotated[float, Range(0, 1)]
Weight = Annotated[float, Range(0, 1_000_000)]
PositiveWeight = Annotated[float, Range(0, 1_000_000, above=True)]
# Pixels this near to 0 or 1 are cut off to it; at 0.5 nothing would be left.
Threshold = Annotated[float, Range(0, 0.5, below=True)]
# Images; 0: all there are, or none, as the setting says.
Images = Annotated[int, Range(0, 100_000_000)]
SomeImages = Annotated[int, Range(1, 100_000_000)]
Classes = Annotated[int, Range(2, 1_000_000)]
# As far as NumPy's seeds go.
Seed = Annotated[int, Range(0, 2**32 - 1)]
Devices = Annotated[int, Range(1, 1024)]
Dtype = Annotated[str, OneOf("float32", "mixed_bfloat16")]
Norm = Annotated[str, OneOf("linf", "l2")]
Precision = Annotated[str, OneOf("auto", "float32", "bfloat16")]
# Those that bcgan_tf.attacks.suites builds.
SUITES = ("standard", "plus", "fast", "rand", "paper")
Suite = Annotated[str, OneOf(*SUITES)]
BoundaryLoss = Annotated[str, OneOf("uniform", "top2")]
# Those that bcgan_tf.training.augmentation knows.
AUGMENTATIONS = ("none", "shift", "flip", "crop-flip")
Augmentation = Annotated[str, OneOf(*AUGMENTATIONS)]
# Length of a step of an attack in units of eps.
StepRatio = Annotated[float, Range(0, 1000, above=True)]
# Of Defense-GAN's search, which takes steps of 10.
SearchLearningRate = Annotated[float, Range(1e-12, 100_000)]
# Beyond it float32 no longer tells the soft answers of classes apart.
Temperature = Annotated[float, Range(1, 10_000)]
# Of an attack, [0, 1] pixel units.
StepSize = Annotated[float, Range(0, 10_000, above=True)]
# Of the images in a batch of refinement; at 1 there are no others.
CleanRatio = Annotated[float, Range(0.001, 1)]


class Shard(NamedTuple):
    """Every ``shards``-th image, from the ``number``-th on, which counts from 1."""

    number: int = 1
    shards: int = 1

    WANTED = (
        "i/n, i from 1 to n, such as 2/8, or auto in an array of SLURM, 1 to n, or in a Kubernetes "
        "Indexed Job with JOB_COMPLETIONS=n"
    )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``"2/8"`` as the second of eight, ``"auto"`` as the scheduler numbers this job.

        Raises:
            ValueError: there is no such shard, or no scheduler that numbers jobs from 1 (SLURM) or
                from 0 (Kubernetes) without a gap.
        """
        if text == "auto":
            return cls._of_job(os.environ)
        number, _, shards = text.partition("/")
        found = cls(int(number), int(shards))
        if not found.exists:
            raise ValueError(text)
        return found

    @classmethod
    def _of_job(cls, environment: Mapping[str, str]) -> Shard:
        def number(name: str) -> int:
            return int(environment.get(name, ""))

        if "SLURM_ARRAY_TASK_ID" in environment:
            # An array of a few tasks that are done again is numbered otherwise than the whole.
            found = cls(number("SLURM_ARRAY_TASK_ID"), number("SLURM_ARRAY_TASK_MAX"))
            if number("SLURM_ARRAY_TASK_COUNT") != found.shards:
                raise ValueError("the array is not numbered from 1 without a gap")
        else:
            found = cls(number("JOB_COMPLETION_INDEX") + 1, number("JOB_COMPLETIONS"))
        if not found.exists:
            raise ValueError(str(found))
        return found

    @property
    def exists(self) -> bool:
        """Whether its number is one of its shards."""
        return 1 <= self.number <= self.shards <= _MOST_SHARDS

    def __str__(self) -> str:
        return f"{self.number}/{self.shards}"


class WorkerSpec(NamedTuple):
    """Processes that share a work: ``place`` is their number for ``local``, an address for Ray."""

    engine: str
    place: str = ""

    WANTED = "local:N, processes of this machine; ray or ray:ADDRESS, a Ray cluster"

    @classmethod
    def parse(cls, text: str) -> WorkerSpec:
        """``"local:4"``, ``"ray"`` or ``"ray:ADDRESS"``.

        Raises:
            ValueError: it is none of these.
        """
        engine, colon, place = text.partition(":")
        known = engine == "ray" and (place or not colon)
        if not known and not (engine == "local" and 1 <= int(place) <= _MOST_WORKERS):
            raise ValueError(text)
        return cls(engine, place)

    def __str__(self) -> str:
        return ":".join(filter(None, self))
