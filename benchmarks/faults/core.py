"""What a fault came to, and the process that it is tried in.

A campaign is a module with ``TITLE``, ``COUNT`` (its default number of faults), ``LIMIT`` (seconds
a fault may take), ``prepare(folder)``, which makes the files that the faults are put into, and
``faults(folder, count, seed)``, which lists them. Equal arguments give equal faults, so a number
says which one it was. This module imports neither TensorFlow nor the package: what is served must
work without the package.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SURVIVED, REFUSED, LOST, TRACEBACK = KINDS = ("survived", "refused", "lost", "traceback")
_FORGET_EVERY = 10  # faults: it takes longer than most of them
# Of one fault, in bytes beyond what the process had; and of the whole process, address space.
MEMORY = 2 * 2**30
ADDRESS_SPACE = 14 * 2**30


@dataclass(frozen=True)
class Outcome:
    """One of :data:`KINDS`, and what was seen."""

    kind: str
    note: str = ""


@dataclass(frozen=True)
class Fault:
    """``inject`` puts the fault in, runs what must stand it, and says how it ended."""

    name: str
    inject: Callable[[], Outcome]


@dataclass(frozen=True)
class Answer:
    """How a command ended that ran in this process."""

    code: int
    stdout: str
    stderr: str
    error: BaseException | None

    def outcome(self) -> Outcome:
        """Survived with exit code 0, refused with 1 or 2 and one line, else a traceback."""
        if self.error is not None and not isinstance(self.error, SystemExit):
            return Outcome(TRACEBACK, described(self.error))
        lines = self.stderr.splitlines()
        if "Traceback" in self.stderr:
            return Outcome(TRACEBACK, "a traceback on stderr")
        if self.code == 0:
            return Outcome(SURVIVED)
        errors = [row for row, line in enumerate(lines) if line.startswith("Error: ")]
        if self.code in (1, 2) and errors == [len(lines) - 1]:
            return Outcome(REFUSED, lines[-1][:300])
        return Outcome(TRACEBACK, f"exit code {self.code}, stderr {self.stderr[-300:]!r}")


def described(error: BaseException) -> str:
    """An exception in one line, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}{place}"


def command(*arguments: str, folder: Path, env: Mapping[str, str | None] | None = None) -> Answer:
    """Runs ``bcgan-tf`` in this process with ``folder`` as the working directory."""
    import click.testing

    from bcgan_tf.cli import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.chdir(folder):
            found = click.testing.CliRunner().invoke(
                main, list(arguments), env=env, prog_name="bcgan-tf"
            )
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Answer(found.exit_code, found.stdout, found.stderr, found.exception)


def attempt(campaign: Any, faults: Sequence[Fault], number: int) -> Outcome:
    """Injects a fault in this process; what it raises and a peak of memory are outcomes too."""
    before = _reset_peak()
    try:
        outcome = faults[number].inject()
    except Exception as error:
        outcome = Outcome(TRACEBACK, described(error))
    grown = _peak() - before
    if grown > MEMORY:
        outcome = Outcome(TRACEBACK, f"took {grown / 2**30:.1f} GiB ({outcome.note})")
    if number % _FORGET_EVERY == 0 and hasattr(campaign, "forget"):
        campaign.forget()
        gc.collect()
    return outcome


def outcomes(
    campaign: Any, folder: Path, count: int, seed: int, only: int | None = None
) -> Iterator[tuple[int, str, Outcome]]:
    """Injects the faults of a campaign, one after another, in a process that may die of them."""
    if hasattr(campaign, "outcomes"):  # the kills need processes of their own
        yield from campaign.outcomes(folder, count, seed)
        return
    context = multiprocessing.get_context("spawn")
    process = names = pipe = None
    row = 0 if only is None else only
    while names is None or row < (len(names) if only is None else only + 1):
        if process is None:
            pipe, other = context.Pipe()
            arguments = (campaign.__name__, folder, count, seed, other)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            other.close()
            names = _received(pipe, 600)
            if not isinstance(names, list):
                raise SystemExit(f"{campaign.__name__}: the preparation failed: {names}")
        assert pipe is not None and names is not None
        pipe.send(row)
        found = _received(pipe, campaign.LIMIT)
        if not isinstance(found, Outcome):
            process.kill()
            process.join()
            note = f"hung for {campaign.LIMIT} s" if found is None else f"died: {found}"
            found = Outcome(TRACEBACK, f"{note}, exit code {process.exitcode}")
            process = None
        yield row, names[row], found
        row += 1
    if process is not None:
        process.kill()
        process.join()


def _received(pipe: Any, seconds: float) -> Any:
    """What the other process sends; None if it takes too long, text if it died."""
    try:
        return pipe.recv() if pipe.poll(seconds) else None
    except (EOFError, ConnectionError) as error:
        return type(error).__name__


def _work(module: str, folder: Path, count: int, seed: int, pipe: Any) -> None:
    """The process that injects: it prepares once, then injects the faults it is told."""
    import importlib

    with open(folder / "worker.log", "ab") as log:  # what C++ writes is read by no one
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    campaign = importlib.import_module(module)
    ready = folder / "prepared"
    if not ready.exists():
        campaign.prepare(folder)
        ready.touch()
    faults = campaign.faults(folder, count, seed)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    pipe.send([fault.name for fault in faults])
    gc.freeze()  # TensorFlow's own objects are many: collecting goes on without them
    while True:
        pipe.send(attempt(campaign, faults, pipe.recv()))


def _reset_peak() -> int:
    """Starts measuring the peak of this process's memory anew; what it has now, in bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _peak() -> int:
    return _memory("VmHWM")


def _memory(name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return 0  # no Linux: not measured
