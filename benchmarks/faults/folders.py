"""Image folders as users and strangers make them; what is taken is trained on and exported."""

from __future__ import annotations

import functools
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.core import LOST, REFUSED, SURVIVED, Fault, Outcome, command
from benchmarks.faults.requests import png_bomb

TITLE = "image folders"
COUNT = 68
LIMIT = 60
SIDE = 8
# What must come of a folder: it is trained on, it is refused, or either of them.
TAKEN, NOT, EITHER = SURVIVED, REFUSED, ""


def prepare(folder: Path) -> None:
    """One sound folder: two classes, six images of each to train on, two to test."""
    for part, count in (("train", 6), ("test", 2)):
        for number, name in enumerate(("cat", "dog")):
            (folder / "sound" / part / name).mkdir(parents=True)
            for row in range(count):
                save(folder / "sound" / part / name / f"{row}.png", value=100 * number + row)


def forget() -> None:
    """Drops what Keras keeps of the models that were trained."""
    import keras

    keras.backend.clear_session()


def faults(folder: Path, count: int, seed: int) -> list[Fault]:
    """All of them; of more than ``count``, a draw."""
    found = [
        Fault(what, functools.partial(_inject, folder / "sound", make, expected))
        for what, make, expected in _cases()
    ]
    rows = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[row] for row in sorted(rows)]


def _inject(sound: Path, make: Callable[[Path], Any], expected: str) -> Outcome:
    with tempfile.TemporaryDirectory(dir=sound.parent) as name:
        folder = Path(name)
        shutil.copytree(sound, folder / "images")
        make(folder / "images")
        use = ["--classifier-epochs", "1", "--classifier-batch-size", "4", "--run-dir", "r"]
        answer = command("train", "--dataset", "folder:images", *use, folder=folder)
        outcome = answer.outcome()
        if outcome.kind == REFUSED:
            if (folder / "r").exists():
                return Outcome(LOST, f"refused after the run had begun ({outcome.note})")
            if expected == TAKEN:
                return Outcome(LOST, f"a sound folder is refused: {outcome.note}")
        if outcome.kind != SURVIVED:
            return outcome
        if expected == NOT:
            return Outcome(LOST, "it was taken without a word")
        exported = command("export", "r", "--saved-models", "out", folder=folder).outcome()
        return exported if exported.kind == SURVIVED else Outcome(LOST, f"export: {exported.note}")


def save(file: Path, *, mode: str = "L", side: int = SIDE, value: int = 0, **options: Any) -> None:
    """A picture of one mode, in the format of the file's name."""
    from PIL import Image

    pixels = np.random.default_rng(value).integers(0, 256, (side, side), dtype=np.uint8)
    if mode == "I;16":
        Image.fromarray(pixels.astype(np.uint16) * 257).save(file, **options)
    else:
        Image.fromarray(pixels).convert(mode).save(file, **options)


def _encoded(file_format: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (SIDE, SIDE)).save(stream, file_format)
    return stream.getvalue()


