"""What is measured of a deterministic row; each figure is a stage of a run in the cache."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from bcgan_tf import progress
from bcgan_tf.attacks import FGSM, PGD, Attack, CarliniWagnerL2
from bcgan_tf.data import Split
from bcgan_tf.evaluation.clean_accuracy import clean_accuracy
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.files import file_digest
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.perturbation.minimum_perturbation import minimum_perturbation
from bcgan_tf.perturbation.perturbation_search import PerturbationSearch
from bcgan_tf.report.table import eps_text
from bcgan_tf.reproduction.authors_attacks import AuthorsCarliniWagner
from bcgan_tf.reproduction.protocol import AuthorsProtocol, BothProtocols, Protocol
from bcgan_tf.reproduction.workspace import Workspace
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.settings.attack import EvaluationConfig
from bcgan_tf.workflows.attack import evaluate_models

SUMMARY = "summary"
_CARLINI_WAGNER = {Protocol.name: CarliniWagnerL2, AuthorsProtocol.name: AuthorsCarliniWagner}
# 0.1 in [-1, 1] pixels.
_AUTHORS_GRID = 0.05
# Settings of a training's run that its row's place in a table says already.
_SAID = ("dataset", "preset", "seed", "original", "defense")


_Protocol = TypeVar("_Protocol", bound=BothProtocols)


class TableRow(Generic[_Protocol]):
    """One row's classifier, loaded when a measurement needs it.

    Args:
        workspace: the data, the seed, and the cache.
        protocol: what to measure.
        row: its name.
        file: of the classifier.
        original: file of the undefended one; None for its own row.

    Attributes:
        environments: those that its measurements were made in, as far as they were opened.
    """

    def __init__(
        self,
        workspace: Workspace,
        protocol: _Protocol,
        row: str,
        file: Path,
        original: Path | None = None,
    ) -> None:
        self.workspace = workspace
        self.protocol = protocol
        self.row = row
        self.file = file
        self.original_file = original
        self.environments: list[dict[str, Any]] = []

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the classifier's file."""
        return file_digest(self.file)

    @functools.cached_property
    def model(self) -> Any:
        """The classifier."""
        return self._load(self.file)

    @functools.cached_property
    def original(self) -> Any:
        """The undefended classifier, or None."""
        return self._load(self.original_file) if self.original_file else None

    def _load(self, file: Path) -> Any:
        data = self.workspace.data
        return load_classifier(file, image_shape=data.image_shape, num_classes=data.num_classes)

    def open(self, what: str, settings: Mapping[str, Any]) -> RunDirectory:
        """The run of one measurement of this classifier, new or found again."""
        run = self.workspace.open_run(
            "measure", f"{self.row}-{what}", {"model": self.digest, **settings}
        )
        if (found := run.env()) not in self.environments:
            self.environments.append(found)
        return run

    def images(self, n: int) -> Split:
        """The whole test set for 0, else ``n`` of it, the same for every row."""
        test = self.workspace.data.test
        return test.take(n, seed=0) if n else test

    def task(self, n: int) -> EvaluationTask:
        """The classifier and these images, without a radius; one call of it is one answer."""
        part = self.images(n)
        return EvaluationTask(
            self.model,
            part.scaled(),
            part.labels,
            seed=self.workspace.seed,
            eot_samples=1,
            precision="float32",  # what is published is the same on every machine
        )


def clean(subject: TableRow) -> dict[str, Any]:
    """Clean accuracy on the whole test set."""
    with subject.open("clean", {}) as run:

        def measure() -> dict[str, Any]:
            found = clean_accuracy(subject.model, subject.workspace.data.test)
            return {
                "accuracy": found["clean_accuracy"],
                "interval95": found["clean_interval95"],
                "n": found["n"],
            }

        return stage(run, SUMMARY, measure)


def bounded_attacks(protocol: BothProtocols, seed: int) -> dict[str, dict[str, Attack]]:
    """FGSM and PGD of the paper's protocol: pixel unit to column to attack."""
    found: dict[str, dict[str, Attack]] = {}
    for unit, radii in protocol.radii().items():
        found[unit] = {
            column: FGSM(eps, seed=seed)
            if column.startswith("fgsm")
            else PGD(eps, seed=seed, **protocol.pgd())
            for column, eps in radii.items()
        }
    return found


