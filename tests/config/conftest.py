"""What the tests of the configuration share: a file to write and its problems to read."""

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
    """Return a function that loads YAML text as `config.yaml` of the current folder."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str) -> Config:
        path = Path("config.yaml")
        path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return load_config(path)

    return load_text


@pytest.fixture
def problems(load: Load) -> Problems:
    """Return a function that loads YAML text and returns the lines of the error it raises."""

    def problems_of(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text)
        return caught.value.message.splitlines()

    return problems_of
