"""A user's own images: `PATH/train/CLASS/*.png` and `PATH/test/CLASS/*.png` (or .jpg, .jpeg)."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bcgan_tf.data.dataset import Dataset, Split, stratified_split
from bcgan_tf.errors import UserError
from bcgan_tf.files import readable_size

_SUFFIXES = (".png", ".jpg", ".jpeg")
# Pillow mode -> the mode we keep; alpha is dropped, a palette is looked up, 16 bits are refused.
_MODES = {
    "1": "L",
    "L": "L",
    "LA": "L",
    "P": "RGB",
    "RGB": "RGB",
    "RGBA": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}
# Of the memory that is free: choosing the validation images copies all of them once.
_SHARE_OF_MEMORY = 0.4
# Of one image: 4096 x 4096. A batch of larger ones is not to be trained on, nor attacked.
_MOST_PIXELS = 2**24
# How many of the bad files and folders are named; the others are counted.
_NAMED = 5

_Shape = tuple[int, ...]
_Found = TypeVar("_Found")


def load(path: str | os.PathLike[str], *, seed: int = 0) -> Dataset:
    """All images below `path`, uint8 `[N, H, W, C]`: 1 channel if all are grey, 3 if all colour.

    The classes are the sorted names of the folders in `path/train`. A tenth of the training images,
    of each class and at least one, becomes the validation split; the test images are in an order
    that mixes the classes. The headers of all files are read before the first image is decoded.

    Args:
        path: the folder that holds `train` and `test`.
        seed: chooses the validation images.

    Raises:
        UserError: for a missing or empty folder, fewer than two classes, a class that `train` and
            `test` do not share, a name that cannot be printed, files that are no images, images
            that differ in size or colour, and more of them than fit into the memory.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give one that holds train/ and test/")
    name = f"folder-{root.resolve().name}"
    if not f"{root}{name}".isprintable():
        raise UserError(f"{_told(root)}: no name that can be printed, in UTF-8; rename the folder")
    files = {part: _files_by_class(root / part) for part in ("train", "test")}
    _check_classes(root, files["train"], files["test"])
    class_names = tuple(files["train"])
    paths = {part: [path for name in class_names for path in files[part][name]] for part in files}
    shape = _common_shape([*paths["train"], *paths["test"]])
    splits = {}
    for part, of_part in paths.items():
        counts = [len(files[part][name]) for name in class_names]
        labels = np.repeat(np.arange(len(class_names)), counts)
        splits[part] = Split(_decoded(of_part, shape), labels.astype(np.int64))
    pool = splits["train"]
    train, validation = stratified_split(pool, round(0.1 * len(pool)), seed=seed)
    # Shuffled, so that the first images are not all of one class.
    test = splits["test"].take(len(splits["test"]))
    return Dataset(name, train, validation, test, class_names)


def _files_by_class(part: Path) -> dict[str, list[Path]]:
    if not part.is_dir():
        raise UserError(
            f"{part}: no such folder; put the images in {part.name}/CLASS/, one folder a class"
        )
    classes = {}
    bad: list[str] = []
    for folder in sorted(_content(part), key=lambda folder: folder.name):
        if folder.name.startswith("."):
            continue
        if folder.is_symlink() and not folder.exists():
            bad.append(f"{_told(folder)}: a link that leads nowhere; mend or remove it")
        if not folder.is_dir():
            continue
        if not folder.name.isprintable():
            bad.append(
                f"{_told(folder)}: no name of a class that can be printed, in UTF-8; rename it"
            )
            continue
        classes[folder.name] = sorted(
            file
            for file in _content(folder)
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
        )
        if not classes[folder.name]:
            bad.append(f"{folder}: no PNG or JPEG image in it; add some or remove the folder")
    _refuse(bad)
    return classes


def _content(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"{_told(folder)}: cannot be read ({error.strerror}); make it readable or remove it"
        ) from error


