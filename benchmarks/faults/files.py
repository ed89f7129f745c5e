"""Every file of a run's folder cut, emptied, flipped, removed, replaced; then the run is used."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.files import COPY_PREFIX
from benchmarks.faults.core import LOST, REFUSED, SURVIVED, Answer, Fault, Outcome, command
from benchmarks.faults.kills import compared, kill_at, weights, without_seconds

TITLE = "files of runs cut, emptied, flipped, removed, replaced"
COUNT = 414
LIMIT = 180
# Pictures, and what the run is not made of: without them the numbers must be right, not the page.
_ASIDE = re.compile(r"\.lock|env\.json|elapsed\.json|report\.html|.*\.png")
_IMAGE = re.compile(r'"data:image/png;base64,[^"]*"')
_TRAIN = [
    "train", "--dataset", "digits", "--run-dir", "r", "--resume", "--deterministic",
    "--classifier-epochs", "3", "--classifier-batch-size", "512",
]  # fmt: skip
_RUN = [
    "run", "--dataset", "digits", "--run-dir", "r", "--resume", "--classifier-epochs", "1",
    "--classifier-batch-size", "512", "-o", "epochs=2", "-o", "ramp_epochs=1", "-o", "steps=1",
    "--suite", "paper", "--eps", "0.1", "--n", "20",
]  # fmt: skip
_ATTACK = ["attack", "m.keras", "--dataset", "digits", "--eps", "0.3", "--n", "20", "--resume"]
_ONE = [*_ATTACK, "--no-diagnose", "--run-dir", "r"]
_MERGE = ["attack", "merge", "s1", "s2", "--no-diagnose", "--run-dir", "r", "--resume"]


@dataclass(frozen=True)
class Scenario:
    """Folders as they stand at some moment, and what is then done with them.

    Attributes:
        make: puts them into an empty folder, where an untrained ``m.keras`` is.
        damaged: names of the folders whose files are damaged.
        uses: commands, each of which must give its result or one line.
    """

    make: Callable[[Path], None]
    damaged: tuple[str, ...]
    uses: dict[str, list[str]]


_REPORT, _EXPORT = ["report", "r"], ["export", "r", "--saved-models", "out"]
SCENARIOS = {
    "a finished run": Scenario(
        lambda place: _made(place, *_RUN),
        ("r",),
        {"resume": _RUN, "report": _REPORT, "export": _EXPORT},
    ),
    "a finished training": Scenario(
        lambda place: _made(place, *_TRAIN),
        ("r",),
        {"resume": _TRAIN, "report": _REPORT, "export": _EXPORT},
    ),
    "a training killed in its last epoch": Scenario(
        lambda place: kill_at(place, "train epoch 2/3", *_TRAIN), ("r",), {"resume": _TRAIN}
    ),
    "an evaluation": Scenario(
        lambda place: _made(place, *_ONE), ("r",), {"resume": _ONE, "report": _REPORT}
    ),
    "an evaluation killed after its first attack": Scenario(
        lambda place: kill_at(place, "m: APGD-CE: 20 of 20", *_ONE), ("r",), {"resume": _ONE}
    ),
    "two shards": Scenario(lambda place: _shards(place), ("s1", "s2"), {"merge": _MERGE}),
}


def prepare(folder: Path, scenarios: Collection[str] = tuple(SCENARIOS)) -> None:
    """Makes the folders of all scenarios, and what comes of each use without damage."""
    from benchmarks.faults import stubs

    for name in scenarios:
        place = folder / name
        place.mkdir()
        stubs.network().save(place / "m.keras")
        SCENARIOS[name].make(place)
    forget()


def forget() -> None:
    """Drops what Keras keeps of the models that were read."""
    import keras

    keras.backend.clear_session()


def faults(
    folder: Path, count: int, seed: int, scenarios: Collection[str] = tuple(SCENARIOS)
) -> list[Fault]:
    """A draw from all scenarios in turn of (file, damage, use)."""
    rng = np.random.default_rng(seed)
    drawn = []
    for name in scenarios:
        found = list(_of_scenario(folder / name, name))
        drawn.append([found[row] for row in rng.permutation(len(found))])
    turns = [(place / len(faults), fault) for faults in drawn for place, fault in enumerate(faults)]
    return [fault for _, fault in sorted(turns, key=lambda turn: turn[0])][:count]


def _of_scenario(place: Path, name: str) -> Iterator[Fault]:
    scenario = SCENARIOS[name]
    roots = [place / root for root in scenario.damaged]
    files = [f.relative_to(place) for root in roots for f in root.rglob("*") if f.is_file()]
    for file in sorted(files):
        is_json = file.suffix == ".json" and not file.name.startswith(COPY_PREFIX)
        for damage in {**_DAMAGES, **_OF_JSON} if is_json else _DAMAGES:
            for use in scenario.uses:
                inject = functools.partial(_inject, place, scenario.uses[use], file, damage)
                yield Fault(f"{name}: {file} {damage}, then {use}", inject)


def _flipped(content: bytes, at: float) -> bytes:
    if not content:
        return b"\1"
    row = int(at * (len(content) - 1))
    return content[:row] + bytes([content[row] ^ 0x04]) + content[row + 1 :]


_DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut to half": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "flipped in one byte near its begin": lambda content: _flipped(content, 0.11),
    "flipped in one byte in the middle": lambda content: _flipped(content, 0.53),
    "flipped in one byte near its end": lambda content: _flipped(content, 0.92),
    "removed": lambda content: None,
    "replaced by garbage": lambda content: np.random.default_rng(len(content)).bytes(2000),
    "replaced by zeros": lambda content: bytes(len(content)),
}
_OF_JSON: dict[str, Callable[[bytes], bytes | None]] = {
    "replaced by a list": lambda content: b"[1, 2]",
    "replaced by an empty object": lambda content: b"{}",
    "with other types": lambda content: json.dumps(
        {key: 7 if isinstance(value, dict | list) else {} for key, value in _object(content)}
    ).encode(),
}


def _object(content: bytes) -> Any:
    found = json.loads(content)
    return found.items() if isinstance(found, dict) else [("a", 1)]


def _inject(place: Path, use: list[str], file: Path, damage: str) -> Outcome:
    expected = dict(_undamaged(place, tuple(use)))
    with _copy(place) as copy:
        content = {**_DAMAGES, **_OF_JSON}[damage]((copy / file).read_bytes())
        if content is None:
            (copy / file).unlink()
        else:
            (copy / file).write_bytes(content)
        before = {path for path in copy.rglob("*") if path.is_file()}
        answer = command(*use, folder=copy)
        outcome = answer.outcome()
        if outcome.kind == SURVIVED:
            found = _result(copy, use)
            if _ASIDE.fullmatch(file.name):
                found.pop("page", None), expected.pop("page", None)
            same = compared(expected, found)
            said = file.name in answer.stderr + answer.stdout
            return Outcome(SURVIVED, "said") if same.kind == LOST and said else same
        gone = [path.name for path in before if not path.exists()]
        if outcome.kind == REFUSED and gone:
            return Outcome(LOST, f"refused, and removed {', '.join(gone)} ({outcome.note})")
        return outcome


@functools.cache
def _undamaged(place: Path, use: tuple[str, ...]) -> dict[str, Any]:
    with _copy(place) as copy:
        _done(command(*use, folder=copy))
        return _result(copy, list(use))


def _result(place: Path, use: list[str]) -> dict[str, Any]:
    """The numbers that a use leaves; of those that write a page, the page."""
    if use == _EXPORT:
        (card,) = place.glob("out/*/1/export.json")
        kept = json.loads(card.read_text())
        kept.pop("keras_file", None)
        return {"card": kept, "weights": weights(card.parent / "assets.extra/classifier.keras")}
    if use == _REPORT:
        page = (place / "r/report.html").read_text()
        return {"page": _IMAGE.sub("", page)}
    found: dict[str, Any] = {
        "metrics": without_seconds(json.loads((place / "r/metrics.json").read_text())),
        **{file.name: weights(file) for file in sorted((place / "r").glob("*.keras"))},
    }
    if (place / "r/history.csv").exists():
        found["history"] = (place / "r/history.csv").read_text()
    for file in sorted((place / "r").glob("evaluation-*.npz")):
        with np.load(file) as arrays:
            found[file.name] = {k: arrays[k].tobytes() for k in arrays.files if k != "settings"}
    return found


@contextlib.contextmanager
def _copy(place: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=place.parent) as copy:
        yield Path(shutil.copytree(place, copy, dirs_exist_ok=True))


def _made(place: Path, *arguments: str) -> None:
    _done(command(*arguments, folder=place))


def _shards(place: Path) -> None:
    for shard in (1, 2):
        _made(place, *_ATTACK, "--no-diagnose", "--shard", f"{shard}/2", "--run-dir", f"s{shard}")


def _done(answer: Answer) -> None:
    if answer.code:
        raise RuntimeError(f"a run without faults fails: {answer.outcome().note} {answer.error!r}")
