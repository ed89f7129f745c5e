"""The Square attack: the search redone in NumPy, and models whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import PGD
from bcgan_tf.attacks.square import Square
from bcgan_tf.attacks.square_l2 import bump
from bcgan_tf.attacks.square_windows import Plan
from bcgan_tf.errors import UserError
from helpers.linear_task import around
from helpers.toy_models import Sharp, sharp_network

norms = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.25)])


def _redone(attack: Square, model: Sharp, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The attack on one example after the other, with slices instead of masks, in float64."""
    height, width, channels = images.shape[1:]
    windows = 1 if attack.norm == "linf" else 2
    plan = Plan(
        attack.queries, 0.8, [height, width, channels], norm=attack.norm, windows=windows, seed=0
    )
    zero, indices = tf.constant(0, tf.int64), tf.range(len(images), dtype=tf.int64)
    starts = attack.draw_start(tf.constant(images), indices, zero).numpy().astype(np.float64)
    chunks = [plan.draw(tf.constant(c), indices, zero) for c in range(len(plan.lengths))]
    found = []
    for i, (clean, best) in enumerate(zip(images.astype(float), starts, strict=True)):
        best_margin = model.margin(best[None], labels[i : i + 1])[0]
        for chunk, draws in enumerate(chunks):
            rows, columns = plan.sizes[chunk]
            for query in range(plan.lengths[chunk]):
                if best_margin > 0:
                    break
                signs = draws.signs[query, i, 0, 0].numpy()
                slices = [
                    (slice(row, row + rows), slice(column, column + columns))
                    for row, column in draws.corners[query, i].numpy()
                ]
                if attack.norm == "linf":
                    new = best.copy()
                    new[slices[0]] += 2 * attack.eps * signs
                    new = new.clip(clean - attack.eps, clean + attack.eps).clip(0, 1)
                else:
                    coin = bool(draws.coins[query, i].numpy())
                    mound = bump(rows, columns, transposed=coin)
                    new = _moved_mass(best - clean, slices, mound, signs, attack.eps)
                    new = (clean + new).clip(0, 1)
                margin = model.margin(new[None], labels[i : i + 1])[0]
                if margin > best_margin:
                    best, best_margin = new, margin
        found.append(best)
    return np.stack(found)


def _moved_mass(change, slices, mound, signs, eps):
    """Algorithm 3 of the paper, channel by channel."""
    first, second = slices
    change, unused = change.copy(), max(eps**2 - np.square(change).sum(), 0)
    either = np.zeros(change.shape[:2], bool)
    either[first] = either[second] = True
    blocks = []
    for channel, sign in enumerate(signs):
        available = np.square(change[either, channel]).sum() + unused / len(signs)
        old = change[(*first, channel)]
        block = sign * mound + old / (1e-12 + np.linalg.norm(old))
        blocks.append(block * math.sqrt(available) / np.linalg.norm(block))
    change[second] = 0
    change[first] = np.stack(blocks, axis=-1)
    return change * eps / np.linalg.norm(change)


@norms
@pytest.mark.parametrize("shape", [(8, 8, 1), (6, 9, 3)])
def test_the_queries_are_those_of_a_plain_loop(norm, eps, shape):
    model, images, labels = sharp_network(*shape, count=8)
    attack = Square(eps, norm=norm, queries=60)
    result = attack(model, images, labels)
    assert not result.success.all()
    expected = _redone(attack, model, images, labels)
    np.testing.assert_allclose(result.adversarials, expected, rtol=0, atol=2e-6)


@norms
def test_the_margin_never_rises_and_no_iterate_leaves_the_ball(norm, eps):
    """Fewer queries are the beginning of more: so are the iterates looked at."""
    model, images, labels = sharp_network(6, 6, 1)
    before, broken = np.full(len(images), -np.inf), np.zeros(len(images), bool)
    improved = np.zeros(len(images), int)
    for queries in (1, 6, 30, 201):
        result = Square(eps, norm=norm, queries=queries)(model, images, labels)
        margin = model.margin(result.adversarials.astype(np.float64), labels)
        assert (margin >= before - 1e-6).all() and (result.success >= broken).all()
        assert result.adversarials.min() >= 0 and result.adversarials.max() <= 1
        assert (result.linf if norm == "linf" else result.l2).max() <= eps * (1 + 1e-6)
        improved += margin > before + 1e-6
        before, broken = margin, result.success
    assert (improved >= 1).all() and improved.mean() > 2 and 0 < broken.mean() < 1


