"""Assessments in stages: killed and resumed, in shards and merged, on hostile input."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bcgan_tf import assessment, files
from bcgan_tf.assessment import assess_models
from bcgan_tf.assessment_settings import AssessmentSettings, Reading, parse_shard
from bcgan_tf.attacks import FGSM, PGD
from bcgan_tf.data import Dataset, Split
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation import archive, runner
from bcgan_tf.evaluation.diagnostics import Diagnosis
from bcgan_tf.evaluation.flags import Flag
from bcgan_tf.evaluation.gradient_health import GradientHealth
from bcgan_tf.evaluation.loss_curves import loss_curves
from bcgan_tf.report import evaluation_figures
from bcgan_tf.report.evaluation_figures import example_images
from bcgan_tf.runs import RunDirectory
from bcgan_tf.shard_merging import common_config, merge_shards

RNG = np.random.default_rng(4)
PIXELS = RNG.integers(40, 216, (60, 4, 4, 1), dtype=np.uint8)
WEIGHTS = RNG.normal(size=(16, 4)).astype(np.float32)
EPS = 0.03


def linear(images: Any) -> tf.Tensor:
    return tf.reshape(tf.convert_to_tensor(images, tf.float32) - 0.5, [-1, 16]) @ WEIGHTS


LABELS = np.asarray(linear(Split(PIXELS, np.zeros(60, np.int64)).scaled())).argmax(-1)
LABELS = np.where(np.arange(60) < 5, (LABELS + 1) % 4, LABELS).astype(np.int64)  # five are wrong


def dataset(images: np.ndarray = PIXELS, labels: np.ndarray = LABELS) -> Dataset:
    part = Split(images, labels)
    return Dataset("toy", part, part, part, tuple("abcd"))


SETTINGS = AssessmentSettings(eps=EPS, n=0, diagnose=False)


def _shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    def attacks(name: str, eps: float, *, norm: str, num_classes: int, **shared: Any):
        assert num_classes == 4
        return FGSM(eps, norm=norm, **shared), PGD(eps, norm=norm, steps=4, **shared)

    def draw(images: np.ndarray, adversarials: np.ndarray, path: Path, **_: Any) -> Path:
        assert images.shape == adversarials.shape
        return files.replace_file(path, b"a picture, which takes longer than all the rest")

    monkeypatch.setattr(runner, "attacks_of", attacks)
    monkeypatch.setattr(runner, "_CHUNK", 25)
    monkeypatch.setattr(evaluation_figures, "example_images", draw)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two short attacks in place of every suite, and in chunks, so that there is what to kill."""
    _shorten(monkeypatch)


def _diagnosis(raised: bool) -> Diagnosis:
    none = np.zeros(3, bool)
    health = GradientHealth(~none, False, False, none, none, none)
    flag = Flag("logit scale", "evidence", True, raised, 0.4, 0.005, "as planted")
    return Diagnosis((flag,), health, 3, 1, False)


@pytest.fixture
def diagnosed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the diagnosis was asked; it raises a flag for a model that is called masked.

    Both it and the loss curves take seconds; what they measure is tested with them.
    """
    asked: list[dict[str, Any]] = []

    def diagnose(model: Any, images: np.ndarray, labels: np.ndarray, **options: Any) -> Diagnosis:
        asked.append(options)
        return _diagnosis(getattr(model, "masked", False))

    monkeypatch.setattr(assessment, "diagnose", diagnose)
    monkeypatch.setattr(assessment, "loss_curves", lambda *_, **options: {"iterations": [0, 1]})
    return asked


def open_run(folder: Path, settings: AssessmentSettings = SETTINGS) -> RunDirectory:
    config = {"dataset": "toy", **settings.to_dict(), "models": {"m": "m"}}
    return RunDirectory.create(folder, "attack", config, resume=True)


def assess(folder: Path, settings: AssessmentSettings = SETTINGS, **options: Any) -> dict[str, Any]:
    model, data = options.pop("model", linear), options.pop("data", dataset())
    with open_run(folder, settings) as run:
        return assess_models(run, data, {"m": model}, settings, **options)


def arrays(folder: Path, label: str = "m") -> dict[str, np.ndarray]:
    with np.load(folder / f"evaluation-{label}.npz") as found:
        return {name: found[name] for name in found.files if name != "settings"}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that nothing disturbed, without a diagnosis: its folder and its metrics."""
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _shorten(monkeypatch)
        return folder, assess(folder)


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k not in ("seconds", "shard")}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


