"""The same network in PyTorch, with a Keras model's weights, for comparisons on equal terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from bcgan_tf.keras_graph import calls_of, graph_of


def torch_twin(model: keras.Model, images: np.ndarray, *, channels_last: bool = True) -> Any:
    """A functional model of the layers below as a PyTorch module, which takes ``[N, C, H, W]``.

    Conv2D, BatchNormalization, MaxPooling2D, GlobalAveragePooling2D, Flatten, Dense, Rescaling, Add
    and ReLU.

    Args:
        model: float32 throughout.
        images: float32 ``[N, H, W, C]``, on which the logits are compared.
        channels_last: the weights in PyTorch's other layout, which is faster on a CPU, and so every
            convolution; its users mostly take the default.

    Raises:
        ValueError: a layer that is not understood.
        AssertionError: the logits differ by more than 1e-3.
    """
    import torch

    class Twin(torch.nn.Module):
        """Calls the parts in the order of the Keras graph."""

        def __init__(self) -> None:
            super().__init__()
            graph = graph_of(model)
            self.parts = torch.nn.ModuleList()
            self.calls: list[tuple[Any, list[int], int]] = []
            for node in calls_of(graph) or ():
                if node.is_input:
                    continue
                part = _part(node.operation, node.input_tensors[0].shape)
                if isinstance(part, torch.nn.Module):
                    self.parts.append(part)
                inputs = [id(tensor) for tensor in node.input_tensors]
                self.calls.append((part, inputs, id(node.outputs[0])))
            self.first, self.last = id(graph.inputs[0]), id(graph.outputs[0])

        def forward(self, inputs: Any) -> Any:
            if inputs.requires_grad:  # the attacks read images and gradients in the default layout
                inputs.register_hook(lambda gradient: gradient.contiguous())
            known = {self.first: inputs}
            for part, taken, made in self.calls:
                known[made] = part(*(known[one] for one in taken))
            return known[self.last]

    twin = Twin().eval().requires_grad_(False)
    expected = np.asarray(model(images[:50], training=False))
    actual = twin(_tensor(images[:50].transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-3)
    return twin.to(memory_format=torch.channels_last) if channels_last else twin


def _part(layer: Any, shape: tuple[int, ...]) -> Callable[..., Any]:
    """One layer, with its activation."""
    import torch

    made = _of_kind(layer, shape)
    name = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if name == "relu" and not isinstance(layer, keras.layers.ReLU):
        return torch.nn.Sequential(made, torch.nn.ReLU())
    if name not in ("linear", "relu"):
        raise ValueError(f"{layer.name}: activation {name} is not understood")
    return made


def _of_kind(layer: Any, shape: tuple[int, ...]) -> Any:
    import torch

    weights = [np.asarray(weight) for weight in getattr(layer, "weights", ())]
    if isinstance(layer, keras.layers.Conv2D):
        return _convolution(layer, weights, shape)
    if isinstance(layer, keras.layers.BatchNormalization):
        named = {weight.name: _tensor(np.asarray(weight)) for weight in layer.weights}
        norm = torch.nn.BatchNorm2d(shape[-1], eps=layer.epsilon)
        norm.weight.data, norm.bias.data = named["gamma"], named["beta"]
        norm.running_mean, norm.running_var = named["moving_mean"], named["moving_variance"]
        return norm
    if isinstance(layer, keras.layers.Dense):
        linear = torch.nn.Linear(*weights[0].shape)
        linear.weight.data = _tensor(weights[0].T)
        linear.bias.data = _tensor(weights[1])
        return linear
    if isinstance(layer, keras.layers.MaxPooling2D):
        return torch.nn.MaxPool2d(layer.pool_size, layer.strides)
    if isinstance(layer, keras.layers.Flatten):
        # Keras flattens rows, columns, channels: with channels last in memory nothing is copied.
        return lambda x: x.permute(0, 2, 3, 1).flatten(1)
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return lambda x: x.mean((2, 3))
    if isinstance(layer, keras.layers.Rescaling):
        return lambda x: layer.scale * x + layer.offset
    if isinstance(layer, keras.layers.Add):
        return lambda *parts: sum(parts[1:], parts[0])
    if isinstance(layer, keras.layers.ReLU) or layer.name == "relu":
        return torch.nn.ReLU()
    if isinstance(layer, keras.layers.Activation):
        return torch.nn.Identity()
    raise ValueError(f"{layer.name}: a {type(layer).__name__} is not understood")


def _convolution(layer: Any, weights: list[np.ndarray], shape: tuple[int, ...]) -> Any:
    import torch

    kernel = weights[0]
    before = behind = [0, 0]
    if layer.padding == "same":
        pads = [
            max((-(-side // stride) - 1) * stride + size - side, 0)
            for side, stride, size in zip(shape[1:3], layer.strides, kernel.shape[:2], strict=True)
        ]
        # Where it is odd, Keras pads one more behind.
        before = [total // 2 for total in pads]
        behind = [total - first for total, first in zip(pads, before, strict=True)]
    even = before if before == behind else [0, 0]
    conv = torch.nn.Conv2d(
        *kernel.shape[2:], kernel.shape[:2], layer.strides, even, bias=layer.use_bias
    )
    conv.weight.data = _tensor(kernel.transpose(3, 2, 0, 1))
    if conv.bias is not None:
        conv.bias.data = _tensor(weights[1])
    if before != behind:
        around = (before[1], behind[1], before[0], behind[0])
        return torch.nn.Sequential(torch.nn.ZeroPad2d(around), conv)
    return conv


def _tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.array(array, np.float32, order="C"))
