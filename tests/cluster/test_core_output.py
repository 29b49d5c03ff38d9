"""Lines of Ray's core in the log."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from styled.cluster.core_output import logged_core_output


def test_each_line_is_a_record_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    """Also one that is broken; afterwards standard error is what it was."""
    with capture_logs() as records, logged_core_output():
        os.write(2, b"[2026-01-01 E 1 2] core.cc:3: gone\n\n")
        os.write(2, b"half \xff")
    os.write(2, b"after\n")
    assert records == [
        {"event": "library.logged", "library": "ray", "log_level": "warning", "message": message}
        for message in ("[2026-01-01 E 1 2] core.cc:3: gone", "half \ufffd")
    ]
    assert capfd.readouterr().err == "after\n"


def test_a_process_that_lives_on_delays_the_end_by_no_more_than_a_second() -> None:
    """It has inherited the pipe."""
    with logged_core_output():
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.poll() is None
    child.communicate(b"\n")


def test_a_closed_standard_error_is_left_closed() -> None:
    """As by `2>&-`."""
    code = (
        "import os\n"
        "from styled.cluster.core_output import logged_core_output\n"
        "with logged_core_output():\n"
        "    pass\n"
        "try:\n"
        "    os.fstat(2)\n"
        "except OSError:\n"
        "    print('closed')\n"
    )
    shell = f'exec "{sys.executable}" -c "$CODE" 2>&-'
    done = subprocess.run(
        ["sh", "-c", shell], env={**os.environ, "CODE": code}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "closed\n"
