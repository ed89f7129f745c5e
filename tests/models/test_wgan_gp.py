"""WGAN-GP: the penalty by hand, one step in NumPy, replicas, resume, and a distribution learnt."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import distribute, losses, randomness
from bcgan_tf.data import Split
from bcgan_tf.errors import UserError
from bcgan_tf.models.wgan_gp import _NOISE_C, _NOISE_G, WGANGP, gradient_norm
from bcgan_tf.training.checkpoints import state_variables
from bcgan_tf.training.fit import fit

SIZE, LATENT, ROWS, UPDATES, SEED = 5, 4, 8, 2, 11
PENALTY, RATES = 3.0, (0.5, 0.1)  # of the generator, of the critic


def values(model):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in model.weights]


def linear_critic(kernel, bias):
    image = keras.Input((len(kernel),))
    critic = keras.Model(image, keras.layers.Reshape(())(keras.layers.Dense(1)(image)))
    critic.set_weights([np.reshape(kernel, (-1, 1)), np.float32([bias])])
    return critic


def test_the_gradient_norm_of_a_linear_critic_is_that_of_its_weights():
    kernel = np.float32([3.0, 0.0, -4.0])
    norm = gradient_norm(linear_critic(kernel, 7.0), tf.random.normal([6, 3]))
    np.testing.assert_allclose(norm, np.full(6, 5.0), rtol=1e-6)


def test_the_gradient_norm_of_a_quadratic_critic_is_each_examples_own():
    image = keras.Input((3,))
    critic = keras.Model(image, keras.ops.sum(image * image, axis=1) / 2)  # its gradient is x
    points = np.float32([[3, 4, 0], [0, 0, 2], [1, 1, 1]])
    norm = gradient_norm(critic, tf.constant(points))
    np.testing.assert_allclose(norm, [5, 2, np.sqrt(3)], rtol=1e-6)


def test_a_critic_without_slope_has_a_finite_penalty():
    critic = linear_critic(np.zeros(3, np.float32), 0.0)
    with tf.GradientTape() as tape:
        penalty = tf.reduce_sum(tf.square(gradient_norm(critic, tf.ones([2, 3])) - 1))
    gradient = tape.gradient(penalty, critic.trainable_variables[0])
    assert penalty.numpy() == pytest.approx(2, abs=1e-4) and np.isfinite(gradient).all()


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(0, 0.8, shape).astype(np.float32)

    images = draw(ROWS * UPDATES, SIZE)
    return {"A": draw(LATENT, SIZE), "b": draw(SIZE), "w": draw(SIZE), "images": images}


def linear_gan(arrays, chosen):
    with distribute.scope(chosen):
        noise = keras.Input((LATENT,))
        generator = keras.Model(noise, keras.layers.Dense(SIZE)(noise))
        critic = linear_critic(arrays["w"], 0.3)
        gan = WGANGP(generator, critic, penalty=PENALTY, critic_steps=UPDATES, seed=SEED)
        gan.compile(*(keras.optimizers.SGD(rate) for rate in RATES))
    generator.set_weights([arrays["A"], arrays["b"]])
    return gan


def expected_step(arrays):
    """Two SGD updates of the critic ``w`` and one of the generator ``A``, ``b``, in float64."""
    a, b, w = (arrays[name].astype(np.float64) for name in "Abw")
    images = arrays["images"].astype(np.float64)

    def latent(purpose, step):
        seed = randomness.step_seed(SEED, purpose, tf.constant(step))
        return randomness.global_normal(seed, ROWS, LATENT).numpy().astype(np.float64)

    for update in range(UPDATES):
        fakes = latent(_NOISE_C, update) @ a + b
        norm = np.linalg.norm(w)
        # Everywhere the same slope w, so where the mixture lies does not matter.
        slope = fakes.mean(0) - images[update::UPDATES].mean(0)
        w = w - RATES[1] * (slope + PENALTY * 2 * (norm - 1) * w / norm)
    z = latent(_NOISE_G, 0)
    return a + RATES[0] * np.outer(z.mean(0), w), b + RATES[0] * w, w


def one_step(gan, arrays):
    labels = np.zeros(len(arrays["images"]), np.int64)
    gan.fit(tf.data.Dataset.from_tensors((arrays["images"], labels)), verbose=0, shuffle=False)
    a, b = values(gan.generator)
    return a, b, values(gan.critic)[0][:, 0]


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_step_is_what_numpy_computes(arrays, two_replicas, replicas):
    found = one_step(linear_gan(arrays, two_replicas if replicas == 2 else None), arrays)
    for mine, expected, name in zip(found, expected_step(arrays), "Abw", strict=True):
        np.testing.assert_allclose(mine, expected, atol=2e-6)
        assert np.abs(expected - arrays[name]).max() > 0.05  # of a step, not of initial states


def test_a_plain_mean_on_two_replicas_does_not_match(arrays, two_replicas, monkeypatch):
    """The check above can fail."""
    monkeypatch.setattr(losses, "average", tf.reduce_mean)
    found = one_step(linear_gan(arrays, two_replicas), arrays)
    assert np.abs(found[2] - expected_step(arrays)[2]).max() > 0.05


def image_gan(chosen=None, optimizer=lambda: keras.optimizers.Adam(1e-3, 0.5, 0.9)):
    def dense(units, seed, **options):
        kernel = keras.initializers.GlorotUniform(seed=seed)
        return keras.layers.Dense(units, kernel_initializer=kernel, **options)

    with distribute.scope(chosen):
        noise, image = keras.Input((6,)), keras.Input((8, 8, 1))
        pixels = dense(64, 2, activation="sigmoid")(dense(12, 1, activation="relu")(noise))
        hidden = dense(12, 3, activation="softplus")(keras.layers.Flatten()(image))
        gan = WGANGP(
            keras.Model(noise, keras.layers.Reshape((8, 8, 1))(pixels)),
            keras.Model(image, keras.layers.Reshape(())(dense(1, 4)(hidden))),
            critic_steps=2,
            seed=3,
        )
        gan.compile(optimizer(), optimizer())
    return gan


def test_two_replicas_train_like_one(some, two_replicas):
    """The mixtures, drawn per example, included; every log as well."""
    found = []
    for chosen in (None, two_replicas):
        gan = image_gan(chosen, lambda: keras.optimizers.SGD(0.01))
        found.append((gan, fit(gan, some, epochs=2, batch_size=16, seed=0)))
    (one, logs), (two, other_logs) = found
    start = image_gan()
    for network in ("generator", "critic"):
        weights = [values(getattr(gan, network)) for gan in (one, two, start)]
        for mine, other in zip(*weights[:2], strict=True):
            np.testing.assert_allclose(mine, other, atol=2e-6)
        assert np.abs(weights[0][0] - weights[2][0]).max() > 1e-4
    for log, other in zip(logs, other_logs, strict=True):
        assert log == pytest.approx(other, abs=1e-4)


def test_a_resumed_training_equals_an_uninterrupted_one(some, tmp_path):
    def run(epochs, folder, resume=False):
        gan = image_gan()
        logs = fit(gan, some, epochs=epochs, batch_size=16, seed=0, directory=folder, resume=resume)
        return [np.array(v.numpy()) for v in state_variables(gan)], logs

    whole, logs = run(4, tmp_path / "whole")
    half, _ = run(2, tmp_path / "parts")
    again, again_logs = run(4, tmp_path / "parts", resume=True)
    for mine, other in zip(whole, again, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)
    assert sum(np.abs(a - b).max() > 1e-4 for a, b in zip(half, again, strict=True)) > 15
    assert [log["epoch"] for log in again_logs] == [0, 1, 2, 3]
    for log, other in zip(logs, again_logs, strict=True):
        assert log == pytest.approx(other, abs=1e-5)


def test_a_saved_gan_comes_back_whole(some, tmp_path):
    gan = image_gan()
    fit(gan, some, epochs=1, batch_size=16, seed=0)
    gan.save(tmp_path / "gan.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # moments are else lost with a mere warning
        loaded = keras.models.load_model(tmp_path / "gan.keras")
    assert (loaded.critic_steps, loaded.seed, loaded.penalty) == (2, 3, 10)
    assert [int(optimizer.iterations) for optimizer in loaded.optimizers] == [4, 8]
    for mine, other in zip(values(gan), values(loaded), strict=True):
        np.testing.assert_array_equal(mine, other)
    for mine, theirs in zip(gan.optimizers, loaded.optimizers, strict=True):
        assert mine.get_config() == theirs.get_config()
        for one, other in zip(mine.variables, theirs.variables, strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(gan.generate(7, seed=1), loaded.generate(7, seed=1))


def test_generated_images_depend_on_seed_and_place_alone():
    gan = image_gan()
    images = gan.generate(7, seed=1, batch_size=3)
    np.testing.assert_allclose(images[:2], gan.generate(2, seed=1), atol=1e-6)
    assert images.shape == (7, 8, 8, 1) and np.abs(images - gan.generate(7, seed=2)).max() > 1e-3


def test_an_affine_generator_learns_the_mean_and_the_spread_of_a_gaussian():
    rng = np.random.default_rng(0)
    points = rng.normal([0.3, -0.2], [0.1, 0.4], (2000, 2)).astype(np.float32)
    noise, point = keras.Input((2,)), keras.Input((2,))
    start = keras.initializers.Constant(np.eye(2, dtype=np.float32) * 0.25)
    generator = keras.Model(noise, keras.layers.Dense(2, kernel_initializer=start)(noise))
    hidden = keras.layers.Dense(
        32, "leaky_relu", kernel_initializer=keras.initializers.HeNormal(seed=1)
    )(point)
    score = keras.layers.Dense(1, kernel_initializer=keras.initializers.HeNormal(seed=2))(hidden)
    gan = WGANGP(generator, keras.Model(point, keras.layers.Reshape(())(score)), seed=0)
    gan.compile(*(keras.optimizers.Adam(rate, 0.5, 0.9) for rate in (2e-3, 1e-2)))
    split = Split(points, np.zeros(len(points), np.int64))
    fit(gan, split, epochs=80, batch_size=500, seed=0)
    kernel, bias = generator.get_weights()
    np.testing.assert_allclose(bias, points.mean(0), atol=0.06)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), points.std(0), atol=0.06)


def test_a_batch_that_does_not_divide_is_refused(some):
    with pytest.raises(UserError, match="does not divide into 2 updates"):
        fit(image_gan(), some, epochs=1, batch_size=15, seed=0)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"penalty": -1.0}, "penalty is -1"), ({"critic_steps": 0}, "critic_steps is 0")],
)
def test_settings_out_of_range_are_refused(options, named):
    critic = linear_critic(np.ones(3, np.float32), 0.0)
    with pytest.raises(UserError, match=named):
        WGANGP(critic, critic, **options)
