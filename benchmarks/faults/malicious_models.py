"""Keras files that try to run code, to read or write elsewhere, or to fill the memory."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TINY = ["--eps", "0.3", "--n", "20", "--no-diagnose"]


def cases() -> Iterator[tuple[str, Callable[[Path], None], list[str]]]:
    """Every malicious file as the model of a command that reads one."""
    makers = {
        "a Lambda layer": ("keras", _lambda),
        "a Lambda layer in a legacy file": ("h5", _lambda),
        "a config that names os.system": ("keras", _config("os", "system")),
        "a config that names builtins.eval": ("keras", _config("builtins", "eval")),
        "a config that names subprocess.Popen": ("keras", _config("subprocess", "Popen")),
        "a config that names a module beside it": ("keras", _config("evil", "Layer")),
        "a config that names keras.utils.get_file": ("keras", _config("keras.utils", "get_file")),
        "a layer of a foreign SavedModel": ("keras", _config("keras.layers", "TFSMLayer")),
        "a pickle as its config": ("keras", _zipped("config.json", pickled)),
        "a config of 100,000 brackets": ("keras", _zipped("config.json", lambda: b"[" * 100_000)),
        "a config that unpacks to 3 GB": ("keras", _bomb("config.json")),
        "weights that unpack to 3 GB": ("keras", _bomb("model.weights.h5")),
        "members that lead out of it": ("keras", _zipped("../../canary", lambda: b"x")),
        "weights that link to another file": ("keras", _external),
        "a pickle in place of it": ("keras", lambda path: path.write_bytes(pickled())),
        "a pickle in place of a legacy file": ("h5", lambda path: path.write_bytes(pickled())),
    }
    uses = {
        "attack": ["--dataset", "digits", *TINY],
        "export": ["--saved-models", "out"],
        "boundary": ["--dataset", "digits", "--resolution", "3"],
    }
    for what, (suffix, maker) in makers.items():
        for use, options in uses.items():
            yield what, functools.partial(_model, maker, suffix), [use, f"x.{suffix}", *options]


def _model(maker: Callable[[Path], Any], suffix: str, folder: Path) -> None:
    # The canary of a module that is imported: a folder that is on the path of python -m.
    (folder / "evil.py").write_text("open('canary', 'w')\nclass Layer: pass\ndef f(x): return x\n")
    shutil.copy(folder / "m.keras", folder / "x.keras")
    maker(folder / f"x.{suffix}")


def _lambda(path: Path) -> None:
    """Building the model runs the code too, so it is built elsewhere."""
    import keras

    def run(x: Any) -> Any:
        open("canary", "w").close()
        return x

    with (
        tempfile.TemporaryDirectory() as elsewhere,
        contextlib.chdir(elsewhere),
    ):  # building runs it
        images = keras.Input((8, 8, 1))
        hidden = keras.layers.Lambda(run, output_shape=(8, 8, 1))(images)
        model = keras.Model(images, keras.layers.Dense(10)(keras.layers.Flatten()(hidden)))
        model.save(path)


def _config(module: str, name: str) -> Callable[[Path], None]:
    """A layer of the sound model becomes an object of another module."""
    filepath = "s1"
    settings = {"command": "touch canary", "args": ["touch", "canary"], "filepath": filepath}
    settings |= {"name": "x", "fname": "canary", "origin": "file:///etc/hostname"}

    def make(path: Path) -> None:
        def change(config: Any) -> Any:
            layer = config["config"]["layers"][1]
            layer |= {"module": module, "class_name": name, "registered_name": name}
            layer["config"] = settings
            return config

        content = json.loads(_member(path, "config.json"))
        _replace_member(path, "config.json", json.dumps(change(content)).encode())

    return make


def _zipped(member: str, content: Callable[[], bytes]) -> Callable[[Path], None]:
    return lambda path: _replace_member(path, member, content())


def _bomb(member: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(_bombed(path.read_bytes(), member)) and None


@functools.cache
def _bombed(keras_file: bytes, member: str) -> bytes:
    """The file with 3 GB of spaces for a member, in 3 MB."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(keras_file)) as old,
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            if name != member:
                new.writestr(name, old.read(name))
        with new.open(member, "w", force_zip64=True) as stream:
            for _ in range(3 * 2**30 // 2**24):
                stream.write(b" " * 2**24)
    return made.getvalue()


def _external(path: Path) -> None:
    import h5py

    content = io.BytesIO(_member(path, "model.weights.h5"))
    with h5py.File(content, "a") as file:
        name = next(iter(file["layers"]))
        del file["layers"][name]
        file["layers"][name] = h5py.ExternalLink("../secret.png", "/")
    _replace_member(path, "model.weights.h5", content.getvalue())


def _member(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _replace_member(path: Path, member: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**kept, member: content}.items():
            archive.writestr(name, text)


class Payload:
    """Leaves the canary when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


def pickled() -> bytes:
    """A pickle of :class:`Payload`."""
    return pickle.dumps(Payload())
