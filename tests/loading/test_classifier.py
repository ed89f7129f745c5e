"""Users' models: what is accepted, and one line for each mistake."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.loading.classifier import input_shape, load_classifier
from bcgan_tf.networks.classifiers import mlp, resnet18, small_cnn
from helpers.classifiers import SHAPE, Subclassed, functional, refused


class Unregistered(keras.layers.Layer):
    def call(self, inputs):
        return inputs


# Accepted


@pytest.mark.parametrize(
    "model",
    [
        lambda: small_cnn(SHAPE, 3),
        lambda: resnet18(SHAPE, 3, width=1 / 16, dtype="mixed_bfloat16"),
        lambda: keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), mlp(64, 3)]),
        lambda: functional(keras.layers.Rescaling(2.0, offset=-1.0)),
        lambda: functional(keras.layers.Normalization(mean=0.1307, variance=0.3081**2)),
        lambda: functional(activation="log_softmax"),
    ],
)
def test_a_model_object_comes_back_itself_unchanged(model):
    model = model()
    weights = [weight.copy() for weight in model.get_weights()]
    assert load_classifier(model, image_shape=SHAPE, num_classes=3) is model
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_gives_the_same_logits(tmp_path, suffix):
    model = small_cnn(SHAPE, 3)
    model.compile("adam", "mse")
    model.save(tmp_path / f"model{suffix}")
    images = np.random.default_rng(0).random((4, *SHAPE), "float32")
    loaded = load_classifier(str(tmp_path / f"model{suffix}"))
    assert not loaded.compiled
    np.testing.assert_allclose(loaded(images), model(images), atol=1e-6)


def test_vectors_may_lie_anywhere():
    model = functional(keras.layers.Rescaling(0.001), shape=(2,))
    assert load_classifier(model, image_shape=(2,)) is model


def test_free_sides_are_filled_by_the_image_shape():
    images = keras.Input((None, None, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    model = keras.Model(images, keras.layers.Dense(3)(pooled))
    assert load_classifier(model, image_shape=SHAPE) is model
    refused(model, r"\(None, None, 1\)", "image_shape=")


@pytest.mark.parametrize(
    "model",
    [
        lambda: Subclassed(),
        lambda: keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)]),
    ],
)
def test_an_unbuilt_model_is_built_for_any_batch_size(model):
    model = model()
    refused(model, "does not fix its input shape", "image_shape=")
    load_classifier(model, image_shape=SHAPE, num_classes=3)
    assert input_shape(model) == SHAPE
    assert model(np.zeros((5, *SHAPE), "float32"), training=False).shape == (5, 3)


def test_a_subclassed_file_with_its_class_registered(tmp_path):
    model = Subclassed()
    model(np.zeros((1, *SHAPE), "float32"))
    model.save(tmp_path / "model.keras")
    with keras.saving.custom_object_scope({"Subclassed": Subclassed}):
        loaded = load_classifier(tmp_path / "model.keras", num_classes=3)
    np.testing.assert_array_equal(loaded.dense.kernel, model.dense.kernel)


# Files


def test_missing_folder_and_foreign_files(tmp_path):
    refused(tmp_path / "none.keras", "none.keras does not exist")
    refused(tmp_path, "is a folder")
    (tmp_path / "model.pt").write_bytes(b"1")
    refused(tmp_path / "model.pt", "no .keras or .h5 file", "model.save")


def test_weights_without_a_model(tmp_path):
    path = tmp_path / "classifier.weights.h5"
    small_cnn(SHAPE, 3).save_weights(path)
    refused(path, "weights without their model")
    path.rename(tmp_path / "classifier.h5")
    refused(tmp_path / "classifier.h5", "cannot be read", "No model config")


def test_cut_short_at_every_length(tmp_path):
    path = tmp_path / "classifier.keras"
    small_cnn(SHAPE, 3).save(path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "cut short")


def test_damaged_inside(tmp_path):
    path = tmp_path / "classifier.keras"
    small_cnn(SHAPE, 3).save(path)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 2000] = bytes(2000)
    path.write_bytes(whole)
    refused(path, "cannot be read as a Keras model")


def test_a_zip_and_an_hdf5_of_something_else(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme", "no model")
    refused(tmp_path / "other.keras", "cannot be read", "config.json")
    (tmp_path / "other.h5").write_bytes(b"no hdf5")
    refused(tmp_path / "other.h5", "cannot be read")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_custom_layer(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    functional(Unregistered()).save(path)
    refused(path, "custom object 'Unregistered'", "custom_objects")


def test_custom_model_class(tmp_path):
    model = Subclassed()
    model(np.zeros((1, *SHAPE), "float32"))
    model.save(tmp_path / "model.keras")
    refused(tmp_path / "model.keras", "custom object 'Subclassed'", "custom_objects")


def test_lambda_is_not_run(tmp_path):
    functional(keras.layers.Lambda(lambda x: x)).save(tmp_path / "model.keras")
    refused(tmp_path / "model.keras", "Lambda", "safe_mode=False")


# Structure


def test_not_a_keras_model():
    refused(lambda images: images, "not a Keras 3 model")


def test_several_inputs():
    one, two = keras.Input(SHAPE), keras.Input(SHAPE)
    flat = keras.layers.Flatten()(keras.layers.Add()([one, two]))
    refused(keras.Model([one, two], keras.layers.Dense(3)(flat)), "several inputs")


def test_wrong_class_count():
    refused(small_cnn(SHAPE, 3), "3 outputs, but there are 10 classes", num_classes=10)


def test_a_map_instead_of_a_row():
    images = keras.Input(SHAPE)
    refused(keras.Model(images, keras.layers.Conv2D(3, 1)(images)), "flatten or pool")


def test_a_model_that_fails_on_its_own_images():
    class Broken(Subclassed):
        def call(self, images):
            return keras.ops.reshape(images, (7, 11))

    refused(Broken(), "fails on a batch", image_shape=SHAPE)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_not_finite(poison):
    model = functional()
    kernel, bias = model.layers[-1].get_weights()
    bias[1] = poison
    model.layers[-1].set_weights([kernel, bias])
    refused(model, "NaN or infinite", "train it again")
