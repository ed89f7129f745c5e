"""``evaluate``: a suite of attacks on a classifier, in chunks, resumable, in shards."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.apgd import APGD
from bcgan_tf.attacks.attack import Attack, AttackResult, PreparedAttack, deciding_settings
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.expectation import SAMPLES, differing_answers, expectation
from bcgan_tf.attacks.preprocessing import (
    AdaptiveAPGD,
    may_hide_gradients,
    through_preprocessing,
)
from bcgan_tf.attacks.square import Square
from bcgan_tf.attacks.suites import suite as attacks_of
from bcgan_tf.data.dataset import Split
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.gradient_health import usable
from bcgan_tf.evaluation.pieces import Pieces
from bcgan_tf.evaluation.robust_accuracy import Evaluation

# Work done, work to do, and what is at work, such as "APGD-CE: 912 of 1,000 left".
Progress = Callable[[int, int, str], None]

_CHUNK = 1000
_PROBES = 64
_SUITE = "standard"
# Suites whose answer is to be believed, not to be compared with the paper's.
_THOROUGH = ("standard", "plus")


def evaluate(
    model: Any,
    data: Split | tuple[np.ndarray, np.ndarray],
    attacks: Sequence[Attack] | None = None,
    *,
    suite: str | None = None,
    eps: float | None = None,
    norm: str = "linf",
    samples: int | None = None,
    shard: tuple[int, int] = (1, 1),
    state: str | Path | None = None,
    batch_size: int = 250,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Attacks a model, white-box, with the true labels; the worst case per image is what counts.

    A suite attacks with each of its attacks what those before it left. Attacks given one by one
    are each run on all images, so that their own accuracies can be compared.

    A model without a gradient, or with one that is NaN, is attacked all the same, with zeros in
    its place: the attacks that need no gradient then decide. A Keras model whose first layers cut
    off, round or otherwise preprocess its pixels is in the suites ``"standard"`` and ``"plus"``
    also attacked through them (:mod:`bcgan_tf.attacks.preprocessing`), before Square.

    Args:
        model: a Keras model (called with ``training=False``) or a callable; float32 images in
            [0, 1] to logits ``[B, K]``. A callable may have an attribute ``backward``
            (:func:`bcgan_tf.attacks.bpda.bpda`).
        data: a split, or (float32 images in [0, 1], int labels).
        attacks: at least one; None: those of ``suite``.
        suite: ``"standard"`` (the default), ``"plus"``, ``"rand"`` or ``"paper"``; see
            :func:`bcgan_tf.attacks.suites.suite`.
        eps: radius of the threat model, in [0, 1] pixel units. A suite needs it.
        norm: ``"linf"`` or ``"l2"``.
        samples: calls of the model to average. None: 20 for a model that answers differently to
            the same images, and for the suite ``"rand"``; else 1.
        shard: ``(i, n)``: every n-th image, from the i-th (1 ... n). The shards of an evaluation
            merged (:func:`bcgan_tf.evaluation.archive.merge`) are the evaluation.
        state: a folder for what is finished; the same call resumes from it.
        batch_size: most images at once: bounds memory, changes no result.
        seed: of all draws.
        progress: see :data:`Progress`.

    Returns:
        The accuracies, each attack's result, and the per-example worst case.

    Raises:
        UserError: no attack, no eps for a suite, a model, images or labels that an attack
            refuses, or a state folder of another evaluation.

    Example:
        >>> evaluation = evaluate(classifier, dataset.test.take(1000), suite="standard", eps=0.3)
        >>> evaluation.robust_accuracy, evaluation.interval95()
    """
    images, labels = _arrays(data)
    _check_request(attacks, suite, eps)
    total, identity = len(images), {"model": fingerprint(model), "data": _digest(images, labels)}
    indices = _shard_indices(total, shard)
    images, labels = images[indices], labels[indices]

    classes = _checked_classes(model, images, labels)
    if samples is None:
        stochastic = differing_answers(model, images[:_PROBES]) > 0
        samples = SAMPLES if stochastic or suite == "rand" else 1
    surely: Any = model if samples == 1 else expectation(model, samples)
    usable_model, _ = usable(surely, images[:_PROBES], labels[:_PROBES])
    if attacks is None:
        assert eps is not None
        suite = suite or _SUITE
        attacks = attacks_of(
            suite, eps, norm=norm, num_classes=classes, seed=seed, batch_size=batch_size
        )
    prepared = [attack.prepare(usable_model) for attack in attacks]
    if suite in _THOROUGH and may_hide_gradients(model):
        prepared = _with_adaptive(prepared, model, samples, images[:_PROBES], labels[:_PROBES])
    settings = {
        **identity,
        "shard": list(shard),
        "attacks": [
            {"attack": one.attack.name, **deciding_settings(one.attack.config())}
            for one in prepared
        ],
        "eps": eps,
        "norm": norm,
        "samples": samples,
    }
    with Pieces(Path(state) if state is not None else None, settings) as pieces:
        work = _Work(
            attacks=prepared,
            survivors_only=suite is not None and suite != "paper",
            pieces=pieces,
            progress=progress,
            evaluation=Evaluation(
                (), labels, indices, eps, norm, suite, samples, total=total, identity=identity
            ),
        )
        return work.run(images)


