"""What a stranger's Keras file may try, and the one line that it gets."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import keras
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.loading import keras_file
from bcgan_tf.loading.classifier import load_classifier

sys.path.append(str(Path(__file__).parents[1]))  # benchmarks/ is not installed

from benchmarks.faults.malicious_models import CANARY, CLASSES, MALICIOUS, SHAPE


@pytest.mark.parametrize("name", MALICIOUS)
def test_no_code_runs_and_it_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write, words = MALICIOUS[name]
    write(Path(name).absolute())
    with pytest.raises(UserError) as caught:
        load_classifier(Path(name).absolute(), image_shape=SHAPE, num_classes=CLASSES)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not Path(CANARY).exists() and not Path("../planted").exists()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("functional", [True, False])
def test_the_size_of_layers_is_known_before_they_are_made(
    tmp_path: Path, suffix: str, functional: bool
) -> None:
    layers = [keras.layers.RandomTranslation(0.1, 0.1), keras.layers.BatchNormalization()]
    inner = keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.Flatten()])
    image = keras.Input(SHAPE)
    logits = keras.layers.Dense(CLASSES)
    model = keras.Sequential([image, inner, logits])
    if functional:
        model = keras.Model(image, logits(inner(image)))
    model.save(tmp_path / f"a{suffix}")
    state = random.getstate()
    weights, output = keras_file._wanted_bytes(tmp_path / f"a{suffix}")
    assert state == random.getstate()
    kept = sum(variable.numpy().nbytes for variable in model.variables)
    assert weights == kept and output == 4 * 64


def test_a_large_model_of_equal_weights_is_taken(tmp_path: Path, monkeypatch) -> None:
    """What is stored as large as it is may have any size."""
    monkeypatch.setattr(keras_file, "_ALWAYS_ALLOWED", 0)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(1000, kernel_initializer="zeros"),
            keras.layers.Dense(CLASSES),
        ]
    )
    model.save(tmp_path / "a.keras")
    assert load_classifier(tmp_path / "a.keras").count_params() == model.count_params()
