"""Malformed requests to exported models, loaded as a server loads them: by TensorFlow alone."""

from __future__ import annotations

import functools
import io
import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.core import (
    LOST,
    REFUSED,
    SURVIVED,
    TRACEBACK,
    Fault,
    Outcome,
    described,
)

TITLE = "malformed requests to exported models"
COUNT = 205
LIMIT = 60
_BAD_ROW = 2  # of four
_NAMES_ROW = re.compile(rf"\b(?:row|image|example)s?\b\D{{0,30}}\b{_BAD_ROW}\b", re.IGNORECASE)
# What a request must end in: an answer, an error, or an error that names the bad row.
ANSWER, ERROR, ROW = "answer", "error", "row"
_COMMITTED = Path(__file__).parents[2] / "saved_models"
_FRESH = """
import sys, bcgan_tf, keras
from bcgan_tf.networks.classifiers import small_cnn
for channels in (1, 3):
    model = small_cnn((8, 8, channels), 3, seed=0)
    bcgan_tf.export(model, f"{sys.argv[1]}/fresh-{channels}", class_names="abc", card={})
"""


def prepare(folder: Path) -> None:
    """Exports two untrained networks, of grey and of colour images."""
    subprocess.run([sys.executable, "-c", _FRESH, str(folder)], check=True)


def faults(folder: Path, count: int, seed: int) -> list[Fault]:
    """Every malformed request of every model; of more than ``count``, a draw."""
    found = []
    for card in sorted([*_COMMITTED.glob("*/*/export.json"), *folder.glob("*/*/export.json")]):
        shape = tuple(json.loads(card.read_text())["input"]["shape"])
        for signature, what, value, expected in _requests(shape):
            name = f"{card.parent.parent.name}: {signature}: {what}"
            inject = functools.partial(_ask, card.parent, signature, value, expected)
            found.append(Fault(name, inject))
    rows = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[row] for row in sorted(rows)]


def _requests(shape: tuple[int, ...]) -> Iterator[tuple[str, str, Any, str]]:
    """(signature, what is wrong, its input, what it must end in)."""
    rng = np.random.default_rng(0)
    images = rng.random((4, *shape), "float32")
    height, width, channels = shape
    wrong_shapes = {
        "no batch axis": images[0],
        "a scalar": np.float32(0.5),
        "a vector": images[0].reshape(-1),
        "rank 2": images.reshape(4, -1),
        "rank 5": images[np.newaxis],
        "another height": images[:, :-1],
        "another width": np.concatenate([images, images], 2),
        "another number of channels": np.concatenate([images] * 2, -1),
        "no channels": images[..., :0],
        "channels first": images.transpose(0, 3, 1, 2),
        "other sizes, as many pixels": images.reshape(4, height * 2, width // 2, channels),
    }
    for what, value in wrong_shapes.items():
        yield "serving_default", what, value, ERROR
    for dtype in ("uint8", "int64", "float64", "float16", "complex64", "bool", "str"):
        yield "serving_default", f"dtype {dtype}", images.astype(dtype), ERROR
    for what, pixel in (("NaN", np.nan), ("infinity", np.inf), ("-infinity", -np.inf)):
        bad = images.copy()
        bad[_BAD_ROW, 0, 0, 0] = pixel
        yield "serving_default", f"{what} in one image", bad, ROW
    for what, scale in (("0 ... 255", 255.0), ("negative pixels", -1.0), ("1e30", 1e30)):
        bad = images.copy()
        bad[_BAD_ROW] *= scale
        yield "serving_default", f"{what} in one image", bad, ROW
    yield "serving_default", "an empty batch", images[:0], ANSWER
    yield "serving_default", "nothing wrong", images, ANSWER

    pixels = (255 * images[0]).astype(np.uint8)
    good, jpeg = _encoded(pixels, "PNG"), _encoded(pixels, "JPEG")
    for what, text in {
        "an empty text": b"",
        "garbage": rng.bytes(200),
        "a word": b"image",
        "a PNG cut in half": good[: len(good) // 2],
        "a JPEG cut in half": jpeg[: len(jpeg) // 3],
        "a PNG with a flipped byte": good[:45] + bytes([good[45] ^ 255]) + good[46:],
        "a PNG of 16,000 x 16,000 pixels": png_bomb(16_000, 16_000),
        "a PNG of 30,000 x 30,000 pixels": png_bomb(30_000, 30_000),
        "a PNG of 1 x 2,000,000,000 pixels": png_bomb(1, 2_000_000_000),
        "a PNG of no pixels": png_bomb(0, 0),
    }.items():
        yield "serve_bytes", what, [good, jpeg, text, good], ROW
    yield "serve_bytes", "an empty batch", np.array([], object), ANSWER
    yield "serve_bytes", "a scalar", good, ERROR
    yield "serve_bytes", "rank 2", [[good]], ERROR
    yield "serve_bytes", "images in place of texts", images, ERROR
    yield "serve_bytes", "nothing wrong", [good, jpeg], ANSWER


def _encoded(pixels: np.ndarray, file_format: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    grey = pixels.shape[-1] == 1
    Image.fromarray(pixels[..., 0] if grey else pixels).save(stream, file_format)
    return stream.getvalue()


@functools.cache
def png_bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises many pixels; up to 268 million of them are there, as zeros."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = zlib.compress(bytes(min(height * (width + 1), 2**28)), 9)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@functools.cache
def _loaded(version: Path) -> Any:
    import tensorflow as tf

    assert "bcgan_tf" not in sys.modules
    return tf.saved_model.load(str(version))


def _is_text(value: Any) -> bool:
    """NumPy has no type for texts of an empty batch."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "O"


def _ask(version: Path, signature: str, value: Any, expected: str) -> Outcome:
    import tensorflow as tf

    serve = _loaded(version).signatures[signature]
    key = "images" if signature == "serving_default" else "image_bytes"
    try:
        given = tf.constant(value, *([tf.string] if _is_text(value) else []))
        answer = {name: part.numpy() for name, part in serve(**{key: given}).items()}
    except (tf.errors.OpError, TypeError, ValueError) as error:
        if expected == ANSWER:
            return Outcome(LOST, f"a good request is refused: {described(error)}")
        if expected == ROW and not _NAMES_ROW.search(str(error)):
            return Outcome(TRACEBACK, f"the error names no row: {described(error)}")
        return Outcome(REFUSED, described(error))
    if expected != ANSWER:
        return Outcome(LOST, f"answered with classes {answer['classes'].tolist()}")
    if {len(part) for part in answer.values()} != {int(given.shape[0])}:
        return Outcome(LOST, f"answers of {answer['logits'].shape} to {given.shape}")
    return Outcome(SURVIVED)
