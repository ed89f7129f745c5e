"""One image file: what its header says, and its pixels as uint8."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
KINDS = "PNG, JPEG, WebP, BMP or GIF"
# MPO is what many cameras call a JPEG with a preview; Pillow finds it as JPEG.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
# Pillow mode -> the mode we keep; alpha is dropped, a palette is looked up.
_MODES = {
    "1": "L",
    "L": "L",
    "LA": "L",
    "I": "L",
    "I;16": "L",
    "I;16B": "L",
    "P": "RGB",
    "PA": "RGB",
    "RGB": "RGB",
    "RGBA": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}
_ORIENTATION = 0x0112  # the EXIF tag
# What was done to an image, as the summary says it.
TURNED, SIXTEEN, ALPHA = "turned upright by their EXIF tag", "16 bits to 8", "alpha dropped"
RESIZED, COLORED, GRAYED = "resized", "grey to colour", "colour to grey"


@dataclass(frozen=True)
class Header:
    """What is known of an image before it is decoded.

    Attributes:
        height: in pixels, upright.
        width: likewise.
        channels: 1 of a grey image, 3 of a colour image.
        changes: what decoding changes: of :data:`TURNED`, :data:`SIXTEEN`, :data:`ALPHA`.
    """

    height: int
    width: int
    channels: int
    changes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


def header(path: Path) -> Header:
    """The header of an image file.

    Raises:
        UserError: it is no readable image, or an animation.
    """
    with _opened(path) as image:
        turn = _orientation(image)
        height, width = image.height, image.width
        if turn >= 5:
            height, width = width, height
        changes = {
            TURNED: turn > 1,
            SIXTEEN: _has_16_bits(image),
            ALPHA: image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info,
        }
        channels = len(_MODES[image.mode])
        return Header(height, width, channels, tuple(name for name, on in changes.items() if on))


def pixels(path: Path, channels: int) -> np.ndarray:
    """uint8 ``[H, W, channels]``, upright as viewers show it; alpha is dropped, not blended.

    Of 16 bits the upper eight are kept, as TensorFlow does.

    Raises:
        UserError: it is no readable image.
    """
    from PIL import Image

    with _opened(path) as image:
        turn = _orientation(image)
        if image.mode.startswith("I"):
            kept: Any = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        else:
            kept = image.convert(_MODES[image.mode])
        if turn > 1:
            turns = Image.Transpose
            kept = kept.transpose(
                {
                    2: turns.FLIP_LEFT_RIGHT,
                    3: turns.ROTATE_180,
                    4: turns.FLIP_TOP_BOTTOM,
                    5: turns.TRANSPOSE,
                    6: turns.ROTATE_270,
                    7: turns.TRANSVERSE,
                    8: turns.ROTATE_90,
                }[turn]
            )
        found = np.asarray(kept.convert("L" if channels == 1 else "RGB"))
    return found.reshape(*found.shape[:2], channels)


def resized(images: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Images ``[..., H, W, C]`` at another size, by ``tf.image.resize`` without antialiasing.

    That is what ``keras.utils.image_dataset_from_directory`` does; uint8 is rounded, floats stay
    within [0, 1].
    """
    if images.shape[-3:-1] == tuple(size):
        return images
    import tensorflow as tf

    with tf.device("CPU:0"):
        found = tf.image.resize(images, size, interpolation).numpy()
    if images.dtype == np.uint8:
        return np.clip(np.rint(found), 0, 255).astype(np.uint8)
    return np.clip(found, 0.0, 1.0).astype(np.float32)


def recolored(images: np.ndarray, channels: int) -> np.ndarray:
    """Images ``[..., C]`` with another number of channels: grey is repeated, colour weighed.

    The weights are those of ITU-R 601, as Pillow and TensorFlow have them; alpha is dropped.

    Raises:
        UserError: neither has 1, 3 or 4 channels.
    """
    given = images.shape[-1]
    if given == channels:
        return images
    if given == 4:
        return recolored(images[..., :3], channels)
    if {given, channels} != {1, 3}:
        raise UserError(f"images of {given} channels are neither grey nor rgb; convert them first")
    if channels == 3:
        return np.repeat(images, 3, -1)
    gray = images.astype(np.float32) @ np.array([[0.299], [0.587], [0.114]], np.float32)
    return np.rint(gray).astype(np.uint8) if images.dtype == np.uint8 else gray


def printable(path: Path) -> str:
    """A path in one line that can be printed."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _orientation(image: Any) -> int:
    """EXIF's number from 1 (upright) to 8; 1 where there is none."""
    if image.format != "JPEG" and image.format != "MPO" and "exif" not in image.info:
        return 1  # to look for it would decode a PNG
    with contextlib.suppress(Exception):  # a damaged tag; the image may be whole
        turn = image.getexif().get(_ORIENTATION, 1)
        return turn if turn in range(1, 9) else 1
    return 1


def _has_16_bits(image: Any) -> bool:
    """Pillow decodes grey ones to 16 bits, those in colour to the upper eight."""
    modes = [str(tile[3]) for tile in image.tile] if image.format == "PNG" else []
    return image.mode.startswith("I") or any(";16" in mode for mode in modes)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A Pillow image of one of our modes, not yet decoded."""
    from PIL import Image

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device would never end
            raise UserError(f"{printable(path)}: no regular file; replace or remove it")
        with Image.open(path, formats=_FORMATS) as image:
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise UserError(f"{printable(path)}: an animation; keep one image, or remove it")
            if image.mode not in _MODES:
                raise UserError(
                    f"{printable(path)}: pixels are not 8-bit or 16-bit grey or colour; save it "
                    "as 8-bit PNG"
                )
            yield image
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{printable(path)}: more pixels than an image may have ({error})"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{printable(path)}: no such file; put it there or remove it") from error
    except Exception as error:  # whatever a damaged file makes Pillow's decoders raise
        raise UserError(
            f"{printable(path)}: not a readable {KINDS} image; replace or remove it"
        ) from error
