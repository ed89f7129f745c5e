"""Curves of models whose ascent is known in closed form."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.diagnosis.loss_curves import loss_curves
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.task import EvaluationTask
from helpers.linear_task import Linear

PIXELS, COUNT, EPS = 16, 12, 0.1
_RNG = np.random.default_rng(3)
WEIGHTS = _RNG.normal(size=(PIXELS, 2)).astype(np.float32)
# Far enough from 0 and 1 that no step is clipped.
IMAGES = _RNG.uniform(0.3, 0.7, (COUNT, PIXELS)).astype(np.float32)
LABELS = ((IMAGES - 0.5) @ WEIGHTS).argmax(-1)
linear = Linear(WEIGHTS, -0.5 * WEIGHTS.sum(0))


def curves(model=linear, labels=LABELS, **options):
    steps = {name: options.pop(name, count) for name, count in (("steps", 10), ("long_steps", 25))}
    task = EvaluationTask(model, IMAGES, labels, **({"eps": EPS} | options))
    return loss_curves(task, **steps)


def end_of_linear(eps: float, norm: str) -> float:
    """The mean margin that is reached: the clean one plus eps times the dual norm."""
    logits = (IMAGES.astype(np.float64) - 0.5) @ WEIGHTS
    clean = -np.abs(logits[:, 0] - logits[:, 1]).mean()
    difference = WEIGHTS[:, 0].astype(np.float64) - WEIGHTS[:, 1]
    return clean + eps * (
        np.abs(difference).sum() if norm == "linf" else np.linalg.norm(difference)
    )


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.3)])
def test_on_a_linear_model_every_run_ends_at_the_optimum(norm: str, eps: float) -> None:
    found = curves(norm=norm, eps=eps)
    expected = end_of_linear(eps, norm)
    for name in ("PGD-10", "PGD-25", "PGD-10 (margin loss)"):
        steps = 25 if "25" in name else 10
        margin, entropy = found[f"{name} margin"], found[name]
        assert len(margin) == len(entropy) == steps + 1
        assert margin[-1] == pytest.approx(expected, abs=0.02 if norm == "l2" else 1e-4)
        assert np.all(np.diff(margin) > -1e-5) and np.all(np.diff(entropy) > -1e-5)
        assert margin[0] < margin[-1]
    assert found["iterations"] == list(range(26))
    assert (found["n"], found["eps"], found["norm"]) == (COUNT, eps, norm)
    json.dumps(found, allow_nan=False)


def test_two_classes_tie_margin_and_cross_entropy() -> None:
    """With one image cross entropy is log(1 + exp(margin)), at every iteration."""
    found = loss_curves(
        EvaluationTask(linear, IMAGES[:1], LABELS[:1], eps=EPS), steps=5, long_steps=5
    )
    assert list(found)[4:] == [
        "PGD-5", "PGD-5 margin", "PGD-5 (margin loss)", "PGD-5 (margin loss) margin",
    ]  # fmt: skip
    np.testing.assert_allclose(
        found["PGD-5"], np.log1p(np.exp(found["PGD-5 margin"])), rtol=1e-4, atol=1e-6
    )


def test_masked_cross_entropy_is_flat_where_the_margin_climbs() -> None:
    """Logits times 10,000: float32's softmax is 1 exactly, its gradient zero."""
    found = curves(lambda images: 1e4 * linear(images), eps=0.02)
    assert found["PGD-10"] == [0.0] * 11
    margin = found["PGD-10 margin"]
    assert margin[-1] == margin[0]
    climbed = found["PGD-10 (margin loss) margin"]
    assert climbed[0] == margin[0]
    assert climbed[-1] == pytest.approx(1e4 * end_of_linear(0.02, "linf"), rel=1e-3)


def test_a_model_without_gradient_is_a_flat_line() -> None:
    found = curves(lambda images: linear(tf.round(images * 4) / 4))
    for name in ("PGD-10", "PGD-25", "PGD-10 (margin loss)"):
        assert len(set(found[f"{name} margin"])) == 1


def test_only_correctly_classified_images_count() -> None:
    wrong = LABELS.copy()
    wrong[:4] = 1 - wrong[:4]
    assert curves(labels=wrong)["n"] == COUNT - 4
    assert curves(labels=1 - LABELS)["n"] == COUNT


def test_batches_change_nothing() -> None:
    one, many = curves(batch_size=5), curves()
    for name in ("PGD-10", "PGD-25 margin"):
        np.testing.assert_allclose(one[name], many[name], rtol=1e-5)


def test_a_class_masked_out_with_minus_infinity_is_no_rival() -> None:
    found = curves(
        lambda images: tf.concat([linear(images), tf.fill([tf.shape(images)[0], 1], -np.inf)], 1)
    )
    assert found["PGD-10 margin"][-1] == pytest.approx(end_of_linear(EPS, "linf"), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps": 0.0}, "eps is 0"),
        ({"norm": "l1"}, "norm is 'l1'"),
        ({"steps": 0}, "steps is 0"),
        ({"long_steps": 9}, "long_steps"),
    ],
)
def test_unfit_settings_are_refused(options, words) -> None:
    with pytest.raises(UserError, match=words):
        curves(**options)
