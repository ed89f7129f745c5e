"""What TF_CONFIG may say, and what is told of one that cannot be used."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tensorflow as tf

from bcgan_tf import distribute
from bcgan_tf.cli import main
from bcgan_tf.distribute import cluster
from bcgan_tf.distribute.cluster import Cluster
from bcgan_tf.errors import UserError

TWO = {"worker": ["a:1", "b:1"]}


def set_to(monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    monkeypatch.setenv("TF_CONFIG", content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("hosts", "kind", "index", "found"),
    [
        (TWO, "worker", 0, Cluster(2, 0)),
        (TWO, "worker", "1", Cluster(2, 1)),  # a number as text, as a scheduler's variable is
        ({"worker": ["b:1", "c:1"], "chief": ["a:1"]}, "chief", 0, Cluster(3, 0)),
        ({"worker": ["b:1", "c:1"], "chief": ["a:1"]}, "worker", 1, Cluster(3, 2)),
        ({"chief": ["a:1"]}, "chief", 0, None),
    ],
)
def test_the_chief_is_the_first_worker(monkeypatch, hosts, kind, index, found):
    set_to(monkeypatch, {"cluster": hosts, "task": {"type": kind, "index": index}})
    assert cluster.named() == found


@pytest.mark.parametrize("text", ["", " "])
def test_without_a_value_there_is_one_worker(monkeypatch, text):
    set_to(monkeypatch, text)
    assert cluster.named() is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["is no JSON"]),
        ("[]", ["names no cluster"]),
        ({"task": {"type": "worker", "index": 0}}, ["names no cluster"]),
        ({"cluster": TWO, "task": {"type": "worker", "index": 2}}, ['"index": 2}, which']),
        ({"cluster": TWO, "task": {"type": "worker", "index": True}}, ["which the cluster"]),
        ({"cluster": TWO}, ["its task is null"]),
        (
            {"cluster": {**TWO, "ps": ["c:1"], "evaluator": ["d:1"]}, "task": {"type": "ps"}},
            ["of the kind evaluator, ps,", 'its task is {"type": "ps"}'],
        ),
        ({"cluster": {"worker": "a:1"}}, ["worker is no list"]),
        ({"cluster": {"chief": ["a:1", "b:1"]}}, ["more than one chief", "its task is null"]),
        ({"cluster": {"worker": ["a:1", "a:1"]}}, ["have the address a:1"]),
        ({"cluster": {"worker": []}}, ["has no workers"]),
    ],
)
@pytest.mark.parametrize("command", ["train", "harden"])
def test_one_line_names_all_that_is_wrong(monkeypatch, capsys, tmp_path, command, content, words):
    set_to(monkeypatch, content)
    options = ["--dataset", "digits", "--run-dir", str(tmp_path / "run")]
    if command == "harden":
        options += ["--classifier", "model.keras"]
    with pytest.raises(SystemExit) as ended:
        main([command, *options])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: TF_CONFIG") and all(word in line for word in words)
    assert not (tmp_path / "run").exists()


def test_workers_must_be_joined_before_tensorflow_is_used(monkeypatch):
    tf.zeros([])
    set_to(monkeypatch, {"cluster": TWO, "task": {"type": "worker", "index": 0}})
    with pytest.raises(UserError, match="TensorFlow was used before the 2 workers of TF_CONFIG"):
        distribute.join()
    with pytest.raises(UserError, match="2 workers, with which only `train` and `harden`"):
        distribute.strategy()
    assert cluster.joined() is None and cluster.is_chief()
