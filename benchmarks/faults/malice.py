"""Files of strangers that try to run code, to write or read elsewhere, or to fill the memory.

Code that runs leaves a file, the canary; what would be read elsewhere is a secret that must be in
nothing that is written; what is written must be inside the working folder.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.files import COPY_PREFIX, keep_json
from benchmarks.faults import stubs
from benchmarks.faults.core import LOST, SURVIVED, Fault, Outcome, command
from benchmarks.faults.malicious_models import CANARY, MALICIOUS, Payload, bomb

TITLE = "malicious models, runs, settings"
COUNT = 179
LIMIT = 120
_TINY = ["--eps", "0.3", "--n", "20", "--no-diagnose"]
_SECRET = b"secret-of-another-folder-"


def prepare(folder: Path) -> None:
    """A classifier, a training run, and two shards of an evaluation, all sound."""
    stubs.network().save(folder / "m.keras")
    train = ["--classifier-epochs", "1", "--classifier-batch-size", "512", "--run-dir", "run"]
    attack = ["attack", "m.keras", "--dataset", "digits", *_TINY]
    shards = [[*attack, "--shard", f"{i}/2", "--run-dir", f"s{i}"] for i in (1, 2)]
    for arguments in (["train", "--dataset", "digits", *train], *shards):
        if (answer := command(*arguments, folder=folder)).code:
            raise RuntimeError(f"sound input fails: {answer.stderr}")


def forget() -> None:
    """Drops what Keras keeps of the models that were read."""
    import keras

    keras.backend.clear_session()


def faults(folder: Path, count: int, seed: int) -> list[Fault]:
    """All of them; of more than ``count``, a draw."""
    found = [
        Fault(
            f"{what}, {' '.join(use)[:80]}",
            functools.partial(_inject, folder, make, use, what.startswith("the served name")),
        )
        for what, make, use in [*_models(), *_runs(), *_settings()]
    ]
    rows = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[row] for row in sorted(rows)]


def _inject(
    sound: Path, make: Callable[[Path], None], use: list[str], must_refuse: bool
) -> Outcome:
    with tempfile.TemporaryDirectory(dir=sound) as outer:
        folder = Path(outer) / "work"
        for name in ("run", "s1", "s2"):
            shutil.copytree(sound / name, folder / name)
        shutil.copy(sound / "m.keras", folder)
        Path(outer, "secret.png").write_bytes(_png(_SECRET))
        make(folder)
        for name in [n for n in sys.modules if n == "evil" or "_bcgan_tf_source_" in n]:
            del sys.modules[name]  # or its code would run once only
        outside = set(Path(outer).iterdir())
        answer = command(*use, folder=folder)
        if list(Path(outer).rglob("canary*")):
            return Outcome(LOST, "the code ran")
        if set(Path(outer).iterdir()) != outside:
            return Outcome(LOST, "it wrote outside the folder")
        page = b"".join(path.read_bytes() for path in folder.rglob("*.html"))
        if base64.b64encode(_png(_SECRET)) in page:
            return Outcome(LOST, "a file from elsewhere is in the page")
        if b"<script>canary" in page or b"<img src=canary" in page:
            return Outcome(LOST, "raw HTML is in the page")
        outcome = answer.outcome()
        if outcome.kind == SURVIVED and must_refuse:
            return Outcome(LOST, "it was taken without a word")
        return outcome


def _models() -> Iterator[tuple[str, Callable[[Path], None], list[str]]]:
    """Every malicious file as the model of a command that reads one."""
    uses = {
        "attack": ["--dataset", "digits", *_TINY],
        "export": ["--saved-models", "out"],
        "boundary": ["--dataset", "digits", "--resolution", "3"],
    }
    for name, (write, _) in MALICIOUS.items():
        for use, options in uses.items():
            yield name, functools.partial(_model, write, name), [use, name, *options]
    for member in ("config.json", "model.weights.h5"):
        write, name = bomb(member, 192), "3_gigabytes.keras"
        yield f"3 GB in {member}", functools.partial(_model, write, name), ["export", name]


def _model(write: Callable[[Path], None], name: str, folder: Path) -> None:
    write(folder / name)
    (folder / CANARY).unlink(missing_ok=True)  # building a model with a Lambda layer runs it


def _runs() -> Iterator[tuple[str, Callable[[Path], None], list[str]]]:
    merge = ["attack", "merge", "s1", "s2", "--run-dir", "merged"]
    judged = [*merge, "--diagnose"]
    train = ["train", "--run-dir", "run", "--resume"]
    resume = ["attack", "--run-dir", "s1", "--resume"]
    export = ["export", "run", "--saved-models", "out"]
    for code in ("evil.py:f", "evil:f"):
        named = _json(("s1", "s2"), "config.json", models={"m": code}, models_sha256={"m": "0"})
        yield f"shards of {code}", named, judged
        yield f"shards of {code}", named, [*merge, "--no-diagnose"]
        yield f"an evaluation of {code}", named, resume
        yield f"an evaluation of {code}", named, ["report", "s1"]
        other = _json(("s1", "s2"), "config.json", surrogate=code, surrogate_sha256="0")
        yield f"shards with the surrogate {code}", other, judged
        yield (
            f"shards with the control {code}",
            _json(("s1", "s2"), "config.json", control=code, control_sha256="0"),
            judged,
        )
    for name in ("../../canary", "<script>canary</script>", "a\nb", "1"):
        models = _json(("s1", "s2"), "config.json", models={name: "m.keras"})
        yield f"a model named {name!r}", models, [*merge, "--no-diagnose"]
        measured = _json(("run",), "metrics.json", models={name: {"clean_accuracy": 0.5, "n": 9}})
        yield f"metrics of {name!r}", measured, ["report", "run"]
        dataset = _json(("run",), "config.json", dataset=name)
        yield f"the data set {name!r}", dataset, ["report", "run"]
        yield f"the data set {name!r}", dataset, export
    html = "<script>canary</script><img src=canary>"
    yield "HTML in env.json", _json(("run",), "env.json", tensorflow=html), ["report", "run"]
    yield "HTML in history.csv", _history(html), ["report", "run"]
    yield "a command line of HTML", _top("command_line", html), ["report", "run"]
    for link in ("../../../secret.png", "/dev/zero"):
        for figure in ("boundary_samples.png", "adversarial_original.png", "toy.png"):
            yield f"figures/{figure} that links to {link}", _link(figure, link), ["report", "run"]
    for name in ("stages.json", "config.json", "metrics.json"):
        deep = _written(f"run/{name}", b'{"a":' * 50_000)
        for use in (train, ["report", "run"], export):
            yield f"{name} of 50,000 braces", deep, use
    objects = np.array([Payload()], object)
    for name in ("evaluation-m.npz",):
        yield f"{name} with pickles", _npz(f"s1/{name}", objects), [*merge, "--no-diagnose"]
        yield f"{name} with pickles", _npz(f"s1/{name}", objects), resume
    state = "run/checkpoints/train/epoch-0001/state.npz"
    pickled = pickle.dumps(Payload())
    yield "a checkpoint with pickles", _unfinished(_npz(state, objects)), train
    yield "a checkpoint that is a pickle", _unfinished(_written(state, pickled)), train


def _settings() -> Iterator[tuple[str, Callable[[Path], None], list[str]]]:
    toml = ["train", "--config", "c.toml"]
    yield "TOML with NUL", _written("c.toml", b"seed = \0"), toml
    yield "TOML of 100,000 brackets", _written("c.toml", b"seed = " + b"[" * 100_000), toml
    yield "a run folder elsewhere", _written("c.toml", b'run-dir = "../canary\\u0000"'), toml
    # None leads out of the temporary folder: a fault that gets through must do no harm.
    for name in ("..", ".", "../x", "../../canary", "a/b", "1", "~", "x" * 300, "a\nb", "\udcff"):
        use = ["export", "m.keras", "--saved-models", "out", "--name", name]
        yield f"the served name {name[:20]!r}", lambda folder: None, use


def _json(roots: tuple[str, ...], name: str, **changes: Any) -> Callable[[Path], None]:
    """Settings of a run's JSON file changed, as who makes the run himself can."""

    def make(folder: Path) -> None:
        (folder / "evil.py").write_text("open('canary', 'w')\ndef f(x): return x\n")
        for root in roots:
            content = json.loads((folder / root / name).read_text())
            (content["config"] if name == "config.json" else content).update(changes)
            keep_json(folder / root / name, content)

    return make


def _top(key: str, value: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        file = folder / "run" / "config.json"
        keep_json(file, {**json.loads(file.read_text()), key: value})

    return make


def _history(text: str) -> Callable[[Path], None]:
    return _written("run/history.csv", f"stage,epoch,metric,value\n{text},1,{text},1\n".encode())


def _link(figure: str, target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "run" / "figures" / figure).symlink_to(target)

    return make


def _written(name: str, content: bytes) -> Callable[[Path], None]:
    """A file of a stranger's making, so that no copy speaks for another."""

    def make(folder: Path) -> None:
        file = folder / name
        file.with_name(f"{COPY_PREFIX}{file.name}").unlink(missing_ok=True)
        file.write_bytes(content)

    return make


def _npz(name: str, array: np.ndarray) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with np.load(folder / name) as arrays:
            content = dict.fromkeys(arrays.files, array)
        np.savez(folder / name, allow_pickle=True, **content)

    return make


def _unfinished(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(folder: Path) -> None:
        make(folder)
        for name in ("stages.json", f"{COPY_PREFIX}stages.json"):
            (folder / "run" / name).unlink()

    return both


def _png(text: bytes) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.frombytes("L", (5, 5), text).save(stream, "PNG")
    return stream.getvalue()
