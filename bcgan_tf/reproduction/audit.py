"""Tries several ways of evaluating the same networks, to find which gives the paper's figures."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.diagnosis.attack_checks import scaled, temperature
from bcgan_tf.diagnosis.causes import clipped_log_probabilities, towards_true_label
from bcgan_tf.diagnosis.transfer import FullPGD
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.gradient_health import with_finite_gradient
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.files import as_json, file_digest
from bcgan_tf.perturbation.perturbation_search import PerturbationSearch
from bcgan_tf.reproduction import paper
from bcgan_tf.reproduction.audit_page import audit_page
from bcgan_tf.reproduction.measures import TableRow, bounded_attacks, carlini_wagner, stage
from bcgan_tf.reproduction.protocol import Protocol, check_rows
from bcgan_tf.reproduction.rows import ORIGINAL, trained
from bcgan_tf.reproduction.workspace import Workspace, joined_rows

# Where the paper's figures cannot be taken at their word, and two to compare with.
AUDITED_ROWS = ("original", "pgd-at", "distillation", "bcgan")
SAMPLES, CW_SAMPLES = 1000, 100
LOGITS, DIVIDED, TIMES, PROBABILITIES, TRANSFER = (
    "white-box, logits",
    "white-box, logits / T",
    "white-box, logits x 100",
    "white-box, probabilities clipped at 1e-7",
    "transfer from the original network",
)
SEARCH, SMALL, LARGE, TOWARDS = (
    "binary search of c",
    "c = 0.001 alone",
    "c = 1 alone",
    "towards the true class",
)
# Published rows stay on the page where these are the same.
_IDENTITY = ("dataset", "preset", "seed", "samples", "cw_samples", "protocol")
_BATCH = 250
_RHO_STEP = 0.01


def audit(
    workspace: Workspace,
    protocol: Protocol,
    rows: Sequence[str] = (),
    *,
    results: Path,
    command: str,
    samples: int = SAMPLES,
    cw_samples: int = CW_SAMPLES,
) -> Path:
    """Evaluates rows of Table 1 in each way that could have given the paper's figures.

    What is finished is kept in the cache, and the pages are written after every row. Rows that
    another call published with the same settings, before or meanwhile, stay on them.

    Args:
        workspace: the data, preset, seed and cache.
        protocol: the eps, steps and settings of FGSM, PGD and Carlini-Wagner.
        rows: deterministic rows of the paper's table; none: :data:`AUDITED_ROWS`.
        results: where ``audit-<dataset>.json`` and ``.md`` are written.
        command: a command line that repeats it, for the page.
        samples: test images for FGSM and PGD.
        cw_samples: of these, for Carlini-Wagner.

    Returns:
        The page.

    Raises:
        UserError: no such row, one that answers at random, or a training that failed.
    """
    chosen = check_rows(rows or AUDITED_ROWS)
    if "defense-gan" in chosen:
        raise UserError(
            "the audit is of networks that answer the same twice; leave out defense-gan"
        )
    document: dict[str, Any] = {
        "dataset": workspace.data.name,
        "preset": workspace.preset,
        "seed": workspace.seed,
        "command": command,
        "samples": samples,
        "cw_samples": cw_samples,
        "protocol": as_json(protocol.to_dict()),
        **_paper(workspace.data.name, chosen),
        "rows": {},
    }
    page = results / f"audit-{workspace.data.name}.md"
    workspace.published(page, document, _IDENTITY)
    original = trained(workspace, ORIGINAL)
    for row in chosen:
        file = original if row == ORIGINAL else trained(workspace, row)
        subject = TableRow(workspace, protocol, row, file, None if row == ORIGINAL else original)
        found = _audited(subject, samples, cw_samples)
        document["rows"][row] = as_json({**found, "environments": subject.environments})
        _publish(workspace, document, row, page)
    return page


def _publish(workspace: Workspace, document: dict[str, Any], newest: str, page: Path) -> None:
    def joined(before: dict[str, Any]) -> dict[str, Any]:
        rows = joined_rows(document["rows"], before.get("rows", {}), newest)
        named = check_rows([*document["paper"], *rows])
        return {
            **document,
            **_paper(workspace.data.name, named),
            "rows": {row: rows[row] for row in named if row in rows},
        }

    workspace.publish(page, document, _IDENTITY, joined, audit_page)


def _paper(dataset: str, rows: Sequence[str]) -> dict[str, Any]:
    """The paper's figures of these rows, as far as it has any."""
    return {
        "paper": {row: list(paper.TABLE_1.get(dataset, {}).get(row, ())) for row in rows},
        "paper_rho": {row: paper.TABLE_2.get(dataset, {}).get(row) for row in rows},
    }


