"""Tests of the commands that install optional packages."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from styled import extras
from styled.extras import install_command

STYLED = Path(__file__).parents[1]


def version(name: str) -> str:
    """Find no package."""
    raise PackageNotFoundError(name)


def test_it_names_the_python_that_styled_runs_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pip may come first on the PATH; paths may hold blanks; uv's have no pip."""
    monkeypatch.setattr(sys, "executable", "/opt/my styled/bin/python")
    monkeypatch.setattr(extras, "version", lambda name: "26.0")
    assert install_command("rawpy") == "'/opt/my styled/bin/python' -m pip install rawpy"
    monkeypatch.setattr(extras, "version", version)
    assert install_command("rawpy") == "uv pip install --python '/opt/my styled/bin/python' rawpy"


def test_the_packages_are_those_of_the_extras() -> None:
    """Each package that a message names is one of an extra of styled."""
    project = tomllib.loads((STYLED / "pyproject.toml").read_text())["project"]
    declared = {
        re.split(r"[<>=\[]", requirement)[0]
        for extra in ("heif", "raw", "jxl", "cluster")
        for requirement in project["optional-dependencies"][extra]
    }
    named: set[str] = set()
    for path in (STYLED / "styled").rglob("*.py"):
        named.update(re.findall(r"""install_command\(["']([\w-]+)["']\)""", path.read_text()))
        named.update(re.findall(r"""^_PACKAGE = "([\w-]+)\"""", path.read_text(), re.M))
    assert named == declared
