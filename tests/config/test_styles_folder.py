"""Styles by files: each picture in the styles folder is a style."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.config import Config, load_config, show_config
from styled.config.styles_folder import folder_stamp
from styled.errors import ConfigError
from styled.styles_watch import StylesWatch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty styles folder."""
    folder = tmp_path / "styles"
    folder.mkdir()
    return folder


def load(folder: Path, text: str = "") -> Config:
    path = folder.parent / "config.yaml"
    path.write_text(f"styles_folder: styles\n{text}")
    return load_config(path)


def test_each_picture_is_a_style(folder: Path) -> None:
    """Named after its file, whatever its format; other files are none."""
    for name in ("Great Wave.jpg", "näht.PNG", "notes.txt", ".hidden.jpg", "late.jpg.part"):
        (folder / name).touch()
    (folder / "sub.jpg").mkdir()
    config = load(folder, "default_style: Great Wave\n")
    assert list(config.styles) == ["Great Wave", "näht"]
    assert config.styles["näht"].images[0].path == folder / "näht.PNG"
    assert config.styles["näht"].recipe.name == "pyramid"
    assert config.inbox_folders == ("Great Wave", "näht")
    assert config.left_out == ()
    assert config.default_style == "Great Wave"


def test_settings_beside_the_picture(folder: Path) -> None:
    """Recipe, overrides, output and priority."""
    (folder / "wave.jpg").touch()
    (folder / "wave.yaml").write_text(
        "recipe: d2l\noverrides: {steps: 9}\noutput: {format: png}\npriority: 3\n"
    )
    (folder / "lonely.yaml").write_text("not: a style's\n")
    config = load(folder)
    assert list(config.styles) == ["wave"]
    style = config.styles["wave"]
    assert (style.recipe.name, style.recipe.steps, style.output.format) == ("d2l", 9, "png")
    assert config.priorities.of("wave/a.jpg", "wave") == 3


def test_the_configuration_wins_where_names_meet(folder: Path) -> None:
    """The picture and the settings of that name are not used, valid or not."""
    (folder / "wave.jpg").touch()
    (folder / "wave.yaml").write_text("steps: wrong\n")
    config = load(folder, "styles: {wave: {image: other.jpg}, sea: {image: sea.jpg}}\n")
    assert set(config.styles) == {"wave", "sea"}
    assert config.styles["wave"].images[0].path == folder.parent / "other.jpg"


def test_problems_name_the_file_beside_the_picture(folder: Path) -> None:
    """With its lines, together with those of the configuration."""
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).touch()
    (folder / "a.yaml").write_text("recipe:\n  stepps: 3\nimage: other.jpg\n")
    (folder / "b.yaml").write_text("- a list\n")
    with pytest.raises(ConfigError) as caught:
        load(folder, "output: {quality: 0}\n")
    lines = caught.value.message.splitlines()
    base = folder.parent
    assert lines[0].startswith(f"{base}/config.yaml:2: output.quality: expected")
    assert f'{folder}/a.yaml:2: recipe.stepps: unknown key; did you mean "steps"?' in lines
    assert f"{folder}/a.yaml:3: image: the picture beside this file is the style's image" in lines
    assert f"{folder}/b.yaml: expected a mapping of keys to values" in lines
    (folder / "a.yaml").write_text("recipe: [\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:2: not valid YAML"):
        load(folder)


def test_pictures_that_can_be_no_style_are_reported(folder: Path) -> None:
    """A name that no folder can have, or that is taken; the others are styles all the same."""
    for name in ("a.jpg", "a.png", "gallery_files.jpg", "both.jpg", "fine.jpg"):
        (folder / name).touch()
    config = load(folder, "folders: {both: [fine]}\n")
    assert list(config.styles) == ["a", "fine"]
    assert config.styles["a"].images[0].path.name == "a.jpg"
    first, second, third = config.left_out
    assert first.endswith('a.png is not a style: another picture of the style "a" comes before it')
    assert "both.jpg is not a style" in second
    assert "gallery_files.jpg is not a style: this name is the gallery's" in third


def test_a_missing_folder_has_no_styles(folder: Path) -> None:
    """The daemon makes it; one that can't be read is an error."""
    folder.rmdir()
    assert load(folder).styles == {}
    folder.write_text("a file")
    with pytest.raises(ConfigError, match=r"styles_folder: .* can't be read: Not a directory"):
        load(folder)


def test_it_can_be_shown_and_loaded_again(folder: Path) -> None:
    """`config show` lists its styles, which are the same wherever that is loaded."""
    (folder / "wave.jpg").touch()
    config = load(folder)
    again = folder.parent / "again.yaml"
    again.write_text(show_config(config))
    assert load_config(again).styles == config.styles


def test_a_change_is_reported_once_it_has_settled(folder: Path) -> None:
    """A picture that is added, replaced or removed, and settings; not other files."""
    changes: list[int] = []
    watch = StylesWatch(folder, folder_stamp(folder), lambda: changes.append(1))

    def reported_after(polls: int) -> int:
        before = len(changes)
        for _ in range(polls):
            watch.poll()
        return len(changes) - before

    assert reported_after(3) == 0
    (folder / "a.jpg").write_bytes(b"1")
    assert reported_after(1) == 0
    (folder / "a.jpg").write_bytes(b"12")  # still being written
    assert reported_after(1) == 0
    assert reported_after(1) == 1
    assert reported_after(3) == 0
    (folder / "a.yaml").write_text("priority: 1\n")
    assert reported_after(3) == 1
    (folder / "notes.txt").write_text("none")
    assert reported_after(3) == 0
    (folder / "a.jpg").unlink()
    assert reported_after(3) == 1
    assert [name for name, _, _ in folder_stamp(folder)] == ["a.yaml"]
    (folder / "a.yaml").unlink()
    (folder / "notes.txt").unlink()
    folder.rmdir()
    assert reported_after(3) == 1


def test_a_link_to_nothing_does_not_hide_changes(folder: Path) -> None:
    """As editors make them to lock a file."""
    (folder / ".#a.yaml").symlink_to("someone@somewhere.1")
    (folder / "a.jpg").touch()
    assert [name for name, _, _ in folder_stamp(folder)] == ["a.jpg"]


@pytest.mark.parametrize(
    "text", ["strength: " + "1:" * 300 + "1.0", 'recipe: "\\UFFFFFFFF"', "%YAML 1." + "9" * 5000]
)
def test_settings_on_which_the_reader_fails_are_an_error_of_the_file(
    folder: Path, text: str
) -> None:
    """And none of the program."""
    (folder / "a.jpg").touch()
    (folder / "a.yaml").write_text(f"{text}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        load(folder)


def test_a_change_during_the_start_is_found(folder: Path) -> None:
    """The folder is compared with what it was when the configuration was read."""
    config = load(folder)
    (folder / "late.jpg").write_bytes(b"1")
    changes: list[int] = []
    watch = StylesWatch(folder, config.styles_stamp, lambda: changes.append(1))
    for _ in range(3):
        watch.poll()
    assert changes == [1]
