"""A suite on several workers: the rows of one process, whatever happens to a worker."""

from __future__ import annotations

import functools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import bcgan_tf
from bcgan_tf.attacks import FGSM, PGD, Square
from bcgan_tf.data import load_dataset
from bcgan_tf.distribute.workers import LocalWorkers, Workers, workers
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.robust_accuracy import Evaluation
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.loading.model import load_model
from bcgan_tf.loading.reload import remember_loader
from bcgan_tf.settings.kinds import WorkerSpec
from helpers.workers import InThisProcess

EPS = 0.05
ATTACKS = [FGSM(EPS), PGD(EPS, steps=40), Square(EPS, queries=400)]
N = 160


def classifier(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    return keras.Sequential(layers)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    data, network = load_dataset("digits"), classifier(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss)
    network.fit(data.train.scaled(), data.train.labels, epochs=4, verbose=0)
    return network


def evaluated(
    model: keras.Model, state: Path | None, engine: Workers | None, n: int = N
) -> Evaluation:
    test = load_dataset("digits").test
    task = EvaluationTask(model, test.images[:n], test.labels[:n], eps=EPS)
    return run_suite(task, ATTACKS, state=state, workers=engine)


@pytest.fixture(scope="module")
def alone(model) -> Evaluation:
    """In this process, in memory."""
    return evaluated(model, None, None)


def assert_same_rows(one: Evaluation, other: Evaluation) -> None:
    np.testing.assert_array_equal(one.worst_case, other.worst_case)
    for a, b in zip(one.results, other.results, strict=True):
        for name in ("clean_correct", "attacked", "success", "linf", "l2"):
            found = (getattr(result, name) for result in (a, b))
            np.testing.assert_array_equal(*found, err_msg=f"{a.attack}: {name}")
        np.testing.assert_array_equal(a.adversarials[a.success], b.adversarials[b.success])


def processes(said: str, among: set[int]) -> list[int]:
    """Those that descend from ``among`` and have ``said`` in their command."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            )
            if said in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except (OSError, IndexError):  # it has ended
            continue

    def descends(process: int) -> bool:
        while process in parents and process not in among:
            process = parents[process]
        return process in among

    return [process for process in found if descends(process)]


class Killer(threading.Thread):
    """Kills workers at random moments until some were killed."""

    def __init__(self, said: str, among: set[int], kills: int, seed: int = 0) -> None:
        super().__init__(daemon=True)
        self.said, self.among, self.left = said, among, kills
        self.ended, self.draws = threading.Event(), random.Random(seed)
        self.killed = 0

    def run(self) -> None:
        while self.killed < self.left and not self.ended.wait(self.draws.uniform(0, 6)):
            if there := processes(self.said, self.among):
                os.kill(self.draws.choice(there), signal.SIGKILL)
                self.killed += 1


@pytest.mark.slow
def test_local_workers_give_the_rows_of_one_process_though_some_are_killed(
    model, alone, tmp_path, capfd
):
    killer = Killer("popen_loky", {os.getpid()}, kills=2)
    killer.start()
    found = evaluated(model, tmp_path, LocalWorkers(2))
    killer.ended.set()
    assert_same_rows(alone, found)
    assert killer.killed and "another one does it again" in capfd.readouterr().err
    assert found.adversarials.shape == alone.adversarials.shape
    # What workers finished is read, not done again, by whatever number of them.
    written = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*.npz")}
    assert len(written) == len(ATTACKS) * 5
    assert_same_rows(alone, evaluated(model, tmp_path, LocalWorkers(1)))
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*.npz")} == written
    assert not (tmp_path / "images.raw").exists()


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_gives_the_rows_of_one_process(
    model, alone, tmp_path, monkeypatch
):
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        engine = workers(f"ray:{cluster.address}")
        assert engine.count == 2
        killer = Killer("ray::_RayWorker", {os.getpid()}, kills=1)
        killer.start()
        assert_same_rows(alone, evaluated(model, tmp_path, engine))
        killer.ended.set()
        assert killer.killed
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()


def test_shards_too_are_attacked_by_workers(model, tmp_path):
    test = load_dataset("digits").test
    task = EvaluationTask(model, test.images[:90], test.labels[:90], eps=EPS)
    for number in (1, 2):
        alone, shared = (
            run_suite(task, ATTACKS[:2], shard=(number, 2), state=tmp_path / f"{number}{name}",
                      workers=engine)
            for name, engine in {"alone": None, "shared": InThisProcess()}.items()
        )  # fmt: skip
        assert shared.n == 45
        assert_same_rows(alone, shared)


def test_a_model_that_was_trained_since_it_was_loaded_is_the_one_that_is_attacked(tmp_path):
    classifier(1).save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras", image_shape=(8, 8, 1), num_classes=10)
    first = evaluated(loaded, tmp_path / "first", InThisProcess(), n=40)
    assert not (tmp_path / "first" / "model.keras").exists()  # the file itself serves
    loaded.set_weights([weight + 0.5 for weight in classifier(2).get_weights()])
    again = evaluated(loaded, tmp_path / "again", InThisProcess(), n=40)
    assert_same_rows(again, evaluated(loaded, None, None, n=40))
    assert (first.clean_correct != again.clean_correct).any()


def test_nobody_listens_at_the_address_of_a_cluster():
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(UserError, match=r"no Ray cluster at 127\.0\.0\.1:1 \(.*refused"):
        workers("ray:127.0.0.1:1")


@pytest.mark.slow
def test_a_worker_that_loads_another_model_ends_the_evaluation(tmp_path):
    model, other = classifier(1), classifier(2)
    other.save(tmp_path / "other.keras")
    remember_loader(model, functools.partial(keras.models.load_model, tmp_path / "other.keras"))
    with pytest.raises(UserError, match="a worker loaded another model"):
        evaluated(model, tmp_path / "state", LocalWorkers(1), n=32)


@pytest.mark.slow
def test_a_killed_command_leaves_no_worker_behind_and_resumes(model, tmp_path):
    model.save(tmp_path / "model.keras")
    program = [sys.executable, "-P", "-c", "from bcgan_tf.cli import main; main()"]
    program += ["attack", "model.keras"]
    options = ["--dataset", "digits", "--eps", str(EPS), "--n", "64", "--no-diagnose"]
    command = [*program, *options, "--suite", "rand", "--samples", "1"]

    def run(folder: str, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, "--run-dir", folder, *more], cwd=tmp_path, text=True,
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    begun = run("runs/shared", "--workers", "local:2")
    state, end = tmp_path / "runs/shared/state-model", time.monotonic() + 200
    while not list(state.glob("0*.npz")) and time.monotonic() < end:
        assert begun.poll() is None, begun.communicate()
        time.sleep(0.2)
    left = processes("loky", {begun.pid})
    begun.kill()
    begun.communicate()
    assert left
    while any(Path(f"/proc/{process}").exists() for process in left):
        assert time.monotonic() < end
        time.sleep(0.2)
    for again in (
        run("runs/shared", "--resume", "--workers", "local:1"),
        run("runs/alone"),
    ):
        assert again.wait(280) == 0, again.communicate()
    rows = [
        dict(np.load(tmp_path / "runs" / name / "evaluation-model.npz"))
        for name in ("shared", "alone")
    ]
    for name in rows[0].keys() - {"settings"}:
        np.testing.assert_array_equal(*(found[name] for found in rows), err_msg=name)


def test_what_workers_need_is_said(tmp_path):
    model = classifier(0)
    with pytest.raises(UserError, match="workers need a folder for what they find"):
        evaluated(model, None, LocalWorkers(2), n=8)
    test = load_dataset("digits").test
    task = EvaluationTask(lambda x: model(x, training=False), test.images[:8], test.labels[:8])
    with pytest.raises(UserError, match=r"cannot of a function in memory; give a Keras model"):
        run_suite(task, [FGSM(EPS)], state=tmp_path, workers=LocalWorkers(2))
    with pytest.raises(UserError, match="no workers 'local:0'; choose local:N"):
        bcgan_tf.evaluate(
            model, test.images[:8], test.labels[:8], eps=EPS, workers="local:0", state=tmp_path
        )


@pytest.mark.parametrize("text", ["local:1", "local:1024", "ray", "ray:auto", "ray:10.0.0.1:6379"])
def test_workers_are_named(text):
    assert str(WorkerSpec.parse(text)) == text


@pytest.mark.parametrize("text", ["", "local", "local:", "local:0", "local:x", "ray:", "slurm:2"])
def test_other_workers_are_refused(text):
    with pytest.raises(UserError, match=re.escape(f"no workers {text!r}")):
        workers(text)
