"""Learning rates by hand."""

from __future__ import annotations

import keras
import numpy as np

from bcgan_tf.training.schedules import ConstantThenLinear


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_constant_then_linear():
    found = rates(ConstantThenLinear(0.8, 4, 8), [0, 3, 4, 6, 7, 8, 9])
    np.testing.assert_allclose(found, [0.8, 0.8, 0.8, 0.4, 0.2, 0, 0], atol=1e-7)


def test_the_schedule_comes_back_with_its_optimizer():
    schedule = ConstantThenLinear(0.8, 4, 8)
    config = keras.optimizers.serialize(keras.optimizers.Adam(schedule))
    loaded = keras.optimizers.deserialize(config)._learning_rate
    assert type(loaded) is ConstantThenLinear
    assert loaded.get_config() == schedule.get_config()
