"""Every preset makes a defence and a classifier; what there is no preset for is said."""

from __future__ import annotations

import dataclasses

import pytest

from bcgan_tf.errors import UserError
from bcgan_tf.networks.classifiers import CLASSIFIERS
from bcgan_tf.settings import presets

NAMES = ("mnist", "fashion_mnist", "cifar10", "digits", "folder:somewhere/pictures")


@pytest.mark.parametrize(
    ("dataset", "preset"), [(name, preset) for name in NAMES for preset in presets.presets(name)]
)
def test_a_recipe_names_a_network_that_is_there(dataset, preset):
    recipe = presets.recipe(dataset, preset)
    assert (recipe.dataset, recipe.preset) == (dataset, preset)
    assert recipe.architecture in CLASSIFIERS
    assert recipe.suite == "fast"


def test_every_preset_is_one_of_the_command_lines():
    found = {preset for name in NAMES for preset in presets.presets(name)}
    assert found == set(presets.PRESETS)
    assert presets.presets("mnist") == presets.PRESETS
    assert presets.presets("imagenet") == ()


def test_a_recipe_is_json():
    import json

    content = presets.recipe("mnist").to_dict()
    assert json.loads(json.dumps(content)) == content and content["suite"] == "fast"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnist", "fast"), "no preset 'fast'.*quick, paper, robust"),
        (("cifar10", "robust"), "cifar10 has no preset 'robust'; choose one of quick, paper"),
        (("folder:mine", "robust"), "no preset 'robust'; choose one of quick, paper"),
        (("imagenet",), "'imagenet'.*bcgan-tf datasets"),
        (("gaussians",), "bcgan-tf toy"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        presets.recipe(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(presets.DEFENSES) - {"bcgan"}))
def test_the_preset_authors_is_of_bcgan(name):
    with pytest.raises(UserError, match=f"{name} has no preset authors: choose the defense bcgan"):
        presets.defense_settings(name, "mnist", "authors")


@pytest.mark.parametrize(
    "changes",
    [
        {"classifier_epochs": 0},
        {"classifier_batch_size": -1},
        {"classifier_learning_rate": 0.0},
        {"oracle_epochs": 0},
        {"generated_samples": 0},
        {"suite": "first-look"},
        {"n": -1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_trained(changes):
    with pytest.raises(UserError, match="choose"):
        dataclasses.replace(presets.recipe("mnist"), **changes)
