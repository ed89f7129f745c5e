"""The published network, its authors' attacks, and the pages of both."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from bcgan_tf.attacks import CarliniWagnerL2
from bcgan_tf.errors import UserError
from bcgan_tf.evaluation.runner import run_suite
from bcgan_tf.evaluation.task import EvaluationTask
from bcgan_tf.reproduction import authors as module
from bcgan_tf.reproduction import tables
from bcgan_tf.reproduction.authors import authors
from bcgan_tf.reproduction.authors_attacks import AuthorsCarliniWagner
from bcgan_tf.reproduction.measures import along_one_gradient
from bcgan_tf.reproduction.protocol import protocol
from bcgan_tf.reproduction.published_weights import published_network
from bcgan_tf.reproduction.workspace import Workspace

WEIGHTS = os.environ.get("BCGAN_TF_PUBLISHED_WEIGHTS")
SHAPES = {
    "Conv1.0.weight": (16, 1, 5, 5),
    "Conv1.0.bias": (16,),
    "Conv2.0.weight": (32, 16, 5, 5),
    "Conv2.0.bias": (32,),
    "fc.weight": (10, 1568),
    "fc.bias": (10,),
}


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    draw = np.random.RandomState(0)
    return {name: draw.uniform(-1, 1, shape).astype("f4") for name, shape in SHAPES.items()}


@pytest.fixture
def npz(tmp_path):
    def write(tensors) -> Path:
        np.savez(tmp_path / "weights.npz", **tensors)
        return tmp_path / "weights.npz"

    return write


def by_hand(tensors: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """Logits of one image ``[28, 28]`` in [0, 1], in float64, channels first as in PyTorch."""
    x = 2 * image.astype(np.float64)[None] - 1
    for layer in ("Conv1", "Conv2"):
        filters, bias = (tensors[f"{layer}.0.{kind}"] for kind in ("weight", "bias"))
        padded = np.pad(x, ((0, 0), (2, 2), (2, 2)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
        x = np.einsum("chwij,ocij->ohw", windows, filters) + bias[:, None, None]
        side = x.shape[1] // 2
        x = np.maximum(x, 0).reshape(len(x), side, 2, side, 2).max(axis=(2, 4))
    return tensors["fc.weight"] @ x.reshape(-1) + tensors["fc.bias"]


class _Pickler(pickle.Pickler):
    """Writes arrays as PyTorch's first format does."""

    def persistent_id(self, obj):
        if isinstance(obj, str) and obj.startswith("storage "):
            return ("storage", sys.modules["torch"].FloatStorage, obj[8:], "cuda:0", 1, None)
        return None


