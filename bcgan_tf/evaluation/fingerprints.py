"""What tells one model, and one set of images, from another when an evaluation is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np


def fingerprint(model: Any) -> str:
    """A digest of a Keras model's weights and of what its layers do.

    Of anything else its attribute ``fingerprint``, or its name.
    """
    if isinstance(model, keras.Model):
        weights = [np.asarray(weight) for weight in model.weights]
        return _digest(*weights, np.frombuffer(_architecture(model).encode(), np.uint8))
    name = getattr(model, "__qualname__", type(model).__qualname__)
    return str(getattr(model, "fingerprint", f"{getattr(model, '__module__', '')}:{name}"))


def identity_of(model: Any, images: np.ndarray, labels: np.ndarray) -> dict[str, str]:
    """Digests of the ``model`` and of all the ``data`` that an evaluation is of."""
    return {"model": fingerprint(model), "data": _digest(images, labels)}


def _digest(*arrays: np.ndarray) -> str:
    """The SHA-256 of the arrays' bytes, hexadecimal."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _architecture(model: keras.Model) -> str:
    """The configuration as text; layers are numbered, as Keras names them by a count of its own."""
    try:
        config = {"class_name": type(model).__name__, "config": model.get_config()}
        names = {name: f"#{number}" for number, name in enumerate(dict.fromkeys(_names(config)))}
        return json.dumps(_renamed(config, names), sort_keys=True, default=_plain)
    except Exception:  # a model of the user's own may not describe itself
        return type(model).__qualname__


def _plain(value: Any) -> Any:
    # No repr: of an object it holds an address, which is another in every process.
    return value.tolist() if isinstance(value, np.ndarray) else type(value).__qualname__


def _names(config: Any) -> Iterator[str]:
    """The names of all layers, from the outermost; not of data types, which are no layers."""
    if isinstance(config, Mapping):
        inner = config.get("config")
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if isinstance(name, str) and "DTypePolicy" not in str(config.get("class_name")):
            yield name
        for value in config.values():
            yield from _names(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _names(value)


def _renamed(config: Any, names: Mapping[str, str]) -> Any:
    if isinstance(config, Mapping):
        return {key: _renamed(value, names) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [_renamed(value, names) for value in config]
    return names.get(config, config) if isinstance(config, str) else config
