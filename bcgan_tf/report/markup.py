"""The few pieces of HTML that the page is built from; every text is escaped here."""

from __future__ import annotations

import base64
import html
import urllib.parse
from collections.abc import Iterable, Sequence
from pathlib import Path

from bcgan_tf.files import readable_size
from bcgan_tf.report.style import DOTS_PER_INCH

# Of a file; those that are drawn here have less than 1 MiB: 16 MiB.
_LARGEST_PICTURE = 2**24
_CSS = """
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #5b6572; --line: #d9dee4;
  --ground: #ffffff; --card: #f6f8fa; --accent: #0072b2; --warn: #a04000;
  --good: #00694c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --faint: #9aa5b1; --line: #363d46;
  --ground: #15181c; --card: #1e2329; --accent: #6cc0f0; --warn: #f0a060;
  --good: #4cc79c; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; color: var(--ink);
  background: var(--ground); font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .2rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--line); }
p, li { max-width: 46rem; } p.under, figcaption, .note { color: var(--faint); font-size: .9rem; }
p.under { margin: 0 0 1.4rem; }
.verdict { background: var(--card); border-left: 4px solid var(--accent); border-radius: 4px;
  padding: .7rem 1.1rem; margin: 1rem 0; } .verdict p { margin: .35rem 0; }
.doubt { border-left-color: var(--warn); }
.card { background: var(--card); border: 1px solid var(--line); border-left: 8px solid var(--faint);
  border-radius: 4px; padding: .8rem 1.2rem 1rem; margin: 1rem 0; }
.card p { margin: .35rem 0; } .card p.name { color: var(--faint); font-size: .92rem; }
.card p.kind { font-size: 1.45rem; font-weight: 700; line-height: 1.25; }
.card p.number { font-size: 1.1rem; font-weight: 600; }
.card.good { border-left-color: var(--good); } .card.good p.kind { color: var(--good); }
.card.bad { border-left-color: var(--bad); } .card.bad p.kind { color: var(--bad); }
.card.open { border-left-color: var(--warn); } .card.open p.kind { color: var(--warn); }
.state, .numeral { white-space: nowrap; } .state.bad { color: var(--bad); font-weight: 700; }
.state.open { color: var(--warn); font-weight: 700; } .state.good { color: var(--good); }
.state.wrap { white-space: normal; }
.state.none { color: var(--faint); font-style: italic; }
td .why { display: block; color: var(--faint); font-size: .85rem; font-weight: 400; }
th .why { display: block; color: var(--faint); font-size: .85rem; font-weight: 400;
  min-width: 12rem; max-width: 17rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem 1.1rem .35rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--line); }
tbody th { font-weight: 500; } tr.worst th, tr.worst td { font-weight: 700; }
td .minor { color: var(--faint); font-weight: 400; font-size: .85rem; white-space: nowrap; }
figure { margin: 1rem 0; } figcaption { margin-top: .3rem; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px;
  padding: .4rem; border: 1px solid var(--line); }
pre { background: var(--card); padding: .8rem 1rem; border-radius: 4px; overflow-x: auto; }
details { margin: .6rem 0; } summary { cursor: pointer; }
"""


def text(value: object) -> str:
    """Escapes for HTML."""
    return html.escape(str(value), quote=True)