def bounded_settings(protocol: BothProtocols) -> dict[str, Any]:
    """What tells the FGSM and PGD of two protocols apart."""
    options = protocol.pgd()
    steps = options.pop("steps")
    return {"fgsm_eps": list(protocol.fgsm_eps), "pgd_steps": steps, **options}


def carlini_wagner(protocol: BothProtocols, seed: int) -> CarliniWagnerL2:
    """The protocol's Carlini-Wagner L2."""
    return _CARLINI_WAGNER[protocol.name](seed=seed, **protocol.carlini_wagner())


def attack_name(attack: Attack) -> str:
    """Tells the protocol's attacks apart, for people and for stages; eps in [0, 1] pixels."""
    eps = attack.config().get("eps")
    return attack.name if eps is None else f"{attack.name}, eps {eps_text(eps)}"


def bounded(subject: TableRow) -> dict[str, dict[str, dict[str, Any]]]:
    """FGSM and PGD in both pixel units: unit to column to figure.

    One attack of two readings (the smaller eps of one may be the larger of the other) runs once.
    """
    protocol, seed = subject.protocol, subject.workspace.seed
    attacks = bounded_attacks(protocol, seed)
    settings = {"n": protocol.n, **bounded_settings(protocol)}
    with subject.open("bounded", settings) as run:
        return {
            unit: {
                column: stage(
                    run,
                    attack_name(attack),
                    lambda attack=attack: _attacked(subject, run, attack, protocol.n),
                )
                for column, attack in columns.items()
            }
            for unit, columns in attacks.items()
        }


def unbounded(subject: TableRow) -> dict[str, Any]:
    """Carlini-Wagner L2: the accuracy it leaves, which is near 0 for any model, and how far."""
    attack = carlini_wagner(subject.protocol, subject.workspace.seed)
    n = subject.protocol.cw_n
    settings = {key: value for key, value in attack.config().items() if key != "batch_size"}
    with subject.open("cw", {"n": n, **settings}) as run:
        return stage(run, attack_name(attack), lambda: _attacked(subject, run, attack, n))


def _attacked(subject: TableRow, run: RunDirectory, attack: Attack, n: int) -> dict[str, Any]:
    """One attack on its own, on all images that are classified right; a kill costs a part."""
    name = attack_name(attack)
    state = run.path / f"state-{name}".replace("/", "-").replace(" ", "-")
    with progress.told(f"{subject.row}: {name}") as report:
        task = subject.task(n)
        found = run_suite(task, [attack], state=state, progress=report).to_dict()["attacks"][0]
    shutil.rmtree(state, ignore_errors=True)  # of adversarial examples that nothing needs any more
    return {
        "attack": found["attack"],
        "eps": found["config"].get("eps"),
        "accuracy": found["robust_accuracy"],
        "interval95": found["interval95"],
        "n": found["n"],
        "mean_l2": found["l2"] and found["l2"]["mean"],
        "seconds": found["seconds"],
    }


def standard(subject: TableRow[Protocol], *, skip_certified: bool = False) -> dict[str, Any]:
    """The suite ``standard``, the diagnosis and the verdict.

    The original network is the control that the attacks must break, and the surrogate whose
    adversarial examples are tried. With ``skip_certified`` images that interval bounds prove are
    not attacked: the same worst case, sooner.
    """
    workspace, protocol = subject.workspace, subject.protocol
    settings = EvaluationConfig(
        eps=protocol.eps,
        n=protocol.standard_n,
        seed=workspace.seed,
        skip_certified=skip_certified,
        precision="float32",
    )
    others = {"original": file_digest(subject.original_file) if subject.original_file else None}
    with subject.open("standard", {**settings.to_dict(), **others}) as run:

        def measure() -> dict[str, Any]:
            metrics = evaluate_models(
                run,
                workspace.data,
                {subject.row: subject.model},
                settings,
                surrogate=subject.original,
                control=subject.original,
                progress=progress.told,
            )
            (entry,) = metrics["models"][subject.row]["evaluations"]
            seconds = round(sum(run.stage_seconds().values()), 1)
            return {**_standard_summary(entry), "seconds": seconds}

        return stage(run, SUMMARY, measure)


