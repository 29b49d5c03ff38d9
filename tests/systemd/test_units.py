"""The unit files, without a systemd: that they agree with each other and with the program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from styled.cli import exits
from styled.daemon import STOP_SECONDS
from styled.vigil import STUCK_SECONDS

UNITS = Path(__file__).parents[2] / "systemd"
ONE = (UNITS / "styled.service").read_text()
MANY = (UNITS / "styled@.service").read_text()


def directives(unit: str) -> list[str]:
    """Return the lines of a unit that are no comments."""
    return [line for line in unit.splitlines() if line and not line.startswith("#")]


def settings(unit: str, name: str) -> list[str]:
    """Return all values of one directive."""
    return [line.partition("=")[2] for line in directives(unit) if line.startswith(f"{name}=")]


def test_an_instance_is_the_service_with_a_name_in_its_paths() -> None:
    """What hardens the one hardens the other."""
    without_names = [
        line.replace("/%i", "").replace("@%i", "").replace(" (%i)", "") for line in directives(MANY)
    ]
    assert without_names == directives(ONE)
    assert sum(a != b for a, b in zip(directives(ONE), directives(MANY), strict=True)) == 6


def test_nothing_is_said_twice_and_no_line_is_too_long() -> None:
    """Of two values of a directive systemd would take the last, or both."""
    assert max(map(len, (ONE + MANY).splitlines())) <= 100
    singles = [
        line.partition("=")[0]
        for line in directives(ONE)
        if not line.startswith(("DeviceAllow", "Environment", "Exec", "After", "SystemCallFilter"))
    ]
    assert len(set(singles)) == len(singles)


def test_the_exit_codes_that_end_it_are_those_of_the_program() -> None:
    """Wrong usage, folders, configuration; all others are tried again."""
    codes = {int(code) for code in settings(ONE, "RestartPreventExitStatus")[0].split()}
    assert codes == {exits.USAGE, exits.NOT_WRITABLE, exits.BAD_CONFIG}


def test_its_times_fit_those_of_the_program() -> None:
    """A stop is over in time, and what is stuck is said before the watchdog bites."""
    assert int(settings(ONE, "TimeoutStopSec")[0]) > 5 * STOP_SECONDS
    (watchdog,) = settings(ONE, "WatchdogSec")
    assert float(watchdog.removesuffix("min")) * 60 > 1.5 * STUCK_SECONDS


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", ["styled.service", "styled@.service"])
def test_it_is_exposed_as_little_as_a_gpu_allows(unit: str) -> None:
    """By systemd's own count, of which ten would be the worst."""
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / unit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", ran.stdout)
    assert found is not None, ran.stdout + ran.stderr
    assert float(found[1]) <= 1.5