def document(title: str, body: Iterable[str]) -> bytes:
    """A whole page with its style inside, in UTF-8."""
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )
    return page.encode(errors="replace")  # JSON can name what UTF-8 cannot write


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it; nothing at all when nothing does."""
    inner = [part for part in parts if part]
    return "\n".join([f"<section>\n<h2>{text(title)}</h2>", *inner, "</section>"]) if inner else ""


def paragraph(content: str, kind: str = "") -> str:
    """One paragraph of plain text."""
    return f'<p class="{kind}">{prose(content)}</p>' if kind else f"<p>{prose(content)}</p>"


def box(sentences: Sequence[str], kind: str = "") -> str:
    """A marked box of sentences."""
    if not sentences:
        return ""
    inner = "\n".join(paragraph(sentence) for sentence in sentences)
    return f'<div class="{f"verdict {kind}".strip()}">\n{inner}\n</div>'


def subsection(title: str, *parts: str) -> str:
    """A smaller heading and what stands under it; nothing at all when nothing does."""
    inner = [part for part in parts if part]
    return "\n".join([f"<h3>{text(title)}</h3>", *inner]) if inner else ""


def card(name: str, kind: str, number: str, sentences: Sequence[str], tone: str) -> str:
    """What a reader must see first: of what, the verdict, the number, and what they mean.

    Args:
        name: such as the model and the threat model.
        kind: the verdict in a few words; colour is never the only sign of it.
        number: the accuracy with its interval.
        sentences: plain text.
        tone: ``"good"``, ``"bad"``, ``"open"``, or ``""``.
    """
    top = [paragraph(name, "name"), paragraph(kind, "kind"), paragraph(number, "number")]
    inner = "\n".join([*top, *map(paragraph, sentences)])
    return f'<div class="{f"card {tone}".strip()}">\n{inner}\n</div>'


def state(words: str, tone: str) -> str:
    """A word such as ``raised``, in the colour of its tone."""
    return f'<span class="state {tone}">{text(words)}</span>'


def prose(words: object) -> str:
    """Escapes, and keeps each number and its percent sign in one line."""
    return text(words).replace(" %", "&nbsp;%")


def numeral(words: str) -> str:
    """A number and its unit, never broken apart."""
    return f'<span class="numeral">{text(words)}</span>'


def explained(words: str, why: str) -> str:
    """A cell with a line in small type under it."""
    return f'{text(words)}<span class="why">{text(why)}</span>' if why else text(words)


def file_link(name: str) -> str:
    """A link to a file beside the page."""
    return f'<a href="{text(urllib.parse.quote(name))}">{text(name)}</a>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, strong: Sequence[int] = ()) -> str:
    """A table whose first column is its rows' headings.

    Args:
        head: column titles; empty for none.
        rows: escaped HTML of each cell.
        strong: numbers of the rows to stress.
    """
    lines = []
    for number, (first, *others) in enumerate(rows):
        kind = ' class="worst"' if number in strong else ""
        cells = "".join(f"<td>{cell}</td>" for cell in others)
        lines.append(f'<tr{kind}><th scope="row">{first}</th>{cells}</tr>')
    if not lines:
        return ""
    titles = "".join(f'<th scope="col">{text(title)}</th>' for title in head)
    top = f"<thead><tr>{titles}</tr></thead>\n" if head else ""
    body = "\n".join(lines)
    return f'<div class="scroll"><table>\n{top}<tbody>\n{body}\n</tbody></table></div>'


def pairs(content: Iterable[tuple[str, object]]) -> str:
    """A table of names and values."""
    return table((), [(text(name), text(value)) for name, value in content])


def picture(file: Path, caption: str) -> str:
    """A PNG inside the page, or why it is not there; nothing when there is no such file.

    Links are not followed: a run's folder from elsewhere must not choose what goes into the page.
    """
    if file.is_symlink():
        return paragraph(f"{file.name} is left out: a link, which is not followed.", "note")
    if not file.is_file():
        return ""
    if file.stat().st_size > _LARGEST_PICTURE:
        limit = readable_size(_LARGEST_PICTURE)
        return paragraph(f"{file.name} is left out: it has more than {limit}.", "note")
    content = file.read_bytes()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return paragraph(f"{file.name} is left out: it is no PNG.", "note")
    # A PNG's header holds its width: shown in inches as drawn, it stays sharp on dense screens.
    width = round(int.from_bytes(content[16:20], "big") * 96 / DOTS_PER_INCH)
    data = base64.b64encode(content).decode()
    return (
        f'<figure><img alt="{text(caption)}" width="{width}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def folded(title: str, *parts: str) -> str:
    """Something that opens on a click, without a script."""
    inner = "\n".join(part for part in parts if part)
    return f"<details><summary>{text(title)}</summary>\n{inner}\n</details>" if inner else ""
