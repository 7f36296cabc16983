"""The page around the report's parts."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO

from PIL import Image

_STYLE = """
:root{color-scheme:light dark;--bg:#fbfaf8;--fg:#1d1f24;--soft:#5c6068;--line:#dcd9d2;--card:#fff;
--c0:#0b62b8;--c1:#c2410c;--c2:#087f5b;--c3:#8a3ffc;--c4:#9a6700;--c5:#b3125a}
@media (prefers-color-scheme:dark){:root{--bg:#14161a;--fg:#e9e7e2;--soft:#a4a8b0;--line:#343840;--card:#1c1f25;
--c0:#6cb2ff;--c1:#ff9f68;--c2:#5ad1a6;--c3:#c4a1ff;--c4:#e5bd5a;--c5:#ff8ab8}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
main{max-width:1100px;margin:auto;padding:32px 20px 64px}h1{font-size:30px;margin:0}h2{margin:44px 0 12px;font-size:20px}
p.lead{color:var(--soft);max-width:70ch;margin:8px 0 0}.big{display:flex;gap:40px;margin:24px 0;flex-wrap:wrap}
.big b{display:block;font-size:38px;line-height:1.1;font-variant-numeric:tabular-nums}.big span{color:var(--soft)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}caption{text-align:left;color:var(--soft)}
th,td{text-align:right;padding:6px 12px;border-bottom:1px solid var(--line)}th:first-child,td:first-child{text-align:left}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:20px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px}
figcaption{font-weight:600;margin-bottom:6px}svg{width:100%;height:auto}svg text{fill:var(--soft);font-size:11px}
polyline{fill:none;stroke-width:2}.grid{stroke:var(--line)}.faint{opacity:.28;stroke-width:1}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 16px;margin:6px 0 0;padding:0;font-size:13px}
.legend li::before{content:"";display:inline-block;width:14px;height:3px;margin-right:6px;vertical-align:middle}
.legend .c0::before{background:var(--c0)}.legend .c1::before{background:var(--c1)}.legend .c2::before{background:var(--c2)}
.legend .c3::before{background:var(--c3)}.legend .c4::before{background:var(--c4)}.legend .c5::before{background:var(--c5)}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:14px}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:6px}.pair img{width:100%;aspect-ratio:1;object-fit:contain;
background:var(--bg);border-radius:4px}.gallery p{margin:6px 0 0;font-size:13px;color:var(--soft)}
"""


def page(title: str, lead: str, headline: Sequence[tuple[str, str]], sections: Iterable[tuple[str, str]]) -> str:
    """The whole HTML; sections are (heading, HTML), empty ones left out."""
    numbers = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in headline)
    body = "".join(f"<section><h2>{escape(name)}</h2>{html}</section>" for name, html in sections if html)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main><h1>{escape(title)}</h1>"
        f'<p class="lead">{escape(lead)}</p><div class="big">{numbers}</div>{body}</main></body></html>\n'
    )


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; every cell is escaped."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def gallery(pairs: Iterable[tuple[str, Image.Image, str, Image.Image, str]]) -> str:
    """Cards of (query id, picture, reference id, picture, note)."""
    cards = [
        f'<figure><div class="pair">{_img(left, f"query {query}")}{_img(right, f"reference {reference}")}</div>'
        f"<p>{escape(query)} · {escape(reference)}<br>{escape(note)}</p></figure>"
        for query, left, reference, right, note in pairs
    ]
    return f'<div class="gallery">{"".join(cards)}</div>' if cards else ""


def _img(image: Image.Image, alt: str) -> str:
    small, data = image.copy(), BytesIO()
    small.thumbnail((160, 160))
    small.save(data, "JPEG", quality=80)
    return f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'
