"""The measurements of the row Defense-GAN, which is random and slow and has its own protocol."""

from __future__ import annotations

import functools
import statistics
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf import progress
from bcgan_tf.attacks import PGD, Attack
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.checks import as_logits_fn
from bcgan_tf.attacks.expectation import expectation
from bcgan_tf.data import Split
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.models.defended_classifier import DefenseGANClassifier
from bcgan_tf.models.reconstruction import Reconstruction, fixed_starts
from bcgan_tf.perturbation.minimum_perturbation import minimum_perturbation
from bcgan_tf.reproduction.measures import (
    SUMMARY,
    TableRow,
    along_one_gradient,
    attack_name,
    bounded_attacks,
    bounded_settings,
    carlini_wagner,
    stage,
)
from bcgan_tf.reproduction.protocol import Protocol
from bcgan_tf.statistics import wilson_interval

# The paper's L, and the images of its test sets.
_PAPER_STEPS, _TEST_IMAGES = 12_000, 10_000
_TIMED_IMAGES, _TIMED_STEPS, _TIMED_REPEATS = 20, 10, 3
# Images attacked at once through the search: what a kill costs at most.
_WHITE_BOX_PART = 25


def is_defended(subject: TableRow) -> bool:
    """Whether the row is one of this kind."""
    return subject.row == "defense-gan"


