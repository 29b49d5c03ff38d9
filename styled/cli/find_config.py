"""Finds the configuration file of a command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.text import Text

from styled.cli.exit_codes import error_console, print_error
from styled.config import Config, load_config
from styled.errors import ConfigError
from styled.ops.config_in_use import config_in_use

LOCAL_CONFIG = Path("config.yaml")
SYSTEM_CONFIG = Path("/etc/styled/config.yaml")


def find_config(config_path: Path | None) -> Config:
    """Load the given configuration, or else the first that exists of the default locations.

    These are ./config.yaml, ~/styled/config.yaml and /etc/styled/config.yaml, the service's.

    Raises:
        ConfigError: It is invalid, or there is none.
    """
    path = config_path or nearest_config()
    if path is None:
        raise ConfigError(
            f"there is no configuration: neither {' nor '.join(map(str, _search_paths()))}",
            "styled init DIR makes one",
            "or name it: -c FILE",
        )
    return load_config(path)


def find_config_in_use(config_path: Path | None) -> Config:
    """Like `find_config`; if the file is invalid, use what a running daemon has loaded from it.

    The problems of the file are printed then. For commands that ask the daemon.
    """
    config, problem = config_or_problem(config_path)
    if problem is not None:
        print_error(problem)
    return config


def config_or_problem(config_path: Path | None) -> tuple[Config, ConfigError | None]:
    """Like `find_config_in_use`, but return the problems of the file instead of printing them."""
    try:
        return find_config(config_path), None
    except ConfigError as error:
        path = config_path or nearest_config()
        config = None if path is None else config_in_use(path)
        if config is None:
            raise
        return config, ConfigError(
            error.message,
            *error.remedies,
            "the running daemon keeps what it has loaded before, which this command uses",
        )


def nearest_config() -> Path | None:
    """Return the path of the configuration that is used by default, or None if there is none."""
    # `os.path.exists` is False for a file in a folder without search permission.
    return next((path for path in _search_paths() if os.path.exists(path)), None)


def _search_paths() -> list[Path]:
    return [path for path in (LOCAL_CONFIG, _home_config(), SYSTEM_CONFIG) if path is not None]


def find_or_make_config(config_path: Path | None) -> Config:
    """Load the given configuration, else ./config.yaml, else ~/styled/config.yaml.

    ~/styled is created if it is missing, unless there is a service: its configuration is never
    used by chance, since files of another user would get into its folders.

    Raises:
        ConfigError: It is invalid, or there is none but the service's.
        ResourceUnavailable: The folder can't be created.
    """
    home_config = _home_config()
    if config_path is not None or os.path.exists(LOCAL_CONFIG) or home_config is None:
        return find_config(config_path)
    if not os.path.exists(home_config):
        if os.path.exists(SYSTEM_CONFIG):
            raise ConfigError(
                f"there is no configuration of your own, but a service's: {SYSTEM_CONFIG}",
                f"for the service's folders: sudo -u styled {sys.argv[0]} ... -c {SYSTEM_CONFIG}",
                f"for folders of your own: styled init {home_config.parent}",
            )
        from styled.cli.init import init_folder

        init_folder(home_config.parent)
        error_console.print(
            Text(
                f"There was no configuration, so {home_config.parent} was made, with a first style."
            ),
            soft_wrap=True,
        )
    return load_config(home_config)


def _home_config() -> Path | None:
    """Return ~/styled/config.yaml, or None if the user has no home folder."""
    try:
        return Path.home() / "styled" / "config.yaml"
    except RuntimeError:  # the user has no home folder, as in a container
        return None


def current_folder() -> Path:
    """Return the current folder, or the root folder if the current one was deleted."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")
