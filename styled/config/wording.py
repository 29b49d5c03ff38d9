"""How problems are put into words: what was expected, what was found, what may be meant."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from difflib import get_close_matches

from pydantic_core import PydanticCustomError

LONGEST_SHOWN = 60  # characters of a wrong value that are repeated in a message
MOST_PARTS_SHOWN = 4  # of a wrong list
LONGEST_COMPARED = 100  # characters: difflib takes quadratic time


def expected(what: str) -> PydanticCustomError:
    """Return the error to raise where a value is not `what`; the value found is added later."""
    return PydanticCustomError("expected", "{text}", {"text": what})


def refused(why: str) -> PydanticCustomError:
    """Return the error to raise where a value has the right form, but cannot be taken."""
    return PydanticCustomError("refused", "{text}", {"text": why})


def expected_got(what: str, value: object) -> str:
    """Return `expected a number >= 0, got "high"`."""
    return f"expected {what}, got {shown(value)}"


def shown(value: object) -> str:
    """Return a value from a file as it should appear in a message: short, and on one line."""
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
            return _shown_list(value)
        case _:
            return type(value).__name__


def _shown_list(values: list[object]) -> str:
    if len(values) > MOST_PARTS_SHOWN or any(isinstance(value, list) for value in values):
        return "a list"
    return f"[{', '.join(map(shown, values))}]"


def quoted(text: str) -> str:
    """Return text in double quotes, cut where it is long, with control characters escaped."""
    if len(text) > LONGEST_SHOWN:
        text = text[: LONGEST_SHOWN - 3] + "..."
    return json.dumps(text, ensure_ascii=not text.isprintable())


def choice_of(words: Iterable[str]) -> str:
    """Return `a`, `a or b`, or `a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def hint(word: str, choices: Iterable[str], kind: str) -> str:
    """Return a tail for a message: the choice nearest to `word`, else all of them.

    Args:
        word: What the user wrote.
        choices: What would have been right.
        kind: What the choices are, in the plural: `keys`, `layers`.
    """
    choices = list(choices)
    if not choices:
        return f"; there are no {kind}"
    if near := nearest(word, choices):
        return f'; did you mean "{near}"?'
    return f"; valid {kind}: {', '.join(choices)}"


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that `word` is probably a slip of, in whatever case; None if none is."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    close = get_close_matches(word[:LONGEST_COMPARED].lower(), by_lower_case, n=1)
    return by_lower_case[close[0]] if close else None
