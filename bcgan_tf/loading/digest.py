"""Digests of model files that are equal for equal models, whenever they were saved."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import IO, Any

from bcgan_tf.files import file_digest

# Suffixes of the files that Keras writes.
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_CHUNK = 1 << 20
# Date of saving and version of Keras: not part of the model.
_NOTES = "metadata.json"
_CONFIG = "config.json"
# Bytes that are read into memory at most; the largest networks have a hundredth of this.
_MOST_CONFIG = 1 << 26
# The memory address of an object at saving.
_ADDRESS = "shared_object_id"


def model_digest(path: Path) -> str:
    """SHA-256 of the architecture and weights in a ``.keras`` file.

    Files of equal models have equal digests, unlike with :func:`bcgan_tf.files.file_digest`: the
    date of saving, times in the archive and memory addresses do not count. No code is run and no
    model is built. For any other file (``.h5`` too), and for an archive that cannot be read, it is
    the digest of the bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename != _NOTES]
            found = hashlib.sha256()
            for info in sorted(members, key=lambda info: info.filename):
                with archive.open(info) as stream:
                    parsed = info.filename == _CONFIG and info.file_size <= _MOST_CONFIG
                    own = _config_digest(stream) if parsed else _digest(stream)
                found.update(json.dumps([info.filename, own]).encode())
    except OSError:
        raise
    except Exception:  # a damaged archive can raise anything
        return file_digest(path)
    return found.hexdigest()


def _digest(stream: IO[bytes]) -> str:
    found = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        found.update(chunk)
    return found.hexdigest()


def _config_digest(stream: IO[bytes]) -> str:
    def without_address(entries: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in entries if key != _ADDRESS}

    config = json.load(stream, object_pairs_hook=without_address)
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
