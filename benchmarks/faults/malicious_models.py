"""Keras files that try to run code, to reach out of themselves, or to fill the memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

SHAPE, CLASSES = (8, 8, 1), 10
CANARY = "canary"
_FILES = ("metadata.json", "config.json", "model.weights.h5")


class Payload:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {CANARY}",)


def _parts(folder: Path) -> dict[str, bytes]:
    """The files inside a harmless ``.keras`` file."""
    file = folder / "harmless.keras"
    if not file.exists():
        layers = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
        keras.Sequential(layers).save(file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in _FILES}


def _write(file: Path, parts: dict[str, bytes], *, compressed: bool = False) -> None:
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def _with_last_layer(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    parts = _parts(file.parent)
    config = json.loads(parts["config.json"])
    change(config["config"]["layers"][-1])
    _write(file, parts | {"config.json": json.dumps(config).encode()})


def _layer(**entries: Any) -> Callable[[Path], None]:
    """The last layer is something else."""
    return lambda file: _with_last_layer(file, lambda layer: layer.update(entries))


def _activation(value: Any) -> Callable[[Path], None]:
    """The last layer's activation is something else."""

    def change(layer: dict[str, Any]) -> None:
        layer["config"]["activation"] = value

    return lambda file: _with_last_layer(file, change)


def _function(module: str, name: str) -> Callable[[Path], None]:
    return _activation(
        {"module": module, "class_name": "function", "config": name, "registered_name": name}
    )


def _keras_layer(kind: str, **config: Any) -> Callable[[Path], None]:
    return _layer(module="keras.layers", class_name=kind, config=config, registered_name=None)


def _lambda(file: Path) -> None:
    """A network whose Lambda layer leaves the canary wherever it is run, if only by loading it."""
    command = f"touch {CANARY}"
    code = lambda x: (__import__("os").system(command), x)[1]  # noqa: E731
    layers = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Lambda(code)]
    keras.Sequential([*layers, keras.layers.Dense(CLASSES)]).save(file)
    Path(CANARY).unlink(missing_ok=True)


def _saved_model_layer(file: Path) -> None:
    folder = file.parent / "program"
    module: Any = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32)])
    def serve(x: Any) -> Any:
        tf.io.write_file(CANARY, "x")
        return x

    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures=serve)
    _keras_layer("TFSMLayer", filepath=str(folder), call_endpoint="serving_default")(file)


def _pickled_module(file: Path) -> None:
    text = pickle.dumps(Payload()).decode("latin-1")
    _keras_layer("TorchModuleWrapper", module=text, name="t")(file)


def _own_module(file: Path) -> None:
    (file.parent / "planted_module.py").write_text(f"open({CANARY!r}, 'w')\nNet = list\n")
    _layer(module="planted_module", class_name="Net", registered_name="Net")(file)


def _member(name: str) -> Callable[[Path], None]:
    return lambda file: _write(file, _parts(file.parent) | {name: b"planted"})


def _pickled_weights(file: Path) -> None:
    parts = _parts(file.parent)
    del parts["model.weights.h5"]
    content = io.BytesIO()
    np.savez(content, allow_pickle=True, layers=np.array([Payload()], object))
    _write(file, parts | {"model.weights.npz": content.getvalue()})


def _pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps(Payload()))


def bomb(member: str, blocks: int) -> Callable[[Path], None]:
    """A member of so many blocks of 16 MiB of zeros, deflated to a thousandth."""

    def write(file: Path) -> None:
        parts = _parts(file.parent)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in parts.keys() - {member}:
                archive.writestr(name, parts[name])
            with archive.open(member, "w", force_zip64=True) as stream:
                block = bytes(2**24)
                for _ in range(blocks):
                    stream.write(block)

    return write


def _long_description(file: Path) -> None:
    parts = _parts(file.parent)
    config = json.loads(parts["config.json"]) | {"filling": "a" * 2**26}
    _write(file, parts | {"config.json": json.dumps(config).encode()}, compressed=True)


