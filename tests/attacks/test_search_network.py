"""The copy that attacks search with is the model's function, and decides nothing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import APGD, PGD, search_network
from bcgan_tf.attacks.search_network import (
    ChannelAffine,
    Unchanged,
    agrees,
    is_faster,
    search_networks,
)
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.keras_graph import all_layers
from bcgan_tf.networks.classifiers import resnet18

SHAPE = (8, 8, 3)
IMAGES = np.random.RandomState(0).uniform(size=(12, *SHAPE)).astype(np.float32)
L = keras.layers


def learned(model: keras.Model) -> keras.Model:
    """With statistics, scales and offsets that are none of the defaults."""
    draw = np.random.RandomState(1)
    for layer in all_layers(model):
        if isinstance(layer, L.BatchNormalization):
            layer.set_weights([draw.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def network(build) -> keras.Model:
    images = keras.Input(SHAPE)
    x = build(images)
    x = L.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    return learned(keras.Model(images, L.Dense(5)(x)))


def read_twice(x):
    x = L.Conv2D(4, 3)(x)
    return L.Concatenate()([x, L.BatchNormalization()(x)])


def called_twice(x):
    convolution = L.Conv2D(3, 3, padding="same")
    return convolution(L.BatchNormalization()(convolution(x)))


def added(x):
    x = L.Conv2D(4, 3)(x)
    return L.BatchNormalization()(x + L.Conv2D(4, 1)(x))


def nested(x):
    inner_images = keras.Input(SHAPE)
    y = L.BatchNormalization()(L.Conv2D(4, 3)(inner_images))
    return keras.Model(inner_images, L.ReLU()(y))(L.Rescaling(2.0, offset=-1.0)(x))


class Doubled(L.Layer):
    def call(self, x):
        return 2 * x


@pytest.mark.parametrize(
    ("build", "folded", "affine"),
    [
        (lambda x: L.BatchNormalization()(L.Conv2D(4, 3)(x)), 1, 0),
        (lambda x: L.BatchNormalization()(L.Conv2D(4, 3, use_bias=False)(x)), 1, 0),
        (lambda x: L.BatchNormalization()(L.DepthwiseConv2D(3, depth_multiplier=2)(x)), 1, 0),
        (lambda x: L.BatchNormalization()(L.Dense(4)(L.Flatten()(x))), 1, 0),
        (lambda x: L.BatchNormalization(scale=False, center=False)(L.Conv2D(4, 3)(x)), 1, 0),
        (lambda x: L.BatchNormalization()(L.Conv2D(4, 3, activation="relu")(x)), 0, 1),
        (lambda x: L.BatchNormalization()(L.Conv2DTranspose(4, 3)(x)), 0, 1),
        (lambda x: L.BatchNormalization(axis=1)(L.Conv2D(4, 3)(x)), 0, 0),
        (read_twice, 0, 1),
        (called_twice, 0, 1),
        (added, 0, 1),
        (nested, 1, 0),
        (lambda x: Doubled()(L.BatchNormalization()(L.Conv2D(4, 3)(x))), 1, 0),
    ],
)
def test_batch_normalization_is_folded_where_nothing_else_reads(build, folded, affine):
    model = network(build)
    before = [w.copy() for w in model.get_weights()]
    copy = search_network.search_network(model, "float32")
    layers = all_layers(copy)
    assert sum(isinstance(layer, Unchanged) for layer in layers) == folded
    assert sum(isinstance(layer, ChannelAffine) for layer in layers) == affine
    wanted = model(IMAGES, training=False).numpy()
    np.testing.assert_allclose(copy(IMAGES).numpy(), wanted, rtol=1e-4, atol=1e-5)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_in_bfloat16_pixels_and_logits_stay_float32():
    model = network(lambda x: L.Conv2D(4, 3)(L.Rescaling(2.0, offset=-1.0)(x)))
    copy = search_network.search_network(model, "bfloat16")
    dtypes = {type(layer).__name__: layer.compute_dtype for layer in copy.layers}
    assert dtypes == {
        "InputLayer": "float32", "Rescaling": "float32", "Conv2D": "bfloat16",
        "GlobalAveragePooling2D": "bfloat16", "Dense": "float32",
    }  # fmt: skip
    wanted, found = model(IMAGES).numpy(), copy(IMAGES).numpy()
    assert found.dtype == np.float32 and 0 < np.abs(found - wanted).max() < 0.05


def test_what_has_no_graph_of_layers_has_no_copy():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    images = keras.Input(SHAPE)
    two = keras.Model(images, [L.Flatten()(images), L.GlobalAveragePooling2D()(images)])
    for model in (Subclassed(), two, lambda x: x):
        assert search_network.search_network(model, "float32") is None
    with pytest.raises(UserError, match="cannot be searched in bfloat16"):
        search_networks(lambda x: x, IMAGES, "bfloat16")
    assert search_networks(lambda x: x, IMAGES, "auto") == {}


def test_how_near_a_copy_must_be():
    """Gaps of 1 between the two largest logits: the bounds are those of the distances."""
    logits = np.tile([0.0, 1.0, 2.0], (40, 1)).astype(np.float32)

    def moved(by, rows):
        other = logits.copy()
        other[:rows, 0] += by
        return other

    assert agrees(logits, logits + 7, "float32")  # an offset changes nothing
    assert agrees(logits, moved(0.09, 40), "bfloat16")
    assert not agrees(logits, moved(0.11, 40), "bfloat16")
    assert not agrees(logits, moved(0.09, 40), "float32")
    assert agrees(logits, moved(9, 2), "bfloat16") and not agrees(logits, moved(9, 4), "bfloat16")
    assert not agrees(logits, moved(np.nan, 1), "bfloat16")
    assert not agrees(np.zeros_like(logits), np.zeros_like(logits), "bfloat16")


def test_auto_takes_bfloat16_where_it_is_faster(monkeypatch):
    model = resnet18(SHAPE, 5, width=1 / 16, seed=0)
    for faster in (True, False):
        monkeypatch.setattr(search_network, "is_faster", lambda *_, faster=faster: faster)
        assert ("bfloat16" in search_networks(model, IMAGES, "auto")) is faster
    assert set(search_networks(model, IMAGES, "bfloat16")) == {"float32", "bfloat16"}
    assert search_networks(model, IMAGES, "float32") == {}


def test_speed_is_measured():
    small = network(lambda x: L.Conv2D(1, 1)(x))
    large = network(lambda x: L.Conv2D(8, 3)(L.Conv2D(256, 7, padding="same")(x)))
    assert is_faster(small, large, IMAGES) and not is_faster(large, small, IMAGES)


def test_a_call_that_costs_more_than_its_arithmetic_is_not_worth_a_copy(linear, monkeypatch):
    """Of two tiny networks chance decides which is the faster."""
    images = np.zeros((4, 2, 2, 1), np.float32)
    monkeypatch.setattr(search_network, "_WORTH", 0.0)  # all that is timed counts as faster
    assert not is_faster(linear, linear, images)


@pytest.fixture
def linear() -> keras.Model:
    """``z = (s, -s)`` with ``s`` the sum of the four pixels minus 2."""
    images = keras.Input((2, 2, 1))
    model = keras.Model(images, L.Dense(2)(L.Flatten()(images)))
    model.set_weights([np.array([[1.0, -1.0]] * 4), np.array([-2.0, 2.0])])
    return model


def test_the_model_decides_what_the_copy_proposes(linear):
    """A copy with the wrong sign leads away from the boundary; one with an offset stops early."""
    images, labels = np.full((3, 2, 2, 1), 0.6, np.float32), np.zeros(3, int)
    attack = PGD(0.2, steps=5, seed=0)
    assert attack(linear, images, labels).robust_accuracy == 0
    astray = attack.prepare(linear, searches=[lambda x: -linear(x)])(images, labels)
    assert astray.robust_accuracy == 1 and not astray.success.any()
    assert linear(astray.adversarials).numpy()[:, 0].min() > 0
    same = attack(linear, images, labels, precision="bfloat16")
    assert same.robust_accuracy == 0 and (linear(same.adversarials).numpy()[:, 0] < 0).all()


def test_what_a_copy_comes_near_to_is_searched_on_the_model(linear, monkeypatch):
    """A copy that calls a point wrong too early, by a tenth of the image's own scale or by more."""
    images = np.array([0.55, 0.6, 0.7], np.float32)[:, None, None, None] * np.ones((1, 2, 2, 1))
    images, labels = images.astype(np.float32), np.zeros(3, int)
    # The margin is -2 s: -0.4, -0.8 and -1.6, which is the scale. Its sign is the model's from 0 on
    # and the copy's from -0.1 on.
    early = [lambda x: linear(x) - tf.constant([0.1, 0.0]), linear]
    attack = PGD(0.25, steps=250, step_size=0.001, random_start=False)
    alone = attack.prepare(linear, searches=early[:1])(images, labels)
    assert not alone.success.any() and not alone.searched_again.any()
    # It ends a step of 0.008 at most beyond a margin of -0.1.
    margin = alone.nearness * [0.4, 0.8, 1.6]
    assert (margin > -0.1 - 1e-5).all() and (margin < -0.092 + 1e-5).all()
    mask = np.array([True, False, True])
    assert attack(linear, images, labels, mask=mask).nearness[1] == -np.inf
    found = attack.prepare(linear, searches=early)(images, labels)
    # 0.1 is more than a tenth of 0.4 and less than that of 1.6; of 0.8 just less.
    assert found.success.tolist() == found.searched_again.tolist() == [False, False, True]
    assert found.to_dict()["searched_again"] == 1
    monkeypatch.setattr(PGD, "again", 0.02)  # less than a sixteenth of 1.6
    assert not attack.prepare(linear, searches=early)(images, labels).searched_again.any()
    monkeypatch.setattr(PGD, "again", None)
    assert not attack.prepare(linear, searches=early)(images, labels).searched_again.any()


