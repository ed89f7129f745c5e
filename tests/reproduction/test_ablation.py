"""The ablation: what each arm trains, one GAN for all that share it, and the statistics."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from bcgan_tf.defenses import presets
from bcgan_tf.defenses.boundary_adversarial import BoundaryTraining
from bcgan_tf.errors import UserError
from bcgan_tf.networks.classifiers import strided_cnn
from bcgan_tf.reproduction import ablation as module
from bcgan_tf.reproduction.ablation import ablation
from bcgan_tf.reproduction.ablation_page import ablation_page, answer, paired_difference
from bcgan_tf.reproduction.ablation_settings import (
    ARMS,
    CONTROLS,
    DEFENSES,
    AblationSettings,
    ablation_settings,
    arms_of,
    check_defenses,
)

COMMAND = "bcgan-tf reproduce ablation --dataset digits"
TINY = AblationSettings(seeds=2, width=0.25, classifier_epochs=1, epochs=2, gan_epochs=1, n=20)
SMALL_GAN = {
    "gan.generator_width": 0.05,
    "gan.discriminator_width": 0.05,
    "gan.latent_dim": 6,
}


def runs_of(values, figure="standard"):
    return {str(seed): {figure: {"accuracy": value}} for seed, value in enumerate(values)}


def figures(certified=0.0):
    return {
        "clean": {"accuracy": 0.9},
        "standard": {"accuracy": 0.5},
        "certified": {"accuracy": certified},
        "training": {"seconds": 60, "environment": {"cpu_count": 2}},
        "environments": [],
    }


def test_the_difference_is_paired_and_its_interval_is_students():
    runs = {"boundary": runs_of([0.91, 0.82, 0.73]), "none": runs_of([0.9, 0.8, 0.7])}
    mean, half, seeds = paired_difference([runs], "boundary", "none", "standard")
    assert mean == pytest.approx(0.02) and seeds == 3
    assert half == pytest.approx(4.303 * 0.01 / math.sqrt(3), rel=2e-4)


def test_seeds_that_one_arm_lacks_are_left_out_and_one_alone_gives_nothing():
    runs = {"boundary": runs_of([0.9, 0.8, 0.1]), "none": runs_of([0.8, 0.7])}
    mean, half, seeds = paired_difference([runs], "boundary", "none", "standard")
    assert (mean, half, seeds) == (pytest.approx(0.1), pytest.approx(0, abs=1e-9), 2)
    assert paired_difference([runs], "boundary", "plain", "standard") is None
    assert (
        paired_difference([{**runs, "none": runs_of([1.0])}], "boundary", "none", "standard")
        is None
    )


def test_of_several_defences_a_seed_counts_once():
    one = {"boundary": runs_of([0.9, 0.8, 0.7]), "none": runs_of([0.9, 0.8, 0.7])}
    other = {"boundary": runs_of([0.62, 0.54]), "none": runs_of([0.6, 0.5])}
    mean, half, seeds = paired_difference([one, other], "boundary", "none", "standard")
    # Means of 0 and 0.02, and of 0 and 0.04; four differences would give a narrower interval.
    assert (mean, seeds) == (pytest.approx(0.015), 2)
    assert half == pytest.approx(12.706 * 0.005, rel=2e-5)
    assert paired_difference([one, {}], "boundary", "none", "standard") is None


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (None, "too few seeds"),
        ((0.02, 0.01, 3), "yes"),
        ((-0.02, 0.01, 3), "no: worse"),
        ((0.01, 0.02, 3), "not shown"),
    ],
)
def test_the_answer_is_that_of_the_interval(difference, expected):
    assert answer(difference) == expected


@pytest.mark.parametrize("name", DEFENSES)
def test_every_arm_is_a_setting_of_its_defense(name):
    sizes = AblationSettings(epochs=8, ramp_share=0.25)
    made = {arm: presets.defense(name, "mnist", options=sizes.options(name, arm)) for arm in ARMS}
    # As many rows attacked: half as many in a step, twice the steps.
    assert made["none"].epochs == 2 * made["boundary"].epochs
    assert made["none"].ramp_epochs / made["none"].epochs == 0.25
    assert {made[arm].epochs for arm in ARMS if arm != "none"} == {made["boundary"].epochs}
    assert made["plain"].gan_settings().beta == 0 < made["boundary"].gan_settings().beta
    assert made["top2"].gan_settings().boundary_loss == "top2"
    assert {arm for arm in ARMS if made[arm].refresh_epochs} == {"refreshed"}
    assert {made[arm].dtype for arm in ARMS} == {None if "ibp" in name else "mixed_bfloat16"}
    assert set(CONTROLS) == {arm for arm in ARMS if made[arm].fakes != "boundary"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seeds": "1"}, "seeds is 1"),
        ({"seeds": "11"}, "seeds is 11"),
        ({"epochs": "0"}, "epochs is 0"),
        ({"gan_epochs": "-1"}, "gan_epochs is -1"),
        ({"ramp_share": "0.9"}, "ramp_share is 0.9"),
        ({"epochs": "many"}, "epochs is 'many'"),
        ({"colour": "1"}, "the ablation has no setting 'colour'"),
    ],
)
def test_bad_settings_are_refused_in_a_line(options, named):
    with pytest.raises(UserError, match=named):
        ablation_settings(options)


def test_only_defenses_with_boundary_samples_inside_are_compared():
    assert check_defenses(()) == DEFENSES
    assert check_defenses(("bcgan-ibp", "bcgan-at")) == ("bcgan-at", "bcgan-ibp")
    with pytest.raises(UserError, match="no defense 'pgd-at'"):
        check_defenses(("pgd-at",))


def test_the_gan_is_refreshed_inside_adversarial_training():
    assert arms_of("bcgan-at") == tuple(ARMS)
    assert set(ARMS) - set(arms_of("bcgan-trades")) == {"refreshed"}
    assert arms_of("bcgan-trades") == arms_of("bcgan-ibp")


@pytest.fixture
def workspace(workspace):
    """A few images: what is looked at here is what is trained, not how well."""
    data = workspace.data
    few = {"train": data.train.take(128), "validation": data.validation.take(32)}
    return dataclasses.replace(workspace, data=dataclasses.replace(data, **few))


@pytest.fixture
def asked(workspace, tmp_path):
    def run(defenses, seeds=2, results="results", **changes):
        sizes = dataclasses.replace(TINY, **changes)
        object.__setattr__(sizes, "seeds", seeds)  # one is fewer than a user may ask for
        page = ablation(
            workspace,
            sizes,
            defenses,
            results=tmp_path / results,
            command=COMMAND,
        )
        return json.loads(page.with_suffix(".json").read_text()), page

    return run


@pytest.fixture
def without_the_suite(monkeypatch):
    """In place of the suite a figure that tells the arms apart: the epochs of their training."""

    def standard(subject, *, skip_certified):
        assert not skip_certified  # of networks for which bounds prove nothing
        epochs = module.measures.provenance(subject)["training"]["settings"]["epochs"]
        return {"accuracy": epochs / 10, "n": 20}

    monkeypatch.setattr(module.measures, "standard", standard)


def test_real_trainings_of_two_defenses_share_a_gan_and_a_repeat_trains_nothing(
    asked, without_the_suite, counted, workspace, monkeypatch
):
    del without_the_suite
    arms = ("plain", "refreshed", "boundary")
    for arm in arms:
        monkeypatch.setitem(ARMS, arm, ARMS[arm] | SMALL_GAN)
    monkeypatch.setitem(ARMS, "refreshed", ARMS["refreshed"] | {"refresh_epochs": 1})
    monkeypatch.setattr(module, "arms_of", lambda defense: arms)
    trained = counted(BoundaryTraining, "run")
    document, page = asked(("bcgan-at",), seeds=1)
    gans = sorted(path.name for path in workspace.cache.glob("ablation-gan-*"))
    # Two arms have one; the oracle is the same for all.
    assert len(gans) == 2 and len(trained) == 3
    assert len(list(workspace.cache.glob("ablation-oracle-*"))) == 1
    # A refreshed GAN is not what others start from.
    newest = {max(path.name for path in workspace.cache.glob(f"{gan}/epoch-*")) for gan in gans}
    own = workspace.cache.glob("*-refreshed-*/checkpoints/gan/epoch-*")
    assert newest == {"epoch-0001"} and max(path.name for path in own) == "epoch-0002"
    histories = {
        arm: [file.read_text() for file in workspace.cache.glob(f"*-at-{arm}-*/history.csv")]
        for arm in ("plain", "boundary")
    }
    assert [text.count("\noracle,1,loss,") for text in histories["plain"]] == [1]
    assert [text.count("\noracle,") for text in histories["boundary"]] == [0]
    assert [text.count("\ngan,1,") > 0 for text in histories["boundary"]] == [True]
    runs = document["runs"]["bcgan-at"]
    assert sorted(runs) == sorted(arms) and all(list(found) == ["0"] for found in runs.values())
    assert runs["boundary"]["0"]["standard"]["accuracy"] == 0.2
    assert runs["boundary"]["0"]["model_sha256"] != runs["plain"]["0"]["model_sha256"]
    assert 0 < runs["boundary"]["0"]["clean"]["accuracy"] <= 1
    text = page.read_text()
    assert COMMAND in text and "boundary - plain" in text

    with monkeypatch.context() as fewer:
        fewer.setattr(module, "arms_of", lambda defense: ("boundary",))
        both, _ = asked(("bcgan-trades",), seeds=1)
    assert list(both["runs"]) == ["bcgan-at", "bcgan-trades"] and len(trained) == 4
    assert sorted(path.name for path in workspace.cache.glob("ablation-gan-*")) == gans

    again, _ = asked(("bcgan-at",), seeds=1)
    assert again["runs"] == both["runs"] and len(trained) == 4
    with pytest.raises(UserError, match="n: 20 there, 10 now"):
        asked(("bcgan-at",), seeds=1, n=10)
    other, _ = asked(("bcgan-at",), seeds=1, n=10, results="others")
    assert "bcgan-trades" not in other["runs"] and len(trained) == 4


def test_rows_side_by_side_keep_each_others_figures(asked, monkeypatch):
    monkeypatch.setattr(module, "arms_of", lambda defense: ("none", "boundary"))
    asked_here = []

    def measured(workspace, settings, defense, arm, seed):
        asked_here.append((defense, arm, seed))
        if len(asked_here) == 2:  # meanwhile the other process publishes all of its own
            asked(("bcgan-trades",))
        return figures()

    monkeypatch.setattr(module, "_measured", measured)
    document, page = asked(("bcgan-ibp",))
    seeds = {"none": ["0", "1"], "boundary": ["0", "1"]}
    found = {
        defense: {arm: list(each) for arm, each in arms.items()}
        for defense, arms in document["runs"].items()
    }
    assert found == {"bcgan-trades": seeds, "bcgan-ibp": seeds} and len(asked_here) == 8
    assert list(found) == ["bcgan-trades", "bcgan-ibp"]
    assert "## bcgan-trades" in page.read_text()


def test_runs_that_another_process_published_meanwhile_are_not_put_back(
    asked, publishing, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "arms_of", lambda defense: ("none", "boundary"))
    monkeypatch.setattr(module, "_measured", lambda *_: figures(0.1))
    asked(("bcgan-at",))
    file = tmp_path / "results/ablation-digits.json"

    def other():
        document = json.loads(file.read_text())
        runs = document["runs"]
        runs["bcgan-at"]["boundary"]["0"] = figures(0.2)
        runs["bcgan-ibp"]["none"]["0"] = figures(0.3)
        file.write_text(json.dumps(document))

    looks = []

    def measured(workspace, settings, defense, arm, seed):
        if (arm, seed) == ("boundary", 1):
            looks.append(publishing(other))
        return figures(0.1)

    monkeypatch.setattr(module, "_measured", measured)
    runs = asked(("bcgan-ibp",))[0]["runs"]
    found = {
        (defense, arm, seed): each["certified"]["accuracy"]
        for defense, arms in runs.items()
        for arm, seeds in arms.items()
        for seed, each in seeds.items()
    }
    assert len(found) == 8 and [len(each) for each in looks] == [2]
    assert {key: value for key, value in found.items() if value != 0.1} == {
        ("bcgan-at", "boundary", "0"): 0.2,
        ("bcgan-ibp", "none", "0"): 0.3,
    }
    names = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert names == ["ablation-digits.json", "ablation-digits.md"]


def test_a_folder_that_another_process_copied_first_is_kept(tmp_path, monkeypatch):
    source, target = tmp_path / "mine", tmp_path / "shared"
    for folder in (source, target):
        folder.mkdir()
        (folder / "weights").write_text(folder.name)
    monkeypatch.setattr(type(target), "exists", lambda path: False)  # at the first look
    with pytest.raises(OSError):
        module._copy_folder(source, target)
    monkeypatch.undo()
    looks = iter([False, True])
    monkeypatch.setattr(type(target), "exists", lambda path: next(looks))
    module._copy_folder(source, target)
    monkeypatch.undo()
    assert (target / "weights").read_text() == "shared"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "shared"]


def test_the_page_has_certificates_only_where_there_are_any():
    document = {
        "dataset": "mnist",
        "preset": "quick",
        "seed": 0,
        "settings": AblationSettings().to_dict(),
        "eps": 0.3,
        "command": COMMAND,
        "runs": {
            "bcgan-at": {"none": {"0": figures(0.0)}},
            "bcgan-ibp": {"none": {"0": figures(0.4)}},
        },
    }
    before, after = ablation_page(document).split("## bcgan-ibp")
    assert "| certified" not in before and "| certified" in after and "**40.0** (40.0)" in after
    assert "together" not in after

    for runs in document["runs"].values():
        runs |= {"boundary": {"0": figures(0.0), "1": figures(0.0)}}
        runs["none"]["1"] = figures(0.0)
    _, together = ablation_page(document).split("## All defences together")
    assert "| boundary - none | +0.0 (+0.0 to +0.0) | +0.0 (+0.0 to +0.0) | not shown |" in together
    assert "plain" not in together


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_images_that_bounds_prove_are_not_attacked(workspace, monkeypatch, share):
    class Asked(Exception):
        pass

    def assess(run, data, models, settings, **others):
        raise Asked(settings.skip_certified)

    monkeypatch.setattr(module, "_trained", lambda *arguments: (file, file))
    monkeypatch.setattr(module, "_certified", lambda subject: {"accuracy": share})
    monkeypatch.setattr(module.measures, "evaluate_models", assess)
    file = workspace.cache / "classifier.keras"
    workspace.cache.mkdir()
    strided_cnn(workspace.data.image_shape, 10, width=0.25, seed=0).save(file)
    with pytest.raises(Asked, match=str(share > 0)):
        module._measured(workspace, TINY, "bcgan-ibp", "none", 0)