def _deep_description(file: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    _write(file, _parts(file.parent) | {"config.json": deep.encode()})


def _deep_layers(file: Path) -> None:
    parts = _parts(file.parent)
    whole = json.loads(parts["config.json"])
    text, depth = json.dumps(whole), 60
    before, after = text.split(json.dumps(whole["config"]["layers"][-1]))
    _write(file, parts | {"config.json": (before * depth + text + after * depth).encode()})


def _weights(fill: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    """Other arrays beside those of the model."""

    def write(file: Path) -> None:
        parts = _parts(file.parent)
        content = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(content, "a") as weights:
            fill(weights)
        _write(file, parts | {"model.weights.h5": content.getvalue()})

    return write


def _packed(weights: h5py.File) -> None:
    rows, block = 2**24, zlib.compress(bytes(2**24))
    array = weights.create_dataset(
        "x", shape=(17 * rows,), dtype="u1", chunks=(rows,), compression="gzip"
    )
    for number in range(17):
        array.id.write_direct_chunk((number * rows,), block)


def _external(weights: h5py.File) -> None:
    outside = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    weights.create_dataset("x", shape=(4,), dtype="u1", external=outside)


def _virtual(weights: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "data", shape=(4,))
    weights.create_virtual_dataset("x", layout)


def _link(weights: h5py.File) -> None:
    weights["x"] = h5py.ExternalLink("elsewhere.h5", "/data")


def _cycle(weights: h5py.File) -> None:
    weights["x"] = h5py.SoftLink("/x")


def _units(layer: dict[str, Any]) -> None:
    layer["config"]["units"] = 10**9


def _units_h5(file: Path) -> None:
    """The same in a legacy file, whose description is an attribute."""
    layers = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    keras.Sequential(layers).save(file)
    with h5py.File(file, "a") as content:
        text = str(content.attrs["model_config"])
        content.attrs["model_config"] = text.replace('"units": 10', '"units": 1000000000')


def _padding(file: Path) -> None:
    """A layer without weights whose output fills the memory."""
    layers = [keras.layers.ZeroPadding2D(7), keras.layers.GlobalAveragePooling2D()]
    keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.Dense(CLASSES)]).save(file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in _FILES}
    padding = json.dumps({"padding": [[7, 7], [7, 7]]})[1:-1].encode()
    wide = parts["config.json"].replace(padding, padding.replace(b"7", b"100000"))
    _write(file, parts | {"config.json": wide})


def _fifo(file: Path) -> None:
    os.mkfifo(file)


def _device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def _itself(file: Path) -> None:
    file.symlink_to(file)


# Name of the file -> what writes it, and words of the one line that refuses it.
MALICIOUS: dict[str, tuple[Callable[[Path], object], str]] = {
    "lambda.keras": (_lambda, "Lambda layer, whose code is not run"),
    "lambda.h5": (_lambda, "Lambda layer, whose code is not run"),
    "module.keras": (_layer(module="os", class_name="system", registered_name=None), "system"),
    "registered.keras": (_layer(module=None, class_name="Popen", registered_name="x>Popen"), ""),
    "planted.keras": (_own_module, "custom object"),
    "function.keras": (_function("os", "system"), "system"),
    "builtin.keras": (_function("builtins", "eval"), "eval"),
    "unsafe.keras": (_function("keras.config", "enable_unsafe_deserialization"), ""),
    "download.keras": (_function("keras.utils", "get_file"), ""),
    "loader.keras": (_function("keras.saving", "load_model"), ""),
    "bytecode.keras": (
        _activation({"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}),
        "lambda",
    ),
    "saved_model.keras": (_saved_model_layer, ""),
    "torch.keras": (_pickled_module, ""),
    "vocabulary.keras": (_keras_layer("StringLookup", vocabulary="/etc/passwd"), ""),
    "text.keras": (_keras_layer("TextVectorization", vocabulary="/etc/passwd"), ""),
    "jax.keras": (_keras_layer("JaxLayer", call_fn={"class_name": "__lambda__"}), ""),
    "above.keras": (_member("../planted"), "outside of it"),
    "assets.keras": (_member("assets/../../planted"), "outside of it"),
    "absolute.keras": (_member("/tmp/planted"), "outside of it"),
    "pickled_weights.keras": (_pickled_weights, "no item named 'model.weights.h5'"),
    "pickle.keras": (_pickle, "no .keras file"),
    "pickle.h5": (_pickle, "cannot be read"),
    "zeros.keras": (bomb("model.weights.h5", 17), "would take 272.0 MiB"),
    "long.keras": (_long_description, "describes its layers in 64.0 MiB, more than the 32.0 MiB"),
    "deep.keras": (_deep_description, "cannot be read as a Keras model"),
    "nested.keras": (_deep_layers, "cannot be read as a Keras model"),
    "declared.keras": (
        _weights(lambda file: file.create_dataset("x", shape=(10**11,), dtype="f4", chunks=True)),
        "would take 372.5 GiB",
    ),
    "packed.keras": (_weights(_packed), "would take 272.0 MiB"),
    "external.keras": (_weights(_external), "refers to data elsewhere"),
    "virtual.keras": (_weights(_virtual), "refers to data elsewhere"),
    "link.keras": (_weights(_link), "refers to data elsewhere"),
    "cycle.keras": (_weights(_cycle), "refers to data elsewhere"),
    "units.keras": (lambda file: _with_last_layer(file, _units), "layers would take"),
    "units.h5": (_units_h5, "layers would take"),
    "padding.keras": (_padding, "makes 149.0 GiB of one image"),
    "fifo.keras": (_fifo, "is no regular file"),
    "device.keras": (_device, "is no regular file"),
    "itself.keras": (_itself, ""),
}
