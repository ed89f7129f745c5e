"""A campaign whose faults end in every way that a process can end, for the harness's own test."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.faults.core import SURVIVED, Fault, Outcome

LIMIT = 1


def prepare(folder: Path) -> None:
    (folder / "made").touch(exist_ok=False)  # once, though its process dies


def faults(_folder: Path, count: int, _seed: int) -> list[Fault]:
    def sleep() -> Outcome:
        time.sleep(60)
        return Outcome(SURVIVED)

    ways = (lambda: Outcome(SURVIVED), os.abort, sleep, lambda: Outcome(SURVIVED))
    return [Fault(f"fault {row}", way) for row, way in enumerate(ways)][:count]
