"""Digests of what a model file is: equal for equal models, whenever they were saved."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import pytest

from bcgan_tf.cli import session
from bcgan_tf.files import file_digest
from bcgan_tf.loading.digest import model_digest
from bcgan_tf.loading.model import source_digest
from bcgan_tf.networks.classifiers import small_cnn


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "one.keras"
    small_cnn((8, 8, 1), 4, seed=0).save(path)
    return path


def rewritten(file: Path, to: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """The archive with one member changed, and all of them compressed at another time."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            content = old.read(info)
            member = zipfile.ZipInfo(info.filename, (2001, 2, 3, 4, 5, 6))
            member.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(member, change(content) if info.filename == name else content)
    return to


def test_equal_models_have_equal_digests_whenever_they_were_saved(saved, tmp_path) -> None:
    def another_day(content: bytes) -> bytes:
        return json.dumps({**json.loads(content), "date_saved": "2001-02-03@04:05:06"}).encode()

    other = rewritten(saved, tmp_path / "other.keras", "metadata.json", another_day)
    again = tmp_path / "again.keras"
    keras.models.load_model(saved).save(again)  # notes other addresses in memory
    assert len({file_digest(file) for file in (saved, other, again)}) == 3
    for digest in (model_digest, source_digest):
        assert digest(saved) == digest(other) == digest(again)
    run = session.described({"a": saved, "b": again})
    assert run["models_sha256"]["a"] == run["models_sha256"]["b"] == model_digest(saved)


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_another_architecture_and_other_weights_have_other_digests(saved, tmp_path, name) -> None:
    def changed(content: bytes) -> bytes:
        if name == "config.json":
            return content.replace(b'"relu"', b'"tanh"')
        return content[:-4] + bytes(byte ^ 1 for byte in content[-4:])

    other = rewritten(saved, tmp_path / "other.keras", name, changed)
    assert model_digest(other) != model_digest(saved)


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"PK\x05\x06" + bytes(18)[:10]], ids=["empty", "text", "cut"]
)
def test_what_is_no_keras_file_is_known_by_its_bytes(tmp_path, content: bytes) -> None:
    file = tmp_path / "model.h5"
    file.write_bytes(content)
    assert model_digest(file) == file_digest(file)


def test_a_damaged_archive_and_a_config_that_is_none_are_known_by_their_bytes(
    saved, tmp_path
) -> None:
    deep = rewritten(saved, tmp_path / "deep.keras", "config.json", lambda _: b"[" * 100_000)
    cut = tmp_path / "flipped.keras"
    content = saved.read_bytes()
    cut.write_bytes(content[:2000] + b"damaged" + content[2007:])
    for file in (deep, cut):
        assert model_digest(file) == file_digest(file)
