"""The job files of examples/, run as their schedulers would, two jobs each."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ATTACK = ["--dataset", "digits", "--eps", "0.05", "--n", "12", "--no-diagnose"]
# That of this interpreter comes first, as in a virtual environment that is active.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def done(command: list[str], folder: Path, **environment: str) -> None:
    ran = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": PATH, **environment}, capture_output=True,
        text=True, timeout=280,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def rows(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "evaluation-model.npz") as found:
        return {name: found[name] for name in found.files if name != "settings"}


def slurm(folder: Path, number: int) -> None:
    array = {"ID": number, "MAX": 2, "COUNT": 2}
    job = [str(EXAMPLES / "slurm" / "attack.sbatch"), "runs", "model.keras", *ATTACK]
    done(["bash", *job], folder, **{f"SLURM_ARRAY_TASK_{k}": str(v) for k, v in array.items()})


def kubernetes(folder: Path, number: int) -> None:
    """The container's script, with its volume in the folder and this test's arguments."""
    job = (EXAMPLES / "kubernetes" / "attack.yaml").read_text()
    (script,) = re.findall(r"args:\n +- \|\n((?: {14}.*\n)+)", job)
    script = textwrap.dedent(script).replace("/evaluation", str(folder))
    script = script.replace("--dataset mnist --eps 0.3 --n 0", " ".join(ATTACK))
    assert " ".join(ATTACK) in script
    names = {"JOB_COMPLETION_INDEX": str(number - 1), "JOB_COMPLETIONS": "2"}
    done(["/bin/sh", "-c", script], folder, **names)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a linear network of digits, and a run of one process."""
    folder = tmp_path_factory.mktemp("one")
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    keras.Sequential(layers).save(folder / "model.keras")
    done(["bcgan-tf", "attack", "model.keras", *ATTACK, "--run-dir", "run"], folder)
    return folder


@pytest.fixture
def model(one: Path, tmp_path: Path) -> Path:
    """A folder with the same network alone."""
    shutil.copy(one / "model.keras", tmp_path)
    return tmp_path


def assert_rows_of_one_process(run: Path, one: Path) -> None:
    found, expected = rows(run), rows(one / "run")
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


SCONTROL = """#!/bin/bash
[ "$1 $2 $3" = "show hostnames two-nodes" ] && echo localhost && echo localhost
"""
SRUN = """#!/bin/bash
SLURM_PROCID=1 "$@" & other=$!
SLURM_PROCID=0 "$@"
wait $other
"""


@pytest.mark.slow
def test_a_job_of_two_nodes_trains_one_model(model: Path) -> None:
    """With programs that answer for SLURM: both nodes are this machine."""
    for name, program in {"scontrol": SCONTROL, "srun": SRUN}.items():
        (model / name).write_text(program)
        (model / name).chmod(0o755)
    port = free_port()
    done(
        ["bash", str(EXAMPLES / "slurm" / "harden.sbatch"), "run", "--dataset", "digits",
         "--classifier", "model.keras", "--defense", "pgd-at", "-o", "epochs=1", "-o", "steps=1",
         "-o", "ramp_epochs=0", "--no-attack"],
        model, PATH=f"{model}{os.pathsep}{PATH}", SLURM_JOB_NODELIST="two-nodes", PORT=str(port),
    )  # fmt: skip
    assert (model / "run" / "hardened.keras").exists()
    environment = json.loads((model / "run" / "env.json").read_text())
    assert environment and not list((model / "run").glob(".partial-*"))


@pytest.mark.slow
def test_a_ray_cluster_gives_the_rows_of_one(model: Path, one: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    job = ["bash", str(EXAMPLES / "ray" / "attack.sh"), "run", "model.keras", *ATTACK]
    done(job, model, RAY_ADDRESS="", RAY_PORT=str(free_port()))
    assert_rows_of_one_process(model / "run", one)


@pytest.mark.slow
@pytest.mark.parametrize("submit", [slurm, kubernetes])
def test_two_jobs_joined_give_the_rows_of_one(submit, model: Path, one: Path) -> None:
    for number in (1, 2):
        submit(model, number)
    parts = sorted(map(str, (model / "runs").iterdir()))
    assert len(parts) == 2
    done(["bcgan-tf", "attack", "merge", *parts, "--run-dir", "runs/whole"], model)
    assert_rows_of_one_process(model / "runs" / "whole", one)
