"""The activation a Keras model ends in, and the line of Python that takes it off."""

from __future__ import annotations

from typing import Any

import keras

PROBABILITY_ACTIVATIONS = ("softmax", "sigmoid", "hard_sigmoid")

# Other names of the same functions: tf.nn.softmax and tf.nn.sigmoid as activations, and operations.
_ALIASES = {"softmax_v2": "softmax", "Softmax": "softmax", "Sigmoid": "sigmoid"}
_UNKNOWN = "return what goes into the final softmax, not its result, and give that model"


def final_activation(model: keras.Model) -> tuple[str | None, str]:
    """What turns the last values into the output, and how to remove it.

    Looks into nested models, at activations inside layers, at ``Activation`` and ``Softmax``
    layers, and at operations such as ``keras.ops.softmax``. A subclassed model hides its own.

    Args:
        model: any Keras model.

    Returns:
        The function's name (``"softmax"``, ``"relu"``, ..., ``"linear"``), or None where it cannot
        be seen; and Python that makes ``model`` return what goes into it.
    """
    return _final_activation(model, "model")


def _final_activation(model: keras.Model, path: str) -> tuple[str | None, str]:
    last = _last_operation(model)
    if last is None:
        return None, _UNKNOWN
    layer = f"{path}.get_layer({last.name!r})"
    if isinstance(last, keras.Model):
        return _final_activation(last, layer)
    activation = getattr(last, "activation", None)
    if activation is not None:
        # Dense(..., activation=...) and Activation(...) alike.
        name = getattr(activation, "__name__", type(activation).__name__)
        return _ALIASES.get(name, name), f"{layer}.activation = keras.activations.linear"
    name = _ALIASES.get(type(last).__name__)
    if name is None:
        return None, _UNKNOWN
    if path != "model":
        return name, f"rebuild the model inside, {path}, without its last step {last.name!r}"
    step = layer if isinstance(last, keras.layers.Layer) else "model.operations[-1]"
    return name, f"model = keras.Model(model.inputs[0], {step}.input)"


def _last_operation(model: keras.Model) -> Any:
    """The layer or operation that yields the output; None where the graph is not known."""
    if isinstance(model, keras.Sequential):
        return model.layers[-1] if model.layers else None
    try:
        outputs = model.outputs
    except AttributeError:
        return None
    return outputs[0]._keras_history.operation if outputs else None
