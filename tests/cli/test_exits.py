"""From errors to exit codes."""

from __future__ import annotations

import pytest
import typer

from styled import errors
from styled.cli.exits import errors_as_exit_codes, leave_with_usage_error
from styled.errors import StyledError

EXPECTED = {
    "DiskTrouble": 75,
    "NoJournal": 73,
    "NotMounted": 75,
    "PlaceRefused": 73,
    "Forbidden": 73,
    "FolderNotWritable": 73,
    "InputStuck": 73,
    "StyleUnavailable": 73,
    "MemoryShortage": 75,
    "JournalDamaged": 75,
    "DeviceLost": 75,
    "DeviceError": 69,
    "WeightsError": 69,
    "ResourceUnavailable": 73,
    "InUse": 73,
    "ConfigError": 78,
    "InputRejected": 1,
    "InputIncomplete": 1,
    "EngineFailure": 1,
    "StyledError": 75,
    "EngineDied": 75,
    "InboxUnavailable": 73,
    "TooManyPixels": 1,
    "UnexpectedError": 75,
}


def test_every_error_of_the_family_has_its_code() -> None:
    """No error is forgotten in the table below."""
    family = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, StyledError)
    }
    assert family == set(EXPECTED)


@pytest.mark.parametrize(("name", "code"), EXPECTED.items())
def test_an_error_becomes_words_and_a_code(
    capsys: pytest.CaptureFixture[str], name: str, code: int
) -> None:
    """Each error prints message and remedies on standard error and leaves with its code."""
    with pytest.raises(typer.Exit) as left, errors_as_exit_codes():
        raise getattr(errors, name)("it broke [bold]here", "mend it", "or not")
    assert left.value.exit_code == code
    said = capsys.readouterr()
    assert said.err == "styled: it broke [bold]here\n  - mend it\n  - or not\n"
    assert said.out == ""


def test_names_in_messages_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters and bytes that are not UTF-8 are escaped; lines stay lines."""
    with pytest.raises(typer.Exit), errors_as_exit_codes():
        raise StyledError("a\x1b[2J\udcff\nb", "c\x07")
    assert capsys.readouterr().err == "styled: a\\x1b[2J\\udcff\nb\n  - c\\x07\n"


def test_other_errors_are_not_hidden() -> None:
    """A programming error is no exit code."""
    with pytest.raises(ZeroDivisionError), errors_as_exit_codes():
        raise ZeroDivisionError


def test_wrong_usage_is_two(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line leaves with 2 and says why."""
    with pytest.raises(typer.Exit) as left:
        leave_with_usage_error("name a style\x1b")
    assert left.value.exit_code == 2
    assert capsys.readouterr().err == "styled: name a style\\x1b\n"
