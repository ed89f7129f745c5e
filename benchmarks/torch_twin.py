"""The same network in PyTorch, with a Keras model's weights, for comparisons on equal terms."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def torch_twin(model: keras.Model, images: np.ndarray, *, channels_last: bool = True) -> Any:
    """A chain of Conv2D, MaxPooling2D, Flatten, Dense (relu or none) as a PyTorch module.

    Args:
        model: padding "same" in its convolutions, of an even total on each side.
        images: float32 ``[N, H, W, C]``, on which the logits are compared.
        channels_last: PyTorch's other layout, which is faster on a CPU; its users mostly take the
            default.

    Raises:
        ValueError: a layer that is not understood.
        AssertionError: the logits differ by more than 1e-3.
    """
    import torch

    modules: list[Any] = []
    rows = columns = channels = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if isinstance(layer, keras.layers.Conv2D):
            height, width, channels_in, filters = layer.kernel.shape
            side = int(layer.input.shape[1])
            stride = layer.strides[0]
            total = (-(-side // stride) - 1) * stride + height - side
            if layer.padding != "same" or height != width or total % 2:
                raise ValueError(f"{layer.name}: only symmetric padding 'same' is understood")
            conv = torch.nn.Conv2d(channels_in, filters, height, stride, padding=total // 2)
            kernel, bias = (np.asarray(weight) for weight in layer.weights)
            conv.weight.data = _tensor(kernel.transpose(3, 2, 0, 1))
            conv.bias.data = _tensor(bias)
            modules.append(conv)
        elif isinstance(layer, keras.layers.MaxPooling2D):
            modules.append(torch.nn.MaxPool2d(layer.pool_size, layer.strides))
        elif isinstance(layer, keras.layers.Flatten):
            rows, columns, channels = layer.input.shape[1:]
            modules.append(torch.nn.Flatten())
        elif isinstance(layer, keras.layers.Dense):
            kernel, bias = (np.asarray(weight) for weight in layer.weights)
            if rows:  # Keras flattens rows, columns, channels; PyTorch channels, rows, columns
                shaped = kernel.reshape(rows, columns, channels, -1)
                kernel = shaped.transpose(2, 0, 1, 3).reshape(len(kernel), -1)
                rows = 0
            linear = torch.nn.Linear(*kernel.shape)
            linear.weight.data = _tensor(kernel.T)
            linear.bias.data = _tensor(bias)
            modules.append(linear)
        elif not isinstance(layer, keras.layers.Activation | keras.layers.ReLU):
            raise ValueError(f"{layer.name}: a {type(layer).__name__} is not understood")
        name = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if name == "relu" or isinstance(layer, keras.layers.ReLU):
            modules.append(torch.nn.ReLU())
        elif name != "linear":
            raise ValueError(f"{layer.name}: activation {name} is not understood")
    twin = torch.nn.Sequential(*modules).eval().requires_grad_(False)
    expected = np.asarray(model(images[:50], training=False))
    actual = twin(_tensor(images[:50].transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-3)
    return twin.to(memory_format=torch.channels_last) if channels_last else twin


def _tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.array(array, np.float32, order="C"))
