"""The page around the report's parts: self-contained, light and dark, without anything that runs."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

from isc_jobs.report.text import escape

# Nothing runs, nothing is fetched: inline pictures, and the one style sheet by its digest.
_POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"

_END = "</main></body></html>\n"


@dataclass(frozen=True)
class Section:
    """A heading, a sentence below it (may be empty) and HTML; without HTML it is left out."""

    heading: str
    note: str
    html: str


def page(
    title: str, lead: Sequence[str], tiles: Sequence[tuple[str, str]], sections: Iterable[Section],
    *, reload_s: int | None = None,
) -> str:  # fmt: skip
    """The whole HTML: title, sentences, large numbers (value, name), sections; loaded anew every ``reload_s``."""
    style = resources.files("isc_jobs.report").joinpath("style.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    numbers = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for value, name in tiles)
    large = f'<dl class="tiles">{numbers}</dl>' if numbers else ""
    sentences = "".join(f"<p>{escape(line)}</p>" for line in lead)
    reload = "" if reload_s is None else f'<meta http-equiv="refresh" content="{reload_s}">'
    body = "".join(_section(section) for section in sections if section.html)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(digest)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"{reload}"
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main><header><h1>{escape(title)}</h1>"
        f"{sentences}{large}</header>{body}{_END}"
    )


def is_page(html: str) -> bool:
    """Whether it ends as our pages do."""
    return html.endswith(_END)


def with_section(html: str, section: Section) -> str:
    """A page of ours with one more section at its end."""
    return html.removesuffix(_END) + _section(section) + _END


def _section(section: Section) -> str:
    note = f'<p class="note">{escape(section.note)}</p>' if section.note else ""
    return f"<section><h2>{escape(section.heading)}</h2>{note}{section.html}</section>\n"


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    marked: int | None = None,
    words: bool = False,
) -> str:
    """An HTML table, first column heading the rows; every cell is escaped, row ``marked`` stands out."""
    kind = ' class="words"' if words else ""
    head = "".join(f'<th scope="col"{kind}>{escape(cell)}</th>' for cell in header)
    body = "".join(
        ('<tr class="mark">' if number == marked else "<tr>") + f'<th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{kind}>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for number, row in enumerate(rows)
    )  # fmt: skip
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figure(heading: str, html: str, *, wide: bool = False) -> str:
    """A card with a heading; empty if there is nothing in it."""
    opening = '<figure class="wide">' if wide else "<figure>"
    return f"{opening}<h3>{escape(heading)}</h3>{html}</figure>" if html else ""
