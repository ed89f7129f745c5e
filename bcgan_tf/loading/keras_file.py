"""Reads a Keras file, or raises a UserError that says why it cannot."""

from __future__ import annotations

import concurrent.futures
import importlib
import io
import json
import math
import random
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import keras
import tensorflow as tf

from bcgan_tf.errors import UserError, first_line
from bcgan_tf.files import readable_size
from bcgan_tf.loading.digest import KERAS_SUFFIXES

# Weights hardly compress and Keras stores them as they are: no model's file grows by this factor.
_MOST_GROWTH = 20
# Size that every file may unpack to, such as a small one of equal weights: 256 MiB.
_ALWAYS_ALLOWED = 2**28
# Largest JSON description of the layers: 32 MiB; a network of 1,000 layers takes 1 MiB.
_LARGEST_DESCRIPTION = 2**25
# Largest output of one layer for one image, as float32: 512 MiB.
_LARGEST_OUTPUT = 2**29

_AGAIN = "save the whole model again: model.save('classifier.keras')"
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_CUSTOM = re.compile(
    r"(?:Could not (?:locate|deserialize)|Unknown) (?:class|function|layer|object):? '([^']+)'"
)


def read_keras_file(path: Path) -> Any:
    """The object in a ``.keras`` or legacy ``.h5`` file, without its optimizer.

    Runs no code of the file, and checks sizes before it allocates memory.

    Raises:
        UserError: no such file, broken, weights only, custom objects, a Lambda layer, or sizes far
            above that of the file.
    """
    check_is_keras_file(path)
    try:
        _check_stored(path)
        _know_own_classes(path)
        _check_layers(path)
        return keras.models.load_model(path, compile=False)
    except UserError:
        raise
    except Exception as error:  # a user's file can raise anything
        text = str(error)
        custom = _CUSTOM.search(text)
        if custom:
            raise UserError(
                f"{path} contains the custom object {custom[1]!r}, which Keras does not know here; "
                "name the Python file that defines it: --custom-objects FILE.py, which runs it (in "
                "Python: keras.models.load_model(path, custom_objects={...}), and give the model)"
            ) from error
        if "Lambda" in text:
            raise UserError(
                f"{path} contains a Lambda layer, whose code is not run; if you trust it, "
                "load it in Python with keras.models.load_model(path, safe_mode=False) and give "
                "the model object, or rebuild it from built-in layers"
            ) from error
        raise UserError(
            f"{path} cannot be read as a Keras model ({first_line(error)}); {_AGAIN}"
        ) from error


def check_is_keras_file(path: Path) -> None:
    """Refuses what is seen not to be a whole model's file without reading it.

    Raises:
        UserError: no such file, a folder, weights only, another kind of file, or cut short.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a Keras file; {_AGAIN}")
    if not path.is_file():
        what = "is no regular file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}; give the path of a .keras file")
    if path.name.endswith(".weights.h5"):
        raise UserError(f"{path} holds weights without their model; {_AGAIN}")
    if path.suffix not in KERAS_SUFFIXES:
        raise UserError(f"{path} is no .keras or .h5 file; {_AGAIN}")
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise UserError(f"{path} is cut short or no .keras file; {_AGAIN}")


def _know_own_classes(path: Path) -> None:
    """Imports this package's own layers (Defense-GAN) where the file holds them."""
    if path.suffix != ".keras":
        return
    with zipfile.ZipFile(path) as archive:
        if b'"bcgan_tf>' in archive.read("config.json"):
            importlib.import_module("bcgan_tf.models.defended_classifier")


# ---- Sizes


