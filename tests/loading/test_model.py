"""Keras files, SavedModels and Python code give the same model; what is wrong is one line."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf.attacks import FGSM
from bcgan_tf.attacks.checks import as_logits_fn
from bcgan_tf.attacks.preprocessing import may_hide_gradients
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.state import model_digest
from bcgan_tf.files import file_digest
from bcgan_tf.loading.model import SourceModel, load_model, source_digest
from bcgan_tf.serving import export as serving
from bcgan_tf.settings.convention import Convention

SHAPE, CLASSES = (4, 4, 1), 3
RNG = np.random.default_rng(2)
IMAGES = RNG.random((20, *SHAPE), np.float32)
LABELS = np.arange(20) % CLASSES


def net(classes: int = CLASSES, activation: str | None = None) -> keras.Model:
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(8, "tanh"),
            keras.layers.Dense(classes, activation),
        ]
    )


def take(spec: str | Path, shape: tuple[int, ...] = SHAPE, classes: int = CLASSES):
    return load_model(spec, image_shape=shape, num_classes=classes)


def gradient(model) -> np.ndarray:
    images: Any = tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(as_logits_fn(model)(images)[:, 1])
    found: Any = tape.gradient(total, images)
    assert found is not None
    return found.numpy()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, from which nothing stays importable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    return tmp_path


def write(file: Path, code: str) -> None:
    file.write_text(textwrap.dedent(code))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    served = tmp_path_factory.mktemp("saved_models") / "mnist-net"
    serving.export(net(), served, class_names="abc", card={}, keras_file=False)
    (served / "2").mkdir()  # an unfinished version of another tool
    return served


def save(function, folder: Path, spec: tf.TensorSpec, name: str = "serving_default") -> Path:
    module: Any = tf.Module()
    module.serve = tf.function(function, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={name: module.serve})
    return folder


def test_what_was_exported_is_the_model_to_the_gradient(exported: Path) -> None:
    model = net()
    for place in (exported, exported / "1"):
        found = take(place)
        np.testing.assert_allclose(found(IMAGES), model(IMAGES), atol=1e-6)
        np.testing.assert_allclose(gradient(found), gradient(model), atol=1e-6)
        assert found.fingerprint == source_digest(exported) == model_digest(found)
    attacked = FGSM(0.1)(take(exported), IMAGES, LABELS)
    expected = FGSM(0.1)(model, IMAGES, LABELS)
    np.testing.assert_allclose(attacked.adversarials, expected.adversarials, atol=1e-6)
    assert expected.clean_correct.any()


def test_a_keras_file_is_a_keras_model(tmp_path: Path) -> None:
    net().save(tmp_path / "a.keras")
    found = take(tmp_path / "a.keras")
    assert isinstance(found, keras.Model)
    np.testing.assert_array_equal(found(IMAGES), net()(IMAGES))
    (tmp_path / "a.keras").write_bytes((tmp_path / "a.keras").read_bytes()[:900])
    with pytest.raises(UserError, match="cut short"):
        take(tmp_path / "a.keras")


@pytest.fixture
def with_keras_file(tmp_path: Path) -> Path:
    """An exported network that cuts off its pixels, which only its layers show."""
    image = keras.Input(SHAPE)
    cut = keras.layers.ReLU(max_value=0.4, threshold=0.3)(image)
    logits = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(cut))
    return serving.export(keras.Model(image, logits), tmp_path / "cut", class_names="abc", card={})


def test_an_export_with_its_keras_file_is_that_model(with_keras_file: Path) -> None:
    """So that the suites go through what it does to its pixels, and bounds can be proved."""
    found = take(with_keras_file)
    assert isinstance(found, keras.Model) and may_hide_gradients(found)
    shutil.rmtree(with_keras_file / "assets.extra")
    with pytest.raises(UserError, match="is not the file that was exported"):
        take(with_keras_file)
    (with_keras_file / "export.json").unlink()
    served = take(with_keras_file)
    assert isinstance(served, SourceModel)
    np.testing.assert_allclose(served(IMAGES), found(IMAGES), atol=1e-6)


def test_a_keras_file_that_was_exchanged_is_refused(with_keras_file: Path) -> None:
    file, card = with_keras_file / "assets.extra/classifier.keras", with_keras_file / "export.json"
    net().save(file)
    with pytest.raises(UserError, match="is not the file that was exported"):
        take(with_keras_file)
    told = json.loads(card.read_text())
    told["keras_file"]["sha256"] = file_digest(file)
    card.write_text(json.dumps(told))
    with pytest.raises(UserError, match="gives other logits than the SavedModel"):
        take(with_keras_file)


def test_a_foreign_saved_model_by_its_only_input_and_output(tmp_path: Path) -> None:
    weights: Any = tf.Variable(tf.constant(RNG.normal(size=(16, 3))))

    class Foreign(tf.Module):
        def __init__(self) -> None:
            self.weights = weights

        @tf.function(input_signature=[tf.TensorSpec([None, *SHAPE], tf.float64)])
        def answer(self, pixels):
            return {"scores": tf.reshape(pixels, [-1, 16]) @ self.weights}

    module = Foreign()
    tf.saved_model.save(module, str(tmp_path), signatures={"classify": module.answer})
    found = take(tmp_path)
    expected = IMAGES.reshape(-1, 16) @ weights.numpy()
    np.testing.assert_allclose(found(IMAGES), expected, rtol=1e-5)
    column = weights.numpy()[:, 1].reshape(1, *SHAPE)
    np.testing.assert_allclose(gradient(found), np.repeat(column, 20, 0), rtol=1e-5)


IMAGE_SPEC = tf.TensorSpec([None, *SHAPE], tf.float32, name="x")
WEIGHTS = tf.constant(RNG.normal(size=(16, 3)).astype("float32"))


def _logits(x):
    return tf.reshape(tf.cast(x, tf.float32), [-1, 16]) @ WEIGHTS


@pytest.mark.parametrize(
    ("function", "spec", "name", "words"),
    [
        (lambda x: {"a": _logits(x), "b": x}, IMAGE_SPEC, "serving_default", "--output NAME"),
        (
            lambda x: {"z": _logits(x)},
            tf.TensorSpec([None, *SHAPE], tf.uint8),
            "serving_default",
            "takes uint8",
        ),
        (
            lambda x: {"z": _logits(x)},
            tf.TensorSpec([5, *SHAPE], tf.float32),
            "serving_default",
            "batches of 5 only",
        ),
        (
            lambda x: {"z": _logits(x)},
            tf.TensorSpec([None, 16], tf.float32),
            "serving_default",
            r"shape \(16,\), but these are \(4, 4, 1\)",
        ),
        (lambda x: {"z": _logits(x)[:, :2]}, IMAGE_SPEC, "other", "2 outputs, but there are 3"),
        (lambda x: {"z": _logits(x) / 0.0}, IMAGE_SPEC, "other", "NaN or infinite"),
    ],
)
def test_an_unfit_saved_model(tmp_path: Path, function, spec, name, words) -> None:
    save(function, tmp_path, spec, name)
    with pytest.raises(UserError, match=words) as caught:
        take(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_saved_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no SavedModel"):
        take(tmp_path)
    save(lambda x: {"z": _logits(x)}, tmp_path, IMAGE_SPEC)
    before = source_digest(tmp_path)
    file = tmp_path / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:200])
    assert source_digest(tmp_path) != before
    with pytest.raises(UserError, match="cannot be read as a SavedModel") as caught:
        take(tmp_path)
    assert "\n" not in str(caught.value)


CODE = """
    import numpy as np
    import tensorflow as tf

    W = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")

    def plain(x):
        return tf.reshape(x, [-1, 16]) @ W

    def rounded(x):
        return tf.round(8 * plain(x))

    rounded.backward = plain

    class Nets:
        inner = staticmethod(plain)

    plain.fingerprint = "weights of today"
    number = 3