def _audited(subject: TableRow, samples: int, cw_samples: int) -> dict[str, Any]:
    """``temperature``, ``clean``, ``bounded`` (unit, column, choice), ``cw`` and ``rho`` (choice).

    ``rho`` is in [0, 1] pixels, the others are accuracies in [0, 1].
    """
    protocol = subject.protocol
    settings = {
        "n": samples,
        "cw_n": cw_samples,
        "radii": protocol.radii(),
        "pgd_steps": protocol.pgd_steps,
        "cw": [protocol.cw_steps, protocol.cw_search_steps, protocol.cw_learning_rate],
        "original": file_digest(subject.original_file) if subject.original_file else None,
    }
    task = subject.task(samples)
    images, labels = task.images, task.labels
    with subject.open("audit", settings) as run:

        def measure() -> dict[str, float]:
            return {"temperature": temperature(task), "clean": float(task.correct.mean())}

        known = stage(run, "logits", measure)
        views = _views(subject, task, known["temperature"])
        undefended = functools.cache(lambda: task.with_model(subject.original))
        bounded: dict[str, Any] = {}
        for unit, attacks in bounded_attacks(protocol, subject.workspace.seed).items():
            bounded[unit] = {}
            for column, attack in attacks.items():
                ways = _bounded_ways(subject, attack, task, views, undefended)
                bounded[unit][column] = _choices(run, f"{unit} {column}", ways)
        ways = _carlini_wagner_ways(subject, images[:cw_samples], labels[:cw_samples])
        wagner = _choices(run, "cw", ways)
        ways = _rho_ways(views)
        return {**known, "bounded": bounded, "cw": wagner, "rho": _choices(run, "rho", ways, "rho")}


def _choices(
    run: Any, what: str, ways: Mapping[str, Callable[[], float]], key: str = "accuracy"
) -> dict[str, float]:
    return {
        choice: stage(run, f"{what}, {choice}", lambda way=way: {key: way()})[key]
        for choice, way in ways.items()
    }


def _bounded_ways(
    subject: TableRow,
    attack: Attack,
    task: EvaluationTask,
    views: Mapping[str, EvaluationTask],
    undefended: Callable[[], EvaluationTask],
) -> dict[str, Callable[[], float]]:
    def transfer() -> float:
        steps = attack.config().get("steps")
        made = attack if steps is None else FullPGD(attack.config()["eps"], steps=steps)
        return _accuracy(subject.model, undefended().attack(made).adversarials, task.labels)

    ways: dict[str, Callable[[], float]] = {
        choice: lambda view=view: view.attack(attack).robust_accuracy
        for choice, view in views.items()
    }
    if subject.original_file is not None:
        ways[TRANSFER] = transfer
    return ways


def _rho_ways(views: Mapping[str, EvaluationTask]) -> dict[str, Callable[[], float]]:
    """The ways to measure Table 2 along one gradient, as the paper most likely did."""

    def along_gradient(view: EvaluationTask) -> float:
        of_view = view.with_logits(with_finite_gradient(view.attacked))
        search = PerturbationSearch(of_view.take(np.flatnonzero(of_view.correct)), limit=1.0)
        # One that never changes counts as the whole pixel range.
        return float(np.minimum(search.along_gradient(_RHO_STEP).distance, 1.0).mean())

    return {choice: lambda view=view: along_gradient(view) for choice, view in views.items()}


def _views(subject: TableRow, task: EvaluationTask, scale: float) -> dict[str, EvaluationTask]:
    """The same answers with other gradients."""
    views = {LOGITS: subject.model}
    if scale > 1:
        views[DIVIDED] = scaled(subject.model, scale)
    views[TIMES] = scaled(subject.model, 0.01)
    views[PROBABILITIES] = clipped_log_probabilities(subject.model)
    return {choice: task.with_logits(checks.as_logits_fn(view)) for choice, view in views.items()}


def _carlini_wagner_ways(
    subject: TableRow, images: np.ndarray, labels: np.ndarray
) -> dict[str, Callable[[], float]]:
    honest = carlini_wagner(subject.protocol, subject.workspace.seed)

    def with_one(const: float) -> float:
        attack = dataclasses.replace(honest, binary_search_steps=1, initial_const=const)
        return attack(subject.model, images, labels).robust_accuracy

    def towards() -> float:
        forward = checks.as_logits_fn(subject.model)
        made = Batched(lambda x, y: towards_true_label(forward, x, y), _BATCH)(images, labels)
        return _accuracy(subject.model, made, labels)

    ways: dict[str, Callable[[], float]] = {
        SEARCH: lambda: honest(subject.model, images, labels).robust_accuracy,
        SMALL: lambda: with_one(1e-3),
        LARGE: lambda: with_one(1.0),
        TOWARDS: towards,
    }
    if subject.original_file is not None:
        ways[TRANSFER] = lambda: _accuracy(
            subject.model, honest(subject.original, images, labels).adversarials, labels
        )
    return ways


def _accuracy(model: Any, images: np.ndarray, labels: np.ndarray) -> float:
    logits = Batched(checks.as_logits_fn(model), _BATCH)(images)
    return float((logits.argmax(-1) == labels).mean())
