"""The three readings find distances known on paper, in their order, and hide no failure."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks.pgd import PGD
from bcgan_tf.data import load_dataset
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.networks.classifiers import small_cnn
from bcgan_tf.perturbation.minimum_perturbation import MinimumPerturbation, minimum_perturbation
from helpers.linear_task import Linear, linear_model

_OF_SEARCH = ("limit", "step", "attacks", "known")


def _search(model, images, labels, **options) -> MinimumPerturbation:
    """The search on the task of a model and images; the options are of either of them."""
    of_search = {name: options.pop(name) for name in _OF_SEARCH if name in options}
    return minimum_perturbation(EvaluationTask(model, images, labels, **options), **of_search)


both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def _linear(scale: float = 1.0) -> tuple[Linear, np.ndarray, np.ndarray]:
    model, images, labels = linear_model(4)
    return dataclasses.replace(model, scale=scale), images[:12], labels[:12]


def _ordered(rho: MinimumPerturbation) -> bool:
    return bool((rho.best <= rho.multi).all() and (rho.multi <= rho.fgsm).all())


def _length(changes: np.ndarray, norm: str) -> np.ndarray:
    flat = changes.astype(np.float64).reshape(len(changes), -1)
    return np.linalg.norm(flat, np.inf if norm == "linf" else 2, axis=1)


def _wrong(model, rho: MinimumPerturbation, labels: np.ndarray) -> np.ndarray:
    return np.asarray(model(tf.constant(rho.adversarials))).argmax(-1) != labels


@both_norms
def test_the_exact_distances_of_a_linear_model_are_found(norm):
    model, images, labels = _linear()
    exact = model.distances(images, labels, norm).min(1)
    rho = _search(model, images, labels, norm=norm)
    assert (rho.best >= exact * (1 - 1e-4)).all()  # nothing nearer exists
    np.testing.assert_allclose(rho.best, exact, rtol=5e-3, atol=1e-5)
    # Its boundary is a plane, so the line of the right wrong class is exact too.
    np.testing.assert_allclose(rho.multi, exact, rtol=1e-2, atol=1e-4)
    assert _ordered(rho) and _wrong(model, rho, labels).all()
    np.testing.assert_allclose(_length(rho.adversarials - images, norm), rho.best)


def test_the_grid_of_fgsm_by_hand():
    """Two classes, z1 - z0 = 2 a - b - 0.05: the sign goes up in a, and down in b."""

    def model(images: tf.Tensor) -> tf.Tensor:
        gap = 2 * images[:, :1] - images[:, 1:] - 0.05
        return tf.concat([tf.zeros_like(gap), gap], 1)

    # (0.3, 0.7): lacks 0.15, and each step of 0.01 brings 0.03: the sixth is the first beyond
    # (the fifth ends on the boundary). (0.5, 0.1): wrong. (0.02, 0.0): b is clipped at 0, so
    # the lacking 0.01 take 0.005, one step.
    images = np.array([[0.301, 0.703], [0.5, 0.1], [0.02, 0.0]], np.float32)
    rho = _search(model, images, np.zeros(3, int), attacks=False)
    np.testing.assert_allclose(rho.fgsm, [0.06, 0.0, 0.01], atol=1e-6)
    np.testing.assert_allclose(rho.best, [0.151 / 3, 0.0, 0.005], rtol=1e-2)
    summary = rho.to_dict()
    assert summary["rho_fgsm"] == pytest.approx(
        {"n": 2, "mean": 0.035, "median": 0.035, "capped_share": 0, "zero_gradient_share": 0},
        abs=1e-6,
    )
    best = summary["rho_best"]
    assert best["n"] == 3 and best["n_correct"] == 2
    assert best["mean"] == pytest.approx(best["mean_correct"] * 2 / 3)
    assert best["median"] == pytest.approx(rho.best[2])


def test_a_limit_caps_fgsm_and_censors_the_rest_whatever_the_batch():
    model, images, labels = _linear()
    exact = model.distances(images, labels, "linf").min(1)
    limit = float(np.sort(exact)[5:7].mean())
    rho = _search(model, images, labels, limit=limit, step=limit / 4, batch_size=5)
    np.testing.assert_array_equal(np.isfinite(rho.best), exact < limit)
    np.testing.assert_allclose(rho.best[exact < limit], exact[exact < limit], rtol=5e-3)
    summary = rho.to_dict()
    assert summary["rho_best"]["censored_share"] == 0.5
    assert summary["rho_best"]["mean"] is None and summary["rho_best"]["median"] is None
    assert summary["rho_best"]["mean_found"] == pytest.approx(np.sort(exact)[:6].mean(), rel=1e-2)
    capped = np.isinf(rho.fgsm)
    assert summary["rho_fgsm"]["capped_share"] == capped.mean() >= 0.5
    assert summary["rho_fgsm"]["mean"] == pytest.approx(
        (rho.fgsm[~capped].sum() + limit * capped.sum()) / 12
    )
    with pytest.raises(UserError, match="searched from 0 to"):
        rho.robust_accuracy([2 * limit])


def test_a_model_that_never_changes_is_all_censored():
    def constant(images: tf.Tensor) -> tf.Tensor:
        return 2 * tf.one_hot(tf.zeros(tf.shape(images)[0], tf.int32), 3)

    images = np.random.default_rng(0).uniform(0, 1, (5, 4, 4, 1)).astype(np.float32)
    labels = np.array([0, 0, 0, 1, 2])
    rho = _search(constant, images, labels, norm="l2")
    for reading in (rho.fgsm, rho.multi, rho.best):
        np.testing.assert_array_equal(reading, [np.inf, np.inf, np.inf, 0, 0])
    summary = rho.to_dict()
    assert summary["rho_fgsm"]["capped_share"] == summary["rho_fgsm"]["zero_gradient_share"] == 1
    assert summary["rho_fgsm"]["mean"] == rho.limit == 4
    for name in ("rho_multi", "rho_best"):
        assert summary[name]["censored_share"] == 0.6
        assert summary[name]["mean"] is summary[name]["mean_correct"] is None
        assert summary[name]["mean_found"] == 0
    np.testing.assert_array_equal(rho.robust_accuracy([0, 0.5, 1]), [0.6, 0.6, 0.6])
    np.testing.assert_array_equal(rho.adversarials, images)
    json.dumps(summary, allow_nan=False)


def test_misclassified_images_alone_are_all_zero():
    model, images, labels = _linear()
    rho = _search(model, images, (labels + 1) % 4)
    assert not rho.best.any() and not rho.multi.any() and not rho.fgsm.any()
    assert rho.to_dict()["rho_fgsm"]["mean"] is None and rho.to_dict()["rho_best"]["mean"] == 0
    np.testing.assert_array_equal(rho.robust_accuracy([0, 0.3]), [0, 0])


@pytest.fixture(scope="module")
def digits():
    """An undefended CNN, 24 test images of 8x8 digits, and their smallest Linf perturbations."""
    data = load_dataset("digits")
    model = small_cnn(data.image_shape, data.num_classes, seed=1)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    train = data.train
    model.fit(train.scaled(), train.labels, batch_size=64, epochs=6, verbose=0, shuffle=False)
    images, labels = data.test.scaled(0, 24), data.test.labels[:24].astype(np.int64)
    return model, images, labels, _search(model, images, labels)


def test_the_order_of_the_readings_on_a_network(digits):
    model, images, labels, rho = digits
    assert _ordered(rho)
    assert rho.best.mean() < 0.98 * rho.multi.mean() < 0.98 * 0.95 * rho.fgsm.mean()
    right = rho.clean_correct
    assert (rho.best[~right] == 0).all() and (rho.best[right] > 0).all()
    assert _wrong(model, rho, labels)[np.isfinite(rho.best)].all()
    np.testing.assert_allclose(_length(rho.adversarials - images, "linf"), rho.best, atol=1e-12)
    counts = rho.to_dict()["rho_best"]["found_by"]
    assert sum(counts.values()) == right.sum() and len(counts) >= 2


def test_an_attack_at_one_radius_finds_nothing_that_was_missed(digits):
    model, images, labels, rho = digits
    eps = float(np.median(rho.best))
    broken = PGD(eps, steps=60)(model, images, labels).success
    assert broken.sum() >= 9
    assert (rho.best[broken] <= 1.01 * eps).all()


def test_both_ends_of_the_curve_are_known(digits):
    _, _, labels, rho = digits
    curve = rho.curve()
    assert curve[0] == [0.0, rho.clean_correct.mean()] and curve[-1][0] == 0.5
    accuracies = [accuracy for _, accuracy in curve]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] <= np.bincount(labels).max() / len(labels)
    # By hand at one eps; and on it, where float32 has rounded.
    assert rho.robust_accuracy(0.1) == (rho.best > 0.1).mean()
    eps = float(rho.best[rho.clean_correct][0]) - 1e-8
    assert rho.robust_accuracy(eps) == (rho.best > eps + 1e-7).mean()


def test_the_gray_image_bounds_every_model():
    """A classifier of random codes: no image is farther than 0.5, but those of gray's class."""
    rng = np.random.default_rng(1)
    images = np.concatenate([rng.uniform(0, 0.1, (20, 16)), rng.uniform(0.9, 1, (20, 16))])
    images = images.astype(np.float32)
    centres = tf.constant(images[[0, 5, 10, 15, 20, 25, 30, 35]])

    def nearest_centre(batch: tf.Tensor) -> tf.Tensor:
        gaps = tf.reduce_sum(tf.square(batch[:, None] - centres), -1)
        # Without a gradient: the bound needs none.
        return 5 * tf.one_hot(tf.argmin(gaps, 1), 8)

    labels = nearest_centre(tf.constant(images)).numpy().argmax(-1)
    gray = int(nearest_centre(tf.fill([1, 16], 0.5)).numpy().argmax())
    rho = _search(nearest_centre, images, labels, attacks=False)
    assert rho.zero_gradient.all() and rho.to_dict()["rho_fgsm"]["capped_share"] == 1
    assert (rho.multi[labels != gray] <= 0.5).all() and (rho.multi <= 1).all()
    share = (labels == gray).mean()
    assert 0 < share < 0.5
    assert rho.best.mean() <= (1 - share) * 0.5 + share
    assert rho.robust_accuracy(0.5) <= share


