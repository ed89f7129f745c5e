"""When a clean accuracy is suspicious, and what it is compared with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from bcgan_tf.evaluation.clean_accuracy import suspicion, trained_accuracy
from bcgan_tf.runs.history import History

BALANCED = np.arange(1000) % 10


def _right(share: float, n: int = 1000) -> np.ndarray:
    return np.arange(n) < round(share * n)


# Wilson's intervals: 113 of 1,000 from 9.5 %, 125 from 10.6 %, 122 from 10.3 %.
@pytest.mark.parametrize(("share", "suspicious"), [(0.05, 1), (0.113, 1), (0.125, 0), (0.9, 0)])
def test_near_chance_is_suspicious(share: float, suspicious: int) -> None:
    found = suspicion(_right(share), BALANCED)
    assert bool(found) == bool(suspicious)
    if found:
        assert "than always answering with the largest class (10.0 %); before" in found


def test_no_more_than_the_largest_class_is_suspicious() -> None:
    labels = (np.arange(1000) >= 900).astype(int)  # nine tenths are of one class
    told = suspicion(_right(0.91), labels)
    assert told is not None and told.startswith(
        "Suspicious clean accuracy: 91.0 % (89.1 to 92.6) of 1,000 test images is no better, as "
        "far as can be told, than always answering with the largest class (90.0 %); "
    )
    assert suspicion(_right(0.93), labels) is None


def test_few_images_prove_nothing() -> None:
    # 3 of 3 right: from 43.8 %, which one class of two gets in the mean.
    assert suspicion(np.ones(3, bool), np.array([0, 1, 1])) is not None
    assert suspicion(np.ones(30, bool), np.arange(30) % 2) is None


@pytest.mark.parametrize(("validation", "suspicious"), [(0.92, False), (0.94, True), (None, False)])
def test_far_below_the_validation_accuracy_is_suspicious(validation, suspicious) -> None:
    told = suspicion(_right(0.8), BALANCED, validation)  # up to 82.4 %
    assert bool(told) == suspicious
    if told:
        assert "far below the 94.0 % on validation images in its training" in told
    both = suspicion(_right(0.1), BALANCED, 0.94)
    assert both is not None and "largest class" in both and "far below" in both


def test_the_validation_accuracy_is_read_beside_the_file(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    history.append("train", 1, {"accuracy": 0.5, "val_accuracy": 0.6})
    history.append("train", 2, {"accuracy": 0.9, "val_accuracy": 0.97})
    history.append("oracle", 1, {"val_accuracy": 0.3})
    history.append("gan", 1, {"loss": 3.0})
    history.append("pgd-at", 1, {"val_robust_accuracy": 0.4, "val_accuracy": 0.91})
    assert trained_accuracy(tmp_path / "classifier.keras") == 0.97
    assert trained_accuracy(tmp_path / "hardened.keras") == 0.91
    assert trained_accuracy(tmp_path / "mine.keras") is None
    assert trained_accuracy(tmp_path / "elsewhere" / "classifier.keras") is None
    (tmp_path / "history.csv").write_text("epoch,val_accuracy\n1,0.9\n")  # of another program
    assert trained_accuracy(tmp_path / "classifier.keras") is None


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"val_loss": [0.1], "val_sparse_categorical_accuracy": [0.5, 0.8]}, 0.8),
        ({"val_top_5_accuracy": [1.0], "val_acc": [0.7]}, 0.7),
        ({"accuracy": [0.9]}, None),
        ({"val_accuracy": []}, None),
        ({"val_accuracy": [float("nan")]}, None),
    ],
)
def test_the_validation_accuracy_of_a_fit(metrics: dict[str, list[float]], expected) -> None:
    assert trained_accuracy(SimpleNamespace(history=SimpleNamespace(history=metrics))) == expected


def test_what_fit_leaves_on_a_model_is_found() -> None:
    images, labels = np.eye(4, dtype=np.float32), np.arange(4)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    assert trained_accuracy(model) is None and trained_accuracy(lambda x: x) is None
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    fitted = model.fit(images, labels, validation_data=(images, labels), verbose="0")
    assert trained_accuracy(model) == fitted.history["val_accuracy"][-1]
