"""Images as users have them: every kind is read, converted and counted; drawn splits; the cache."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from bcgan_tf.data import Dataset, image_files, load_dataset, store
from bcgan_tf.data.batches import evaluation_batches, training_stream
from bcgan_tf.errors import UserError
from bcgan_tf.lazy_images import LazyImages


def _write(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def _noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Two classes, 3 training and 1 test image each, noise of 4x6 pixels in colour."""
    for part, count in (("train", 3), ("test", 1)):
        for label, name in enumerate("ab"):
            for index in range(count):
                seed = 100 * (part == "test") + 10 * label + index
                _write(tmp_path / part / name / f"{index}.png", _noise(seed, 4, 6, 3))
    return tmp_path


def _images(data: Dataset, split: str = "train") -> list[bytes]:
    return [image.tobytes() for image in getattr(data, split).images[:]]


def _everything(data: Dataset) -> list[bytes]:
    return sorted(_images(data) + _images(data, "validation") + _images(data, "test"))


def test_what_has_nothing_to_convert_says_only_counts(pictures):
    summary = load_dataset(f"folder:{pictures}").summary
    assert summary["text"] == (
        "8 images of 4x6 rgb (train 4, validation 2, test 2); split as given; a tenth of the "
        "training images for validation (seed 0)"
    )
    json.dumps(summary)


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".gif", ".PNG"])
def test_every_kind_of_file_is_read(pictures, suffix):
    gray = np.full((4, 6), 77, np.uint8)
    _write(
        pictures / "train" / "a" / f"new{suffix}",
        gray,
        **({"lossless": True} if suffix == ".webp" else {}),
    )
    data = load_dataset(f"folder:{pictures}")
    assert np.full((4, 6, 3), 77, np.uint8).tobytes() in _everything(data)
    assert len(_everything(data)) == 9


def test_nested_folders_and_hidden_ones_and_links_in_a_circle(pictures):
    _write(pictures / "train" / "a" / "deep" / "deeper" / "x.png", np.full((4, 6, 3), 5, np.uint8))
    _write(pictures / "train" / "a" / ".hidden" / "x.png", np.full((4, 6, 3), 6, np.uint8))
    (pictures / "train" / "a" / "deep" / "back").symlink_to(pictures / "train" / "a")
    (pictures / "train" / "a" / "deep" / "all").symlink_to(pictures / "train")
    found = _everything(load_dataset(f"folder:{pictures}"))
    assert bytes([5]) * 72 in found and bytes([6]) * 72 not in found and len(found) == 9


def test_other_files_are_counted(pictures):
    for name in ("notes.txt", "more.txt", "raw.heic"):
        (pictures / "train" / "a" / name).write_text("x")
    (pictures / "train" / "loose.png").write_bytes(b"")
    (pictures / "extra").mkdir()
    summary = load_dataset(f"folder:{pictures}").summary
    assert summary["skipped"] == {
        ".txt file": 2,
        ".heic file": 1,
        "file outside of a class": 1,
        "folder beside the splits": 1,
    }
    assert "1 folder beside the splits" in summary["text"]


@pytest.mark.parametrize("name", ["validation", "val"])
def test_a_validation_folder_is_the_validation_split(pictures, name):
    held = np.full((4, 6, 3), 9, np.uint8)
    _write(pictures / name / "b" / "0.png", held)
    data = load_dataset(f"folder:{pictures}")
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 1, 2)
    np.testing.assert_array_equal(data.validation.images, held[None])
    assert data.validation.labels.tolist() == [1] and data.summary["split"] == "as given"


