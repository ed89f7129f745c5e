"""SIGTERM and SIGINT: an end that can be taken up again, said in one line."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from bcgan_tf import interruption
from bcgan_tf.training.checkpoints import EpochCheckpoint
from bcgan_tf.workflows import run as pipeline

TRAIN = ["train", "--dataset", "digits", "--classifier-epochs=2", "--classifier-batch-size=256"]


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "Terminated"), (signal.SIGINT, 130, "Interrupted")],
)
def test_outside_of_training_it_ends_at_once(cli, monkeypatch, number, code, word) -> None:
    after: list[str] = []

    def train(*_args: object, **_options: object) -> Path:
        signal.raise_signal(number)
        after.append("went on")
        return Path()

    monkeypatch.setattr(pipeline, "train", train)
    before = signal.getsignal(number)
    result = cli("train", "--dataset", "digits", "--run-dir", "a")
    assert result.exit_code == code and not after
    assert result.stderr.splitlines()[-1] == (
        f"{word}. Go on with: bcgan-tf train --run-dir a --resume"
    )
    assert signal.getsignal(number) is before


def test_a_training_ends_after_its_step(cli, monkeypatch) -> None:
    real = EpochCheckpoint.on_train_batch_end

    def signalled(self: Any, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == (1, 1):
            signal.raise_signal(signal.SIGTERM)
        real(self, batch, logs)

    monkeypatch.setattr(EpochCheckpoint, "on_train_batch_end", signalled)
    result = cli(*TRAIN, "--run-dir", "a")
    assert result.exit_code == 143, result.stderr
    assert result.stderr.splitlines()[-1] == (
        "Terminated. Go on with: bcgan-tf train --run-dir a --resume"
    )
    names = sorted(path.name for path in Path("a/checkpoints/train").iterdir())
    assert names == ["epoch-0001", "epoch-0001-step-000002"]


def test_a_second_signal_ends_a_training_at_once(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    with interruption.listening():
        interruption.defer(True)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.pending()
        now[0] = 0.5
        signal.raise_signal(signal.SIGTERM)  # the same, sent to the process and to its group
        now[0] = 2.0
        with pytest.raises(interruption.Terminated):
            signal.raise_signal(signal.SIGTERM)
    interruption.check()  # forgotten


def test_the_library_alone_leaves_signals_as_they_are() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with interruption.listening():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
