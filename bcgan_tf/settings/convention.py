"""How a model takes images and answers, where that is not as in this package."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np

from bcgan_tf.settings.fields import Checked, OneOf, Range, setting

# caffe and torch: the modes of keras.applications' preprocess_input, with ImageNet's constants.
INPUT_RANGES = ("0..1", "0..255", "-1..1", "caffe", "torch")
CAFFE_MEAN = (103.939, 116.779, 123.68)  # of blue, green, red in 0 ... 255
TORCH_MEAN, TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convention(Checked):
    """The pixels that a model was trained on, and which of its outputs classifies.

    The package works with float32 images in [0, 1] and with logits. Everything else is converted
    in front of the model and behind it.
    """

    input_range: Annotated[str, OneOf(*INPUT_RANGES)] | None = setting(
        None,
        "Pixels that the model takes; caffe, torch: as preprocess_input of keras.applications in "
        "that mode (0..255 for a model with its preprocessing inside); none: 0..1, unless labelled "
        "images say otherwise. eps stays of [0, 1].",
    )
    mean: tuple[Annotated[float, Range()], ...] | None = setting(
        None, "Mean of standardized pixels, subtracted from [0, 1] pixels: one, or one per channel."
    )
    std: tuple[Annotated[float, Range(0, above=True)], ...] | None = setting(
        None, "Deviation of standardized pixels, which divides them after that."
    )
    output: str | None = setting(
        None, "Name of the output that classifies, of a model with several."
    )

    def conflicts(self) -> Iterator[str]:
        """See :meth:`Checked.conflicts`."""
        if self.standardized and self.pixels != "0..1":
            yield f"mean and std are of [0, 1] pixels; leave out input_range {self.input_range}"

    @property
    def pixels(self) -> str:
        """The named range."""
        return self.input_range or "0..1"

    @property
    def stated(self) -> bool:
        """Whether anything is said of the pixels."""
        return self.input_range is not None or self.standardized

    @property
    def given(self) -> dict[str, Any]:
        """The settings that are not the defaults, JSON-able."""
        plain = Convention().to_dict()
        return {name: value for name, value in self.to_dict().items() if value != plain[name]}

    @property
    def standardized(self) -> bool:
        """Whether a mean or a standard deviation is given."""
        return self.mean is not None or self.std is not None

    @property
    def reverses_channels(self) -> bool:
        """Whether the model takes blue, green, red."""
        return self.pixels == "caffe"

    @property
    def scale(self) -> float | list[float]:
        """What [0, 1] pixels are multiplied by, in the model's order of channels."""
        if self.standardized:
            return _one([1 / value for value in self.std or (1.0,)])
        if self.pixels == "torch":
            return [1 / value for value in TORCH_STD]
        return {"0..1": 1.0, "-1..1": 2.0}.get(self.pixels, 255.0)

    @property
    def offset(self) -> float | list[float]:
        """What is added after that."""
        mean, std = self.mean or (0.0,), self.std or (1.0,)
        if self.pixels == "torch":
            mean, std = TORCH_MEAN, TORCH_STD
        elif self.pixels == "caffe":
            return [-value for value in CAFFE_MEAN]
        elif self.pixels == "-1..1":
            return -1.0
        most = max(len(mean), len(std))
        mean, std = (part * most if len(part) == 1 else part for part in (mean, std))
        return _one([-m / s for m, s in zip(mean, std, strict=True)])

    @property
    def identity(self) -> bool:
        """Whether the model takes [0, 1] pixels."""
        return self.scale == 1.0 and self.offset == 0.0

    @property
    def channels(self) -> int:
        """How many channels the images have, where the scale or the offset says it; else 1."""
        parts = [part for part in (self.scale, self.offset) if isinstance(part, list)]
        return max(map(len, parts), default=1)

    @property
    def uniform(self) -> bool:
        """Whether all channels are scaled and shifted alike."""
        return not isinstance(self.scale, list) and not isinstance(self.offset, list)

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest pixel that the model takes."""
        ends = np.array([[0.0], [1.0]]) * np.asarray(self.scale) + np.asarray(self.offset)
        return float(ends.min()), float(ends.max())

    @property
    def options(self) -> str:
        """The options of the command line that say so."""
        if self.standardized:
            parts = {"mean": self.mean, "std": self.std}
            given = {name: part for name, part in parts.items() if part is not None}
            return " ".join(f"--{n} {','.join(f'{v:.4g}' for v in p)}" for n, p in given.items())
        return f"--input-range {self.pixels}"

    @property
    def arguments(self) -> str:
        """The arguments of Python that say so."""
        if not self.standardized:
            return f"input_range={self.pixels!r}"
        given = {"mean": self.mean, "std": self.std}
        return ", ".join(f"{name}={part}" for name, part in given.items() if part is not None)

    @property
    def told(self) -> str:
        """The pixels in words."""
        if self.standardized:
            return f"standardized pixels (mean {self.mean}, std {self.std})"
        names = {"caffe": "BGR pixels less ImageNet's mean", "torch": "ImageNet's standard pixels"}
        return names.get(self.pixels, f"pixels of {self.pixels.replace('..', ' to ')}")

    def from_unit(self, images: Any) -> Any:
        """Images in [0, 1], ``[..., C]``, as the model takes them; a tensor works too."""
        ordered = images[..., ::-1] if self.reverses_channels else images
        return ordered * np.asarray(self.scale, np.float32) + np.asarray(self.offset, np.float32)

    def probe(self, unit: np.ndarray) -> np.ndarray:
        """Numbers in [0, 1] of any shape as pixels that the model takes, to try it on."""
        if self.uniform or unit.shape[-1] == self.channels:
            return self.from_unit(unit)
        least, most = self.limits
        return least + (most - least) * unit

    def to_unit(self, images: Any) -> Any:
        """The inverse of :meth:`from_unit`."""
        unit = (images - np.asarray(self.offset, np.float32)) / np.asarray(self.scale, np.float32)
        return unit[..., ::-1] if self.reverses_channels else unit

    def eps(self, eps: float) -> str:
        """A Linf radius of [0, 1] pixels in the model's own units; "" where they are the same."""
        if self.scale == 1.0:
            return ""
        radii = dict.fromkeys(f"{eps * scale:.4g}" for scale in np.atleast_1d(self.scale))
        return f"Linf eps {eps:.4g} is {', '.join(radii)} of the model's pixels"


def _one(values: list[float]) -> float | list[float]:
    return values[0] if len(values) == 1 else values
