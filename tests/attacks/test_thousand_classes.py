"""A thousand classes: the suite aims at the nine likeliest, and finds what is known on paper."""

from __future__ import annotations

import numpy as np

from bcgan_tf.attacks.suites import suite
from helpers.linear_task import around


def test_the_standard_suite_is_exact_among_a_thousand_classes():
    model, images, labels = around(0.02, "linf", 1000, 0.995, 1.005)
    attacks = suite("standard", 0.02, num_classes=1000)
    assert [attack.config().get("target_classes") for attack in attacks] == [None, 9, 9, None]
    left = np.arange(len(images))
    for attack in attacks[:3]:
        result = attack(model, images, labels)
        assert result.clean_accuracy == 1
        assert result.robust[12:].all()  # nothing nearer exists
        left = left[result.robust[left]]
    np.testing.assert_array_equal(left, np.arange(12, 24))


def test_above_a_hundred_classes_the_larger_suite_has_no_untargeted_fab():
    names = [[one.name for one in suite("plus", 0.1, num_classes=k)] for k in (100, 101)]
    assert "FAB" in names[0] and names[1] == [name for name in names[0] if name != "FAB"]
    assert suite("standard", 0.1, num_classes=101) == suite("standard", 0.1, num_classes=100)
