"""Tests of the copy of its configuration that a daemon keeps for commands."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from styled.config import Config, load_config
from styled.ops.config_in_use import FILE_NAME, config_in_use, save_config_in_use
from styled.ops.lock import InstanceLock

VALID = """\
state: {state}
styles_folder: styles
styles:
  oil: {{image: oil.png, recipe: gatys}}
hooks: {{on_done: [curl, "https://user:secret@example.com"]}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a valid configuration, whose styles folder has one more style."""
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles/sea.png").write_bytes(b"a picture")
    path = tmp_path / "config.yaml"
    path.write_text(VALID.format(state="'my state'  # a comment"))
    return path


@pytest.fixture
def config(file: Path) -> Config:
    """Return the configuration that a daemon has loaded."""
    config = load_config(file)
    config.state.mkdir()
    save_config_in_use(config)
    return config


@pytest.fixture
def _running(config: Config) -> Iterator[None]:
    lock = InstanceLock(config.state / "lock")
    lock.acquire()
    yield
    lock.release()


@pytest.mark.usefixtures("_running")
@pytest.mark.parametrize(
    "broken",
    [
        VALID.format(state="my state") + "stiles: {}\n",
        VALID.format(state="my state") + "\tx: [\n",
        VALID.format(state='"my state" # here') + "  [\n",
        (VALID.format(state='"my state"') + "  [\n").replace("\n", "\r\n"),
    ],
)
def test_commands_find_what_the_daemon_has_loaded(
    file: Path, config: Config, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found however wrong the file is, with its styles and folders, by any path."""
    file.write_text(broken)
    found = config_in_use(file)
    assert found is not None
    assert found.state == config.state == file.parent / "my state"
    assert found.styles == config.styles
    assert set(found.styles) == {"oil", "sea"}
    assert (found.path, found.base) == (file, config.base)
    monkeypatch.chdir(file.parent)
    relative = config_in_use(Path("config.yaml"))
    assert relative is not None
    assert relative == replace(found, path=Path("config.yaml"))


@pytest.mark.usefixtures("_running")
def test_a_style_of_the_folder_may_be_what_is_wrong(file: Path, config: Config) -> None:
    """The copy does not depend on the styles folder."""
    (file.parent / "styles/sea.yaml").write_text("strength: much\n")
    found = config_in_use(file)
    assert found is not None
    assert set(found.styles) == {"oil", "sea"}


@pytest.mark.usefixtures("_running")
def test_without_the_file_the_state_is_where_it_usually_is(tmp_path: Path) -> None:
    """Of a file that is gone, or unreadable, the state folder is the default one."""
    path = tmp_path / "other.yaml"
    path.write_text("styles: {}\n")
    config = load_config(path)
    config.state.mkdir()
    lock = InstanceLock(config.state / "lock")
    lock.acquire()
    save_config_in_use(config)
    path.unlink()
    assert config_in_use(path) is not None
    path.write_bytes(b"\xff\0")
    assert config_in_use(path) is not None
    # Another configuration of the same folder is not that daemon's.
    assert config_in_use(tmp_path / "third.yaml") is None
    lock.release()


def test_without_a_daemon_there_is_none_in_use(file: Path, config: Config) -> None:
    """What a daemon that has ended had loaded is no one's concern."""
    assert (config.state / FILE_NAME).exists()
    assert config_in_use(file) is None


@pytest.mark.usefixtures("_running")
@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[]", b"{}", b'{"file": 1, "config": 2}'])
def test_a_damaged_copy_is_as_good_as_none(file: Path, config: Config, content: bytes) -> None:
    """The command then fails with the problems of the file itself."""
    (config.state / FILE_NAME).write_bytes(content)
    assert config_in_use(file) is None


@pytest.mark.usefixtures("_running")
def test_a_copy_that_others_may_change_is_not_used(file: Path, config: Config) -> None:
    """Commands of root use it: it belongs to the daemon, is no link, and only its owner writes."""
    copy = config.state / FILE_NAME
    assert stat.S_IMODE(copy.stat().st_mode) == 0o644
    assert config_in_use(file) is not None
    for mode in (0o664, 0o646):
        copy.chmod(mode)
        assert config_in_use(file) is None
    copy.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(copy, 1234, -1)
        assert config_in_use(file) is None
        os.chown(copy, 0, -1)
    copy.rename(config.base / "elsewhere")
    copy.symlink_to(config.base / "elsewhere")
    assert config_in_use(file) is None


@pytest.mark.usefixtures("_running")
def test_a_copy_cannot_name_another_state_folder(file: Path, config: Config) -> None:
    """The journal that commands write to is in the folder that the file names."""
    copy = config.state / FILE_NAME
    content = json.loads(copy.read_bytes())
    content["config"]["state"] = "/elsewhere"
    copy.write_text(json.dumps(content))
    found = config_in_use(file)
    assert found is not None
    assert found.state == config.state


@pytest.mark.usefixtures("_running")
def test_the_copy_is_that_of_the_process_that_runs(file: Path, config: Config) -> None:
    """One that an earlier process has left is not used."""
    copy = config.state / FILE_NAME
    content = json.loads(copy.read_bytes())
    content["pid"] += 1
    copy.write_text(json.dumps(content))
    assert config_in_use(file) is None


def test_hundreds_of_styles_with_any_name_are_no_matter(file: Path) -> None:
    """A folder of paintings may hold many, with names that YAML would take for numbers."""
    for number in range(300):
        (file.parent / f"styles/painting {number}.png").write_bytes(b"a picture")
    (file.parent / "styles/1e5.png").write_bytes(b"a picture")
    config = load_config(file)
    config.state.mkdir()
    save_config_in_use(config)
    lock = InstanceLock(config.state / "lock")
    lock.acquire()
    found = config_in_use(file)
    lock.release()
    assert found is not None
    assert found.styles == config.styles
    assert len(found.styles) == 303


def test_a_file_may_be_a_link_that_is_replaced(file: Path, config: Config, tmp_path: Path) -> None:
    """An upgrade points it at another file, which may be invalid."""
    lock = InstanceLock(config.state / "lock")
    lock.acquire()
    file.rename(tmp_path / "new.yaml")
    (tmp_path / "new.yaml").write_text(VALID.format(state="my state") + "stiles: {}\n")
    file.symlink_to(tmp_path / "new.yaml")
    assert config_in_use(file) is not None
    lock.release()


@pytest.mark.parametrize("state", ['"\\ud800"', '"a\\0b"', "[1]", "~nobody-here/x"])
def test_a_state_folder_that_cannot_be_is_no_crash(file: Path, config: Config, state: str) -> None:
    """The file's own problems are then reported."""
    file.write_text(VALID.format(state=state))
    assert config_in_use(file) is None


def test_hooks_are_not_in_the_copy(config: Config) -> None:
    """Others may read the state folder, and hooks may hold passwords."""
    assert "secret" not in (config.state / FILE_NAME).read_text()


def test_a_state_folder_that_cannot_be_written_is_no_failure(config: Config) -> None:
    """The daemon reports that elsewhere."""
    save_config_in_use(replace(config, state=config.base / "nowhere"))
