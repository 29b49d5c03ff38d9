"""Styles by files: each picture in the styles folder is a style, named after its file.

A `NAME.yaml` beside the picture holds recipe, overrides, output, priority and strength.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from styled.config.ignore import DEFAULT_IGNORE, IgnoreRules
from styled.config.messages import quoted
from styled.config.problems import Problem
from styled.config.source import Source, SourceError, parse, read_file
from styled.config.values import folder_name_problem
from styled.errors import ConfigError
from styled.files import has_picture_name, readable

SETTINGS_SUFFIX = ".yaml"

FolderStamp = tuple[tuple[str, int, int], ...]
"""Name, size and mtime_ns of each file of the folder that is a picture or settings."""


@dataclass(frozen=True, slots=True)
class FolderStyle:
    """A style of the styles folder.

    Attributes:
        data: The entry under `styles` that it stands for, not validated yet.
        settings_file: The path of its `NAME.yaml`; None: there is none.
        source: The content of that file.
    """

    data: Mapping[str, object]
    settings_file: Path | None
    source: Source


@dataclass(frozen=True, slots=True)
class StylesFolder:
    """The styles of a folder.

    Attributes:
        styles: Name -> style, sorted by name.
        left_out: A sentence for each picture that is not a style, and why.
        stamp: Of the folder, taken before it was read.
    """

    styles: Mapping[str, FolderStyle]
    left_out: tuple[str, ...] = ()
    stamp: FolderStamp = ()


def read_styles_folder(folder: Path, taken: Iterable[str] = ()) -> StylesFolder:
    """Return the styles of a folder; one that does not exist has none.

    Args:
        folder: Absolute.
        taken: Names of inbox folders that no style of this folder may have.

    Raises:
        ConfigError: the folder or a `NAME.yaml` can't be read, or is not YAML.
    """
    stamp = folder_stamp(folder)
    ignore, taken = IgnoreRules(DEFAULT_IGNORE), frozenset(taken)
    names = [name for name in _names_in(folder) if not ignore.match(name)]
    styles: dict[str, FolderStyle] = {}
    left_out = []
    for file in names:
        if not has_picture_name(file):
            continue
        name = os.path.splitext(file)[0]
        problem = folder_name_problem(name)
        if name in styles:
            problem = f"another picture of the style {quoted(name)} comes before it"
        elif name in taken:
            problem = f"{quoted(name)} is a folder that the configuration lists under folders"
        if problem is not None:
            left_out.append(f"{readable(folder / file)} is not a style: {problem}")
            continue
        settings = folder / f"{name}{SETTINGS_SUFFIX}"
        has_settings = settings.name in names
        source = _read_settings(settings) if has_settings else Source(None, {}, ())
        image = str(folder / file)
        given = source.data if isinstance(source.data, dict) else {}
        styles[name] = FolderStyle(
            {**given, "image": image}, settings if has_settings else None, source
        )
    return StylesFolder(styles, tuple(left_out), stamp)


def settings_problems(name: str, style: FolderStyle) -> Iterable[Problem]:
    """Yield the problems of a `NAME.yaml` that its entry under `styles` does not show."""
    data = style.source.data
    path = ("styles", name)
    if data is not None and not isinstance(data, dict):
        yield Problem(path, "expected a mapping of keys to values")
        return
    for key in ("image", "images"):
        if data is not None and key in data:
            yield Problem((*path, key), "the picture beside this file is the style's image")
    for problem in style.source.problems:
        yield Problem((*path, *problem.path), problem.message, problem.line)


def folder_stamp(folder: Path) -> FolderStamp:
    """Return name, size and mtime_ns of the folder's files, to notice changes; empty: none."""
    stamp = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if has_picture_name(entry.name) or entry.name.endswith(SETTINGS_SUFFIX):
                    with suppress(OSError):  # it has just gone, or is a link to nothing
                        info = entry.stat()
                        stamp.append((entry.name, info.st_size, info.st_mtime_ns))
    except OSError:
        return ()
    return tuple(sorted(stamp))


def _names_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(
            f"styles_folder: {readable(folder)} can't be read: {error.strerror}"
        ) from error


def _read_settings(path: Path) -> Source:
    try:
        return parse(read_file(path))
    except SourceError as error:
        line = f":{error.line}" if error.line else ""
        raise ConfigError(f"{path}{line}: {error.message}") from error
