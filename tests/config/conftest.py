"""Fixtures shared by the tests of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from styled.config import Config, load_config
from styled.errors import ConfigError

Load = Callable[[str], Config]
Problems = Callable[[str], list[str]]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that loads YAML text as `config.yaml` in the current folder."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str) -> Config:
        path = Path("config.yaml")
        path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return load_config(path)

    return load_text


@pytest.fixture
def problems(load: Load) -> Problems:
    """Return a function that loads invalid YAML text and returns the lines of the error."""

    def problems_of(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text)
        return caught.value.message.splitlines()

    return problems_of
