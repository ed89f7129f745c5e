"""One classifier, its images and a threat model, checked and wrapped once for all measurements."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.answers import check_answers
from bcgan_tf.attacks.attack import Attack, PreparedAttack
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.bounded import BoundedAttack
from bcgan_tf.attacks.checks import LogitsFn
from bcgan_tf.attacks.expectation import SAMPLES, differing_answers, expectation
from bcgan_tf.attacks.in_box import InBox
from bcgan_tf.attacks.logits import median_gap
from bcgan_tf.attacks.preprocessing import (
    may_hide_gradients,
    monotone_preprocessing,
    through_preprocessing,
)
from bcgan_tf.attacks.result import AttackResult
from bcgan_tf.attacks.search_network import in_order, search_networks
from bcgan_tf.data.arrays import as_images, as_labels
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.gradient_health import guard_gradient
from bcgan_tf.lazy_images import rows_of
from bcgan_tf.settings.fields import checked, refuse
from bcgan_tf.settings.kinds import AttackEps, Batch, Norm, Precision, Repeats, Seed

# Images on which a model's outputs are looked at before any attack.
_PROBES = 64
# What is known of the model, whatever the images.
_OF_MODEL = (
    "calls",
    "attacked",
    "through_preprocessing",
    "predict",
    "_copies",
    "_searches",
    "_boxes",
    "_graphs",
)
# Fewer images take less time than it takes to make and to time a copy of their model.
_WORTH_A_COPY = 200


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationTask:
    """A classifier, ``N`` images and a threat model: what an evaluation, a diagnosis and a search
    for small perturbations are of.

    The model is tried and the images and labels are checked when the task is made. A model that
    draws random numbers is averaged, and a gradient that is missing, NaN or infinite is zero for
    the attacks, so that they run and find nothing by it.

    Args:
        model: a Keras model (called with ``training=False``) or a callable; float32 images in
            [0, 1] to logits ``[B, K]``. A callable may have an attribute ``backward``
            (:func:`bcgan_tf.attacks.bpda.bpda`).
        images: ``[N, ...]``, uint8 or floats in [0, 1]; kept as float32 in [0, 1]. Those of uint8
            are divided by 255 only when they are asked for
            (:class:`bcgan_tf.lazy_images.LazyImages`).
        labels: the true classes, ``[N]``, ``[N, 1]`` or one-hot ``[N, K]``; kept as int64 ``[N]``.
        eps: radius of the threat model, in [0, 1] pixel units; None: without a radius.
        norm: ``"linf"`` or ``"l2"``.
        seed: of all draws, from 0.
        batch_size: most images at once; it bounds memory and changes no result.
        eot_samples: calls of the model that are averaged (expectation over transformation); None:
            20 for a model that answers differently to the same images, else 1.
        precision: that the suites search in: ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16
            where it is faster here, for 200 images or more; None: ``"auto"``, for a shard
            ``"float32"``. The model itself, in its own precision, decides every success.

    Attributes:
        indices: int64 ``[N]``, positions of the images in the whole set; the attacks' draws follow
            from them.

    Raises:
        UserError: a setting is out of range, the images or labels are unfit, or the model cannot
            be attacked: its outputs are no logits, or its answers are not one function of each
            image (:func:`bcgan_tf.attacks.answers.check_answers`).

    Example:
        >>> task = EvaluationTask(classifier, x_test, y_test, eps=0.3)
        >>> minimum_perturbation(task).best.mean()
    """

    model: Any
    images: np.ndarray
    labels: np.ndarray
    eps: float | None = dataclasses.field(default=None, kw_only=True)
    norm: str = dataclasses.field(default="linf", kw_only=True)
    seed: int = dataclasses.field(default=0, kw_only=True)
    batch_size: int = dataclasses.field(default=250, kw_only=True)
    eot_samples: int | None = dataclasses.field(default=None, kw_only=True)
    precision: str | None = dataclasses.field(default=None, kw_only=True)
    indices: np.ndarray = dataclasses.field(init=False, repr=False)

    num_classes: int = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        faults: list[str] = []
        images: Any = None
        labels: Any = None
        try:
            _check_settings(
                self.eps, self.norm, self.seed, self.batch_size, self.eot_samples, self.precision
            )
        except UserError as error:
            faults.append(str(error))
        try:
            images = as_images(self.images, lazy=True)
            labels = as_labels(self.labels, len(images))
        except UserError as error:
            faults.append(str(error))
        refuse(faults)
        eps = None if self.eps is None else float(self.eps)
        vars(self).update(images=images, labels=labels, eps=eps, indices=np.arange(len(images)))
        checks.check_model_input(self.model, images)
        predict = Batched(checks.as_logits_fn(self.model), _PROBES)
        check_answers(self.model, images, predict)
        logits = predict(images[:_PROBES])
        checks.check_logits(logits, labels[:_PROBES])
        if labels.max() >= logits.shape[1]:
            checks.check_logits(logits, np.full(len(logits), labels.max()))
        vars(self).update(num_classes=logits.shape[1])

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.labels)

    @functools.cached_property
    def calls(self) -> int:
        """Calls of the model that one answer takes: above 1 for a model that is averaged."""
        if self.eot_samples is not None:
            return self.eot_samples
        return SAMPLES if differing_answers(self.model, self.images[:_PROBES]) > 0 else 1

    @functools.cached_property
    def attacked(self) -> LogitsFn:
        """The model as attacks take it: averaged, and with a finite gradient everywhere."""
        return self._wrapped(self.model)

    @functools.cached_property
    def through_preprocessing(self) -> LogitsFn | None:
        """Likewise through the model's preprocessing (:mod:`bcgan_tf.attacks.preprocessing`).

        None where the model has no preprocessing that may hide its gradient.
        """
        if not may_hide_gradients(self.model):
            return None
        return self._wrapped(through_preprocessing(self.model))

    @functools.cached_property
    def predict(self) -> Batched:
        """Images to the logits of :attr:`attacked`."""
        return Batched(self.attacked, self.batch_size)

    @property
    def searched_in(self) -> str:
        """The precision that the suites search in: ``"float32"`` or ``"bfloat16"``."""
        return "bfloat16" if "bfloat16" in self._copies else "float32"

    @functools.cached_property
    def _copies(self) -> dict[str, Any]:
        """Copies of the model that attacks search with in its place, by precision."""
        few = self.precision == "auto" and self.n < _WORTH_A_COPY
        if self.calls > 1 or few:
            return {}
        return search_networks(self.model, self.images, self.precision or "float32")

    @functools.cached_property
    def _searches(self) -> dict[str, LogitsFn]:
        """The copies as attacks take them."""
        return {dtype: self._wrapped(copy) for dtype, copy in self._copies.items()}

    @functools.cached_property
    def _boxes(self) -> dict[str | None, tuple[Callable[[tf.Tensor], Any], LogitsFn]]:
        """The model, by None, and its copies in two: monotone preprocessing, and what is behind."""
        if self.norm != "linf" or self.calls > 1:
            return {}
        found = {}
        for precision, network in {None: self.model, **self._copies}.items():
            parts = monotone_preprocessing(network)
            if parts is not None:
                before = functools.partial(parts[0], training=False)
                inside = np.asarray(before(tf.constant(self.images[:1])))
                found[precision] = before, guard_gradient(parts[1], inside, self.labels[:1])
        return found

    @functools.cached_property
    def _graphs(self) -> dict[Hashable, PreparedAttack]:
        """By :meth:`bcgan_tf.attacks.attack.Attack.family`."""
        return {}

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """float32 ``[N, K]``, of the clean images."""
        logits = self.predict(self.images)
        checks.check_logits(logits, self.labels)
        return logits

    @property
    def correct(self) -> np.ndarray:
        """bool ``[N]``: the clean image is classified right."""
        return self.logits.argmax(-1) == self.labels

    @property
    def gap(self) -> float:
        """Median of the largest minus the second-largest logit."""
        return median_gap(self.logits)

    @functools.cached_property
    def differing(self) -> float:
        """Share of the images whose logits differ between calls of the model, beyond rounding."""
        return differing_answers(self.model, self.images, self.batch_size)

    @property
    def whole(self) -> float:
        """The radius that reaches every image in [0, 1]."""
        return 1.0 if self.norm == "linf" else math.sqrt(math.prod(self.images.shape[1:]))

    @property
    def half(self) -> float:
        """The radius that reaches the gray image, and so one and the same point, from anywhere."""
        return self.whole / 2

    @property
    def radius(self) -> float:
        """``eps``, where a measurement needs one.

        Raises:
            UserError: it is None or 0.
        """
        checks.check_number("eps", self.eps, above=0)
        assert self.eps is not None
        return self.eps

    def prepared(self, attack: Attack, searched_in: str | None = None) -> PreparedAttack:
        """The attack on the model; attacks that differ in their radius alone share one graph.

        Args:
            attack: of any kind.
            searched_in: ``"float32"`` or ``"bfloat16"``, on a copy of the model where it has one;
                in bfloat16 what comes near (:attr:`bcgan_tf.attacks.attack.Attack.again`) is
                searched again in float32. None: on the model itself.
        """
        searches = self.searches(searched_in)
        family = attack.family()
        if family is None:
            return attack.prepare(self.attacked, searches=searches)
        shared = family, searched_in if searches else None
        if shared not in self._graphs:
            self._graphs[shared] = attack.prepare(self.attacked, searches=searches)
        return self._graphs[shared].of(attack)

    def searches(self, searched_in: str | None) -> list[LogitsFn]:
        """Copies of the model to search with, the cheaper first; none: with the model itself."""
        return in_order({None: self.attacked, **self._searches}, searched_in)

    @property
    def has_box(self) -> bool:
        """Whether the Linf ball becomes a box behind the model's preprocessing."""
        return None in self._boxes

    def prepared_in_box(
        self, attack: BoundedAttack, searched_in: str | None = None
    ) -> PreparedAttack:
        """As :meth:`prepared`, in the box (:class:`bcgan_tf.attacks.in_box.InBox`).

        Only where the task :attr:`has_box`.
        """
        boxes = self._boxes
        behind = {precision: after for precision, (_, after) in boxes.items()}
        searches = in_order(behind, searched_in) or [behind[None]]
        return InBox.of(attack, boxes[None][0]).prepare(self.attacked, searches=searches)

    def attack(self, attack: Attack, mask: np.ndarray | None = None) -> AttackResult:
        """Attacks the images, or only those of ``mask``, bool ``[N]``."""
        images = np.asarray(self.images)
        return self.prepared(attack)(images, self.labels, mask=mask, indices=self.indices)

    def draw(self, count: int) -> np.ndarray:
        """Positions of ``count`` images, drawn with the seed and in their order; at most all."""
        if count >= self.n:
            return np.arange(self.n)
        return np.sort(np.random.default_rng(self.seed).choice(self.n, count, replace=False))

    def take(self, rows: np.ndarray | slice) -> EvaluationTask:
        """The task of some of the images, at these positions, in memory."""
        taken = self.view(rows)
        return taken._with(**self._of_model(), images=np.asarray(taken.images))

    def view(self, rows: np.ndarray | slice) -> EvaluationTask:
        """The task of some of the images, at these positions, which reads none."""
        parts = {
            name: rows_of(getattr(self, name), rows) for name in ("images", "labels", "indices")
        }
        return self._with(**self._of_model(), **parts)

    def part_of(self, indices: np.ndarray) -> EvaluationTask:
        """The task of images that are those at other positions, int64 ``[N]``, of a whole set."""
        return self._with(**self._of_model(), indices=indices)

    def averaged(self, eot_samples: int) -> EvaluationTask:
        """The task with so many calls of the model for one answer."""
        return self if eot_samples == self.calls else self._with(eot_samples=eot_samples)

    def in_precision(self, precision: str) -> EvaluationTask:
        """The task whose suites search in that precision."""
        if precision == self.precision:
            return self
        known = self._of_model()
        for name in ("_copies", "_searches", "_boxes"):
            known.pop(name, None)
        return self._with(**known, precision=precision)

    def with_model(self, model: Any) -> EvaluationTask:
        """The same images for another model, which is called once for an answer.

        Raises:
            UserError: the model cannot be attacked, or takes other images.
        """
        checks.check_model_input(model, self.images)
        check_answers(model, self.images)
        return self._with(model=model, eot_samples=1)

    def with_logits(self, attacked: LogitsFn) -> EvaluationTask:
        """The task with another function in place of :attr:`attacked`, such as the scaled logits.

        Its gradient must be finite, as it is of a function made of :attr:`attacked`.
        """
        return self._with(attacked=attacked, calls=self.calls, precision="float32")

    def _wrapped(self, model: Any) -> LogitsFn:
        # What is measured here is a number: ask for the function before a graph is traced.
        assert tf.executing_eagerly()
        averaged = model if self.calls == 1 else expectation(model, self.calls)
        return guard_gradient(averaged, self.images[:1], self.labels[:1])

    def _of_model(self) -> dict[str, Any]:
        """What is known of the model, and may be carried on to another task of it."""
        return {name: value for name, value in vars(self).items() if name in _OF_MODEL}

    def _with(self, **changes: Any) -> EvaluationTask:
        """A copy that is not checked again."""
        other = object.__new__(type(self))
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        vars(other).update(fields | changes)
        return other


@checked
def _check_settings(
    eps: AttackEps | None,
    norm: Norm,
    seed: Seed,
    batch_size: Batch,
    eot_samples: Repeats | None,
    precision: Precision | None,
) -> None:
    del seed, batch_size, eot_samples, precision
    if norm == "linf" and eps is not None and eps > 1:
        raise UserError(f"eps is {eps:g}, but pixels lie in [0, 1]; for 0 ... 255 write eps / 255")
