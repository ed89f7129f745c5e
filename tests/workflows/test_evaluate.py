"""``evaluate`` takes what Keras users have, and its result says the verdict and why."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

import bcgan_tf
from bcgan_tf.attacks import FGSM, PGD
from bcgan_tf.data.dataset import Dataset, Split
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation import suite_run
from bcgan_tf.workflows import evaluate as module
from helpers.linear_task import EPS, IMAGES, LABELS, linear

PIXELS = np.round(255 * IMAGES).astype(np.uint8)
FORMS = {
    "uint8": (PIXELS, LABELS),
    "floats": (PIXELS / 255, LABELS.astype(np.uint8)),
    "one column": (PIXELS, LABELS[:, None]),
    "one-hot": (PIXELS, np.eye(4)[LABELS]),
    "a pair": ((PIXELS, LABELS),),
    "tf.data in batches": (tf.data.Dataset.from_tensor_slices((PIXELS, LABELS[:, None])).batch(7),),
    "a split": (Split(PIXELS, LABELS),),
    "a data set": (
        Dataset("toy", *[Split(PIXELS[:9], LABELS[:9])] * 2, Split(PIXELS, LABELS), tuple("abcd")),
    ),
}


@pytest.fixture
def short(monkeypatch):
    """Two short attacks in place of every suite."""

    def suite(name, eps, *, norm, num_classes, precision, **shared):
        return FGSM(eps, norm=norm, **shared), PGD(eps, norm=norm, steps=4, **shared)

    monkeypatch.setattr(suite_run, "suite", suite)


@pytest.mark.parametrize("form", FORMS)
def test_images_and_labels_come_in_many_forms(short, form):
    found = bcgan_tf.evaluate(linear, *FORMS[form], eps=EPS, diagnose=False)
    assert found.n == 60 and found.verdict is None and found.diagnosis is None
    expected = linear(tf.constant(PIXELS / np.float32(255))).numpy().argmax(1) == LABELS
    np.testing.assert_array_equal(found.clean_correct, expected)
    np.testing.assert_array_equal(found.labels, LABELS)
    # Nearly all images are of one class.
    assert str(found).startswith("Suspicious clean accuracy: 91.7 % (81.9 to 96.4) of 60 test ")
    assert "\nNo verdict: not diagnosed.\n" in str(found)


def test_the_result_says_the_verdict_and_why(short, tmp_path):
    result = bcgan_tf.evaluate(linear, IMAGES, LABELS, eps=EPS, n=40, control=linear)
    assert result.verdict is not None and result.diagnosis is not None
    assert result.n == result.diagnosis.n == 40
    told = str(result)
    assert told.startswith(f"Verdict: {result.verdict.text}\n")
    for flag in result.verdict.flags:
        assert flag.text in told
    low, high = result.interval95()
    assert f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %)" in told
    assert "suite standard, Linf eps" in told and "n = 40" in told
    metrics = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert metrics["verdict"]["text"] == result.verdict.text
    assert metrics["diagnosis"]["n"] == 40
    page = result.report(tmp_path / "report.html", name="mine").read_text()
    assert "mine" in page and "<img" not in page.replace('<img src="data:', "")


def test_of_more_images_a_random_choice_is_diagnosed(short, monkeypatch):
    """Of a set sorted by class the first ones would be of one class."""
    seen = []

    def diagnose(task, evaluation, *, rows=None, **_):
        seen.append(task.draw(20))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "diagnose", diagnose)
    order = np.argsort(LABELS, kind="stable")
    with pytest.raises(KeyboardInterrupt):
        bcgan_tf.evaluate(linear, IMAGES[order], LABELS[order], eps=EPS)
    (rows,) = seen
    assert len(set(rows)) == 20 and (np.diff(rows) > 0).all()
    assert rows.max() >= 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "eps is missing"),
        ({"eps": -1}, "eps is -1"),
        ({"eps": 8}, "eps is 8, more than the whole range"),
        ({"eps": 0.0}, "nothing to diagnose"),
        ({"eps": 0.1, "suit": "plus"}, "has no setting 'suit'"),
        ({"eps": 0.1, "suite": "best", "norm": "l1"}, "(?s)suite is 'best'.*norm is 'l1'"),
    ],
)
def test_settings_that_are_none_are_one_message(settings, message):
    with pytest.raises(UserError, match=message):
        bcgan_tf.evaluate(linear, IMAGES, LABELS, **settings)


def test_images_and_labels_that_are_none_are_one_message():
    with pytest.raises(UserError, match=r"(?s)0 \.\.\. 255.*not one-hot"):
        bcgan_tf.evaluate(linear, 255 * IMAGES, np.eye(4)[LABELS] + 0.1, eps=EPS)
