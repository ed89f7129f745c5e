"""What other programs get out of an export."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bcgan_tf.networks.classifiers import mlp, small_cnn
from bcgan_tf.serving.export import export, verify
from helpers.exports import NAMES, encoded, pixels, scaled


def test_other_programs_get_the_classifiers_answers(classifier, exported, tmp_path):
    """`saved_model_cli run`, and TensorFlow where neither bcgan_tf nor Keras can be imported."""
    images = pixels(6, 8, 8, 1)
    np.save(tmp_path / "images.npy", scaled(images))
    np.save(tmp_path / "image_bytes.npy", encoded(images), allow_pickle=True)
    expected = np.asarray(classifier(scaled(images), training=False))
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run"]
    of_model = ["--dir", str(exported), "--tag_set", "serve", "--signature_def", "serving_default"]
    files = ["--inputs", f"images={tmp_path / 'images.npy'}", "--outdir", str(tmp_path)]
    script = (
        "import sys\n"
        "sys.modules['bcgan_tf'] = sys.modules['keras'] = None\n"
        "import numpy as np, tensorflow as tf\n"
        "model = tf.saved_model.load(sys.argv[1])\n"
        "strings = np.load('image_bytes.npy', allow_pickle=True).tolist()\n"
        "found = model.signatures['serve_bytes'](image_bytes=tf.constant(strings))\n"
        "np.savez('bytes.npz', **{name: value.numpy() for name, value in found.items()})\n"
    )
    commands = [[*tool, *of_model, *files], [sys.executable, "-c", script, str(exported)]]
    running = [
        subprocess.Popen(
            command, cwd=tmp_path, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for command in commands
    ]
    for process in running:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output.decode()
    answers = {
        "saved_model_cli": {
            name: np.load(tmp_path / f"{name}.npy")
            for name in ("logits", "probabilities", "classes")
        },
        "tensorflow alone": dict(np.load(tmp_path / "bytes.npz")),
    }
    for found in answers.values():
        assert set(found) == {"logits", "probabilities", "classes"}
        np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
        np.testing.assert_allclose(found["probabilities"].sum(1), 1, atol=1e-5)
        np.testing.assert_array_equal(found["classes"], expected.argmax(1))
        assert found["classes"].dtype == np.int64


@pytest.mark.parametrize("rows", [1, 5])
def test_bytes_and_images_agree_to_the_bit(signatures, rows):
    images = pixels(rows, 8, 8, 1)
    direct = signatures["serving_default"](images=tf.constant(scaled(images)))
    strings = tf.constant(encoded(images).tolist(), tf.string, shape=[rows])
    from_bytes = signatures["serve_bytes"](image_bytes=strings)
    for name in ("logits", "probabilities", "classes"):
        np.testing.assert_array_equal(direct[name], from_bytes[name])


def test_signatures_are_named_and_typed(signatures):
    assert set(signatures) == {"serving_default", "serve_bytes", "serve"}
    (images,) = signatures["serving_default"].structured_input_signature[1].values()
    (strings,) = signatures["serve_bytes"].structured_input_signature[1].values()
    assert (images.name, images.shape.as_list(), images.dtype) == (
        "images",
        [None, 8, 8, 1],
        tf.float32,
    )
    assert (strings.name, strings.shape.as_list(), strings.dtype) == (
        "image_bytes",
        [None],
        tf.string,
    )


@pytest.fixture(scope="module")
def pixel_reader(tmp_path_factory):
    """serve_bytes of models whose logits are the 5 x 4 pixels themselves, grey and colour."""
    readers = {}
    for channels in (1, 3):
        model = keras.Sequential(
            [
                keras.Input((5, 4, channels)),
                keras.layers.Flatten(),
                keras.layers.Dense(20 * channels, kernel_initializer="identity"),
            ]
        )
        directory = tmp_path_factory.mktemp("readers") / f"reader{channels}"
        path = export(model, directory, class_names=[str(i) for i in range(20 * channels)], card={})
        readers[channels] = tf.saved_model.load(str(path)).signatures["serve_bytes"]

    def read(strings: np.ndarray, channels: int) -> np.ndarray:
        logits = readers[channels](image_bytes=tf.constant(strings.tolist()))["logits"]
        return logits.numpy().reshape(-1, 5, 4, channels)

    return read


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
@pytest.mark.parametrize("options", [{"quality": 70}, {"quality": 90, "progressive": True}])
def test_jpeg_pixels_are_those_that_pillow_trains_on(pixel_reader, mode, channels, options):
    strings = encoded(pixels(3, 5, 4, channels), "JPEG", **options)
    expected = [np.asarray(Image.open(io.BytesIO(string)).convert(mode)) for string in strings]
    expected = scaled(np.stack(expected).reshape(3, 5, 4, channels))
    np.testing.assert_array_equal(pixel_reader(strings, channels), expected)


def test_colour_for_a_grey_model_and_grey_for_a_colour_model(pixel_reader):
    colour, grey = pixels(2, 5, 4, 3), pixels(2, 5, 4, 1)
    luminance = colour @ np.array([0.299, 0.587, 0.114])
    found = 255 * pixel_reader(encoded(colour), 1)[..., 0]
    assert np.abs(found - luminance).max() <= 1  # libpng rounds down
    np.testing.assert_array_equal(
        pixel_reader(encoded(grey), 3), scaled(np.repeat(grey, 3, axis=-1))
    )


def test_transparency_is_dropped(pixel_reader):
    rgba = pixels(2, 5, 4, 4)
    np.testing.assert_array_equal(pixel_reader(encoded(rgba), 3), scaled(rgba[..., :3]))


def test_large_images_are_averaged_not_sampled(pixel_reader):
    """A chessboard of single pixels is grey from afar; plain sampling would see black or white."""
    board = np.uint8(255 * (np.indices((400, 320)).sum(0) % 2))[None, ..., None]
    np.testing.assert_allclose(pixel_reader(encoded(board), 1), 0.5, atol=0.01)


def test_a_batch_of_different_sizes(pixel_reader):
    sizes = [(1, 1), (5, 4), (30, 3)]
    flat = [np.full((1, *size, 1), 51, np.uint8) for size in sizes]
    strings = np.concatenate([encoded(image) for image in flat])
    np.testing.assert_allclose(pixel_reader(strings, 1), 51 / 255, atol=1e-6)


def test_vectors_get_one_signature(tmp_path):
    model = mlp(2, 2)
    path = export(model, tmp_path / "toy", class_names=("red", "blue"), card={})
    loaded = tf.saved_model.load(str(path)).signatures
    assert set(loaded) == {"serving_default", "serve"}
    points = np.float32([[-30, 2], [0.5, 40]])
    found = loaded["serving_default"](images=tf.constant(points))["logits"]
    np.testing.assert_allclose(found, model(points), atol=1e-5)
    card = json.loads((path / "export.json").read_text())
    assert card["input"] == {"shape": [2], "dtype": "float32", "range": None}


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
def test_batch_norm_serves_its_moving_statistics(tmp_path, dtype):
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False, dtype=dtype)(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(dtype=dtype)(x))
    x = keras.layers.GlobalAveragePooling2D(dtype=dtype)(x)
    model = keras.Model(image, keras.layers.Dense(4, dtype="float32")(x))
    model(np.float32(np.random.default_rng(0).random((32, 8, 8, 3))), training=True)
    path = export(model, tmp_path / "normalized", class_names=NAMES, card={})
    assert verify(path, model) <= 1e-5
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert serve(images=tf.zeros([0, 8, 8, 3]))["logits"].shape == (0, 4)


def test_a_mirrored_model_is_exported(tmp_path, two_replicas):
    with two_replicas.scope():
        model = small_cnn((8, 8, 1), 4)
    path = export(model, tmp_path / "mirrored", class_names=NAMES, card={})
    assert verify(path, model) <= 1e-5


# Warm-up


def test_warm_up_requests_are_what_a_server_replays(exported, signatures, classifier):
    apis = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    file = exported / "assets.extra" / "tf_serving_warmup_requests"
    requests = [
        apis.PredictionLog.FromString(record.numpy()).predict_log.request
        for record in tf.data.TFRecordDataset(str(file))
    ]
    assert [request.model_spec.signature_name for request in requests] == [
        "serving_default",
        "serve_bytes",
    ]
    answers = []
    for request in requests:
        assert request.model_spec.name == "digits"
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        answers.append(signatures[request.model_spec.signature_name](**inputs)["logits"].numpy())
    assert answers[0].shape == (1, 4)
    np.testing.assert_array_equal(*answers)


def test_without_the_serving_api_there_is_no_warm_up(classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    path = export(classifier, tmp_path / "model", class_names=NAMES, card={})
    assert [file.name for file in (path / "assets.extra").iterdir()] == ["classifier.keras"]
