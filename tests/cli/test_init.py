"""Tests of `styled init` and of the search for the configuration."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from styled.cli import find_config as find_config_module
from styled.cli.find_config import find_config, find_or_make_config
from styled.cli.init import init_folder
from styled.codec.style_check import check_styles
from styled.config import Config, load_config
from styled.errors import ConfigError, ResourceUnavailable
from tests.cli.conftest import Run, draw


def test_init_makes_a_folder_that_is_ready(run: Run, cwd: Path) -> None:
    """The new configuration is valid, its style can be read, and its folders exist."""
    result = run("init", "paintings")
    assert result.exit_code == 0
    config = load_config(cwd / "paintings/config.yaml")
    check_styles(config)
    assert config.default_style == "red-trees"
    assert list(config.styles) == ["red-trees"]
    assert (config.inbox / config.default_style).is_dir()
    assert config.outbox.is_dir()
    assert "styled run -c" in result.output


def test_a_picture_put_into_the_folder_of_styles_is_a_style(cwd: Path) -> None:
    """What `styled init` makes watches it; the first style has its settings in the file."""
    created = init_folder(cwd / "work", weights="untrained")
    draw(created.folder / "styles/wave.png")
    config = load_config(created.config)
    assert set(config.styles) == {"red-trees", "wave"}
    assert config.styles["red-trees"].recipe.size.long_edge == 512
    assert config.styles_folder == created.folder / "styles"


def test_init_for_a_service_makes_no_folders(run: Run, cwd: Path) -> None:
    """With `--folders` only the configuration and a style are created; the daemon does the rest."""
    result = run("init", "etc", "--folders", "data")
    assert result.exit_code == 0
    assert sorted(str(path.relative_to(cwd)) for path in cwd.rglob("*")) == [
        "etc", "etc/config.yaml", "etc/styles", "etc/styles/red-trees.png",
    ]  # fmt: skip
    config = load_config(cwd / "etc/config.yaml")
    check_styles(config)
    # The path is relative to the current folder and not to that of the configuration.
    assert folders_of(config) == {name: cwd / "data" / name for name in FOLDERS}
    assert f"Drop photos in: {cwd}/data/inbox (made by the start)\n" in result.output
    assert f"styled run -c {cwd}/etc/config.yaml\n" in result.output


def test_without_folders_they_move_with_the_configuration(run: Run, cwd: Path) -> None:
    """A working folder has relative paths and can be moved; with `--folders` they are absolute."""
    run("init", "one")
    run("init", "two", "--folders", "data")
    for name in ("one", "two"):
        (cwd / name).rename(cwd / f"moved-{name}")
    assert load_config(cwd / "moved-one/config.yaml").state == cwd / "moved-one/state"
    assert load_config(cwd / "moved-two/config.yaml").state == cwd / "data/state"


FOLDERS = ("inbox", "outbox", "archive", "rejected", "state")


def folders_of(config: Config) -> dict[str, Path]:
    """Return the paths of the five folders by name."""
    return {name: getattr(config, name) for name in FOLDERS}


ODD = (
    "a folder", "#5", "key: value", "it's", 'say "so"', "{curly}", "[square]", "100%", "$HOME",
    "back\\slash", "@home", "*star", "&and", "!bang", "|pipe", "> more", "null", "true", "1e3",
    "- item", "?", "tab\there", "line\nbreak", "caf\u00e9", os.fsdecode(b"caf\xe9"), " ", "~tilde",
)  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_any_path_survives_the_configuration(run: Run, cwd: Path, name: str) -> None:
    """Paths with special characters of YAML are quoted correctly."""
    assert run("init", "etc", "--folders", cwd / name).exit_code == 0
    config = load_config(cwd / "etc/config.yaml")
    assert folders_of(config) == {folder: cwd / name / folder for folder in FOLDERS}
    assert not (cwd / name).exists()


@pytest.mark.parametrize("name", ODD)
def test_any_name_of_weights_survives_the_configuration(run: Run, cwd: Path, name: str) -> None:
    """Paths of weights with special characters of YAML are quoted correctly."""
    assert run("init", "etc", "--weights", cwd / f"{name}.pth").exit_code == 0
    assert str(load_config(cwd / "etc/config.yaml").engine.weights) == str(cwd / f"{name}.pth")


def test_pictures_in_a_path_survive_the_configuration(run: Run, cwd: Path) -> None:
    """Characters outside the Basic Multilingual Plane are supported in paths."""
    assert run("init", "etc", "--folders", cwd / "\N{ARTIST PALETTE}").exit_code == 0
    assert load_config(cwd / "etc/config.yaml").inbox == cwd / "\N{ARTIST PALETTE}/inbox"


@pytest.mark.parametrize("character", ["\x7f", "\x85", "\x9b", "\ufffe"])
def test_what_cannot_be_seen_survives_the_configuration(
    run: Run, cwd: Path, character: str
) -> None:
    """Characters that YAML treats as line breaks or does not allow are supported in paths."""
    assert run("init", "etc", "--folders", cwd / f"a{character}b").exit_code == 0
    assert load_config(cwd / "etc/config.yaml").inbox == cwd / f"a{character}b/inbox"


def test_init_never_changes_a_configuration(run: Run, cwd: Path) -> None:
    """A second init changes nothing and exits with 73."""
    (cwd / "config.yaml").write_text("mine")
    result = run("init", ".")
    assert result.exit_code == 73
    assert "already there" in result.output
    assert [path.name for path in cwd.iterdir()] == ["config.yaml"]
    assert (cwd / "config.yaml").read_text() == "mine"


def test_init_keeps_a_picture_that_is_already_there(cwd: Path) -> None:
    """An existing style image of the same name is not overwritten."""
    (cwd / "styles").mkdir()
    Image.new("RGB", (40, 40)).save(cwd / "styles/red-trees.png")
    before = (cwd / "styles/red-trees.png").read_bytes()
    init_folder(cwd)
    assert (cwd / "styles/red-trees.png").read_bytes() == before


def test_init_where_nothing_can_be_made_exits_with_73(run: Run, cwd: Path) -> None:
    """A file in place of a parent folder gives a clear error."""
    (cwd / "file").write_text("")
    result = run("init", "file/paintings")
    assert result.exit_code == 73
    assert "can't be written" in result.output


def test_the_nearest_configuration_counts(cwd: Path) -> None:
    """The given file is used, else ./config.yaml, else ~/styled/config.yaml."""
    home = init_folder(Path.home() / "styled").config
    assert find_config(None).path == home
    init_folder(cwd)
    assert find_config(None).base == cwd
    assert find_config(home).path == home


def install_service(config: Path) -> Path:
    """Create the configuration of a service; return its path."""
    config_path = init_folder(config.parent, folders=config.parent / "data").config
    assert config_path == config
    return config_path


def test_without_an_own_configuration_it_is_the_services(run: Run, cwd: Path) -> None:
    """Without another configuration `styled status` uses the service's, and creates nothing."""
    path = install_service(find_config_module.SYSTEM_CONFIG)
    assert find_config(None).path == path
    result = run("status")
    assert result.exit_code == 73
    assert f"there is no journal at {path.parent}/data/state/" in result.output
    assert list(cwd.iterdir()) == []
    assert not Path.home().exists()


