"""What goes wrong as expected is one line and exit code 1; the rest keeps its traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.workflows import run as pipeline

Calls = list[SimpleNamespace]


class ResourceExhaustedError(Exception):
    """Named like TensorFlow's."""


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def train(*_args: object, **_options: object) -> Path:
        raise error

    monkeypatch.setattr(pipeline, "train", train)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("this is wrong; do that"), "Error: this is wrong; do that"),
        (UserError("two\n  lines"), "Error: two lines"),
        (
            OSError(28, "No space left on device", "x"),
            "No space left on device: 'x'; make room on its disk. Go on with: bcgan-tf train",
        ),
        (OSError(122, "Disk quota exceeded"), "make room on the disk of a. Go on with: bcgan-tf"),
        (ResourceExhaustedError("w.data: No space left on device\n"), "make room on the disk of a"),
        (ResourceExhaustedError("OOM\n[[node]]"), "the device has not enough memory"),
    ],
)
def test_an_expected_failure_is_one_line(cli, monkeypatch, error: Exception, line: str) -> None:
    fail(monkeypatch, error)
    result = cli("train", "--dataset", "digits", "--run-dir", "a")
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("run: a\nError: ") and result.stderr.count("\n") == 2
    assert line in result.stderr
    again = cli("train", "--dataset", "digits", "--run-dir", "a", "--resume", "--debug")
    assert again.exception is error


def test_a_bug_keeps_its_traceback(cli, monkeypatch) -> None:
    error = RuntimeError("a bug")
    fail(monkeypatch, error)
    assert cli("train", "--dataset", "digits").exception is error


def test_ctrl_c_says_how_to_go_on(cli, monkeypatch) -> None:
    fail(monkeypatch, KeyboardInterrupt())
    result = cli("train", "--dataset", "digits", "--run-dir", "my run", "--data-dir", "d")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == (
        "Interrupted. Go on with: bcgan-tf train --run-dir 'my run' --resume --data-dir d"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--dataset", "nothing"], "nothing"),
        (["train", "--dataset", "gaussians"], "use `bcgan-tf toy`"),
        (["train", "--dataset", "folder:nowhere"], "nowhere"),
        (["train", "--dataset", "mnist", "--data-dir", "empty"], "mnist"),
        (["attack", "--dataset", "digits", "nowhere.keras"], "nowhere.keras does not exist"),
        (["attack", "--dataset", "digits", "a.keras", "a.keras"], "give them as NAME=MODEL"),
        (["attack", "--dataset", "digits", "a/b=a.keras"], "'a/b' cannot name a model"),
        (["harden", "--dataset", "digits", "--classifier", "x.keras"], "x.keras does not exist"),
        (["export", "nowhere"], "nowhere does not exist"),
        (["export", "."], "holds no run"),
        (["toy", "--betas", "1,1"], "each once"),
    ],
)
def test_wrong_input_is_one_line(
    cli, pipeline_calls: Calls, monkeypatch, arguments: list[str], words: str
) -> None:
    monkeypatch.setattr("bcgan_tf.data.tfds_source._PROBE_SECONDS", 0.1)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    result = cli(*arguments)
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert words in result.stderr
    assert not pipeline_calls and not Path("runs").exists()


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "from bcgan_tf.cli import main; main(['datasets', '--json'])"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert "Traceback" not in done.stderr and "Error" not in done.stderr
