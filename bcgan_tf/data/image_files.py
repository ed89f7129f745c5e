"""Image files of a user's own as a `Dataset`: checked, decoded, resized, split."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bcgan_tf.data import pictures, store
from bcgan_tf.data.dataset import Dataset, Split, grouped_split, stratified_split
from bcgan_tf.data.pictures import Header, printable
from bcgan_tf.errors import UserError
from bcgan_tf.settings.images import ImageSettings

# The names of the splits, and what users call them.
TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = {TRAIN: TRAIN, "validation": VALIDATION, "val": VALIDATION, TEST: TEST}
# Of images that come without splits: 20 % are for the test, 10 % of the others for validation.
_TEST_SHARE, _VALIDATION_SHARE = 0.2, 0.1
# The test images are the same for every seed, so that no model is tested on what another learned.
_TEST_SEED = 0
# Of one image: 4096 x 4096. A batch of larger ones is not to be trained on, nor attacked.
_MOST_PIXELS = 2**24
# Of one that is resized: a photograph of 67 megapixels.
_MOST_RESIZED = 2**26
# How many of the bad files and folders are named; the others are counted.
_NAMED = 20
_SOME = 3
# Images that are decoded before the first of them is taken.
_AHEAD = 64
# What stands behind the name of a copy or an augmented image, and Roboflow's mark of one.
_COPY = re.compile(
    r"(?:[ _.-]*\(?\b|_)(?:copy|kopie|copie|aug|augmented|augmentation)[ _-]*\(?\d*\)?$"
    r"|\.rf\.[0-9a-f]{8,}$",
    re.I,
)
_NUMBERED = re.compile(r" ?\(\d+\)$")

_Found = TypeVar("_Found")


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """One image of a user's own.

    Attributes:
        path: of the file.
        label: its class.
        part: the split that it is of; "" where nobody says.
    """

    path: Path
    label: int
    part: str = ""


@dataclasses.dataclass
class Listing:
    """What a folder or a table names, before any file is opened.

    Attributes:
        name: of the data set, fit for a file name.
        root: what paths are told relative to.
        class_names: one name per class index.
        files: of the training, the validation and the test split, in this order.
        faults: what is wrong, a sentence each.
        skipped: what is left out, with counts.
    """

    name: str
    root: Path
    class_names: tuple[str, ...]
    files: list[ImageFile]
    faults: list[str] = dataclasses.field(default_factory=list)
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)


def load(
    listing: Listing,
    settings: ImageSettings,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Dataset:
    """Reads the files of a listing: uint8 ``[N, H, W, C]``, 1 channel if all are grey, else 3.

    The headers of all files are read before the first image is decoded.

    Args:
        listing: which files, classes and splits.
        settings: what the images become.
        cache_dir: folder to keep the decoded images in; None: in memory, and where they are too
            many for it in :func:`bcgan_tf.data.store.default_folder`.
        seed: chooses the validation images.

    Raises:
        UserError: all that is wrong with the listing and the files, in one message.
    """
    reader = _Reader(listing, settings)
    images, about = reader.read(Path(cache_dir).expanduser() if cache_dir else None)
    files = [listing.files[index] for index in about["kept"]]
    whole = Split(images, np.array([file.label for file in files], np.int64))
    parts = np.array([file.part for file in files])
    groups = groups_of([file.path for file in files], about["digests"]) if not parts[0] else None
    splits, rule = split_parts(whole, parts, groups, listing.class_names, seed=seed)
    skipped = {**({"broken": len(about["broken"])} if about["broken"] else {}), **listing.skipped}
    kept_in = reader.kept_in
    summary = summarized(splits, about["converted"], skipped, about["broken"], rule, kept_in)
    return Dataset(listing.name, *splits, listing.class_names, summary)


@dataclasses.dataclass
class _Reader:
    """Headers, checks and pixels of one listing."""

    listing: Listing
    settings: ImageSettings
    kept_in: Path | None = None

    def read(self, cache_dir: Path | None) -> tuple[Any, dict[str, Any]]:
        """The images, and what there is to know of them:

        - ``kept``: which of the files they are;
        - ``converted``: how many of them were changed, by what was done;
        - ``broken``: paths of files that were left out;
        - ``digests``: of the pixels of each image, where splits are to be made.
        """
        listing = self.listing
        if cache_dir is not None and not listing.faults:
            cache = self._cache(cache_dir)
            if (found := cache.read()) is not None:
                self.kept_in = cache.path
                return found
        headers = self._headers()
        good = [index for index, header in enumerate(headers) if isinstance(header, Header)]
        shape = self._shape([header for header in headers if isinstance(header, Header)])
        about: dict[str, Any] = {"kept": [], "converted": Counter(), "digests": []}
        about["broken"] = [
            printable(listing.files[index].path)
            for index, header in enumerate(headers)
            if not isinstance(header, Header)
        ]
        pixels = self._pixels(headers, good, shape, about)
        if cache_dir is None and store.fits_memory(len(good), shape):
            return store.in_memory(pixels, len(good), shape), about
        cache = self._cache(cache_dir or store.default_folder())
        self.kept_in = cache.path
        return cache.read() or cache.write(pixels, len(good), shape, lambda: about)

    def _cache(self, folder: Path) -> store.Cache:
        files = [
            (str(file.path), file.part, file.label, *_stamp(file.path))
            for file in self.listing.files
        ]
        identity = {"files": files, "settings": self.settings.to_dict()}
        return store.Cache(folder, self.listing.name, identity)

    def _headers(self) -> list[Header | UserError]:
        """Of each file, or why it has none; refuses all that is wrong and not to be skipped."""
        listing, skip = self.listing, self.settings.skip_broken
        paths = [file.path for file in listing.files]
        headers = list(_each(self._header, paths))
        bad = {index: one for index, one in enumerate(headers) if isinstance(one, UserError)}
        if bad and not skip and not listing.faults:
            # The others may be cut short, which only decoding shows: all is told at once.
            good = [index for index in range(len(paths)) if index not in bad]
            for index, found in zip(good, _each(_decode, [paths[i] for i in good]), strict=True):
                if isinstance(found, UserError):
                    bad[index] = found
        told = {} if skip else {paths[index]: bad[index] for index in sorted(bad)}
        refuse([*listing.faults, *self._size_faults(headers)], self._by_reason(told))
        return headers

    def _by_reason(self, bad: Mapping[Path, UserError]) -> list[str]:
        """What is wrong with files, each reason once with all of its files."""
        files: dict[str, list[Path]] = {}
        for path, error in bad.items():
            files.setdefault(str(error).removeprefix(f"{printable(path)}: "), []).append(path)
        lines = []
        for reason, paths in files.items():
            names = [self._told(path) for path in paths[:_NAMED]]
            more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
            several = f"{printable(self.listing.root)}: {', '.join(names)}{more}"
            lines.append(f"{printable(paths[0]) if len(paths) == 1 else several}: {reason}")
        return lines

    def _header(self, path: Path) -> Header:
        found = pictures.header(path)
        most = _MOST_RESIZED if self.settings.image_size else _MOST_PIXELS
        if found.height * found.width > most:
            raise UserError(
                f"{printable(path)}: {found.height}x{found.width} are more than the {most:,} "
                "pixels that an image may have; give --image-size, or make them smaller"
            )
        return found

    def _size_faults(self, headers: Sequence[Any]) -> Iterator[str]:
        examples: dict[tuple[int, int], Path] = {}
        sizes: Counter[tuple[int, int]] = Counter()
        for file, header in zip(self.listing.files, headers, strict=True):
            if isinstance(header, Header):
                sizes[header.size] += 1
                examples.setdefault(header.size, file.path)
        if len(sizes) < 2 or self.settings.image_size is not None:
            return
        texts = [
            f"{size[0]}x{size[1]} ({count:,}, such as {self._told(examples[size])})"
            for size, count in sizes.most_common()[:_SOME]
        ]
        more = f" and {len(sizes) - _SOME:,} more" if len(sizes) > _SOME else ""
        yield (
            f"{printable(self.listing.root)}: the images have {len(sizes):,} sizes, height x "
            f"width: {', '.join(texts)}{more}; resize them with --image-size HEIGHTxWIDTH "
            "(image_size=), to what your model takes"
        )

    def _shape(self, headers: Sequence[Header]) -> tuple[int, int, int]:
        """Of all images as they will be kept."""
        if not headers:
            raise UserError(f"{printable(self.listing.root)}: no readable image; add some")
        channels = 1 if all(header.channels == 1 for header in headers) else 3
        if self.settings.color is not None:
            channels = 1 if self.settings.color == "grayscale" else 3
        height, width = self.settings.image_size or headers[0].size
        return height, width, channels

    def _told(self, path: Path) -> str:
        inside = path.is_relative_to(self.listing.root)
        return printable(path.relative_to(self.listing.root) if inside else path)

    def _pixels(
        self,
        headers: Sequence[Any],
        good: Sequence[int],
        shape: tuple[int, int, int],
        about: dict[str, Any],
    ) -> Iterator[np.ndarray | None]:
        """The images in order, None for one that cannot be decoded; fills ``about`` on its way."""
        files, settings = self.listing.files, self.settings
        split = any(not files[index].part for index in good)
        *size, channels = shape

        def decoded(path: Path) -> np.ndarray:
            found = pictures.pixels(path, channels)
            return pictures.resized(found, (size[0], size[1]), settings.interpolation)

        bad: dict[Path, UserError] = {}
        paths = [files[index].path for index in good]
        for index, found in zip(good, _each(decoded, paths), strict=True):
            if isinstance(found, UserError):
                bad[files[index].path] = found
                about["broken"].append(printable(files[index].path))
                yield None
                continue
            about["kept"].append(index)
            header = headers[index]
            about["converted"].update(header.changes)
            if header.channels != channels:
                about["converted"][pictures.COLORED if channels == 3 else pictures.GRAYED] += 1
            if header.size != tuple(size):
                about["converted"][pictures.RESIZED] += 1
            if split:
                about["digests"].append(
                    hashlib.blake2b(found.tobytes(), digest_size=12).hexdigest()
                )
            yield found
        refuse([], [] if settings.skip_broken else self._by_reason(bad))


def split_parts(
    whole: Split,
    parts: np.ndarray,
    groups: np.ndarray | None,
    class_names: Sequence[str],
    *,
    seed: int,
) -> tuple[tuple[Split, Split, Split], str]:
    """Training, validation and test split, and the rule in words.

    Args:
        whole: all examples.
        parts: text ``[N]``, the split of each; all "" where they are to be drawn.
        groups: int ``[N]``, where they are to be drawn: copies of one image have the same.
        class_names: for messages.
        seed: chooses the validation images.

    Raises:
        UserError: too few images of a class, or of one that has no test images.
    """
    if groups is not None:
        rest, test_rows = grouped_split(whole, _TEST_SHARE, groups=groups, seed=_TEST_SEED)
        pool, test = whole.rows(rest), whole.rows(test_rows)
        train_rows, rows = grouped_split(pool, _VALIDATION_SHARE, groups=groups[rest], seed=seed)
        train, validation = pool.rows(train_rows), pool.rows(rows)
        copies = len(groups) - len(np.unique(groups))
        rule = (
            f"drawn: {_TEST_SHARE:.0%} of each class for the test (seed {_TEST_SEED}, always), "
            f"{_VALIDATION_SHARE:.0%} of the others for validation (seed {seed}); "
            + (f"{copies:,} copies kept together" if copies else "no copies found")
        )
    else:
        pool, test = (whole.rows(_rows_of(parts, part)) for part in (TRAIN, TEST))
        for part, split in ((TRAIN, pool), (TEST, test)):
            if missing := sorted(set(range(len(class_names))) - set(split.labels.tolist())):
                names = ", ".join(class_names[label] for label in missing)
                raise UserError(f"no readable {part} image of class {names}; add some")
        if VALIDATION in parts:
            train, validation = pool, whole.rows(_rows_of(parts, VALIDATION))
            rule = "as given"
        else:
            train, validation = stratified_split(pool, round(0.1 * len(pool)), seed=seed)
            rule = f"as given; a tenth of the training images for validation (seed {seed})"
    # Shuffled, so that the first images are not all of one class.
    return (train, validation, test.take(len(test))), rule


def _rows_of(parts: np.ndarray, part: str) -> np.ndarray | slice:
    rows = np.flatnonzero(parts == part)
    contiguous = rows.size and rows[-1] - rows[0] + 1 == rows.size
    return slice(rows[0], rows[-1] + 1) if contiguous else rows


def groups_of(paths: Sequence[Path], digests: Sequence[str]) -> np.ndarray:
    """int ``[N]``: the same for images that are copies of one another.

    Such are images of the same pixels, and files of one folder whose names differ only in what
    marks a copy or an augmentation, such as ``a.jpg``, ``a copy 2.jpg``, ``a_aug1.jpg``, and
    ``a (1).jpg`` beside ``a.jpg``.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    stems = {(path.parent, path.stem) for path in paths}
    keys: dict[Any, int] = {}
    rows, columns = [], []
    for row, (path, digest) in enumerate(zip(paths, digests, strict=True)):
        plain = _NUMBERED.sub("", path.stem)
        stem = plain if (path.parent, plain) in stems else path.stem
        for key in (digest, (path.parent, _COPY.sub("", stem) or stem)):
            rows.append(row)
            columns.append(len(paths) + keys.setdefault(key, len(keys)))
    size = len(paths) + len(keys)
    edges = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size))
    return connected_components(edges, directed=False)[1][: len(paths)].astype(np.int64)


