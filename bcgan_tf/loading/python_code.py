"""Python code as a source of models: ``module:attribute`` or ``file.py:attribute``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from bcgan_tf.errors import UserError, first_line

# In their order.
_CUSTOM_OBJECTS: dict[str, None] = {}


def split_spec(text: str) -> tuple[str, str] | None:
    """Splits ``module:attribute`` or ``file.py:attribute``; None for other texts."""
    source, colon, attribute = text.rpartition(":")
    valid = all(part.isidentifier() for part in attribute.split("."))
    return (source, attribute) if colon and source and valid else None


def source_file(source: str) -> Path | None:
    """The file of a module, None for a built-in one. Nothing is imported, so no code runs.

    Raises:
        UserError: there is no such module or file.
    """
    if source.endswith(".py"):
        if not Path(source).is_file():
            raise UserError(f"{source} does not exist; give file.py:function or module:function")
        return Path(source)
    if source in sys.builtin_module_names:
        return None
    importlib.invalidate_caches()
    found, folders = None, [os.fspath(Path.cwd()), *sys.path]
    for part in source.split("."):
        found = PathFinder.find_spec(part, folders)
        if found is None:
            raise _no_module(source, Path.cwd())
        folders = list(found.submodule_search_locations or ())
    return Path(found.origin) if found and found.origin else None


def _no_module(source: str, folder: str | os.PathLike[str]) -> UserError:
    return UserError(
        f"there is no module {source!r}, neither installed nor in {folder}; give module:function "
        "or file.py:function"
    )


def import_attribute(source: str, attribute: str) -> Any:
    found: Any = _module(source)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise UserError(f"{source} has no attribute {attribute!r}; check its name") from None
    return found


def keras_model(spec: str) -> keras.Model:
    """The Keras model of ``module:attribute``, or what the function of that name returns.

    Raises:
        UserError: it cannot be imported, or is and returns something else.
    """
    code = split_spec(spec)
    if code is None:
        raise UserError(
            f"{spec} is no Keras file; only a Keras model can be trained: give a .keras file, or "
            "file.py:function, which returns a keras.Model"
        )
    found = import_attribute(*code)
    if not isinstance(found, keras.Model) and callable(found):
        try:
            found = found()
        except Exception as error:  # a user's own code runs here
            raise UserError(
                f"{spec} fails when it is called without arguments ({first_line(error)}); give a "
                "function that returns a keras.Model"
            ) from error
    if not isinstance(found, keras.Model):
        raise UserError(f"{spec} gives a {type(found).__name__}, not a keras.Model")
    return found


def register_custom_objects(file: Path) -> None:
    """Runs a Python file, and makes its classes and functions known to Keras by their names.

    Raises:
        UserError: it cannot be run, or defines none.
    """
    module = _module(os.fspath(file))
    own = {
        name: value
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    }
    if not own:
        raise UserError(f"{file} defines no class and no function; give the file that has them")
    keras.saving.get_custom_objects().update(own)
    _CUSTOM_OBJECTS[os.fspath(file.resolve())] = None


def custom_object_files() -> tuple[str, ...]:
    """The files whose classes and functions :func:`register_custom_objects` made known."""
    return tuple(_CUSTOM_OBJECTS)


def _module(source: str) -> ModuleType:
    file = Path(source) if source.endswith(".py") else None
    if file is not None and not file.is_file():
        raise UserError(f"{source} does not exist; give file.py:function or module:function")
    # As Python does for a script. It stays in sys.path because the module may import later.
    folder = os.fspath(file.resolve().parent if file else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        if file is None:
            importlib.invalidate_caches()
            return importlib.import_module(source)
        name = f"_bcgan_tf_source_{hashlib.sha256(os.fspath(file.resolve()).encode()).hexdigest()}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module
    except (Exception, SystemExit) as error:  # a user's own code runs here
        if isinstance(error, ModuleNotFoundError) and error.name in (source, source.split(".")[0]):
            raise _no_module(source, folder) from error
        raise UserError(
            f"{source} cannot be imported ({type(error).__name__}: {first_line(error)}); try "
            f"python -c 'import {source}'"
            if file is None
            else f"{source} cannot be run ({type(error).__name__}: {first_line(error)})"
        ) from error
