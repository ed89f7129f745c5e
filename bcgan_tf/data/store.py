"""Where decoded images are kept: an array in memory, or a file of raw pixels in a cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from bcgan_tf.errors import UserError
from bcgan_tf.files import DamagedFile, DiskFull, read_json, readable_size, replacing, write_json
from bcgan_tf.lazy_images import file_images

# Of the memory that is free: choosing the validation images copies all of them once.
_SHARE_OF_MEMORY = 0.4
# Of the images that are attacked, as float32: measured by benchmarks/large_folder.py.
_COPIES = 10
_PIXELS, _ABOUT = "pixels.raw", "about.json"
_VERSION = 1


def fits_memory(count: int, shape: tuple[int, ...]) -> bool:
    """Whether that many uint8 images may be an array in memory; yes where no one knows."""
    free = free_memory()
    return free is None or count * int(np.prod(shape)) <= _SHARE_OF_MEMORY * free


def check_memory(count: int, shape: tuple[int, ...]) -> None:
    """Refuses to attack more images at once than the memory holds, before any is read.

    Args:
        count: of the images.
        shape: of each.

    Raises:
        UserError: says how many it holds.
    """
    free, each = free_memory(), 4 * int(np.prod(shape))
    if free is not None and _COPIES * count * each > free:
        side = "x".join(map(str, shape))
        raise UserError(
            f"{count:,} images of {side} take {readable_size(count * each)} as float32, an attack "
            f"keeps them {_COPIES} times, and {readable_size(free)} of memory are free; choose "
            f"--n (n=) of at most {free // (_COPIES * each):,}"
        )


def in_memory(pixels: Iterator[np.ndarray | None], count: int, shape: tuple[int, ...]) -> Any:
    """An array of the images that there are; None stands for one that there is not."""
    images = np.empty((count, *shape), np.uint8)
    row = 0
    for one in pixels:
        if one is not None:
            images[row] = one
            row += 1
    return images[:row]


def default_folder() -> Path:
    """Where images are kept that are too many for the memory: XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bcgan_tf"


class Cache:
    """A folder of decoded images, which is used again while its sources are unchanged.

    Args:
        folder: of all such caches; made where there is none.
        name: of the data set; fit for a file name.
        identity: JSON values that say what is kept: the files with their sizes and times, the size
            of the images, and so on.
    """

    def __init__(self, folder: Path, name: str, identity: Any) -> None:
        text = json.dumps([_VERSION, identity], sort_keys=True)
        self.path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def read(self) -> tuple[Any, dict[str, Any]] | None:
        """The images, and what :meth:`write` was told of them; None where there are none."""
        try:
            about = read_json(self.path / _ABOUT)
            shape = tuple(map(int, about["shape"]))
            if (self.path / _PIXELS).stat().st_size != int(np.prod(shape)):
                return None
        except (DamagedFile, OSError, KeyError, TypeError, ValueError):
            return None
        return file_images(self.path / _PIXELS, shape), about["about"]

    def write(
        self,
        pixels: Iterator[np.ndarray | None],
        count: int,
        shape: tuple[int, ...],
        about: Callable[[], dict[str, Any]],
    ) -> tuple[Any, dict[str, Any]]:
        """Keeps the images that there are, one by one, so that the folder is whole or not there.

        Args:
            pixels: see :func:`in_memory`.
            count: of them.
            shape: of each.
            about: called at the end for what else is to be known: JSON values.

        Returns:
            What :meth:`read` gives.

        Raises:
            UserError: there is no room, or the folder cannot be written.
        """
        folder, needed = self.path.parent, count * int(np.prod(shape))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror}); choose another folder for the "
                "decoded images with --cache-dir"
            ) from error
        if needed > free:
            raise DiskFull(
                f"{count:,} images of {'x'.join(map(str, shape))} take {readable_size(needed)}, "
                f"and {folder} has {readable_size(free)} left; choose another folder with "
                "--cache-dir, or a smaller --image-size"
            )
        # Several processes may begin at once, such as the shards of an evaluation.
        with FileLock(folder / f".lock-{self.path.name}"):
            if (found := self.read()) is not None:
                return found
            if self.path.is_dir():
                shutil.rmtree(self.path)
            with replacing(self.path) as partial:
                partial.mkdir()
                rows = 0
                with (partial / _PIXELS).open("wb") as file:
                    for one in pixels:
                        if one is not None:
                            file.write(np.ascontiguousarray(one).data)
                            rows += 1
                known = {"shape": [rows, *shape], "about": about()}
                write_json(partial / _ABOUT, known)
        return file_images(self.path / _PIXELS, (rows, *shape)), known["about"]


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
