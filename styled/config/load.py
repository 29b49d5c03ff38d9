"""The ways to a configuration: from a file, and without one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from styled.config.checks import check
from styled.config.models import ConfigFile
from styled.config.problems import Problem, dotted, validate
from styled.config.resolved import Config, resolve
from styled.config.source import Source, SourceError, parse, read_file
from styled.errors import ConfigError


def load_config(path: Path) -> Config:
    """Return the configuration in a YAML file.

    Nothing that the file names is opened: style images and folders need not exist.

    Raises:
        ConfigError: The file cannot be read, or something in it is wrong. The message
            then has a line for every problem: `config.yaml:14: output.quality: ...`.
    """
    text = read_file(path)
    try:
        source = parse(text)
    except SourceError as error:
        raise ConfigError(f"{_place(path, error.line)}: {error.message}") from error
    base = path.absolute().parent
    data = {} if source.data is None else source.data  # an empty file is all defaults
    file, problems = validate(ConfigFile, data)
    problems += [*source.problems, *check(data, base)]
    if file is None or problems:
        raise ConfigError("\n".join(_listed(path, source, problems)))
    return resolve(file, base, path)


def require_styles(config: Config) -> None:
    """Do nothing if a configuration names a style; without one nothing is ever painted.

    Raises:
        ConfigError: it names none.
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
        )


def default_config(base: Path) -> Config:
    """Return the configuration of an empty file in the folder `base`: no styles yet."""
    return resolve(ConfigFile(), base.absolute(), None)


def _listed(path: Path, source: Source, problems: Iterable[Problem]) -> list[str]:
    """Return a line of text for each problem, in the order of the file."""
    placed = []
    for problem in problems:
        # A short form (`recipe: pyramid`) is checked as the long one: its last keys are not there.
        key_path = source.known_part(problem.path)
        line = problem.line or source.lines.get(key_path)
        keys = f"{dotted(key_path)}: " if key_path else ""
        placed.append((line or 0, f"{_place(path, line)}: {keys}{problem.message}"))
    return [text for _, text in sorted(placed, key=lambda entry: entry[0])]


def _place(path: Path, line: int | None) -> str:
    return f"{path}:{line}" if line else f"{path}"
