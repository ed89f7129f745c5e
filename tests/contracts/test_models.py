"""Every classifier holds the contract."""

from __future__ import annotations

import functools

import pytest

from bcgan_tf.networks.classifiers import CLASSIFIERS, classifier
from helpers.contracts import assert_model_contract

TINY = {
    "small_cnn": ((8, 8, 1), {}),
    "paper_cnn": ((8, 8, 1), {}),
    "strided_cnn": ((8, 8, 1), {"threshold": 0.2, "width": 0.5}),
    "deep_cnn": ((8, 8, 1), {"threshold": 0.2, "width": 0.25}),
    "resnet18": ((8, 8, 3), {"width": 1 / 16}),
    "mlp": ((2,), {}),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_one(name, tmp_path):
    shape, options = TINY[name]
    assert_model_contract(functools.partial(classifier, name, shape, 4, **options), tmp_path)
