"""Rules that tie several keys of the configuration together.

They read the data as it came from the file, and pass over whatever has the wrong form
there: that is reported by the models. So a file's slips of both kinds appear at once.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from styled.config.ignore import DEFAULT_IGNORE, IgnoreRules
from styled.config.problems import KeyPath, Problem
from styled.config.wording import hint, quoted

FOLDERS = ("inbox", "outbox", "rejected", "archive", "state")


def check(data: object, base: Path) -> Iterator[Problem]:
    """Yield what is wrong between the keys of a configuration.

    Args:
        data: The content of the file.
        base: The absolute folder that its relative paths start at.
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
        given = [key for key in ("image", "images") if style.get(key) is not None]
        if not given:
            yield Problem(("styles", name), 'needs "image" (one file) or "images" (a list)')
        if len(given) > 1:
            yield Problem(("styles", name, "images"), 'give "image" or "images", not both')


def _check_names(top: Mapping[str, object]) -> Iterator[Problem]:
    """Check that styles are called by names that they have."""
    styles = _mapping(top.get("styles"))
    default = top.get("default_style")
    if isinstance(default, str) and default not in styles:
        yield Problem(("default_style",), _no_style(default, styles))
    for folder, names in _mapping(top.get("folders")).items():
        path = ("folders", folder)
        if folder in styles:
            yield Problem(path, "is the name of a style, which has a folder of that name already")
        for index, name in enumerate(_list(names)):
            if isinstance(name, str) and name not in styles:
                yield Problem((*path, index), _no_style(name, styles))
            if name in _list(names)[:index]:
                yield Problem((*path, index), f"{quoted(str(name))} is listed twice")


def _check_ignored(top: Mapping[str, object]) -> Iterator[Problem]:
    """Check that the folders of styles are not left alone because of their names."""
    given = _mapping(top.get("intake")).get("ignore")
    patterns = _list(given) if given is not None else DEFAULT_IGNORE
    rules = IgnoreRules(pattern for pattern in patterns if isinstance(pattern, str))
    for section in ("styles", "folders"):
        for name in _mapping(top.get(section)):
            if isinstance(name, str) and (pattern := rules.pattern_of(name)) is not None:
                yield Problem(
                    (section, name),
                    f"its folder would be left alone: the name matches {quoted(pattern)} in "
                    "intake.ignore; choose another name, or take out that pattern",
                )


def _no_style(name: str, styles: Mapping[str, object]) -> str:
    return f"{quoted(name)} is not a style{hint(name, styles, 'styles')}"


def _check_layout(top: Mapping[str, object], base: Path) -> Iterator[Problem]:
    """Check that the folders are five, and that nothing styled writes is taken as an input."""
    places = {key: place for key in FOLDERS if (place := _place(top.get(key, key), base))}
    for index, first in enumerate(FOLDERS):
        for second in FOLDERS[index + 1 :]:
            if first in places and second in places:
                message = _clash(first, places[first], second, places[second])
                # One of the two may have its default place and no line in the file.
                blamed = second if second in top else first
                if message:
                    yield Problem((blamed,), message)


def _clash(first: str, first_place: Path, second: str, second_place: Path) -> str | None:
    if first_place == second_place:
        reason = (
            "what styled writes would be taken as new inputs"
            if first == "inbox"
            else "their files would get mixed up"
        )
        return f"{first} and {second} cannot be the same folder: {reason}"
    if first != "inbox":
        return None
    if second_place.is_relative_to(first_place):
        return f"{second} cannot lie inside inbox: what is in it would be taken as new inputs"
    if first_place.is_relative_to(second_place):
        return f"inbox cannot lie inside {second}: what styled writes could land in the inbox"
    return None


def _check_style_paths(top: Mapping[str, object], base: Path) -> Iterator[Problem]:
    inbox = _place(top.get("inbox", "inbox"), base)
    for key_path, value in _style_paths(top):
        place = _place(value, base)
        if inbox and place and place.is_relative_to(inbox):
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


def _place(value: object, base: Path) -> Path | None:
    """Return where a configured path really is, links followed; None if it is not a path."""
    if not isinstance(value, str) or not value:
        return None
    try:
        return Path(os.path.realpath(base / Path(value).expanduser()))
    except (RuntimeError, ValueError):  # no such home; a character that no path can have
        return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []
