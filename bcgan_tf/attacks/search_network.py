"""A copy of a network for the search of attacks: cheaper arithmetic, the same function.

The copy only proposes changes of images. Whether one breaks the model is decided by the model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bcgan_tf.attacks import checks
from bcgan_tf.attacks.batching import Batched
from bcgan_tf.attacks.logits import below_top, median_gap
from bcgan_tf.errors import UserError
from bcgan_tf.keras_graph import all_layers, calls_of, graph_of
from bcgan_tf.networks.copies import rebuilt

# A gradient in bfloat16 must be so many times as fast as one in float32 to be worth its rounding;
# each is timed so often, on so many images, which is what a thread has of a batch of 250. Below so
# many seconds the time is that of the call, and no arithmetic shortens it.
_WORTH, _TIMINGS, _TIMED, _CALL = 1.3, 5, 125, 1e-3
# On so many images a copy must agree with the model.
_COMPARED = 64
# Most by which the copy's distances between logits may be off, in median gaps between the two
# largest logits of the model: of the median image, and of 95 % of them.
_BOUNDS = {"float32": (1e-3, 1e-2), "bfloat16": (0.1, 0.5)}
# What prepares pixels computes in float32, wherever it stands: it has no part in the cost.
_EXACT = (keras.layers.Rescaling, keras.layers.Normalization)


class ChannelAffine(keras.layers.Layer):
    """``scale * x + offset`` by channel: batch normalization in inference."""

    def build(self, input_shape: Any) -> None:
        """Creates ``scale`` and ``offset``, ``[C]``."""
        shape = (input_shape[-1],)
        self.scale = self.add_weight(shape=shape, name="scale")
        self.offset = self.add_weight(shape=shape, name="offset")

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """``[B, ..., C]``, of the same shape."""
        del training, mask
        return inputs * self.scale + self.offset


class Unchanged(keras.layers.Layer):
    """Its input: batch normalization that the layer before it has taken in."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The input."""
        del training, mask
        return inputs


def search_network(model: Any, dtype: str) -> keras.Model | None:
    """The copy of a model that attacks search with, or None where there is none.

    Batch normalization is folded into the convolution or dense layer before it, where that is its
    only reader, and is one product and one sum elsewhere. What prepares the pixels and what gives
    the logits computes in float32. Layers that are not Keras' own are shared, as they are.

    Args:
        model: any; a functional or sequential Keras model of one input and one output has a copy.
        dtype: ``"float32"`` or ``"bfloat16"``, of the layers between.
    """
    if not isinstance(model, keras.Model) or calls_of(graph_of(model)) is None:
        return None
    if len(model.inputs) != 1 or len(model.outputs) != 1 or not _rank_known(model):
        return None
    try:
        return _copied(graph_of(model), dtype)
    except Exception:  # a layer that cannot be rebuilt, of whatever type it raises
        return None


def search_networks(model: Any, images: np.ndarray, precision: str) -> dict[str, keras.Model]:
    """The copies of a model that attacks may search with, by their dtype.

    Args:
        model: any.
        images: float32 ``[N, ...]`` in [0, 1]; on the first 64 the copies must agree with the
            model (:func:`agrees`).
        precision: ``"float32"``: none, the model itself; ``"bfloat16"``: both; ``"auto"``: that in
            bfloat16 only where it is at least 1.3 times as fast, by trial.

    Raises:
        UserError: ``"bfloat16"`` is asked for, and the model has no copy that agrees with it.
    """
    found: dict[str, keras.Model] = {}
    if precision == "float32":
        return found
    probes = images[:_COMPARED]
    copies = {dtype: copy for dtype in _BOUNDS if (copy := search_network(model, dtype))}
    if copies:
        wanted = _logits(model, probes)
        found = {
            dtype: copy
            for dtype, copy in copies.items()
            if agrees(wanted, _logits(copy, probes), dtype)
        }
    lower = found.get("bfloat16")
    if precision == "bfloat16" and lower is None:
        raise UserError(
            "this model cannot be searched in bfloat16: it is no functional Keras model, or its "
            "answers differ too much there; choose precision float32, or auto"
        )
    other = found.get("float32", model)
    if precision == "auto" and lower is not None and not is_faster(lower, other, images):
        del found["bfloat16"]
    return found


def in_order(networks: Mapping[str | None, Any], searched_in: str | None) -> list[Any]:
    """What an attack searches with in place of a model, the cheaper first.

    What a search in bfloat16 comes near to is left to the last, the copy in float32 or else the
    model itself.

    Args:
        networks: the model, by None, and its copies by their dtype.
        searched_in: the first; ``"float32"`` leaves out a copy in bfloat16; None: no copy.

    Returns:
        None of them: the model itself is searched.
    """
    order = tuple(_BOUNDS)[::-1]
    names = order[order.index(searched_in) :] if searched_in else ()
    found = [networks[name] for name in names if name in networks]
    return [*found, networks[None]] if "float32" not in networks and found else found


def agrees(model_logits: np.ndarray, copy_logits: np.ndarray, dtype: str) -> bool:
    """Whether a copy is near enough to its model to search with, on some images.

    Compares each logit's distance below the largest of its row, in median gaps between the model's
    two largest logits. It may be off by 0.1 (float32: 0.001) for the median image, and by 0.5
    (0.01) for 95 % of them.

    Args:
        model_logits: ``[N, K]``.
        copy_logits: ``[N, K]``, of the copy.
        dtype: the copy's.
    """
    gap = median_gap(model_logits)
    if not np.isfinite(copy_logits).all() or not np.isfinite(model_logits).all() or gap <= 0:
        return False
    off = np.abs(below_top(model_logits) - below_top(copy_logits)).max(axis=1) / gap
    median, most = _BOUNDS[dtype]
    return bool(np.median(off) <= median and np.quantile(off, 0.95) <= most)


