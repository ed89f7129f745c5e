"""Kills of whole runs at random moments, start-up included, each run then resumed to its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.core import LOST, SURVIVED, TRACEBACK, Outcome

TITLE = "kills at random moments (SIGKILL; a quarter SIGTERM)"
COUNT = 31
_LONGEST = 300  # seconds, of any one process
_TERMINATED = 128 + signal.SIGTERM
_SHARED = """
dataset = "digits"
deterministic = true
seed = 3
saved-models = "published"
classifier-epochs = 4
classifier-batch-size = 512
suite = "paper"
eps = 0.1
n = 20
"""
_DEFENSES = {
    "pgd-at": 'defense = "pgd-at"\noption = ["epochs=4", "ramp_epochs=1", "steps=1"]\n',
    "bcgan": """
defense = "bcgan"
oracle-epochs = 2
option = [
    "gan_epochs=3", "gan_batch_size=512", "generator_width=0.1", "discriminator_width=0.1",
    "latent_dim=8", "delay_epochs=0", "warmup_epochs=1", "epochs=2", "batch_size=512",
]
generated-samples = 50
""",
}
COMMAND = [sys.executable, "-c", "from bcgan_tf.cli import main; main(prog_name='bcgan-tf')"]
_RUN = [*COMMAND, "run", "--config", "settings.toml", "--run-dir", "r", "--resume"]


def outcomes(folder: Path, count: int, seed: int) -> Iterator[tuple[int, str, Outcome]]:
    """Runs of both defences in turn, killed until one process gets to the end."""
    rng = np.random.default_rng(seed)
    whole = {name: _uninterrupted(folder / name, name) for name in _DEFENSES}
    number = 0
    while number < count:
        runs = len(list(folder.iterdir()))  # not kills: a run may end before its first
        name = list(_DEFENSES)[runs % len(_DEFENSES)]
        place = _new_folder(folder / f"killed-{runs}", name)
        expected, seconds = whole[name]
        kills: list[tuple[str, Outcome]] = []
        while number + len(kills) < count:
            sent = signal.SIGTERM if rng.random() < 0.25 else signal.SIGKILL
            after = float(rng.uniform(0, seconds))
            code, stderr = _run(place, sent, after)
            if code == 0:
                break
            what = f"{name}: {sent.name} after {after:.2f} s"
            kills.append((what, _killed(sent, code, stderr, _finished(place, expected))))
        code, stderr = (0, "") if number + len(kills) < count else _run(place)
        same = Outcome(TRACEBACK, stderr[-300:]) if code else compared(expected, result(place))
        for what, outcome in kills:
            yield number, what, outcome if outcome.kind != SURVIVED else same
            number += 1


def result(place: Path) -> dict[str, Any]:
    """What a run came to: the same to the bit after any kills."""
    run = place / "r"
    return {
        "history.csv": (run / "history.csv").read_text(),
        "metrics.json": without_seconds(json.loads((run / "metrics.json").read_text())),
        **{file.name: weights(file) for file in sorted(run.glob("*.keras"))},
        # What an export that was killed leaves is hidden from servers, and goes with a later one.
        "published": sorted(p.name for p in place.glob("published/*/[0-9]*")),
        "figures": {p.name: p.read_bytes() for p in sorted(run.glob("figures/**/*.png"))},
    }


def compared(expected: dict[str, Any], found: dict[str, Any]) -> Outcome:
    """Survived if all parts are equal, lost with the names of those that are not."""
    keys = [*expected, *(key for key in found if key not in expected)]
    other = [key for key in keys if expected.get(key) != found.get(key)]
    return Outcome(LOST, f"differs in {', '.join(other)}") if other else Outcome(SURVIVED)


def weights(file: Path) -> list[tuple[tuple[int, ...], bytes]]:
    """The arrays of a ``.keras`` file: the file itself holds a date."""
    import h5py

    found: list[Any] = []
    with zipfile.ZipFile(file) as archive, archive.open("model.weights.h5") as stream:
        tree = h5py.File(stream, "r")
        tree.visititems(lambda _, node: found.append(node[()]) if hasattr(node, "dtype") else None)
    return [(array.shape, array.tobytes()) for array in map(np.asarray, found)]


def without_seconds(value: Any) -> Any:
    """JSON without what depends on the clock."""
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


def kill_at(place: Path, line: str, *arguments: str) -> None:
    """Runs a command until a line of its progress starts with ``line``, and kills it."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=place, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    seen = []
    for text in process.stderr:
        seen.append(text)
        if text.startswith(line):
            process.kill()
            break
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError(f"{line!r} never came: {''.join(seen)[-500:]}")
    process.stderr.close()


def _new_folder(place: Path, name: str) -> Path:
    place.mkdir()
    # Tables come last in TOML, and neither part has one: the order does not matter.
    (place / "settings.toml").write_text(_SHARED + _DEFENSES[name])
    return place


def _uninterrupted(place: Path, name: str) -> tuple[dict[str, Any], float]:
    started = time.monotonic()
    code, stderr = _run(_new_folder(place, name))
    if code:
        raise SystemExit(f"the run that is to be killed fails by itself: {stderr[-500:]}")
    return result(place), time.monotonic() - started


def _run(
    place: Path, sent: signal.Signals | None = None, after: float = 0.0
) -> tuple[int | None, str]:
    """Starts or resumes the run; exit code (None: it hung) and stderr."""
    process = subprocess.Popen(
        _RUN, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    timer = threading.Timer(after, process.send_signal, [sent]) if sent else None
    if timer is not None:
        timer.start()
    try:
        _, stderr = process.communicate(timeout=_LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        return None, process.communicate()[1]
    finally:
        if timer is not None:
            timer.cancel()
    return process.returncode, stderr


def _finished(place: Path, expected: dict[str, Any]) -> bool:
    """Whether all is there: what is killed then is a process that ends."""
    try:
        return compared(expected, result(place)).kind == SURVIVED
    except (OSError, ValueError):
        return False


def _killed(sent: signal.Signals, code: int | None, stderr: str, finished: bool) -> Outcome:
    """SIGTERM, while the run is open, ends in a line that says how to go on."""
    last = (stderr.splitlines() or [""])[-1]
    if sent == signal.SIGKILL:
        good = code == -signal.SIGKILL
    elif stderr.startswith("run: ") and not (finished and code == -signal.SIGTERM):
        good = code == _TERMINATED and "--resume" in last
    else:
        good = code in (_TERMINATED, -signal.SIGTERM)
    return Outcome(SURVIVED) if good else Outcome(TRACEBACK, f"exit code {code}, {last[:200]!r}")