@pytest.fixture
def published_pickle(tmp_path, monkeypatch):
    """Writes the published format, with PyTorch's names and without PyTorch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2():
        raise AssertionError("what a file names is never called")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Tensor:
        def __init__(self, name, array):
            self.arguments = (
                f"storage {name}", 0, array.shape,
                tuple(stride // 4 for stride in array.strides), False, None,
            )  # fmt: skip

        def __reduce__(self):
            return _rebuild_tensor_v2, self.arguments

    def write(tensors, *, stop: int | None = None, extra: object = None) -> Path:
        stream = io.BytesIO()
        for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(header, stream, protocol=2)
        named = collections.OrderedDict((k, Tensor(k, array)) for k, array in tensors.items())
        if extra is not None:
            named["extra"] = extra
        _Pickler(stream, protocol=2).dump(named)
        pickle.dump(list(tensors), stream, protocol=2)
        for array in tensors.values():
            stream.write(struct.pack("<q", array.size) + array.tobytes())
        file = tmp_path / "boundary.pkl"
        file.write_bytes(stream.getvalue()[:stop])
        return file

    return write


def test_the_network_is_the_one_of_the_weights(tensors, npz, published_pickle):
    """Channels first or last, [0, 1] or [-1, 1]: a slip gives other logits."""
    image = np.random.RandomState(1).uniform(size=(28, 28))
    wanted = by_hand(tensors, image)
    for file in (npz(tensors), published_pickle(tensors)):
        network = published_network(file)
        assert network.count_params() == 28_938
        found = network(image[None, ..., None].astype("f4")).numpy()[0]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-2)


def test_nothing_in_a_pickle_is_executed(tensors, published_pickle, tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    with pytest.raises(UserError, match=r"asks for (posix|nt)\.mkdir"):
        published_network(published_pickle(tensors, extra=Harmful()))
    assert not (tmp_path / "made").exists()


def test_other_files_are_refused_and_all_faults_named(tensors, npz, published_pickle, tmp_path):
    other = {**tensors, "fc.bias": np.zeros(3, "f4"), "Conv1.0.bias": np.full(16, np.nan, "f4")}
    del other["fc.weight"]
    other["more"] = np.zeros(1, "f4")
    with pytest.raises(UserError) as found:
        published_network(npz(other))
    for fault in ("no fc.weight", "more, which", r"fc.bias is float32 [3]", "Conv1.0.bias is not"):
        assert fault in str(found.value)
    with pytest.raises(UserError, match="before its last number"):
        published_network(published_pickle(tensors, stop=-4))
    text = tmp_path / "text"
    text.write_text("no weights")
    with pytest.raises(UserError, match=r"neither an \.npz"):
        published_network(text)
    with pytest.raises(UserError, match="No such file"):
        published_network(tmp_path / "absent")
    large = tmp_path / "large"
    large.write_bytes(bytes(10_000_001))
    with pytest.raises(UserError, match=r"has more than 10 MB"):
        published_network(large)


@pytest.mark.parametrize("damage", ["deflated", "bytes", "encrypted", "unknown", "bomb"])
def test_an_npz_is_refused_however_it_is_damaged(tensors, tmp_path, damage):
    file = tmp_path / "weights.npz"
    np.savez_compressed(file, **tensors)
    content = bytearray(file.read_bytes())
    if damage == "deflated":
        content[200:240] = bytes(40)
    elif damage in ("encrypted", "unknown"):
        place = 6 if damage == "encrypted" else 8  # in a local header; in the directory two farther
        content[place] |= 1
        content[content.index(b"PK\1\2") + place + 2] = 1 if damage == "encrypted" else 99
    file.write_bytes(content)
    if damage in ("bytes", "bomb"):
        more = bytes(11_000_000) if damage == "bomb" else b"no array"
        with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("more.npy", more)
    with pytest.raises(UserError, match=r"neither an \.npz of arrays nor the published pickle: \w"):
        published_network(file)


@pytest.mark.parametrize("memo", [True, False], ids=["shared", "deep"])
def test_a_pickle_cannot_make_python_hash_without_end(published_pickle, tensors, memo):
    """Keys of nested tuples: one that holds itself twice, 60 times over; and 50,000 deep."""
    file = published_pickle(tensors)
    head = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    if memo:
        nested = b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    else:
        nested = b")" + b"\x85" * 50_000
    file.write_bytes(head + b"\x80\x02}" + nested + b"K\x01s.")
    with pytest.raises(UserError, match="holds other things than a few tensors"):
        published_network(file)


def test_their_carlini_wagner_stands_still_where_all_logits_are_low(linear, digits):
    images, labels = digits.test.scaled()[:12], digits.test.labels[:12]
    settings = {"steps": 100, "binary_search_steps": 4, "learning_rate": 0.05, "initial_const": 1.0}
    theirs, ours = AuthorsCarliniWagner(**settings), CarliniWagnerL2(**settings)
    as_usual = ours(linear, images, labels)
    np.testing.assert_array_equal(
        theirs(linear, images, labels).adversarials, as_usual.adversarials
    )
    low = keras.Sequential([linear, keras.layers.Rescaling(1.0, offset=-20_000.0)])
    right = np.argmax(linear(images), axis=1) == labels
    assert as_usual.robust_accuracy == 0 < right.mean()
    assert ours(low, images, labels).robust_accuracy == 0
    found = theirs(low, images, labels)
    assert found.robust_accuracy == right.mean()
    np.testing.assert_array_equal(found.adversarials, images)


def test_rho_along_one_gradient_counts_as_the_code_does():
    """``z = (w x - b, 0)`` of one pixel 0.5: class 0 until the pixel falls below ``b / w``."""
    pixel = keras.Input((1, 1, 1))
    x = keras.layers.Flatten()(pixel)
    dense = keras.layers.Dense(2)
    model = keras.Model(pixel, dense(x))
    dense.set_weights([np.array([[10.0, 0.0]], "f4"), np.array([-3.8, 0.0], "f4")])
    images = np.array([0.5, 0.5, 0.9], "f4").reshape(-1, 1, 1, 1)
    found = along_one_gradient(model, images, np.array([0, 1, 0]))
    # 0.38 is below 0.5 by 0.12: the third step of 0.05; below 0.9 by 0.52: the eleventh.
    assert found["mean"] == pytest.approx((0.15 + 0.05 + 0.55) / 3, abs=1e-6)
    assert (found["n"], found["capped_share"], found["zero_gradient_share"]) == (3, 0, 0)
    dense.set_weights([np.array([[1e6, 0.0]], "f4"), np.array([-3.8e5, 0.0], "f4")])
    found = along_one_gradient(model, images, np.array([0, 1, 0]))  # the gradient underflows
    assert found["mean"] == pytest.approx((1 + 0.05 + 1) / 3, abs=1e-6)
    assert (found["capped_share"], found["zero_gradient_share"]) == (1, 1)
    found = along_one_gradient(model, images, np.array([1, 1, 1]))
    assert (found["mean"], found["clean_accuracy"]) == (pytest.approx(0.05), 0)
    assert found["capped_share"] is found["zero_gradient_share"] is None


def test_tables_by_the_authors_protocol(workspace, trained, tmp_path):
    """One radius of PGD in one unit; bold what is near the paper's, and a page of its own."""
    del trained
    sizes = {"n": 60, "cw_n": 5, "cw_steps": 20, "rho_n": 50}
    chosen = protocol("digits", options=sizes, name="authors")
    for table in ("table1", "table2"):
        document = tables.reproduce_table(
            table, workspace, chosen, ("original",), results=tmp_path, command="again"
        )
        assert tables.file_stem(document) == f"{table}-authors-digits"
        assert tables.overview(document)[0]["row"] == "original"
        assert (tmp_path / f"{table}-authors-digits.md").read_text() == tables.page(document)
        if table == "table1":
            (columns,) = document["rows"]["original"]["attacks"].values()
            assert columns["pgd"]["eps"] == 0.15 and columns["fgsm-2"]["eps"] == 0.1
    document["rows"]["pgd-at-accumulated"] = document["rows"]["original"]
    accuracy = document["rows"]["original"]["rho"]["clean_accuracy"]
    printed = 2 * document["rows"]["original"]["rho"]["mean"] * 1.1
    document["paper"] = {"original": printed, "pgd-at": printed}
    page = tables.page(document)
    # A variant of a row stands beside the same figure of the paper, and is not counted.
    assert f"| PGD training, gradients accumulated | {printed:.2f} | **" in page
    assert "(1 of 1)" in page and f"| {100 * accuracy:.1f} | 50 |" in page


