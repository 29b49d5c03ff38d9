"""The unit files, checked without systemd: consistency with each other and with the program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from styled.cli import exit_codes
from styled.daemon import STOP_SECONDS
from styled.health import STALLED_SECONDS

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = (UNITS / "styled.service").read_text()
TEMPLATE = (UNITS / "styled@.service").read_text()
WORKER = (UNITS / "styled-worker.service").read_text()


def directives(unit: str) -> list[str]:
    """Return the lines of a unit without comments and empty lines."""
    return [line for line in unit.splitlines() if line and not line.startswith("#")]


def settings(unit: str, name: str) -> list[str]:
    """Return all values of one directive."""
    return [line.partition("=")[2] for line in directives(unit) if line.startswith(f"{name}=")]


def test_an_instance_is_the_service_with_a_name_in_its_paths() -> None:
    """`styled@.service` equals `styled.service` except for the instance name in six lines."""
    without_names = [
        line.replace("/%i", "").replace("@%i", "").replace(" (%i)", "")
        for line in directives(TEMPLATE)
    ]
    assert without_names == directives(SERVICE)
    assert sum(a != b for a, b in zip(directives(SERVICE), directives(TEMPLATE), strict=True)) == 6


def test_no_directive_is_repeated_and_no_line_is_too_long() -> None:
    """No directive with a single value is repeated, and no line is longer than 100 characters.

    Of two values systemd would use the last, or both.
    """
    assert max(map(len, (SERVICE + TEMPLATE + WORKER).splitlines())) <= 100
    singles = [
        line.partition("=")[0]
        for line in directives(SERVICE)
        if not line.startswith(("DeviceAllow", "Environment", "Exec", "After", "SystemCallFilter"))
    ]
    assert len(set(singles)) == len(singles)


def test_the_exit_codes_that_end_it_are_those_of_the_program() -> None:
    """Only wrong usage, unwritable folders and a bad configuration prevent a restart."""
    codes = {int(code) for code in settings(SERVICE, "RestartPreventExitStatus")[0].split()}
    assert codes == {exit_codes.USAGE, exit_codes.NOT_WRITABLE, exit_codes.BAD_CONFIG}


def test_its_times_fit_those_of_the_program() -> None:
    """The unit's stop and watchdog timeouts are longer than the program's own time limits."""
    assert int(settings(SERVICE, "TimeoutStopSec")[0]) > 5 * STOP_SECONDS
    (watchdog,) = settings(SERVICE, "WatchdogSec")
    assert float(watchdog.removesuffix("min")) * 60 > 1.5 * STALLED_SECONDS


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", ["styled.service", "styled@.service", "styled-worker.service"])
def test_it_is_exposed_as_little_as_a_gpu_allows(unit: str) -> None:
    """The exposure computed by systemd-analyze is at most 1.5, on a scale up to 10 (worst)."""
    completed = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / unit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    match = re.search(r"Overall exposure level for .*: ([0-9.]+)", completed.stdout)
    assert match is not None, completed.stdout + completed.stderr
    assert float(match[1]) <= 1.5
