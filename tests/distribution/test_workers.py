"""Two workers under TF_CONFIG, as processes on loopback: they train like one, and end together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers import worker
from helpers.linear_gan import expected_update, initial_arrays

TESTS = Path(__file__).parents[1]
TRAIN = ["train", "--dataset", "digits", "--classifier-epochs=8", "--classifier-batch-size=64"]
TRAIN += ["--deterministic"]
# How the paper's defence is passed through in seconds.
GAN = ["gan_epochs=1", "epochs=1", "gan_batch_size=256", "batch_size=256", "latent_dim=4"]
GAN += ["generator_width=0.05", "discriminator_width=0.05"]
GAN += ["delay_epochs=0", "warmup_epochs=0"]
CODE = "from bcgan_tf.cli import main; main(prog_name='bcgan-tf')"
SECONDS = 580
# Two processes train, beside one that runs other tests.
pytestmark = pytest.mark.timeout(2 * SECONDS)


def free_addresses(count: int = 2) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def configurations(addresses: Sequence[str]) -> list[str]:
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(len(addresses))
    ]


@contextlib.contextmanager
def started(
    folder: Path, arguments: Sequence[str], hosts: Sequence[str] = ()
) -> Iterator[list[subprocess.Popen[str]]]:
    """Two workers, each in a folder of its own, ``0`` and ``1``, and perhaps on its own host."""
    workers = []
    addresses = [f"10.77.0.{number}:2222" for number in (1, 2)] if hosts else free_addresses()
    for index, configuration in enumerate(configurations(addresses)):
        place = folder / str(index)
        place.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "TF_CONFIG": configuration,
            "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",  # two processes cannot share a GPU
        }
        with (place / "stdout").open("w") as out, (place / "stderr").open("w") as errors:
            within = ["ip", "netns", "exec", hosts[index]] if hosts else []
            command = [*within, sys.executable, "-P", *arguments]
            workers.append(
                subprocess.Popen(command, cwd=place, env=environment, stdout=out, stderr=errors)
            )
    try:
        yield workers
    finally:
        for one in workers:
            one.kill()
            one.wait()


def ip(*arguments: str, of: str = "") -> None:
    command = ["ip", *(["-n", of] if of else []), *arguments]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them, each with an address of its own."""
    names = f"bcgan-{os.getpid()}-a", f"bcgan-{os.getpid()}-b"
    with contextlib.ExitStack() as stack:
        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
            ip("link", "add", "cable", "netns", names[0], "type", "veth",
               "peer", "name", "cable", "netns", names[1])  # fmt: skip
            for number, name in enumerate(names, start=1):
                ip("address", "add", f"10.77.0.{number}/24", "dev", "cable", of=name)
                for link in ("lo", "cable"):
                    ip("link", "set", link, "up", of=name)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here ({error})")
        yield names


def codes(workers: Sequence[subprocess.Popen[str]]) -> list[int]:
    return [one.wait(timeout=SECONDS) for one in workers]


def text(folder: Path, index: int, stream: str = "stderr") -> str:
    return (folder / str(index) / stream).read_text()


@pytest.fixture(scope="module")
def alone(digits) -> dict[str, worker.Result]:
    return {name: training(digits) for name, training in worker.TRAININGS.items()}


@pytest.fixture(scope="module")
def together(tmp_path_factory, alone) -> Path:
    """The folder of two workers that did all trainings, and then two commands."""
    folder = tmp_path_factory.mktemp("together")
    runs = folder / "runs"
    harden = [
        *("harden", "--dataset", "digits", "--classifier", str(runs / "train/classifier.keras")),
        *("--defense", "bcgan", "--n", "8", "--oracle-epochs", "1", "--generated-samples", "20"),
        *("--run-dir", str(runs / "harden"), *(w for o in GAN for w in ("-o", o))),
    ]
    commands = [[*TRAIN, "--run-dir", str(runs / "train")], harden]
    script = [str(TESTS / "helpers" / "worker.py"), str(runs), json.dumps(commands)]
    with started(folder, script) as workers:
        assert codes(workers) == [0, 0], text(folder, 0)[-3000:] + text(folder, 1)[-3000:]
    return folder


