"""Tests of loading a configuration: from a file, without a file, and from invalid files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from styled.config import Config, StyleImage, default_config, load_config, resolve_recipe
from styled.errors import ConfigError
from styled.recipes import PYRAMID

Load = Callable[[str], Config]
Problems = Callable[[str], list[str]]

TWO_STYLES = """
    default_style: sea
    styles:
      sea: {image: sea.jpg}
      mixed:
        images: [a.jpg, {path: sub/b.jpg, weight: 0.5}]
        recipe: {name: pyramid, steps: 7, seed: 1}
        overrides: {seed: 2}
    folders:
      all: [sea, mixed]
"""


def test_an_empty_file_is_the_default_configuration(load: Load, tmp_path: Path) -> None:
    """An empty file gives the same values as no file."""
    loaded, default = load(""), default_config(tmp_path)
    assert loaded.path == Path("config.yaml")
    assert default.path is None
    assert replace(loaded, path=None) == default
    assert loaded.styles == default.styles == {}


def test_sections_may_be_left_without_content(load: Load) -> None:
    """A section whose lines are all commented out has the default values."""
    config = load("styles:\nfolders:\nengine:\nintake:\nqueue:\noutput:\n")
    assert config.queue.max_attempts == 3


def test_styles_come_out_resolved(load: Load, tmp_path: Path) -> None:
    """Short and long forms give absolute image paths and complete recipes; overrides win."""
    config = load(TWO_STYLES)
    assert config.styles["sea"].images == (StyleImage(tmp_path / "sea.jpg"),)
    assert config.styles["sea"].recipe == PYRAMID
    mixed = config.styles["mixed"]
    assert mixed.images == (
        StyleImage(tmp_path / "a.jpg", 1.0),
        StyleImage(tmp_path / "sub/b.jpg", 0.5),
    )
    assert (mixed.recipe.steps, mixed.recipe.seed) == (7, 2)
    assert config.folders == {"all": ("sea", "mixed")}


def test_paths_start_at_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths refer to the file's folder, `~` is expanded, symlinks are not resolved."""
    monkeypatch.setenv("HOME", "/home/someone")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    path = tmp_path / "link" / "config.yaml"
    path.write_text("inbox: in\noutbox: ~/out\nstate: /var/state\nengine: {weights: w/vgg.PTH}\n")
    config = load_config(path)
    assert config.base == tmp_path / "link"
    assert config.inbox == tmp_path / "link" / "in"
    assert config.outbox == Path("/home/someone/out")
    assert config.state == Path("/var/state")
    assert config.engine.weights == tmp_path / "link" / "w" / "vgg.PTH"


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """The error for a missing file has its path as given, and the command that creates one."""
    with pytest.raises(ConfigError, match="no such file") as caught:
        load_config(tmp_path / "nowhere.yaml")
    assert caught.value.message.startswith(f"{tmp_path / 'nowhere.yaml'}: ")
    assert any("styled init DIR" in remedy for remedy in caught.value.remedies)


def test_what_is_not_a_regular_file_is_not_opened(tmp_path: Path) -> None:
    """A folder and a pipe, which would block the reader, are refused."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigError, match="is not a file"):
            load_config(path)


def test_huge_files_are_refused(load: Load) -> None:
    """A file over 1 MiB is refused before it is parsed."""
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load("#" * (1024 * 1024 + 1))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_editors_are_read(tmp_path: Path, encoding: str) -> None:
    """UTF-8 with or without a byte order mark, and UTF-16 with one, are supported."""
    path = tmp_path / "config.yaml"
    path.write_bytes("inbox: Fotografías".encode(encoding))
    assert load_config(path).inbox.name == "Fotografías"


def test_other_encodings_name_the_line(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are an error, which has their line."""
    path = tmp_path / "config.yaml"
    path.write_bytes(b"outbox: out\ninbox: Fotograf\xedas\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:2: not UTF-8 text"):
        load_config(path)


def test_a_syntax_error_names_the_line(problems: Problems) -> None:
    """Invalid YAML is a single problem, with file and line."""
    assert problems("inbox: in\noutbox: a: b\n") == [
        "config.yaml:2: not valid YAML: mapping values are not allowed here"
    ]


def test_recipes_are_found_by_name() -> None:
    """A valid name gives the recipe; for a typo the error suggests the closest name."""
    assert resolve_recipe("pyramid") == PYRAMID
    with pytest.raises(ConfigError, match='unknown recipe "piramid"; did you mean "pyramid"'):
        resolve_recipe("piramid")


def test_torch_is_not_imported() -> None:
    """Importing `styled.config` does not import torch, so that short commands start quickly."""
    code = "import sys, styled.config; sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], check=False)
    assert result.returncode == 0
