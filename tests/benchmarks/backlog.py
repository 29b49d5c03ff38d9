"""What a hundred thousand photos that come at once ask of intake, journal and status.

The stages are the daemon's own. Baselines, on the same files and the same disk: for a look at the
inbox, to list and stat everything and no more; for a claim, one bare durable commit, an update of
one row under the journal's pragmas; for `styled status`, an interpreter that does nothing. A first
look finds nothing settled, the second hands everything to the journal; the wait between them is
not counted. A size other than the default is how many photos there are to be.
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
from statistics import median, quantiles

import torch

from styled.config import load_config
from styled.intake.intake import Intake
from styled.jobs.job import JobState
from styled.jobs.journal import Journal
from styled.jobs.journal_queries import JournalReader
from styled.ops.logs import configure_logs
from styled.ops.pulse import Pulse
from styled.stages import Stages
from tests.studio import Studio, make_studio

PHOTOS, PHOTOS_IN_A_FOLDER = 100_000, 1000
DEFAULT_SIZES = [128]
CLAIMS, ANSWERS = 1000, 7
SHARE_DONE = 0.1
PAGES_TO_CHECKPOINT = 1000  # after so many SQLite begins its log anew

LOOK_GOAL, CLAIM_GOAL, STATUS_GOAL = 10.0, 0.001, 0.3  # seconds


def _seconds(do: Callable[[], object]) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


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


def _drop(inbox: Path, count: int) -> None:
    for number in range(count):
        folder = inbox / "swirls" / f"{number // PHOTOS_IN_A_FOLDER:03}"
        if number % PHOTOS_IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        with open(folder / f"a photo of a holiday {number:06}.jpg", "wb") as file:
            file.write(b"x")


def _bare_database(path: Path) -> sqlite3.Connection:
    """Return one that has been written to for a while: a log that grows takes longer to sync."""
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


def _arrive(intake: Intake, stages: Stages, settle_seconds: float, walked: float) -> None:
    """Look until everything is in the journal, and once more."""
    first = _seconds(intake.look)
    time.sleep(settle_seconds)
    second = _seconds(intake.look)
    _row("the first look at the inbox", [first], walked)
    _row("the second, with all handed to the journal", [second], walked)
    _row("from the inbox to the journal", [first + second], walked, LOOK_GOAL)
    intake.look_at_everything_again(stages.pairing())
    _row("a look at everything, all of it known", [_seconds(intake.look)], walked)


def _claim(journal: Journal, folder: Path) -> None:
    """Claim and commit in turn."""
    claims, commits = [], []
    with closing(_bare_database(folder / "bare.sqlite3")) as bare:
        for _ in range(min(CLAIMS, journal.count(JobState.QUEUED))):
            commits.append(_seconds(lambda: _bare_commit(bare)))
            claims.append(_seconds(lambda: journal.claim(time.time())))
    _row("a bare durable commit of one row", commits)
    _row("a claim", claims, median(commits), CLAIM_GOAL)
    journal.recover(is_blameless=True)


def _answer(words: Sequence[str]) -> None:
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)


def _ask(studio: Studio, journal: Path) -> None:
    """Ask for the status as a person does, and then for each of its parts."""
    nothing = [sys.executable, "-c", "pass"]
    passes, statuses = [], []
    for _ in range(ANSWERS):
        passes.append(_seconds(partial(_answer, nothing)))
        statuses.append(_seconds(partial(_answer, studio.command("status"))))
    _row("python -c pass", passes)
    _row("styled status", statuses, median(passes), STATUS_GOAL)
    ended = JobState.DONE, JobState.REJECTED, JobState.CANCELLED
    with closing(JournalReader.open_read_only(journal)) as reader:
        parts: dict[str, Callable[[], object]] = {
            "counts": reader.counts,
            "waiting_by_style": reader.waiting_by_style,
            "the first five that wait": lambda: reader.in_state(JobState.QUEUED, limit=5),
            "the last five that ended": lambda: reader.in_state(
                *ended, limit=5, newest_first=True
            ),
        }  # fmt: skip
        for name, part in parts.items():
            _row(f"  of which {name}", [_seconds(part) for _ in range(ANSWERS)])


def _measure(folder: Path, count: int) -> None:
    studio = make_studio(folder / "studio")
    config = load_config(studio.config)
    config.state.mkdir()
    stages = Stages(config, Pulse())
    with closing(stages.open_journal(lambda: None)) as journal:
        _drop(config.inbox, count)
        walked = [_seconds(lambda: _walk(str(config.inbox))) for _ in range(3)]
        _row("to list and stat all files, and no more", walked)
        intake = stages.make_intake(journal, lambda inputs: journal.submit(inputs, time.time()))
        _arrive(intake, stages, config.intake.settle_seconds, median(walked))
        assert journal.counts() == {JobState.QUEUED: count}
        _claim(journal, folder)
    path = config.state / "journal.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE jobs SET state = 'done', finished_at = submitted_at, result = input"
            " WHERE seq <= ?", (int(count * SHARE_DONE),)
        )  # fmt: skip
    _ask(studio, path)


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a row for each thing that is asked; the ratio is to its baseline."""
    configure_logs(level="error")
    for count in [PHOTOS] if list(sizes) == DEFAULT_SIZES else sizes:
        print(f"a backlog of {count:,} photos; torch {torch.__version__}, {device}, "
              f"{os.cpu_count()} CPUs")  # fmt: skip
        print(f"{'ms':<44}{'median':>12}{'p99':>10}{'ratio':>9}{'goal':>9}{'reached':>9}")
        # Here, and not in what may be a disk of memory.
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".backlog-") as folder:
            _measure(Path(folder), count)
