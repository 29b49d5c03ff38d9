"""Tests of `styled status`, which reads the journal and the lock."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from styled.cli import status_view
from styled.cli.init import init_folder
from styled.degradation import Degradation
from styled.journal.job import JobState, Phase
from styled.journal.journal import Journal
from styled.journal.pause_request import PAUSE_REQUEST_REASON
from styled.ops.lock import InstanceLock
from styled.ops.stall_record import StallRecord
from tests.cli.conftest import Run
from tests.job_harness import Dropped, progress

HOSTILE = os.fsdecode(b"caf\xe9\x1b[2J[bold].jpg")


UNTRAINED = {"kind": "weights", "message": "the network is untrained"}


@pytest.fixture
def journal(cwd: Path) -> Iterator[Journal]:
    """Return a journal with a done, a rejected, a running and a queued job."""
    init_folder(cwd)
    (cwd / "state").mkdir()
    journal = Journal.open(cwd / "state/journal.sqlite3")
    names = ("done.jpg", HOSTILE, "running.jpg", "waiting.jpg")
    journal.submit([Dropped(name, 1, 2, {"oil": name}) for name in names], 5.0)
    for number, state in enumerate((JobState.DONE, JobState.REJECTED)):
        job = journal.claim(10.0)
        assert job is not None
        if state is JobState.DONE:
            journal.reserve_result(job, "oil/done.jpg", "ab", "cd")
        is_rejected = state is JobState.REJECTED
        journal.finish(
            job, state, 20.0 + number, reason="not a picture" if is_rejected else None,
            remedies=["send another"] if is_rejected else [],
        )  # fmt: skip
    job = journal.claim(30.0)
    assert job is not None
    journal.set_phase(job, Phase.PAINTING, "engine-0")
    assert job is not None
    journal.update_progress(job, progress(0.42))
    journal.set_state(
        activity="paused: the outbox is full", version="9.9", device="cpu", weights="untrained",
        degraded_engines=json.dumps([UNTRAINED]),
    )  # fmt: skip
    yield journal
    journal.close()


@pytest.fixture
def daemon(cwd: Path, journal: Journal) -> Iterator[int]:
    """Hold the lock as a running daemon does; return its process id."""
    lock = InstanceLock(cwd / "state/lock")
    lock.acquire()
    yield os.getpid()
    lock.release()


def test_status_for_programs_tells_all(run: Run, daemon: int) -> None:
    """`--json` prints one object with the queue, the current job, degradations and results."""
    result = run("status", "--json")
    assert result.exit_code == 0
    status = json.loads(result.stdout)
    assert (status["running"], status["pid"]) == (True, daemon)
    assert status["state"] == "paused: the outbox is full"
    assert status["degraded"] == [UNTRAINED]
    assert status["counts"] == {"done": 1, "rejected": 1, "running": 1, "queued": 1}
    (current,) = status["current"]
    assert (current["input"], current["fraction"], current["attempts"]) == ("running.jpg", 0.42, 1)
    assert [job["input"] for job in status["waiting"]] == ["waiting.jpg"]
    newest, oldest = status["last"]
    assert newest["input"] == "caf\\xe9\x1b[2J[bold].jpg"
    assert (newest["reason"], newest["remedies"]) == ("not a picture", ["send another"])
    assert (oldest["result"], oldest["finished_at"]) == ("oil/done.jpg", "1970-01-01T00:00:20Z")


def test_status_for_people_shows_the_same(run: Run, daemon: int) -> None:
    """The table shows states, progress and the first line of each reason."""
    output = run("status").output
    assert f"styled is paused: the outbox is full (process {daemon})" in output
    assert "on cpu, weights untrained" in output
    assert "degraded: the network is untrained" in output
    assert "\n1 waiting, 0 prepared, 1 painting, 1 done, 1 rejected, 0 cancelled\n" in output
    assert "\nit continues by itself once that is over\n" in output
    assert re.search(r"\nnow  running.jpg in oil\n .* 42%\n", output)
    rows = [tuple(line.split()) for line in output.splitlines()]
    assert ("waiting.jpg", "oil", "queued", "for") in [row[:4] for row in rows]
    assert ("done.jpg", "oil", "done") in [row[:3] for row in rows if "oil/done.jpg" in row]
    assert re.search(r" rejected +\d+ d( \d+ h)? ago +not a picture *\n", output)
    assert "send another" not in output


def test_names_cannot_move_the_cursor_or_be_markup(run: Run, daemon: int) -> None:
    """Hostile file names are escaped and not interpreted as markup."""
    output = run("status").output
    assert "\x1b" not in output
    assert "caf\\xe9\\x1b[2J[bold].jpg" in output


def test_a_stopped_or_dead_daemon_is_not_running(run: Run, journal: Journal) -> None:
    """If no process holds the lock, the daemon is not running, whatever the journal says."""
    status = json.loads(run("status", "--json").stdout)
    assert (status["running"], status["pid"], status["state"]) == (False, None, "not running")
    assert "styled is not running" in run("status").output


def test_without_a_journal_the_remedy_is_reported(run: Run, cwd: Path) -> None:
    """If the daemon has never run, there is an error with a remedy, and nothing is created."""
    init_folder(cwd)
    result = run("status")
    assert result.exit_code == 73
    assert "there is no journal" in result.output
    assert "styled run" in result.output
    assert not (cwd / "state").exists()


def test_a_damaged_journal_is_reported(run: Run, cwd: Path) -> None:
    """A damaged journal gives an error message and no traceback."""
    init_folder(cwd)
    (cwd / "state").mkdir()
    (cwd / "state/journal.sqlite3").write_bytes(b"not a database" * 99)
    result = run("status", "--json")
    assert result.exit_code == 75
    assert "is damaged" in result.output


def test_a_pause_on_request_does_not_end_by_itself(run: Run, journal: Journal, daemon: int) -> None:
    """Only other pauses are said to end by themselves."""
    journal.set_state(activity=f"paused: {PAUSE_REQUEST_REASON}")
    output = run("status").output
    assert "styled is paused: on request; styled resume continues it" in output
    assert "by itself" not in output


@pytest.mark.usefixtures("daemon")
def test_each_job_is_counted_once_and_all_of_them(run: Run, journal: Journal) -> None:
    """The counts add up to the number of jobs; of a long list the rest is counted."""
    journal.submit([Dropped(f"{n}.jpg", 1, 2, {"oil": f"{n}.jpg"}) for n in range(7)], 6.0)
    job = journal.claim(40.0)
    assert job is not None
    journal.set_phase(job, Phase.READY)
    output = run("status").output
    assert "\n7 waiting, 1 prepared, 1 painting, 1 done, 1 rejected, 0 cancelled\n" in output
    assert "\nand 2 more: styled jobs\n" in output
    assert "queued" in run("jobs", "--state", "queued", "--limit", "50").output


def test_of_a_dead_daemon_all_unfinished_jobs_wait(run: Run, journal: Journal) -> None:
    """What it was painting is counted as waiting."""
    assert "\n2 waiting, 0 prepared, 0 painting, 1 done, " in run("status").output


def test_what_all_jobs_lack_is_reported_once(run: Run, journal: Journal) -> None:
    """A degradation of all listed jobs is one line; one of a single job stays with it."""
    shared = Degradation("device", "no GPU was found")
    journal.submit([Dropped(f"{n}.jpg", 1, 2, {"ink": f"{n}.jpg"}) for n in range(6)], 6.0)
    for number in range(6):
        job = journal.claim(40.0)
        assert job is not None
        journal.set_degraded(job, [shared, *([Degradation("memory", "small")] * (number == 3))])
        journal.finish(job, JobState.DONE, 50.0 + number)
    output = run("status").output
    assert output.count("no GPU was found") == 1
    assert "\nall of these degraded: no GPU was found\n" in output
    assert output.count("degraded: small") == 1


@pytest.mark.usefixtures("daemon")
def test_only_a_terminal_wraps_lines(
    run: Run, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal and without COLUMNS each line is whole."""
    monkeypatch.delenv("COLUMNS")
    name = f"{'a long walk/' * 12}photo.jpg"
    journal.submit([Dropped(name, 1, 2, {"oil": name})], 6.0)
    assert name in run("status").output


