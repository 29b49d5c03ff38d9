"""The gallery page: a static HTML file in the outbox, and the record files it loads.

File names and other texts on the page are untrusted input. So a Content-Security-Policy allows
its script and style by their hashes only, the manifest and the record files are ASCII JSON, and
the script inserts texts as plain text, never as HTML.
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

from styled.delivery.gallery_records import GalleryRecord

_RECORD_FILE_CONTENT = re.compile(r"styledGallery\(([1-9][0-9]*), (\[.*\])\);\n", re.DOTALL)

# `<`, `>` and `&` could end a script element or start a comment in it.
_IN_A_SCRIPT = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"})


def render(manifest: Mapping[str, JsonValue]) -> bytes:
    """Return the whole HTML page.

    Args:
        manifest: The counts, the styles and the records of the newest record file.

    Raises:
        ValueError: the manifest holds NaN or an infinite number, which JSON can't represent.
    """
    css, js = _text("gallery.css"), _text("gallery.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    page = environment.from_string(_text("gallery.html.jinja")).render(
        policy=_policy(css, js), css=Markup(css), js=Markup(js), manifest=Markup(_json(manifest))
    )
    return page.encode()


def record_file(number: int, records: Sequence[GalleryRecord]) -> bytes:
    """Return the text of a record file.

    Args:
        number: From 1; the highest is the newest.
        records: Oldest first.

    Raises:
        ValueError: a record holds NaN or an infinite number, which JSON can't represent.
    """
    return f"styledGallery({number}, {_json(list(records))});\n".encode()


def live_file(state: Mapping[str, JsonValue]) -> bytes:
    """Return the text of the file that says what is being painted.

    Args:
        state: `written` (ISO time), `waiting` (number of jobs) and `jobs`.
    """
    return f"styledLive({_json(state)});\n".encode()


def records_in(data: bytes) -> list[dict[str, JsonValue]]:
    """Return the records of a record file, oldest first.

    Raises:
        ValueError: this is not a record file.
    """
    found = _RECORD_FILE_CONTENT.fullmatch(data.decode("ascii"))
    if found is None:
        raise ValueError("this is not a record file of the gallery")
    try:
        records = json.loads(found[2], parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("this record file is nested too deep") from error
    if not _are_records(records):
        raise ValueError("this record file holds something else than records")
    return records


def _are_records(value: object) -> TypeGuard[list[dict[str, JsonValue]]]:
    return isinstance(value, list) and all(isinstance(record, dict) for record in value)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _json(value: object) -> str:
    """Return JSON in ASCII that is safe inside a script element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_IN_A_SCRIPT)


@cache
def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")


def _policy(css: str, js: str) -> str:
    """Return the Content-Security-Policy for a page with only this style and script.

    For file:// URLs every document has a unique origin, so `'self'` matches nothing there, and
    `file:` is allowed too. `'strict-dynamic'` would be narrower for files, but it lets a script
    add inline scripts. Instead, Trusted Types restrict the page's script to loading record files.
    `data:` is for the icon.
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
            "trusted-types gallery-records",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
