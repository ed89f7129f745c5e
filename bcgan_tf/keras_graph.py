"""Keras models as graphs: their calls, the layers in front, the activation at the end.

Keras' private attributes are read in this file alone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras

# Where Keras defines its layers of augmentation.
_AUGMENTATION = "keras.src.layers.preprocessing.image_preprocessing."
# Other names of the same functions: tf.nn.softmax and tf.nn.sigmoid as activations, and operations.
_ALIASES = {"softmax_v2": "softmax", "Softmax": "softmax", "Sigmoid": "sigmoid"}


def graph_of(model: keras.Model) -> Any:
    """The functional model that computes a sequential one; any other model itself."""
    if isinstance(model, keras.Sequential):
        return model._functional  # pyright: ignore[reportAttributeAccessIssue]
    return model


def calls_of(model: keras.Model) -> list[Any] | None:
    """The calls of a functional model in the order of computing; None for a subclassed model.

    Each is Keras' node, with ``operation``, ``input_tensors``, ``outputs`` and ``is_input``. A
    layer that is called twice has two; calls in other models are not among them.
    """
    by_depth = getattr(model, "_nodes_by_depth", None)
    if by_depth is None:
        return None
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def all_layers(model: keras.Layer) -> list[Any]:
    """The model or layer, its layers, and all layers inside of these."""
    return list(model._flatten_layers())


@dataclasses.dataclass(frozen=True)
class TrainedPart:
    """How much of a model is trained: of its layers with weights, and of their parameters.

    Statistics, such as those of batch normalization, are no parameters.
    """

    layers: int
    all_layers: int
    parameters: int
    all_parameters: int

    def __str__(self) -> str:
        counts = {
            "layers": (self.layers, self.all_layers),
            "parameters": (self.parameters, self.all_parameters),
        }
        return ", ".join(
            f"all {name} ({whole:,})" if part == whole else f"{part:,} of {whole:,} {name}"
            for name, (part, whole) in counts.items()
        )


def trained_part(model: keras.Model) -> TrainedPart:
    """What training would change of a model as its layers are, frozen or not."""
    trained = {id(weight) for weight in model.trainable_weights}
    layers = [own for layer in all_layers(model) if (own := layer._trainable_variables)]
    sizes = {id(weight): math.prod(weight.shape) for own in layers for weight in own}
    return TrainedPart(
        sum(any(id(weight) in trained for weight in own) for own in layers),
        len(layers),
        sum(size for weight, size in sizes.items() if weight in trained),
        sum(sizes.values()),
    )


def frozen_weights(model: keras.Model) -> set[int]:
    """The ``id`` of each weight of a frozen layer: of its parameters and of its statistics."""
    return {
        id(weight)
        for layer in all_layers(model)
        if not layer.trainable
        for weight in (*layer._trainable_variables, *layer._non_trainable_variables)
    }


def internal_name(operation: Any) -> str:
    """Where Keras defines a class without a public name, such as ``"ops.numpy.Add"``; else ``""``.

    Such are the operations of ``keras.ops`` in a graph (``x + y``), and layers of
    ``keras.applications``.
    """
    kind = type(operation)
    place = kind.__module__.removeprefix("keras.src.")
    inside = place.startswith(("ops.", "applications.")) and place != kind.__module__
    return f"{place}.{kind.__name__}" if inside else ""


def last_operation(model: keras.Model) -> Any:
    """The layer or operation that gives the output; None where the graph is not known."""
    if isinstance(model, keras.Sequential):
        return model.layers[-1] if model.layers else None
    try:
        outputs = model.outputs
    except AttributeError:
        return None
    return outputs[0]._keras_history.operation if outputs else None


# ---- The layers in front


@dataclasses.dataclass(frozen=True, eq=False)
class LeadingStep:
    """One call at the beginning of a model.

    Attributes:
        operation: the layer, the model, or the operation of ``keras.ops``.
        before: the KerasTensor that it reads.
        after: the KerasTensor that it gives, of the same shape.
    """

    operation: Any
    before: Any
    after: Any

    def model(self) -> keras.Model:
        """The step alone; it shares the layer."""
        return keras.Model(self.before, self.after)


def leading_steps(model: keras.Model) -> list[LeadingStep]:
    """The preprocessing: calls from the input on that have no weights and keep the shape.

    The list ends before the first call that has weights, changes the shape, is not the only reader
    of its input, or gives the output. Only calls of this model count; a layer may also be part of
    other models.

    Args:
        model: functional or built sequential, of one input. Any other has no steps.
    """
    graph = graph_of(model)
    nodes = calls_of(graph)
    if nodes is None:
        return []
    readers: dict[int, list[Any]] = {}
    for node in nodes:
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node)
    found: list[LeadingStep] = []
    tensor = graph.inputs[0]
    while len(following := readers.get(id(tensor), [])) == 1:
        node = following[0]
        alone = len(node.input_tensors) == 1 and len(node.outputs) == 1
        if not alone or getattr(node.operation, "weights", None):
            break
        result = node.outputs[0]
        if result is graph.outputs[0] or result.shape != graph.inputs[0].shape:
            break
        found.append(LeadingStep(node.operation, tensor, result))
        tensor = result
    return found


def parts_after(model: keras.Model, steps: list[LeadingStep]) -> tuple[keras.Model, keras.Model]:
    """The leading steps, and the rest of the model, as two models that share its layers."""
    graph, between = graph_of(model), steps[-1].after
    return keras.Model(graph.inputs[0], between), keras.Model(between, graph.outputs[0])


def leading_layers(model: keras.Model) -> list[Any]:
    """The layers of :func:`leading_steps`."""
    return [step.operation for step in leading_steps(model)]


def is_augmentation(operation: Any) -> bool:
    """Whether a layer, or one inside of it, is Keras' own random augmentation of images."""
    return bool(augmentations(operation)) if isinstance(operation, keras.Layer) else False


