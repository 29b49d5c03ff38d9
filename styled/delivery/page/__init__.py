"""The gallery page: a static HTML file in the outbox, and the data pages it loads.

Everything a visitor of the page sees may have been named by a stranger, so the page trusts
nothing: its scripts and styles are known to the browser by their hashes, the manifest and
the data pages are pure ASCII JSON, and the script builds all it shows out of plain text.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TypeGuard

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from pydantic import JsonValue

Record = Mapping[str, JsonValue]
"""What the page shows of one result or one rejected input."""

_DATA_PAGE = re.compile(r"styledGallery\(([1-9][0-9]*), (\[.*\])\);\n", re.DOTALL)

# `<`, `>` and `&` could end a script element or begin a comment in it.
_IN_A_SCRIPT = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"})


def render(manifest: Mapping[str, JsonValue]) -> bytes:
    """Return the whole HTML page.

    Args:
        manifest: The counts, the styles and the records of the newest data page.

    Raises:
        ValueError: the manifest holds NaN or an infinite number, which JSON does not know.
    """
    css, js = _text("gallery.css"), _text("gallery.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    page = environment.from_string(_text("gallery.html.jinja")).render(
        policy=_policy(css, js), css=Markup(css), js=Markup(js), manifest=Markup(_json(manifest))
    )
    return page.encode()


def page_file(number: int, records: Sequence[Record]) -> bytes:
    """Return the text of a data page.

    Args:
        number: From 1; the highest is the newest.
        records: The oldest first.

    Raises:
        ValueError: a record holds NaN or an infinite number, which JSON does not know.
    """
    return f"styledGallery({number}, {_json(list(records))});\n".encode()


def records_in(data: bytes) -> list[dict[str, JsonValue]]:
    """Return the records of a data page, the oldest first.

    Raises:
        ValueError: this is not a data page.
    """
    found = _DATA_PAGE.fullmatch(data.decode("ascii"))
    if found is None:
        raise ValueError("this is not a data page of the gallery")
    try:
        records = json.loads(found[2], parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("this data page is nested too deep") from error
    if not _are_records(records):
        raise ValueError("this data page holds something else than records")
    return records


def _are_records(value: object) -> TypeGuard[list[dict[str, JsonValue]]]:
    return isinstance(value, list) and all(isinstance(record, dict) for record in value)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _json(value: object) -> str:
    """Return JSON in ASCII that may stand inside a script element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_IN_A_SCRIPT)


@cache
def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")


def _policy(css: str, js: str) -> str:
    """Return the Content-Security-Policy for a page with just this style and script.

    On file:// the standard gives every document an origin of its own, so that `'self'`
    matches nothing there: `file:` stands for the folder then. `'strict-dynamic'` would
    be narrower for files, but it lets a script add inline scripts; instead, Trusted Types
    keep the page's script from loading anything but data pages. `data:` is the icon.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(js)} 'self' file:",
            f"style-src {_hash(css)}",
            "img-src 'self' file: data:",
            "connect-src 'none'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types gallery-pages",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
