"""The configuration that a running daemon has loaded, for commands.

A daemon goes on with what it has loaded if its file becomes invalid. It keeps a copy in the state
folder, so that commands can still ask it then.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from styled.atomic import atomic_write
from styled.config import Config, HooksConfig, config_data, config_of
from styled.config.source import SourceError, parse, read_file
from styled.errors import ConfigError, ResourceUnavailable
from styled.files import readable
from styled.open_files import open_regular
from styled.ops.lock import InstanceLock

FILE_NAME = "config-in-use.json"

MODE = 0o644
"""Nobody but its owner may change the copy: commands of root use it."""

MAX_BYTES = 16 * 1024**2

_STATE_LINE = re.compile(
    r"""^state:[ \t]*(["']?)(?P<path>[^#\r\n]+?)\1[ \t]*(?:#[^\r\n]*)?\r?$""", re.M
)


def save_config_in_use(config: Config) -> None:
    """Write the daemon's configuration to its state folder, unless that can't be written."""
    path = config.state / FILE_NAME
    with suppress(OSError):
        path.unlink(missing_ok=True)  # an older one must not stay if the new one can't be written
    if config.path is None:
        return
    # The copy lists the styles themselves, because the styles folder may be what has become
    # invalid. It leaves out hooks: no command runs them, and they may hold passwords.
    data = config_data(replace(config, styles_folder=None, hooks=HooksConfig()))
    content = {"file": _identifier(config.path), "pid": os.getpid(), "config": data}
    with suppress(ResourceUnavailable):
        atomic_write(path, json.dumps(content).encode(), mode=MODE)


def config_in_use(path: Path) -> Config | None:
    """Return the configuration that a running daemon has loaded from a file.

    The state folder is taken from the file. The copy in it is used only if the owner of the lock
    owns it and nobody else can write to it.

    Args:
        path: The file, which may be invalid, or gone.

    Returns:
        None if no daemon runs with it.
    """
    # Whatever is in the file or the copy, the command then reports the problems of the file.
    with suppress(ConfigError, ResourceUnavailable, OSError, ValueError, LookupError, TypeError):
        state = _state_folder(path)
        lock = state / "lock"
        content = json.loads(_read_of_owner(state / FILE_NAME, os.stat(lock).st_uid))
        owner = InstanceLock(lock).owner()
        if owner is not None and (content["file"], content["pid"]) == (_identifier(path), owner):
            base = path.absolute().parent
            return replace(config_of(content["config"], base, path), state=state)
    return None


def _read_of_owner(path: Path, user: int) -> bytes:
    """Return a file's bytes.

    Raises:
        OSError: it can't be read, or belongs to another user, or others may change it.
    """
    with open(open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != user or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{path}: others may have changed it")
        return file.read(MAX_BYTES)


def _identifier(path: Path) -> str:
    """Return a path as text; the file itself may be a link, which is replaced by an upgrade."""
    return readable(Path(os.path.realpath(path.absolute().parent), path.name))


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
    if isinstance(value, str):
        with suppress(RuntimeError):  # an unknown home folder
            return base / Path(value).expanduser()
    return base / "state"