def test_sixteen_bits_grey_alpha_and_rotation_are_converted_and_counted(pictures):
    import tensorflow as tf

    folder = pictures / "train" / "a"
    _write(folder / "gray.png", np.full((4, 6), 50, np.uint8))
    deep = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2700
    _write(folder / "deep.png", deep)
    color = np.random.RandomState(3).randint(0, 65536, (4, 6, 3)).astype(np.uint16)
    (folder / "deepcolor.png").write_bytes(tf.io.encode_png(tf.constant(color)).numpy())
    clear = np.concatenate([_noise(1, 4, 6, 3), np.zeros((4, 6, 1), np.uint8)], -1)
    _write(folder / "clear.png", clear)
    upright = _noise(2, 4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: stored 6 high, 4 wide
    _write(folder / "turned.png", np.rot90(upright), exif=exif)
    data = load_dataset(f"folder:{pictures}")
    found = _everything(data)
    for image in (
        np.full((4, 6, 3), 50, np.uint8),
        np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, -1),
        (color >> 8).astype(np.uint8),
        clear[..., :3],
        upright,
    ):
        assert image.tobytes() in found
    assert data.summary["converted"] == {
        "alpha dropped": 1,
        "16 bits to 8": 2,
        "grey to colour": 2,
        "turned upright by their EXIF tag": 1,
    }


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_exif_turn_is_what_viewers_show(tmp_path, turn):
    from PIL import ImageOps

    from bcgan_tf.data import pictures

    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / "x.jpg"
    _write(path, _noise(0, 16, 24, 3), exif=exif, quality=95)
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(pictures.pixels(path, 3), shown)
    assert pictures.header(path).size == shown.shape[:2]


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic", "area"])
def test_resizing_is_that_of_keras(pictures, interpolation):
    """Keras keeps fractions of a level; uint8 rounds them."""
    _write(pictures / "train" / "a" / "large.png", _noise(5, 19, 23, 3))
    data = load_dataset(f"folder:{pictures}", image_size=(8, 7), interpolation=interpolation)
    assert data.image_shape == (8, 7, 3)
    theirs = keras.utils.image_dataset_from_directory(
        pictures / "train", image_size=(8, 7), interpolation=interpolation, shuffle=False,
        batch_size=None, verbose=False,
    )  # fmt: skip
    expected = [np.clip(image, 0, 255) for image, _ in theirs.as_numpy_iterator()]
    ours = np.concatenate([data.train.images, data.validation.images]).astype(np.float32)
    for image in expected:
        assert np.abs(ours - image).max((1, 2, 3)).min() <= 0.5
    assert data.summary["converted"] == {"resized": 9}


def test_the_size_that_images_have_changes_nothing(pictures):
    plain, sized = (
        load_dataset(f"folder:{pictures}", **more) for more in ({}, {"image_size": (4, 6)})
    )
    assert _images(plain) == _images(sized) and sized.summary["converted"] == {}


def test_color_may_be_chosen(pictures):
    data = load_dataset(f"folder:{pictures}", color="grayscale")
    assert data.image_shape == (4, 6, 1) and data.summary["converted"] == {"colour to grey": 8}


def test_broken_files_are_skipped_when_asked(pictures):
    (pictures / "train" / "a" / "bad.png").write_text("x")
    cut = pictures / "train" / "b" / "cut.png"
    _write(cut, _noise(9, 4, 6, 3))
    cut.write_bytes(cut.read_bytes()[:-60])
    data = load_dataset(f"folder:{pictures}", skip_broken=True)
    assert len(_everything(data)) == 8
    assert data.summary["skipped"] == {"broken": 2}
    assert "bad.png" in data.summary["text"] and "cut.png" in data.summary["text"]
    for file in (pictures / "test" / "a").iterdir():
        file.write_text("")
    with pytest.raises(UserError, match="no readable test image of class a; add some"):
        load_dataset(f"folder:{pictures}", skip_broken=True)


@pytest.fixture
def flat(tmp_path) -> Path:
    """Three classes of 20 images of noise without splits, in `flat`."""
    for label, name in enumerate(("x", "y", "z")):
        for index in range(20):
            _write(tmp_path / "flat" / name / f"img_{index}.png", _noise(100 * label + index, 5, 5))
    return tmp_path / "flat"


def test_without_splits_they_are_drawn_by_class(flat):
    data = load_dataset(f"folder:{flat}")
    assert data.class_names == ("x", "y", "z")
    counts = [
        np.bincount(split.labels).tolist() for split in (data.train, data.validation, data.test)
    ]
    assert counts == [[14] * 3, [2] * 3, [4] * 3]
    assert len(set(_everything(data))) == 60
    again, other = (load_dataset(f"folder:{flat}", seed=seed) for seed in (0, 1))
    assert _images(again) == _images(data)
    # The test images are the same for every seed; the validation images are not.
    assert _images(other, "test") == _images(data, "test")
    assert _images(other, "validation") != _images(data, "validation")
    assert data.summary["split"] == (
        "drawn: 20% of each class for the test (seed 0, always), 10% of the others for validation "
        "(seed 0); no copies found"
    )


def test_copies_stay_in_one_split(flat):
    """Twice the pixels under other names, and augmented images named after their original."""
    groups = []
    for index in range(20):
        original = flat / "x" / f"img_{index}.png"
        (flat / "x" / f"other{index * 7}.png").write_bytes(original.read_bytes())
        _write(flat / "x" / f"img_{index}_aug1.png", _noise(1000 + index, 5, 5))
        _write(flat / "x" / f"img_{index} (2).png", _noise(2000 + index, 5, 5))
        with Image.open(original) as image:
            first = np.asarray(image)
        groups.append(
            [a.tobytes() for a in (first, _noise(1000 + index, 5, 5), _noise(2000 + index, 5, 5))]
        )
    data = load_dataset(f"folder:{flat}")
    places = {
        image: part for part in ("train", "validation", "test") for image in _images(data, part)
    }
    for group in groups:
        assert len({places[image] for image in group}) == 1
    assert "60 copies kept together" in data.summary["split"]
    assert {places[group[0]] for group in groups} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["cat.1", "cat.2", "cat.3"], 3),  # a number is no mark of a copy
        (["cat (1)", "cat (2)", "cat (3)"], 3),  # nor in brackets, where there is no original
        (["cat", "cat (1)", "cat (2)"], 1),
        (["cat - Copy", "cat - Copy (2)", "cat copy 3"], 1),
        (["cat_aug", "cat_aug12", "cat-augmented_3"], 1),
        (["a_jpg.rf.0123456789abcdef", "a_jpg.rf.fedcba9876543210"], 1),
        (["photocopy", "photo"], 2),
    ],
)
def test_which_names_are_copies(names, count):
    paths = [Path("d", f"{name}.jpg") for name in names]
    found = image_files.groups_of(paths, [str(i) for i in range(len(paths))])
    assert len(set(found.tolist())) == count


