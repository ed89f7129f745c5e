"""What an evaluation has finished, on disk, and what tells one evaluation from another.

A piece is one attack on one batch of the images. Each is a file of its own, written beside its name
and renamed, so that it is whole or not there: a kill costs one piece.

A name or a source file does not say what a function answers: it may read weights, or hold another
network today. So every model is also known by its logits on some of the images. Two machines round
them differently: they are kept as they are and compared with a tolerance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from filelock import BaseFileLock

from bcgan_tf.array_files import read_arrays
from bcgan_tf.attacks import checks
from bcgan_tf.attacks.answers import PROBES, passes_of, probes_of
from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.logits import logits_differ
from bcgan_tf.attacks.passes import Passes
from bcgan_tf.attacks.result import PER_EXAMPLE, AttackResult
from bcgan_tf.errors import UserError
from bcgan_tf.files import (
    DamagedFile,
    as_json,
    keep_json,
    kept_json,
    lock_folder,
    note,
    replacing,
)
from bcgan_tf.lazy_images import LazyImages, in_chunks, overlaid

_SETTINGS = "settings.json"
# The images, while workers read them.
PIXELS = "images.raw"

# Passes that show how far the answers are known: the mean of a model that draws (True), or what
# rounding makes of one that does not.
_PASSES = {True: 48, False: 12}
# About the rounding of a pixel in [0, 1], and that in half precision (True).
_NUDGE = {False: 1e-6, True: 2**-8}
_HALF = (tf.bfloat16, tf.float16)
# Standard errors by which two answers must differ.
_ERRORS = 6.0
# By how much the spread of two models' draws must differ, where so many passes show it.
_SPREADS, _SHOWN = 2.0, 24


class EvaluationState:
    """The finished pieces of one evaluation, in a folder.

    Args:
        folder: made when it is missing; None keeps nothing.
        settings: all that a piece depends on, JSON-able; None: another process, at whose bidding
            this one works there, has checked them and holds the folder.

    Raises:
        UserError: the folder holds pieces of an evaluation with other settings, or another
            process is at work in it.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any] | None) -> None:
        self.folder = folder
        self._lock: BaseFileLock | None = None
        if folder is None or settings is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be made ({error.strerror}); choose another folder for the state"
            ) from error
        self._lock = lock_folder(folder)
        try:
            self._check(folder, as_json(settings))
            (folder / PIXELS).unlink(missing_ok=True)  # of a kill
        except BaseException:
            self.close()
            raise

    def _check(self, folder: Path, settings: dict[str, Any]) -> None:
        file = folder / _SETTINGS
        saved = kept_json(file)
        if saved is None:
            keep_json(file, settings)
            return
        others = []
        for key in differing(saved, settings):
            there, now = (json.dumps(some.get(key))[:60] for some in (saved, settings))
            others.append(
                "model (it answers otherwise)"
                if key == "answers"
                else f"{key} ({there} there, {now} now)"
            )
        if others:
            raise UserError(
                f"{folder} holds an evaluation with other settings: {'; '.join(others)}; "
                "use the same ones, or another folder for the state"
            )

    def load(self, name: str, attack: Attack, images: Any) -> tuple[AttackResult, float] | None:
        """A finished piece and its seconds; None if it is still to be done.

        One whose file is damaged is to be done again, which a line on stderr says.
        """
        if self.folder is None or not (file := self._file(name)).exists():
            return None
        try:
            arrays = read_arrays(file)
            np.broadcast_to(arrays["adversarials"], (len(arrays["changed"]), *images.shape[1:]))
            found = {key: arrays[key] for key in PER_EXAMPLE}
            seconds = float(arrays["seconds"])
            passes = Passes(*map(int, arrays["passes"]))
        except (DamagedFile, KeyError, IndexError, TypeError, ValueError):
            note(f"{file} is damaged; that part of the evaluation is done again")
            return None
        return AttackResult(
            attack=attack.name,
            config=attack.config(),
            adversarials=_kept_images(file, images, arrays["changed"]),
            uses_gradients=attack.uses_gradients,
            passes=passes,
            **found,
        ), seconds

    def save(self, name: str, result: AttackResult, images: Any, seconds: float) -> AttackResult:
        """Keeps a finished piece; a disk that is full leaves those before it whole.

        Returns:
            The result; where there is a folder, with adversarial examples that are read from it,
            and the image itself where the attack failed.
        """
        if self.folder is None:
            return result
        changed = np.flatnonzero(result.success)
        with replacing(self._file(name)) as partial:
            np.savez_compressed(
                partial,
                changed=changed,
                adversarials=result.adversarials[changed],
                seconds=np.float64(seconds),
                passes=np.array(result.passes),
                **{key: getattr(result, key) for key in PER_EXAMPLE},
            )
        kept = _kept_images(self._file(name), images, changed)
        return dataclasses.replace(result, adversarials=kept)

    def has(self, names: Sequence[str]) -> bool:
        """Whether the files of all these pieces are there."""
        return self.folder is not None and all(self._file(name).exists() for name in names)

    def _file(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.npz"

    def close(self) -> None:
        """Lets another process work in the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> EvaluationState:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _kept_images(file: Path, images: Any, changed: np.ndarray) -> Any:
    """The adversarial examples of a piece, read from its file when they are asked for."""

    def read(rows: np.ndarray) -> np.ndarray:
        return read_arrays(file)["adversarials"][rows]

    return overlaid(images, changed, LazyImages(read, (len(changed), *images.shape[1:])))


def kept_settings(folder: str | Path | None) -> dict[str, Any]:
    """The settings of the evaluation that is kept in a folder; none where none is."""
    return (folder and kept_json(Path(folder) / _SETTINGS)) or {}


def model_digest(model: Any) -> str:
    """A digest of a Keras model's weights and of what its layers do.

    Of anything else its attribute ``fingerprint``, or nothing: a name says nothing.
    """
    if isinstance(model, keras.Model):
        weights = [np.asarray(weight) for weight in model.weights]
        return digest(*weights, np.frombuffer(_architecture(model).encode(), np.uint8))
    own = getattr(model, "fingerprint", "")
    return own if isinstance(own, str) else ""


def fingerprint(model: Any, images: Any, labels: np.ndarray | None) -> dict[str, Any]:
    """What an evaluation is of, JSON-able.

    Returns:
        ``model``, its :func:`model_digest`; ``answers``, its logits on eight images, and those of
        its stand-in (``backward``), with their errors; ``data``, a digest of all images and labels,
        unless there are no labels.
    """
    functions = [checks.as_logits_fn(model)]
    backward = getattr(model, "backward", None)
    if callable(backward) and not isinstance(model, keras.Model):
        functions.append(checks.as_logits_fn(lambda inputs: backward(inputs)))
    probes = probes_of(images)
    identity = {
        "model": model_digest(model),
        "answers": [_answers(Batched(function, PROBES), probes) for function in functions],
    }
    return identity if labels is None else {**identity, "data": digest(images, labels)}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The entries in which two identities differ, read from JSON or not, and whatever is with them.

    Answers that were not kept, as by an earlier version, are taken for the same, and answers to
    other images say nothing.
    """
    found = [key for key in {**one, **other} if not _same(key, one.get(key), other.get(key))]
    return [key for key in found if key != "answers" or "data" not in found]


def _same(what: str, one: Any, other: Any) -> bool:
    if what != "answers":
        return one == other
    if one is None or other is None:
        return True
    return len(one) == len(other) and all(map(_same_answers, one, other))


def _answers(predict: Batched, probes: np.ndarray) -> dict[str, Any]:
    first = predict.once(probes)
    draws = any(logits_differ(first, predict.once(probes)).any() for _ in range(3))

    operations = predict.traced(probes).graph.get_operations()
    nudge = _NUDGE[any(made.dtype in _HALF for op in operations for made in op.outputs)]

    def nudged(number: int) -> np.ndarray:
        noise = np.random.default_rng(number).uniform(-nudge, nudge, probes.shape)
        return predict.once(np.clip(probes + noise, 0, 1).astype(np.float32))

    passes = passes_of((lambda _: predict.once(probes)) if draws else nudged, _PASSES[draws])
    found, spread = np.asarray(passes, np.float64), None
    with np.errstate(invalid="ignore"):
        error = np.std(found, axis=0)
        if draws and len(passes) >= _SHOWN:  # medians: rare and wild draws do not shake them
            spread = float(np.nanmedian(np.median(np.abs(found - np.median(found, 0)), axis=0)))
    if draws:
        first, error = np.mean(found, axis=0), error / len(passes) ** 0.5
    return as_json({"logits": _short(first, 8), "errors": _short(error, 2), "spread": spread})


def _short(values: np.ndarray, digits: int) -> list[list[float]]:
    return [[float(f"{value:.{digits}g}") for value in row] for row in values]


def _same_answers(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    spreads = [found for part in (one, other) if (found := part.get("spread"))]
    if len(spreads) == 2 and max(spreads) > _SPREADS * min(spreads):
        return False
    logits = [np.array(part["logits"], np.float64) for part in (one, other)]
    if logits[0].shape != logits[1].shape:
        return False
    errors = [np.nan_to_num(np.array(part["errors"], np.float64)) for part in (one, other)]
    near = np.isnan(logits).all(axis=0)
    near |= np.abs(logits[0] - logits[1]) <= _ERRORS * np.hypot(*errors)
    return bool((~logits_differ(*logits) | near.all(axis=1)).all())


def digest(*arrays: np.ndarray) -> str:
    """The SHA-256 of the bytes of arrays, or of lazy images, hexadecimal."""
    found = hashlib.sha256()
    for array in arrays:
        for part in in_chunks(array) if isinstance(array, LazyImages) else (array,):
            found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()


def _architecture(model: keras.Model) -> str:
    """The configuration as text; layers are numbered, as Keras names them by a count of its own."""
    try:
        config = {"class_name": type(model).__name__, "config": model.get_config()}
        names = {name: f"#{number}" for number, name in enumerate(dict.fromkeys(_names(config)))}
        return json.dumps(_renamed(config, names), sort_keys=True, default=_plain)
    except Exception:  # a model of the user's own may not describe itself
        return type(model).__qualname__


def _plain(value: Any) -> Any:
    # No repr: of an object it holds an address, which is another in every process.
    return value.tolist() if isinstance(value, np.ndarray) else type(value).__qualname__


def _names(config: Any) -> Iterator[str]:
    """The names of all layers, from the outermost; not of data types, which are no layers."""
    if isinstance(config, Mapping):
        inner = config.get("config")
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if isinstance(name, str) and "DTypePolicy" not in str(config.get("class_name")):
            yield name
        for value in config.values():
            yield from _names(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _names(value)


def _renamed(config: Any, names: Mapping[str, str]) -> Any:
    if isinstance(config, Mapping):
        return {key: _renamed(value, names) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [_renamed(value, names) for value in config]
    return names.get(config, config) if isinstance(config, str) else config
