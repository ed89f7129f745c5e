"""A user's folder of images: what is read, and one clear line for everything that can be wrong."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bcgan_tf.data import load_dataset
from bcgan_tf.errors import UserError


def _save(path: Path, value: int = 0, *, mode: str = "L", size: tuple[int, int] = (6, 4)) -> None:
    """An image of `size` (width, height) in which every channel is `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = len(mode)
    color = value if channels == 1 else (value,) * channels
    Image.new(mode, size, color).save(path)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """cat (dark) and dog (light), 10 training and 2 test images each, grey, 6 wide and 4 high."""
    for name, base in (("dog", 200), ("cat", 100)):
        for index in range(10):
            _save(tmp_path / "train" / name / f"{index}.png", base + index)
        for index in range(2):
            _save(tmp_path / "test" / name / f"{index}.png", base + 20 + index)
    return tmp_path


def test_pixels_labels_and_names(pictures):
    data = load_dataset(f"folder:{pictures}")
    assert data.name == f"folder-{pictures.name}"
    assert data.class_names == ("cat", "dog")
    assert data.image_shape == (4, 6, 1)
    pixels = data.test.images[:, 0, 0, 0].tolist()
    assert sorted(pixels) == [120, 121, 220, 221]
    assert data.test.labels.tolist() == [pixel // 220 for pixel in pixels]
    both = np.concatenate([data.train.images, data.validation.images])[:, 3, 5, 0]
    assert sorted(both) == [*range(100, 110), *range(200, 210)]
    for split in (data.train, data.validation):
        np.testing.assert_array_equal(split.labels, split.images[:, 0, 0, 0] // 200)
    assert np.bincount(data.validation.labels).tolist() == [1, 1]


def test_the_first_test_images_are_not_one_class(pictures):
    for name, base in (("dog", 200), ("cat", 100)):
        for index in range(20):
            _save(pictures / "test" / name / f"{index}.png", base + index)
    first = load_dataset(f"folder:{pictures}").test.labels[:20]
    assert 5 <= first.sum() <= 15
    again = load_dataset(f"folder:{pictures}", seed=7).test.labels[:20]
    np.testing.assert_array_equal(first, again)  # the test set is the same whatever the seed


def test_the_seed_chooses_the_validation_images(pictures):
    chosen = {
        tuple(load_dataset(f"folder:{pictures}", seed=seed).validation.images[:, 0, 0, 0])
        for seed in range(5)
    }
    assert len(chosen) > 1


def test_jpeg_and_other_files_beside_the_images(pictures):
    for index in range(2):
        _save(pictures / "train" / "cat" / f"photo{index}.JPG", 150)
    _save(pictures / "train" / "cat" / "photo.jpeg", 150)
    (pictures / "train" / "cat" / "notes.txt").write_text("not an image")
    (pictures / "train" / "cat" / ".hidden.png").write_text("not an image")
    (pictures / "train" / ".cache").mkdir()
    data = load_dataset(f"folder:{pictures}")
    assert len(data.train) + len(data.validation) == 23


@pytest.mark.parametrize(
    ("mode", "channels"), [("RGB", 3), ("RGBA", 3), ("LA", 1), ("P", 3), ("1", 1)]
)
def test_channels(tmp_path, mode, channels):
    for part in ("train", "test"):
        for name in ("a", "b"):
            for index in range(2):
                _save(tmp_path / part / name / f"{index}.png", 1, mode=mode)
    assert load_dataset(f"folder:{tmp_path}").image_shape == (4, 6, channels)


def test_alpha_is_dropped_not_blended(tmp_path):
    for part in ("train", "test"):
        for name in ("a", "b"):
            for index in range(2):
                path = tmp_path / part / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGBA", (3, 3), (10, 20, 30, 0)).save(path)
    assert load_dataset(f"folder:{tmp_path}").test.images[0, 0, 0].tolist() == [10, 20, 30]


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink() if file.is_file() else _remove(file)
    folder.rmdir()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _animation(path: Path) -> None:
    first, second = (Image.new("L", (6, 4), value) for value in (0, 255))
    first.save(path, save_all=True, append_images=[second])


SKIP = " - or go on without such files: --skip-broken (skip_broken=True)"
UNREADABLE = "not a readable PNG, JPEG, WebP, BMP or GIF image; replace or remove it" + SKIP


def _sizes(*rest: str) -> str:
    return (
        f": the images have 2 sizes, height x width: 4x6 (23, such as train/cat/0.png), {rest[0]}; "
        "resize them with --image-size HEIGHTxWIDTH (image_size=), to what your model takes"
    )


BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "no train",
        lambda root: _remove(root / "train"),
        "train: no such folder; put the images in train/CLASS/, one folder a class",
    ),
    (
        "no test",
        lambda root: _remove(root / "test"),
        "test: no such folder; put the images in test/CLASS/, one folder a class",
    ),
    (
        "one class",
        lambda root: _remove(root / "train" / "dog"),
        "train: 1 class folder(s) found; a classifier needs at least 2 - "
        "{root}/test/dog: this class is not in train; add it there or remove it",
    ),
    (
        "empty class",
        lambda root: (root / "train" / "eel").mkdir(),
        "train/eel: no PNG, JPEG, WebP, BMP or GIF image in it; add some or remove the folder - "
        "{root}/test/eel: no such folder; every class needs test images",
    ),
    (
        "empty test class",
        lambda root: [file.unlink() for file in (root / "test" / "dog").iterdir()],
        "test/dog: no PNG, JPEG, WebP, BMP or GIF image in it; add some or remove the folder",
    ),
    (
        "class only in test",
        lambda root: _save(root / "test" / "eel" / "0.png"),
        "test/eel: this class is not in train; add it there or remove it",
    ),
    (
        "class only in train",
        lambda root: [_save(root / "train" / "eel" / f"{i}.png") for i in range(2)],
        "test/eel: no such folder; every class needs test images",
    ),
    (
        "one image of a class",
        lambda root: [(root / "train" / "dog" / f"{i}.png").unlink() for i in range(9)],
        "train/dog/9.png: the only training image of class 'dog'; a class needs at least 2",
    ),
    (
        "text instead of an image",
        lambda root: (root / "train" / "dog" / "3.png").write_text("hello"),
        "train/dog/3.png: " + UNREADABLE,
    ),
    (
        "empty file",
        lambda root: (root / "test" / "cat" / "1.png").write_bytes(b""),
        "test/cat/1.png: " + UNREADABLE,
    ),
    (
        "truncated image",
        lambda root: _truncate(root / "train" / "cat" / "0.png"),
        "train/cat/0.png: " + UNREADABLE,
    ),
    (
        "an animation",
        lambda root: _animation(root / "train" / "cat" / "5.gif"),
        "train/cat/5.gif: an animation; keep one image, or remove it" + SKIP,
    ),
    (
        "a broken file shows what else is cut short",
        lambda root: [
            (root / "test" / "cat" / "1.png").write_bytes(b""),
            _truncate(root / "train" / "cat" / "0.png"),
        ],
        ": train/cat/0.png, test/cat/1.png: " + UNREADABLE,
    ),
    (
        "broken files, several sizes and a missing class",
        lambda root: [
            (root / "train" / "cat" / "1.png").write_text(""),
            _save(root / "train" / "cat" / "2.png", size=(8, 4)),
            _remove(root / "test" / "dog"),
        ],
        "test/dog: no such folder; every class needs test images - "
        "{root}: the images have 2 sizes, height x width: 4x6 (20, such as train/cat/0.png), "
        "4x8 (1, such as train/cat/2.png); resize them with --image-size HEIGHTxWIDTH "
        "(image_size=), to what your model takes - {root}/train/cat/1.png: " + UNREADABLE,
    ),
    (
        "validation twice",
        lambda root: [(root / name).mkdir() for name in ("val", "validation")],
        ": validation and val both hold validation images; keep one",
    ),
    (
        "a pipe, which would never end",
        lambda root: _replaced(root / "train" / "cat" / "5.png", os.mkfifo),
        "train/cat/5.png: no regular file; replace or remove it" + SKIP,
    ),
    (
        "a device, which would never end",
        lambda root: _replaced(root / "test" / "cat" / "0.png", _device),
        "test/cat/0.png: no regular file; replace or remove it" + SKIP,
    ),
    (
        "a link to itself",
        lambda root: (root / "train" / "eel").symlink_to(root / "train" / "eel"),
        "train/eel: a link that leads nowhere; mend or remove it",
    ),
    (
        "two bad files",
        lambda root: [(root / part / "cat" / "0.png").write_text("") for part in ("train", "test")],
        ": train/cat/0.png, test/cat/0.png: " + UNREADABLE,
    ),
    (
        "another size",
        lambda root: _save(root / "train" / "dog" / "7.png", size=(8, 4)),
        _sizes("4x8 (1, such as train/dog/7.png)"),
    ),
    (
        "another size in test",
        lambda root: _save(root / "test" / "dog" / "1.png", size=(6, 5)),
        _sizes("5x6 (1, such as test/dog/1.png)"),
    ),
]


@pytest.mark.parametrize(("damage", "message"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_every_mistake_is_one_line_that_names_the_file(pictures, damage, message):
    damage(pictures)
    whole = message.replace("{root}", str(pictures))
    whole = f"{pictures}{whole}" if whole.startswith(":") else f"{pictures}/{whole}"
    with pytest.raises(UserError, match=f"^{re.escape(whole)}$"):
        load_dataset(f"folder:{pictures}")


def test_the_bad_files_are_counted_and_a_score_named(pictures):
    for index in range(25):
        (pictures / "train" / "dog" / f"{index:02d}.png").write_bytes(b"")
    message = r"train/dog/00\.png, .*, train/dog/19\.png and 5 more: not a readable"
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(f"folder:{pictures}")
    assert "dog/20.png" not in str(caught.value)
    for index in range(1000):
        (pictures / "train" / f"empty{index:03d}").mkdir()
    with pytest.raises(UserError, match=r"empty004: no PNG.* - and 1,981 more"):
        load_dataset(f"folder:{pictures}")


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines", b"\x1b[31mred"])
def test_names_that_cannot_be_printed(pictures, name):
    """They would fail where results are written: after all the training."""
    for part in ("train", "test"):
        os.rename(pictures / part / "cat", os.fsencode(pictures / part) + b"/" + name)
    with pytest.raises(UserError, match="no name of a class that can be printed") as caught:
        load_dataset(f"folder:{pictures}")
    assert str(caught.value).isprintable()
    whole = os.fsencode(pictures) + b"/" + name
    os.mkdir(whole)
    with pytest.raises(UserError, match="no name that can be printed"):
        load_dataset(f"folder:{os.fsdecode(whole)}")


@pytest.mark.parametrize(
    ("side", "message"),
    [(60_000, "more pixels than an image may have"), (4097, "4097x4097 are more than the 16,777")],
)
def test_a_bomb_is_refused_by_its_header(pictures, side, message):
    """A kilobyte that says that it is an image of so many pixels a side."""
    for path in pictures.glob("t*/*/*.png"):
        content = bytearray(path.read_bytes())
        content[16:24] = side.to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"cat/0\.png.*: {message}"):
        load_dataset(f"folder:{pictures}")


def test_a_missing_folder_is_named(tmp_path):
    missing = tmp_path / "nowhere"
    message = (
        f"{missing}: no such folder; give one that holds train/ and test/, or a folder per class"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        load_dataset(f"folder:{missing}")
