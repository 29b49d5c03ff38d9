"""Validation rules that involve several keys of the configuration.

They work on the raw data of the file and skip values of the wrong type, which the pydantic
models report. Errors of both kinds are therefore reported in one run.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from styled.config.ignore import DEFAULT_IGNORE, IgnoreRules
from styled.config.messages import hint, quoted
from styled.config.problems import KeyPath, Problem

FOLDERS = ("inbox", "outbox", "rejected", "archive", "state")


def check(data: object, base: Path) -> Iterator[Problem]:
    """Yield the problems that involve several keys of a configuration.

    Args:
        data: The parsed content of the file.
        base: The absolute folder that relative paths in the file refer to.
    """
    top = _mapping(data)
    yield from _check_images(top)
    yield from _check_names(top)
    yield from _check_ignored(top)
    yield from _check_layout(top, base)
    yield from _check_style_paths(top, base)


def _check_images(top: Mapping[str, object]) -> Iterator[Problem]:
    for name, style in _mapping(top.get("styles")).items():
        if not isinstance(style, dict):
            continue
        image_keys = [key for key in ("image", "images") if style.get(key) is not None]
        if not image_keys:
            yield Problem(("styles", name), 'needs "image" (one file) or "images" (a list)')
        if len(image_keys) > 1:
            yield Problem(("styles", name, "images"), 'give "image" or "images", not both')


def _check_names(top: Mapping[str, object]) -> Iterator[Problem]:
    """Check that `default_style` and `folders` only name styles that exist."""
    styles = _mapping(top.get("styles"))
    default = top.get("default_style")
    if isinstance(default, str) and default not in styles:
        yield Problem(("default_style",), _unknown_style(default, styles))
    for folder, entry in _mapping(top.get("folders")).items():
        path: tuple[str | int, ...] = ("folders", folder)
        names = entry
        if folder in styles:
            yield Problem(path, "is the name of a style, which has a folder of that name already")
        if isinstance(entry, dict):
            names, path = entry.get("styles"), (*path, "styles")
        for index, name in enumerate(_list(names)):
            if isinstance(name, str) and name not in styles:
                yield Problem((*path, index), _unknown_style(name, styles))
            if name in _list(names)[:index]:
                yield Problem((*path, index), f"{quoted(str(name))} is listed twice")


def _check_ignored(top: Mapping[str, object]) -> Iterator[Problem]:
    """Check that no ignore pattern matches the name of an inbox folder."""
    intake = _mapping(top.get("intake"))
    given = intake.get("ignore")
    patterns = _list(given) if given is not None else DEFAULT_IGNORE
    also = _list(intake.get("ignore_also"))
    rules = IgnoreRules(p for p in (*patterns, *also) if isinstance(p, str))
    for section in ("styles", "folders"):
        for name in _mapping(top.get(section)):
            if isinstance(name, str) and (pattern := rules.pattern_of(name)) is not None:
                key = "ignore" if pattern in patterns else "ignore_also"
                yield Problem(
                    (section, name),
                    f"its folder would be left alone: the name matches {quoted(pattern)} in "
                    f"intake.{key}; choose another name, or take out that pattern",
                )


def _unknown_style(name: str, styles: Mapping[str, object]) -> str:
    return f"{quoted(name)} is not a style{hint(name, styles, 'styles')}"


def _check_layout(top: Mapping[str, object], base: Path) -> Iterator[Problem]:
    """Check that the five folders are distinct and that none overlaps the inbox."""
    paths = {
        key: real_path for key in FOLDERS if (real_path := _real_path(top.get(key, key), base))
    }
    for index, first in enumerate(FOLDERS):
        for second in FOLDERS[index + 1 :]:
            if first in paths and second in paths:
                message = _layout_problem(first, paths[first], second, paths[second])
                # One of the two keys may be missing from the file: its folder is the default.
                key = second if second in top else first
                if message:
                    yield Problem((key,), message)


def _layout_problem(first: str, first_path: Path, second: str, second_path: Path) -> str | None:
    if first_path == second_path:
        reason = (
            "what styled writes would be taken as new inputs"
            if first == "inbox"
            else "their files would get mixed up"
        )
        return f"{first} and {second} cannot be the same folder: {reason}"
    if first != "inbox":
        return None
    if second_path.is_relative_to(first_path):
        return f"{second} cannot lie inside inbox: what is in it would be taken as new inputs"
    if first_path.is_relative_to(second_path):
        return f"inbox cannot lie inside {second}: what styled writes could land in the inbox"
    return None


def _check_style_paths(top: Mapping[str, object], base: Path) -> Iterator[Problem]:
    inbox = _real_path(top.get("inbox", "inbox"), base)
    for key_path, value in _style_paths(top):
        real_path = _real_path(value, base)
        if inbox and real_path and real_path.is_relative_to(inbox):
            yield Problem(
                key_path, "lies inside inbox, where it would be taken as a photo and moved away"
            )


def _style_paths(top: Mapping[str, object]) -> Iterator[tuple[KeyPath, object]]:
    for name, style in _mapping(top.get("styles")).items():
        entry = _mapping(style)
        yield ("styles", name, "image"), entry.get("image")
        for index, image in enumerate(_list(entry.get("images"))):
            path = ("styles", name, "images", index)
            if isinstance(image, dict):
                yield (*path, "path"), image.get("path")
            else:
                yield path, image


def _real_path(value: object, base: Path) -> Path | None:
    """Return a configured path as an absolute path without symbolic links.

    Returns None if the value is not a valid path.
    """
    if not isinstance(value, str) or not value:
        return None
    try:
        return Path(os.path.realpath(base / Path(value).expanduser()))
    except (RuntimeError, ValueError):  # unknown home folder; character not allowed in a path
        return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []
