"""Build error messages: the expected value, the actual value, and a suggestion."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from difflib import get_close_matches

from pydantic_core import PydanticCustomError

MAX_QUOTED_CHARS = 60  # a longer wrong value is truncated in the message
MAX_LIST_ITEMS = 4  # a longer wrong list is shown as "a list"
MAX_COMPARED_CHARS = 100  # difflib takes quadratic time


def expected(what: str) -> PydanticCustomError:
    """Return the error for a value that is not `what`; the actual value is added later."""
    return PydanticCustomError("expected", "{text}", {"text": what})


def refused(why: str) -> PydanticCustomError:
    """Return the error for a value that has the right type but is not allowed."""
    return PydanticCustomError("refused", "{text}", {"text": why})


def expected_got(what: str, value: object) -> str:
    """Return a message such as `expected a number >= 0, got "high"`."""
    return f"expected {what}, got {format_value(value)}"


def format_value(value: object) -> str:
    """Format a value from a file for an error message: short, and on one line."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case int() if value.bit_length() > 64:
            return "a huge number"  # Python may refuse to print it
        case int() | float() | date():
            return str(value)
        case dict():
            return "a mapping"
        case list():
            return _format_list(value)
        case _:
            return type(value).__name__


def _format_list(values: list[object]) -> str:
    if len(values) > MAX_LIST_ITEMS or any(isinstance(value, list) for value in values):
        return "a list"
    return f"[{', '.join(map(format_value, values))}]"


def quoted(text: str) -> str:
    """Return text in double quotes, truncated if long, with control characters escaped."""
    if len(text) > MAX_QUOTED_CHARS:
        text = text[: MAX_QUOTED_CHARS - 3] + "..."
    return json.dumps(text, ensure_ascii=not text.isprintable())


def choice_of(choices: Iterable[str]) -> str:
    """Return `a`, `a or b`, or `a, b or c`."""
    *first_choices, last = choices
    return f"{', '.join(first_choices)} or {last}" if first_choices else last


def hint(word: str, choices: Iterable[str], kind: str) -> str:
    """Return an ending for a message: the choice closest to `word`, or else all choices.

    Args:
        word: What the user wrote.
        choices: The valid values.
        kind: What the choices are, in the plural: `keys`, `layers`.
    """
    choices = list(choices)
    if not choices:
        return f"; there are no {kind}"
    if suggestion := nearest(word, choices):
        return f'; did you mean "{suggestion}"?'
    return f"; valid {kind}: {', '.join(choices)}"


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that `word` is probably a typo of, ignoring case, or None."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    matches = get_close_matches(word[:MAX_COMPARED_CHARS].lower(), by_lower_case, n=1)
    return by_lower_case[matches[0]] if matches else None
