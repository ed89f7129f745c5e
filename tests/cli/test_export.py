"""What `export` takes from a run's folder, and what it refuses: names, links, unfinished runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.files import COPY_PREFIX, keep_json
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.serving import card as model_card

Calls = list[SimpleNamespace]
PAYLOAD = {
    "defense": {"defense": "pgd-at", "eps": 0.1},
    "classes": ["zero", *map(str, range(1, 10))],
}
MEASURED = {"clean_accuracy": 0.9, "clean_interval95": [0.8, 0.95], "n": 100}


@pytest.fixture
def finished(model_file: Path, tmp_path: Path) -> Path:
    """A finished run of ``harden``, the folder ``h`` in the working directory."""
    with RunDirectory.create(tmp_path / "h", "harden", {"dataset": "digits"}) as run:
        (run.path / "hardened.keras").write_bytes(model_file.read_bytes())
        run.finish_stage("harden", PAYLOAD)
        run.write_metrics({"dataset": "digits", "models": {"hardened": MEASURED}})
    return run.path


def change(file: Path, **values: Any) -> None:
    keep_json(file, {**json.loads(file.read_text()), **values})


def refused(cli, calls: Calls, *arguments: str) -> str:
    """The one line that `export` ends with; nothing is exported."""
    result = cli("export", *arguments)
    assert result.exit_code == 1, result.output
    assert not any(call.name == "export" for call in calls) and not Path("saved_models").exists()
    (line,) = result.stderr.splitlines()
    return line


def test_a_finished_run_is_exported_as_it_says(cli, pipeline_calls: Calls, finished) -> None:
    result = cli("export", "h")
    assert result.exit_code == 0, result.stderr
    call = pipeline_calls[-1]
    assert call.directory == Path("saved_models/digits-pgd-at")
    assert call.class_names == PAYLOAD["classes"] and call.card["defense"] == PAYLOAD["defense"]
    assert call.check_pixels and call.max_megapixels == 64
    cli("export", "h", "--no-check-pixels", "--max-megapixels", "5")
    assert not pipeline_calls[-1].check_pixels and pipeline_calls[-1].max_megapixels == 5


@pytest.mark.parametrize("name", ["..", ".", "../../x", "/tmp/x", "a/b", "7", "a b", "é"])
def test_a_name_that_is_a_path_or_a_version_is_refused(
    cli, pipeline_calls: Calls, model_file: Path, name: str
) -> None:
    line = refused(cli, pipeline_calls, str(model_file), "--name", name)
    assert f"{name!r} cannot name a served model" in line


def test_a_file_whose_name_is_no_name_asks_for_one(
    cli, pipeline_calls: Calls, model_file: Path
) -> None:
    model_file.rename("7.keras")
    assert "'7' cannot name a served model; give --name" in refused(cli, pipeline_calls, "7.keras")
    assert cli("export", "7.keras", "--name", "seven").exit_code == 0


def test_a_run_cannot_say_where_it_is_exported(cli, pipeline_calls: Calls, finished) -> None:
    for kind in ("../../x", "/tmp/x", ""):
        change(
            finished / "stages.json",
            harden={"payload": {**PAYLOAD, "defense": {"defense": kind}}, "seconds": 1},
        )
        assert f"{kind!r} cannot name a defence" in refused(cli, pipeline_calls, "h")
    change(finished / "stages.json", harden={"payload": PAYLOAD, "seconds": 1})
    change(finished / "metrics.json", dataset="../../x")
    assert cli("export", "h").exit_code == 0
    assert pipeline_calls[-1].directory == Path("saved_models/..-..-x-pgd-at")


@pytest.mark.parametrize(
    "name",
    ["hardened.keras", "config.json", "stages.json", ".copy-stages.json", "metrics.json"],
)
def test_a_link_out_of_the_run_is_not_followed(
    cli, pipeline_calls: Calls, finished, tmp_path: Path, name: str
) -> None:
    (finished / name).rename(tmp_path / name)
    (finished / name).symlink_to(tmp_path / name)
    assert f"names {name}, which lies outside it" in refused(cli, pipeline_calls, "h")


def test_a_folder_of_images_that_a_run_names_is_not_looked_into(
    cli, pipeline_calls: Calls, finished, tmp_path: Path
) -> None:
    found = json.loads((finished / "config.json").read_text())
    keep_json(finished / "config.json", {**found, "config": {"dataset": f"folder:{tmp_path}/no"}})
    assert cli("export", "h").exit_code == 0  # the run says what its classes are
    pipeline_calls.clear()
    payload = {"defense": PAYLOAD["defense"]}
    change(finished / "stages.json", harden={"payload": payload, "seconds": 1})
    assert "give --class-names" in refused(cli, pipeline_calls, "h")
    assert cli("export", "h", "--class-names", "a,b,c,d,e,f,g,h,i,j").exit_code == 0


@pytest.mark.parametrize(
    "lost", ["stages.json", "metrics.json", "the stage", "the model", "the verdict"]
)
def test_an_unfinished_run_is_refused(cli, pipeline_calls: Calls, finished, lost: str) -> None:
    if lost == "the stage":
        keep_json(finished / "stages.json", {"gan": {"payload": {}, "seconds": 1}})
    elif lost == "the verdict":
        change(finished / "metrics.json", unfinished=True)
    elif lost == "the model":
        keep_json(finished / "metrics.json", {"models": {"original": MEASURED}})
    else:
        (finished / lost).unlink()
        (finished / f"{COPY_PREFIX}{lost}").unlink()
    line = refused(cli, pipeline_calls, "h")
    assert line.endswith("; go on with: bcgan-tf harden --run-dir h --resume")
    with pytest.raises(UserError, match="hardened classifier; go on with"):
        model_card.of_training(RunDirectory.open(finished), "hardened")


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("stages.json", {"harden": {"payload": {"defense": None}, "seconds": 1}}),
        ("stages.json", {"harden": {"payload": {}, "seconds": 1}}),
        ("metrics.json", {"models": 5}),
        ("metrics.json", {"models": {"hardened": {"attacks": [{"config": 5}]}}}),
    ],
)
def test_files_that_no_run_wrote_are_one_line(
    cli, pipeline_calls: Calls, finished, file: str, values: dict[str, Any]
) -> None:
    change(finished / file, **values)
    assert "the files of h are not those that a run writes" in refused(cli, pipeline_calls, "h")
    change(finished / "stages.json", harden=5)
    assert "h/stages.json is damaged at harden" in refused(cli, pipeline_calls, "h")


def test_an_unfinished_evaluation_is_refused(cli, pipeline_calls: Calls, finished) -> None:
    with RunDirectory.create("e", "attack", {"dataset": "digits", "models_sha256": {}}):
        pass
    line = refused(cli, pipeline_calls, "h", "--evaluation", "e")
    assert line == "Error: e is not finished; go on with: bcgan-tf attack --run-dir e --resume"


def test_a_run_that_noted_settings_nobody_reads_is_refused_for_its_settings(
    cli, pipeline_calls: Calls, model_file: Path
) -> None:
    arguments = ("run", "--dataset", "digits", "--classifier", str(model_file), "--run-dir", "a")
    assert cli(*arguments).exit_code == 0
    found = json.loads(Path("a/config.json").read_text())
    found["config"]["architecture"] = "small_cnn"
    keep_json(Path("a/config.json"), found)
    resumed = cli("run", "--run-dir", "a", "--resume")
    assert resumed.exit_code == 1
    assert 'started with other settings: architecture ("small_cnn" there' in resumed.stderr
