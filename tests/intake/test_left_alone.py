"""Names and folders that are left alone."""

from __future__ import annotations

from pathlib import Path

from styled.config import IntakeConfig
from styled.config.ignore import DEFAULT_IGNORE, IgnoreRules
from styled.intake.scanning import scan


def found(inbox: Path, rules: IgnoreRules | None = None) -> list[str]:
    return [file.path for file in scan(inbox, rules or IgnoreRules(DEFAULT_IGNORE))]


def test_a_folder_with_nomedia_is_left_alone_with_all_below_it(tmp_path: Path) -> None:
    """As photo libraries do; in the inbox itself such a file means nothing."""
    for name in ("a/.nomedia", "a/1.jpg", "a/b/2.jpg", "c/3.jpg", ".nomedia", "4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert found(tmp_path) == ["4.jpg", "c/3.jpg"]
    (tmp_path / "a/.nomedia").unlink()
    assert found(tmp_path) == ["4.jpg", "a/1.jpg", "a/b/2.jpg", "c/3.jpg"]


def test_ignore_also_extends_the_default_list(tmp_path: Path) -> None:
    """`ignore` replaces it."""
    also = IntakeConfig(ignore_also=("*_original.*",)).ignored_names
    for name in ("1.jpg", "1_original.jpg", "2.part"):
        (tmp_path / name).touch()
    assert found(tmp_path, IgnoreRules(also)) == ["1.jpg"]
    only = IntakeConfig(ignore=("*_original.*",)).ignored_names
    assert found(tmp_path, IgnoreRules(only)) == ["1.jpg", "2.part"]