def _check_stored(path: Path) -> None:
    """Refuses files that unpack to far more than their size, or to paths outside."""
    if path.suffix != ".keras":
        with h5py.File(path, "r") as file:
            _check_description(path, len(str(file.attrs.get("model_config", ""))))
            _check_growth(path, "weights", _stored_bytes(path, file), path.stat().st_size)
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            inside = PurePosixPath(member.filename.replace("\\", "/"))
            if inside.is_absolute() or ".." in inside.parts:
                raise UserError(f"{path} holds {member.filename!r}, outside of it; do not trust it")
        unpacked = sum(member.file_size for member in members)
        _check_growth(path, "files", unpacked, path.stat().st_size)
        for name in (_CONFIG, _METADATA):
            _check_description(path, archive.getinfo(name).file_size)
        content = archive.read(_WEIGHTS)
    with h5py.File(io.BytesIO(content), "r") as file:
        _check_growth(path, "weights", _stored_bytes(path, file), len(content))


def _check_layers(path: Path) -> None:
    """Refuses layers that need far more memory than the file's size, such as ``Dense(10**9)``.

    The layers are built without weights. Errors are left to the real reading, which reports them.
    """
    # Keras keeps uninitialized variables per thread: these end with the thread.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        weights, output = thread.submit(_wanted_bytes, path).result()
    _check_growth(path, "layers", weights, path.stat().st_size)
    if output > _LARGEST_OUTPUT:
        raise UserError(
            f"{path} has a layer that makes {readable_size(output)} of one image, more than the "
            f"{readable_size(_LARGEST_OUTPUT)} of any network here; do not trust it"
        )


def _wanted_bytes(path: Path) -> tuple[int, int]:
    """Bytes of all weights, and of the largest output for one image; 0 where unknown."""
    state = random.getstate()  # initializers draw their seeds from it
    try:
        with keras.StatelessScope(initialize_variables=False):
            model = _described_model(path)
        weights = sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in model.variables)
        return weights, max(_output_bytes(model), default=0)
    except Exception:  # a user's file can raise anything
        return 0, 0
    finally:
        random.setstate(state)


def _output_bytes(model: Any) -> Iterator[int]:
    for layer in model.layers if isinstance(model, keras.Sequential) else model.operations:
        if isinstance(layer, keras.Model):
            yield from _output_bytes(layer)
        for output in keras.tree.flatten(layer.output):
            yield 4 * math.prod(side or 1 for side in output.shape[1:])


def _described_model(path: Path) -> Any:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read(_CONFIG))
        return keras.models.model_from_json(json.dumps({**config, "compile_config": None}))
    with h5py.File(path, "r") as file:
        text: Any = file.attrs["model_config"]
    config = json.loads(text)
    kind = keras.Sequential if config["class_name"] == "Sequential" else keras.Model
    return kind.from_config(config["config"])


def _check_growth(path: Path, what: str, size: int, stored: int) -> None:
    if size > max(_ALWAYS_ALLOWED, _MOST_GROWTH * stored):
        raise UserError(
            f"{path} holds {readable_size(stored)}, but its {what} would take "
            f"{readable_size(size)}, more than {_MOST_GROWTH} times as much; do not trust it, or "
            "save the model again, uncompressed: model.save('classifier.keras')"
        )


def _check_description(path: Path, size: int) -> None:
    if size > _LARGEST_DESCRIPTION:
        raise UserError(
            f"{path} describes its layers in {readable_size(size)}, more than the "
            f"{readable_size(_LARGEST_DESCRIPTION)} of any network; do not trust it"
        )


def _stored_bytes(path: Path, file: h5py.File) -> int:
    """The declared size in bytes of all arrays of an HDF5 file, without reading them."""
    total = 0
    groups = [file["/"]]
    seen = set()
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            item: Any = group.get(name) if isinstance(link, h5py.HardLink) else None
            if item is None or (isinstance(item, h5py.Dataset) and _elsewhere(item)):
                raise UserError(
                    f"{path} refers to data elsewhere ({name!r}), as no Keras file does; do not "
                    "trust it"
                )
            if isinstance(item, h5py.Group):
                if item.id not in seen:  # a group may lie in itself
                    seen.add(item.id)
                    groups.append(item)
            else:
                total += item.size * item.dtype.itemsize
    return total


def _elsewhere(item: h5py.Dataset) -> bool:
    return bool(item.external) or item.is_virtual
