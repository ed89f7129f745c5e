"""The data, preset, seed and cache that all parts of a reproduction share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bcgan_tf.data import Dataset, load_dataset
from bcgan_tf.errors import UserError
from bcgan_tf.files import (
    DamagedFile,
    FolderInUse,
    as_json,
    lock_folder,
    read_json,
    replace_file,
    write_json,
)
from bcgan_tf.runs.directory import RunDirectory

_Taken = TypeVar("_Taken")

_DIGITS = 12
# Seconds between two tries for the lock of a run, and for that of the published files.
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
        data_dir: from which the data were read, where that was given.
    """

    data: Dataset
    preset: str
    seed: int
    cache: Path
    devices: int | None = None
    data_dir: Path | None = None

    @classmethod
    def of(cls, dataset: str, **others: Any) -> Workspace:
        """The workspace of :attr:`settings`; its data are read."""
        data = load_dataset(dataset, data_dir=others["data_dir"], seed=others["seed"])
        return cls(data, **others)

    @property
    def settings(self) -> dict[str, Any]:
        """What :meth:`of` makes it of again, in another process."""
        names = ("preset", "seed", "devices", "data_dir")
        found = {name: getattr(self, name) for name in names}
        return {"dataset": self.data.name, "cache": self.cache.resolve(), **found}

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

    def publish(
        self,
        page: Path,
        document: Mapping[str, Any],
        identity: Sequence[str],
        joined: Callable[[dict[str, Any]], dict[str, Any]],
        text: Callable[[dict[str, Any]], str],
    ) -> dict[str, Any]:
        """Writes a document as JSON and as a page, with what is published of it already.

        Rows may be run side by side: a lock in the cache keeps other processes from writing
        between the reading and the writing.

        Args:
            page: the Markdown file; the JSON file is beside it.
            document: what this process found.
            identity: as of :meth:`published`.
            joined: the published document, or ``{}``, to all that is to be published.
            text: that document to the page.

        Returns:
            What was published.

        Raises:
            UserError: as :meth:`published`, or a file cannot be written.
        """
        file = page.with_suffix(".json")
        self.cache.mkdir(parents=True, exist_ok=True)
        # In the cache: the lock file stays behind, and must not stand among the results.
        lock = _awaited(lambda: lock_folder(self.cache), file.name, _SHORT_PATIENCE)
        try:
            whole = joined(self.published(page, document, identity))
            content = text(whole).encode()
            write_json(file, whole)
            replace_file(page, content)
        finally:
            lock.release()
        return whole

    @staticmethod
    def published(
        page: Path, document: Mapping[str, Any], identity: Sequence[str]
    ) -> dict[str, Any]:
        """What is published at a page with the same settings, which more can join.

        Called before any work too, so that no result is found in vain.

        Args:
            page: the Markdown file; the JSON file is beside it.
            document: has the settings.
            identity: its keys that must not differ.

        Returns:
            The content of the JSON file; ``{}``: there is none.

        Raises:
            UserError: the folder cannot be written, the file is damaged, or other settings are
                published there.
        """
        file = page.with_suffix(".json")
        try:
            page.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=page.parent):
                pass
        except OSError as error:
            raise UserError(
                f"{page.parent} cannot be written ({error.strerror or error}); choose another "
                "--results"
            ) from None
        if not file.exists():
            return {}
        try:
            before = read_json(file)
        except DamagedFile:
            raise UserError(f"{file} is damaged; remove it, or choose another --results") from None
        if differing := "; ".join(
            text for key in identity for text in _differing(key, before.get(key), document[key])
        ):
            raise UserError(
                f"{file} has results of other settings ({differing}); choose another --results, "
                "or move it away"
            )
        return before


def _differing(name: str, there: Any, here: Any) -> Iterator[str]:
    """Each setting that differs, by its own name."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys([*there, *here]):
            yield from _differing(key, there.get(key), here.get(key))
    elif there != here:
        yield f"{name}: {there} there, {here} now"


def joined_rows(ours: Mapping[str, Any], theirs: Mapping[str, Any], newest: str) -> dict[str, Any]:
    """Our rows and published ones together; of rows in both, only ``newest`` is taken from ours."""
    return {**ours, **theirs, newest: ours[newest]}


def _awaited(take: Callable[[], _Taken], name: str, seconds: float) -> _Taken:
    """Calls ``take`` again every so many seconds until no other process holds the lock."""
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
    """A digest of settings, twelve hexadecimal digits; the order of the keys does not count."""
    text = json.dumps(as_json(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