def balanced(split: Split, n: int, *, seed: int = 0) -> Split:
    """A subset with equally many images of each class, in turn, so that its parts are balanced too.

    Args:
        split: what to draw from.
        n: at most so many images, at least one of each class.
        seed: of the draw.

    Raises:
        UserError: there are more classes than ``n``, or one has no image.
    """
    members = [
        np.random.RandomState(seed + label).permutation(np.flatnonzero(split.labels == label))
        for label in range(int(split.labels.max()) + 1)
    ]
    count = min(n // len(members), *(len(rows) for rows in members))
    if count < 1:
        raise UserError(
            f"{n} images are fewer than one for each of {len(members)} classes, or a class has "
            "none; ask for more"
        )
    rows = np.stack([rows[:count] for rows in members], axis=1).reshape(-1)
    return Split(split.images[rows], split.labels[rows])


def gray_box(subject: TableRow) -> dict[str, Any]:
    """The paper's way: attack the classifier alone, then search for what the attack made.

    The searches start from fixed points, so the figures can be had again. ``behind`` is the
    accuracy that the attack leaves the classifier without the search.

    Returns:
        ``clean``, ``attacks`` (pixel unit to column to figure), ``cw``.
    """
    protocol, seed = subject.protocol, subject.workspace.seed
    attacks = bounded_attacks(protocol, seed)
    wagner = carlini_wagner(protocol, seed)
    part = balanced(subject.workspace.data.test, protocol.defended_n)
    settings = {
        "n": len(part),
        **bounded_settings(protocol),
        "cw_n": protocol.defended_cw_n,
        "cw": list(protocol.carlini_wagner().values()),
    }
    with subject.open("behind", settings) as run:
        images, labels = part.scaled(), part.labels

        def figure(attack: Attack | None, n: int | None = None) -> dict[str, Any]:
            name = attack_name(attack) if attack else "clean"
            return stage(run, name, lambda: _behind(subject, attack, images[:n], labels[:n], name))

        return {
            "clean": figure(None),
            "attacks": {
                unit: {column: figure(attack) for column, attack in columns.items()}
                for unit, columns in attacks.items()
            },
            "cw": figure(wagner, protocol.defended_cw_n),
        }


def _behind(
    subject: TableRow, attack: Attack | None, images: np.ndarray, labels: np.ndarray, name: str
) -> dict[str, Any]:
    started = time.monotonic()
    model = _model(subject)
    shown, result = images, None
    if attack is not None:
        with progress.told(f"{subject.row}: {name}") as count:
            result = attack(model.classifier, images, labels, progress=count)
        shown = result.adversarials
    with progress.told(f"{subject.row}: searches after {name}") as count:
        logits = model.logits(shown, seed=subject.workspace.seed, progress=count)
    found = {
        "attack": attack.name if attack else None,
        "eps": attack.config().get("eps") if attack else None,
        **_accuracy(logits.argmax(-1) == labels),
        "seconds": round(time.monotonic() - started, 1),
    }
    if result is not None:
        found["behind"] = result.robust_accuracy
        found["mean_l2"] = float(result.l2[result.success].mean()) if result.success.any() else None
    return found


def white_box(subject: TableRow[Protocol]) -> dict[str, Any]:
    """PGD through the search: BPDA, with each gradient averaged over several searches.

    The gradient is that of the classifier at what the search found, handed straight through
    (Athalye et al. 2018). An image counts as robust only where all of several fresh searches, that
    the attack has not seen, answer right; ``clean_worst`` asks the same of the clean image.
    """
    protocol, workspace = subject.protocol, subject.workspace
    part = balanced(workspace.data.test, protocol.white_box_n)
    steps, draws, answers = (
        protocol.white_box_steps,
        protocol.eot_samples,
        protocol.answers,
    )
    settings = {
        "n": len(part),
        "eps": protocol.eps,
        "steps": steps,
        "draws": draws,
        "answers": answers,
        "part": _WHITE_BOX_PART,
    }
    with subject.open("white-box", settings) as run:
        attack = PGD(protocol.eps, steps=steps, seed=workspace.seed, batch_size=_WHITE_BOX_PART)

        @functools.cache
        def prepared() -> tuple[Any, Batched]:
            keras.utils.set_random_seed(workspace.seed)
            model = _model(subject)
            return (
                attack.prepare(expectation(model, draws)),
                Batched(as_logits_fn(model), _WHITE_BOX_PART),
            )

        clean, attacked = [], []
        with progress.told(f"{subject.row}: BPDA, {attack.name} x {draws} searches") as report:
            for start in range(0, len(part), _WHITE_BOX_PART):
                rows = slice(start, min(start + _WHITE_BOX_PART, len(part)))

                def measure(rows: slice = rows) -> dict[str, Any]:
                    images, labels = part.scaled()[rows], part.labels[rows]
                    run_attack, predict = prepared()
                    found = run_attack(
                        images, labels, indices=np.arange(rows.start, rows.stop)
                    ).adversarials
                    return {
                        name: [(predict(shown).argmax(-1) == labels) for _ in range(answers)]
                        for name, shown in (("clean", images), ("attacked", found))
                    }

                report(start, len(part), f"{start} of {len(part)} images")
                payload = stage(run, f"images {start}", measure)
                clean.append(np.array(payload["clean"], bool))
                attacked.append(np.array(payload["attacked"], bool))
            report(len(part), len(part), "")
        seconds = round(sum(run.stage_seconds().values()), 1)
    survived, single = np.concatenate(attacked, axis=1), np.concatenate(clean, axis=1)
    return {
        "method": f"BPDA, {attack.name} with {draws} searches a gradient, {answers} fresh answers",
        "eps": protocol.eps,
        **_accuracy(np.all(survived, axis=0)),
        "accuracy_of_one_answer": float(survived.mean()),
        "clean_accuracy": float(single.mean()),
        "clean_worst": float(np.all(single, axis=0).mean()),
        "verdict": None,
        "seconds": seconds,
    }


def search_cost(subject: TableRow) -> dict[str, Any]:
    """Seconds of one step of the search for one image, and what the paper's L would take.

    Medians of a few timings; ``cpu_seconds`` are of all cores together.
    """
    with subject.open("search-cost", {"images": _TIMED_IMAGES, "steps": _TIMED_STEPS}) as run:

        def measure() -> dict[str, Any]:
            search = _model(subject).reconstruction
            timed = Reconstruction(
                search.generator, steps=_TIMED_STEPS, restarts=search.restarts, bpda=search.bpda
            )
            test = subject.workspace.data.test
            images = tf.constant(balanced(test, _TIMED_IMAGES).scaled())
            indices = np.arange(len(images))
            starts = tf.constant(fixed_starts(0, indices, search.restarts, search.latent_dim))
            timed.search(images, starts)  # traces
            walls, processors = [], []
            for _ in range(_TIMED_REPEATS):
                wall, processor = time.perf_counter(), time.process_time()
                np.asarray(timed.search(images, starts)[1])
                walls.append(time.perf_counter() - wall)
                processors.append(time.process_time() - processor)
            each = len(images) * _TIMED_STEPS
            wall, processor = (statistics.median(found) / each for found in (walls, processors))
            return {
                "steps": search.steps,
                "restarts": search.restarts,
                "step_seconds": wall,
                "step_cpu_seconds": processor,
                "image_seconds": wall * search.steps,
                "paper_steps": _PAPER_STEPS,
                "paper_image_seconds": wall * _PAPER_STEPS,
                "test_images": _TEST_IMAGES,
                "paper_test_hours": wall * _PAPER_STEPS * _TEST_IMAGES / 3600,
            }

        return stage(run, SUMMARY, measure)


def smallest_defended(subject: TableRow[Protocol]) -> dict[str, Any]:
    """Table 2 through a search that starts from the same points at every call.

    On few images, and without attacks of many gradients: ``rho_best`` is then ``rho_multi``.
    """
    protocol = subject.protocol
    if not protocol.defended_rho_n:
        each = search_cost(subject)["image_seconds"]
        reason = (
            f"every look at a point is a search of {each:.2g} s an image, and the three readings "
            "look at hundreds of points (defended_rho_n=0)"
        )
        return {"not_run": reason}
    data = subject.workspace.data
    part = balanced(data.test, max(data.num_classes, protocol.defended_rho_n))
    n = min(protocol.defended_rho_n, len(part))
    with subject.open("rho", {"n": n, "attacks": False}) as run:

        def measure() -> dict[str, Any]:
            with progress.told(f"{subject.row}: smallest perturbation") as report:
                found = minimum_perturbation(
                    EvaluationTask(
                        _model(subject).with_fixed_starts(subject.workspace.seed),
                        part.scaled()[:n],
                        part.labels[:n],
                        seed=subject.workspace.seed,
                        eot_samples=1,
                    ),
                    attacks=False,
                    progress=report,
                )
            return {**found.to_dict(), "attacks": False}

        payload = stage(run, SUMMARY, measure)
        return {**payload, "seconds": run.stage_seconds()[SUMMARY]}


def smallest_behind(subject: TableRow) -> dict[str, Any]:
    """rho of the classifier at what the search makes of training images.

    As the code computes it that the paper's figures most likely come from: the search comes first,
    and what is moved along one gradient is its result.
    """
    n = subject.protocol.defended_n
    part = balanced(subject.workspace.data.train, n)
    with subject.open("rho-along-one-gradient", {"n": len(part)}) as run:

        def measure() -> dict[str, Any]:
            model = _model(subject)
            with progress.told(f"{subject.row}: searches") as count:
                shown, _ = model.reconstruct(
                    part.scaled(), seed=subject.workspace.seed, progress=count
                )
            return along_one_gradient(model.classifier, shown, part.labels)

        return stage(run, SUMMARY, measure)


def _model(subject: TableRow) -> DefenseGANClassifier:
    model = subject.model
    if not isinstance(model, DefenseGANClassifier):
        raise UserError(f"{subject.file} is no DefenseGANClassifier; train that row again")
    return model


def _accuracy(right: np.ndarray) -> dict[str, Any]:
    count = int(right.sum())
    return {
        "accuracy": count / len(right),
        "interval95": list(wilson_interval(count, len(right))),
        "n": len(right),
    }
