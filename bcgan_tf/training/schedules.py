"""The learning rate of trainings for a radius."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bcgan_tf")
class ConstantThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Constant up to a step, then falling linearly, to 0 at the last.

    Args:
        learning_rate: of the constant part.
        constant_steps: its length.
        steps: of the whole training.
    """

    def __init__(self, learning_rate: float, constant_steps: int, steps: int) -> None:
        self.learning_rate = learning_rate
        self.constant_steps = constant_steps
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        step = keras.ops.cast(step, "float32")
        left = (self.steps - step) / max(1, self.steps - self.constant_steps)
        return self.learning_rate * keras.ops.clip(left, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            "learning_rate": self.learning_rate,
            "constant_steps": self.constant_steps,
            "steps": self.steps,
        }
