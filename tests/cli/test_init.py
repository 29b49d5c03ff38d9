"""`styled init` and where a configuration is looked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from styled.cli import working_folder
from styled.cli.init import init_folder
from styled.cli.working_folder import find_config, find_or_make_config
from styled.config import Config, load_config
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


def test_init_for_a_service_makes_no_folders(run: Run, here: Path) -> None:
    """With `--folders` there is a configuration and a style; the daemon's user makes the rest."""
    result = run("init", "etc", "--folders", "data")
    assert result.exit_code == 0
    assert sorted(str(path.relative_to(here)) for path in here.rglob("*")) == [
        "etc", "etc/config.yaml", "etc/styles", "etc/styles/red-trees.png",
    ]  # fmt: skip
    config = load_config(here / "etc/config.yaml")
    check_styles(config)
    # From here, as the shell has it, and not from where the configuration is.
    assert folders_of(config) == {name: here / "data" / name for name in FOLDERS}
    assert f"Drop photos in: {here}/data/inbox (made by the start)\n" in result.output
    assert f"styled run -c {here}/etc/config.yaml\n" in result.output


def test_without_folders_they_move_with_the_configuration(run: Run, here: Path) -> None:
    """A working folder may be renamed; one for a service may not, so its paths are absolute."""
    run("init", "one")
    run("init", "two", "--folders", "data")
    for name in ("one", "two"):
        (here / name).rename(here / f"moved-{name}")
    assert load_config(here / "moved-one/config.yaml").state == here / "moved-one/state"
    assert load_config(here / "moved-two/config.yaml").state == here / "data/state"


FOLDERS = ("inbox", "outbox", "archive", "rejected", "state")


def folders_of(config: Config) -> dict[str, Path]:
    """Return the five folders."""
    return {name: getattr(config, name) for name in FOLDERS}


ODD = (
    "a folder", "#5", "key: value", "it's", 'say "so"', "{curly}", "[square]", "100%", "$HOME",
    "back\\slash", "@home", "*star", "&and", "!bang", "|pipe", "> more", "null", "true", "1e3",
    "- item", "?", "tab\there", "line\nbreak", "caf\u00e9", os.fsdecode(b"caf\xe9"), " ", "~tilde",
)  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_any_path_survives_the_configuration(run: Run, here: Path, name: str) -> None:
    """Whatever YAML might take its characters for."""
    assert run("init", "etc", "--folders", here / name).exit_code == 0
    config = load_config(here / "etc/config.yaml")
    assert folders_of(config) == {folder: here / name / folder for folder in FOLDERS}
    assert not (here / name).exists()


@pytest.mark.parametrize("name", ODD)
def test_any_name_of_weights_survives_the_configuration(run: Run, here: Path, name: str) -> None:
    """A file of weights may lie anywhere, too."""
    assert run("init", "etc", "--weights", here / f"{name}.pth").exit_code == 0
    assert str(load_config(here / "etc/config.yaml").engine.weights) == str(here / f"{name}.pth")


def test_pictures_in_a_path_survive_the_configuration(run: Run, here: Path) -> None:
    """There are characters beyond the first 65,536."""
    assert run("init", "etc", "--folders", here / "\N{ARTIST PALETTE}").exit_code == 0
    assert load_config(here / "etc/config.yaml").inbox == here / "\N{ARTIST PALETTE}/inbox"


@pytest.mark.parametrize("character", ["\x7f", "\x85", "\x9b", "\ufffe"])
def test_what_cannot_be_seen_survives_the_configuration(
    run: Run, here: Path, character: str
) -> None:
    """A name may hold characters that YAML takes for a line's end, or for none at all."""
    assert run("init", "etc", "--folders", here / f"a{character}b").exit_code == 0
    assert load_config(here / "etc/config.yaml").inbox == here / f"a{character}b/inbox"


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


def service(config: Path) -> Path:
    """Give the machine a service with a configuration; return that."""
    made = init_folder(config.parent, folders=config.parent / "data").config
    assert made == config
    return made


def test_without_an_own_configuration_it_is_the_services(run: Run, here: Path) -> None:
    """`styled status` on a machine with a service is about that; looking makes nothing."""
    path = service(working_folder.OF_THE_SERVICE)
    assert find_config(None).path == path
    result = run("status")
    assert result.exit_code == 73
    assert f"there is no journal at {path.parent}/data/state/" in result.output
    assert list(here.iterdir()) == []
    assert not Path.home().exists()


def test_an_own_configuration_comes_before_the_services(here: Path) -> None:
    """First the one here, then the one in ~/styled; and a wrong name stays wrong."""
    service(working_folder.OF_THE_SERVICE)
    home = init_folder(Path.home() / "styled").config
    assert find_config(None).path == home
    init_folder(here)
    assert find_config(None).base == here
    with pytest.raises(ConfigError):
        find_config(here / "typo.yaml")


def test_what_is_wrong_with_a_nearer_one_is_told(here: Path) -> None:
    """It is not passed over for the service's."""
    service(working_folder.OF_THE_SERVICE)
    (Path.home() / "styled").mkdir(parents=True)
    (Path.home() / "styled/config.yaml").write_text("inbox: [")
    with pytest.raises(ConfigError):
        find_config(None)


def test_the_service_is_never_run_by_chance(here: Path) -> None:
    """`styled run` without a configuration makes one, for whoever says it."""
    service(working_folder.OF_THE_SERVICE)
    assert find_or_make_config(None).base == Path.home() / "styled"


@pytest.mark.usefixtures("here")
def test_who_has_no_home_has_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a number without an account, in a container."""
    path = service(working_folder.OF_THE_SERVICE)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("styled.cli.working_folder.Path.home", homeless)
    assert find_config(None).path == path


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
