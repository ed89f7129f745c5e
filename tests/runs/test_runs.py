"""Run directories: what a kill, a second process, or other settings can and cannot do."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.files import read_json, replace_file, seal, write_json
from bcgan_tf.runs.history import History
from bcgan_tf.runs.directory import RunDirectory

DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "flipped": lambda content: content[:-4] + bytes([content[-4] ^ 1]) + content[-3:],
    "garbage": lambda content: bytes(len(content)),
    "list": lambda content: b"[1, 2]\n",
    "gone": None,
}
CONFIG = {"dataset": "digits", "seed": 3, "attack_eps": (0.1, 0.2), "classifier": None}


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_new_run_holds_its_settings_and_environment(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "a", "run", CONFIG, command_line="bcgan-tf run") as run:
        saved = json.loads((run.path / "config.json").read_text())
    assert saved == {
        "command": "run",
        "command_line": "bcgan-tf run",
        "config": {"dataset": "digits", "seed": 3, "attack_eps": [0.1, 0.2], "classifier": None},
    }
    assert run.checkpoints.is_dir() and run.figures.is_dir()
    env = run.env()
    assert env["python"] == ".".join(map(str, sys.version_info[:3]))
    assert env["keras"][0] == "3" and env["cpu_count"] == os.cpu_count()
    assert any(device.startswith("CPU") for device in env["devices"])
    text = json.dumps(env)
    assert os.uname().nodename not in text and str(Path.home()) not in text


def test_the_folder_is_named_by_time_command_and_dataset(tmp_path: Path) -> None:
    config = {"dataset": "folder:/data/my pets/"}
    with RunDirectory.create(None, "harden", config, root=tmp_path / "runs") as first:
        stamp, command, dataset = first.path.name.split("-", 2)[0], "harden", "folder-my-pets"
        assert first.path.name.endswith(f"-{command}-{dataset}")
        assert first.path.parent == tmp_path / "runs" and len(stamp) == 8 and stamp.isdigit()
        with RunDirectory.create(None, "harden", config, root=tmp_path / "runs") as second:
            assert second.path != first.path


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(UserError, match="not empty and holds no run") as error:
            RunDirectory.create(tmp_path, "run", CONFIG, resume=resume)
        one_line(error)
    assert [item.name for item in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(UserError, match="is a file"):
        RunDirectory.create(tmp_path / "note.txt", "run", CONFIG)
    RunDirectory.create(tmp_path / "a", "run", CONFIG).close()
    with pytest.raises(UserError, match="holds a run; pass --resume"):
        RunDirectory.create(tmp_path / "a", "run", CONFIG)


def test_resume_needs_the_same_command_and_settings(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "a", "run", CONFIG, command_line="first").close()
    with RunDirectory.create(tmp_path / "a", "run", CONFIG, resume=True) as run:
        assert run.command_line == "first"
    other = {**CONFIG, "seed": 4, "beta": 1.0}
    with pytest.raises(UserError) as error:
        RunDirectory.create(tmp_path / "a", "run", other, resume=True)
    line = one_line(error)
    assert "seed (3 there, 4 now)" in line and "beta (not set there, 1.0 now)" in line
    assert "attack_eps" not in line
    with pytest.raises(UserError, match="a run of 'run', not of 'train'"):
        RunDirectory.create(tmp_path / "a", "train", CONFIG, resume=True)
    with RunDirectory.create(tmp_path / "a", "run", CONFIG, resume=True):
        pass  # the refusals above left no lock behind


@pytest.mark.parametrize("left", [(), (".lock",), (".lock", "env.json", ".partial-config.json")])
def test_a_start_killed_early_can_be_started_again(tmp_path: Path, left: tuple[str, ...]) -> None:
    for name in left:
        (tmp_path / name).write_text("{")
    for resume in (True, False):
        folder = tmp_path if resume else tmp_path / "missing"
        with RunDirectory.create(folder, "run", CONFIG, resume=True) as run:
            assert run.config["seed"] == 3
            assert not list(run.path.glob(".partial-*")) and run.env()["python"]


def test_a_damaged_file_without_a_copy_is_named(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, "run", CONFIG).close()
    (tmp_path / ".copy-config.json").unlink()
    text = (tmp_path / "config.json").read_text()
    assert RunDirectory.open(tmp_path).config["seed"] == 3
    (tmp_path / "config.json").write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match=r"config\.json is cut short or no JSON") as error:
        RunDirectory.create(tmp_path, "run", CONFIG, resume=True)
    one_line(error)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="no JSON object"):
        RunDirectory.open(tmp_path)
    for content in ({}, {"command": "run"}, {"command": "run", "config": {}, "command_line": 3}):
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"not the config\.json of a run"):
            RunDirectory.open(tmp_path)
    with pytest.raises(UserError, match="holds no run"):
        RunDirectory.open(tmp_path / "missing")


def test_only_one_writer_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "a", "run", CONFIG)
    with pytest.raises(UserError, match="another process is writing") as error:
        RunDirectory.create(tmp_path / "a", "run", CONFIG, resume=True)
    one_line(error)
    assert RunDirectory.open(tmp_path / "a").config == run.config  # reading needs no lock
    run.close()
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom bcgan_tf.files import lock_folder\n"
        "lock = lock_folder(Path(sys.argv[1]))\nprint('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match="another process is writing"):
        RunDirectory.create(tmp_path / "a", "run", CONFIG, resume=True)
    other.kill()
    other.communicate()
    RunDirectory.create(tmp_path / "a", "run", CONFIG, resume=True).close()


def test_stages_are_remembered(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path, "run", CONFIG) as run:
        assert not run.stage_done("train")
        with pytest.raises(KeyError):
            run.stage_payload("train")
        run.finish_stage("train", {"classifier": Path("classifier.keras"), "loss": np.float32(0.5)})
        run.finish_stage("harden")
    with RunDirectory.create(tmp_path, "run", CONFIG, resume=True) as run:
        assert run.stage_done("train") and run.stage_done("harden")
        assert run.stage_payload("train") == {"classifier": "classifier.keras", "loss": 0.5}
        assert run.stage_payload("harden") == {}
        assert list(run.stage_seconds()) == ["train", "harden"]


def test_the_time_of_a_stage_counts_what_a_kill_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("bcgan_tf.runs.directory.time.monotonic", lambda: now[0])

    def step(seconds: float) -> None:
        now[0] += seconds

    with RunDirectory.create(tmp_path, "run", CONFIG) as run:
        step(3)
        run.finish_stage("train")
        step(10)
        run.history.append("gan", 1, {"loss": 1})
        step(4)  # lost: killed within an epoch
    now[0] = 7.0  # another boot of the machine
    with RunDirectory.create(tmp_path, "run", CONFIG, resume=True) as run:
        step(5)
        run.history.append("gan", 2, {"loss": 1})
    with RunDirectory.create(tmp_path, "run", CONFIG, resume=True) as run:
        step(1)
        run.finish_stage("gan")
    with RunDirectory.create(tmp_path, "run", CONFIG, resume=True) as run:
        step(2)  # nothing of the stage before
        run.finish_stage("harden")
    assert run.stage_seconds() == {"train": 3.0, "gan": 16.0, "harden": 2.0}


def test_another_environment_is_noted_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunDirectory.create(tmp_path, "run", CONFIG).close()
    first = RunDirectory.open(tmp_path).env()
    monkeypatch.setattr("bcgan_tf.runs.directory.environment", lambda: {**first, "cpu_count": 96})
    for _ in range(2):
        RunDirectory.create(tmp_path, "run", CONFIG, resume=True).close()
    env = RunDirectory.open(tmp_path).env()
    assert env.pop("resumed_in") == [{**first, "cpu_count": 96}] and env == first


def test_json_is_replaced_whole_and_takes_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": np.arange(2), "b": math.nan, "c": (np.int64(1), math.inf), "d": True})
    assert read_json(file) == {"a": [0, 1], "b": None, "c": [1, None], "d": True}
    with pytest.raises(TypeError, match="object is no JSON value"):
        write_json(file, {"a": object()})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_json(file, {"new": 1})
    assert read_json(file)["a"] == [0, 1]


def test_history_round_trips_every_digit(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    assert history.read() == {}
    history.append("train", 1, {"loss": np.float32(0.1), "accuracy": 0.5})
    history.append("train", 2, {"loss": 1 / 3, "accuracy": 0.75})
    history.append("gan", 1, {"g_loss": math.nan})
    table = history.read()
    assert table["train"] == {
        "loss": [(1, float(np.float32(0.1))), (2, 1 / 3)],
        "accuracy": [(1, 0.5), (2, 0.75)],
    }
    assert math.isnan(table["gan"]["g_loss"][0][1])
    assert history.file.read_text().splitlines()[:2] == [
        "stage,epoch,metric,value",
        f"train,1,loss,{float(np.float32(0.1))!r}",
    ]


def test_history_of_a_killed_run_becomes_that_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken, killed = History(tmp_path / "a.csv"), History(tmp_path / "b.csv")
    for history in (unbroken, killed):
        history.append("train", 1, {"loss": 1.0})
        for epoch in (1, 2, 3):
            history.append("gan", epoch, {"g": epoch / 3, "d": 2.0})
    whole = killed.file.read_text()
    killed.file.write_text(whole[:-5])  # the kill came in the middle of a row
    killed.keep("gan", 1)  # the newest checkpoint is the first epoch's
    assert killed.read()["gan"]["g"] == [(1, 1 / 3)]
    for epoch in (2, 3):
        killed.append("gan", epoch, {"g": epoch / 3, "d": 2.0})
    assert killed.file.read_bytes() == unbroken.file.read_bytes()


@pytest.mark.parametrize("row", ["train,1,loss", "train,one,loss,0.5", "train,1,loss,much"])
def test_a_damaged_history_row_is_named(tmp_path: Path, row: str) -> None:
    history = History(tmp_path / "history.csv")
    replace_file(history.file, f"stage,epoch,metric,value\n{row}\n".encode())
    with pytest.raises(UserError, match=row) as error:
        history.read()
    one_line(error)


def damage(file: Path, kind: str) -> None:
    content = file.read_bytes()
    file.unlink()
    change = DAMAGE[kind]
    if change is not None:
        file.write_bytes(change(content))


@pytest.mark.parametrize("name", ["config.json", "env.json", "stages.json", "metrics.json"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_json_file_is_read_from_its_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    with RunDirectory.create(tmp_path, "run", CONFIG) as run:
        run.finish_stage("train", {"accuracy": 0.91})
        run.write_metrics({"models": {"original": {"clean_accuracy": 0.91}}})
    first = RunDirectory.open(tmp_path)

    def content(run: RunDirectory) -> tuple[object, ...]:
        return run.config, run.env(), run.stage_payload("train"), run.metrics()

    expected, whole = content(first), (tmp_path / name).read_bytes()
    damage(tmp_path / name, kind)
    assert content(RunDirectory.open(tmp_path)) == expected
    said = capsys.readouterr().err
    assert said == f"{tmp_path / name} is damaged or gone; its copy .copy-{name} is taken\n"
    with RunDirectory.create(tmp_path, "run", CONFIG, resume=True):
        assert (tmp_path / name).read_bytes() == whole

    (tmp_path / f".copy-{name}").write_bytes(b"")
    assert content(RunDirectory.open(tmp_path)) == expected
    assert capsys.readouterr().err == f"{tmp_path / f'.copy-{name}'} is damaged; {name} is taken\n"


@pytest.mark.parametrize("content", [{"train": 5}, {"train": {"payload": [], "seconds": 1}}])
def test_stages_of_another_shape_are_refused(tmp_path: Path, content: object) -> None:
    RunDirectory.create(tmp_path, "run", CONFIG).close()
    (tmp_path / "stages.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"stages\.json is damaged at train") as error:
        RunDirectory.open(tmp_path).stage_done("train")
    one_line(error)


@pytest.mark.parametrize("content", ['{"stages_finished": 0}', "{", '{"seconds": "3"}'])
def test_lost_seconds_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    RunDirectory.create(tmp_path, "run", CONFIG).close()
    (tmp_path / "elapsed.json").write_text(content)
    with RunDirectory.create(tmp_path, "run", CONFIG, resume=True) as run:
        run.finish_stage("train")
    assert run.stage_seconds()["train"] < 60
    assert "elapsed.json is damaged; the time of the stage begins anew" in capsys.readouterr().err


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_stage_whose_file_is_damaged_is_to_be_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    file = tmp_path / "classifier.keras"
    with RunDirectory.create(tmp_path, "train", CONFIG) as run:
        file.write_bytes(b"0123456789")
        run.finish_stage("train", files=[file])
        seconds = run.stage_seconds()
        assert run.stage_done("train")
    damage(file, kind)
    with pytest.raises(UserError, match=r"classifier\.keras is damaged or gone; resume") as error:
        RunDirectory.open(tmp_path).stage_done("train")
    one_line(error)
    with RunDirectory.create(tmp_path, "train", CONFIG, resume=True) as run:
        assert not run.stage_done("train")
        file.write_bytes(b"another")
        run.finish_stage("train", files=[file])
        assert run.stage_done("train") and run.stage_seconds() == seconds
    assert f"{file} is damaged or gone; the stage train makes it again" in capsys.readouterr().err
    assert RunDirectory.open(tmp_path).stage_done("train")


def logged(folder: Path, epochs: int) -> list[dict[str, float]]:
    """A checkpoint's folder, of its logs alone."""
    logs = [{"epoch": epoch, "loss": epoch / 3, "accuracy": 0.5} for epoch in range(epochs)]
    folder.mkdir(parents=True)
    write_json(folder / "history.json", logs)
    seal(folder)
    return logs


