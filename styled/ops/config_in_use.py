"""The configuration that a running daemon has loaded, for commands.

A daemon goes on with what it has loaded if its file becomes invalid. It keeps a copy in the state
folder, so that commands can still ask it then.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from styled.atomic import atomic_write
from styled.config import Config, load_config, show_config
from styled.config.models import HooksConfig
from styled.config.source import SourceError, parse, read_file
from styled.errors import ConfigError, ResourceUnavailable
from styled.files import readable
from styled.ops.lock import InstanceLock

FILE_NAME = "config-in-use.yaml"

_STATE_LINE = re.compile(r"""^state:[ \t]*(["']?)(?P<path>[^#\n]+?)\1[ \t]*(?:#.*)?$""", re.M)


def save_config_in_use(config: Config) -> None:
    """Write the daemon's configuration to its state folder, unless that can't be written."""
    if config.path is None:
        return
    # The copy lists the styles: what is in their folder by then may be what is invalid. No command
    # runs hooks, and those may hold passwords.
    copy = show_config(replace(config, styles_folder=None, hooks=HooksConfig()))
    with suppress(ResourceUnavailable):
        atomic_write(config.state / FILE_NAME, (_first_line(config.path) + copy).encode())


def config_in_use(path: Path) -> Config | None:
    """Return the configuration that a running daemon has loaded from a file.

    Args:
        path: The file, which may be invalid, or gone.

    Returns:
        None if no daemon runs with it.
    """
    copy = _state_folder(path) / FILE_NAME
    try:
        if InstanceLock(copy.with_name("lock")).owner() is None:
            return None
        if not read_file(copy).startswith(_first_line(path)):
            return None  # of another configuration in the same folder
        return replace(load_config(copy), base=path.absolute().parent, path=path)
    except (ConfigError, ResourceUnavailable):
        return None


def _first_line(path: Path) -> str:
    return f"# What the daemon has loaded from {readable(os.path.realpath(path))!r}.\n"


def _state_folder(path: Path) -> Path:
    """Return the state folder that a file names, even if it is not valid otherwise."""
    value: object = None
    with suppress(ConfigError):
        text = read_file(path)
        try:
            data = parse(text).data
            value = data.get("state") if isinstance(data, dict) else None
        except SourceError:
            line = _STATE_LINE.search(text)
            value = None if line is None else line["path"]
    base = path.absolute().parent
    if isinstance(value, str) and "\0" not in value:
        with suppress(RuntimeError):  # an unknown home folder
            return base / Path(value).expanduser()
    return base / "state"
