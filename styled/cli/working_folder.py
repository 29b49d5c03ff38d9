"""Which configuration a command works with."""

from __future__ import annotations

import os
from pathlib import Path

from rich.text import Text

from styled.cli.exits import errors
from styled.config import Config, load_config

HERE = Path("config.yaml")
OF_THE_SERVICE = Path("/etc/styled/config.yaml")


def home_folder() -> Path:
    """Return the working folder that is used where nothing else is named."""
    return Path.home() / "styled"


def find_config(named: Path | None) -> Config:
    """Return the named configuration, else ./config.yaml, ~/styled's, or the service's.

    Raises:
        ConfigError: it is wrong, or there is none.
    """
    if named is not None:
        return load_config(named)
    if os.path.exists(HERE):  # which is no, and no error, where one may not even look
        return load_config(HERE)
    try:
        at_home = home_folder() / "config.yaml"
    except RuntimeError:  # nobody's home, as in a container
        return load_config(OF_THE_SERVICE)
    if not os.path.exists(at_home) and os.path.exists(OF_THE_SERVICE):
        return load_config(OF_THE_SERVICE)
    return load_config(at_home)


def find_or_make_config(named: Path | None) -> Config:
    """As `find_config`, but make ~/styled where there is none; the service's is the service's.

    Raises:
        ConfigError: it is wrong.
        ResourceUnavailable: the folder can't be made.
    """
    if named is None and not HERE.exists():
        home = home_folder()
        if not (home / "config.yaml").exists():
            from styled.cli.init import init_folder

            init_folder(home)
            errors.print(
                Text(f"There was no configuration, so {home} was made, with a first style."),
                soft_wrap=True,
            )
        return load_config(home / "config.yaml")
    return find_config(named)