def _cases() -> Iterator[tuple[str, Callable[[Path], Any], str]]:
    first, cat = "train/cat/0.png", "train/cat"

    def written(content: bytes, name: str = first) -> Callable[[Path], Any]:
        return lambda root: (root / name).write_bytes(content)

    def instead(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def replace(root: Path) -> None:
            (root / first).unlink()
            make(root / first)

        return replace

    def linked(target: str, name: str = "train/cat/0.png") -> Callable[[Path], Any]:
        def link(root: Path) -> None:
            (root / name).unlink(missing_ok=True)
            (root / name).symlink_to(target)

        return link

    def renamed(name: str) -> Callable[[Path], Any]:
        def rename(root: Path) -> None:
            for part in ("train", "test"):
                (root / part / "cat").rename(root / part / name)

        return rename

    def all_images(**options: Any) -> Callable[[Path], Any]:
        return lambda root: [save(file, **options) for file in root.rglob("*.png")]

    def without(name: str) -> Callable[[Path], Any]:
        return lambda root: shutil.rmtree(root / name)

    def sparse(root: Path) -> None:
        for file in root.rglob("*.png"):
            file.write_bytes(png_bomb(12_000, 12_000))

    def moved(old: str, new: str) -> Callable[[Path], Any]:
        return lambda root: (root / old).rename(root / new)

    def loop(root: Path) -> None:
        (root / cat / "loop").symlink_to("..")
        (root / "train" / "loop").symlink_to("loop")

    yield "nothing wrong", lambda root: None, TAKEN
    yield "a FIFO for an image", instead(os.mkfifo), NOT
    yield "a FIFO for a class", lambda root: os.mkfifo(root / "train" / "x.png"), EITHER
    yield "a folder for an image", instead(Path.mkdir), TAKEN
    for device in ("/dev/zero", "/dev/null", "/dev/random", "/dev/tty"):
        yield f"a link to {device}", linked(device), NOT
    yield "a link to nothing", linked("nothing"), NOT
    yield "a link to itself", linked("0.png"), NOT
    yield "a link to another image", linked("1.png"), EITHER
    yield "folders that link in a loop", loop, EITHER
    yield "a class that is a link to another", linked("cat", "train/bird"), NOT
    for name in ("caf\udce9", "\udcff"):
        yield f"a class named {name!r}", renamed(name), NOT
    for name in ("ä", "a\nb", "a b", "<b>x", "-1", "x" * 250, "[red]", "a,b", "\x1b[31m", "0"):
        yield f"a class named {name[:20]!r}", renamed(name), EITHER
    yield "an image named with a line end", moved(first, f"{cat}/a\nb.png"), TAKEN
    yield "an image name that is not UTF-8", moved(first, f"{cat}/\udcff.png"), EITHER
    good = _encoded("PNG")
    for what, content in {
        "no bytes": b"",
        "garbage": np.random.default_rng(0).bytes(500),
        "half a PNG": good[: len(good) // 2],
        "a PNG without its end": good[:-12],
        "a PNG with a wrong checksum": good[:-20] + bytes([good[-20] ^ 1]) + good[-19:],
        "half a JPEG": _encoded("JPEG")[:300],
        "a GIF": _encoded("GIF"),
        "a BMP": _encoded("BMP"),
        "a WebP": _encoded("WEBP"),
        "a TIFF": _encoded("TIFF"),
        "text": b"no image",
        "HTML": b"<html>404</html>",
    }.items():
        known = what in ("a GIF", "a BMP", "a WebP")  # what a file holds counts, not its name
        taken = TAKEN if known else EITHER if "end" in what else NOT
        yield f"{what} named .png", written(content), taken
    yield "a PNG of 30,000 x 30,000 pixels", written(png_bomb(30_000, 30_000)), NOT
    yield "a PNG of no pixels", written(png_bomb(0, 0)), NOT
    yield "a PNG of 1 x 2,000,000,000", written(png_bomb(1, 2_000_000_000)), NOT
    yield "images of 144 megapixels each", sparse, NOT
    for mode in ("RGB", "RGBA", "LA", "P", "1", "I;16"):
        save_one = functools.partial(save, mode=mode)
        yield f"one image of mode {mode}", lambda root, s=save_one: s(root / first), EITHER
        yield f"all images of mode {mode}", all_images(mode=mode), TAKEN
    yield "one image of another size", lambda root: save(root / first, side=9), NOT
    yield "one CMYK JPEG", lambda root: save(root / cat / "c.jpg", mode="CMYK"), TAKEN
    yield "a GIF beside the images", lambda root: save(root / cat / "c.gif"), EITHER
    yield "folders within a class", lambda root: (root / cat / "more").mkdir(), EITHER
    yield "one class", lambda root: [without("train/cat")(root), without("test/cat")(root)], NOT
    yield "a class that test lacks", without("test/cat"), NOT
    yield "a class that train lacks", without("train/cat"), NOT
    yield "no test folder", without("test"), NOT
    yield "no train folder", without("train"), NOT
    yield "an empty class", lambda root: (root / "train" / "x").mkdir(), NOT
    yield "a hidden file", written(b"", f"{cat}/.DS_Store"), TAKEN
    yield "a text beside the images", written(b"", f"{cat}/notes.txt"), EITHER
    yield "an image that may not be read", lambda root: (root / first).chmod(0), EITHER
