"""Known answers: FGSM on a linear classifier, and attacks on a search that finds one image."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.models.defended_classifier import DefenseGANClassifier
from bcgan_tf.models.reconstruction import Reconstruction
from bcgan_tf.reproduction import defended, measures
from bcgan_tf.reproduction.measures import TableRow
from bcgan_tf.reproduction.protocol import protocol

SMALL = {
    "cw_n": 12,
    "cw_steps": 100,
    "cw_search_steps": 6,
    "defended_n": 20,
    "defended_cw_n": 10,
    "white_box_n": 10,
    "white_box_steps": 2,
    "eot_samples": 2,
    "answers": 2,
    "defended_rho_n": 2,
}


@pytest.fixture
def subject(workspace, linear, tmp_path):
    linear.save(tmp_path / "linear.keras")
    return TableRow(
        workspace, protocol("digits", options=SMALL), "original", tmp_path / "linear.keras"
    )


def exact_fgsm_accuracy(images, labels, weights, eps):
    """By hand: the gradient of the cross entropy of ``x W + b`` is ``(p - y) W^T``."""
    kernel, bias = (array.astype(np.float64) for array in weights)
    flat = images.reshape(len(images), -1).astype(np.float64)
    logits = flat @ kernel + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    gradient = (odds / odds.sum(axis=1, keepdims=True) - np.eye(10)[labels]) @ kernel.T
    moved = np.clip(flat + eps * np.sign(gradient), 0, 1)
    right = logits.argmax(1) == labels
    return float((right & ((moved @ kernel + bias).argmax(1) == labels)).mean())


def test_fgsm_on_a_linear_classifier_is_exact_in_both_units(subject, digits, weights, counted):
    """And 0.1 of [0, 1] pixels is 0.2 of [-1, 1] ones: five attacks for six cells."""
    calls = counted(measures, "run_suite")
    images, labels = digits.test.scaled(), digits.test.labels
    found = measures.bounded(subject)
    small, large = subject.protocol.fgsm_eps
    expected = {eps: exact_fgsm_accuracy(images, labels, weights, eps) for eps in
                (small, large, small / 2, large / 2)}  # fmt: skip
    assert 0.9 > expected[small / 2] > expected[small] > expected[large]
    for unit, half in (("[0, 1]", 1), ("[-1, 1]", 2)):
        columns = found[unit]
        assert columns["fgsm-1"]["accuracy"] == pytest.approx(expected[small / half], abs=1e-9)
        assert columns["fgsm-2"]["accuracy"] == pytest.approx(expected[large / half], abs=1e-9)
        assert columns["pgd"]["accuracy"] <= columns["fgsm-2"]["accuracy"]
        assert columns["pgd"]["eps"] == pytest.approx(large / half)
        assert columns["fgsm-1"]["n"] == len(digits.test) == 360
    assert len(calls) == 5 and found["[0, 1]"]["fgsm-1"] == found["[-1, 1]"]["fgsm-2"]
    run = next(subject.workspace.cache.glob("digits-quick-original-bounded-*"))
    assert not list(run.glob("state-*"))
    assert measures.clean(subject)["accuracy"] == exact_fgsm_accuracy(images, labels, weights, 0)


def test_carlini_wagner_reaches_the_linear_boundary(subject, digits, weights):
    """The exact L2 distance is that to the nearest of nine planes, but for the box [0, 1]."""
    kernel, bias = (array.astype(np.float64) for array in weights)
    part = digits.test.take(12)
    flat = part.scaled().reshape(12, -1)
    logits = flat @ kernel + bias
    own = part.labels
    right = logits.argmax(1) == own
    with np.errstate(invalid="ignore"):
        gaps = (logits[np.arange(12), own][:, None] - logits) / np.linalg.norm(
            kernel[:, own].T[:, None] - kernel.T[None], axis=2
        )
    exact = np.nanmin(np.where(np.eye(10)[own] == 1, np.nan, gaps), axis=1)[right].mean()
    found = measures.unbounded(subject)
    assert found["accuracy"] == 0 and found["n"] == 12
    assert exact * 0.999 < found["mean_l2"] < exact * 1.5


def constant_generator(image):
    """Whatever the noise, this image: the search has nothing to choose."""
    noise = keras.Input((4,))
    dense = keras.layers.Dense(64, kernel_initializer="zeros")
    model = keras.Model(noise, keras.layers.Reshape((8, 8, 1))(dense(noise)))
    dense.set_weights([np.zeros((4, 64), np.float32), image.reshape(64)])
    return model


@pytest.fixture
def blind(workspace, linear, digits, tmp_path):
    """A defended classifier that sees one and the same image, whatever it is shown."""
    image = digits.test.scaled(0, 1)[0]
    search = Reconstruction(constant_generator(image), steps=3, restarts=2)
    DefenseGANClassifier(linear, search).save(tmp_path / "blind.keras")
    options = protocol("digits", options=SMALL)
    return TableRow(workspace, options, "defense-gan", tmp_path / "blind.keras")


def test_a_search_that_finds_one_image_leaves_one_class(blind):
    """Exactly a tenth of a balanced set, under every attack; the classifier behind loses more."""
    found = defended.gray_box(blind)
    assert found["clean"]["accuracy"] == 0.1 and found["clean"]["n"] == 20
    for columns in found["attacks"].values():
        for figure in columns.values():
            assert figure["accuracy"] == 0.1
    assert found["cw"]["accuracy"] == 0.1 and found["cw"]["n"] == 10
    assert found["cw"]["behind"] == 0 and found["cw"]["mean_l2"] > 0
    behind = [found["attacks"]["[-1, 1]"][name]["behind"] for name in ("fgsm-1", "fgsm-2", "pgd")]
    assert 1 > behind[0] > behind[1] >= behind[2]


def test_the_white_box_attack_cannot_move_it_either(blind):
    found = defended.white_box(blind)
    assert found["accuracy"] == found["clean_accuracy"] == found["clean_worst"] == 0.1
    assert found["accuracy_of_one_answer"] == pytest.approx(0.1)
    assert found["n"] == 10 and "PGD-2 with 2 searches" in found["method"]


def test_an_image_is_robust_only_if_every_answer_is_right(blind, monkeypatch):
    """Two answers, of which the second is always wrong: one answer of two, worst case nothing."""
    right = np.arange(10) % 10

    class Alternating:
        def __init__(self, *_: object) -> None:
            self.calls = 0

        def __call__(self, images: np.ndarray) -> np.ndarray:
            self.calls += 1
            return np.eye(10)[right if self.calls % 2 else (right + 1) % 10][: len(images)]

    monkeypatch.setattr(defended, "Batched", Alternating)
    found = defended.white_box(blind)
    assert found["accuracy"] == found["clean_worst"] == 0
    assert found["accuracy_of_one_answer"] == found["clean_accuracy"] == 0.5


def test_the_cost_of_the_papers_search_follows_from_one_step(blind):
    cost = defended.search_cost(blind)
    assert cost["steps"] == 3 and cost["restarts"] == 2
    assert cost["paper_image_seconds"] == pytest.approx(12_000 * cost["step_seconds"])
    assert cost["paper_test_hours"] == pytest.approx(cost["paper_image_seconds"] * 10_000 / 3600)
    assert 0 < cost["step_seconds"] < 0.1


def test_no_point_changes_an_answer_that_sees_nothing(blind):
    """The image of the one class is right everywhere: censored, not averaged in."""
    found = defended.smallest_defended(blind)
    assert found["n"] == 2 and found["attacks"] is False
    assert found["rho_best"]["censored_share"] + (1 - found["clean_accuracy"]) == 1


def test_it_is_left_out_where_nothing_is_asked_for(workspace, blind):
    none = protocol("digits", options={**SMALL, "defended_rho_n": 0})
    found = defended.smallest_defended(TableRow(workspace, none, "defense-gan", blind.file))
    assert "hundreds of points" in found["not_run"]


def test_a_balanced_part_has_as_many_of_each_class_throughout(digits):
    part = defended.balanced(digits.test, 47)
    assert (part.labels == np.arange(40) % 10).all()
    images = {image.tobytes() for image in part.images}
    assert len(images) == 40 and images <= {image.tobytes() for image in digits.test.images}
    again, other = defended.balanced(digits.test, 40), defended.balanced(digits.test, 40, seed=1)
    assert (again.images == part.images).all() and (other.images != part.images).any()
    with pytest.raises(UserError, match="fewer than one for each of 10 classes"):
        defended.balanced(digits.test, 9)


def test_another_model_under_the_rows_name_is_refused(workspace, subject):
    wrong = TableRow(workspace, subject.protocol, "defense-gan", subject.file)
    with pytest.raises(UserError, match="is no DefenseGANClassifier"):
        defended.gray_box(wrong)
