"""What a network does to its pixels before its first weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras


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
    """The chain of calls that begins at the input, without weights, each keeping the shape.

    By the calls of this very model: a layer may stand in other models too, and a sequential one
    that was loaded has left calls of its unfinished self behind. The last call, which gives the
    output, is never among them.

    Args:
        model: functional or built sequential, of one input. Any other has no steps.
    """
    graph = graph_of(model)
    by_depth = getattr(graph, "_nodes_by_depth", None)
    if by_depth is None:
        return []
    readers: dict[int, list[Any]] = {}
    for nodes in by_depth.values():
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


def leading_layers(model: keras.Model) -> list[Any]:
    """What :func:`leading_steps` calls."""
    return [step.operation for step in leading_steps(model)]


def graph_of(model: keras.Model) -> Any:
    """The functional model that computes a sequential one; any other model itself."""
    if isinstance(model, keras.Sequential):
        return model._functional  # pyright: ignore[reportAttributeAccessIssue]
    return model
