"""Defense-GAN: the search against closed forms, BPDA's gradient, files, and a run on digits."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM, PGD
from bcgan_tf.data import load_dataset
from bcgan_tf.defenses.defense_gan import DefenseGANTraining
from bcgan_tf.errors import UserError
from bcgan_tf.loading.classifier import load_classifier
from bcgan_tf.models.defended_classifier import DefenseGANClassifier
from bcgan_tf.models.reconstruction import Reconstruction, fixed_starts, nearest_generated
from bcgan_tf.networks.classifiers import small_cnn

SHAPE, LATENT = (8, 8, 1), 6


def generator_of(kernel, activation=None, bias=None):
    noise = keras.Input((len(kernel),))
    dense = keras.layers.Dense(kernel.shape[1], activation)
    model = keras.Model(noise, keras.layers.Reshape(SHAPE)(dense(noise)))
    dense.set_weights([kernel, np.zeros(64, np.float32) if bias is None else bias])
    return model


@pytest.fixture(scope="module")
def basis():
    """``LATENT`` orthonormal rows: the images of a linear generator are a plane through 0."""
    rng = np.random.default_rng(0)
    return np.linalg.qr(rng.normal(size=(64, LATENT)))[0].T.astype(np.float32)


@pytest.fixture(scope="module")
def curved():
    """A generator with several local minima."""
    kernel = np.random.default_rng(1).normal(0, 2.5, (LATENT, 64)).astype(np.float32)
    return generator_of(kernel, "sigmoid")


@pytest.fixture(scope="module")
def classifier():
    rng = np.random.default_rng(2)
    image = keras.Input(SHAPE)
    hidden = keras.layers.Dense(16, "softplus")(keras.layers.Flatten()(image))
    model = keras.Model(image, keras.layers.Dense(4)(hidden))
    model.set_weights([rng.normal(0, 0.5, w.shape).astype(np.float32) for w in model.weights])
    return model


def images_of(generator, count, seed=3):
    z = np.random.default_rng(seed).normal(0, 0.5, (count, LATENT)).astype(np.float32)
    return generator(z).numpy()


def random_images(count, seed=4):
    return np.random.default_rng(seed).random((count, *SHAPE)).astype(np.float32)


def defended_by(classifier, generator, **options):
    return DefenseGANClassifier(classifier, Reconstruction(generator, **options))


def test_an_image_that_the_generator_made_is_found(basis, classifier):
    generator = generator_of(basis)
    images = images_of(generator, 5)
    found, errors = defended_by(classifier, generator, decay=False, restarts=2).reconstruct(images)
    np.testing.assert_allclose(found, images, atol=1e-4)
    assert errors.max() < 1e-8


def test_any_other_image_goes_to_its_projection(basis, classifier):
    images = random_images(5)
    flat = images.reshape(5, 64)
    expected = flat @ basis.T @ basis
    model = defended_by(classifier, generator_of(basis), restarts=2, decay=False)
    found, errors = model.reconstruct(images)
    np.testing.assert_allclose(found.reshape(5, 64), expected, atol=1e-4)
    np.testing.assert_allclose(errors, np.square(flat - expected).mean(1), rtol=1e-4)
    assert errors.min() > 0.01


@pytest.mark.parametrize("decay", [True, False])
def test_every_step_of_the_descent_by_hand(basis, decay):
    steps, rate, momentum = 11, 10.0, 0.7
    images, starts = random_images(3), fixed_starts(5, np.arange(3), 1, LATENT)
    found, errors = nearest_generated(
        generator_of(basis),
        tf.constant(images),
        tf.constant(starts),
        steps=steps,
        learning_rate=rate,
        momentum=momentum,
        decay=decay,
    )
    flat, z = images.reshape(3, 64).astype(np.float64), starts[:, 0].astype(np.float64)
    velocity = np.zeros_like(z)
    for step in range(steps):
        velocity = momentum * velocity + 2 / 64 * (z @ basis - flat) @ basis.T
        z = z - (rate / 10 if decay and step >= 9 else rate) * velocity  # 9 = ceil(0.8 * 11)
    np.testing.assert_allclose(np.reshape(found, (3, 64)), z @ basis, atol=1e-5)
    np.testing.assert_allclose(errors, np.square(z @ basis - flat).mean(1), rtol=1e-5)


def test_the_best_restart_counts(curved, classifier):
    images = random_images(20)
    errors = {
        restarts: defended_by(classifier, curved, steps=30, restarts=restarts).reconstruct(images)[
            1
        ]
        for restarts in (1, 5)
    }
    # The first of the five starts is the one start.
    assert (errors[5] <= errors[1] * (1 + 1e-4)).all()
    assert (errors[5] < 0.95 * errors[1]).mean() > 0.5


def test_a_descent_that_diverged_loses(basis):
    starts = fixed_starts(0, np.arange(2), 2, LATENT)
    starts[:, 0] = np.nan
    settings = {"steps": 200, "learning_rate": 10.0, "momentum": 0.7, "decay": False}
    images = images_of(generator_of(basis), 2)
    found, errors = nearest_generated(
        generator_of(basis), tf.constant(images), tf.constant(starts), **settings
    )
    np.testing.assert_allclose(found, images, atol=1e-4)
    assert errors.numpy().max() < 1e-8


def test_starts_have_the_references_variance_and_follow_seed_and_index():
    starts = fixed_starts(7, np.arange(300), 4, 128)
    assert starts.var() == pytest.approx(1 / 128, rel=0.02)
    np.testing.assert_array_equal(starts[[9, 2], :2], fixed_starts(7, np.array([9, 2]), 2, 128))
    assert np.abs(starts[:5] - fixed_starts(8, np.arange(5), 4, 128)).max() > 0.05


def test_the_layer_draws_starts_of_that_variance(classifier):
    """One tiny step from z0 leaves G(z0) = z0 to be seen."""
    generator = generator_of(np.eye(64, dtype=np.float32))
    layer = Reconstruction(generator, steps=1, restarts=1, learning_rate=1e-6)
    assert layer(np.zeros((50, *SHAPE), np.float32)).numpy().var() == pytest.approx(1 / 64, rel=0.1)


def test_an_image_keeps_its_result_in_any_batch(curved, classifier):
    images, seen = random_images(7), []
    model = defended_by(classifier, curved, steps=20, restarts=3)
    whole = model.logits(
        images, seed=1, progress=lambda *count: seen.append(count[:2]), batch_size=3
    )
    assert seen == [(3, 7), (6, 7), (7, 7)]
    some = np.array([5, 1])
    np.testing.assert_allclose(
        model.logits(images[some], seed=1, indices=some), whole[some], rtol=1e-3, atol=1e-3
    )
    assert np.abs(model.logits(images, seed=2) - whole).max() > 0.01
    assert model.logits(images[:0]).shape == (0, 4)


def test_two_calls_differ_unless_the_starts_are_fixed(curved, classifier):
    images = np.repeat(random_images(1), 3, axis=0)
    model = defended_by(classifier, curved, steps=5, restarts=1)
    graph = tf.function(lambda x: model(x, training=False))
    one, two = graph(images).numpy(), graph(images).numpy()
    assert np.abs(one - two).max() > 0.01  # two calls of one traced graph
    assert np.abs(one[0] - one[1]).max() > 0.01
    fixed = model.with_fixed_starts(seed=3)
    answer = fixed(images).numpy()
    np.testing.assert_allclose(fixed(images[:1]), answer[1:2], atol=1e-4)
    np.testing.assert_allclose(answer[0], answer[2], atol=1e-4)
    assert np.abs(model.with_fixed_starts(seed=4)(images) - answer).max() > 0.01


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_is_the_classifiers_at_the_reconstruction(curved, classifier, compiled):
    model = defended_by(classifier, curved, steps=20, restarts=2).with_fixed_starts()
    images, labels = tf.constant(random_images(4)), tf.constant([0, 1, 2, 3])

    def gradient(function, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, function(inputs))
        return tape.gradient(loss, inputs)

    of_defended = tf.function(gradient) if compiled else gradient
    expected = gradient(classifier, model.reconstruction(images))
    np.testing.assert_allclose(of_defended(model, images), expected, rtol=1e-3, atol=1e-4)
    assert np.abs(expected - gradient(classifier, images)).max() > 0.05  # not at the image


def test_without_bpda_gradient_attacks_refuse(curved, classifier):
    model = defended_by(classifier, curved, steps=5, restarts=1, bpda=False)
    images = random_images(6)
    labels = np.asarray(classifier(images)).argmax(-1)
    with pytest.raises(UserError, match="no gradient"):
        PGD(0.1, steps=2)(model, images, labels)


def test_a_file_brings_everything_back(curved, classifier, tmp_path):
    model = defended_by(classifier, curved, steps=7, restarts=3, momentum=0.5, decay=False)
    model.save(tmp_path / "defended.keras")
    loaded = load_classifier(tmp_path / "defended.keras", image_shape=SHAPE, num_classes=4)
    assert isinstance(loaded, DefenseGANClassifier)
    search = loaded.reconstruction
    assert (search.steps, search.restarts, search.momentum, search.decay) == (7, 3, 0.5, False)
    images = random_images(3)
    np.testing.assert_allclose(loaded.logits(images), model.logits(images), atol=1e-5)
    assert not loaded.reconstruction.trainable_variables and loaded.classifier.trainable_variables


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def hardened(digits, tmp_path_factory):
    """A small network behind a small GAN, both trained here."""
    keras.utils.set_random_seed(0)  # fit shuffles
    undefended = small_cnn(digits.image_shape, digits.num_classes, seed=0)
    undefended.compile(
        keras.optimizers.Adam(2e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    undefended.fit(digits.train.scaled(), digits.train.labels, 64, epochs=8, verbose=0)
    defense = DefenseGANTraining(
        steps=80,
        restarts=3,
        gan_epochs=35,
        gan_batch_size=16,
        critic_steps=3,
        gan_learning_rate=1e-3,
        latent_dim=32,
        generator_width=0.25,
        critic_width=0.125,
    )
    stages, folder = [], tmp_path_factory.mktemp("run")
    before = [w.numpy() for w in undefended.weights]
    defended = defense.harden(
        undefended, digits, directory=folder, callbacks=lambda stage: stages.append(stage) or []
    )
    assert stages == ["defense-gan"] and (folder / "defense-gan" / "epoch-0035").is_dir()
    for mine, other in zip(before, defended.classifier.weights, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert defended.classifier is not undefended
    return undefended, defended


def test_digits_survive_a_transferred_attack_and_fall_to_a_white_box(digits, hardened):
    undefended, defended = hardened
    images, labels = digits.test.scaled(0, 100), digits.test.labels[:100]
    found = FGSM(0.2)(undefended, images, labels)

    def accuracy(inputs):
        return (defended.logits(inputs).argmax(-1) == labels).mean()

    transferred = accuracy(found.adversarials)
    # Prepared: whether it can be attacked is not asked, which takes more calls than the attack.
    attack = PGD(0.3, steps=8, step_size=0.08).prepare(defended)
    white_box = attack(images[:50], labels[:50])
    assert accuracy(images) > 0.8
    assert transferred > found.robust_accuracy + 0.1
    assert white_box.clean_accuracy > 0.8 and white_box.robust_accuracy < 0.4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"search_learning_rate": 0.0}, "learning_rate is 0"),
        ({"momentum": 1.0}, "momentum is 1"),
        ({"gan_epochs": 0}, "gan_epochs is 0"),
        ({"generator_width": 0.0}, "generator_width is 0"),
        ({"penalty": -1.0}, "penalty is -1"),
    ],
)
def test_settings_out_of_range_are_refused(options, named):
    with pytest.raises(UserError, match=named):
        DefenseGANTraining(**options)


def test_vectors_are_refused():
    with pytest.raises(UserError, match="makes images"):
        DefenseGANTraining().build_gan(load_dataset("gaussians"))


def test_the_papers_settings_are_the_defaults():
    defense = DefenseGANTraining()
    assert (defense.steps, defense.restarts, defense.latent_dim) == (200, 10, 128)
    assert (defense.search_learning_rate, defense.momentum) == (10.0, 0.7)
    assert math.isclose(defense.penalty, 10) and defense.critic_steps == 5
