"""A linear classifier of noise, short attacks on it, and evaluations that are killed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf.data import Dataset, Split
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.attack import EvaluationConfig
from bcgan_tf.workflows.attack import evaluate_models

RNG = np.random.default_rng(4)
PIXELS = RNG.integers(40, 216, (60, 4, 4, 1), dtype=np.uint8)
WEIGHTS = RNG.normal(size=(16, 4)).astype(np.float32)
EPS = 0.03


def linear(images: Any) -> tf.Tensor:
    return tf.reshape(tf.convert_to_tensor(images, tf.float32) - 0.5, [-1, 16]) @ WEIGHTS


LABELS = np.asarray(linear(Split(PIXELS, np.zeros(60, np.int64)).scaled())).argmax(-1)
LABELS = np.where(np.arange(60) < 5, (LABELS + 1) % 4, LABELS).astype(np.int64)  # five are wrong


def dataset(images: np.ndarray = PIXELS, labels: np.ndarray = LABELS) -> Dataset:
    part = Split(images, labels)
    return Dataset("toy", part, part, part, tuple("abcd"))


SETTINGS = EvaluationConfig(eps=EPS, n=0, diagnose=False)


def open_run(folder: Path, settings: EvaluationConfig = SETTINGS) -> RunDirectory:
    models = {"models": {"m": "m"}, "models_sha256": {"m": "0"}}
    config = {"dataset": "toy", **settings.to_dict(), **models}
    return RunDirectory.create(folder, "attack", config, resume=True)


def attack_toy(
    folder: Path, settings: EvaluationConfig = SETTINGS, **options: Any
) -> dict[str, Any]:
    model, data = options.pop("model", linear), options.pop("data", dataset())
    with open_run(folder, settings) as run:
        return evaluate_models(run, data, {"m": model}, settings, **options)


def arrays(folder: Path, label: str = "m") -> dict[str, np.ndarray]:
    with np.load(folder / f"evaluation-{label}.npz") as found:
        return {name: found[name] for name in found.files if name != "settings"}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


# What differs between shards and a whole run: time, and rows that fill up batches.
_SPENT = ("seconds", "passes", "shard")


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k not in _SPENT}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


class Killed(Exception):
    """Stands for a kill of the process."""


def killing(after: int) -> Callable[[str], contextlib.AbstractContextManager[Any]]:
    """Progress that raises at its call number ``after``."""
    calls = [0]

    @contextlib.contextmanager
    def progress(label: str) -> Iterator[Callable[[int, int, str], None]]:
        def report(done: int, total: int, text: str) -> None:
            calls[0] += 1
            if calls[0] == after:
                raise Killed(f"{label}: {text}")

        yield report

    return progress
