"""Reads a SavedModel, of this package or another, as a function from images to logits."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from bcgan_tf.errors import UserError, first_line

_SAVED_MODEL = "saved_model.pb"
_SIGNATURE = "serving_default"
_LOGITS = "logits"


def versions(directory: Path) -> list[int]:
    """All integers that are names of entries in ``saved_models/NAME``."""
    if not directory.is_dir():
        return []
    names = (entry.name for entry in directory.iterdir())
    return [int(name) for name in names if name.isascii() and name.isdigit()]


def version_folder(folder: Path) -> Path:
    """The folder itself, or that of the newest version in it.

    Raises:
        UserError: neither holds a SavedModel.
    """
    if (folder / _SAVED_MODEL).is_file():
        return folder
    for version in sorted(versions(folder), reverse=True):
        if (folder / str(version) / _SAVED_MODEL).is_file():
            return folder / str(version)
    raise UserError(
        f"{folder} holds no SavedModel ({_SAVED_MODEL}), nor a version of one; give the folder "
        "that bcgan-tf export wrote, or a .keras file"
    )


def read_saved_model(
    folder: Path, shape: tuple[int, ...], output: str | None = None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function from images to logits that a SavedModel serves; gradients flow through it.

    Args:
        folder: of the SavedModel, not of its versions.
        shape: of one image.
        output: the name of the output that classifies; None: ``logits``, or the only one.

    Raises:
        UserError: it cannot be read, or has no signature from float images of this shape and any
            batch size to logits.
    """
    try:
        loaded: Any = tf.saved_model.load(os.fspath(folder))
        signatures = dict(loaded.signatures)
    except Exception as error:  # a damaged file can raise anything
        raise UserError(
            f"{folder} cannot be read as a SavedModel ({first_line(error)}); export it again"
        ) from error
    name = _SIGNATURE if _SIGNATURE in signatures else next(iter(signatures), None)
    if name is None or (name != _SIGNATURE and len(signatures) > 1):
        raise UserError(
            f"{folder} has no signature {_SIGNATURE!r} (it has: {', '.join(signatures) or 'none'})"
            "; export it with one that takes images and returns logits"
        )
    serve = signatures[name]
    key, spec = _image_input(folder, name, serve, shape)
    outputs = serve.structured_outputs
    if output is None:
        output = _LOGITS if _LOGITS in outputs or len(outputs) != 1 else next(iter(outputs))
    if output not in outputs:
        raise UserError(
            f"{folder}: the signature {name!r} returns {', '.join(outputs) or 'nothing'}; name the "
            "output that classifies: --output NAME"
        )
    return _Signature(loaded, serve, key, spec, output)


@dataclasses.dataclass(frozen=True, eq=False)
class _Signature:
    loaded: Any  # keeps the variables alive; a signature alone does not
    serve: Callable[..., dict[str, tf.Tensor]]
    key: str
    spec: tf.TensorSpec
    output: str

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        answer = self.serve(**{self.key: tf.cast(images, self.spec.dtype)})
        return tf.cast(answer[self.output], tf.float32)


def _image_input(
    folder: Path, name: str, serve: Any, shape: tuple[int, ...]
) -> tuple[str, tf.TensorSpec]:
    inputs = serve.structured_input_signature[1]
    told = f"{folder}: the signature {name!r}"
    if len(inputs) != 1:
        raise UserError(f"{told} takes {len(inputs)} inputs ({', '.join(inputs)}); it needs one")
    ((key, spec),) = inputs.items()
    if not spec.dtype.is_floating:
        raise UserError(
            f"{told} takes {spec.dtype.name}; attacks differentiate with respect to the images, so "
            "export it with a float32 input in [0, 1]"
        )
    if not spec.shape.is_compatible_with([None, *shape]):
        raise UserError(
            f"{told} takes images of shape {tuple(spec.shape[1:])}, but these are {shape}; choose "
            "the dataset that it was trained on"
        )
    if spec.shape.rank is not None and spec.shape[0] is not None:
        raise UserError(
            f"{told} takes batches of {spec.shape[0]} only; export it with a free batch size (None)"
        )
    return key, spec


def folder_digest(folder: Path) -> str:
    """SHA-256 of graph, variables and assets; the card and warm-up requests do not count."""
    digest = hashlib.sha256()
    files = [folder / _SAVED_MODEL]
    for part in ("variables", "assets"):
        files += sorted(path for path in (folder / part).rglob("*") if path.is_file())
    for file in files:
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(file.read_bytes())
    return digest.hexdigest()
