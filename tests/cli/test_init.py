"""`styled init` and where a configuration is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from styled.cli.init import init_folder
from styled.cli.working_folder import find_config, find_or_make_config
from styled.config import load_config
from styled.errors import ConfigError, ResourceUnavailable
from styled.stages import check_styles
from tests.cli.conftest import Run


def test_init_makes_a_folder_that_is_ready(run: Run, here: Path) -> None:
    """The new configuration is valid, its style can be read, and its folders are there."""
    result = run("init", "paintings")
    assert result.exit_code == 0
    config = load_config(here / "paintings/config.yaml")
    check_styles(config)
    assert config.default_style == "red-trees"
    assert list(config.styles) == ["red-trees"]
    assert (config.inbox / config.default_style).is_dir()
    assert config.outbox.is_dir()
    assert "styled run -c" in result.output


def test_init_never_changes_a_configuration(run: Run, here: Path) -> None:
    """A second init leaves everything as it is and exits with 73."""
    (here / "config.yaml").write_text("mine")
    result = run("init", ".")
    assert result.exit_code == 73
    assert "already there" in result.output
    assert [path.name for path in here.iterdir()] == ["config.yaml"]
    assert (here / "config.yaml").read_text() == "mine"


def test_init_keeps_a_picture_that_is_already_there(here: Path) -> None:
    """A style image of the same name is not drawn over."""
    (here / "styles").mkdir()
    Image.new("RGB", (40, 40)).save(here / "styles/red-trees.png")
    before = (here / "styles/red-trees.png").read_bytes()
    init_folder(here)
    assert (here / "styles/red-trees.png").read_bytes() == before


def test_init_where_nothing_can_be_made_exits_with_73(run: Run, here: Path) -> None:
    """A file in the way is told in words."""
    (here / "file").write_text("")
    result = run("init", "file/paintings")
    assert result.exit_code == 73
    assert "can't be written" in result.output


def test_the_nearest_configuration_counts(here: Path) -> None:
    """The named file, else ./config.yaml, else the one in ~/styled."""
    home = init_folder(Path.home() / "styled").config
    assert find_config(None).path == home
    init_folder(here)
    assert find_config(None).base == here
    assert find_config(home).path == home


def test_without_any_configuration_run_makes_one_and_says_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`styled run` alone is enough to begin; looking commands make nothing."""
    with pytest.raises(ConfigError):
        find_config(None)
    assert find_or_make_config(None).base == Path.home() / "styled"
    assert "was made" in capsys.readouterr().err
    assert find_or_make_config(None).base == Path.home() / "styled"
    assert capsys.readouterr().err == ""


def test_a_named_configuration_is_never_made(here: Path) -> None:
    """A wrong name is an error, not a new folder."""
    with pytest.raises(ConfigError):
        find_or_make_config(here / "typo.yaml")
    assert list(here.iterdir()) == []


def test_an_occupied_home_is_told(here: Path) -> None:
    """If ~/styled can't be made, that is the error."""
    Path.home().write_text("a file")
    with pytest.raises(ResourceUnavailable):
        find_or_make_config(None)