def _standard_summary(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a table needs of an entry of metrics.json."""
    causes = entry.get("causes")
    return {
        "method": "standard",
        "eps": entry["eps"],
        "accuracy": entry["robust_accuracy"],
        "interval95": entry["robust_interval95"],
        "clean_accuracy": entry["clean_accuracy"],
        "n": entry["n"],
        "attacks": [
            {key: attack[key] for key in ("attack", "left", "seconds")}
            for attack in entry["attacks"]
        ],
        "verdict": entry["verdict"],
        "flags": [flag for flag in entry["diagnosis"]["flags"] if flag["raised"]],
        "causes": causes and {key: causes[key] for key in ("text", "rows")},
    }


def smallest(subject: TableRow) -> dict[str, Any]:
    """The three readings of the smallest perturbation, Linf (the paper's eq. 9 and 10)."""
    n = subject.protocol.rho_n
    with subject.open("rho", {"n": n}) as run:

        def measure() -> dict[str, Any]:
            with progress.told(f"{subject.row}: smallest perturbation") as report:
                found = minimum_perturbation(
                    subject.task(n),
                    progress=report,
                )
            return {**found.to_dict(), "curve": found.curve()}

        payload = stage(run, SUMMARY, measure)
        return {**payload, "seconds": run.stage_seconds()[SUMMARY]}


def along_one_gradient(model: Any, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """rho as the code computes it that the paper's figures most likely come from.

    The first of the lengths 0.05, 0.1 ... 1 along the sign of one gradient of the cross entropy at
    which the image is wrong, Linf in [0, 1] pixels. One that is wrong from the start counts 0.05,
    one that never is counts 1, the whole range of pixels.

    Args:
        model: images in [0, 1] to logits.
        images: float32 ``[N, H, W, C]``.
        labels: int ``[N]``.

    Returns:
        ``mean``, ``n``, ``clean_accuracy``, and of the images that are classified right the shares
        ``capped_share``, which never changed, and ``zero_gradient_share`` (None where none is).
    """
    task = EvaluationTask(model, images, labels, eot_samples=1)
    right = np.flatnonzero(task.correct)
    distances = np.full(task.n, _AUTHORS_GRID)
    shares: dict[str, float | None] = {"capped_share": None, "zero_gradient_share": None}
    if len(right):
        search = PerturbationSearch(task.take(right), limit=1.0)
        found = search.along_gradient(_AUTHORS_GRID).distance
        distances[right] = np.minimum(found, 1.0)
        shares = {
            "capped_share": float(np.isinf(found).mean()),
            "zero_gradient_share": float(search.zero_gradient.mean()),
        }
    return {
        "mean": float(distances.mean()),
        "n": task.n,
        "clean_accuracy": float(task.correct.mean()),
        **shares,
    }


def smallest_along_one_gradient(subject: TableRow) -> dict[str, Any]:
    """:func:`along_one_gradient` on training images, of which 0 are all."""
    n, train = subject.protocol.rho_n, subject.workspace.data.train
    with subject.open("rho-along-one-gradient", {"n": n}) as run:

        def measure() -> dict[str, Any]:
            part = train.take(n, seed=0) if n else train
            return along_one_gradient(subject.model, part.scaled(), part.labels)

        return stage(run, SUMMARY, measure)


def provenance(subject: TableRow) -> dict[str, Any]:
    """How and where a row was trained, from its run, and where it was measured."""
    run = RunDirectory.open(subject.file.parent)
    return {
        "training": {
            "settings": training_settings(subject.file),
            "seconds": round(sum(run.stage_seconds().values()), 1),
            "environment": run.env(),
        },
        "environments": subject.environments,
        "model_sha256": subject.digest,
    }


def training_settings(file: Path) -> dict[str, Any]:
    """What a classifier's file in its run was trained with, without what names the row."""
    config = RunDirectory.open(file.parent).config
    return {key: value for key, value in config.items() if key not in _SAID}


def stage(run: RunDirectory, name: str, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The payload of a finished stage; an unfinished one is measured now."""
    if not run.stage_done(name):
        run.finish_stage(name, measure())
    return run.stage_payload(name)
