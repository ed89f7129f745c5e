"""Any image classification set of tensorflow-datasets that is prepared: `tfds:NAME[/CONFIG]`."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.data import pictures, store
from bcgan_tf.data.dataset import Dataset, Split
from bcgan_tf.data.image_files import TEST, TRAIN, VALIDATION, split_parts, summarized
from bcgan_tf.data.tfds_source import data_directory
from bcgan_tf.errors import UserError, first_line
from bcgan_tf.settings.images import ImageSettings

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")


def load(
    name: str,
    settings: ImageSettings | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Dataset:
    """The splits train, validation and test of a prepared data set.

    Without a test split, or where its labels are not public, the validation split is the test
    split; without both, the splits are drawn (:func:`image_files.split_parts`). Other splits are
    left out.

    Args:
        name: as tensorflow-datasets has it, with a configuration where there are several.
        settings: what the images become; the defaults without.
        data_dir: folder of prepared copies; see :func:`data_directory`.
        cache_dir: see :func:`image_files.load`.
        seed: chooses the validation images.

    Raises:
        UserError: there is no prepared copy, it is no image classification set, or its images
            have several sizes and none is asked for.
    """
    folder = _prepared(name, data_directory(data_dir))
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # tfds and TensorFlow raise a dozen unrelated types here
        raise UserError(f"{folder}: no readable prepared copy ({first_line(error)})") from error
    source = _Source(name, folder, builder, settings or ImageSettings())
    images, about = source.read(Path(cache_dir).expanduser() if cache_dir else None)
    whole = Split(images, np.array(about["labels"], np.int64))
    parts = np.repeat(list(about["counts"]), list(about["counts"].values()))
    groups = None
    if set(about["counts"]) == {""}:
        groups = np.unique(about["digests"], return_inverse=True)[1]
    names = tuple(builder.info.features[source.label].names)
    splits, rule = split_parts(whole, parts, groups, names, seed=seed)
    summary = summarized(
        splits, about["converted"], about["skipped"], (), f"{rule}{about['note']}", source.kept_in
    )
    return Dataset(f"tfds-{name.replace('/', '-')}", *splits, names, summary)


def prepared_names(data_dir: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """All prepared copies in a folder: name, with its configuration, to the newest version."""
    found = {}
    root = data_directory(data_dir)
    for info in sorted(root.glob("*/*/dataset_info.json")) + sorted(
        root.glob("*/*/*/dataset_info.json")
    ):
        if _VERSION.fullmatch(info.parent.name):
            found[info.parent.parent.relative_to(root).as_posix()] = info.parent
    return found


def _prepared(name: str, root: Path) -> Path:
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot name a data set; give tfds:NAME or tfds:NAME/CONFIG")
    known = prepared_names(root)
    configs = [one for one in known if one.startswith(f"{name}/")]
    if name not in known and len(configs) > 1:
        raise UserError(f"{name} is prepared as {', '.join(configs)}; choose one of these")
    chosen = name if name in known or not configs else configs[0]
    if chosen not in known:
        here = f"here are {', '.join(known)}" if known else "there is none of any other"
        raise UserError(
            f"no prepared copy of {name} in {root}; {here}; prepare it with `tfds build {name}`, "
            "or give a folder that has one with --data-dir or TFDS_DATA_DIR"
        )
    newest = [folder for folder in known[chosen].parent.iterdir() if _is_copy(folder)]
    return max(newest, key=lambda folder: tuple(map(int, folder.name.split("."))))


def _is_copy(folder: Path) -> bool:
    named = _VERSION.fullmatch(folder.name) is not None
    return named and (folder / "dataset_info.json").is_file()


class _Source:
    """The examples of a prepared copy, one by one."""

    def __init__(self, name: str, folder: Path, builder: Any, settings: ImageSettings) -> None:
        self.name, self.folder, self.builder, self.settings = name, folder, builder, settings
        self.kept_in: Path | None = None
        self.image, self.label = self._keys()
        parts = {
            split: builder.info.splits[split].num_examples
            for split in (TRAIN, VALIDATION, TEST)
            if split in builder.info.splits and builder.info.splits[split].num_examples
        }
        if not parts:
            raise UserError(f"{folder}: no split train, validation or test; choose another set")
        others = {split: one.num_examples for split, one in builder.info.splits.items()}
        self.skipped = {
            f"of the split {split}": count for split, count in others.items() if split not in parts
        }
        self.note = ""
        if TEST in parts and TRAIN in parts and self._first_label(TEST) < 0:
            self.skipped["of the test split, which has no labels"] = parts.pop(TEST)
        # Split of the copy to ours.
        self.parts = {split: split for split in parts}
        if len(parts) == 1:
            self.parts = dict.fromkeys(parts, "")
        elif TEST not in parts:
            self.parts[VALIDATION] = TEST
            self.note = "; the test images are its validation split"
        elif TRAIN not in parts:
            raise UserError(
                f"{folder}: splits {', '.join(parts)} without train; choose another set"
            )
        self.counts = parts

    def _keys(self) -> tuple[str, str]:
        import tensorflow_datasets as tfds

        features = self.builder.info.features
        kinds = (tfds.features.Image, tfds.features.ClassLabel)
        named = [[key for key in features if isinstance(features[key], kind)] for kind in kinds]
        if all(len(keys) == 1 for keys in named):
            return named[0][0], named[1][0]
        keys = self.builder.info.supervised_keys or ()
        if len(keys) == 2 and all(key in some for key, some in zip(keys, named, strict=True)):
            return keys[0], keys[1]
        told = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in features.items())
        raise UserError(
            f"{self.folder}: no image classification set, one image to one class ({told}); "
            "choose another, or write its images into a folder"
        )

    def _examples(self, split: str) -> Iterator[tuple[np.ndarray, int]]:
        import tensorflow_datasets as tfds

        try:
            found = self.builder.as_dataset(split=split, shuffle_files=False)
            pairs = found.map(lambda example: (example[self.image], example[self.label]))
            for image, label in tfds.as_numpy(pairs):
                yield image, int(label)
        except UserError:
            raise
        except Exception as error:  # tfds and TensorFlow raise a dozen unrelated types here
            raise UserError(
                f"{self.folder}: cannot be read ({first_line(error)}); prepare it again, as "
                "TFRecord files"
            ) from error

    def _first_label(self, split: str) -> int:
        return next(label for _, label in self._examples(split))

    def read(self, cache_dir: Path | None) -> tuple[Any, dict[str, Any]]:
        """The images in our order of splits, and what there is to know of them."""
        cache = self._cache(cache_dir) if cache_dir is not None else None
        if cache is not None and (found := cache.read()) is not None:
            self.kept_in = cache.path
            return found
        shape = self._shape()
        count = sum(self.counts.values())
        about: dict[str, Any] = {
            "labels": [],
            "digests": [],
            "converted": Counter(),
            "skipped": self.skipped,
            "note": self.note,
            "counts": {ours: self.counts[theirs] for theirs, ours in self.parts.items()},
        }
        pixels = self._pixels(shape, about)
        if cache is None and store.fits_memory(count, shape):
            return store.in_memory(pixels, count, shape), about
        cache = cache or self._cache(store.default_folder())
        self.kept_in = cache.path
        return cache.read() or cache.write(pixels, count, shape, lambda: about)

    def _cache(self, folder: Path) -> store.Cache:
        info = json.loads((self.folder / "dataset_info.json").read_text(encoding="utf-8"))
        identity = [str(self.folder.resolve()), info, self.settings.to_dict()]
        return store.Cache(folder, f"tfds-{self.name.replace('/', '-')}", identity)

    def _shape(self) -> tuple[int, int, int]:
        """Of all images as they will be kept."""
        first, _ = next(self._examples(next(iter(self.parts))))
        height, width = self.settings.image_size or first.shape[:2]
        channels = {None: min(first.shape[-1], 3), "grayscale": 1, "rgb": 3}[self.settings.color]
        return height, width, channels

    def _pixels(
        self, shape: tuple[int, int, int], about: dict[str, Any]
    ) -> Iterator[np.ndarray | None]:
        *size, channels = shape
        drawn = set(self.parts.values()) == {""}
        for theirs in self.parts:
            for image, label in self._examples(theirs):
                if image.dtype != np.uint8:
                    image = (image >> 8).astype(np.uint8)
                    about["converted"][pictures.SIXTEEN] += 1
                if image.shape[-1] != channels:
                    about["converted"][pictures.COLORED if channels == 3 else pictures.GRAYED] += 1
                    image = pictures.recolored(image, channels)
                if image.shape[:2] != tuple(size):
                    if self.settings.image_size is None:
                        raise UserError(
                            f"{self.name}: the images have several sizes, such as "
                            f"{size[0]}x{size[1]} and {image.shape[0]}x{image.shape[1]}; resize "
                            "them with --image-size HEIGHTxWIDTH (image_size=), to what your model "
                            "takes"
                        )
                    about["converted"][pictures.RESIZED] += 1
                    image = pictures.resized(image, (size[0], size[1]), self.settings.interpolation)
                about["labels"].append(label)
                if drawn:
                    digest = hashlib.blake2b(image.tobytes(), digest_size=12)
                    about["digests"].append(digest.hexdigest())
                yield image
