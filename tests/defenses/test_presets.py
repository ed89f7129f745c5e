"""Every defence by name, for every data set and preset, and from the command line's text."""

from __future__ import annotations

import pytest

from bcgan_tf.defenses.presets import DEFENSES, defense
from bcgan_tf.defenses.robust_training import RobustTraining
from bcgan_tf.errors import UserError
from bcgan_tf.settings import defenses, presets
from bcgan_tf.settings.kinds import RADIUS

DATASETS = ("mnist", "fashion_mnist", "cifar10", "digits")
PRESETS = [(name, preset) for name in DATASETS for preset in presets.presets(name)]
# The preset authors is of bcgan alone.
OF_ALL = [(name, preset) for name, preset in PRESETS if preset != presets.AUTHORS]
OF_DEFENSES = [
    (name, *of) for name in defenses.DEFENSES for of in (PRESETS if name == "bcgan" else OF_ALL)
]


@pytest.mark.parametrize(("name", "dataset", "preset"), OF_DEFENSES)
def test_every_defence_has_settings_for_every_data_set(name, dataset, preset):
    found = defense(name, dataset, preset, seed=5, devices=1)
    assert type(found) is DEFENSES[name] and found.name == name
    assert (found.seed, found.devices) == (5, 1)
    assert all(found.stage_titles.values())
    if isinstance(found, RobustTraining):
        assert name in type(found).__dict__["stage_titles"]
        assert found.config()["eps"] == RADIUS[dataset]
        assert found.config()["ramp_epochs"] < found.config()["epochs"]


@pytest.mark.parametrize("name", ["bcgan-at", "bcgan-trades", "bcgan-ibp"])
@pytest.mark.parametrize(("dataset", "preset"), OF_ALL)
def test_boundary_samples_are_added_to_a_training_and_a_gan_as_they_are(name, dataset, preset):
    plain = {"bcgan-at": "pgd-at", "bcgan-trades": "trades", "bcgan-ibp": "ibp"}[name]
    found, without, gan = (defense(n, dataset, preset).config() for n in (name, plain, "bcgan"))
    assert {key: found[key] for key in without if key != "defense"} == {
        key: value for key, value in without.items() if key != "defense"
    }
    assert found["gan"] == {key: gan[key] for key in found["gan"]}
    oracle_epochs = presets.recipe(dataset, preset).oracle_epochs
    assert found.get("oracle_epochs", oracle_epochs) == oracle_epochs
    assert gan["delay_epochs"] + gan["warmup_epochs"] <= gan["gan_epochs"]


def test_images_of_ones_own_get_a_gan_of_few_images():
    found = defense("bcgan-at", "folder:pictures", options={"eps": "0.1"}).config()["gan"]
    gan = defense("bcgan", "folder:pictures").config()
    assert found == {key: gan[key] for key in found}
    assert gan["gan_batch_size"] == 32 and gan["gan_epochs"] == 50


def test_options_of_the_gan_have_its_name_in_front():
    options = {"gan.beta": "0.7", "gan.boundary_loss": "top2", "beta": "3", "gan.dtype": "none"}
    found = defense("bcgan-trades", "digits", options=options)
    assert (found.beta, found.gan.beta, found.gan.boundary_loss) == (3.0, 0.7, "top2")
    assert found.gan.gan_epochs == 120  # the preset's stays
    assert defense("bcgan-at", "mnist", options={"gan.dropout": 0.9}).gan.dropout == 0.9


def test_options_are_read_from_text():
    found = defense(
        "pgd-at",
        "cifar10",
        options={"eps": "4/255", "steps": "3", "step_ratio": "none", "ema_decay": 0.9},
    )
    assert (found.eps, found.steps, found.step_ratio) == (4 / 255, 3, None)
    assert found.ema_decay == 0.9


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("magic", "mnist"), {}, "no defense 'magic'; choose one of bcgan, fgsm-at"),
        (("pgd-at", "mnist"), {"beta": "1"}, "pgd-at has no setting 'beta'; it has train_all, eps"),
        (("bcgan-at", "mnist"), {"beta": "1"}, "no setting 'beta'; it has .*gan.beta, gan.delay"),
        (("bcgan-at", "mnist"), {"gan.beta": "-1"}, "beta is -1"),
        (("ibp", "folder:pictures"), {}, "ibp needs the radius"),
        (("pgd-at", "mnist"), {"steps": "many"}, "steps is 'many'"),
        (("pgd-at", "mnist"), {"eps": "1/0"}, "eps is '1/0'"),
        (("trades", "folder:pictures"), {}, "trades needs the radius.*-o eps="),
    ],
)
def test_mistakes_are_one_line(arguments, options, message):
    with pytest.raises(UserError, match=message):
        defense(*arguments, options=options)


def test_a_folder_of_images_takes_the_radius_from_its_owner():
    assert defense("trades", "folder:pictures", options={"eps": "0.1"}).eps == 0.1


@pytest.mark.parametrize("name", ["pgd-at", "trades", "ibp", "distillation", "defense-gan"])
def test_no_preset_is_shorter_than_quick(name):
    """The defaults are those of a set forty times as large as digits."""
    quick, paper = (defense(name, "digits", preset).config() for preset in ("quick", "paper"))
    epochs = "gan_epochs" if name == "defense-gan" else "epochs"
    batch = "gan_batch_size" if name == "defense-gan" else "batch_size"
    assert paper[epochs] / paper[batch] >= quick[epochs] / quick[batch]
