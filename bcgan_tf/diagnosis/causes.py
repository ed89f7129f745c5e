"""Which way of attacking badly reproduces an inflated accuracy: each cause switched on and off."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.answers import check_answers, derived
from bcgan_tf.attacks.attack import Attack
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.carlini_wagner import CarliniWagnerL2
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.primitives import margins, not_inlined, per_example, require_gradient
from bcgan_tf.data.arrays import as_images, as_labels
from bcgan_tf.diagnosis.attack_checks import scaled, temperature
from bcgan_tf.diagnosis.flags import DECISIVE, percent
from bcgan_tf.diagnosis.subject import Subject
from bcgan_tf.diagnosis.transfer import transferred
from bcgan_tf.evaluation.gradient_health import guard_gradient

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
    model: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    eps: float,
    norm: str = "linf",
    surrogate: Any = None,
    samples: int = 100,
    cw_samples: int = 24,
    fixed_const: float = 1e-3,
    seed: int = 0,
    batch_size: int = 250,
    progress: Callable[[int, int, str], None] | None = None,
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
        model: a Keras model or a callable, float32 images in [0, 1] to logits ``[B, K]``.
        images: float32 ``[N, ...]`` in [0, 1].
        labels: int ``[N]``, the true classes.
        eps: radius of PGD, in [0, 1] pixel units, above 0.
        norm: ``"linf"`` or ``"l2"``.
        surrogate: the original, undefended model; without it ``transfer`` is not run.
        samples: the first ``samples`` images are used.
        cw_samples: of these, for Carlini-Wagner.
        fixed_const: the one constant; 1e-3 is the first that the reference tries.
        seed: of the random starts.
        batch_size: most images at once.
        progress: called with (causes done, causes to do, the next cause).

    Raises:
        UserError: if the model's output, the images, labels or eps are unfit.
    """
    images = as_images(images)
    labels = as_labels(labels, len(images))
    checks.check_model_input(model, images)
    checks.check_number("eps", eps, above=0)
    checks.check_positive_int("samples", samples)
    checks.check_positive_int("cw_samples", cw_samples)
    check_answers(model, images)
    images, labels = images[:samples], labels[:samples]
    attackable, _ = guard_gradient(model, images, labels, batch_size=batch_size)
    subject = Subject(attackable, images, labels, float(eps), norm, seed, batch_size)
    cw = _CarliniWagner(subject, cw_samples, fixed_const)
    table: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("logit scale", lambda: _logit_scale(subject)),
        ("loss on probabilities", lambda: _probabilities(subject)),
        ("fixed-c CW", cw.fixed_constant),
        ("label trap", cw.label_trap),
        ("transfer", lambda: _transfer(subject, surrogate)),
    ]
    rows = []
    for done, (cause, measure) in enumerate(table):
        if progress is not None:
            progress(done, len(table), cause)
        rows.append({"cause": cause} | measure())
    if progress is not None:
        progress(len(table), len(table), "")
    return Causes(tuple(rows), float(subject.right.mean()), _sentence(rows))


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


def _accuracy(attack: Attack, model: Any, subject: Subject) -> float:
    return attack(model, subject.images, subject.labels).robust_accuracy


def _logit_scale(subject: Subject) -> dict[str, Any]:
    scale = temperature(subject)
    on = float(subject.survivors(subject.pgd()).mean())
    off = on if scale == 1 else _accuracy(subject.pgd(), scaled(subject.model, scale), subject)
    return _row("PGD on the logits", f"PGD on logits / {scale:.3g}", on, off, subject.n)


def _probabilities(subject: Subject) -> dict[str, Any]:
    off = float(subject.survivors(subject.pgd()).mean())
    on = _accuracy(subject.pgd(), clipped_log_probabilities(subject.model), subject)
    what = f"PGD on probabilities clipped at {_CLIP:g}"
    return _row(what, "PGD on the logits", on, off, subject.n)


def clipped_log_probabilities(model: Any) -> LogitsFn:
    """What keras.losses makes of probabilities before it takes the softmax cross entropy."""
    forward = checks.as_logits_fn(model)

    def call(images: tf.Tensor) -> tf.Tensor:
        return tf.math.log(tf.clip_by_value(tf.nn.softmax(forward(images)), _CLIP, 1.0 - _CLIP))

    return derived(call, model)


def _transfer(subject: Subject, surrogate: Any) -> dict[str, Any]:
    on, off = "examples made on the surrogate", "white-box PGD"
    if surrogate is None:
        return _row(on, off, None, None, subject.n)
    broken = transferred(
        guard_gradient(surrogate, subject.images, subject.labels)[0],
        subject.model,
        subject.images,
        subject.labels,
        eps=subject.eps,
        norm=subject.norm,
        batch_size=subject.batch_size,
    )
    white_box = float(subject.survivors(subject.pgd()).mean())
    return _row(on, off, float((subject.right & ~broken).mean()), white_box, subject.n)


class _CarliniWagner:
    """The two causes that concern CW; the honest attack is run once for both."""

    def __init__(self, subject: Subject, count: int, const: float) -> None:
        self._subject, self._const = subject, const
        self._images, self._labels = subject.images[:count], subject.labels[:count]
        self._honest: float | None = None

    def _accuracy(self, **settings: Any) -> float:
        batch_size = self._subject.batch_size
        attack = CarliniWagnerL2(batch_size=batch_size, **(_CW | settings))
        return attack(self._subject.model, self._images, self._labels).robust_accuracy

    def honest(self) -> float:
        """Accuracy under CW with its binary search, away from the true label."""
        if self._honest is None:
            self._honest = self._accuracy()
        return self._honest

    def fixed_constant(self) -> dict[str, Any]:
        on = self._accuracy(binary_search_steps=1, initial_const=self._const)
        what = f"CW with c = {self._const:g} only"
        return _row(what, "CW with binary search", on, self.honest(), len(self._labels))

    def label_trap(self) -> dict[str, Any]:
        towards = Batched(
            lambda images, labels: towards_true_label(
                checks.as_logits_fn(self._subject.model), images, labels
            ),
            self._subject.batch_size,
        )(self._images, self._labels)
        on = float((self._subject.predict(towards).argmax(-1) == self._labels).mean())
        what = "CW towards the true label, misclassified images included"
        return _row(what, "CW away from it", on, self.honest(), len(self._labels))


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
