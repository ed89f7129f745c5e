"""A user's own images: `PATH/train/CLASS/*.png` and `PATH/test/CLASS/*.png` (or .jpg, .jpeg)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bcgan_tf.data.dataset import Dataset, Split, stratified_split
from bcgan_tf.errors import UserError

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


def load(path: str | os.PathLike[str], *, seed: int = 0) -> Dataset:
    """All images below `path`, uint8 `[N, H, W, C]`: 1 channel if all are grey, 3 if all colour.

    The classes are the sorted names of the folders in `path/train`. A tenth of the training images,
    of each class and at least one, becomes the validation split; the test images are in an order
    that mixes the classes.

    Args:
        path: the folder that holds `train` and `test`.
        seed: chooses the validation images.

    Raises:
        UserError: for a missing or empty folder, fewer than two classes, a class that `train` and
            `test` do not share, a file that is no image, and images that differ in size or colour.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give one that holds train/ and test/")
    files = {part: _files_by_class(root / part) for part in ("train", "test")}
    _check_classes(root, files["train"], files["test"])
    class_names = tuple(files["train"])
    shape = _decode(next(iter(files["train"].values()))[0]).shape
    splits = {part: _read(files[part], class_names, shape) for part in files}
    pool = splits["train"]
    train, validation = stratified_split(pool, round(0.1 * len(pool)), seed=seed)
    # Whoever looks at the first images alone must not see one class alone.
    test = splits["test"].take(len(splits["test"]))
    name = f"folder-{root.resolve().name}"
    return Dataset(name, train, validation, test, class_names)


def _files_by_class(part: Path) -> dict[str, list[Path]]:
    if not part.is_dir():
        raise UserError(
            f"{part}: no such folder; put the images in {part.name}/CLASS/, one folder a class"
        )
    classes = {}
    for folder in sorted(part.iterdir(), key=lambda folder: folder.name):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        classes[folder.name] = sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
        )
        if not classes[folder.name]:
            raise UserError(f"{folder}: no PNG or JPEG image in it; add some or remove the folder")
    return classes


def _check_classes(root: Path, train: dict[str, list[Path]], test: dict[str, list[Path]]) -> None:
    if len(train) < 2:
        raise UserError(
            f"{root / 'train'}: {len(train)} class folder(s) found; a classifier needs at least 2"
        )
    for name in test:
        if name not in train:
            raise UserError(
                f"{root / 'test' / name}: this class is not in train; add it there or remove it"
            )
    for name, files in train.items():
        if name not in test:
            raise UserError(
                f"{root / 'test' / name}: no such folder; every class needs test images"
            )
        if len(files) < 2:
            raise UserError(
                f"{files[0]}: the only training image of class {name!r}; a class needs at least 2"
            )


def _read(
    files: dict[str, list[Path]], class_names: tuple[str, ...], shape: tuple[int, ...]
) -> Split:
    paths = [path for name in class_names for path in files[name]]
    labels = np.repeat(np.arange(len(class_names)), [len(files[name]) for name in class_names])
    images = np.empty((len(paths), *shape), np.uint8)
    with ThreadPoolExecutor() as pool:  # decoding runs outside Python's lock
        for row, pixels in enumerate(pool.map(_decode, paths)):
            if pixels.shape != shape:
                raise UserError(
                    f"{paths[row]}: {_describe(pixels.shape)}, but the first image is "
                    f"{_describe(shape)}; convert all images to one size and colour"
                )
            images[row] = pixels
    return Split(images, labels.astype(np.int64))


def _decode(path: Path) -> np.ndarray:
    """uint8 `[H, W, 1]` or `[H, W, 3]`, as stored: an EXIF rotation is not applied, as in TF."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            mode = _MODES.get(image.mode)
            pixels = np.asarray(image.convert(mode)) if mode else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path}: not a readable PNG or JPEG image; replace or remove it"
        ) from error
    if pixels is None:
        raise UserError(f"{path}: pixels are not 8-bit grey or colour; save it as 8-bit PNG")
    return pixels.reshape(*pixels.shape[:2], -1)


def _describe(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} {'grey' if shape[2] == 1 else 'colour'}"