@dataclasses.dataclass
class _Work:
    """One evaluation on its way: chunk by chunk, and within a chunk attack by attack."""

    attacks: list[PreparedAttack]
    survivors_only: bool
    pieces: Pieces
    progress: Progress | None
    evaluation: Evaluation  # still without results

    def run(self, images: np.ndarray) -> Evaluation:
        chunks = [slice(start, start + _CHUNK) for start in range(0, len(images), _CHUNK)]
        found: list[list[AttackResult]] = [[] for _ in self.attacks]
        seconds = [0.0] * len(self.attacks)
        standing = 0
        for number, rows in enumerate(chunks):
            left: np.ndarray | None = None
            for position, attack in enumerate(self.attacks):
                done = (rows.start * len(self.attacks), len(images[rows]), position, standing)
                result, took = self._piece(
                    f"{number:04d}-{position}", attack, images, rows, left, done
                )
                found[position].append(result)
                seconds[position] += took
                if self.survivors_only:
                    part = dataclasses.replace(self.evaluation, results=(result,))
                    left = (result.clean_correct if left is None else left) & ~part.broken_by(
                        result
                    )
            standing += int(left.sum()) if left is not None else 0
        return dataclasses.replace(
            self.evaluation,
            results=tuple(_joined(parts) for parts in found),
            seconds=tuple(seconds),
        )

    def _piece(
        self,
        name: str,
        attack: PreparedAttack,
        images: np.ndarray,
        rows: slice,
        left: np.ndarray | None,
        done: tuple[int, int, int, int],
    ) -> tuple[AttackResult, float]:
        finished = self.pieces.load(name, attack.attack, images[rows])
        if finished is not None:
            return finished
        started = time.monotonic()
        result = attack(
            images[rows],
            self.evaluation.labels[rows],
            only=left,
            indices=self.evaluation.indices[rows],
            progress=self._reporter(attack.attack, len(images), left, done),
        )
        seconds = time.monotonic() - started
        self.pieces.save(name, result, images[rows], seconds)
        return result, seconds

    def _reporter(
        self, attack: Attack, total: int, left: np.ndarray | None, at: tuple[int, int, int, int]
    ) -> Callable[[int, int], None] | None:
        """One attack's progress on one chunk as progress through everything."""
        progress = self.progress
        if progress is None:
            return None
        base, rows, position, standing = at
        survivors = standing + (rows if left is None else int(left.sum()))
        seen = base // len(self.attacks) + rows
        text = f"{attack.name}: {survivors:,} of {seen:,} left"

        def report(done: int, to_do: int) -> None:
            share = done / to_do if to_do else 1.0
            progress(base + round(rows * (position + share)), total * len(self.attacks), text)

        return report


def _joined(parts: list[AttackResult]) -> AttackResult:
    fields = ("adversarials", "clean_correct", "attacked", "success", "linf", "l2")
    return dataclasses.replace(
        parts[0],
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields},
    )


def _arrays(data: Split | tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(data, tuple):
        if len(data) != 2:
            raise UserError(f"the data has {len(data)} parts; pass (images, labels) or a split")
        images, labels = data
    else:
        images, labels = data.scaled(), data.labels
    images = checks.check_images(images)
    return images, checks.check_labels(labels, len(images))


def _check_request(attacks: Sequence[Attack] | None, suite: str | None, eps: float | None) -> None:
    if attacks is not None and not attacks:
        raise UserError("no attack was given; robust accuracy without one says nothing")
    if attacks is not None and suite is not None:
        raise UserError("both attacks and a suite were given; choose one of them")
    if attacks is None and eps is None:
        raise UserError("a suite needs eps, the radius in [0, 1] pixel units, such as eps=0.3")


def _shard_indices(count: int, shard: tuple[int, int]) -> np.ndarray:
    number, shards = shard
    if not 1 <= number <= shards:
        raise UserError(f"shard {number}/{shards} does not exist; choose 1/{shards} ... or fewer")
    if shards > count:
        raise UserError(f"{count} images cannot be cut into {shards} shards; choose fewer")
    return np.arange(number - 1, count, shards)


def _with_adaptive(
    prepared: list[PreparedAttack],
    model: keras.Model,
    samples: int,
    images: np.ndarray,
    labels: np.ndarray,
) -> list[PreparedAttack]:
    """The suite, and before its Square the suite's APGDs through the model's preprocessing."""
    view: Any = through_preprocessing(model)
    view, _ = usable(view if samples == 1 else expectation(view, samples), images, labels)
    adaptive = [
        AdaptiveAPGD(**vars(one.attack)).prepare(view)
        for one in prepared
        if isinstance(one.attack, APGD)
    ]
    place = next(i for i, one in enumerate(prepared) if isinstance(one.attack, Square))
    return [*prepared[:place], *adaptive, *prepared[place:]]


def _checked_classes(model: Any, images: np.ndarray, labels: np.ndarray) -> int:
    """The number of logits; the model's outputs on a few images are checked on the way."""
    checks.check_model_input(model, images)
    logits = Batched(checks.as_logits_fn(model), _PROBES)(images[:_PROBES])
    checks.check_logits(logits, labels[:_PROBES])
    if labels.max() >= logits.shape[1]:
        checks.check_logits(logits, np.full(len(logits), labels.max()))
    return logits.shape[1]


def fingerprint(model: Any) -> str:
    """What tells one model from another when an evaluation is resumed.

    A digest of a Keras model's weights; else its attribute ``fingerprint``, or its name.
    """
    if isinstance(model, keras.Model):
        return _digest(*(np.asarray(weight) for weight in model.weights))
    name = getattr(model, "__qualname__", type(model).__qualname__)
    return str(getattr(model, "fingerprint", f"{getattr(model, '__module__', '')}:{name}"))


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
