"""A suite of attacks on a classifier, resumable, in shards, and on several workers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bcgan_tf.attacks.attack import Attack, deciding_settings
from bcgan_tf.attacks.expectation import SAMPLES
from bcgan_tf.attacks.suites import SEARCHED
from bcgan_tf.certification.certified import proved
from bcgan_tf.distribute.workers import Workers
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.fallback import why_go_on
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.state import EvaluationState, fingerprint, kept_settings
from bcgan_tf.evaluation.suite_run import SuiteRun, prepared_attacks
from bcgan_tf.evaluation.suite_worker import finish_in_workers
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.lazy_images import chunk_rows
from bcgan_tf.progress import Progress
from bcgan_tf.settings.attack import NO_SHARDS_OF_FAST

# Images that all attacks are finished on before the next ones are begun: at most, and the least
# that are worth a worker's call; and how many such chunks each worker gets.
_CHUNK, _LEAST, _EACH = 1000, 32, 4
_FAST = "fast"


def run_suite(
    task: EvaluationTask,
    attacks: str | Sequence[Attack] = "standard",
    *,
    shard: tuple[int, int] = (1, 1),
    skip_certified: bool = False,
    state: str | Path | None = None,
    workers: Workers | None = None,
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
        state: a folder for what is finished; the same call resumes from it. With it the
            adversarial examples stay in files, so that memory does not grow with the images.
        workers: processes that attack in place of this one (:mod:`bcgan_tf.distribute.workers`);
            they need a ``state`` folder that all of them reach. The rows do not depend on them.
        progress: told what is at work, such as "APGD-T: on 912 of 1,000 images".

    Returns:
        The accuracies, each attack's result, and the per-image worst case.

    Raises:
        UserError: no attack, or attacks of another radius or norm; a suite or ``skip_certified``
            without a radius; no such shard, or one of ``"fast"``; a state folder of another
            evaluation; workers without one, or that cannot load the model.
    """
    name = attacks if isinstance(attacks, str) else None
    _check_request(task, attacks, skip_certified)
    if name == _FAST and shard[1] > 1:
        raise UserError(NO_SHARDS_OF_FAST)
    if workers is not None and state is None:
        raise UserError("workers need a folder for what they find (state)")
    skip_certified = skip_certified or (name == _FAST and task.norm == "linf")
    identity = fingerprint(task.model, task.images, task.labels)
    task = _in_precision(task, name, state, whole=shard[1] == 1)
    searched_in = task.searched_in  # by all images, not by those of the shard
    part = task.view(_shard_rows(task.n, shard))
    if name == "rand" and task.eot_samples is None:
        part = part.averaged(SAMPLES)
    before = kept_settings(state)
    chunk = before.get("chunk", _CHUNK) if before else _chunk(part, workers)
    survivors_only = name not in (None, "paper")
    settings = {
        **identity,
        "survivors_only": survivors_only,
        **({"skip_certified": True} if skip_certified else {}),
        "shard": list(shard),
        "attacks": [
            {"attack": one.attack.name, **deciding_settings(one.attack.config())}
            for one in prepared_attacks(part, attacks)
        ],
        "eps": task.eps,
        "norm": task.norm,
        "eot_samples": part.calls,
        "precision": searched_in,
        **({"chunk": chunk} if chunk != _CHUNK else {}),
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

        def attacked(task: EvaluationTask, attacks: Any, found: Evaluation) -> Evaluation:
            standing = found.worst_case if found.results else np.ones(task.n, bool)
            run = SuiteRun(
                prepared_attacks(task, attacks),
                task.images,
                found,
                standing,
                len(found.results),
                chunk,
                kept,
                progress,
            )
            if workers is not None:
                finish_in_workers(run, task, attacks, workers)
            results, seconds = run.finish()
            return dataclasses.replace(
                found,
                results=(*found.results, *results),
                seconds=(*found.seconds, *seconds),
            )

        found = attacked(part, attacks, empty)
        reason = why_go_on(part, found) if shard[1] == 1 else None
        if reason is None:
            return found
        following = "standard" if name == _FAST else str(name)
        told = f"went on with {following} in float32, because {reason}"
        found = dataclasses.replace(found, fallback=told)
        return attacked(part.in_precision("float32"), following, found)


def _in_precision(
    task: EvaluationTask, name: str | None, state: str | Path | None, *, whole: bool
) -> EvaluationTask:
    """The task in the precision that a suite searches in, of all images or a shard of them."""
    wanted = "float32"
    if name in SEARCHED:
        wanted = task.precision or ("auto" if whole else "float32")
    if wanted == "auto":
        # As what is kept of it was begun: timing may choose otherwise today.
        wanted = kept_settings(state).get("precision", wanted)
    return task.in_precision(wanted)


def _chunk(task: EvaluationTask, workers: Workers | None) -> int:
    """Images of which all attacks are finished before the next are begun."""
    most = _CHUNK
    if workers is not None:
        most = min(_CHUNK, max(_LEAST, math.ceil(task.n / (_EACH * workers.count))))
    return max(chunk_rows(task.images.shape, most), min(task.batch_size, most))


def _proved(task: EvaluationTask) -> np.ndarray:
    """bool ``[N]``: of which images bounds prove that nothing within eps breaks them."""
    # Bounds are of one call of a Keras model, not of the mean of several.
    if task.calls > 1 or task.eps is None or not isinstance(task.model, keras.Model):
        return np.zeros(task.n, bool)
    return proved(task.model, task.images, task.labels, task.eps, batch_size=task.batch_size)


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


def _shard_rows(count: int, shard: tuple[int, int]) -> slice:
    number, shards = shard
    if not 1 <= number <= shards:
        raise UserError(f"shard {number}/{shards} does not exist; choose 1/{shards} ... or fewer")
    if shards > count:
        raise UserError(f"{count} images cannot be cut into {shards} shards; choose fewer")
    return slice(number - 1, None, shards)