def test_a_suite_searches_in_bfloat16_but_for_its_end(linear, monkeypatch, tmp_path):
    images = np.random.RandomState(2).uniform(size=(220, 2, 2, 1)).astype(np.float32)
    labels = linear(images).numpy().argmax(-1)
    searched: list[tuple[str, str, float | None]] = []
    prepared = EvaluationTask.prepared

    def noted(self, attack, searched_in=None):
        searched.append((attack.name, searched_in, attack.again))
        return prepared(self, attack, searched_in)

    monkeypatch.setattr(EvaluationTask, "prepared", noted)
    task = EvaluationTask(linear, images, labels, eps=0.05, precision="bfloat16")
    found = run_suite(task, "standard", state=tmp_path / "state")
    names = ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert list(dict.fromkeys(searched)) == [
        *((name, "bfloat16", 0.1) for name in names), ("APGD-T in float32", "float32", 0.1),
    ]  # fmt: skip
    searched.clear()
    run_suite(task, "fast")
    assert list(dict.fromkeys(searched)) == [
        ("CR", "bfloat16", None), ("Square (short)", "bfloat16", None),
        ("CR (near)", "bfloat16", None), ("APGD-T (near)", "float32", 0.1),
        ("Square (near)", "bfloat16", 0.02), ("APGD-T in float32 (sample)", "float32", 0.1),
    ]  # fmt: skip
    assert found.results[-1].config["steps"] == 20
    assert found.precision == found.to_dict()["precision"] == "bfloat16"
    # 2 |s| is the distance between the logits; four pixels move it by at most 8 eps.
    logits = linear(images).numpy().astype(float)
    expected = np.abs(logits[:, 0] - logits[:, 1]) > 8 * 0.05
    near = np.abs(np.abs(logits[:, 0] - logits[:, 1]) - 8 * 0.05) < 1e-5
    np.testing.assert_array_equal(found.worst_case[~near], expected[~near])
    # What was begun so goes on so, whatever the clock says today.
    monkeypatch.setattr(search_network, "is_faster", lambda *_: False)
    task = EvaluationTask(linear, images, labels, eps=0.05, precision="auto")
    assert run_suite(task, "standard", state=tmp_path / "state").precision == "bfloat16"
    assert run_suite(task, "standard").precision == "float32"


