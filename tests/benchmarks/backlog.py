"""Time that intake, journal and status take with a backlog of 100,000 photos.

It uses the daemon's own objects. Baselines, on the same files and the same disk: for a scan of the
inbox, only listing all files and calling stat on them; for a claim, one bare durable commit that
updates one row with the journal's pragmas; for `styled status`, an interpreter that does nothing.
The first scan finds no settled file, the second submits all files to the journal; the wait between
them is not counted. A value of `--sizes` other than the default is the number of photos.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from statistics import median, quantiles

import torch

from styled.app import JournalIntakeHost, build_intake, open_journal, pairing_of
from styled.config import Config, load_config
from styled.intake.inbox_folders import InboxFolders
from styled.intake.intake import Intake
from styled.journal.job import JobState
from styled.journal.journal import Journal
from styled.journal.queries import JournalReader
from styled.mounts import Mounts
from styled.ops.heartbeats import Heartbeats
from styled.ops.logs import configure_logs
from tests.daemon_harness import DaemonHarness, make_harness

PHOTOS, PHOTOS_IN_A_FOLDER = 100_000, 1000
DEFAULT_SIZES = [128]
CLAIMS, REPEATS = 1000, 7
SHARE_DONE = 0.1
PAGES_TO_CHECKPOINT = 1000  # after this many pages SQLite restarts its WAL

SCAN_GOAL, CLAIM_GOAL, STATUS_GOAL = 10.0, 0.001, 0.3  # seconds


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _row(
    name: str, seconds: Sequence[float], base: float | None = None, goal: float | None = None
) -> None:
    typical = median(seconds)
    p99 = f"{quantiles(seconds, n=100)[98] * 1000:.2f}" if len(seconds) >= 100 else ""
    ratio = "" if base is None else f"{typical / base:.2f}"
    reached = "" if goal is None else "yes" if typical <= goal else "NO"
    print(f"{name:<44}{typical * 1000:>12.2f}{p99:>10}{ratio:>9}"
          f"{'' if goal is None else f'{goal * 1000:g}':>9}{reached:>9}", flush=True)  # fmt: skip


def _walk(folder: str) -> int:
    """List and stat everything below a folder."""
    with os.scandir(folder) as entries:
        return sum(_walk(e.path) if e.is_dir() else bool(e.stat().st_size) for e in entries)


def _fill_inbox(inbox: Path, count: int) -> None:
    for number in range(count):
        folder = inbox / "swirls" / f"{number // PHOTOS_IN_A_FOLDER:03}"
        if number % PHOTOS_IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        with open(folder / f"a photo of a holiday {number:06}.jpg", "wb") as file:
            file.write(b"x")


def _bare_database(path: Path) -> sqlite3.Connection:
    """Return a database whose WAL has reached its full size: a growing WAL syncs more slowly."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE claims (seq INTEGER PRIMARY KEY, count INTEGER)")
    connection.execute("INSERT INTO claims VALUES (1, 0)")
    for _ in range(2 * PAGES_TO_CHECKPOINT):
        _bare_commit(connection)
    return connection


def _bare_commit(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE claims SET count = count + 1 WHERE seq = 1")
    connection.execute("COMMIT")


def _time_scans(intake: Intake, config: Config, settle_seconds: float, walk_seconds: float) -> None:
    """Scan until everything is in the journal, and once more."""
    first = _seconds(intake.scan_once)
    time.sleep(settle_seconds)
    second = _seconds(intake.scan_once)
    _row("the first scan of the inbox", [first], walk_seconds)
    _row("the second, which submits all files", [second], walk_seconds)
    _row("from the inbox to the journal", [first + second], walk_seconds, SCAN_GOAL)
    intake.set_pairing(pairing_of(config))
    _row("a scan of all files, all of them known", [_seconds(intake.scan_once)], walk_seconds)


def _time_claims(journal: Journal, folder: Path) -> None:
    """Time claims and bare commits, alternating."""
    claims, commits = [], []
    with closing(_bare_database(folder / "bare.sqlite3")) as bare:
        for _ in range(min(CLAIMS, journal.count(JobState.QUEUED))):
            commits.append(_seconds(lambda: _bare_commit(bare)))
            claims.append(_seconds(lambda: journal.claim(time.time())))
    _row("a bare durable commit of one row", commits)
    _row("a claim", claims, median(commits), CLAIM_GOAL)
    journal.recover(is_blameless=True)


def _run_command(args: Sequence[str]) -> None:
    subprocess.run(args, stdout=subprocess.DEVNULL, check=True)


def _time_status(harness: DaemonHarness, journal: Path) -> None:
    """Time the command `styled status`, and each of its journal queries."""
    idle_command = [sys.executable, "-c", "pass"]
    passes, statuses = [], []
    for _ in range(REPEATS):
        passes.append(_seconds(partial(_run_command, idle_command)))
        statuses.append(_seconds(partial(_run_command, harness.command("status"))))
    _row("python -c pass", passes)
    _row("styled status", statuses, median(passes), STATUS_GOAL)
    ended = JobState.DONE, JobState.REJECTED, JobState.CANCELLED
    with closing(JournalReader.open_read_only(journal)) as reader:
        parts: dict[str, Callable[[], object]] = {
            "counts": reader.counts,
            "unfinished_by_style": reader.unfinished_by_style,
            "the first five that wait": lambda: reader.in_state(JobState.QUEUED, limit=5),
            "the last five that ended": lambda: reader.in_state(
                *ended, limit=5, newest_first=True
            ),
        }  # fmt: skip
        for name, part in parts.items():
            _row(f"  of which {name}", [_seconds(part) for _ in range(REPEATS)])


def host_of(config: Config, journal: Journal) -> JournalIntakeHost:
    mounts = Mounts(config.state / "mounts.json")
    folders = InboxFolders(config.inbox, mounts)
    return JournalIntakeHost(config, journal, mounts, folders, SimpleQueue(), None, Heartbeats())  # type: ignore[arg-type]  # no events are read


def _measure(folder: Path, count: int) -> None:
    harness = make_harness(folder / "harness")
    config = load_config(harness.config)
    config.state.mkdir()
    with closing(open_journal(config)) as journal:
        _fill_inbox(config.inbox, count)
        walk_seconds = [_seconds(lambda: _walk(str(config.inbox))) for _ in range(3)]
        _row("to list and stat all files, and no more", walk_seconds)
        intake = build_intake(config, host_of(config, journal))
        _time_scans(intake, config, config.intake.settle_seconds, median(walk_seconds))
        assert journal.counts() == {JobState.QUEUED: count}
        _time_claims(journal, folder)
    path = config.state / "journal.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE jobs SET state = 'done', finished_at = submitted_at, result = input"
            " WHERE seq <= ?", (int(count * SHARE_DONE),)
        )  # fmt: skip
    _time_status(harness, path)


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a row for each operation; the ratio is to its baseline."""
    configure_logs(level="error")
    for count in [PHOTOS] if list(sizes) == DEFAULT_SIZES else sizes:
        print(f"a backlog of {count:,} photos; torch {torch.__version__}, {device}, "
              f"{os.cpu_count()} CPUs")  # fmt: skip
        print(f"{'ms':<44}{'median':>12}{'p99':>10}{'ratio':>9}{'goal':>9}{'reached':>9}")
        # In the working directory: the default folder may be a tmpfs.
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".backlog-") as folder:
            _measure(Path(folder), count)
