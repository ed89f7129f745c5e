"""`bcgan-tf run` on real digits: ended, killed twice and resumed, it gives the same result.

All is real but the diagnosis, which takes longer than all the rest.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

CODE = """
import pytest
from bcgan_tf.cli import main
from helpers.suites import plan_diagnosis
plan_diagnosis(pytest.MonkeyPatch())
main(prog_name="bcgan-tf")
"""
COMMAND = [sys.executable, "-c", CODE, "run"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
SETTINGS = """
dataset = "digits"
deterministic = true
seed = 3
saved-models = "published"
defense = "bcgan"
classifier-epochs = 2
classifier-batch-size = 128
oracle-epochs = 1
option = [
    "gan_epochs=2", "gan_batch_size=128", "generator_width=0.1", "discriminator_width=0.1",
    "latent_dim=8", "delay_epochs=0", "warmup_epochs=1", "epochs=1", "batch_size=128",
]
generated-samples = 50
eps = 0.1
n = 20
"""
FIRST = ["--config", "settings.toml", "--run-dir", "r"]
AGAIN = ["--run-dir", "r", "--resume"]


def finish(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def kill(folder: Path, *arguments: str, at: str, by: signal.Signals) -> str:
    """Runs until a line of progress starts with ``at``, sends a signal, and gives all lines."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith(at):
            process.send_signal(by)
    code = -signal.SIGKILL if by == signal.SIGKILL else 143
    assert process.wait() == code, "".join(seen)
    process.stderr.close()
    return "".join(seen)


def weights(file: Path) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    with zipfile.ZipFile(file) as archive, archive.open("model.weights.h5") as stream:
        tree = h5py.File(stream, "r")
        tree.visititems(lambda _, node: found.append(node[()]) if hasattr(node, "dtype") else None)
    return found


def without_seconds(text: str) -> str:
    """Without how long each attack took: the last column of the table, an entry of the JSON."""
    text = re.sub(r'[\d.]+ s │$|"seconds": [\d.]+', "", text, flags=re.MULTILINE)
    return re.sub(r"[ ─━]+", " ", text)  # a column of them may be wider


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "settings.toml").write_text(SETTINGS)
    return folder, finish(folder, *FIRST).stdout


def test_a_run_leaves_what_it_promises(unbroken: tuple[Path, str]) -> None:
    folder, stdout = unbroken
    run = folder / "r"
    for name in ("config.json", "env.json", "history.csv", "metrics.json", "report.html"):
        assert (run / name).stat().st_size > 0, name
    for name in ("boundary_samples", "examples-original-fast-linf-0.1"):
        assert (run / "figures" / f"{name}.png").is_file(), name
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics["models"]) == ["original", "hardened"]
    assert metrics["models"]["original"]["clean_accuracy"] > 0.5
    assert set(metrics["generated_set"]) >= {"oracle_accuracy", "confidence", "diversity"}
    published = folder / metrics["exported"]
    assert published == folder / "published" / "digits-bcgan" / "1"
    assert (published / "saved_model.pb").is_file() and (published / "export.json").is_file()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 8
    for words in ("worst case", "APGD-T", "Boundary samples", "Oracle"):
        assert words in page, words
    assert "report" in stdout and stdout.count("Verdict: ") == 2
    host_files = (run / "env.json").read_text() + (run / "stages.json").read_text()
    assert str(folder) not in host_files


def test_ended_and_killed_twice_it_ends_the_same(
    unbroken: tuple[Path, str], tmp_path: Path
) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    said = kill(tmp_path, *FIRST, at="train epoch 1/2", by=signal.SIGTERM)
    assert said.endswith("\nTerminated. Go on with: bcgan-tf run --run-dir r --resume\n")
    kill(tmp_path, *AGAIN, at="gan epoch 1/2", by=signal.SIGKILL)
    kill(tmp_path, *AGAIN, at="original", by=signal.SIGKILL)
    stdout = finish(tmp_path, *AGAIN).stdout

    folder, expected = unbroken
    assert without_seconds(stdout) == without_seconds(expected)
    one, other = folder / "r", tmp_path / "r"
    for name in ("history.csv", "config.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    metrics = [(run / "metrics.json").read_text() for run in (one, other)]
    assert without_seconds(metrics[0]) == without_seconds(metrics[1])
    for name in ("classifier.keras", "oracle.keras", "gan.keras", "hardened.keras"):
        pairs = list(zip(weights(one / name), weights(other / name), strict=True))
        assert pairs and all(np.array_equal(a, b) for a, b in pairs), name
    pictures = {p.relative_to(one) for p in one.glob("figures/**/*.png")}
    assert pictures == {p.relative_to(other) for p in other.glob("figures/**/*.png")}
    assert all((one / p).read_bytes() == (other / p).read_bytes() for p in pictures)
    assert [p.name for p in (tmp_path / "published" / "digits-bcgan").iterdir()] == ["1"]
