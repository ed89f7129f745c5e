"""Where a reproduction works: the data, the preset, and the folder that keeps what is done."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bcgan_tf.data import Dataset
from bcgan_tf.files import FolderInUse, as_json, lock_folder, read_json
from bcgan_tf.runs.directory import RunDirectory

_Taken = TypeVar("_Taken")

_DIGITS = 12
# Seconds between two looks at a run that another process works on, and at what it publishes.
_PATIENCE = 5.0
_SHORT_PATIENCE = 0.1


@dataclasses.dataclass(frozen=True)
class Workspace:
    """What all parts of a reproduction share.

    Attributes:
        data: the data set.
        preset: ``"quick"`` or ``"paper"``.
        seed: of all draws.
        cache: the folder of runs; each has its settings in its name, so that what is finished is
            found again, and what was killed goes on.
        devices: to train on; None: all GPUs.
    """

    data: Dataset
    preset: str
    seed: int
    cache: Path
    devices: int | None = None

    def open_run(self, command: str, what: str, settings: Mapping[str, Any]) -> RunDirectory:
        """The run of these settings, new or found again; use it with ``with``.

        Rows may be run side by side in one cache: where another process works on the same run,
        this waits until that is done, and then finds the result.

        Args:
            command: as of :meth:`RunDirectory.create`.
            what: the part of the folder's name that a person reads, such as ``"pgd-at"``.
            settings: all that the result depends on, beside the data set, preset and seed.
        """
        config = {
            "dataset": self.data.name,
            "preset": self.preset,
            "seed": self.seed,
            **as_json(settings),
        }
        name = f"{self.data.name}-{self.preset}-{what}-{digest(config)}"
        return _awaited(
            lambda: RunDirectory.create(self.cache / name, command, config, resume=True),
            name,
            _PATIENCE,
        )

    @contextlib.contextmanager
    def published(self, file: Path, identity: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What a JSON file of results holds, which no other process with this cache changes now.

        Rows may be run side by side: read here what the others published, and write the file while
        the ``with`` lasts.

        Args:
            file: it need not exist.
            identity: keys and values, in JSON types, without which its content is of something
                else.

        Yields:
            The content; empty, where there is none of this identity.
        """
        self.cache.mkdir(parents=True, exist_ok=True)
        # In the cache: the lock file stays behind, and must not stand among the results.
        lock = _awaited(lambda: lock_folder(self.cache), file.name, _SHORT_PATIENCE)
        try:
            found = read_json(file) if file.exists() else {}
            same = all(found.get(key) == value for key, value in identity.items())
            yield found if same else {}
        finally:
            lock.release()


def _awaited(take: Callable[[], _Taken], name: str, seconds: float) -> _Taken:
    """What ``take`` returns once no other process holds it; looks again after so many seconds."""
    told = False
    while True:
        try:
            return take()
        except FolderInUse:
            if not told:
                print(f"waiting for the process that works on {name}", file=sys.stderr)
                told = True
            time.sleep(seconds)


def digest(settings: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that tell settings apart, whatever their order."""
    text = json.dumps(as_json(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
