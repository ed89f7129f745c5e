"""Which way of attacking badly reproduces an inflated accuracy: each cause switched on and off."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.answers import derived
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.carlini_wagner import CarliniWagnerL2
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.primitives import margins, not_inlined, per_example, require_gradient
from bcgan_tf.diagnosis.attack_checks import scaled, temperature
from bcgan_tf.diagnosis.flags import DECISIVE, percent
from bcgan_tf.diagnosis.shared_attacks import SharedAttacks
from bcgan_tf.diagnosis.transfer import transferred
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.progress import Progress

# What Keras' losses on probabilities clip at (keras.config.epsilon()).
_CLIP = 1e-7
_TANH_SHRINK = 0.999999
_CW: dict[str, Any] = {"steps": 200, "learning_rate": 0.05}


@dataclasses.dataclass(frozen=True)
class Causes:
    """Accuracies with each candidate cause switched on and off.

    Attributes:
        rows: per cause ``cause``, ``on`` and ``off`` (what the two switches mean),
            ``accuracy_on``, ``accuracy_off``, ``inflation`` (their difference), ``reproduces``
            (more than 5 points), and ``n``; accuracies are None where the cause was not run.
        clean_accuracy: of all images.
        text: one sentence that names the causes at work.
    """

    rows: tuple[dict[str, Any], ...]
    clean_accuracy: float
    text: str

    @property
    def found(self) -> tuple[str, ...]:
        """The causes that reproduce an inflated accuracy."""
        return tuple(row["cause"] for row in self.rows if row["reproduces"])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "clean_accuracy": self.clean_accuracy,
            "rows": [dict(row) for row in self.rows],
            "found": list(self.found),
            "text": self.text,
        }


def measure_causes(
    task: EvaluationTask,
    surrogate: Any = None,
    *,
    cw_n: int = 24,
    fixed_const: float = 1e-3,
    progress: Progress | None = None,
) -> Causes:
    """Switches each candidate cause of an inflated accuracy on and off.

    - ``logit scale``: PGD on the logits, against PGD on the logits divided by a number that
      brings their median gap to 10.
    - ``loss on probabilities``: PGD on the cross entropy of softmax probabilities clipped at 1e-7,
      which is what Keras' losses do, against the cross entropy of the logits.
    - ``fixed-c CW``: Carlini-Wagner with one constant ``c``, against its binary search.
    - ``label trap``: Carlini-Wagner *towards* the true label, which corrects mistakes instead of
      causing them, against away from it. The accuracy may exceed the clean one.
    - ``transfer``: examples made on the surrogate, against white-box PGD.

    Args:
        task: the model, the images and PGD's radius, which is above 0.
        surrogate: the original, undefended model; without it ``transfer`` is not run.
        cw_n: images, the first of the task, for Carlini-Wagner.
        fixed_const: the one constant; 1e-3 is the first that the reference tries.
        progress: called with (causes done, causes to do, the next cause).

    Raises:
        UserError: ``eps`` is 0 or None, ``cw_n`` is below 1, or the surrogate cannot be attacked.
    """
    checks.check_number("eps", task.eps, above=0)
    checks.check_positive_int("cw_n", cw_n)
    shared = SharedAttacks(task)
    cw = _CarliniWagner(task.take(np.arange(min(cw_n, task.n))), fixed_const)
    table: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("logit scale", lambda: _logit_scale(shared)),
        ("loss on probabilities", lambda: _probabilities(shared)),
        ("fixed-c CW", cw.fixed_constant),
        ("label trap", cw.label_trap),
        ("transfer", lambda: _transfer(shared, surrogate)),
    ]
    rows = []
    for done, (cause, measure) in enumerate(table):
        if progress is not None:
            progress(done, len(table), cause)
        rows.append({"cause": cause} | measure())
    if progress is not None:
        progress(len(table), len(table), "")
    return Causes(tuple(rows), float(task.correct.mean()), _sentence(rows))


def _row(
    on: str, off: str, with_on: float | None, with_off: float | None, n: int
) -> dict[str, Any]:
    inflation = None if with_on is None or with_off is None else with_on - with_off
    return {
        "on": on,
        "off": off,
        "accuracy_on": with_on,
        "accuracy_off": with_off,
        "inflation": inflation,
        "reproduces": inflation is not None and inflation > DECISIVE,
        "n": n,
    }


def _sentence(rows: list[dict[str, Any]]) -> str:
    found = [
        f"{row['cause']} ({percent(row['accuracy_on'])} instead of {percent(row['accuracy_off'])})"
        for row in rows
        if row["reproduces"]
    ]
    skipped = [row["cause"] for row in rows if row["inflation"] is None]
    text = (
        f"these switches reproduce an inflated accuracy: {', '.join(found)}"
        if found
        else "none of the candidate causes inflates the accuracy"
    )
    return text + (f"; not run: {', '.join(skipped)}" if skipped else "")


def _logit_scale(shared: SharedAttacks) -> dict[str, Any]:
    scale = temperature(shared.task)
    on = off = float(shared.survivors(shared.pgd()).mean())
    if scale != 1:
        divided = shared.task.with_logits(scaled(shared.task.attacked, scale))
        off = divided.attack(shared.pgd()).robust_accuracy
    return _row("PGD on the logits", f"PGD on logits / {scale:.3g}", on, off, shared.task.n)


def _probabilities(shared: SharedAttacks) -> dict[str, Any]:
    off = float(shared.survivors(shared.pgd()).mean())
    clipped = shared.task.with_logits(clipped_log_probabilities(shared.task.attacked))
    on = clipped.attack(shared.pgd()).robust_accuracy
    what = f"PGD on probabilities clipped at {_CLIP:g}"
    return _row(what, "PGD on the logits", on, off, shared.task.n)


def clipped_log_probabilities(model: Any) -> LogitsFn:
    """What keras.losses makes of probabilities before it takes the softmax cross entropy."""
    forward = checks.as_logits_fn(model)

    def call(images: tf.Tensor) -> tf.Tensor:
        return tf.math.log(tf.clip_by_value(tf.nn.softmax(forward(images)), _CLIP, 1.0 - _CLIP))

    return derived(call, model)


def _transfer(shared: SharedAttacks, surrogate: Any) -> dict[str, Any]:
    task = shared.task
    on, off = "examples made on the surrogate", "white-box PGD"
    if surrogate is None:
        return _row(on, off, None, None, task.n)
    broken = transferred(task, task.with_model(surrogate))
    white_box = float(shared.survivors(shared.pgd()).mean())
    return _row(on, off, float((task.correct & ~broken).mean()), white_box, task.n)


class _CarliniWagner:
    """The two causes that concern CW; the honest attack is run once for both."""

    def __init__(self, task: EvaluationTask, const: float) -> None:
        self._task, self._const = task, const

    def _accuracy(self, **settings: Any) -> float:
        attack = CarliniWagnerL2(batch_size=self._task.batch_size, **(_CW | settings))
        return self._task.attack(attack).robust_accuracy

    @functools.cached_property
    def honest(self) -> float:
        """Accuracy under CW with its binary search, away from the true label."""
        return self._accuracy()

    def fixed_constant(self) -> dict[str, Any]:
        on = self._accuracy(binary_search_steps=1, initial_const=self._const)
        what = f"CW with c = {self._const:g} only"
        return _row(what, "CW with binary search", on, self.honest, self._task.n)

    def label_trap(self) -> dict[str, Any]:
        task, logits_fn = self._task, self._task.attacked
        moved = Batched(
            lambda images, labels: towards_true_label(logits_fn, images, labels),
            task.batch_size,
        )(task.images, task.labels)
        on = float((task.predict(moved).argmax(-1) == task.labels).mean())
        what = "CW towards the true label, misclassified images included"
        return _row(what, "CW away from it", on, self.honest, task.n)


def towards_true_label(logits_fn: LogitsFn, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """CW with the true label as its *target*, on all images, misclassified ones included.

    Minimises ``||x' - x||^2 + c * max(max_{i != y} z_i - z_y, 0)`` by gradient steps on tanh
    space as Carlini and Wagner do, at the one constant ``c = 1``: where the image is classified
    right, the loss is zero from the start.
    """
    origin = tf.atanh((2.0 * images - 1.0) * _TANH_SHRINK)

    @not_inlined
    def differentiate(candidates: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(candidates)
            loss = tf.nn.relu(margins(logits_fn(candidates), labels))
        return require_gradient(tape.gradient(loss, candidates))

    def place(shift: tf.Tensor) -> tf.Tensor:
        return (tf.tanh(origin + shift) + 1.0) / 2.0

    def advance(step: tf.Tensor, shift: tf.Tensor, best: tf.Tensor) -> tuple[tf.Tensor, ...]:
        candidates = place(shift)
        gradient = differentiate(candidates) + 2.0 * (candidates - images)
        gradient *= 2.0 * candidates * (1.0 - candidates)
        shift -= _CW["learning_rate"] * tf.sign(gradient)  # what Adam's first steps are
        moved = place(shift)
        hit = margins(logits_fn(moved), labels) < 0
        unsolved = margins(logits_fn(best), labels) >= 0
        return step + 1, shift, tf.where(per_example(hit & unsolved, images), moved, best)

    start = (tf.constant(0), tf.zeros_like(images), images)
    final: Any = tf.while_loop(lambda step, *_: step < _CW["steps"], advance, start)
    return final[2]