def test_too_few_that_are_no_copies(flat):
    for file in (flat / "y").iterdir():
        _write(file, np.zeros((5, 5), np.uint8))
    with pytest.raises(
        UserError, match=r"class 1 \(of 0 \.\.\. 2\) has too few images that are no"
    ):
        load_dataset(f"folder:{flat}")


def test_the_cache_equals_the_memory_image_by_image(flat, tmp_path):
    (flat / "x" / "broken.png").write_text("")
    options = {"image_size": (9, 7), "skip_broken": True}
    held = load_dataset(f"folder:{flat}", **options)
    for _ in range(2):  # written, then read
        kept = load_dataset(f"folder:{flat}", cache_dir=tmp_path / "cache", **options)
        for part in ("train", "validation", "test"):
            ours, theirs = getattr(kept, part), getattr(held, part)
            assert isinstance(ours.images, LazyImages) and ours.images.shape == theirs.images.shape
            np.testing.assert_array_equal(ours.images[:], theirs.images)
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            np.testing.assert_array_equal(ours.scaled(1, 3), theirs.scaled(1, 3))
            np.testing.assert_array_equal(ours.take(3, 5).scaled(), theirs.take(3, 5).scaled())
        kept_text = kept.summary["text"].partition("; decoded in")[0]
        assert kept_text == held.summary["text"]
    for streams in (
        [
            training_stream(d.train, batch_size=8, seed=3, start_epoch=1).take(9)
            for d in (held, kept)
        ],
        [evaluation_batches(d.test, 5) for d in (held, kept)],
    ):
        for one, other in zip(*(s.as_numpy_iterator() for s in streams), strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
        assert streams[0].element_spec == streams[1].element_spec


def test_the_cache_is_used_again_until_a_file_changes(flat, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = load_dataset(f"folder:{flat}", cache_dir=cache)
    with monkeypatch.context() as patched:
        patched.setattr(image_files.pictures, "header", None)
        again = load_dataset(f"folder:{flat}", cache_dir=cache)
        assert _everything(again) == _everything(first)
    _write(flat / "x" / "img_0.png", np.full((5, 5), 3, np.uint8), compress_level=0)
    changed = load_dataset(f"folder:{flat}", cache_dir=cache)
    pictures = _everything(changed)
    assert bytes([3]) * 25 in pictures
    (damaged, *_) = cache.glob("folder-flat-*/pixels.raw")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert _everything(load_dataset(f"folder:{flat}", cache_dir=cache)) == pictures


def test_what_the_memory_cannot_hold_goes_to_the_cache(flat, tmp_path, monkeypatch):
    """60 images of 25 bytes; they are copied once, which leaves two fifths of the memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store, "free_memory", lambda: 3750)
    held = load_dataset(f"folder:{flat}")
    assert isinstance(held.train.images, np.ndarray)
    monkeypatch.setattr(store, "free_memory", lambda: 3749)
    kept = load_dataset(f"folder:{flat}")
    assert isinstance(kept.train.images, LazyImages) and _everything(kept) == _everything(held)
    assert str(tmp_path / "home" / "bcgan_tf") in kept.summary["text"]


def test_no_room_for_the_cache_is_told_before_it_is_written(flat, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1499}))
    with pytest.raises(UserError, match=r"60 images of 5x5x1 take 1\.5 KiB, and .* has 1\.5 KiB"):
        load_dataset(f"folder:{flat}", cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_more_images_than_the_memory_holds_are_not_attacked(monkeypatch):
    import bcgan_tf

    digits = load_dataset("digits")
    monkeypatch.setattr(store, "free_memory", lambda: 10 * 360 * 256 - 1)
    message = r"360 images of 8x8x1 take 90\.0 KiB as float32, .* choose --n \(n=\) of at most 359"
    with pytest.raises(UserError, match=message):
        bcgan_tf.evaluate(lambda x: x[:, 0, :, 0], digits, eps=0.1, n=0)