"""


def test_a_function_of_a_module(folder: Path) -> None:
    write(folder / "my_nets_a.py", CODE)
    found = take("my_nets_a:plain")
    assert isinstance(found, SourceModel) and found.backward is None
    assert found.fingerprint == "weights of today" == model_digest(found)
    rounded = take("my_nets_a:rounded")
    assert rounded.fingerprint == source_digest(folder / "my_nets_a.py")
    np.testing.assert_allclose(rounded(IMAGES), np.round(8 * np.asarray(found(IMAGES))))
    # Its own gradient is zero; through `backward` it is that of the plain one.
    np.testing.assert_allclose(gradient(rounded), gradient(found), rtol=1e-6)
    assert np.abs(gradient(found)).min() > 0
    np.testing.assert_array_equal(take("my_nets_a:Nets.inner")(IMAGES), found(IMAGES))


def test_a_function_of_a_file_that_imports_its_neighbour(folder: Path) -> None:
    (folder / "sub").mkdir()
    write(folder / "sub" / "neighbour_b.py", CODE)
    write(folder / "sub" / "net.py", "from neighbour_b import plain\nlogits = lambda x: plain(x)\n")
    found = take("sub/net.py:logits")
    assert found.fingerprint == source_digest("sub/net.py:logits")
    assert found(IMAGES).shape == (20, 3)


def test_a_digest_runs_nothing(folder: Path) -> None:
    """Not even the package that a module lies in."""
    planted = "open('code_has_run', 'w')\n"
    (folder / "planted_g" / "inner").mkdir(parents=True)
    files = ("planted_f.py", "planted_g/__init__.py", "planted_g/inner/net.py")
    for name in files:
        (folder / name).write_text(planted)
    for spec, file in zip(
        ("planted_f:logits", "planted_g:logits", "planted_g.inner.net:logits"), files, strict=True
    ):
        assert source_digest(spec) == source_digest(folder / file)
        assert source_digest(f"{file}:logits") == source_digest(folder / file)
    for spec in ("planted_g.nothing:f", "no_such_package.inner:f", "planted_g:", "missing.py:f"):
        with pytest.raises(UserError):
            source_digest(spec)
    assert len(source_digest("sys:exit")) == 64 and len(source_digest("planted_g.inner:f")) == 64
    assert not (folder / "code_has_run").exists()


def test_a_keras_model_in_a_module(folder: Path) -> None:
    net().save(folder / "kept.keras")
    net(activation="softmax").save(folder / "soft.keras")
    write(
        folder / "my_nets_c.py",
        """
        import keras
        model = keras.models.load_model("kept.keras")
        soft = keras.models.load_model("soft.keras")
        """,
    )
    found = take("my_nets_c:model")
    assert isinstance(found, keras.Model)
    np.testing.assert_array_equal(found(IMAGES), net()(IMAGES))
    soft = take("my_nets_c:soft")
    np.testing.assert_allclose(soft(IMAGES), net()(IMAGES), atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nowhere", "nowhere does not exist; give a .keras file"),
        ("nowhere.keras", "nowhere.keras does not exist"),
        ("notes.txt", "notes.txt is no model"),
        ("no_such_module:net", "there is no module 'no_such_module'"),
        ("no_file.py:net", "no_file.py does not exist"),
        ("my_nets_d:missing", "has no attribute 'missing'"),
        ("my_nets_d:number", "is a int"),
        ("my_nets_d:wide", "has 5 outputs, but there are 3"),
        ("my_nets_d:untraceable", "cannot be traced .*wrap what is not in tf.numpy_function"),
        ("my_nets_d:pair", "returned a tuple"),
        ("my_nets_d:flat", r"tensor of shape \(None, 4, 4, 1\)"),
        ("my_nets_d:fixed", "fails on a batch"),
        ("broken_syntax.py:net", "cannot be run .*SyntaxError"),
        ("needs_missing:net", "cannot be imported .*no_such_package"),
        ("exits:net", "cannot be imported .*SystemExit"),
    ],
)
def test_wrong_code_is_one_line(folder: Path, spec: str, words: str) -> None:
    (folder / "notes.txt").touch()
    write(
        folder / "my_nets_d.py",
        CODE
        + """
    wide = lambda x: tf.reshape(x, [-1, 16])[:, :5]
    untraceable = lambda x: x.numpy()
    pair = lambda x: (plain(x), x)
    flat = lambda x: x
    fixed = lambda x: tf.reshape(x, [8, 16]) @ W
