"""How another process loads a model that is in memory here."""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from bcgan_tf.errors import UserError, first_line
from bcgan_tf.files import replacing
from bcgan_tf.loading.python_code import custom_object_files, register_custom_objects

# Models to what loads them again, and a digest of the weights that it loads.
_LOADERS: weakref.WeakKeyDictionary[Any, tuple[Callable[[], Any], str]] = (
    weakref.WeakKeyDictionary()
)


def remember_loader(model: Any, load: Callable[[], Any]) -> None:
    """Notes a function that loads the model again, in any process; it can be pickled."""
    _LOADERS[model] = load, _weights_digest(model)


def loader_of(model: Any, folder: Path) -> Callable[[], Any]:
    """A function that loads the model in another process; it can be pickled.

    Args:
        model: a Keras model, or one that :func:`bcgan_tf.loading.model.load_model` loaded.
        folder: where a Keras model that no file holds is saved, ``model.keras``.

    Raises:
        UserError: it is another function, or Keras cannot save it.
    """
    load, digest = _LOADERS.get(model, (None, ""))
    if load is None or digest != _weights_digest(model):  # it was trained since
        if not isinstance(model, keras.Model):
            raise UserError(
                "workers load the model themselves, which they cannot of a function in memory; "
                "give a Keras model, or attack module:function or a SavedModel with `bcgan-tf "
                "attack --workers`"
            )
        path = folder / "model.keras"
        try:
            with replacing(path) as partial:
                model.save(partial)
        except Exception as error:  # layers of the user's own raise anything
            raise UserError(
                f"the model cannot be saved for the workers ({first_line(error)}); leave them out"
            ) from error
        load = functools.partial(_load_saved, path)
    return functools.partial(_load_with, custom_object_files(), load)


def _load_with(files: tuple[str, ...], load: Callable[[], Any]) -> Any:
    """Loads a model whose own layers are in these files."""
    for file in files:
        register_custom_objects(Path(file))
    return load()


def _load_saved(path: Path) -> Any:
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        raise UserError(
            f"a worker cannot load the model ({first_line(error)}); layers of your own must be in "
            "a file that --custom-objects names, in Python "
            "bcgan_tf.loading.python_code.register_custom_objects(file)"
        ) from error


def _weights_digest(model: Any) -> str:
    """Of a Keras model; "" of anything else."""
    found = hashlib.sha256()
    if not isinstance(model, keras.Model):
        return ""
    for weight in model.get_weights():
        found.update(weight.tobytes())
    return found.hexdigest()