# Linf: single pixels are within reach, so the very corner is found. L2: bumps of 3x3 pixels only
# come near the normal.
@pytest.mark.parametrize(("norm", "below"), [("linf", 1 / 1.01), ("l2", 1 / 1.4)])
def test_a_linear_model_is_broken_above_its_distance_and_not_below(norm, below):
    data = around(0.08, norm, 2, below, 1.002, seed=4)
    result = Square(0.08, norm=norm, queries=1000)(*data)
    assert result.clean_accuracy == 1
    np.testing.assert_array_equal(result.success, np.arange(24) < 12)


@pytest.mark.parametrize("how", ["rounded", "stopped", "scaled"])
def test_what_misleads_gradients_does_not_mislead_square(how, digits_cnn):
    network, images, labels = digits_cnn.model, digits_cnn.images[:40], digits_cnn.labels[:40]
    model = {
        "rounded": lambda x: network(tf.round(x * 15) / 15, training=False),
        "stopped": lambda x: tf.stop_gradient(network(x, training=False)),
        "scaled": lambda x: 1e4 * network(x, training=False),
    }[how]
    attack = Square(0.3, queries=500)
    result = attack(model, images, labels)
    assert result.clean_accuracy > 0.9 and result.robust_accuracy <= 0.02
    if how == "scaled":  # the same search; the scaled logits round alike
        plain = attack(network, images, labels)
        np.testing.assert_array_equal(result.success, plain.success)
    if how == "stopped":
        with pytest.raises(UserError, match="no gradient"):
            PGD(0.3, steps=2)(model, images, labels)


@norms
def test_another_seed_draws_other_windows(norm, eps):
    model, images, labels = sharp_network(6, 6, 1)
    one, other = (
        Square(eps, norm=norm, queries=5, seed=seed)(model, images, labels) for seed in (0, 1)
    )
    assert (np.abs(other.adversarials - one.adversarials).max((1, 2, 3)) > 1e-3).sum() >= 20


def test_restarts_are_nested_and_stronger():
    model, images, labels = sharp_network(6, 6, 1, count=60)
    one = Square(0.05, queries=10)(model, images, labels)
    three = Square(0.05, queries=10, restarts=3)(model, images, labels)
    assert three.success[one.success].all() and three.success.sum() > one.success.sum()
    np.testing.assert_array_equal(three.adversarials[one.success], one.adversarials[one.success])


@norms
def test_vectors_are_attacked_as_images_of_one_row(norm, eps):
    model, images, labels = sharp_network(20)
    attack = Square(eps, norm=norm, queries=100)
    flat = attack(model, images, labels)
    assert flat.success.any() and flat.adversarials.shape == (23, 20)
    row = attack(model, images.reshape(23, 1, 20, 1), labels)
    np.testing.assert_array_equal(flat.adversarials, row.adversarials.reshape(23, 20))
    pixels, label = np.array([[0.6, 0.5]], np.float32), np.array([0])
    assert Square(0.2, norm=norm, queries=20)(tf.identity, pixels, label).success.all()


def test_names_settings_and_no_radius():
    assert (Square(0.3).name, Square(1.0, norm="l2").name) == ("Square", "Square-L2")
    config = Square(0.3).config()
    assert (config["queries"], config["restarts"], config["p_init"]) == (5000, 1, 0.8)
    model, images, labels = sharp_network(4, 4, 1)
    np.testing.assert_array_equal(Square(0.0)(model, images, labels).adversarials, images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "queries is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"p_init": 0.0}, "p_init is 0.0"),
        ({"p_init": 1.5}, "p_init is 1.5; choose a number above 0, at most 1"),
        ({"norm": "l1"}, "norm is 'l1'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Square(0.3, **settings)


def test_examples_without_rows_and_columns_are_refused():
    model, images, labels = sharp_network(6, 6)
    with pytest.raises(UserError, match=r"images \[N, H, W, C\] or vectors"):
        Square(0.3)(model, images, labels)


def test_nan_logits_are_not_robustness():
    def model(images: tf.Tensor) -> tf.Tensor:
        changed = tf.reduce_any(tf.abs(images - 0.5) > 0.05, axis=1, keepdims=True)
        return tf.where(changed, math.nan, tf.constant([[1.0, -1.0]]))

    with pytest.raises(UserError, match="NaN logits"):
        Square(0.1, queries=20)(model, np.full((3, 4), 0.5, np.float32), np.zeros(3, int))


def test_an_undefended_cnn_is_broken_entirely(digits_cnn):
    data = digits_cnn.model, digits_cnn.images[:40], digits_cnn.labels[:40]
    result = Square(0.3, queries=500)(*data)
    assert result.clean_accuracy > 0.9 and result.robust_accuracy <= 0.02
    small = Square(0.05, queries=500)(*data)
    assert small.robust_accuracy > 0.3  # and not by a defect of the check
    l2 = Square(2.5, norm="l2", queries=500)(*data)
    assert l2.robust_accuracy <= 0.05