@pytest.mark.parametrize("kind", [*DAMAGE, "not UTF-8", "a digit"])
def test_history_comes_back_from_the_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    history = History(tmp_path / "history.csv", checkpoints=tmp_path / "checkpoints")
    for stage, epochs in (("train", 2), ("gan", 3)):
        for log in logged(tmp_path / "checkpoints" / stage / f"epoch-{epochs:04d}", epochs):
            values = {name: value for name, value in log.items() if name != "epoch"}
            history.append(stage, int(log["epoch"]) + 1, values)
    logged(tmp_path / "checkpoints" / "gan" / "epoch-0009", 9)
    (tmp_path / "checkpoints" / "gan" / "epoch-0009" / "history.json").write_text("[]")  # damaged
    whole, expected = history.file.read_bytes(), history.read()
    assert capsys.readouterr().err == ""
    if kind == "not UTF-8":
        history.file.write_bytes(whole.replace(b"loss", b"l\xffss"))
    elif kind == "a digit":
        history.file.write_bytes(whole.replace(b"0.5", b"0.6", 1))
    else:
        damage(history.file, kind)
    assert history.read() == expected
    said = capsys.readouterr().err
    assert said == f"{history.file} is damaged or gone; its rows are taken from the checkpoints\n"
    history.mend()
    assert history.file.read_bytes() == whole
    history.keep("gan", 3)
    assert history.file.read_bytes() == whole


def test_a_history_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    history.file.write_bytes(b"stage,epoch,metric,value\ntrain,\xff,loss,0.5\n")
    with pytest.raises(UserError, match=r"history\.csv is damaged at the row"):
        history.read()
