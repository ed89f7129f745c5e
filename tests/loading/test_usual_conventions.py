"""A model that gets other pixels than it was trained on is noticed, and only such a one."""

from __future__ import annotations

import json
from pathlib import Path

import click.testing
import keras
import numpy as np
import pytest

import bcgan_tf
from bcgan_tf import Convention, UserError
from bcgan_tf.cli import main, session
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.loading.usual_conventions import check_convention, check_with
from helpers.as_it_is import short_attack
from helpers.users_models import MODELS, fit, network

TRAINED_ON = {
    "pixels of 0 to 255": "0..255",
    "pixels of -1 to 1": "-1..1",
    "standardized pixels": None,
    "simple MNIST convnet": "0..1",
}


@pytest.fixture(scope="module", params=TRAINED_ON)
def trained(request):
    case = MODELS[request.param]
    return case, case.trained(), TRAINED_ON[request.param]


def _classifier(model, images, convention):
    return load_classifier(model, image_shape=images.shape[1:], convention=convention)


def test_with_its_own_pixels_it_is_taken(trained) -> None:
    case, model, _ = trained
    images, labels = case.data(500)
    classifier = _classifier(model, images, case.convention)
    check_convention("net", classifier, images, labels, case.convention)
    check_convention("net", classifier, images, labels, Convention(**case.convention.given))


@pytest.fixture
def shifted():
    """A classifier of 2x2 pixels by the brightest, which a tilt hides unless one is below 0."""
    images = np.random.default_rng(0).integers(0, 256, (500, 2, 2, 1), np.uint8)
    labels = images.reshape(-1, 4).argmax(1)

    def classifier(pixels):
        values = np.asarray(pixels).reshape(-1, 4)
        tilt = np.outer(values.sum(1) + 3.0, [0.0, 0.3, 0.6, 0.9])
        return (values - tilt * (values.min(1, keepdims=True) >= 0)).astype(np.float32)

    import tensorflow as tf

    return (
        lambda x: tf.ensure_shape(tf.numpy_function(classifier, [x], tf.float32), [None, 4]),
        images,
        labels,
    )


def test_another_range_is_named_with_its_option(shifted) -> None:
    classifier, images, labels = shifted
    with pytest.raises(UserError) as caught:
        check_convention("net", classifier, images, labels)
    text = str(caught.value)
    own = np.asarray(classifier(images / np.float32(127.5) - 1)).argmax(1)
    share = (own == labels).mean()
    assert share > 0.9
    assert f"of 500 images right when it gets pixels of 0 to 1, but {share:.1%} with" in text
    assert "--input-range -1..1" in text and "keep to pixels of 0 to 1: --input-range 0..1" in text


def test_what_is_stated_is_kept_with_a_line(shifted, capsys) -> None:
    classifier, images, labels = shifted
    check_convention("net", classifier, images, labels, Convention(input_range="0..1"))
    assert "--input-range 0..1 is kept" in capsys.readouterr().err


def test_a_gain_that_chance_explains_is_none(shifted) -> None:
    classifier, images, labels = shifted
    noise = np.random.default_rng(1).integers(0, 4, 500)
    check_convention("net", classifier, images, noise)
    check_convention("net", classifier, images[:10], labels[:10])


def test_python_s_entries_check_it(trained) -> None:
    case, model, named = trained
    if named != "-1..1":
        return
    images, labels = case.data(500)
    for call in (
        lambda: bcgan_tf.evaluate(model, images, labels, eps=0.1),
        lambda: bcgan_tf.defenses.PGDTraining(eps=0.1).harden(model, images, labels),
    ):
        with pytest.raises(UserError, match=r"--input-range -1\.\.1"):
            call()


# How the user of one network shows it MNIST, what has to be said, and what the message names.
ON_MNIST = {
    "-1..1": (
        lambda images: images / np.float32(127.5) - 1,
        Convention(input_range="-1..1"),
        "--input-range -1..1",
    ),
    "0..255": (
        lambda images: images.astype("float32"),
        Convention(input_range="0..255"),
        "--input-range 0..255",
    ),
    "standardized": (
        lambda images: (images / np.float32(255) - 0.1307) / 0.3081,
        Convention(mean=(0.1307,), std=(0.3081,)),
        "--mean 0.1277 --std 0.3047",  # of the 500 images that are tried
    ),
}


@pytest.fixture(scope="module", params=ON_MNIST)
def on_mnist(request, mnist):
    shown, convention, named = ON_MNIST[request.param]
    keras.utils.set_random_seed(0)
    convolution = keras.layers.Conv2D(8, 3, strides=2, activation="relu")
    model, some = network((28, 28, 1), before=[convolution]), mnist.train.take(6000)
    fit(model, shown(some.images), some.labels, "sparse_categorical_crossentropy", 1e-3, 3)
    return model, shown, convention, named


def _own_accuracy(model, images, labels) -> float:
    return float((model.predict(images, verbose=0).argmax(1) == labels).mean())


@pytest.mark.real_data
def test_mnist_with_the_preprocessing_outside(on_mnist, mnist) -> None:
    """Stopped with the option named; with it, the accuracy is the user's own."""
    model, shown, convention, named = on_mnist
    as_given = _classifier(model, mnist.train.images, None)
    with pytest.raises(UserError, match=f"say so: {named}"):
        check_with("net", as_given, mnist.train, None)
    classifier = _classifier(model, mnist.train.images, convention)
    check_with("net", classifier, mnist.train, convention)
    test = mnist.test.take(2000)
    found = np.asarray(classifier(test.images / np.float32(255))).argmax(1)
    own = _own_accuracy(model, shown(test.images), test.labels)
    assert own == (found == test.labels).mean() > 0.8


@pytest.mark.real_data
def test_attack_of_such_a_model_on_mnist(on_mnist, mnist, tmp_path: Path, monkeypatch) -> None:
    model, shown, convention, named = on_mnist
    if convention.input_range != "-1..1":
        pytest.skip("one of the three is enough for the command")
    model.save(tmp_path / "net.keras")
    monkeypatch.setattr(session, "load_data", lambda *_: mnist)  # read once, for all
    command = ["attack", str(tmp_path / "net.keras"), "--dataset", "mnist", "--no-diagnose"]
    command += ["--eps", "0.1", "--n", "50", "--run-dir", str(tmp_path / "a")]
    refused = click.testing.CliRunner().invoke(main, command)
    assert refused.exit_code == 1 and f"say so: {named}" in refused.stderr
    assert not (tmp_path / "a").exists()
    with short_attack():
        done = click.testing.CliRunner().invoke(main, [*command, *named.split()])
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    test = mnist.test.take(50, seed=0)
    (attacked,) = metrics["models"].values()
    own = _own_accuracy(model, shown(test.images), test.labels)
    assert attacked["clean_accuracy"] == own