def test_few_images_and_attacks_one_by_one_are_searched_on_the_model(linear, monkeypatch):
    monkeypatch.setattr(search_network, "is_faster", lambda *_: True)
    images = np.random.RandomState(2).uniform(size=(220, 2, 2, 1)).astype(np.float32)
    labels = linear(images).numpy().argmax(-1)
    task = EvaluationTask(linear, images, labels, eps=0.05, precision="auto")
    assert task.searched_in == "bfloat16"
    assert run_suite(task, [APGD(0.05, steps=2)]).precision == "float32"
    assert task.in_precision("auto") is task
    own = task.in_precision("float32")
    assert own.searched_in == "float32" and task.searched_in == "bfloat16"
    few = EvaluationTask(linear, images[:199], labels[:199], eps=0.05, precision="auto")
    assert few.searched_in == "float32"


def test_suites_search_in_bfloat16_unasked_but_shards_do_not(linear, monkeypatch):
    """At a radius at which all fall at once."""
    monkeypatch.setattr(search_network, "is_faster", lambda *_: True)
    images = np.random.RandomState(2).uniform(size=(220, 2, 2, 1)).astype(np.float32)
    labels = linear(images).numpy().argmax(-1)
    task = EvaluationTask(linear, images, labels, eps=1.0)
    assert run_suite(task, "fast").precision == "bfloat16"
    assert run_suite(task, "standard").precision == "bfloat16"
    assert run_suite(task, "standard", shard=(1, 2)).precision == "float32"
    asked = EvaluationTask(linear, images, labels, eps=1.0, precision="float32")
    assert run_suite(asked, "fast").precision == "float32"
