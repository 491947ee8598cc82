"""What all pages are made of: one self-contained file of HTML, and tables."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

from ucadi.labels import NOTICE

NOTHING_FROM_OUTSIDE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The content security policy of a page in one file, without a script."""

WARNING = f'<p class="notice">{NOTICE}</p>'


def page(title: str, style: str, body: Iterable[str]) -> str:
    """A page in one file that loads nothing, headed by its title."""
    policy = f'<meta http-equiv="Content-Security-Policy" content="{NOTHING_FROM_OUTSIDE}">'
    return document(title, [policy, f"<style>{style}</style>"], [f"<h1>{escape(title)}</h1>", *body])


def document(title: str, head: Iterable[str], body: Iterable[str]) -> str:
    """A page with what else stands in its head."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            *head,
            "</head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def table(header: Iterable[str], rows: Iterable[Iterable[str]], *, code: bool = False) -> str:
    """A table of text; if `code`, its first column is what a program reads."""

    def cells(row: Iterable[str]) -> str:
        first, *others = (escape(cell) for cell in row)
        return "".join(f"<td>{cell}</td>" for cell in [f"<code>{first}</code>" if code else first, *others])

    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "\n".join(f"<tr>{cells(row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def picture(shows: str, data: bytes, kind: str = "png") -> str:
    """An image within the page."""
    return f'<img alt="{escape(shows)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