def test_what_a_run_holds(quick, diagnosed, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(assessment, "loss_curves", loss_curves)
    monkeypatch.setattr(evaluation_figures, "example_images", example_images)
    settings = dataclasses.replace(SETTINGS, diagnose=True)
    metrics = assess(tmp_path, settings, control=linear, surrogate=linear, batch_size=7)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    model = metrics["models"]["m"]
    assert model["clean_accuracy"] == 55 / 60 and model["n"] == 60
    (found,) = model["evaluations"]
    evaluation = archive.load(tmp_path / "evaluation-m.npz")
    assert found["robust_accuracy"] == evaluation.robust_accuracy
    assert [attack["attack"] for attack in found["attacks"]] == ["FGSM", "PGD-4"]
    assert found["attacks"][1]["attacked"] == round(60 * found["attacks"][0]["left"])
    assert 0.2 < found["robust_accuracy"] < 0.9
    assert found["verdict"]["kind"] == "robust"
    assert found["verdict"]["accuracy"] == found["robust_accuracy"]
    assert found["diagnosis"]["flags"][0]["text"] == "as planted"
    assert "causes" not in found and found["loss_curves"]["eps"] == EPS
    (asked,) = diagnosed
    assert asked["control"] is linear and asked["surrogate"] is linear and asked["batch_size"] == 7
    assert asked["eps"] == EPS and asked["evaluation"].n == 60
    (examples,) = (tmp_path / "figures").glob("examples-m-standard-linf-0.03*.png")
    assert examples.stat().st_size > 1000


def test_a_masked_model_has_its_causes_measured(quick, diagnosed, tmp_path: Path) -> None:
    def masked(images: tf.Tensor) -> tf.Tensor:
        return 3000.0 * linear(images)

    masked.masked = True  # pyright: ignore[reportFunctionMemberAccess]
    metrics = assess(tmp_path, dataclasses.replace(SETTINGS, diagnose=True), model=masked)
    (found,) = metrics["models"]["m"]["evaluations"]
    assert found["verdict"]["kind"] == "gradient masking"
    causes = {row["cause"]: row for row in found["causes"]["rows"]}
    assert causes["logit scale"]["reproduces"] and causes["transfer"]["inflation"] is None


def test_the_paper_is_read_in_both_units(quick, tmp_path: Path) -> None:
    metrics = assess(tmp_path, dataclasses.replace(SETTINGS, suite="paper", eps=0.06))
    wide, narrow = metrics["models"]["m"]["evaluations"]
    assert (wide["eps"], narrow["eps"]) == (0.06, 0.03)
    assert wide["reading"] == "eps 0.06 read as of [0, 1] pixels"
    assert narrow["reading"] == "eps 0.06 read as of [-1, 1] pixels, 0.03 of [0, 1]"
    assert narrow["robust_accuracy"] > wide["robust_accuracy"]
    half = assess(tmp_path / "half", dataclasses.replace(SETTINGS, eps=0.06, eps_unit="11"))
    (told,) = half["models"]["m"]["evaluations"]
    assert told["eps"] == 0.03 and told["reading"] == narrow["reading"]


def test_the_images_are_those_of_the_first_look(quick, tmp_path: Path) -> None:
    assess(tmp_path, dataclasses.replace(SETTINGS, n=20))
    found = arrays(tmp_path)
    np.testing.assert_array_equal(found["labels"], dataset().test.take(20, seed=0).labels)


def test_the_smallest_perturbations(quick, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, minimum_perturbation=True, n=30)
    metrics = assess(tmp_path, settings)
    (found,) = metrics["models"]["m"]["evaluations"]
    with np.load(tmp_path / "perturbation-m.npz") as saved:
        assert (saved["best"] <= saved["multi"]).all() and (saved["multi"] <= saved["fgsm"]).all()
        evaluation = archive.load(tmp_path / "evaluation-m.npz")
        broken = evaluation.clean_correct & ~evaluation.worst_case
        assert broken.any() and saved["best"][broken].max() <= EPS * (1 + 1e-4)
    assert found["curve"][0] == [0.0, found["clean_accuracy"]]
    assert dict(found["curve"])[0.03] <= found["robust_accuracy"]
    counted = found["distances"]["readings"]["best"]
    assert sum(counted["counts"]) + counted["misclassified"] + counted["not_found"] == 30


# ---- Killed, resumed, in shards


class _Killed(Exception):
    pass


def killing(after: int) -> Callable[[str], contextlib.AbstractContextManager[Any]]:
    """Progress that raises at its call number ``after``."""
    calls = [0]

    @contextlib.contextmanager
    def progress(label: str) -> Iterator[Callable[[int, int, str], None]]:
        def report(done: int, total: int, text: str) -> None:
            calls[0] += 1
            if calls[0] == after:
                raise _Killed(f"{label}: {text}")

        yield report

    return progress


def test_killed_anywhere_it_ends_the_same(quick, diagnosed, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, diagnose=True)
    expected = assess(tmp_path / "whole", settings)
    kills = 0
    for after in (2, 5, 8):
        with contextlib.suppress(_Killed):
            assess(tmp_path / "killed", settings, progress=killing(after))
            break
        kills += 1
    assert kills >= 3
    found = assess(tmp_path / "killed", settings)
    assert without_seconds(found) == without_seconds(expected)
    same(arrays(tmp_path / "killed"), arrays(tmp_path / "whole"))


def test_what_is_finished_is_not_done_again(quick, diagnosed, tmp_path: Path, monkeypatch) -> None:
    settings = dataclasses.replace(SETTINGS, diagnose=True)
    expected = assess(tmp_path, settings)
    for name in ("evaluate", "diagnose", "loss_curves"):
        monkeypatch.setattr(assessment, name, None)
    assert assess(tmp_path, settings) == expected


def test_a_state_of_other_settings_is_refused(quick, tmp_path: Path) -> None:
    with pytest.raises(_Killed):
        assess(tmp_path, progress=killing(6))
    pieces = sorted((tmp_path / "state-m").glob("*.npz"))
    assert pieces
    other = dataclasses.replace(SETTINGS, eps=0.05)
    with pytest.raises(UserError, match=r"started with other settings: eps \(0.03 there, 0.05 now"):
        assess(tmp_path, other)
    with pytest.raises(UserError, match=r"holds an evaluation with other settings: model"):
        assess(tmp_path, model=lambda images: linear(images) * 2)
    assert sorted((tmp_path / "state-m").glob("*.npz")) == pieces


def test_shards_merged_are_one_run(quick, diagnosed, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, diagnose=True, n=40)
    expected = assess(tmp_path / "whole", settings)
    folders = []
    for number in (3, 1, 2):
        folder = tmp_path / f"shard{number}"
        shard = assess(folder, dataclasses.replace(settings, shard=(number, 3)))
        (told,) = shard["models"]["m"]["evaluations"]
        assert told["shard"] == f"{number}/3" and "verdict" not in told
        assert told["n"] in (13, 14)
        folders.append(folder)
    assert len(diagnosed) == 1  # a shard has not all that a diagnosis needs
    config = common_config(folders)
    assert AssessmentSettings.from_dict(config) == settings
    with RunDirectory.create(tmp_path / "merged", "merge", config) as run:
        merge_shards(run, folders, ["m"], settings)
        merged = assess_models(run, dataset(), {"m": linear}, settings)
    same(arrays(tmp_path / "merged"), arrays(tmp_path / "whole"))
    assert without_seconds(merged) == without_seconds(expected)


def test_only_shards_of_one_assessment_are_merged(quick, tmp_path: Path) -> None:
    def shard(name: str, **changes: Any) -> Path:
        assess(tmp_path / name, dataclasses.replace(SETTINGS, **changes))
        return tmp_path / name

    one, two = shard("one", shard=(1, 2)), shard("two", shard=(2, 2))
    other = shard("other", shard=(2, 2), eps=0.05)
    with pytest.raises(UserError, match=r"one and .*other differ in eps \(0.03 and 0.05\)"):
        common_config([one, other])
    with pytest.raises(UserError, match="holds no run"):
        common_config([one, tmp_path])
    config = common_config([one, two])

    def merge(*folders: Path) -> None:
        with RunDirectory.create(tmp_path / "merged", "merge", config, resume=True) as run:
            merge_shards(run, folders, ["m"], SETTINGS)

    with pytest.raises(UserError, match="overlap"):
        merge(one, one)
    with pytest.raises(UserError, match="30 of 60 images; some are missing"):
        merge(two)
    with pytest.raises(_Killed):
        assess(
            tmp_path / "late",
            dataclasses.replace(SETTINGS, shard=(2, 2)),
            progress=killing(3),
        )
    with pytest.raises(UserError, match=r"late is not finished .*attack --run-dir .* --resume"):
        merge(one, tmp_path / "late")
    (two / "evaluation-m.npz").write_bytes((two / "evaluation-m.npz").read_bytes()[:-60])
    with pytest.raises(UserError, match="damaged"):
        merge(one, two)


# ---- Hostile input: one line, and nothing lost


def vectors(change: Callable[[np.ndarray], None]) -> Dataset:
    images = Split(PIXELS, LABELS).scaled().reshape(60, 16)
    change(images)
    return dataset(images, LABELS)


def _set(value: float) -> Callable[[np.ndarray], None]:
    def change(images: np.ndarray) -> None:
        images[3, 2] = value

    return change


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (vectors(_set(np.nan)), "contain NaN"),
        (vectors(_set(1.5)), r"lie in \[.*, 1.5\]; attacks need \[0, 1\]"),
        (vectors(_set(-0.1)), r"lie in \[-0.1"),
        (dataset(PIXELS, LABELS + 4), "is no class of this model, which has 4"),
        (dataset(PIXELS, LABELS - 4), "is negative"),
        (dataset(PIXELS[:0], LABELS[:0]), "at least one example"),
    ],
)
def test_unfit_data_is_one_line(quick, tmp_path: Path, data: Dataset, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        assess(tmp_path, dataclasses.replace(SETTINGS, n=0), data=data)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "metrics.json").exists()