@pytest.fixture
def published(mnist, tmp_path, monkeypatch):
    """The JSON of the published network, on few images."""
    if not WEIGHTS:
        pytest.skip("no published weights (set BCGAN_TF_PUBLISHED_WEIGHTS)")
    monkeypatch.setattr(module, "_RADII", (0.15,))
    monkeypatch.setattr(module, "_SUITE_N", 40)
    monkeypatch.setattr(module, "_FEW", 4)
    options = {"n": 200, "cw_n": 10, "rho_n": 200}
    page = authors(
        Workspace(mnist, "quick", 0, tmp_path / "cache"),
        Path(WEIGHTS),
        protocol("mnist", options=options, name="authors"),
        results=tmp_path,
        command="bcgan-tf reproduce authors --weights FILE --seed 0",
    )
    return json.loads(page.with_suffix(".json").read_text()), page.read_text()


@pytest.mark.real_data
def test_the_fast_suite_breaks_the_published_network(mnist):
    if not WEIGHTS:
        pytest.skip("no published weights (set BCGAN_TF_PUBLISHED_WEIGHTS)")
    some = mnist.test.take(60, seed=0)
    task = EvaluationTask(published_network(Path(WEIGHTS)), some.scaled(), some.labels, eps=0.15)
    found = run_suite(task, "fast")
    assert found.clean_accuracy > 0.9 and found.robust_accuracy == 0
    assert found.fallback is None and found.results[0].robust_accuracy == 0


@pytest.mark.real_data
def test_the_published_network_is_masked_and_not_robust(published):
    document, page = published
    way = document["authors_way"]
    assert way["clean"]["accuracy"] == pytest.approx(0.974, abs=0.0005)
    # The paper's row: flat, whatever the attack.
    for column in ("fgsm-1", "fgsm-2", "pgd", "cw"):
        assert way[column]["accuracy"] >= 0.95, column
    assert 2 * way["rho"]["mean"] == pytest.approx(1.94, abs=0.06)
    for found in document["standard"]:
        assert found["accuracy"] == 0
        assert found["attacks"][0]["left"] > 0.9 and found["attacks"][1]["left"] <= 0.05
        verdict = found["verdict"]
        assert verdict["kind"] == "not robust" and "gradient masking" in verdict["text"]
        flags = {flag["check"] for flag in found["flags"]}
        assert flags >= {"gradient health", "logit scale", "loss choice"}
    step = document["one_step"]
    assert step["health"]["zero"] > 0.99 and step["largest_logit"] < -1e5
    assert step["along"]["the margin"]["0.2"] < 0.05 < step["along"]["random signs"]["0.2"]
    stuck = document["curves"]["PGD-50 margin"][-1]
    climbed = document["curves"]["PGD-50 (margin loss) margin"][-1]
    assert stuck < -1000 and climbed > 1000
    assert "gradient masking" in page and "1.94" in page