""",
    )
    (folder / "broken_syntax.py").write_text("def net(x:\n")
    (folder / "needs_missing.py").write_text("import no_such_package\n")
    (folder / "exits.py").write_text("raise SystemExit('bye')\n")
    with pytest.raises(UserError, match=words) as caught:
        take(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["softmax", "sigmoid", "logit"])
def test_a_saved_model_of_another_convention(tmp_path: Path, ending: str) -> None:
    """Pixels of -1 to 1 in, and probabilities or a single unit out, of which none is a logit."""

    def answer(x):
        logits = _logits(x)
        unit = logits[:, 1:2] - logits[:, :1]
        kinds = {
            "softmax": lambda: tf.nn.softmax(logits),
            "sigmoid": lambda: tf.nn.sigmoid(unit),
            "logit": lambda: unit,
        }
        return {"p": kinds[ending](), "features": x}

    save(answer, tmp_path, IMAGE_SPEC, "serving_default")
    told: list[str] = []
    found = load_model(
        tmp_path,
        image_shape=SHAPE,
        num_classes=3 if ending == "softmax" else 2,
        convention=Convention(input_range="-1..1", output="p"),
        told=told.append,
    )
    expected = tf.nn.softmax(_logits(2 * IMAGES - 1)[:, : 3 if ending == "softmax" else 2])
    np.testing.assert_allclose(tf.nn.softmax(found(IMAGES)), expected, atol=1e-5)
    assert "--input-range -1..1" in told[0]
    assert ("logarithm" in told[1]) if ending == "softmax" else ("single unit" in told[1])
