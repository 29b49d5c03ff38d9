"""Problems of a configuration: plain sentences, each with a key path.

pydantic's messages are written for programmers; this module converts its errors to messages for
users. A key path is a tuple such as `("styles", "sea", "images", 0)`.
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

from styled.config.messages import choice_of, expected_got, hint, nearest, quoted

KeyPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

EXPECTED_BY_TYPE = {
    "bool_type": "true or false",
    "model_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "tuple_type": "a list",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a configuration, and the key path where it is."""

    path: KeyPath
    message: str
    line: int | None = None  # set only if it is not the line of the path


def validate(model: type[Model], data: object) -> tuple[Model | None, list[Problem]]:
    """Return the validated model, or None and all problems of the data."""
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, [_to_problem(details, model) for details in error.errors(include_url=False)]


def dotted(path: KeyPath) -> str:
    """Format a key path as `styles.sea.images.0`; keys with special characters are quoted."""
    return ".".join(map(_format_key, path))


def _format_key(key: str | int) -> str:
    if isinstance(key, int) or (key.isprintable() and re.fullmatch(r"[^\s.:\"]+", key)):
        return str(key)
    return quoted(key)


def _to_problem(details: ErrorDetails, model: type[BaseModel]) -> Problem:
    """Convert one of pydantic's errors to a problem."""
    # pydantic marks an error in a key, rather than in its value, with a last step "[key]".
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
            matches = re.findall(r"'([^']*)'|(\d+)", str(context["expected"]))
            choices = [word or number for word, number in matches]
            suggestion = nearest(str(value), choices) if isinstance(value, str) else None
            message = expected_got(choice_of(choices), value)
            message += f'; did you mean "{suggestion}"?' if suggestion else ""
        case kind if kind in EXPECTED_BY_TYPE:
            message = expected_got(EXPECTED_BY_TYPE[kind], value)
        case _:
            message = details["msg"]
    return Problem(path, message)


def keys_below(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys that the model allows in the mapping at the path.

    They are taken from the model's JSON Schema, which describes fields, mappings and lists in the
    same way.
    """
    schema = _schema(model)
    schemas: list[Mapping[str, object]] = list(_alternatives(schema, schema))
    for step in path:
        schemas = [
            alternative
            for parent in schemas
            for child in _children(parent, step)
            for alternative in _alternatives(child, schema)
        ]
    return [key for subschema in schemas for key in _mapping(subschema.get("properties"))]


@cache
def _schema(model: type[BaseModel]) -> Mapping[str, object]:
    return model.model_json_schema()


def _alternatives(schema: object, root: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield a schema and all schemas that its `$ref` and `anyOf` lead to."""
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