@pytest.mark.usefixtures("daemon")
def test_settings_that_are_not_valid_are_reported_before_the_turn_of_their_photo(
    run: Run, journal: Journal
) -> None:
    """Text and JSON name the photo, the problem and the remedy."""
    report = {
        "invalid_settings": [
            ["trip/a.jpg", "a.jpg.yaml:1: strength: expected a number"],
            ["b\udcff.jpg", "b\udcff.jpg.yaml:1: mood: unknown key"],
        ]
    }
    journal.set_state(inbox_report=json.dumps(report))
    output = run("status").output
    assert "trip/a.jpg: its settings are not valid: a.jpg.yaml:1" in output
    assert "  - fix trip/a.jpg.yaml: a photo with invalid settings is rejected" in output
    first, second = json.loads(run("status", "--json").stdout)["invalid_settings"]
    assert (first["path"], second["path"]) == ("trip/a.jpg", "b\\xff.jpg")


# Progress of the current job


def update_progress(journal: Journal, **changes: object) -> None:
    """Change the progress of the running job."""
    (job,) = journal.in_state(JobState.RUNNING, limit=1)
    journal.update_progress(job, replace(progress(0.42), **changes))  # type: ignore[arg-type]  # any fields


@pytest.mark.usefixtures("daemon")
def test_json_has_the_progress_of_the_current_job(run: Run, journal: Journal) -> None:
    """A running job has separate fields for scale, step, loss, time and preview."""
    update_progress(journal, seconds_left=75.0, preview="/state/previews/1.jpg")
    status = json.loads(run("status", "--json").stdout)
    (current,) = status["current"]
    assert current["progress"] == {
        "scale": 2, "scales": 3, "width": 64, "height": 48, "step": 4, "steps": 10, "loss": 0.5,
        "step_seconds": 0.25, "seconds_left": 75.0, "preview": "/state/previews/1.jpg",
    }  # fmt: skip
    assert current["started_at"] == "1970-01-01T00:00:30Z"
    assert {job["progress"] for job in (*status["waiting"], *status["last"])} == {None}


@pytest.mark.usefixtures("daemon")
def test_progress_of_an_earlier_attempt_is_not_shown(run: Run, journal: Journal) -> None:
    """A job that was requeued has no progress."""
    (job,) = journal.in_state(JobState.RUNNING, limit=1)
    journal.requeue(job, reason="a bad day", attempt_counts=True)
    status = json.loads(run("status", "--json").stdout)
    assert status["current"] == []
    assert {job["progress"] for job in status["waiting"]} == {None}


@pytest.mark.usefixtures("daemon")
def test_text_shows_the_progress_of_the_current_job(run: Run, journal: Journal) -> None:
    """The text output has the same values; unknown ones are left out."""
    update_progress(journal, seconds_left=75.0, preview="/state/previews/\x1b[1mx.jpg")
    output = run("status").output
    assert "now  running.jpg in oil\n" in output
    assert re.search(r" 42%, about 1 min 15 s left\n", output)
    assert (
        "scale 2 of 3, 64 x 48 pixels; step 4 of at most 10, 0.25 s each; loss 0.5\n" in output
    )  # fmt: skip
    assert "preview: /state/previews/\\x1b[1mx.jpg\n" in output
    update_progress(journal, step_seconds=None)
    output = run("status").output
    assert re.search(r" 42%\n", output)
    assert "step 4 of at most 10; loss 0.5\n" in output
    assert "left" not in output
    assert "preview" not in output


@pytest.mark.usefixtures("daemon")
def test_a_pending_cancellation_is_shown(run: Run, journal: Journal) -> None:
    """A pending cancellation is shown for the current job and for waiting jobs."""
    assert "being cancelled" not in run("status").output
    for job in journal.in_state(JobState.RUNNING, JobState.QUEUED, limit=-1):
        journal.request_cancel(job)
    output = run("status").output
    assert re.search(r" 42%, being cancelled\n", output)
    assert "queued, being cancelled" in output
    status = json.loads(run("status", "--json").stdout)
    assert [job["cancel_requested"] for job in (*status["current"], *status["waiting"])] == [
        True
    ] * 2


@pytest.mark.usefixtures("daemon")
def test_a_job_that_is_tried_again_later_says_when(run: Run, journal: Journal) -> None:
    """A job that is retried later shows the reason and the remaining time."""
    (job,) = journal.in_state(JobState.RUNNING, limit=1)
    journal.requeue(
        job, reason="it diverged", remedies=["lower the rate"], not_before=time.time() + 1800.4,
        attempt_counts=True,
    )  # fmt: skip
    output = run("status").output
    assert re.search(r"running.jpg +oil +queued +in (30 min|29 min 5\d s) +it diverged *\n", output)
    waiting = next(
        item for item in json.loads(run("status", "--json").stdout)["waiting"] if item["reason"]
    )
    assert (waiting["reason"], waiting["remedies"]) == ("it diverged", ["lower the rate"])


def test_a_dead_daemon_does_not_paint(run: Run, journal: Journal) -> None:
    """After a kill -9 of the daemon no remaining time is shown."""
    update_progress(journal, seconds_left=75.0)
    assert "left" not in run("status").output


# The queue and finished jobs


@pytest.mark.usefixtures("daemon")
def test_the_queue_is_reported_for_each_style(run: Run, journal: Journal) -> None:
    """Queued and running jobs are counted by style; the text has them if there are several."""
    assert "queue:" not in run("status").output
    journal.submit([Dropped(f"{n}.jpg", 1, 2, {"ink": f"{n}.jpg"}) for n in range(3)], 6.0)
    status = json.loads(run("status", "--json").stdout)
    assert status["queue"] == [
        {"style": "ink", "queued": 3, "running": 0},
        {"style": "oil", "queued": 1, "running": 1},
    ]
    assert "queue: 3 ink, 2 oil\n" in run("status").output


def test_the_queue_is_reported_while_nothing_runs(run: Run, journal: Journal) -> None:
    """The queue is shown without a running daemon."""
    status = json.loads(run("status", "--json").stdout)
    assert status["queue"] == [{"style": "oil", "queued": 1, "running": 1}]


@pytest.mark.usefixtures("daemon")
def test_rejections_stay_in_sight(run: Run, journal: Journal) -> None:
    """The latest rejections are shown even after many other jobs, and only once each."""
    assert run("status").output.count("not a picture") == 1
    journal.submit([Dropped(f"{n}.jpg", 1, 2, {"ink": f"{n}.jpg"}) for n in range(6)], 6.0)
    for number in range(7):
        job = journal.claim(40.0)
        assert job is not None
        journal.finish(job, JobState.DONE, 50.0 + number)
    status = json.loads(run("status", "--json").stdout)
    assert {job["state"] for job in status["last"]} == {"done"}
    assert [job["reason"] for job in status["rejections"]] == ["not a picture"]
    output = run("status").output
    assert re.search(r"\nrejected +style", output)
    assert output.count("not a picture") == 1


def test_only_the_latest_rejections_are_reported(run: Run, journal: Journal) -> None:
    """The number of rejections that are shown is limited."""
    journal.submit([Dropped(f"{n}.txt", 1, 2, {"ink": f"{n}.txt"}) for n in range(9)], 6.0)
    while (job := journal.claim(60.0)) is not None:
        journal.finish(job, JobState.REJECTED, 60.0 + int(job.submitted_at), reason=job.input)
    status = json.loads(run("status", "--json").stdout)
    assert len(status["rejections"]) == len(status["last"]) == 5
    assert "not a picture" not in run("status").output


# The daemon itself


@pytest.mark.usefixtures("daemon")
def test_how_long_it_has_been_running_is_reported(run: Run, journal: Journal) -> None:
    """The start time is a date in JSON and a duration in the text."""
    journal.set_state(started_at="1000.5")
    assert json.loads(run("status", "--json").stdout)["started_at"] == "1970-01-01T00:16:40.500000Z"
    journal.set_state(started_at=str(time.time() - 3 * 3600 - 125))
    assert re.search(r"\(process \d+\), for 3 h 2 min\n", run("status").output)


def test_a_daemon_that_is_gone_started_at_no_time(run: Run, journal: Journal) -> None:
    """The stored state of a daemon that is not running is ignored."""
    journal.set_state(started_at="1000.5", inbox_problem="it is away")
    status = json.loads(run("status", "--json").stdout)
    assert (status["started_at"], status["problems"]) == (None, [])
    assert ", for" not in run("status").output.splitlines()[0]


@pytest.mark.usefixtures("daemon")
def test_problems_are_reported_as_long_as_there_are_any(
    run: Run, journal: Journal, cwd: Path
) -> None:
    """Each problem has a line, the most serious one first; empty ones are left out."""
    assert json.loads(run("status", "--json").stdout)["problems"] == []
    journal.set_state(
        metrics_problem="metrics.prom can't be written", inbox_problem="the inbox is\x1b gone"
    )
    StallRecord("the queue has not advanced for 9 min", ("scheduler",)).save(cwd / "state")
    problems = json.loads(run("status", "--json").stdout)["problems"]
    assert problems == [
        "the queue has not advanced for 9 min", "the inbox is\x1b gone",
        "metrics.prom can't be written",
    ]  # fmt: skip
    assert (
        "\nthe queue has not advanced for 9 min\nthe inbox is\\x1b gone\n"
        "metrics.prom can't be written\n" in run("status").output
    )
    journal.set_state(inbox_problem="", metrics_problem="")
    StallRecord().save(cwd / "state")
    assert json.loads(run("status", "--json").stdout)["problems"] == []


@pytest.mark.usefixtures("daemon")
def test_what_the_intake_does_without_is_degraded_too(run: Run, journal: Journal) -> None:
    """Degradations of the engine and of the intake are in one list."""
    polled = {"kind": "polling", "message": "the inbox is polled every 1 s"}
    journal.set_state(degraded_intake=json.dumps([polled]))
    status = json.loads(run("status", "--json").stdout)
    assert status["degraded"] == [UNTRAINED, polled]
    assert "\ndegraded: the inbox is polled every 1 s\n" in run("status").output


# Disks


def test_a_disk_is_reported_once_with_all_its_folders(
    run: Run, cwd: Path, journal: Journal
) -> None:
    """A disk is listed once with its existing folders; sizes are in bytes."""
    (disk,) = json.loads(run("status", "--json").stdout)["disks"]
    assert disk["folders"] == ["inbox", "outbox", "state"]
    assert disk["path"] == str(cwd / "inbox")
    assert disk["total"] == shutil.disk_usage(cwd).total
    assert 0 < disk["free"] < disk["total"]
    assert re.search(r"\d [kMGT]B free for inbox, outbox, state\n", run("status").output)


@pytest.mark.usefixtures("journal")
def test_each_disk_has_a_line_of_its_own(
    run: Run, cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If folders are on several disks, each disk has a line."""
    elsewhere = cwd / "outbox"

    def stat(path: Path) -> object:
        return SimpleNamespace(st_dev=-1) if path == elsewhere else os.stat(path)

    def usage(path: object) -> object:
        return SimpleNamespace(free=5e8 if path == elsewhere else 4.2e12, total=9e12)

    monkeypatch.setattr("styled.ops.disk_space.os", SimpleNamespace(stat=stat))
    monkeypatch.setattr("styled.ops.disk_space.shutil", SimpleNamespace(disk_usage=usage))
    output = run("status").output
    assert "\n4.2 TB free for inbox, state\n500 MB free for outbox\n" in output


# `--follow`


@pytest.fixture
def steady_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the free disk space constant."""
    monkeypatch.setattr(
        "styled.ops.disk_space.shutil",
        SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=10**12, total=10**13)),
    )


