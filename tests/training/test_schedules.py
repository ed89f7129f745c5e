"""Learning rates by hand."""

from __future__ import annotations

import keras
import numpy as np

from bcgan_tf.training.schedules import ConstantThenLinear, Cyclic


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_constant_then_linear():
    found = rates(ConstantThenLinear(0.8, 4, 8), [0, 3, 4, 6, 7, 8, 9])
    np.testing.assert_allclose(found, [0.8, 0.8, 0.8, 0.4, 0.2, 0, 0], atol=1e-7)


def test_cyclic_rises_to_its_peak_and_falls_to_zero():
    found = rates(Cyclic(0.8, 4, 12), [0, 1, 2, 3, 4, 8, 11, 12])
    np.testing.assert_allclose(found, [0.2, 0.4, 0.6, 0.8, 0.8, 0.4, 0.1, 0], atol=1e-7)


def test_schedules_come_back_with_their_optimizer():
    for schedule in (ConstantThenLinear(0.8, 4, 8), Cyclic(0.8, 4, 12)):
        config = keras.optimizers.serialize(keras.optimizers.Adam(schedule))
        loaded = keras.optimizers.deserialize(config)._learning_rate
        assert type(loaded) is type(schedule)
        assert loaded.get_config() == schedule.get_config()
