"""Tests of the exit codes of errors."""

from __future__ import annotations

import pytest
import typer

from styled import errors
from styled.cli.exit_codes import errors_as_exit_codes, exit_with_usage_error
from styled.errors import StyledError

EXPECTED = {
    "DiskFailure": 75,
    "NoJournal": 73,
    "NotMounted": 75,
    "NameNotSupported": 73,
    "NameTaken": 73,
    "Forbidden": 73,
    "FolderNotWritable": 73,
    "InputStuck": 73,
    "StyleUnavailable": 73,
    "MemoryShortage": 75,
    "JournalDamaged": 75,
    "DeviceLost": 75,
    "DeviceError": 69,
    "NoNetworkAccess": 78,
    "WeightsError": 69,
    "ClusterUnavailable": 69,
    "ServiceUnhealthy": 69,
    "ResourceUnavailable": 73,
    "InUse": 73,
    "DiskNearlyFull": 73,
    "DiskReadOnly": 73,
    "ConfigError": 78,
    "InputRejected": 1,
    "InputIncomplete": 1,
    "EngineFailure": 1,
    "StyledError": 75,
    "EngineDied": 75,
    "NodeLost": 75,
    "InboxUnavailable": 73,
    "TooManyPixels": 1,
    "UnexpectedError": 75,
}


def test_every_error_of_the_family_has_its_code() -> None:
    """The table above has all error classes."""
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
    """Each error prints message and remedies to standard error and exits with its code."""
    with pytest.raises(typer.Exit) as exit_info, errors_as_exit_codes():
        raise getattr(errors, name)("it broke [bold]here", "mend it", "or not")
    assert exit_info.value.exit_code == code
    captured = capsys.readouterr()
    assert captured.err == "styled: it broke [bold]here\n  - mend it\n  - or not\n"
    assert captured.out == ""


def test_names_in_messages_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters and bytes that are not UTF-8 are escaped; line breaks are kept."""
    with pytest.raises(typer.Exit), errors_as_exit_codes():
        raise StyledError("a\x1b[2J\udcff\nb", "c\x07")
    assert capsys.readouterr().err == "styled: a\\x1b[2J\\udcff\nb\n  - c\\x07\n"


def test_other_errors_are_not_hidden() -> None:
    """Other exceptions, which are programming errors, are not converted."""
    with pytest.raises(ZeroDivisionError), errors_as_exit_codes():
        raise ZeroDivisionError


def test_wrong_usage_is_two(capsys: pytest.CaptureFixture[str]) -> None:
    """A usage error prints its message and exits with 2."""
    with pytest.raises(typer.Exit) as exit_info:
        exit_with_usage_error("name a style\x1b")
    assert exit_info.value.exit_code == 2
    assert capsys.readouterr().err == "styled: name a style\\x1b\n"
