"""Images that interval bounds prove are spared the attacks: the same worst case, per image."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.attacks import FGSM, PGD, CarliniWagnerL2
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation import archive, runner, suite_run
from helpers.linear_task import EPS, IMAGES, LABELS, WEIGHTS, distances
from helpers.suites import evaluate


def _exact() -> keras.Model:
    """The linear model as one that interval bounds know."""
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(image)))
    model.set_weights([WEIGHTS, np.zeros(4, np.float32)])
    return model


@pytest.mark.parametrize("suite", ["standard", None], ids=["survivors", "one by one"])
def test_certified_images_may_be_spared(monkeypatch, tmp_path, suite):
    model = _exact()
    monkeypatch.setattr(suite_run, "suite", lambda _, eps, **__: (FGSM(eps), PGD(eps, steps=5)))
    attacks = {"attacks": suite or [CarliniWagnerL2(steps=5), PGD(EPS, steps=5)]}
    options = {**attacks, "eps": EPS, "state": tmp_path / "state"}
    proved = distances() > EPS * (1 + 1e-4)
    whole = evaluate(model, (IMAGES, LABELS), **attacks, eps=EPS)
    monkeypatch.setattr(runner, "_CHUNK", 7)
    spared = evaluate(model, (IMAGES, LABELS), **options, skip_certified=True)
    np.testing.assert_array_equal(spared.certified, proved)
    np.testing.assert_array_equal(spared.worst_case, whole.worst_case)
    for one, other in zip(spared.results, whole.results, strict=True):
        further = "eps" not in one.config  # what is proved within eps says nothing of it
        np.testing.assert_array_equal(one.attacked, other.attacked & (further | ~proved))
        assert one.robust_accuracy == other.robust_accuracy
    assert spared.to_dict()["not_attacked"] == proved.sum()
    # It is another evaluation, and what was saved of it is itself.
    with pytest.raises(UserError, match="skip_certified"):
        evaluate(model, (IMAGES, LABELS), **options)
    loaded = archive.load(archive.save(spared, tmp_path / "spared.npz"))
    np.testing.assert_array_equal(loaded.certified, proved)
    assert archive.load(archive.save(whole, tmp_path / "whole.npz")).certified is None


def test_shards_that_spared_certified_images_merge():
    options = {"attacks": [PGD(EPS, steps=5)], "eps": EPS}
    whole = evaluate(_exact(), (IMAGES, LABELS), **options, skip_certified=True)
    shards = [
        evaluate(_exact(), (IMAGES, LABELS), **options, skip_certified=True, shard=(i, 2))
        for i in (2, 1)
    ]
    merged = archive.merge(shards)
    np.testing.assert_array_equal(merged.certified, whole.certified)
    np.testing.assert_array_equal(merged.worst_case, whole.worst_case)
    other = evaluate(_exact(), (IMAGES, LABELS), **options, shard=(1, 2))
    with pytest.raises(UserError, match="one shard left out certified images"):
        archive.merge([shards[0], other])


def test_sparing_certified_images_needs_a_linf_radius():
    with pytest.raises(UserError, match="skip_certified needs eps and the norm linf"):
        evaluate(_exact(), (IMAGES, LABELS), [FGSM(EPS)], skip_certified=True)
    with pytest.raises(UserError, match="skip_certified needs eps and the norm linf"):
        evaluate(_exact(), (IMAGES, LABELS), eps=0.5, norm="l2", skip_certified=True)
