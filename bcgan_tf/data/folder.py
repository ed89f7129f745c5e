"""A user's own images: `PATH/train/CLASS/*` and `PATH/test/CLASS/*`, or `PATH/CLASS/*`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bcgan_tf.data import image_files
from bcgan_tf.data.dataset import Dataset
from bcgan_tf.data.image_files import PARTS, TEST, TRAIN, VALIDATION, ImageFile, Listing
from bcgan_tf.data.pictures import KINDS, SUFFIXES, printable
from bcgan_tf.errors import UserError
from bcgan_tf.settings.images import ImageSettings


def load(
    path: str | os.PathLike[str],
    settings: ImageSettings | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Dataset:
    """All images below `path`, uint8 `[N, H, W, C]`.

    The classes are the sorted names of the folders in `path/train`, and all that lies in such a
    folder, however deep, is of its class. `path/validation` (or `val`) is the validation split;
    without it a tenth of the training images of each class, and at least one. The test images are
    in an order that mixes the classes. Without `train` and `test` the folders in `path` are the
    classes, and the splits are drawn (:func:`image_files.split_parts`).

    Args:
        path: the folder.
        settings: what the images become; the defaults without.
        cache_dir: see :func:`image_files.load`.
        seed: chooses the validation images.

    Raises:
        UserError: for a missing or empty folder, fewer than two classes, a class that the splits
            do not share, a name that cannot be printed, files that are no images, and images of
            several sizes where none is asked for: all that is wrong in one message.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; give one that holds train/ and test/, or a folder per class"
        )
    name = f"folder-{root.resolve().name}"
    if not f"{root}{name}".isprintable():
        raise UserError(
            f"{printable(root)}: no name that can be printed, in UTF-8; rename the folder"
        )
    listing = _listing(root, name)
    if not listing.files:
        image_files.refuse(listing.faults)
    chosen = settings or ImageSettings()
    return image_files.load(listing, chosen, cache_dir=cache_dir, seed=seed)


def _listing(root: Path, name: str) -> Listing:
    listing = Listing(name, root, (), [])
    inside = [entry for entry in _content(root, listing.faults) if not entry.name.startswith(".")]
    folders = {entry.name: entry for entry in inside if entry.is_dir()}
    if not PARTS.keys() & folders.keys():
        classes = _files_by_class(root, listing)
        if len(classes) < 2:
            listing.faults.insert(
                0,
                f"{root}: neither train/ and test/ with a folder a class, nor a folder for each of "
                f"at least 2 classes ({len(classes)} found)",
            )
        listing.class_names = tuple(classes)
        _add(listing, "", classes)
        return listing
    found: dict[str, dict[str, list[Path]]] = {}
    for part in (TRAIN, VALIDATION, TEST):
        called = [
            folders[name] for name, split in PARTS.items() if split == part and name in folders
        ]
        if len(called) > 1:
            both = " and ".join(folder.name for folder in called)
            listing.faults.append(f"{root}: {both} both hold {part} images; keep one")
        if called:
            found[part] = _files_by_class(called[0], listing)
        elif part != VALIDATION:
            other = ", or rename validation/" if part == TEST and VALIDATION in found else ""
            listing.faults.append(
                f"{root / part}: no such folder; put the images in {part}/CLASS/, one folder a "
                f"class{other}"
            )
    others = [entry for entry in inside if entry.name not in PARTS]
    for entry in others:
        folder = entry.is_dir()
        listing.skipped[f"{'folder' if folder else 'file'} beside the splits"] += 1
    _check_classes(root, found, listing.faults)
    listing.class_names = tuple(found.get(TRAIN, ()))
    for part, classes in found.items():
        _add(listing, part, classes)
    return listing


def _add(listing: Listing, part: str, classes: dict[str, list[Path]]) -> None:
    """The files of a split, of the classes that there are."""
    for label, name in enumerate(listing.class_names):
        listing.files += [ImageFile(file, label, part) for file in classes.get(name, ())]


def _files_by_class(part: Path, listing: Listing) -> dict[str, list[Path]]:
    """The images of each class; files of other kinds are counted as skipped."""
    classes = {}
    for folder in sorted(_content(part, listing.faults), key=lambda folder: folder.name):
        if folder.name.startswith("."):
            continue
        if folder.is_symlink() and not folder.exists():
            listing.faults.append(
                f"{printable(folder)}: a link that leads nowhere; mend or remove it"
            )
        if not folder.is_dir():
            listing.skipped["file outside of a class"] += 1
            continue
        if not folder.name.isprintable():
            listing.faults.append(
                f"{printable(folder)}: no name of a class that can be printed, in UTF-8; rename it"
            )
            continue
        others: Counter[str] = Counter()
        files = sorted(_images_below(folder, listing.faults, others, {folder.resolve()}))
        listing.skipped.update(others)
        classes[folder.name] = files
        if not files:
            held = f" (it has {', '.join(others)})" if others else ""
            listing.faults.append(
                f"{folder}: no {KINDS} image in it{held}; add some or remove the folder"
            )
    return classes


def _images_below(
    folder: Path, faults: list[str], others: Counter[str], seen: set[Path]
) -> Iterator[Path]:
    """The image files in a folder and the folders in it; links that lead back are not followed."""
    for entry in _content(folder, faults):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            inner = entry.resolve()
            if inner not in seen and not folder.resolve().is_relative_to(inner):
                yield from _images_below(entry, faults, others, seen | {inner})
        elif entry.suffix.lower() in SUFFIXES:
            yield entry
        else:
            suffix = entry.suffix.lower()
            printed = suffix if suffix.isprintable() and suffix else "without a suffix"
            others[f"{printed} file"] += 1


def _content(folder: Path, faults: list[str]) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        faults.append(
            f"{printable(folder)}: cannot be read ({error.strerror}); make it readable or remove it"
        )
        return []


def _check_classes(root: Path, found: dict[str, dict[str, list[Path]]], faults: list[str]) -> None:
    """Adds to `faults` what the splits do not share."""
    train, test = found.get(TRAIN), found.get(TEST)
    if train is None:
        return
    if len(train) < 2:
        faults.append(
            f"{root / TRAIN}: {len(train)} class folder(s) found; a classifier needs at least 2"
        )
    for part in (VALIDATION, TEST):
        faults += [
            f"{root / part / name}: this class is not in train; add it there or remove it"
            for name in found.get(part, ())
            if name not in train
        ]
    least = 1 if VALIDATION in found else 2
    for name, files in train.items():
        if test is not None and name not in test:
            faults.append(f"{root / TEST / name}: no such folder; every class needs test images")
        if 0 < len(files) < least:
            faults.append(
                f"{printable(files[0])}: the only training image of class {name!r}; a class needs "
                "at least 2"
            )