def summarized(
    splits: Sequence[Split],
    converted: dict[str, int],
    skipped: dict[str, int],
    broken: Sequence[str],
    rule: str,
    kept_in: Path | None,
) -> dict[str, Any]:
    """:attr:`Dataset.summary`."""
    counts = dict(zip((TRAIN, VALIDATION, TEST), map(len, splits), strict=True))
    height, width, channels = splits[0].images.shape[1:]
    text = (
        f"{sum(counts.values()):,} images of {height}x{width} {'grey' if channels == 1 else 'rgb'} "
        f"({', '.join(f'{part} {count:,}' for part, count in counts.items())}); split {rule}"
    )
    for what, found in (("converted", converted), ("skipped", skipped)):
        if found:
            text += f"; {what}: " + ", ".join(f"{count:,} {name}" for name, count in found.items())
    if broken:
        more = f" and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
        text += f"; broken: {', '.join(broken[:_NAMED])}{more}"
    if kept_in is not None:
        text += f"; decoded in {printable(kept_in)}"
    return {
        "images": counts,
        "shape": [height, width, channels],
        "converted": dict(converted),
        "skipped": dict(skipped),
        "broken": list(broken),
        "split": rule,
        "text": text,
    }


def refuse(faults: Iterable[str], bad_files: Iterable[str] = ()) -> None:
    """Names the first of what is wrong, and counts the others.

    Args:
        faults: a sentence each.
        bad_files: likewise, of files that can be left out.

    Raises:
        UserError: there is one.
    """
    bad = list(bad_files)
    lines = [*faults, *bad]
    if lines:
        more = f" - and {len(lines) - _NAMED:,} more" if len(lines) > _NAMED else ""
        hint = " - or go on without such files: --skip-broken (skip_broken=True)" if bad else ""
        raise UserError(" - ".join(lines[:_NAMED]) + more + hint)


def _each(
    function: Callable[[Path], _Found], paths: Sequence[Path]
) -> Iterator[_Found | UserError]:
    """What a function gives for each file, or why it refuses it, in order."""

    def tried(path: Path) -> _Found | UserError:
        try:
            return function(path)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:  # decoding runs outside Python's lock
        for start in range(0, len(paths), _AHEAD):
            yield from pool.map(tried, paths[start : start + _AHEAD])


def _decode(path: Path) -> None:
    pictures.pixels(path, 3)


def _stamp(path: Path) -> tuple[int, int] | tuple[None, None]:
    """Size and time of a file."""
    try:
        found = path.stat()
    except OSError:
        return None, None
    return found.st_size, found.st_mtime_ns