def _check_classes(root: Path, train: dict[str, list[Path]], test: dict[str, list[Path]]) -> None:
    if len(train) < 2:
        raise UserError(
            f"{root / 'train'}: {len(train)} class folder(s) found; a classifier needs at least 2"
        )
    bad = [
        f"{root / 'test' / name}: this class is not in train; add it there or remove it"
        for name in test
        if name not in train
    ]
    for name, files in train.items():
        if name not in test:
            bad.append(f"{root / 'test' / name}: no such folder; every class needs test images")
        if len(files) < 2:
            bad.append(
                f"{_told(files[0])}: the only training image of class {name!r}; a class needs at "
                "least 2"
            )
    _refuse(bad)


def _common_shape(paths: Sequence[Path]) -> _Shape:
    """The shape of all images, from their headers; none is decoded."""
    shapes = list(_each(_header, paths))
    shape = shapes[0]
    _refuse(
        f"{_told(path)}: {_describe(other)}, but the first image is {_describe(shape)}; convert "
        "all images to one size and colour"
        for path, other in zip(paths, shapes, strict=True)
        if other != shape
    )
    needed, free = len(paths) * int(np.prod(shape)), free_memory()
    if free is not None and needed > _SHARE_OF_MEMORY * free:
        raise UserError(
            f"{len(paths):,} images of {_describe(shape)} take {readable_size(needed)} as arrays, "
            f"more than {_SHARE_OF_MEMORY:.0%} of the {readable_size(free)} of memory that is "
            "free; use fewer or smaller ones"
        )
    return shape


def _decoded(paths: Sequence[Path], shape: _Shape) -> np.ndarray:
    images = np.empty((len(paths), *shape), np.uint8)
    for row, pixels in enumerate(_each(_pixels, paths)):
        images[row] = pixels
    return images


def _each(function: Callable[[Path], _Found], paths: Sequence[Path]) -> Iterator[_Found]:
    """What a function gives for each file, in order; files it refuses are told of together."""

    def tried(path: Path) -> _Found | UserError:
        try:
            return function(path)
        except UserError as error:
            return error

    bad = []
    with ThreadPoolExecutor() as pool:  # decoding runs outside Python's lock
        for result in pool.map(tried, paths):
            if isinstance(result, UserError):
                bad.append(str(result))
            elif not bad:
                yield result
    _refuse(bad)


def _header(path: Path) -> _Shape:
    with _opened(path) as (image, mode):
        if image.height * image.width > _MOST_PIXELS:
            raise UserError(
                f"{_told(path)}: {image.height}x{image.width} are more than the {_MOST_PIXELS:,} "
                "pixels that an image may have; resize all images to the input of a network"
            )
        return (image.height, image.width, len(mode))


def _pixels(path: Path) -> np.ndarray:
    """uint8 `[H, W, 1]` or `[H, W, 3]`, as stored: an EXIF rotation is not applied, as in TF."""
    with _opened(path) as (image, mode):
        pixels = np.asarray(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, str]]:
    """A Pillow image, not yet decoded, and the mode it is wanted in."""
    from PIL import Image

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device would never end
            raise UserError(f"{_told(path)}: no regular file; replace or remove it")
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.mode not in _MODES:
                raise UserError(
                    f"{_told(path)}: pixels are not 8-bit grey or colour; save it as 8-bit PNG"
                )
            yield image, _MODES[image.mode]
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{_told(path)}: more pixels than an image may have ({error})") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{_told(path)}: not a readable PNG or JPEG image; replace or remove it"
        ) from error


def _refuse(bad: Iterable[str]) -> None:
    """Names the first few of what is wrong, and counts the others."""
    lines = list(bad)
    if lines:
        more = f" - and {len(lines) - _NAMED:,} more" if len(lines) > _NAMED else ""
        raise UserError(" - ".join(lines[:_NAMED]) + more)


def _told(path: Path) -> str:
    """A path in one line that can be printed."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _describe(shape: _Shape) -> str:
    return f"{shape[0]}x{shape[1]} {'grey' if shape[2] == 1 else 'colour'}"


def free_memory() -> int | None:
    """Bytes that this process, or its container, can still take; None where no one says."""
    limits = []
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(next(int(x.split()[1]) << 10 for x in lines if x.startswith("MemAvailable")))
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{x}").read_text()) for x in ("max", "current"))
        limits.append(limit - used)
    return min(limits, default=None)
