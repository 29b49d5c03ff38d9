"""Which configuration a command works with."""

from __future__ import annotations

import os
from pathlib import Path

from rich.text import Text

from styled.cli.exits import errors
from styled.config import Config, load_config
from styled.errors import ConfigError

HERE = Path("config.yaml")
OF_THE_SERVICE = Path("/etc/styled/config.yaml")


def find_config(named: Path | None) -> Config:
    """Return the named configuration, else ./config.yaml, ~/styled's, or the service's.

    Raises:
        ConfigError: it is wrong, or there is none.
    """
    path = named or nearest_config()
    if path is None:
        raise ConfigError(
            f"there is no configuration: neither {' nor '.join(map(str, _places()))}",
            "styled init DIR makes one",
            "or name it: -c FILE",
        )
    return load_config(path)


def nearest_config() -> Path | None:
    """Return the configuration that is used where none is named, if there is one."""
    # What one may not even look at does not exist.
    return next((place for place in _places() if os.path.exists(place)), None)


def _places() -> list[Path]:
    return [place for place in (HERE, _at_home(), OF_THE_SERVICE) if place is not None]


def find_or_make_config(named: Path | None) -> Config:
    """As `find_config`, but make ~/styled where there is none; the service's is the service's.

    Raises:
        ConfigError: it is wrong.
        ResourceUnavailable: the folder can't be made.
    """
    at_home = _at_home()
    if named is not None or os.path.exists(HERE) or at_home is None:
        return find_config(named)
    if not os.path.exists(at_home):
        from styled.cli.init import init_folder

        init_folder(at_home.parent)
        errors.print(
            Text(f"There was no configuration, so {at_home.parent} was made, with a first style."),
            soft_wrap=True,
        )
    return load_config(at_home)


def _at_home() -> Path | None:
    """Return where the configuration is that is used where nothing else is named."""
    try:
        return Path.home() / "styled" / "config.yaml"
    except RuntimeError:  # nobody's home, as in a container
        return None


def current_folder() -> Path:
    """Return the folder that relative paths start at; where it was deleted, there are none."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")
