"""The commands without their long work: a call that passes every check ends at once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

_CLEAN = {"clean_accuracy": 0.9, "clean_interval95": [0.86, 0.93], "n": 360}


@functools.cache
def network() -> Any:
    """An untrained classifier of digits."""
    from bcgan_tf.networks.classifiers import small_cnn

    return small_cnn((8, 8, 1), 10, seed=0)


@contextlib.contextmanager
def heavy_work() -> Iterator[None]:
    """Replaces training, attacks, pictures, exports and downloads while it lasts."""
    from bcgan_tf import data
    from bcgan_tf.data import tfds_source
    from bcgan_tf.evaluation import clean_accuracy as clean
    from bcgan_tf.reproduction import ablation, audit, pictures, tables, toy
    from bcgan_tf.serving import export as serving
    from bcgan_tf.workflows import boundary
    from bcgan_tf.workflows import run as pipeline

    load = data.load_dataset

    def page(*_args: Any, results: Path, **_options: Any) -> Path:
        return results / "page.md"

    def figure(*_args: Any, **_options: Any) -> Path:
        return Path("page.md")

    patches = (
        (pipeline, "train", lambda run, *_args, **_options: _saved(run, "classifier.keras")),
        (pipeline, "harden", lambda run, *_args, **_options: _saved(run, "hardened.keras")),
        (pipeline, "evaluate_models", lambda run, data, models, *_a, **_o: _measured(run, models)),
        (pipeline, "run", lambda run, *_args, **_options: _measured(run, ["original", "hardened"])),
        (pipeline, "report", lambda run: run.path / "report.html"),
        (clean, "clean_accuracy", lambda *_args, **_options: _CLEAN),
        (serving, "export", lambda _model, directory, **_options: Path(directory) / "1"),
        (toy, "toy", lambda *_args: {"toy": [{"beta": 0.0}]}),
        (boundary, "boundary", lambda *_args: {"boundary": _PLANES}),
        (tables, "reproduce_table", lambda *_args, **_options: _TABLE),
        (tables, "overview", lambda _document: [{"row": "original"}]),
        (pictures, "figure2", figure),
        (pictures, "figure4", figure),
        (audit, "audit", page),
        (ablation, "ablation", page),
        (tfds_source, "_PROBE_SECONDS", 0.01),
        (data, "load_dataset", lambda name, **options: _load(load, name, **options)),
    )
    with contextlib.ExitStack() as stack:
        for module, name, value in patches:
            stack.enter_context(mock.patch.object(module, name, value))
        yield


_PLANES = {"index": 0, "class_name": "0", "planes": [{"model": "m"}]}
_TABLE = {"table": "table1", "dataset": "digits", "preset": "quick", "rows": []}
_DIGITS: dict[str, Any] = {}


def _load(load: Any, name: str, **options: Any) -> Any:
    """Digits are read once."""
    if name != "digits" or options.get("seed"):
        return load(name, **options)
    if name not in _DIGITS:
        _DIGITS[name] = load(name, **options)
    return _DIGITS[name]


def _saved(run: Any, name: str) -> Path:
    network().save(run.path / name)
    return run.path / name


def _measured(run: Any, models: Any) -> dict[str, Any]:
    found = {
        "dataset": "digits",
        "models": {name: {**_CLEAN, "evaluations": []} for name in models},
        "exported": "saved_models/digits/1",
    }
    run.write_metrics(found)
    return found
