"""Where a reproduction works: the data, the preset, and the folder that keeps what is done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bcgan_tf.data import Dataset
from bcgan_tf.files import FolderInUse, as_json
from bcgan_tf.runs import RunDirectory

_DIGITS = 12
# Seconds between two looks at a run that another process works on.
_PATIENCE = 5.0


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
        told = False
        while True:
            try:
                return RunDirectory.create(self.cache / name, command, config, resume=True)
            except FolderInUse:
                if not told:
                    print(f"waiting for the process that works on {name}", file=sys.stderr)
                    told = True
                time.sleep(_PATIENCE)


def digest(settings: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that tell settings apart, whatever their order."""
    text = json.dumps(as_json(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
