"""What is wrong with a configuration, as plain sentences, each with its place.

pydantic says what is wrong in a programmer's words and stops at nothing; this module
translates. A problem is found at a key path such as `("styles", "sea", "images", 0)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from styled.config.wording import choice_of, expected_got, hint, nearest, quoted

KeyPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

EXPECTED = {
    "bool_type": "true or false",
    "model_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "tuple_type": "a list",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and the key path at which it is."""

    path: KeyPath
    message: str
    line: int | None = None  # where it is not that of the path


def validate(model: type[Model], data: object) -> tuple[Model | None, list[Problem]]:
    """Return the model made of the data, or None and everything that is wrong with the data."""
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, [_translated(details, model) for details in error.errors(include_url=False)]


def dotted(path: KeyPath) -> str:
    """Return a key path in one piece: `styles.sea.images.0`; odd keys appear in quotes."""
    return ".".join(map(_as_step, path))


def _as_step(key: str | int) -> str:
    if isinstance(key, int) or (key.isprintable() and re.fullmatch(r"[^\s.:\"]+", key)):
        return str(key)
    return quoted(key)


def _translated(details: ErrorDetails, model: type[BaseModel]) -> Problem:
    """Turn one of pydantic's errors into a problem."""
    # pydantic marks an error in the key itself, not in its value, by a last step "[key]"
    path = tuple(step for step in details["loc"] if step != "[key]")
    value = details["input"]
    context = details.get("ctx", {})
    match details["type"]:
        case "expected":
            message = expected_got(str(context["text"]), value)
        case "refused":
            message = str(context["text"])
        case "extra_forbidden":
            message = "unknown key" + hint(str(path[-1]), keys_below(model, path[:-1]), "keys")
        case "missing":
            path, message = path[:-1], f'needs the key "{path[-1]}"'
        case "string_type":
            message = expected_got("text", value)
            message += "; put it in quotes" if isinstance(value, bool | int | float | date) else ""
        case "literal_error":
            found = re.findall(r"'([^']*)'|(\d+)", str(context["expected"]))
            choices = [word or number for word, number in found]
            near = nearest(str(value), choices) if isinstance(value, str) else None
            message = expected_got(choice_of(choices), value)
            message += f'; did you mean "{near}"?' if near else ""
        case kind if kind in EXPECTED:
            message = expected_got(EXPECTED[kind], value)
        case _:
            message = details["msg"]
    return Problem(path, message)


def keys_below(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys that the model allows in the mapping at the path.

    The model's JSON Schema has the answer in one form for fields, mappings and lists.
    """
    schema = _schema(model)
    here: list[Mapping[str, object]] = list(_alternatives(schema, schema))
    for step in path:
        here = [
            alternative
            for parent in here
            for child in _children(parent, step)
            for alternative in _alternatives(child, schema)
        ]
    return [key for schema_here in here for key in _mapping(schema_here.get("properties"))]


@cache
def _schema(model: type[BaseModel]) -> Mapping[str, object]:
    return model.model_json_schema()


def _alternatives(schema: object, root: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield what a schema comes down to once references and alternatives are followed."""
    node = _mapping(schema)
    if isinstance(reference := node.get("$ref"), str):
        definitions = _mapping(root.get("$defs"))
        yield from _alternatives(definitions.get(reference.rpartition("/")[2]), root)
    choices = node.get("anyOf")
    for choice in choices if isinstance(choices, list) else ():
        yield from _alternatives(choice, root)
    yield node


def _children(schema: Mapping[str, object], step: str | int) -> Iterable[object]:
    if isinstance(step, int):
        return [schema.get("items")]
    return [_mapping(schema.get("properties")).get(step) or schema.get("additionalProperties")]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