def test_an_image_of_another_class_is_within_reach_where_gray_is_not():
    """Only white pixels everywhere make class 1, so gray and black are class 0 themselves."""

    def model(images: tf.Tensor) -> tf.Tensor:
        is_one = tf.cast(tf.reduce_min(images, axis=1) > 0.9, tf.float32)
        return tf.stack([1 - is_one, 2 * is_one], 1)

    images = np.array([[0.2, 0.3, 0.1], [0.95, 0.92, 0.97]], np.float32)
    rho = _search(model, images, np.array([0, 1]), attacks=False)
    assert (rho.best <= 1).all() and rho.best[0] == pytest.approx(0.8, rel=0.02)


def test_saturation_moves_fgsm_and_hardly_the_rest(digits):
    model, images, labels, rho = digits

    def saturated(batch: tf.Tensor) -> tf.Tensor:
        return 100 * model(batch, training=False)

    masked = _search(saturated, images, labels)
    plain, scaled = rho.to_dict()["rho_fgsm"], masked.to_dict()["rho_fgsm"]
    assert plain["zero_gradient_share"] == 0 and scaled["zero_gradient_share"] > 0.5
    assert scaled["capped_share"] > plain["capped_share"] + 0.5
    assert scaled["mean"] > 2 * plain["mean"]
    assert masked.best.mean() == pytest.approx(rho.best.mean(), rel=0.02)
    assert _ordered(masked)


