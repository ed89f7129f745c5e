"""Reports of a training: one line an epoch on stderr; history.csv follows a fit and its resume."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from bcgan_tf.runs.history import History
from bcgan_tf.training.callbacks import EpochLines, HistoryWriter


def fit(*callbacks: keras.callbacks.Callback, start: int = 0, epochs: int = 3) -> dict:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)
    options = {"initial_epoch": start, "epochs": epochs, "verbose": 0}
    return model.fit(x, y, callbacks=list(callbacks), **options).history


def test_every_epoch_is_written_as_it_ends(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    logs = fit(HistoryWriter(history, "train"))
    assert history.read() == {"train": {"loss": list(enumerate(logs["loss"], start=1))}}


def test_a_resumed_fit_replaces_the_epochs_it_repeats(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    fit(HistoryWriter(history, "oracle"))
    fit(HistoryWriter(history, "train"))
    logs = fit(HistoryWriter(history, "train"), start=1, epochs=3)
    epochs = [epoch for epoch, _ in history.read()["train"]["loss"]]
    assert epochs == [1, 2, 3]
    assert [value for _, value in history.read()["train"]["loss"]][1:] == logs["loss"]
    assert len(history.read()["oracle"]["loss"]) == 3


def test_one_writer_can_serve_two_fits(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    writer = HistoryWriter(history, "train")
    fit(writer)
    fit(writer, epochs=2)
    assert len(history.read()["train"]["loss"]) == 2


def test_an_epoch_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    fit(EpochLines("gan"), start=1, epochs=3)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 2
    assert lines[0].startswith("gan epoch 2/3, ") and " s: loss " in lines[0]
