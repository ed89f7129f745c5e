"""A suite of attacks on a classifier, batch by batch, resumable, in shards."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from bcgan_tf.attacks.attack import (
    Attack,
    AttackResult,
    PreparedAttack,
    deciding_settings,
    joined_results,
)
from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.expectation import SAMPLES
from bcgan_tf.attacks.preprocessing import ADAPTIVE
from bcgan_tf.attacks.suites import SEARCHED, LastAPGD, suite
from bcgan_tf.certification.certified import proved
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.fallback import why_go_on
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.state import EvaluationState, fingerprint, precision_of
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.progress import Progress

# Images that all attacks are finished on before the next ones are begun.
_BATCH = 1000
# Suites whose answer is to be believed, not to be compared with the paper's.
_THOROUGH = ("standard", "plus", "fast")
_FAST = "fast"


def run_suite(
    task: EvaluationTask,
    attacks: str | Sequence[Attack] = "standard",
    *,
    shard: tuple[int, int] = (1, 1),
    skip_certified: bool = False,
    state: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Attacks a model, white-box, with the true labels; the worst case per image is what counts.

    A suite attacks with each of its attacks what those before it left. Attacks given one by one
    are each run on all images, so that their own accuracies can be compared.

    A model without a gradient, or with one that is NaN, is attacked all the same, with zeros in
    its place: the attacks that need no gradient then decide. Of a Keras model whose first layers
    preprocess its pixels the suites ``"standard"``, ``"plus"`` and ``"fast"`` look behind them.
    Where these scale and cut off pixels, and nothing else, all attacks within an Linf ball are run
    in the box that it becomes there (:class:`bcgan_tf.attacks.in_box.InBox`). Where they do other
    things that are flat somewhere, such as rounding, or in L2, attacks of few gradients are also
    run through them (:mod:`bcgan_tf.attacks.preprocessing`), before the first attack without
    gradients.

    The suite ``"fast"`` does not attack what interval bounds prove (Linf). Where something says
    that its search misled, or that of another suite in bfloat16
    (:func:`bcgan_tf.evaluation.fallback.why_go_on`), ``"standard"`` (or ``"plus"``) in float32
    follows, on what is left; ``fallback`` of the result says why.

    Args:
        task: the model, the images and the threat model.
        attacks: ``"standard"``, ``"plus"``, ``"fast"``, ``"rand"`` or ``"paper"``, see
            :func:`bcgan_tf.attacks.suites.suite`; or at least one attack. Where the task has a
            radius, those that have one have that one, in its norm.
        shard: ``(i, n)``: every n-th image, from the i-th (1 ... n). The shards of an evaluation
            merged (:func:`bcgan_tf.evaluation.archive.merge`) are the evaluation. A shard does not
            go on in float32, which is decided by all images: so ``"fast"`` has none, and the others
            search in float32 there, unless the task says otherwise.
        skip_certified: attack only images of which :func:`bcgan_tf.certified` proves nothing at
            ``eps``: of the others no attack within it could break one, so that the accuracies are
            the same, sooner; an attack that goes further gets them all. Needs ``eps`` and Linf; a
            model without such bounds has none to skip.
        state: a folder for what is finished; the same call resumes from it.
        progress: told what is at work, such as "APGD-T: on 912 of 1,000 images".

    Returns:
        The accuracies, each attack's result, and the per-image worst case.

    Raises:
        UserError: no attack, or attacks of another radius or norm; a suite or ``skip_certified``
            without a radius; no such shard, or one of ``"fast"``; a state folder of another
            evaluation.
    """
    name = attacks if isinstance(attacks, str) else None
    _check_request(task, attacks, skip_certified)
    if name == _FAST and shard[1] > 1:
        raise UserError(
            "the suite fast decides by all images whether standard must follow; attack all images "
            "at once, or shards with standard"
        )
    skip_certified = skip_certified or (name == _FAST and task.norm == "linf")
    identity = fingerprint(task.model, task.images, task.labels)
    task = _in_precision(task, name, state, whole=shard[1] == 1)
    searched_in = task.searched_in  # by all images, not by those of the shard
    part = task.take(_shard_rows(task.n, shard))
    if name == "rand" and task.eot_samples is None:
        part = part.averaged(SAMPLES)
    prepared = _prepared(part, attacks)
    survivors_only = name not in (None, "paper")
    settings = {
        **identity,
        "survivors_only": survivors_only,
        **({"skip_certified": True} if skip_certified else {}),
        "shard": list(shard),
        "attacks": [
            {"attack": one.attack.name, **deciding_settings(one.attack.config())}
            for one in prepared
        ],
        "eps": task.eps,
        "norm": task.norm,
        "eot_samples": part.calls,
        "precision": searched_in,
    }
    empty = Evaluation(
        (),
        part.labels,
        part.indices,
        part.eps,
        part.norm,
        name,
        part.calls,
        total=task.n,
        identity=identity,
        certified=_proved(part) if skip_certified else None,
        precision=searched_in,
    )
    with EvaluationState(Path(state) if state is not None else None, settings) as kept:
        found = _Run(prepared, part.images, empty, kept, progress).finish()
        reason = why_go_on(part, found) if shard[1] == 1 else None
        if reason is None:
            return found
        following = "standard" if name == _FAST else str(name)
        further = _prepared(part.in_precision("float32"), following)
        told = f"went on with {following} in float32, because {reason}"
        found = dataclasses.replace(found, fallback=told)
        return _Run(further, part.images, found, kept, progress).finish()


