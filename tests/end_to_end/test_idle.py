"""A daemon that has nothing to do: how much it computes and writes."""

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

from tests.studio import Studio, make_studio

# Whole programs, on machines that may be busy with other things.
pytestmark = pytest.mark.timeout(400)

SETTLING_SECONDS = 25.0
"""Until the figures of the job that was done are written, and its thumbnails are."""

IDLE_SECONDS = 60.0

CPU_SECONDS = 0.4
"""0.04 were measured, on 2 cores of an AMD EPYC; the rest is for slower machines."""

WRITTEN_BYTES = 2000
"""None were written when it was measured; one metrics file has some 8000."""


@dataclass(frozen=True)
class Usage:
    """What a process has used since it was started.

    Attributes:
        cpu_seconds: User and system time of all its threads.
        written: Bytes that it passed to write(2) and the like, to whatever.
        to_disk: Bytes that it made the kernel write to a disk.
        metrics: When its metrics were written last, in nanoseconds since the epoch.
    """

    cpu_seconds: float
    written: int
    to_disk: int
    metrics: int


def usage(pid: int, studio: Studio) -> Usage:
    """Return what a process of this machine has used."""
    # The name of the program comes first, in parentheses: it may hold blanks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return Usage(
        (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        int(io["wchar"]),
        int(io["write_bytes"]),
        (studio.folder / "state/metrics.prom").stat().st_mtime_ns,
    )


def done_by(figures: Path) -> float:
    """Return how many jobs are done by the metrics."""
    families = text_string_to_metric_families(figures.read_text())
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "styled_jobs_finished_total" and sample.labels["outcome"] == "done"
    )


@pytest.fixture
def studio() -> Iterator[Studio]:
    """Make a working folder on a disk: what is written into memory counts as nothing."""
    with tempfile.TemporaryDirectory(prefix="styled-idle-", dir="/var/tmp") as folder:
        yield make_studio(Path(folder, "studio"))


class Manager:
    """systemd, as far as the daemon can tell."""

    def __init__(self, address: Path) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(address))

    def listen(self, seconds: float) -> list[str]:
        """Return what the daemon says within some time."""
        said = []
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            with suppress(TimeoutError):
                said.append(self.socket.recv(4096).decode())
        return said


def test_an_idle_daemon_hardly_computes_and_hardly_writes(studio: Studio) -> None:
    """In a minute with nothing to do it says that it lives, and leaves processor and disk alone."""
    manager = Manager(studio.folder / "notify")
    as_service = ["env", f"NOTIFY_SOCKET={manager.address}", "WATCHDOG_USEC=20000000"]
    with closing(manager.socket), studio.running_from_scratch(as_service) as daemon:
        daemon.wait_for("daemon.started")
        studio.drop("a.png", size=(96, 64))
        daemon.wait_for("job.published")
        figures = studio.folder / "state/metrics.prom"
        daemon.wait_until(lambda: done_by(figures) == 1, 60)
        manager.listen(SETTLING_SECONDS)
        logged = daemon.log.stat().st_size
        before = usage(daemon.process.pid, studio)
        said = manager.listen(IDLE_SECONDS)
        after = usage(daemon.process.pid, studio)

        assert after.cpu_seconds - before.cpu_seconds < CPU_SECONDS
        assert after.written - before.written < WRITTEN_BYTES
        assert after.to_disk == before.to_disk
        assert after.metrics == before.metrics
        assert daemon.log.stat().st_size == logged
        # It was alive meanwhile, and had nothing else to say.
        assert set(said) == {"WATCHDOG=1"}
        assert IDLE_SECONDS / 10 < len(said) <= IDLE_SECONDS / 5 + 1