def found(folder: Path, index: int, name: str) -> worker.Result:
    with np.load(folder / str(index) / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.mark.parametrize("name", worker.TRAININGS)
def test_two_workers_train_like_one(together, alone, name):
    """Weights, moving statistics of batch normalisation, and the logs."""
    chief, other = (found(together, index, name) for index in range(2))
    assert list(chief) == list(other) == list(alone[name])
    for key, value in alone[name].items():
        np.testing.assert_array_equal(chief[key], other[key], err_msg=key)
        limit = 1e-6 if key.startswith("weight") else 1e-5
        np.testing.assert_allclose(chief[key], value, rtol=limit, atol=limit, err_msg=key)


def test_a_step_of_two_workers_is_that_of_numpy(together):
    expected = expected_update(initial_arrays())
    for index in range(2):
        weights = [v.astype(float) for v in found(together, index, "step").values()]
        names = ["generator"] * 2 + ["discriminator"] * 4
        for name, weight in zip(names, weights, strict=True):
            assert np.abs(expected[name][weight.shape] - weight).max() < 1e-6


def test_the_workers_draw_different_parts_of_one_draw(together):
    parts = [found(together, index, "drawn") for index in range(2)]
    whole = worker.drawn()["noise"]
    np.testing.assert_array_equal(np.concatenate([part["noise"] for part in parts]), whole)
    assert (parts[0]["mask"] != parts[1]["mask"]).any()


def test_only_the_chief_writes_and_prints(together):
    chief, other = (json.loads((together / str(i) / "cli.json").read_text()) for i in range(2))
    assert other == {"writes": [], "stdout": ""}
    assert chief["writes"]
    assert "hardened.keras" in chief["stdout"] and "Robust accuracy" in chief["stdout"]
    stages = json.loads((together / "runs/harden/stages.json").read_text())
    assert {"gan", "oracle", "generated_set", "harden"} <= set(stages)


def weights(run: Path) -> list[np.ndarray]:
    return keras.models.load_model(run / "classifier.keras").get_weights()


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_worker_ends_all_and_a_resume_equals_the_uninterrupted_run(together, tmp_path):
    """First the other worker is killed, then, of the resumed run, the chief."""
    run = tmp_path / "run"
    command = ["-c", CODE, *TRAIN, "--run-dir", str(run), "--resume"]
    for killed, epoch in ((1, 2), (0, 4)):
        with started(tmp_path, command) as workers:
            until((run / f"checkpoints/train/epoch-{epoch:04d}").exists)
            workers[killed].send_signal(signal.SIGKILL)
            began = time.monotonic()
            assert workers[1 - killed].wait(timeout=SECONDS) == 1
            assert time.monotonic() - began < 60
        line = text(tmp_path, 1 - killed).splitlines()[-1]
        assert line == (
            "Error: another worker has ended or cannot be reached; start the same command again "
            f"on all workers, with --resume. Go on with: bcgan-tf train --run-dir {run} --resume"
        )
        assert "Traceback" not in text(tmp_path, 1 - killed)
        assert not (run / "classifier.keras").exists()
    with started(tmp_path, command) as workers:
        assert codes(workers) == [0, 0], text(tmp_path, 0)
    whole = together / "runs/train"
    for one, other in zip(weights(run), weights(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (run / "history.csv").read_text() == (whole / "history.csv").read_text()


def test_two_hosts_train_one_model_and_end_when_the_cable_is_cut(together, tmp_path, hosts):
    run = tmp_path / "run"
    command = ["-c", CODE, *TRAIN, "--run-dir", str(run), "--resume"]
    with started(tmp_path, command, hosts) as workers:
        until((run / "checkpoints/train/epoch-0002").exists)
        ip("link", "set", "cable", "down", of=hosts[1])
        assert codes(workers) == [1, 1]
    for index in range(2):
        lines = text(tmp_path, index).splitlines()
        assert lines[-1].startswith("Error: another worker has ended or cannot be reached; start")
        assert "Traceback" not in "".join(lines)
    ip("link", "set", "cable", "up", of=hosts[1])
    with started(tmp_path, command, hosts) as workers:
        assert codes(workers) == [0, 0], text(tmp_path, 0)
    for one, other in zip(weights(run), weights(together / "runs/train"), strict=True):
        np.testing.assert_array_equal(one, other)
