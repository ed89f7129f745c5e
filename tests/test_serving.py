"""Serving: what other programs get out of an export, and that they never see half of one."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import bcgan_tf
from bcgan_tf import serving
from bcgan_tf.data.dataset import Split
from bcgan_tf.errors import UserError
from bcgan_tf.networks.classifiers import mlp, resnet18, small_cnn
from bcgan_tf.serving import export, verify

NAMES = tuple("abcd")
CARD = {
    "defense": {"name": "bcgan", "beta": 0.3},
    "clean_accuracy": 0.97,
    "robust_accuracy": [
        {"attack": "pgd", "eps": 0.1, "n": 200, "accuracy": 0.31},
        {"attack": "cw-l2", "eps": None, "n": 100, "accuracy": np.float64(0.0)},
    ],
    "run": "20260101-120000-run-digits",
}


def pixels(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, *shape), dtype=np.uint8)


def scaled(images: np.ndarray) -> np.ndarray:
    """As the training data is scaled."""
    return Split(images, np.zeros(len(images), np.int64)).scaled()


def encoded(images: np.ndarray, file_format: str = "PNG", **options) -> np.ndarray:
    def encode(image: np.ndarray) -> bytes:
        stream = io.BytesIO()
        grey = image.shape[-1] == 1
        Image.fromarray(image[..., 0] if grey else image).save(stream, file_format, **options)
        return stream.getvalue()

    return np.array([encode(image) for image in images], dtype=object)


def visible(directory: Path) -> list[str]:
    """The versions a server would load."""
    return sorted(entry.name for entry in directory.iterdir() if entry.name.isdigit())


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    model = small_cnn((8, 8, 1), 4, seed=0)
    model.compile("adam", "mse")  # an optimizer that must not be exported
    return model


@pytest.fixture(scope="module")
def exported(classifier, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("saved_models") / "digits"
    return export(classifier, directory, class_names=NAMES, card=CARD)


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


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
    assert set(signatures) == {"serving_default", "serve_bytes"}
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


def test_broken_bytes_are_refused(pixel_reader):
    with pytest.raises(tf.errors.InvalidArgumentError):
        pixel_reader(np.array([b"no image"], dtype=object), 1)


def test_vectors_get_one_signature(tmp_path):
    model = mlp(2, 2)
    path = export(model, tmp_path / "toy", class_names=("red", "blue"), card={})
    loaded = tf.saved_model.load(str(path)).signatures
    assert set(loaded) == {"serving_default"}
    points = np.float32([[-30, 2], [0.5, 40]])
    found = loaded["serving_default"](images=tf.constant(points))["logits"]
    np.testing.assert_allclose(found, model(points), atol=1e-5)
    card = json.loads((path / "export.json").read_text())
    assert card["input"] == {"shape": [2], "dtype": "float32", "range": None}


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
def test_batch_norm_serves_its_moving_statistics(tmp_path, dtype):
    model = resnet18((8, 8, 3), 4, width=1 / 16, dtype=dtype)
    model(np.float32(np.random.default_rng(0).random((32, 8, 8, 3))), training=True)
    path = export(model, tmp_path / "resnet", class_names=NAMES, card={})
    assert verify(path, model) <= 1e-5


def test_a_mirrored_model_is_exported(tmp_path, two_replicas):
    with two_replicas.scope():
        model = small_cnn((8, 8, 1), 4)
    path = export(model, tmp_path / "mirrored", class_names=NAMES, card={})
    assert verify(path, model) <= 1e-5


# The card


def test_the_card_says_it_all(exported):
    card = json.loads((exported / "export.json").read_text())
    versions = card.pop("versions")
    assert versions == {
        "bcgan_tf": bcgan_tf.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": sys.version.split()[0],
    }
    assert card == {
        "model": "digits",
        "classes": ["a", "b", "c", "d"],
        "input": {"shape": [8, 8, 1], "dtype": "float32", "range": [0.0, 1.0]},
        "signatures": ["serving_default", "serve_bytes"],
        "parameters": 26 * 32 + (25 * 32 + 1) * 64 + (4 * 64 + 1) * 4,
        "defense": {"name": "bcgan", "beta": 0.3},
        "clean_accuracy": 0.97,
        "robust_accuracy": [
            {"attack": "pgd", "eps": 0.1, "n": 200, "accuracy": 0.31},
            {"attack": "cw-l2", "eps": None, "n": 100, "accuracy": 0.0},
        ],
        "run": "20260101-120000-run-digits",
    }


def test_what_was_not_measured_is_null(classifier, tmp_path):
    path = export(classifier, tmp_path / "m", class_names=NAMES, card={"note": "as trained"})
    card = json.loads((path / "export.json").read_text())
    assert card["robust_accuracy"] is card["clean_accuracy"] is card["defense"] is None
    assert card["note"] == "as trained"


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"classes": []}, "classes is filled in"),
        ({"robust_accuracy": [{"attack": "pgd", "accuracy": 0.5}]}, "lacks eps, n"),
        ({"robust_accuracy": [0.5]}, "lacks accuracy, attack, eps, n"),
    ],
)
def test_a_card_that_claims_too_much_is_refused(classifier, tmp_path, card, message):
    with pytest.raises(UserError, match=message):
        export(classifier, tmp_path / "m", class_names=NAMES, card=card)
    assert not (tmp_path / "m").exists()


def test_every_weight_is_stored_once_and_no_path_of_this_machine(classifier, exported):
    stored = sum(file.stat().st_size for file in exported.glob("variables/*"))
    assert 0 <= stored - 4 * classifier.count_params() < 5000  # no optimizer either
    for file in exported.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for folder in (exported.parent, Path(bcgan_tf.__file__).parent, Path.home()):
                assert str(folder).encode() not in content, file


# Versions


def test_versions_count_up_and_nothing_is_overwritten(classifier, tmp_path):
    directory = tmp_path / "model"
    (directory / "7").mkdir(parents=True)
    (directory / "7" / "precious").write_text("kept")
    (directory / "notes").mkdir()
    (directory / "009").write_text("a file with a number for a name")
    paths = [export(classifier, directory, class_names=NAMES, card={}) for _ in range(2)]
    assert [path.name for path in paths] == ["10", "11"]
    assert (directory / "7" / "precious").read_text() == "kept"
    assert sorted(entry.name for entry in directory.iterdir()) == ["009", "10", "11", "7", "notes"]


def test_a_version_that_another_export_takes_is_left_alone(classifier, tmp_path, monkeypatch):
    first = export(classifier, tmp_path / "model", class_names=NAMES, card={"run": "first"})
    monkeypatch.setattr(serving, "versions", lambda directory: [])  # as seen before the first
    second = export(classifier, tmp_path / "model", class_names=NAMES, card={"run": "second"})
    assert (first.name, second.name) == ("1", "2")
    assert json.loads((first / "export.json").read_text())["run"] == "first"


def test_simultaneous_publishing_gives_every_export_its_own_version(tmp_path):
    start = threading.Barrier(8)
    versions = []

    def publish(content: str) -> None:
        staging = tmp_path / f".export-{content}"
        staging.mkdir()
        (staging / "saved_model.pb").write_text(content)
        start.wait()
        versions.append(serving._publish(staging, tmp_path))

    threads = [threading.Thread(target=publish, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.name) for path in versions) == list(range(1, 9))
    contents = {(path / "saved_model.pb").read_text() for path in versions}
    assert contents == set("01234567")


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_kill_leaves_no_visible_version(classifier, tmp_path):
    directory = tmp_path / "model"
    script = (
        "import sys, time\n"
        "from bcgan_tf import serving\n"
        "from bcgan_tf.networks.classifiers import mlp\n"
        "serving.verify = lambda *_: (print('written', flush=True), time.sleep(60))\n"
        "serving.export(mlp(2, 2), sys.argv[1], class_names='ab', card={})\n"
    )
    root = str(Path(bcgan_tf.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    (leftover,) = directory.iterdir()
    assert leftover.name.startswith(".export-")
    assert (leftover / "saved_model.pb").is_file()
    with pytest.raises(UserError, match="holds no exported model"):
        verify(directory)
    # A young leftover may be another export at work; an old one is swept up by the next.
    assert export(classifier, directory, class_names=NAMES, card={}).name == "1"
    assert leftover.exists()
    os.utime(leftover, (0, 0))
    assert export(classifier, directory, class_names=NAMES, card={}).name == "2"
    assert sorted(entry.name for entry in directory.iterdir()) == ["1", "2"]


def test_a_failure_cleans_up_after_itself(classifier, tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("differs")

    monkeypatch.setattr(serving, "verify", fail)
    with pytest.raises(UserError, match="differs"):
        export(classifier, tmp_path / "model", class_names=NAMES, card={})
    assert list((tmp_path / "model").iterdir()) == []


# Mistakes


def test_mistakes_before_anything_is_written(classifier, tmp_path):
    with pytest.raises(UserError, match="4 outputs, but there are 3 classes"):
        export(classifier, tmp_path / "m", class_names="abc", card={})
    softmax = keras.Model(classifier.inputs[0], keras.layers.Softmax()(classifier.outputs[0]))
    with pytest.raises(UserError, match="softmax"):
        export(softmax, tmp_path / "m", class_names=NAMES, card={})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export(classifier, tmp_path / "file", class_names=NAMES, card={})
    assert visible(tmp_path) == []
    assert not (tmp_path / "m").exists()


def test_verify_finds_what_differs(classifier, exported, tmp_path):
    assert verify(exported, classifier) <= 1e-5
    assert verify(exported.parent) == 0.0  # the newest version, with nothing to compare it with
    other = small_cnn((8, 8, 1), 4, seed=0)
    kernel, bias = other.layers[-1].get_weights()
    other.layers[-1].set_weights([kernel, bias + np.float32([0, 0, 0, 1e-3])])
    with pytest.raises(UserError, match=r"differ by up to 0\.001"):
        verify(exported, other)
    with pytest.raises(UserError, match="has 4 classes, not 3"):
        verify(exported, small_cnn((8, 8, 1), 3))
    with pytest.raises(UserError, match="holds no exported model"):
        verify(tmp_path)
    tf.saved_model.save(tf.Module(), str(tmp_path / "foreign"))
    with pytest.raises(UserError, match="no model exported by bcgan_tf"):
        verify(tmp_path / "foreign")


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
    assert not (path / "assets.extra").exists()