def test_what_other_attacks_found_counts():
    """Class 1 is a small ball that no gradient points to."""
    centre = np.array([0.7, 0.3, 0.6, 0.4], np.float32)

    def model(images: tf.Tensor) -> tf.Tensor:
        inside = tf.reduce_max(tf.abs(images - centre), axis=1) < 0.05
        return 2 * tf.one_hot(tf.cast(inside, tf.int32), 2)

    images = np.full((2, 4), 0.5, np.float32)
    labels = np.zeros(2, int)
    alone = _search(model, images, labels)
    assert np.isinf(alone.best).all()
    found = np.stack([centre, images[1]])
    given = _search(model, images, labels, known=[found], attacks=False)
    assert 0.15 < given.best[0] < 0.155 and np.isinf(given.best[1])
    assert given.to_dict()["rho_best"]["found_by"] == {"given": 1} and np.isinf(given.multi).all()


def test_a_model_that_draws_counts_only_where_the_last_run_is_wrong():
    def noisy(images: tf.Tensor) -> tf.Tensor:
        noise = tf.random.normal([tf.shape(images)[0]], stddev=0.3)
        gap = tf.reduce_sum(images, axis=1) - 1.0 + noise
        return tf.stack([-gap, gap], 1)

    images = np.random.default_rng(0).uniform(0, 0.1, (20, 4)).astype(np.float32)
    assert _ordered(_search(noisy, images, np.zeros(20, int), attacks=False))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"norm": "l1"}, "norm is 'l1'"),
        ({"limit": 0.0}, "limit is 0.0"),
        ({"step": -0.1}, "step is -0.1"),
        ({"step": 0.2, "limit": 0.1}, "larger than limit"),
        ({"known": [np.zeros((2, 4), np.float32)]}, "one image for each"),
        ({"images": np.full((3, 5, 4, 1), np.nan, np.float32)}, "NaN"),
        ({"labels": np.full(12, 7)}, "label 7 is no class"),
    ],
)
def test_unfit_input_is_one_clear_line(changed, message):
    model, images, labels = _linear()
    given = {"images": images, "labels": labels} | changed
    if "labels" not in changed:
        given["labels"] = given["labels"][: len(given["images"])]
    with pytest.raises(UserError, match=message):
        _search(model, **given)


@pytest.mark.parametrize("mask", [-1e9, -np.inf])
def test_a_common_offset_and_a_masked_class_change_no_distance(mask):
    """At 1e5 float32 numbers are 0.008 apart, of gaps that are about 10."""
    model, images, labels = _linear(scale=20.0)

    def shifted(images):
        return tf.pad(model(images), [[0, 0], [0, 1]], constant_values=mask) + 1e5

    rho = _search(shifted, images, labels, attacks=False)
    exact = model.distances(images, labels, "linf").min(1)
    assert np.isfinite(rho.best).all()
    np.testing.assert_allclose(rho.best.mean(), exact.mean(), rtol=0.01)


def test_no_distance_is_given_where_an_offset_left_no_digits():
    model, images, labels = _linear()
    with pytest.raises(UserError, match="subtract the common offset"):
        _search(lambda x: model(x) + 1e8, images, labels)
