"""Versions of an export: numbered, never overwritten, never seen by halves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import bcgan_tf
from bcgan_tf.errors import UserError
from bcgan_tf.serving import export as serving
from bcgan_tf.serving.export import export, verify
from helpers.exports import NAMES


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
        "from bcgan_tf.serving import export as serving\n"
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
