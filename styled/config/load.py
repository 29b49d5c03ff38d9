"""Load the configuration from a file, or make the default one."""

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
    file, problems = validate(ConfigFile, data)
    problems += [*source.problems, *check(data, base)]
    if file is None or problems:
        raise ConfigError("\n".join(_problem_lines(path, source, problems)))
    return resolve(file, base, path)


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
        )


def default_config(base: Path) -> Config:
    """Return the configuration that an empty file in the folder `base` gives: without styles."""
    return resolve(ConfigFile(), base.absolute(), None)


def _problem_lines(path: Path, source: Source, problems: Iterable[Problem]) -> list[str]:
    """Return one line of text for each problem, in the order of the file."""
    located = []
    for problem in problems:
        # A short form (`recipe: pyramid`) is validated as the long form, so the last keys of the
        # problem's path may not be in the file.
        key_path = source.known_part(problem.path)
        line = problem.line or source.lines.get(key_path)
        keys = f"{dotted(key_path)}: " if key_path else ""
        located.append((line or 0, f"{_location(path, line)}: {keys}{problem.message}"))
    return [text for _, text in sorted(located, key=lambda entry: entry[0])]


def _location(path: Path, line: int | None) -> str:
    return f"{path}:{line}" if line else f"{path}"
