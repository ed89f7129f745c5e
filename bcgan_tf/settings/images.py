"""How images of a user's own are read. Loads no TensorFlow, so that the command line can ask it."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, NamedTuple

from bcgan_tf.settings.fields import Checked, OneOf, setting

_MOST_SIDE = 4096
Color = Annotated[str, OneOf("grayscale", "rgb")]
# As keras.utils.image_dataset_from_directory has them.
Interpolation = Annotated[
    str,
    OneOf(
        "bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian",
        "mitchellcubic",
    ),
]  # fmt: skip


class ImageSize(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int

    WANTED = f"HEIGHTxWIDTH, from 1 to {_MOST_SIDE:,} each, such as 224x224"

    @classmethod
    def parse(cls, text: str) -> ImageSize:
        """``"224x160"``; ``"224"`` is a square.

        Raises:
            ValueError: there is no such size.
        """
        height, cross, width = text.lower().partition("x")
        found = cls(int(height), int(width) if cross else int(height))
        if not found.exists:
            raise ValueError(text)
        return found

    @property
    def exists(self) -> bool:
        """Whether both sides are in range."""
        return all(1 <= side <= _MOST_SIDE for side in self)

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSettings(Checked):
    """What images of a user's own become when they are read."""

    image_size: ImageSize | None = setting(
        None, "Size that images are resized to; none: the model's input size, or their own."
    )
    color: Color | None = setting(
        None, "Colours of the images; none: as the model takes them, or rgb if one has colour."
    )
    interpolation: Interpolation = setting(
        "bilinear", "Method of tf.image.resize, as in Keras' image_dataset_from_directory."
    )
    skip_broken: bool = setting(False, "Go on without files that cannot be read as images.")

    def changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults, JSON-able."""
        default = ImageSettings().to_dict()
        return {name: value for name, value in self.to_dict().items() if value != default[name]}