def augmentations(layer: keras.Layer) -> list[Any]:
    """Keras' own random augmentations of images in a layer or model, itself included."""
    return [
        inside
        for inside in all_layers(layer)
        if type(inside).__module__.startswith(_AUGMENTATION)
        and not list(inside._layers)  # no container
        and len(inside.variables) > len(inside.weights)  # the state of its draws
    ]


# ---- The activation at the end


def final_activation(model: keras.Model, output: str | None = None) -> str | None:
    """The activation at the end of a model: ``"softmax"``, ``"relu"``, ..., ``"linear"``.

    Covers nested models, activations inside layers, ``Activation`` and ``Softmax`` layers, and
    operations such as ``keras.ops.softmax``. None where it cannot be seen, as in a subclassed
    model.

    Args:
        model: any Keras model.
        output: which of several (:func:`outputs_of`).
    """
    last = _operation_of(model, output)
    if isinstance(last, keras.Model):
        return final_activation(last)
    activation = getattr(last, "activation", None)
    if activation is not None:
        # Dense(..., activation=...) and Activation(...) alike.
        name = getattr(activation, "__name__", type(activation).__name__)
        return _ALIASES.get(name, name)
    return _ALIASES.get(type(last).__name__)


def input_of(model: keras.Model) -> tuple[Any, str | None] | None:
    """The KerasTensor of the one input, and its key where the model takes a dict; None: unknown."""
    graph = graph_of(model)
    if calls_of(graph) is None or len(graph.inputs) != 1:
        return None
    structure = graph.input
    return graph.inputs[0], next(iter(structure)) if isinstance(structure, dict) else None


def outputs_of(model: keras.Model) -> dict[str, Any]:
    """The outputs of a functional or built sequential model by name; of any other none."""
    graph = graph_of(model)
    if calls_of(graph) is None:
        return {}
    structure = graph.output
    names = graph.output_names
    if isinstance(structure, dict):  # in the order in which Keras flattens a dict
        names = keras.tree.flatten({key: key for key in structure})
    return dict(zip(names, keras.tree.flatten(structure), strict=True))


def _operation_of(model: keras.Model, output: str | None) -> Any:
    found = outputs_of(model)
    if output is None or output not in found:
        return last_operation(model)
    return found[output]._keras_history.operation


def call_on(
    model: keras.Model, images: Any, *, output: str | None = None, without_activation: bool = False
) -> tuple[Any, dict[int, Any]]:
    """Calls a model layer by layer, so that its layers become those of the model around it.

    The layers are shared. Type and batch size of the images may differ from the model's input.

    Args:
        model: functional or built sequential, of one input.
        images: a KerasTensor.
        output: which of several (:func:`outputs_of`).
        without_activation: whether to leave out the activation at the end.

    Returns:
        The output; and for the variables that had to be copied, ``id(copy)`` to the original.

    Raises:
        Exception: a layer cannot be called so, of whatever type it raises.
    """
    graph = graph_of(model)
    final, copied = _operation_of(model, output), {}

    def called(operation: Any) -> Any:
        if without_activation and operation is final:
            return lambda *args, **options: _linear(operation, copied, *args, **options)
        return operation

    found = keras.tree.flatten(graph._run_through_graph([images], operation_fn=called))
    names = [*outputs_of(model)]
    return found[names.index(output) if output is not None else 0], copied


def _linear(operation: Any, copied: dict[int, Any], *args: Any, **options: Any) -> Any:
    """What an operation gives without its activation."""
    if isinstance(operation, keras.Model):
        result, more = call_on(operation, args[0], without_activation=True)
        copied.update(more)
        return result
    if not operation.weights if isinstance(operation, keras.Layer) else True:
        return args[0]
    twin = type(operation).from_config(operation.get_config() | {"activation": "linear"})
    result = twin(*args, **options)
    twin.set_weights(operation.get_weights())
    copied.update(zip(map(id, twin.weights), operation.weights, strict=True))
    return result
