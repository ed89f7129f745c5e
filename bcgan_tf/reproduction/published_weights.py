"""The weights of an MNIST network that was published with the code of the paper's figures."""

from __future__ import annotations

import collections
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np

from bcgan_tf.errors import UserError, first_line
from bcgan_tf.networks.classifiers import paper_cnn

# Name to shape, as PyTorch has them: filters [out, in, height, width], dense [out, in].
_SHAPES: dict[str, tuple[int, ...]] = {
    "Conv1.0.weight": (16, 1, 5, 5),
    "Conv1.0.bias": (16,),
    "Conv2.0.weight": (32, 16, 5, 5),
    "Conv2.0.bias": (32,),
    "fc.weight": (10, 1568),
    "fc.bias": (10,),
}
# The file has 117 kB: one that is much larger is another one.
_MOST_BYTES = 10_000_000
# It has some 300 operations in a pickle.
_MOST_OPERATIONS = 2000
# PyTorch's first format: three pickles, one of the tensors without their numbers, one of the keys
# of the numbers, and these, each behind its count.
_MAGIC = 0x1950A86A20F9469CFC6C


def published_network(file: Path) -> keras.Model:
    """The network as a Keras model, from the published pickle or from an ``.npz`` of its tensors.

    Nothing in the file is executed: of a pickle, only what builds tensors is read.

    Args:
        file: tensors named and shaped as PyTorch has them.

    Returns:
        :func:`bcgan_tf.networks.paper_cnn`, float32 ``[B, 28, 28, 1]`` in [0, 1] to logits.

    Raises:
        UserError: no such file, none of the two kinds, or other tensors; all faults are named.
    """
    tensors = _read(file)
    faults = [f"no {name}" for name in _SHAPES if name not in tensors]
    faults += [f"{name}, which is unknown" for name in tensors if name not in _SHAPES]
    for name, shape in _SHAPES.items():
        found = tensors.get(name)
        if found is None:
            continue
        if found.shape != shape or found.dtype != np.float32:
            faults.append(f"{name} is {found.dtype} {list(found.shape)}, not float32 {list(shape)}")
        elif not np.isfinite(found).all():
            faults.append(f"{name} is not finite")
    if faults:
        raise UserError(f"{file} holds another network: {'; '.join(faults)}")
    model = paper_cnn((28, 28, 1), 10, seed=0)
    # The images are laid out channels first where the dense layer begins.
    dense = tensors["fc.weight"].reshape(10, 32, 7, 7).transpose(2, 3, 1, 0).reshape(1568, 10)
    filters = [tensors[f"Conv{i}.0.weight"].transpose(2, 3, 1, 0) for i in (1, 2)]
    biases = [tensors[f"Conv{i}.0.bias"] for i in (1, 2)]
    model.set_weights([filters[0], biases[0], filters[1], biases[1], dense, tensors["fc.bias"]])
    return model


def _read(file: Path) -> dict[str, np.ndarray]:
    try:
        _check_size(file.stat().st_size)
        with file.open("rb") as stream:
            read = _read_npz if zipfile.is_zipfile(stream) else _read_pickle
            stream.seek(0)
            return read(stream)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damaged files fail in almost every way there is
        raise UserError(
            f"{file} is neither an .npz of arrays nor the published pickle: {first_line(error)}"
        ) from None


def _check_size(count: int) -> None:
    if count > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES // 1_000_000} MB; the network has 0.1")


def _read_npz(stream: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(stream) as archive:
        _check_size(sum(entry.file_size for entry in archive.infolist()))  # unpacked
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as stored:
        found = dict(stored)
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{name} is no array")
    return found


class _Storage(str):
    """A key of numbers that follow later in the file."""


def _read_pickle(stream: BinaryIO) -> dict[str, np.ndarray]:
    if _load(stream) != _MAGIC:
        raise ValueError("it does not begin as PyTorch's first format does")
    for _ in ("version", "machine"):
        _load(stream)
    built = _load(stream)
    numbers = {}
    for key in _load(stream):
        (count,) = np.frombuffer(stream.read(8), "<i8")
        numbers[key] = np.frombuffer(stream.read(4 * int(count)), "<f4")
        if len(numbers[key]) != count:
            raise ValueError("it ends before its last number")
    return {name: _tensor(numbers[key], *place) for name, (key, *place) in built.items()}


def _load(stream: BinaryIO) -> Any:
    """Reads one pickle, where it cannot make Python work without end.

    As a key of a dictionary a tuple is hashed with all that is in it: deep ones overflow the stack,
    and one that holds another twice takes twice as long as that.
    """
    start, kept, memo, made = stream.tell(), set[Any](), set[Any](), ""
    for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        name = operation.name
        if number > _MOST_OPERATIONS or name == "DUP" or ("GET" in name and argument in kept):
            raise pickle.UnpicklingError("it holds other things than a few tensors")
        if "PUT" in name or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else argument
            memo.add(place)
            if made == "REDUCE" or "TUPLE" in made:
                kept.add(place)
        else:
            made = name
    stream.seek(start)
    return _Tensors(stream).load()


def _tensor(numbers: np.ndarray, offset: int, shape: Any, strides: Any) -> np.ndarray:
    whole = np.zeros(shape, np.float32)
    if tuple(strides) != tuple(stride // whole.itemsize for stride in whole.strides):
        raise ValueError("its tensors are not stored row by row")
    return numbers[offset : offset + whole.size].reshape(shape)


class _Tensors(pickle.Unpickler):
    """Reads tensors as ``(key, offset, shape, strides)``, and knows no other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": collections.OrderedDict,
            "torch._utils._rebuild_tensor_v2": lambda key, *place: (key, *place[:3]),
            "torch.FloatStorage": _Storage,
        }
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, *_ = pid
        if kind is not _Storage:
            raise pickle.UnpicklingError("its numbers are not float32")
        return _Storage(key)
