"""How a page is made: Jinja templates that escape every value, and pictures put into the page."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import jinja2

from bcgan_tf.files import readable_size, replace_file
from bcgan_tf.report.style import DOTS_PER_INCH

# Of a file; those that are drawn here have less than 1 MiB: 16 MiB.
_LARGEST_PICTURE = 2**24


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG for a page.

    Attributes:
        data: the file in base64.
        width: in CSS pixels.
        problem: why the file is left out; then there is no data.
    """

    data: str = ""
    width: int = 0
    problem: str = ""


def picture(file: Path) -> Picture | None:
    """Reads a PNG, or says why it is left out; None when there is no such file.

    Links are not followed: a run's folder from elsewhere must not choose what goes into the page.
    """
    if file.is_symlink():
        return Picture(problem=f"{file.name} is left out: a link, which is not followed.")
    if not file.is_file():
        return None
    if file.stat().st_size > _LARGEST_PICTURE:
        limit = readable_size(_LARGEST_PICTURE)
        return Picture(problem=f"{file.name} is left out: it has more than {limit}.")
    content = file.read_bytes()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return Picture(problem=f"{file.name} is left out: it is no PNG.")
    # A PNG's header holds its width: shown in inches as drawn, it stays sharp on dense screens.
    width = round(int.from_bytes(content[16:20], "big") * 96 / DOTS_PER_INCH)
    return Picture(base64.b64encode(content).decode(), width)


def write_page(path: Path, template: str, **content: Any) -> Path:
    """Renders a template of this package, and writes the page whole or not at all.

    Args:
        path: the page to write; its folder is made.
        template: a file of ``templates/``.
        content: what the template names. Strings are escaped, whatever they hold.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bcgan_tf.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    page = environment.get_template(template).render(**content)
    path.parent.mkdir(parents=True, exist_ok=True)
    return replace_file(path, page.encode(errors="replace"))  # JSON can name what UTF-8 cannot


def _prose(words: object) -> str:
    """Keeps each number and its percent sign in one line."""
    return str(words).replace(" %", "\N{NO-BREAK SPACE}%")