def test_an_own_configuration_comes_before_the_services(cwd: Path) -> None:
    """./config.yaml and ~/styled come before the service's; a wrong path is an error."""
    install_service(find_config_module.SYSTEM_CONFIG)
    home = init_folder(Path.home() / "styled").config
    assert find_config(None).path == home
    init_folder(cwd)
    assert find_config(None).base == cwd
    with pytest.raises(ConfigError):
        find_config(cwd / "typo.yaml")


def test_what_is_wrong_with_a_nearer_one_is_reported(cwd: Path) -> None:
    """An invalid configuration in ~/styled is an error; the service's is not used instead."""
    install_service(find_config_module.SYSTEM_CONFIG)
    (Path.home() / "styled").mkdir(parents=True)
    (Path.home() / "styled/config.yaml").write_text("inbox: [")
    with pytest.raises(ConfigError):
        find_config(None)


def test_the_service_is_never_run_by_chance(cwd: Path) -> None:
    """Beside a service `styled run` makes nothing by itself, and says how to go on."""
    path = install_service(find_config_module.SYSTEM_CONFIG)
    with pytest.raises(ConfigError) as caught:
        find_or_make_config(None)
    assert f"sudo -u styled {sys.argv[0]} ... -c {path}" in str(caught.value)
    assert f"styled init {Path.home() / 'styled'}" in str(caught.value)
    assert not Path.home().exists()
    init_folder(Path.home() / "styled")
    assert find_or_make_config(None).base == Path.home() / "styled"


@pytest.mark.parametrize(("folder", "unit"), [(".", "styled"), ("left", "styled@left")])
def test_of_a_service_the_unit_is_to_be_started(
    run: Run, cwd: Path, folder: str, unit: str
) -> None:
    """The next step after `init` in the service's folder is systemctl."""
    path = find_config_module.SYSTEM_CONFIG.parent / folder
    output = run("init", path, "--folders", cwd / "data").output
    assert f"Start:          sudo systemctl enable --now {unit}\n" in output
    output = run("init", cwd / "mine").output
    assert f"Start:          styled run -c {cwd}/mine/config.yaml\n" in output


@pytest.mark.usefixtures("cwd")
def test_who_has_no_home_has_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home folder, as in a container, uses the service's configuration."""
    path = install_service(find_config_module.SYSTEM_CONFIG)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("styled.cli.find_config.Path.home", homeless)
    assert find_config(None).path == path


def test_without_any_configuration_run_makes_one_and_says_so(
    cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`find_or_make_config` creates ~/styled and says so; `find_config` creates nothing."""
    with pytest.raises(ConfigError):
        find_config(None)
    assert find_or_make_config(None).base == Path.home() / "styled"
    assert "was made" in capsys.readouterr().err
    assert find_or_make_config(None).base == Path.home() / "styled"
    assert capsys.readouterr().err == ""


def test_a_named_configuration_is_never_made(cwd: Path) -> None:
    """A wrong path is an error and does not create a folder."""
    with pytest.raises(ConfigError):
        find_or_make_config(cwd / "typo.yaml")
    assert list(cwd.iterdir()) == []


def test_an_occupied_home_is_reported(cwd: Path) -> None:
    """If ~/styled can't be created, the error says so."""
    Path.home().write_text("a file")
    with pytest.raises(ResourceUnavailable):
        find_or_make_config(None)