def test_images_of_another_shape(quick, tmp_path: Path) -> None:
    from bcgan_tf.networks.classifiers import mlp

    with pytest.raises(UserError, match=r"takes images of shape \(2,\)"):
        assess(tmp_path, model=mlp(2, 4))


def test_one_class_is_not_called_robust(quick, diagnosed, tmp_path: Path) -> None:
    """A constant answer would get all of them."""
    rows = LABELS == 1
    settings = dataclasses.replace(SETTINGS, diagnose=True, minimum_perturbation=True)
    metrics = assess(tmp_path, settings, data=dataset(PIXELS[rows], LABELS[rows]))
    (found,) = metrics["models"]["m"]["evaluations"]
    assert found["verdict"]["kind"] == "not robust"
    assert "no more than a constant answer gets (100.0 %)" in found["verdict"]["text"]
    assert found["minimum_perturbation"]["rho_best"]["mean"] > 0


def test_eps_zero_leaves_the_clean_accuracy(quick, tmp_path: Path) -> None:
    metrics = assess(tmp_path, dataclasses.replace(SETTINGS, eps=0.0))
    (found,) = metrics["models"]["m"]["evaluations"]
    assert found["robust_accuracy"] == found["clean_accuracy"] == 55 / 60


def test_eps_one_leaves_nothing(quick, tmp_path: Path) -> None:
    metrics = assess(tmp_path, dataclasses.replace(SETTINGS, eps=1.0))
    (found,) = metrics["models"]["m"]["evaluations"]
    assert found["robust_accuracy"] == 0.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eps": -0.1}, "eps is -0.1"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"eps": 8.0}, "write a fraction such as 8/255"),
        ({"eps": 0.0, "diagnose": True}, "nothing to diagnose"),
        ({"suite": "best"}, "suite is 'best'; choose one of standard"),
        ({"norm": "l1"}, "norm is 'l1'"),
        ({"eps_unit": "255"}, "eps_unit is '255'"),
        ({"n": -1}, "n is -1"),
        ({"shard": (3, 2)}, "no shard 3/2"),
        ({"shard": (0, 2)}, "no shard 0/2"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        dataclasses.replace(SETTINGS, **changes)


def test_more_shards_than_images(quick, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="60 images cannot be cut into 90 shards"):
        assess(tmp_path, dataclasses.replace(SETTINGS, shard=(2, 90)))


def test_settings_survive_json() -> None:
    for shard in ((1, 1), (2, 8)):
        settings = dataclasses.replace(SETTINGS, shard=shard, suite="plus")
        assert AssessmentSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert parse_shard("2/8") == (2, 8)
    assert dataclasses.replace(SETTINGS, eps=2.0, eps_unit="11", norm="l2").readings("m") == (
        Reading("m", "m", 1.0, "eps 2 read as of [-1, 1] pixels, 1 of [0, 1]"),
    )


def test_a_truncated_piece_is_named_and_done_again(quick, unbroken, tmp_path: Path) -> None:
    with pytest.raises(_Killed):
        assess(tmp_path, progress=killing(6))
    piece = min((tmp_path / "state-m").glob("*.npz"))
    piece.write_bytes(piece.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"{piece.name} is damaged or cut short") as caught:
        assess(tmp_path)
    assert "\n" not in str(caught.value)
    piece.unlink()
    assess(tmp_path)
    same(arrays(tmp_path), arrays(unbroken[0]))


def test_truncated_settings_of_a_state(quick, tmp_path: Path) -> None:
    with pytest.raises(_Killed):
        assess(tmp_path, progress=killing(6))
    file = tmp_path / "state-m" / "settings.json"
    file.write_text(file.read_text()[:30])
    with pytest.raises(UserError, match=r"settings\.json is cut short"):
        assess(tmp_path)


@pytest.mark.parametrize("writes", [3, 6, 10, 13])
def test_a_full_disk_loses_nothing(
    quick, unbroken, tmp_path: Path, monkeypatch, writes: int
) -> None:
    """Full at the settings of the state, a piece of it, the arrays, and the metrics."""
    real, count = Path.open, [0]

    def open_until_full(self: Path, mode: str = "r", *rest: Any, **options: Any):
        if mode == "wb" and self.name.endswith(files.PARTIAL_SUFFIX):
            count[0] += 1
            if count[0] == writes:
                real(self, "wb").close()
                raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return real(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", open_until_full)
    with pytest.raises((UserError, OSError), match="No space left on device") as caught:
        assess(tmp_path)
    assert "\n" not in str(caught.value)
    failed = {3: "settings.json", 6: "state-m", 10: "evaluation-m.npz", 13: "metrics.json"}
    assert failed[writes] in str(caught.value)
    done = {piece: piece.read_bytes() for piece in tmp_path.rglob("00*.npz")}
    assert len(done) == min(max(writes - 4, 0), 6)
    monkeypatch.setattr(Path, "open", real)
    metrics = assess(tmp_path)
    assert all(piece.read_bytes() == content for piece, content in done.items())
    assert without_seconds(metrics) == without_seconds(unbroken[1])
    same(arrays(tmp_path), arrays(unbroken[0]))
    assert not list(tmp_path.rglob("*.partial"))
