"""The section `hooks`: lists of words with known placeholders."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.config import load_config
from styled.errors import ConfigError


def load(folder: Path, hooks: str) -> tuple[str, ...]:
    path = folder / "config.yaml"
    path.write_text(f"hooks:\n  on_done: {hooks}\n")
    return load_config(path).hooks.on_done


def test_a_command_is_a_list_of_words(tmp_path: Path) -> None:
    """Placeholders are filled in later; other braces are left alone."""
    words = load(tmp_path, '[rsync, "{result}", "{}", "{ x }", "a{style}b"]')
    assert words == ("rsync", "{result}", "{}", "{ x }", "a{style}b")
    assert load(tmp_path, "[]") == ()


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ("rsync {result} /mnt", "expected a list"),
        ('[echo, "{resutl}"]', "unknown placeholder {resutl}: there are {result}, {sidecar}"),
        ('["", a]', "the program; it must not be empty"),
        ("[echo, 7]", "expected text"),
    ],
)
def test_problems_are_named_with_their_line(tmp_path: Path, hooks: str, message: str) -> None:
    """A shell command line is no list; a typing error in a placeholder is found at the start."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, hooks)
    assert message in str(caught.value)
    assert "config.yaml:2: hooks.on_done" in str(caught.value)
