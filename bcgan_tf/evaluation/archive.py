"""An evaluation as a file of per-example arrays, and the merging of shards."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.array_files import read_arrays, write_arrays
from bcgan_tf.attacks.attack import deciding_settings
from bcgan_tf.attacks.passes import Passes
from bcgan_tf.attacks.result import PER_EXAMPLE, AttackResult, joined_results
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.state import differing
from bcgan_tf.files import DamagedFile, as_json, replacing
from bcgan_tf.lazy_images import LazyImages, overlaid

_OF_ATTACK = ("attack", "config", "uses_gradients", "passes")
_COMPARED = ("eps", "norm", "suite", "eot_samples", "precision", "total")
_SETTINGS = (*_COMPARED, "identity", "fallback")


def save(
    evaluation: Evaluation, path: str | Path, rows: Mapping[str, np.ndarray] | None = None
) -> Path:
    """Writes an ``.npz`` file that NumPy alone can read.

    Arrays: ``labels``, ``indices``, ``clean_correct``, ``worst_case`` ``[N]``; ``adversarials``
    float32, one for each entry of ``broken_rows``, not compressed; ``certified`` ``[N]``, where
    certified images were not attacked; and ``<position>_<name>`` ``[N]`` for each attack;
    ``settings`` is a JSON text. Written beside the target and renamed.

    Args:
        evaluation: to save.
        path: of the file.
        rows: other arrays of the same images, by names that do not begin with a digit. They are
            not read back by :func:`load`.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    broken_rows = np.flatnonzero(evaluation.clean_correct & ~evaluation.worst_case)
    settings = {name: getattr(evaluation, name) for name in _SETTINGS}
    settings["seconds"] = list(evaluation.seconds)
    settings["attacks"] = [
        {name: getattr(result, name) for name in _OF_ATTACK} for result in evaluation.results
    ]
    arrays = {
        f"{position}_{name}": getattr(result, name)
        for position, result in enumerate(evaluation.results)
        for name in PER_EXAMPLE
    }
    arrays |= rows or {}
    if evaluation.certified is not None:
        arrays["certified"] = evaluation.certified
    with replacing(path) as partial, partial.open("wb") as stream:  # whose name is left as it is
        of_all = {
            "settings": np.array(json.dumps(as_json(settings))),
            "labels": evaluation.labels,
            "indices": evaluation.indices,
            "clean_correct": evaluation.clean_correct,
            "worst_case": evaluation.worst_case,
            "broken_rows": broken_rows,
            "adversarials": _as_lazy(evaluation.adversarials).of_rows(broken_rows),
        }
        write_arrays(stream, of_all | arrays)
    return path


def load(path: str | Path) -> Evaluation:
    """Reads what :func:`save` wrote.

    Of the adversarial examples only those that count are kept, in the file, from which they are
    read when they are asked for: a result's ``adversarials`` are zeros elsewhere.

    Raises:
        UserError: the file is missing, damaged, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing; give the folder of an evaluation that has finished")
    try:
        arrays = read_arrays(path, lazy="adversarials")
        # Earlier versions searched in float32, and did not say so; they had no suite fast.
        settings = {"precision": "float32", "fallback": None, **json.loads(str(arrays["settings"]))}
        kept = arrays["adversarials"]
        shape = (len(arrays["labels"]), *kept.shape[1:])
        none = LazyImages(lambda rows: np.zeros((len(rows), *shape[1:]), np.float32), shape)
        adversarials: Any = overlaid(none, arrays["broken_rows"], kept)
        results = tuple(
            AttackResult(
                attack=attack["attack"],
                config=attack["config"],
                uses_gradients=attack["uses_gradients"],
                passes=Passes(*attack.get("passes", ())),
                adversarials=adversarials,
                # Earlier versions searched nothing again.
                **{
                    name: arrays[key]
                    for name in PER_EXAMPLE
                    if (key := f"{position}_{name}") in arrays
                },
            )
            for position, attack in enumerate(settings["attacks"])
        )
        return Evaluation(
            results,
            arrays["labels"],
            arrays["indices"],
            seconds=tuple(settings["seconds"]),
            certified=arrays.get("certified"),
            **{name: settings[name] for name in _SETTINGS},
        )
    except (DamagedFile, KeyError, IndexError, RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or no evaluation ({type(error).__name__}); run that one again"
        ) from error


def _as_lazy(images: Any) -> LazyImages:
    if isinstance(images, LazyImages):
        return images
    return LazyImages(images.__getitem__, images.shape, images.dtype)


def merge(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The evaluation whose shards these are, in any order.

    Per-example draws depend on the example alone, so the result is what one run would have given.

    Raises:
        UserError: the shards have different settings, models or data, overlap, or miss some.
    """
    if not evaluations:
        raise UserError("there is nothing to merge; give the shards of one evaluation")
    first = evaluations[0]
    for other in evaluations[1:]:
        _refuse_difference(first, other)
    indices = np.concatenate([evaluation.indices for evaluation in evaluations])
    order = np.argsort(indices, kind="stable")
    expected = np.arange(first.total or len(indices))
    if len(np.unique(indices)) < len(indices):
        raise UserError("the shards overlap; give each one once")
    if not np.array_equal(indices[order], expected):
        raise UserError(
            f"the shards hold {len(indices):,} of {len(expected):,} images; some are missing"
        )

    def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(list(parts))[order]

    results = tuple(
        joined_results(parts, order)
        for parts in zip(*(evaluation.results for evaluation in evaluations), strict=True)
    )
    seconds = zip(*(evaluation.seconds for evaluation in evaluations), strict=False)
    return dataclasses.replace(
        first,
        results=results,
        labels=joined([evaluation.labels for evaluation in evaluations]),
        indices=expected,
        seconds=tuple(float(sum(parts)) for parts in seconds),
        certified=None
        if first.certified is None
        else joined([np.asarray(evaluation.certified) for evaluation in evaluations]),
    )


def _refuse_difference(first: Evaluation, other: Evaluation) -> None:
    for name in _COMPARED:
        if getattr(first, name) != getattr(other, name):
            raise UserError(
                f"the shards differ in {name}: {getattr(first, name)} and {getattr(other, name)}; "
                "merge shards of one evaluation"
            )
    if of := differing(first.identity, other.identity):
        raise UserError(
            f"the shards differ in identity: in their {' and '.join(of)}; merge shards of one "
            "evaluation"
        )
    if (first.certified is None) != (other.certified is None):
        raise UserError("one shard left out certified images, another did not; attack all alike")
    told = [[_told(result) for result in evaluation.results] for evaluation in (first, other)]
    if told[0] != told[1]:
        raise UserError("the shards were attacked differently; merge shards of one evaluation")


def _told(result: AttackResult) -> tuple[str, dict[str, Any]]:
    return result.attack, as_json(deciding_settings(result.config))
