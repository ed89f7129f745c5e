"""Attacks of one task that differ in a length alone share a graph, and find what they do alone."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import APGD, FGSM, PGD, Square
from bcgan_tf.attacks.preprocessing import AdaptiveAPGD
from bcgan_tf.evaluation.task import EvaluationTask

IMAGES = np.random.default_rng(0).random((12, 3, 3, 1), np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
LABELS = (IMAGES.reshape(12, 9) @ WEIGHTS).argmax(1)


class _Model:
    """Counts how often it is traced."""

    traced = 0

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        self.traced += 1
        return tf.reshape(images, [-1, 9]) @ WEIGHTS


KINDS = {
    "pgd": lambda eps: PGD(eps, steps=3, restarts=2),
    "pgd of a given step": lambda eps: PGD(eps, steps=3, step_size=(eps or 1) / 2),
    "pgd l2": lambda eps: PGD(eps, steps=3, norm="l2"),
    "apgd": lambda eps: APGD(eps, steps=5),
    "apgd l2": lambda eps: APGD(eps, steps=5, norm="l2"),
    "apgd-t": lambda eps: APGD(eps, loss="dlr", targeted=True, steps=5, target_classes=2),
    "adaptive": lambda eps: AdaptiveAPGD(eps, steps=5),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_shared_graph_finds_what_each_attack_finds_alone(name) -> None:
    model = _Model()
    task = EvaluationTask(model, IMAGES, LABELS, eps=0.1)
    task.attack(KINDS[name](0.15))
    before = model.traced
    singly = {eps: KINDS[name](eps).prepare(_Model())(IMAGES, LABELS) for eps in (0.02, 1 / 3, 0)}
    for eps in (0.02, 1 / 3, 0, 0.02):
        found, alone = task.attack(KINDS[name](eps)), singly[eps]
        np.testing.assert_array_equal(found.adversarials, alone.adversarials)
        np.testing.assert_array_equal(found.success, alone.success)
        assert found.config == alone.config and found.config["eps"] == eps
    assert model.traced == before


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Towards(PGD):
    """One step towards a gray, whatever the gradient: a setting that does not compare."""

    gray: float = dataclasses.field(default=0.0, compare=False)
    unused: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))

    def run(self, logits_fn, images, labels, indices, round_index):
        step = self.eps if self.eps < 0.5 else 0.5  # a Python number
        return images + step * tf.sign(self.gray - images)


class _Own(PGD):
    def __init__(self, size: float) -> None:
        super().__init__(size, steps=2)


def test_an_attack_of_a_user_shares_nothing_unless_it_says_so() -> None:
    task = EvaluationTask(_Model(), IMAGES, LABELS, eps=0.1)
    down, up = (task.attack(_Towards(0.1, gray=gray)).adversarials.mean() for gray in (0.0, 1.0))
    assert down < IMAGES.mean() < up
    assert task.attack(_Own(0.2)).config["eps"] == 0.2


@pytest.mark.parametrize("kind", [FGSM, PGD, APGD, Square])
def test_a_radius_may_be_any_number(kind) -> None:
    options = {"queries": 3} if kind is Square else {}
    for eps in (np.float64(0.25), 1, np.int64(1), np.float32(0.25)):
        attack = kind(eps, **options)
        assert type(attack.eps) is float and attack == kind(float(eps), **options)
    found = attack.prepare(_Model())(IMAGES, LABELS).to_dict()
    assert json.loads(json.dumps(found))["config"]["eps"] == 0.25
