"""Load the configuration from a file, or make the default one."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from styled.config.checks import check
from styled.config.models import ConfigFile
from styled.config.problems import Problem, dotted, validate
from styled.config.resolved import Config, resolve
from styled.config.source import Source, SourceError, parse, read_file
from styled.config.styles_folder import (
    FolderStyle,
    StylesFolder,
    read_styles_folder,
    settings_problems,
)
from styled.errors import ConfigError


def load_config(path: Path) -> Config:
    """Return the configuration in a YAML file.

    Paths in the file are not opened: style images and folders need not exist.

    Raises:
        ConfigError: The file cannot be read, or it is not valid. In that case the message
            has one line per problem: `config.yaml:14: output.quality: ...`.
    """
    text = read_file(path)
    try:
        source = parse(text)
    except SourceError as error:
        raise ConfigError(f"{_location(path, error.line)}: {error.message}") from error
    base = path.absolute().parent
    data = {} if source.data is None else source.data  # an empty file means all defaults
    in_folder = _styles_in_folder(data, base)
    if isinstance(data, dict):
        listed = data.get("styles") or {}
        if isinstance(listed, dict):
            by_name = {name: style.data for name, style in in_folder.styles.items()}
            data = {**data, "styles": {**by_name, **listed}}
            in_folder = replace(in_folder, styles=_without(in_folder.styles, listed))
    file, problems = validate(ConfigFile, data)
    problems += [*source.problems, *check(data, base)]
    for name, style in in_folder.styles.items():
        problems += settings_problems(name, style)
    if file is None or problems:
        raise ConfigError("\n".join(_problem_lines(path, source, in_folder, problems)))
    return replace(
        resolve(file, base, path), left_out=in_folder.left_out, styles_stamp=in_folder.stamp
    )


def config_of(data: object, base: Path, path: Path) -> Config:
    """Return the configuration with the content `data`, as `config_data` returns it.

    Args:
        data: The content of a file.
        base: The absolute folder that relative paths in it refer to.
        path: The path of the file.

    Raises:
        ConfigError: It is not valid.
    """
    file, problems = validate(ConfigFile, data)
    if file is None:
        raise ConfigError(f"{path}: {len(problems)} values are not valid")
    return resolve(file, base, path)


def _styles_in_folder(data: object, base: Path) -> StylesFolder:
    folder = data.get("styles_folder") if isinstance(data, dict) else None
    if not isinstance(folder, str) or not folder or "\0" in folder:
        return StylesFolder({})
    folders = data.get("folders") if isinstance(data, dict) else None
    try:
        path = base / Path(folder).expanduser()
    except RuntimeError:  # an unknown home folder, which the validation reports
        return StylesFolder({})
    return read_styles_folder(path, folders if isinstance(folders, dict) else ())


def _without(styles: Mapping[str, FolderStyle], names: Container[object]) -> dict[str, FolderStyle]:
    return {name: style for name, style in styles.items() if name not in names}


def require_styles(config: Config) -> None:
    """Check that the configuration has at least one style.

    Raises:
        ConfigError: It has none, so that no photo would ever be painted.
    """
    if not config.styles:
        try:
            is_empty = config.path is not None and config.path.stat().st_size == 0
        except OSError:
            is_empty = False
        raise ConfigError(
            f"{config.path or 'the configuration'}: "
            + ("is empty" if is_empty else "names no style, so nothing would ever be painted"),
            "name one under styles: (styled init DIR makes a folder with one to start from)",
            *(
                [f"or put a picture into {config.styles_folder}"]
                if config.styles_folder is not None
                else []
            ),
        )


def default_config(base: Path) -> Config:
    """Return the configuration that an empty file in the folder `base` gives: without styles."""
    return resolve(ConfigFile(), base.absolute(), None)


def _problem_lines(
    path: Path, source: Source, in_folder: StylesFolder, problems: Iterable[Problem]
) -> list[str]:
    """Return one line of text for each problem, in the order of the files."""
    located = []
    for problem in problems:
        style = None
        if problem.path[:1] == ("styles",) and len(problem.path) > 1:
            style = in_folder.styles.get(str(problem.path[1]))
        if style is not None:
            problem_path = style.settings_file or Path(str(style.data["image"]))
            text = problem_line(problem_path, style.source, replace(problem, path=problem.path[2:]))
        else:
            text = problem_line(path, source, problem)
        located.append((style is not None, *text))
    return [text for *_, text in sorted(located, key=lambda entry: entry[:2])]


def problem_line(path: Path, source: Source, problem: Problem) -> tuple[int, str]:
    """Return the line of a problem in a file, 0 if unknown, and the text that names it."""
    # A short form (`recipe: pyramid`) is validated as the long form, so the last keys of the
    # problem's path may not be in the file.
    key_path = source.known_part(problem.path)
    line = problem.line or source.lines.get(key_path)
    keys = f"{dotted(key_path)}: " if key_path else ""
    return line or 0, f"{_location(path, line)}: {keys}{problem.message}"


def _location(path: Path, line: int | None) -> str:
    return f"{path}:{line}" if line else f"{path}"
