"""How much CPU time an idle daemon uses, and how much it writes."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon_harness import DaemonHarness, make_harness

# Long, because whole programs run, possibly on a busy machine.
pytestmark = pytest.mark.timeout(400)

SETTLING_SECONDS = 25.0
"""Time after a job until its metrics and thumbnails are written."""

IDLE_SECONDS = 60.0

CPU_SECONDS = 0.4
"""Limit. Measured: 0.04, on 2 cores of an AMD EPYC; the margin is for slower machines."""

WRITTEN_BYTES = 2000
"""Limit. Measured: 0; one metrics file has about 8000."""


@dataclass(frozen=True)
class Usage:
    """What a process has used since its start.

    Attributes:
        cpu_seconds: User and system time of all its threads.
        written: Bytes passed to write(2) and similar calls, whatever the target.
        to_disk: Bytes that the kernel had to write to a disk for it.
        metrics: Modification time of its metrics file, in nanoseconds since the epoch.
    """

    cpu_seconds: float
    written: int
    to_disk: int
    metrics: int


def usage(pid: int, harness: DaemonHarness) -> Usage:
    """Return what a process has used so far."""
    # The program's name in parentheses may contain spaces; the fields after it are split.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return Usage(
        (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        int(io["wchar"]),
        int(io["write_bytes"]),
        (harness.folder / "state/metrics.prom").stat().st_mtime_ns,
    )


def jobs_done(metrics_file: Path) -> float:
    """Return the number of jobs that are done according to the metrics file."""
    families = text_string_to_metric_families(metrics_file.read_text())
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "styled_jobs_finished_total" and sample.labels["outcome"] == "done"
    )


@pytest.fixture
def harness() -> Iterator[DaemonHarness]:
    """Make a working folder on a disk: the kernel does not count writes to a tmpfs."""
    with tempfile.TemporaryDirectory(prefix="styled-idle-", dir="/var/tmp") as folder:
        yield make_harness(Path(folder, "harness"))


class Manager:
    """Stands in for systemd: receives the daemon's sd_notify messages on a socket."""

    def __init__(self, address: Path) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(address))

    def listen(self, seconds: float) -> list[str]:
        """Return the messages that arrive within some time."""
        messages = []
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            self.socket.settimeout(remaining)
            with suppress(TimeoutError):
                messages.append(self.socket.recv(4096).decode())
        return messages


def test_an_idle_daemon_hardly_computes_and_hardly_writes(harness: DaemonHarness) -> None:
    """An idle daemon only pings the watchdog: almost no CPU time, no disk writes, no log lines."""
    manager = Manager(harness.folder / "notify")
    as_service = ["env", f"NOTIFY_SOCKET={manager.address}", "WATCHDOG_USEC=20000000"]
    with closing(manager.socket), harness.running_from_scratch(as_service) as daemon:
        daemon.wait_for("daemon.started")
        harness.drop("a.png", size=(96, 64))
        daemon.wait_for("job.published")
        metrics_file = harness.folder / "state/metrics.prom"
        daemon.wait_until(lambda: jobs_done(metrics_file) == 1, 60)
        manager.listen(SETTLING_SECONDS)
        logged = daemon.log.stat().st_size
        before = usage(daemon.process.pid, harness)
        messages = manager.listen(IDLE_SECONDS)
        after = usage(daemon.process.pid, harness)

        assert after.cpu_seconds - before.cpu_seconds < CPU_SECONDS
        assert after.written - before.written < WRITTEN_BYTES
        assert after.to_disk == before.to_disk
        assert after.metrics == before.metrics
        assert daemon.log.stat().st_size == logged
        # The watchdog was pinged in this time, and no other message was sent.
        assert set(messages) == {"WATCHDOG=1"}
        assert IDLE_SECONDS / 10 < len(messages) <= IDLE_SECONDS / 5 + 1