def _prepared(task: EvaluationTask, attacks: str | Sequence[Attack]) -> list[PreparedAttack]:
    """The attacks on the task's model, of a thorough suite also behind its preprocessing."""
    if not isinstance(attacks, str):
        return [task.prepared(attack) for attack in attacks]
    chosen = suite(
        attacks,
        task.eps or 0.0,
        norm=task.norm,
        num_classes=task.num_classes,
        seed=task.seed,
        batch_size=task.batch_size,
        precision=task.searched_in,
    )

    def searched_in(attack: Attack) -> str:
        return "float32" if isinstance(attack, LastAPGD) else task.searched_in

    thorough = attacks in _THOROUGH
    if thorough and task.has_box:
        bounded = (attack for attack in chosen if isinstance(attack, BoundedAttack))
        return [task.prepared_in_box(attack, searched_in(attack)) for attack in bounded]
    prepared = [task.prepared(attack, searched_in(attack)) for attack in chosen]
    through = task.through_preprocessing if thorough else None
    if through is not None:
        blind = (i for i, attack in enumerate(chosen) if not attack.uses_gradients)
        place = next(blind, len(chosen))
        prepared[place:place] = [
            adaptive(**vars(attack)).prepare(through)
            for attack in chosen
            if (adaptive := ADAPTIVE.get(type(attack)))
        ]
    return prepared


def _in_precision(
    task: EvaluationTask, name: str | None, state: str | Path | None, *, whole: bool
) -> EvaluationTask:
    """The task in the precision that a suite searches in, of all images or a shard of them."""
    wanted = "float32"
    if name in SEARCHED:
        wanted = task.precision or ("auto" if whole else "float32")
    if wanted == "auto" and state is not None:
        # As what is kept of it was begun: timing may choose otherwise today.
        wanted = precision_of(Path(state)) or wanted
    return task.in_precision(wanted)


def _proved(task: EvaluationTask) -> np.ndarray:
    """bool ``[N]``: of which images bounds prove that nothing within eps breaks them."""
    # Bounds are of one call of a Keras model, not of the mean of several.
    if task.calls > 1 or task.eps is None or not isinstance(task.model, keras.Model):
        return np.zeros(task.n, bool)
    return proved(task.model, task.images, task.labels, task.eps, batch_size=task.batch_size)


