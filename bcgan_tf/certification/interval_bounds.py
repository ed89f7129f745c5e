"""Interval bounds: bounds on a network's outputs when every pixel varies in an interval.

Each layer turns a box around its inputs into a box around its outputs (interval arithmetic). The
bounds hold for every point of the box and grow looser with depth.

Reference: Gowal et al. 2018, "On the Effectiveness of Interval Bound Propagation for Training
Verifiably Robust Models", section 3.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from bcgan_tf.certification.intervals import IntervalBound
from bcgan_tf.certification.layer_boxes import Unbounded, check_dtype, layer_box
from bcgan_tf.errors import UserError
from bcgan_tf.keras_graph import calls_of, graph_of, internal_name

# Layers of one kind that a message names.
_SHOWN = 5


def output_box(model: keras.Model, box: IntervalBound) -> IntervalBound:
    """Bounds on the outputs of a functional or sequential model at inference.

    Args:
        model: all its layers of a kind that has bounds
            (:mod:`bcgan_tf.certification.layer_boxes`), and in float32.
        box: bounds on its inputs, float32 ``[B, ...]``.

    Returns:
        Bounds that contain the model's output for every point of the box.

    Raises:
        UserError: there is no bound for one of its layers; the message names it.
    """
    return _walk(model, box)


def last_layer_box(
    model: keras.Model, box: IntervalBound
) -> tuple[IntervalBound, keras.layers.Dense | None]:
    """Bounds on the inputs of the last layer and that layer, if it is a linear Dense layer.

    Otherwise the bounds on the outputs and None. Arguments and errors as of :func:`output_box`.
    """
    last = _steps(model)[-1][0]
    if isinstance(last, keras.Model):
        return last_layer_box(last, _walk(model, box, before_last=True))
    if type(last) is keras.layers.Dense and last.activation is keras.activations.linear:
        check_dtype(last)
        return _walk(model, box, before_last=True), last
    return output_box(model, box), None


def require_bounds(model: keras.Model) -> None:
    """Refuses a model that cannot be bounded, and names all layers that have no bounds.

    Raises:
        UserError: some layers have none.
    """
    faults: list[Unbounded] = []
    _steps(model)
    _walk(model, _zeros(model.inputs[0]), faults=faults)
    if not faults:
        return
    layers: dict[tuple[str, str], dict[str, None]] = {}
    for fault in faults:  # a layer may be called twice
        layers.setdefault((fault.kind, fault.why), {})[repr(fault.layer)] = None
    texts = []
    for (kind, why), names in layers.items():
        shown = ", ".join([*names][:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        texts.append(f"{'each of ' if len(names) > 1 else ''}{kind} {shown}{more} {why}")
    raise UserError(f"no interval bounds: {'; '.join(texts)}")


# ---- The graph

# An operation, names of its inputs (or constants among them), name of its output, that output.
_Step = tuple[Any, list[Any], int, Any]


def _zeros(tensor: Any) -> IntervalBound:
    """A box of one point, of the shape of one example."""
    image = tf.zeros([1, *tensor.shape[1:]])
    return IntervalBound(image, image)


def _steps(model: keras.Model) -> list[_Step]:
    """The calls of layers in the order of computing; the model's input is named 0."""
    # Its calls, not its layers: a layer may be called twice, or be part of other models.
    nodes = calls_of(graph_of(model))
    if nodes is None:
        raise Unbounded(model, "is no functional model, so its layers are not known")
    _check_model(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise Unbounded(model, "needs exactly one input and one output")
    graph = graph_of(model)
    names = {id(graph.inputs[0]): 0}
    steps: list[_Step] = []
    for node in nodes:
        if node.is_input:
            continue
        if len(node.outputs) != 1:
            raise Unbounded(node.operation, "has several outputs")
        name = names.setdefault(id(node.outputs[0]), len(names))
        inputs = [names[id(tensor)] for tensor in node.input_tensors]
        if internal_name(node.operation):  # such as x + 3.0
            given = node.arguments.args
            inputs = [names.get(id(part), _Constant(part)) for part in given]
        steps.append((node.operation, inputs, name, node.outputs[0]))
    # The last call gives the output, because the graph holds only calls that lead to it.
    assert steps and names[id(graph.outputs[0])] == steps[-1][2]
    return steps


@dataclasses.dataclass(frozen=True)
class _Constant:
    """A number or an array among the inputs of an operation."""

    value: Any

    def like(self, box: IntervalBound) -> IntervalBound:
        """As a box of one point."""
        point = tf.convert_to_tensor(self.value, tf.float32)
        return type(box)(point, point)


def _walk(
    model: keras.Model,
    box: IntervalBound,
    *,
    before_last: bool = False,
    faults: list[Unbounded] | None = None,
) -> IntervalBound:
    """Bounds on the model's output, or on the input of its last layer.

    With ``faults``, what cannot be bounded is added to them, and the walk goes on with zeros.
    """
    known = {0: box}
    steps = _steps(model)
    for operation, sources, result, output in steps:
        inputs = [
            part.like(box) if isinstance(part, _Constant) else known[part] for part in sources
        ]
        if before_last and result == steps[-1][2]:
            return inputs[0]
        try:
            known[result] = _through(operation, inputs, faults)
        except Unbounded as fault:
            if faults is None:
                raise
            faults.append(fault)
            known[result] = _zeros(output)
    return known[steps[-1][2]]


# ---- One layer


def _through(
    operation: Any, inputs: list[IntervalBound], faults: list[Unbounded] | None = None
) -> IntervalBound:
    if isinstance(operation, keras.Model):
        return _walk(operation, inputs[0], faults=faults)
    return layer_box(operation, inputs)


def _check_model(model: keras.Model) -> None:
    """Refuses a model with its own ``call`` or with inputs that are not float32."""
    if not type(model).call.__module__.startswith("keras."):
        raise Unbounded(model, "is a subclass with its own call")
    for tensor in getattr(model, "inputs", None) or ():
        if tensor.dtype != "float32":
            raise Unbounded(model, f"takes its images in {tensor.dtype}, which rounds them")
