"""Figure 2: the classifier against the known best one, what beta does, resume."""

from __future__ import annotations

from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.data.gaussians import BAYES_ERROR
from bcgan_tf.errors import UserError
from bcgan_tf.reproduction import toy as toys
from bcgan_tf.reproduction.toy import ToySettings, measure, toy
from bcgan_tf.runs.directory import RunDirectory

BETAS = (0.0, 1.0, 5.0)
SHORT = ToySettings(betas=BETAS, steps=800)
TINY = ToySettings(betas=(0.0, 5.0), steps=3, classifier_steps=3, samples=20)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """One run of the toy with fewer steps: its folder, its metrics."""
    folder = tmp_path_factory.mktemp("toy")
    with RunDirectory.create(folder / "run", "toy", SHORT.to_dict()) as run:
        return run.path, toy(run, SHORT)


def test_the_classifier_is_nearly_the_best_one(made):
    found = made[1]["toy_classifier"]
    assert pytest.approx(0.017, abs=5e-4) == BAYES_ERROR
    assert found["bayes_test_error"] == pytest.approx(BAYES_ERROR, abs=0.004)  # 3 sigma, n = 10,000
    assert found["test_error"] == pytest.approx(found["bayes_test_error"], abs=0.003)
    assert found["agreement"] > 0.995
    # |s| of s ~ N(+-1.5 sqrt 2, 1) has the mean 2.1350.
    assert found["mean_distance"] == pytest.approx(2.135, abs=0.03)


def test_its_boundary_is_near_the_bayes_boundary(made):
    model = keras.models.load_model(made[0] / "classifier.keras")
    along = np.linspace(-2, 2, 41)  # 95 % of the data lie within, seen along the boundary
    across = np.linspace(-1.5, 1.5, 301)
    a, c = np.meshgrid(along, across, indexing="ij")
    points = np.stack([c + a, c - a], -1).reshape(-1, 2) / np.sqrt(2)
    logits = np.asarray(model(points.astype("float32")))
    says = (logits[:, 1] > logits[:, 0]).reshape(a.shape)
    assert (np.abs(np.diff(says.astype(int), axis=1)).sum(axis=1) == 1).all()  # crossed once
    crossing = across[says.argmax(axis=1)]
    assert np.abs(crossing).max() < 0.5 and np.abs(crossing).mean() < 0.2


def test_its_probabilities_are_calibrated(made):
    model = keras.models.load_model(made[0] / "classifier.keras")
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 5000)
    points = (rng.standard_normal((5000, 2)) + np.where(labels, 1.5, -1.5)[:, None]).astype("f4")
    probability = np.asarray(tf.nn.softmax(model(points)))[:, 1]
    exact = 1 / (1 + np.exp(-3.0 * points.sum(axis=1, dtype="f8")))
    assert np.abs(probability - exact).mean() < 0.02


def test_beta_draws_the_points_to_the_boundary_at_the_cost_of_their_labels(made):
    panels = made[1]["toy"]
    assert [panel["beta"] for panel in panels] == list(BETAS)
    distance = [panel["mean_distance"] for panel in panels]
    divergence = [panel["kl_to_uniform"] for panel in panels]
    truth = [panel["bayes_accuracy"] for panel in panels]
    assert distance[0] == pytest.approx(made[1]["toy_classifier"]["mean_distance"], rel=0.15)
    assert distance[0] > 1.5 * distance[1] > 2 * distance[2]
    assert divergence[0] > 2 * divergence[1] > 4 * divergence[2]
    assert truth[0] > 0.98 and truth[0] >= truth[1] > truth[2]
    assert truth[2] < 0.75  # half of the labels would be chance


def test_the_run_holds_the_figure_and_the_numbers(made):
    folder, metrics = made
    run = RunDirectory.open(folder)
    assert run.metrics() == metrics
    height, width = matplotlib.image.imread(folder / "figures" / "toy.png").shape[:2]
    assert width > 2 * height  # a row of three panels


def test_measures_of_known_points():
    """A linear classifier of known logits: 3 (x1 + x2) between the classes."""
    inputs = keras.Input((2,))
    dense = keras.layers.Dense(2, use_bias=False)
    model = keras.Model(inputs, dense(inputs))
    dense.set_weights([np.array([[0.0, 3.0], [0.0, 3.0]], "float32")])
    points = np.array([[1, 1], [-1, -1], [0.5, -0.25], [-2, 1]], "float32")
    labels = np.array([1, 0, 0, 1])
    found = measure(points, labels, model)
    assert found["mean_distance"] == pytest.approx((2 + 2 + 0.25 + 1) / 4 / np.sqrt(2))
    # -log 2 - (log p + log(1 - p)) / 2 with logit t is log cosh(t / 2).
    gaps = 3 * points.sum(axis=1)
    assert found["kl_to_uniform"] == pytest.approx(np.log(np.cosh(gaps / 2)).mean(), rel=1e-5)
    assert found["bayes_accuracy"] == found["classifier_accuracy"] == 0.5
    assert found["classifier_agreement"] == 1.0


def test_a_stopped_toy_goes_on_after_the_last_finished_beta(tmp_path, monkeypatch):
    with RunDirectory.create(tmp_path / "whole", "toy", TINY.to_dict()) as run:
        expected = toy(run, TINY)

    trained: list[float] = []
    real = toys.train_gan

    def stopped(data, classifier, beta, settings):
        if beta == 5.0 and len(trained) == 1:
            trained.append(-1.0)
            raise KeyboardInterrupt
        trained.append(beta)
        return real(data, classifier, beta, settings)

    monkeypatch.setattr(toys, "train_gan", stopped)
    with (
        RunDirectory.create(tmp_path / "stopped", "toy", TINY.to_dict()) as run,
        pytest.raises(KeyboardInterrupt),
    ):
        toy(run, TINY)
    with RunDirectory.create(tmp_path / "stopped", "toy", TINY.to_dict(), resume=True) as run:
        assert toy(run, TINY) == expected
    assert trained == [0.0, -1.0, 5.0]
    with RunDirectory.create(tmp_path / "stopped", "toy", TINY.to_dict(), resume=True) as run:
        assert toy(run, TINY) == expected  # a finished one trains nothing
    assert trained == [0.0, -1.0, 5.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"betas": ()},
        {"betas": (1.0, 1.0)},
        {"betas": (-1.0,)},
        {"betas": (float("nan"),)},
        {"steps": 0},
        {"samples": 0},
        {"learning_rate": 0.0},
    ],
)
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        ToySettings(**wrong)
