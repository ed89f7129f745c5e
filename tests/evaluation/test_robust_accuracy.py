"""Robust accuracy is the per-example worst case, with Wilson's interval."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM, PGD, Attack
from bcgan_tf.errors import UserError
from bcgan_tf.statistics import wilson_interval
from helpers.suites import evaluate


def _brightness(images: tf.Tensor) -> tf.Tensor:
    """Two pixels a, b: class 1 where a + b > 1."""
    total = tf.reduce_sum(tf.reshape(images, [-1, 2]), axis=1, keepdims=True)
    return tf.concat([1.0 - total, total - 1.0], axis=1)


@dataclass(frozen=True, kw_only=True)
class Only(Attack):
    """Breaks the examples of the indices given, and no others."""

    which: tuple[int, ...] = field(default=())
    name = "only"
    uses_gradients = False

    def run(self, logits_fn, images, labels, indices, round_index):
        hit = tf.reduce_any(indices[:, None] == tf.constant(self.which, tf.int64), axis=1)
        return tf.where(hit[:, None], 1.0 - images, images)


IMAGES = np.float32([[0.1, 0.1], [0.9, 0.9], [0.2, 0.2], [0.8, 0.8], [0.3, 0.3], [0.6, 0.6]])
LABELS = np.array([0, 1, 0, 1, 0, 0])  # the last one is misclassified


def test_the_worst_case_is_taken_per_example():
    evaluation = evaluate(
        _brightness, (IMAGES, LABELS), [Only(which=(0, 1)), Only(which=(1, 2)), Only()]
    )
    assert [result.robust_accuracy for result in evaluation.results] == [
        pytest.approx(3 / 6),
        pytest.approx(3 / 6),
        pytest.approx(5 / 6),
    ]
    assert evaluation.worst_case.tolist() == [False, False, False, True, True, False]
    # Neither the average of the attacks (11/18) nor their minimum (1/2).
    assert evaluation.robust_accuracy == pytest.approx(2 / 6)
    assert evaluation.clean_accuracy == pytest.approx(5 / 6)
    assert evaluation.clean_correct.tolist() == [True] * 5 + [False]
    assert evaluation.n == 6


def test_real_attacks_on_the_exact_model():
    # Linf distance to a + b = 1 is |a + b - 1| / 2: 0.4, 0.4, 0.3, 0.3, 0.2.
    evaluation = evaluate(_brightness, (IMAGES, LABELS), [FGSM(0.25), PGD(0.35, steps=10)])
    assert evaluation.results[0].success.tolist() == [False] * 4 + [True, False]
    assert evaluation.results[1].success.tolist() == [False] * 2 + [True] * 3 + [False]
    assert evaluation.robust_accuracy == pytest.approx(2 / 6)


def test_intervals_belong_to_what_they_are_asked_for():
    evaluation = evaluate(_brightness, (IMAGES, LABELS), [Only(which=(0, 1)), Only(which=(2,))])
    assert evaluation.interval95() == wilson_interval(2, 6)
    assert evaluation.interval95(evaluation.clean_correct) == wilson_interval(5, 6)
    assert evaluation.interval95(evaluation.results[1].robust) == wilson_interval(4, 6)


def test_the_dictionary_is_complete_and_json_able():
    evaluation = evaluate(_brightness, (IMAGES, LABELS), [FGSM(0.25), PGD(0.35, steps=10)])
    written = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert written["n"] == 6 and written["note"].startswith("6 images: the 95 % interval")
    assert written["clean_accuracy"] == pytest.approx(5 / 6)
    assert written["robust_accuracy"] == pytest.approx(2 / 6)
    assert written["robust_interval95"] == list(wilson_interval(2, 6))
    assert written["clean_interval95"] == list(wilson_interval(5, 6))
    assert [attack["attack"] for attack in written["attacks"]] == ["FGSM", "PGD-10"]
    assert written["attacks"][0]["interval95"] == list(wilson_interval(4, 6))
    assert written["attacks"][1]["config"]["eps"] == 0.35


def test_progress_runs_over_all_attacks_once():
    seen: list[tuple[int, int, str]] = []
    evaluate(
        _brightness,
        (IMAGES, LABELS),
        [FGSM(0.1, batch_size=2), PGD(0.1, steps=2, restarts=3, batch_size=2), FGSM(0.2)],
        progress=lambda *done: seen.append(done),
    )
    assert {total for _, total, _ in seen} == {6 * 3}
    done = [count for count, _, _ in seen]
    assert done == sorted(done) and done[-1] == 18 and 6 in done and 12 in done
    # Each runs on all images: there are no survivors to count.
    assert [name for name, _ in itertools.groupby(text for *_, text in seen)] == [
        "FGSM",
        "PGD-2",
        "FGSM",
    ]


@pytest.mark.parametrize(
    ("data", "attacks", "match"),
    [
        ((IMAGES, LABELS), [], "no attack was given"),
        ((IMAGES, LABELS[:2]), [FGSM(0.1)], "6 images came with labels"),
    ],
)
def test_mistakes_are_answered_in_one_line(data, attacks, match):
    with pytest.raises(UserError, match=match) as caught:
        evaluate(_brightness, data, attacks)
    assert "\n" not in str(caught.value)