def on_each_sleep(monkeypatch: pytest.MonkeyPatch, *actions: Callable[[], object]) -> list[float]:
    """Call one action at each sleep, then raise KeyboardInterrupt; return the sleep durations."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > len(actions):
            raise KeyboardInterrupt
        actions[len(waits) - 1]()

    monkeypatch.setattr("styled.cli.status_view.time", SimpleNamespace(sleep=sleep))
    return waits


@pytest.mark.usefixtures("daemon", "steady_disk")
def test_json_follows_each_change(
    run: Run, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--follow --json` prints one object per line whenever the status has changed."""
    waits = on_each_sleep(
        monkeypatch,
        lambda: None,
        lambda: update_progress(journal, step=5),
        lambda: None,
        lambda: journal.set_state(activity="running"),
    )
    result = run("status", "--follow", "--json")
    assert result.exit_code == 0
    statuses = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(item["state"], item["current"][0]["progress"]["step"]) for item in statuses] == [
        ("paused: the outbox is full", 4), ("paused: the outbox is full", 5), ("running", 5),
    ]  # fmt: skip
    assert waits == [1.0] * 5


@pytest.mark.usefixtures("daemon", "steady_disk")
def test_following_into_a_file_prints_the_whole_again(
    run: Run, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal the full status is printed again, without control sequences."""
    on_each_sleep(monkeypatch, lambda: update_progress(journal, step=5))
    result = run("status", "--follow")
    assert result.exit_code == 0
    assert result.output.count("styled is paused: the outbox is full") == 2
    assert re.findall(r"step (\d) of", result.output) == ["4", "5"]
    assert "\x1b" not in result.output


@pytest.mark.usefixtures("daemon")
def test_following_on_a_terminal_redraws_it(
    run: Run, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status is redrawn in place; Ctrl-C exits with 0 and shows the cursor again."""
    screen = io.StringIO()
    monkeypatch.setattr(
        status_view, "console", Console(file=screen, force_terminal=True, width=100, height=50)
    )
    on_each_sleep(
        monkeypatch,
        lambda: update_progress(journal, step=5),
        lambda: update_progress(journal, step=6),
    )
    assert run("status", "--follow").exit_code == 0
    steps = re.findall(r"step (\d) of", screen.getvalue())
    assert list(dict.fromkeys(steps)) == ["4", "5", "6"]
    assert "\x1b[1A" in screen.getvalue()
    assert screen.getvalue().rstrip().endswith("\x1b[?25h")
    assert "\x1b[2J" not in screen.getvalue()


@pytest.mark.usefixtures("daemon")
def test_following_on_a_simple_terminal_prints_the_whole_again(
    run: Run, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal that can't move the cursor the full status is printed again."""
    screen = io.StringIO()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(
        status_view, "console", Console(file=screen, force_terminal=True, width=100, height=50)
    )
    on_each_sleep(
        monkeypatch,
        lambda: update_progress(journal, step=5),
        lambda: update_progress(journal, step=6),
    )
    assert run("status", "--follow").exit_code == 0
    assert re.findall(r"step (\d) of", screen.getvalue()) == ["4", "5", "6"]


@pytest.mark.usefixtures("steady_disk")
def test_following_outlives_the_daemon(
    run: Run, cwd: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping and starting the daemon is shown like other changes."""
    lock = InstanceLock(cwd / "state/lock")
    on_each_sleep(monkeypatch, lock.acquire, lock.release)
    result = run("status", "--follow", "--json")
    states = [json.loads(line)["state"] for line in result.stdout.splitlines()]
    assert states == ["not running", "paused: the outbox is full", "not running"]


def test_following_what_is_not_there_tells_the_remedy(run: Run, cwd: Path) -> None:
    """Without a journal `--follow` exits with an error instead of waiting."""
    init_folder(cwd)
    result = run("status", "--follow")
    assert result.exit_code == 73
    assert "there is no journal" in result.output


INBOX = {
    "unpaired": 0,
    "not_pictures": 0,
    "incomplete": [
        {"path": "slow.jpg", "reason": "is still open for writing", "until": None},
        {"path": "cut.jpg", "reason": "ends too early", "until": 4_000_000_000.0},
    ],
    "skipped": [
        {"path": "private", "reason": "can't be read: Permission denied", "remedy": "chmod it"}
    ],
    "misspelled": [["Oil", "oil"]],
}
STUCK = [{"path": "a\udcff.jpg", "reason": "a.jpg can't be moved", "remedies": ["chmod -t it"]}]


@pytest.mark.usefixtures("daemon")
def test_what_is_not_taken_from_the_inbox_is_reported(run: Run, journal: Journal) -> None:
    """Incomplete files, skipped and misspelled folders, and stuck photos are shown."""
    journal.set_state(
        inbox_report=json.dumps(INBOX), stuck_inputs=json.dumps(STUCK), stuck_count="7",
        style_problems=json.dumps({"oil": "styles/oil.png does not exist"}),
        config_problem="a reload has changed nothing: it is empty",
    )  # fmt: skip
    status = json.loads(run("status", "--json").stdout)
    assert [file["path"] for file in status["incomplete"]] == ["slow.jpg", "cut.jpg"]
    assert status["incomplete"][1]["until"] == "2096-10-02T07:06:40Z"
    assert [(item["path"], item["reason"]) for item in status["skipped"]] == [
        ("private", "can't be read: Permission denied")
    ]
    assert [item["path"] for item in status["misspelled"]] == ["Oil"]
    assert (status["stuck"][0]["path"], status["stuck_count"]) == ("a\\xff.jpg", 7)
    assert status["problems"] == [
        "a reload has changed nothing: it is empty",
        "photos of the style oil wait: styles/oil.png does not exist",
    ]
    output = " ".join(run("status").output.split())
    for text in (
        "private: can't be read: Permission denied - chmod it",
        'Oil: is not the folder of "oil"',
        "a\\xff.jpg: a.jpg can't be moved - chmod -t it",
        "7 photos in all can't leave the inbox",
        "incomplete: slow.jpg is still open for writing",
        "incomplete: cut.jpg ends too early; processed as it is in",
        "photos of the style oil wait: styles/oil.png does not exist",
    ):
        assert text in output


@pytest.mark.usefixtures("daemon")
def test_many_engines_have_separate_names(run: Run, journal: Journal) -> None:
    """The status shows each engine's job, the phase of each job, and lost engines."""
    journal.set_state(
        engines=json.dumps(
            [
                {"name": "engine-0", "device": "cuda:0", "problem": None},
                {"name": "engine-1", "device": "cuda:1", "problem": None},
                {"name": "engine-2", "device": None, "problem": "it fell off\x1b the bus"},
            ]
        )
    )
    names = ("second.jpg", "third.jpg", "fourth.jpg")
    journal.submit([Dropped(name, 1, 2, {"oil": name}) for name in names], 50.0)
    waiting, second, third, _ = (journal.claim(60.0) for _ in range(4))
    assert waiting is not None
    assert second is not None
    assert third is not None
    journal.set_phase(second, Phase.PAINTING, "engine-1")
    journal.set_phase(third, Phase.PUBLISHING, "engine-0")
    journal.set_phase(waiting, Phase.READY)
    status = json.loads(run("status", "--json").stdout)
    assert [engine["name"] for engine in status["engines"]] == ["engine-0", "engine-1", "engine-2"]
    phases = {job["input"]: (job["phase"], job["engine"]) for job in status["current"]}
    assert phases == {
        "running.jpg": ("painting", "engine-0"), "waiting.jpg": ("ready", None),
        "second.jpg": ("painting", "engine-1"), "third.jpg": ("publishing", "engine-0"),
        "fourth.jpg": ("preparing", None),
    }  # fmt: skip
    output = run("status").output
    assert "\nengine-2 is lost: it fell off\\x1b the bus\n" in output
    assert "\nnow  second.jpg in oil on engine-1\n" in output
    assert re.search(r"\nnow  third.jpg in oil on engine-0\n .* being published\n", output)
    assert "\nnext waiting.jpg in oil: ready\nnext fourth.jpg in oil: preparing\n" in output
    jobs = run("jobs").output
    assert re.search(r"third.jpg +oil +publishing ", jobs)
    assert re.search(r"fourth.jpg +oil +preparing ", jobs)