def is_faster(copy: keras.Model, other: keras.Model, images: np.ndarray) -> bool:
    """Whether a copy's gradient is at least 1.3 times as fast as another's, by trial.

    Never where the other takes less than a millisecond.
    """
    inputs = tf.constant(images[:_TIMED])
    gradients = [tf.function(_gradient_of(one), autograph=False) for one in (copy, other)]
    seconds = [np.inf, np.inf]
    # In turn, so that what else the machine does falls on both; the first of each is its tracing.
    for timing in range(_TIMINGS + 1):
        for place, gradient in enumerate(gradients):
            started = time.perf_counter()
            np.asarray(gradient(inputs))
            if timing:
                seconds[place] = min(seconds[place], time.perf_counter() - started)
    return _WORTH * seconds[0] <= seconds[1] and seconds[1] >= _CALL


def _logits(network: keras.Model, images: np.ndarray) -> np.ndarray:
    return Batched(checks.as_logits_fn(network), _COMPARED)(images)


def _gradient_of(network: keras.Model) -> checks.LogitsFn:
    logits_fn = checks.as_logits_fn(network)

    def gradient(images: tf.Tensor) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            largest = tf.reduce_sum(tf.reduce_max(logits_fn(images), axis=1))
        return tape.gradient(largest, images)

    return gradient


def _rank_known(model: keras.Model) -> bool:
    return all(side is not None for side in model.inputs[0].shape[1:])


def _copied(model: keras.Model, dtype: str) -> keras.Model:
    models = [one for one in all_layers(model) if isinstance(one, keras.Model)]
    # Id of the layer before to its batch normalization.
    folded = dict(entry for one in models for entry in _folded(graph_of(one)))
    taken_in = {id(layer) for layer in folded.values()}
    pairs: list[tuple[Any, Any]] = []

    def made(layer: Any, chosen: str) -> Any:
        if not type(layer).__module__.startswith("keras."):
            return layer
        shared = {"name": layer.name, "dtype": "float32" if isinstance(layer, _EXACT) else chosen}
        if id(layer) in taken_in:
            new: Any = Unchanged(**shared)
        elif _is_affine(layer):
            new = ChannelAffine(**shared)
        else:
            config = layer.get_config() | shared
            if id(layer) in folded:
                config["use_bias"] = True
            new = type(layer).from_config(config)
        pairs.append((layer, new))
        return new

    copy = rebuilt(model, dtype, inputs="float32", last="float32", made=made)
    for layer, new in pairs:
        if isinstance(new, ChannelAffine):
            new.set_weights(_affine(layer))
        elif id(layer) in folded:
            new.set_weights(_taken_in(layer, *_affine(folded[id(layer)])))
        elif new.weights:
            new.set_weights(layer.get_weights())
        if isinstance(new, keras.layers.Normalization) and new.weights:
            new.finalize_state()
    return copy


def _folded(graph: Any) -> Iterator[tuple[int, Any]]:
    """The layers that can take in the batch normalization after them, by ``id``."""
    nodes = calls_of(graph) or []
    calls: dict[int, int] = {}
    readers: dict[int, int] = {}
    makers = {}
    for node in nodes:
        calls[id(node.operation)] = calls.get(id(node.operation), 0) + 1
        for tensor in node.input_tensors:
            readers[id(tensor)] = readers.get(id(tensor), 0) + 1
        for tensor in node.outputs:
            makers[id(tensor)] = node.operation
    outputs = {id(tensor) for tensor in keras.tree.flatten(graph.outputs)}
    for node in nodes:
        if not _is_affine(node.operation):
            continue
        before = node.input_tensors[0]
        layer: Any = makers.get(id(before))
        known = type(layer) in (
            keras.layers.Conv2D,
            keras.layers.DepthwiseConv2D,
            keras.layers.Dense,
        )
        if not known or layer.activation is not keras.activations.linear:
            continue
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            continue
        alone = readers[id(before)] == calls[id(layer)] == calls[id(node.operation)] == 1
        if alone and id(before) not in outputs:
            yield id(layer), node.operation


def _is_affine(layer: Any) -> bool:
    """Whether it is Keras' own batch normalization of the last axis."""
    if type(layer) is not keras.layers.BatchNormalization or layer.renorm:
        return False
    return layer.axis in (-1, layer.input_spec.ndim - 1)


def _affine(layer: Any) -> list[np.ndarray]:
    """Scale and offset of a batch normalization in inference, in float64."""
    named = {weight.name: np.asarray(weight, np.float64) for weight in layer.weights}
    scale = named.get("gamma", 1.0) / np.sqrt(named["moving_variance"] + layer.epsilon)
    return [scale, named.get("beta", 0.0) - named["moving_mean"] * scale]


def _taken_in(layer: Any, scale: np.ndarray, offset: np.ndarray) -> list[np.ndarray]:
    """Kernel and bias of a layer with what comes after it."""
    kernel, *bias = (np.asarray(weight, np.float64) for weight in layer.get_weights())
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    by_output = scale.reshape(kernel.shape[-2:]) if depthwise else scale
    return [kernel * by_output, (bias[0] if bias else 0.0) * scale + offset]
