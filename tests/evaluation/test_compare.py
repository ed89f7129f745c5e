"""`compare`: the same images, the same threat model, and the known answer of a paired test."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bcgan_tf.attacks.result import AttackResult
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.compare import compare
from bcgan_tf.evaluation.robust_accuracy import Evaluation

N = 20


def _evaluation(broken: list[int], **changes) -> Evaluation:
    success = np.isin(np.arange(N), broken)
    result = AttackResult(
        attack="PGD-40",
        config={},
        adversarials=np.zeros((N, 2), np.float32),
        clean_correct=np.ones(N, bool),
        attacked=np.ones(N, bool),
        success=success,
        linf=np.full(N, 0.1),
        l2=np.full(N, 0.1),
    )
    options = {"eps": 0.1, "suite": "standard", "identity": {"data": "a"}, **changes}
    return Evaluation((result,), np.arange(N) % 3, np.arange(N), **options)


def test_the_difference_has_the_exact_p_value_of_the_images_that_changed():
    found = compare({"original": _evaluation([*range(10)]), "hardened": _evaluation([10, 11])})
    one = found.paired["hardened"]
    # 10 gained, 2 lost: 2 * (1 + 12 + 66) / 2**12.
    assert (one.gained, one.lost, one.n) == (10, 2, N)
    assert one.p_value == pytest.approx(158 / 4096)
    text = str(found).splitlines()
    assert text[0].split() == ["model", "clean", "accuracy", "robust", "accuracy", "verdict"]
    assert text[1].startswith("original  100.0 % (83.9 to 100.0)  50.0 % (29.9 to 70.1)")
    assert text[3].startswith("hardened against original: robust accuracy +40.0 points")
    assert "p = 0.039" in text[3] and "20 images: 10 gained, 2 lost" in text[3]
    assert found.to_dict()["paired"]["hardened"]["difference"] == pytest.approx(0.4)


def test_what_differs_is_named_for_all():
    first = _evaluation([])
    others = {
        "b": _evaluation([], eps=0.2, norm="l2"),
        "c": dataclasses.replace(first, identity={"data": "b"}, suite="plus"),
    }
    with pytest.raises(UserError) as caught:
        compare({"a": first, **others})
    for part in (
        "b and a differ in eps (0.2 and 0.1), norm (l2 and linf);",
        "c and a differ in their images, suite (plus and standard);",
    ):
        assert part in str(caught.value)
    with pytest.raises(UserError, match="fewer than two"):
        compare({"a": first})