@dataclasses.dataclass
class _Run:
    """One evaluation at work: batch by batch, and within a batch attack by attack.

    Attributes:
        attacks: in their order.
        images: float32 ``[N, ...]``.
        evaluation: its labels and settings, and the results that these attacks follow, if any.
            Images that it knows to be certified are not attacked.
        state: where each attack's result on each batch is kept.
        progress: told while an attack is at work.
        standing: images of the batches before that no attack broke.
    """

    attacks: list[PreparedAttack]
    images: np.ndarray
    evaluation: Evaluation
    state: EvaluationState
    progress: Progress | None
    standing: int = 0

    @property
    def survivors_only(self) -> bool:
        """Whether an attack gets only what those before it left."""
        return self.evaluation.suite not in (None, "paper")

    def finish(self) -> Evaluation:
        """Runs what is not finished, and joins all."""
        results: list[list[AttackResult]] = [[] for _ in self.attacks]
        seconds = [0.0] * len(self.attacks)
        certified, before = self.evaluation.certified, self.evaluation.results
        standing = self.evaluation.worst_case if before else np.ones(len(self.images), bool)
        for number, start in enumerate(range(0, len(self.images), _BATCH)):
            rows = slice(start, start + _BATCH)
            left = standing[rows].copy()
            spared = np.zeros_like(left) if certified is None else certified[rows]
            self.standing += int(spared.sum())
            for position, attack in enumerate(self.attacks):
                # What is proved within eps says nothing of an attack that goes further.
                mask = left & ~spared if self._within(attack.attack) else left
                result, took = self._piece(number, position, rows, mask)
                results[position].append(result)
                seconds[position] += took
                if self.survivors_only:
                    alone = dataclasses.replace(self.evaluation, results=(result,))
                    left = left & result.clean_correct & ~alone.broken_by(result)
            self.standing += int((left & ~spared).sum())
        return dataclasses.replace(
            self.evaluation,
            results=(*before, *(joined_results(parts) for parts in results)),
            seconds=(*self.evaluation.seconds, *seconds),
        )

    def _within(self, attack: Attack) -> bool:
        """Whether an attack stays within the radius for which images are certified."""
        eps, own = self.evaluation.eps, getattr(attack, "eps", None)
        linf = getattr(attack, "norm", None) == "linf"
        return linf and eps is not None and own is not None and own <= eps

    def _piece(
        self, number: int, position: int, rows: slice, mask: np.ndarray
    ) -> tuple[AttackResult, float]:
        """One attack on one batch, and its seconds: done now, or kept from before."""
        attack = self.attacks[position]
        name = f"{number:04d}-{len(self.evaluation.results) + position}"
        finished = self.state.load(name, attack.attack, self.images[rows])
        if finished is not None:
            return finished
        started = time.monotonic()
        result = attack(
            self.images[rows],
            self.evaluation.labels[rows],
            mask=mask,
            indices=self.evaluation.indices[rows],
            progress=self._reporter(position, rows.start, mask),
        )
        seconds = time.monotonic() - started
        self.state.save(name, result, self.images[rows], seconds)
        return result, seconds

    def _reporter(self, position: int, start: int, mask: np.ndarray) -> Progress | None:
        """One attack's progress on one batch as progress through everything."""
        progress, attacks, rows = self.progress, len(self.attacks), len(mask)
        if progress is None:
            return None
        text = self.attacks[position].attack.name
        if self.survivors_only:
            text += f": on {self.standing + int(mask.sum()):,} of {start + rows:,} images"

        def report(done: int, to_do: int, _: str) -> None:
            share = done / to_do if to_do else 1.0
            finished = start * attacks + round(rows * (position + share))
            progress(finished, len(self.images) * attacks, text)

        return report


def _check_request(
    task: EvaluationTask, attacks: str | Sequence[Attack], skip_certified: bool
) -> None:
    eps, norm = task.eps, task.norm
    if not attacks:
        raise UserError("no attack was given; robust accuracy without one says nothing")
    if skip_certified and (eps is None or norm != "linf"):
        raise UserError("skip_certified needs eps and the norm linf, for which bounds are proved")
    if isinstance(attacks, str):
        if eps is None:
            raise UserError("a suite needs eps, the radius in [0, 1] pixel units, such as eps=0.3")
        return
    others = [] if eps is None else [a for a in attacks if not _is_on(a, eps, norm)]
    if others:
        told = [f"{attack.name} ({_threat(attack.config())})" for attack in others]
        raise UserError(
            f"{', '.join(told)}: not on {norm} eps {eps:.4g}, of which what is left then says "
            "nothing; give that radius and norm, or leave eps out: then whatever the attacks find "
            "counts, and evaluation.survivors(eps) is what is left within a radius"
        )


def _is_on(attack: Attack, eps: float, norm: str) -> bool:
    """Whether an attack looks where the threat model allows, as far as it has settings for it."""
    config = attack.config()
    own = config.get("eps")
    return config.get("norm", norm) == norm and (
        own is None or math.isclose(own, eps, rel_tol=1e-6)
    )


def _threat(config: Mapping[str, object]) -> str:
    eps = config.get("eps")
    return f"{config.get('norm', '')} {'without eps' if eps is None else f'eps {eps:.4g}'}".strip()


def _shard_rows(count: int, shard: tuple[int, int]) -> np.ndarray:
    number, shards = shard
    if not 1 <= number <= shards:
        raise UserError(f"shard {number}/{shards} does not exist; choose 1/{shards} ... or fewer")
    if shards > count:
        raise UserError(f"{count} images cannot be cut into {shards} shards; choose fewer")
    return np.arange(number - 1, count, shards)
