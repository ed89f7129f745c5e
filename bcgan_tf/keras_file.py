"""A Keras file read, or one line that says why it cannot be."""

from __future__ import annotations

import importlib
import re
import zipfile
from pathlib import Path
from typing import Any

import keras

from bcgan_tf.errors import UserError

_CUSTOM = re.compile(
    r"(?:Could not (?:locate|deserialize)|Unknown) (?:class|function|layer|object):? '([^']+)'"
)


def read_keras_file(path: Path) -> Any:
    """What a ``.keras`` or legacy ``.h5`` file holds, without its optimizer; not checked further.

    Raises:
        UserError: one line that names what is wrong and how to put it right: no such file, broken,
            weights only, custom objects, code that is not run unasked.
    """
    again = "save the whole model again: model.save('classifier.keras')"
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a Keras file; {again}")
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the path of a .keras file")
    if path.name.endswith(".weights.h5"):
        raise UserError(f"{path} holds weights without their model; {again}")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise UserError(f"{path} is no .keras or .h5 file; {again}")
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise UserError(f"{path} is cut short or no .keras file; {again}")
    try:
        _know_own_classes(path)
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # whatever is in a user's file, and however Keras words it
        text = str(error)
        custom = _CUSTOM.search(text)
        if custom:
            raise UserError(
                f"{path} contains the custom object {custom[1]!r}, which Keras does not know here; "
                "load it in Python with keras.models.load_model(path, custom_objects={...}) and "
                "give the model object, or rebuild it from built-in layers"
            ) from error
        if "Lambda" in text:
            raise UserError(
                f"{path} contains a Lambda layer, whose code is not run unasked; if you trust it, "
                "load it in Python with keras.models.load_model(path, safe_mode=False) and give "
                "the model object, or rebuild it from built-in layers"
            ) from error
        raise UserError(
            f"{path} cannot be read as a Keras model ({first_line(error)}); {again}"
        ) from error


def _know_own_classes(path: Path) -> None:
    """Imports what a hardened classifier may be made of, where a file has it: Defense-GAN."""
    if path.suffix != ".keras":
        return
    with zipfile.ZipFile(path) as archive:
        if b'"bcgan_tf>' in archive.read("config.json"):
            importlib.import_module("bcgan_tf.models.defended_classifier")


def first_line(error: Exception) -> str:
    """What an error says, in one line: Keras' messages have dozens."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
