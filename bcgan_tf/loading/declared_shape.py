"""What a Keras file says of its input, read without loading the model or TensorFlow."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

_MOST_BYTES = 2**26
_CHANNELS = {1: "grayscale", 3: "rgb"}


def declared_images(path: Path) -> dict[str, Any]:
    """``image_size`` and ``color`` of the images that a ``.keras`` or ``.h5`` file's model takes.

    What the file leaves open, or does not say, is left out: what loads the model will say it.
    """
    shape = _input_shape(path)
    if shape is None or not 2 <= len(shape) <= 3:
        return {}
    if len(shape) == 2:
        shape = [*shape, 1]
    if shape[0] in _CHANNELS and shape[2] not in _CHANNELS:  # channels first
        shape = [*shape[1:], shape[0]]
    *size, channels = shape
    found: dict[str, Any] = {}
    if None not in size:
        found["image_size"] = tuple(size)
    if channels in _CHANNELS:
        found["color"] = _CHANNELS[channels]
    return found


def _input_shape(path: Path) -> list[Any] | None:
    """Of one example, None where a side is free."""
    try:
        config = json.loads(_description(path))
        layers = config["config"].get("layers", ())
        inputs = [layer["config"] for layer in layers if layer["class_name"] == "InputLayer"]
        if len(inputs) == 1:
            shape = inputs[0].get("batch_shape") or inputs[0]["batch_input_shape"]
        else:
            shape = (config.get("build_config") or config["config"]).get("input_shape")
        sides = list(shape)[1:]
    except (OSError, KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile):
        return None
    return sides if all(side is None or isinstance(side, int) for side in sides) else None


def _description(path: Path) -> str | bytes:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive, archive.open("config.json") as file:
            return file.read(_MOST_BYTES)
    import h5py

    with h5py.File(path) as file:
        return file.attrs["model_config"]  # pyright: ignore[reportReturnType]
