"""Tests of `styled jobs` and `styled cancel`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from styled.cli.init import init_folder
from styled.cli.jobs import CANCEL_SECONDS
from styled.journal.job import Job, JobState, Phase
from styled.journal.journal import Journal
from styled.ops.lock import InstanceLock
from tests.cli.conftest import Run
from tests.job_harness import Dropped, progress

HOSTILE = os.fsdecode(b"caf\xe9\x1b[2J[bold].jpg")
ESCAPED = "caf\\xe9\\x1b[2J[bold].jpg"

NAMES = ("done.jpg", HOSTILE, "cancelled.jpg", "running.jpg", "both.jpg", "trip/last.jpg")


@pytest.fixture
def journal(cwd: Path) -> Iterator[Journal]:
    """Return a journal with a job in each state; `both.jpg` is queued for two styles."""
    init_folder(cwd)
    (cwd / "state").mkdir()
    journal = Journal.open(cwd / "state/journal.sqlite3")
    for name in NAMES:
        destinations = {"oil": name, "ink": name} if name == "both.jpg" else {"oil": name}
        journal.submit([Dropped(name, 1, 2, destinations)], 5.0)
    for number, state in enumerate((JobState.DONE, JobState.REJECTED, JobState.CANCELLED)):
        job = journal.claim(10.0)
        assert job is not None
        reason, remedies = (f"because of {number}", ["so it is"]) if number else (None, [])
        journal.finish(job, state, 20.0 + number, reason=reason, remedies=remedies)
        journal.mark_input_gone(job)
    job = journal.claim(30.0)
    assert job is not None
    journal.set_phase(job, Phase.PAINTING, "engine-0")
    assert job is not None
    journal.update_progress(job, progress(0.42))
    yield journal
    journal.close()


def job_about(journal: Journal, name: str, style: str = "oil") -> Job:
    """Return the job of an input and a style."""
    (job,) = [job for job in journal.jobs_about("input", name) if job.style == style]
    return job


def list_jobs(run: Run, *args: str) -> list[tuple[str, str, str]]:
    """Return input, style and state of the jobs printed by `styled jobs --json`."""
    result = run("jobs", "--json", *args)
    assert result.exit_code == 0, result.output
    return [(job["input"], job["style"], job["state"]) for job in json.loads(result.stdout)]


# Listing


UNFINISHED = [
    ("running.jpg", "oil", "running"), ("both.jpg", "oil", "queued"), ("both.jpg", "ink", "queued"),
    ("trip/last.jpg", "oil", "queued"),
]  # fmt: skip
ENDED = [
    ("cancelled.jpg", "oil", "cancelled"), ("caf\\xe9\x1b[2J[bold].jpg", "oil", "rejected"),
    ("done.jpg", "oil", "done"),
]  # fmt: skip


@pytest.mark.usefixtures("journal")
def test_what_is_to_be_done_comes_first(run: Run) -> None:
    """Unfinished jobs come first, in queue order; then finished jobs, the latest first."""
    assert list_jobs(run) == UNFINISHED + ENDED


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("--state queued", UNFINISHED[1:]),
        ("--state done --state rejected", ENDED[1:]),
        ("--state done --state running", [UNFINISHED[0], ENDED[2]]),
        ("--style ink", UNFINISHED[2:3]),
        ("--style ink --state done", []),
        ("--limit 1", [UNFINISHED[0], ENDED[0]]),
        ("-n 2 --style oil", [*UNFINISHED[:2], *ENDED[:2]]),
        ("-n 1 --state done", ENDED[2:]),
    ],
)
def test_states_styles_and_how_many_can_be_chosen(
    run: Run, args: str, expected: list[tuple[str, str, str]]
) -> None:
    """The limit applies separately to unfinished and finished jobs, after filtering."""
    assert list_jobs(run, *args.split()) == expected


@pytest.mark.usefixtures("daemon")
def test_json_has_all_fields_of_a_job(run: Run, journal: Journal) -> None:
    """`styled jobs --json` prints the same objects as `styled status --json`."""
    running = json.loads(run("jobs", "--json").stdout)[0]
    assert running == json.loads(run("status", "--json").stdout)["current"][0]
    assert running["id"] == job_about(journal, "running.jpg").id
    assert running["progress"]["step"] == 4


def test_people_are_shown_a_table_with_ids(run: Run, journal: Journal) -> None:
    """The table has one line per job, with the first line of its reason; names are escaped."""
    output = run("jobs").output
    for name, style, state in UNFINISHED[1:]:
        job = job_about(journal, name, style)
        assert re.search(rf"{job.id} +{name} +{style} +{state} +for ", output)
    assert re.search(rf"{job_about(journal, 'running.jpg').id} +running.jpg +oil +42% ", output)
    hostile = job_about(journal, HOSTILE).id
    assert re.search(
        rf"{hostile} +{re.escape(ESCAPED)} +oil +rejected +[^ ].* ago +because of 1 *\n", output
    )
    assert "so it is" not in output
    assert "\x1b" not in output
    assert len(output.splitlines()) == 1 + len(UNFINISHED) + len(ENDED)


@pytest.mark.usefixtures("journal")
def test_without_entries_a_line_says_so(run: Run) -> None:
    """Without matching jobs a message is printed; with `--json`, an empty list."""
    assert run("jobs", "--style", "chalk").output == "no such jobs\n"
    assert json.loads(run("jobs", "--style", "chalk", "--json").stdout) == []


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize("args", ["--state bogus", "--limit 0", "-n many", "extra"])
def test_wrong_words_are_wrong_usage(run: Run, args: str) -> None:
    """Invalid arguments exit with 2 and an error message."""
    result = run("jobs", *args.split())
    assert result.exit_code == 2
    assert "Error" in result.output


def test_an_id_can_be_copied_from_a_narrow_terminal(
    run: Run, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id is not truncated, because `styled cancel` needs it."""
    monkeypatch.setenv("COLUMNS", "40")
    output = run("jobs").output
    assert job_about(journal, "both.jpg").id in output
    assert max(map(len, output.splitlines())) <= 40


@pytest.mark.parametrize("command", ["jobs", "cancel --all", "cancel 0123"])
def test_without_a_journal_the_remedy_is_reported(run: Run, cwd: Path, command: str) -> None:
    """If the daemon has never run, there is an error with a remedy, and nothing is created."""
    init_folder(cwd)
    result = run(*command.split())
    assert result.exit_code == 73
    assert "there is no journal" in result.output
    assert "styled run" in result.output
    assert not (cwd / "state").exists()


@pytest.mark.parametrize("command", ["jobs", "jobs --json", "cancel --all"])
def test_a_damaged_journal_is_reported(run: Run, cwd: Path, command: str) -> None:
    """A damaged journal gives an error message and no traceback."""
    init_folder(cwd)
    (cwd / "state").mkdir()
    (cwd / "state/journal.sqlite3").write_bytes(b"not a database" * 99)
    result = run(*command.split())
    assert result.exit_code == 75
    assert "is damaged" in result.output


# Cancelling while the daemon is running


class FakeDaemon:
    """A fake daemon that calls `on_wait` each time that `styled cancel` sleeps.

    It replaces the module `time` of `styled.cli.jobs`.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.now = 100.0
        self.waits: list[float] = []
        self.on_wait: Callable[[], None] = self.cancel_all

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        self.on_wait()

    def monotonic(self) -> float:
        return self.now

    def cancel_all(self) -> None:
        """Cancel all jobs whose cancellation was requested."""
        for job in self.journal.cancel_requests():
            self.end(job, JobState.CANCELLED)

    def end(self, job: Job, state: JobState) -> None:
        self.journal.finish(job, state, self.now)


@pytest.fixture
def daemon(cwd: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """Hold the lock, as a running daemon does."""
    fake_daemon = FakeDaemon(journal)
    monkeypatch.setattr("styled.cli.jobs.time", fake_daemon)
    lock = InstanceLock(cwd / "state/lock")
    lock.acquire()
    yield fake_daemon
    lock.release()


def states(journal: Journal) -> dict[str, str]:
    """Return "input style" -> state of each job."""
    jobs = journal.in_state(*JobState, limit=-1)
    return {f"{job.input} {job.style}": str(job.state) for job in jobs}


def changed_by(journal: Journal, act: Callable[[], object]) -> set[str]:
    """Call `act`; return the jobs whose state has changed or whose cancellation is requested."""
    before = states(journal)
    act()
    after = states(journal)
    requested = {f"{job.input} {job.style}" for job in journal.cancel_requests()}
    return {name for name in after if after[name] != before[name]} | requested


def test_a_job_is_named_by_its_id(run: Run, journal: Journal, daemon: FakeDaemon) -> None:
    """Only the job with this id is cancelled; the command waits and prints the outcome."""
    job = job_about(journal, "both.jpg", "ink")
    assert changed_by(journal, lambda: run("cancel", job.id)) == {"both.jpg ink"}
    assert states(journal)["both.jpg ink"] == "cancelled"
    assert len(daemon.waits) == 1
    job = job_about(journal, "running.jpg")
    assert run("cancel", job.id).output == "cancelled: running.jpg in oil\n"


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    "arg", ["both.jpg", "inbox/both.jpg", "{cwd}/inbox/both.jpg", "./inbox/../inbox/both.jpg"]
)
def test_a_photo_is_named_by_any_of_its_paths(
    run: Run, cwd: Path, journal: Journal, arg: str
) -> None:
    """A path relative to the current folder or the inbox, or absolute, cancels all its jobs."""
    result = run("cancel", arg.format(cwd=cwd))
    assert result.exit_code == 0
    assert sorted(result.output.splitlines()) == [
        "cancelled: both.jpg in ink", "cancelled: both.jpg in oil",
    ]  # fmt: skip
    assert {name for name, state in states(journal).items() if state == "cancelled"} == {
        "both.jpg oil", "both.jpg ink", "cancelled.jpg oil",
    }  # fmt: skip


@pytest.mark.usefixtures("daemon")
def test_a_link_to_the_inbox_is_the_inbox(run: Run, cwd: Path, journal: Journal) -> None:
    """A path through a symbolic link to the inbox works."""
    (cwd / "drop").symlink_to(cwd / "inbox")
    (cwd / "inbox/trip").mkdir()
    result = run("cancel", "drop/trip/last.jpg")
    assert result.output == "cancelled: trip/last.jpg in oil\n"


@pytest.mark.usefixtures("daemon")
def test_only_what_is_still_to_be_done_is_meant_by_a_path(run: Run, journal: Journal) -> None:
    """A path selects only the unfinished jobs if a photo of that name was painted before."""
    journal.submit([Dropped("done.jpg", 3, 4, {"oil": "done.jpg"})], 6.0)
    assert run("cancel", "done.jpg").output == "cancelled: done.jpg in oil\n"
    job_states = [str(job.state) for job in journal.jobs_about("input", "done.jpg")]
    assert job_states == ["cancelled", "done"]


@pytest.mark.usefixtures("daemon")
def test_several_may_be_named_and_some_of_them_twice(run: Run, journal: Journal) -> None:
    """Each job is cancelled and printed once, even if it is named twice."""
    args = (job_about(journal, "both.jpg").id, "both.jpg", "trip/last.jpg", "trip/last.jpg")
    assert sorted(run("cancel", *args).output.splitlines()) == [
        "cancelled: both.jpg in ink", "cancelled: both.jpg in oil",
        "cancelled: trip/last.jpg in oil",
    ]  # fmt: skip


@pytest.mark.usefixtures("daemon")
def test_all_means_all_that_is_still_to_be_done(run: Run, journal: Journal) -> None:
    """`--all` cancels all queued and running jobs; a second time there is nothing to cancel."""
    result = run("cancel", "--all")
    assert result.exit_code == 0
    assert result.output.splitlines() == [f"cancelled: {name} in {s}" for name, s, _ in UNFINISHED]
    assert set(states(journal).values()) == {"done", "rejected", "cancelled"}
    assert run("cancel", "--all").output == "nothing in the queue\n"


@pytest.mark.usefixtures("daemon")
def test_names_are_escaped_and_no_markup(run: Run, journal: Journal) -> None:
    """Hostile names work as arguments, and are escaped and not interpreted as markup."""
    journal.submit([Dropped(HOSTILE, 3, 4, {"oil": HOSTILE})], 6.0)
    assert run("cancel", HOSTILE).output == f"cancelled: {ESCAPED} in oil\n"


def test_a_step_may_take_longer_than_one_cares_to_wait(
    run: Run, journal: Journal, daemon: FakeDaemon
) -> None:
    """After the timeout the pending cancellation is reported, and the request remains."""
    daemon.on_wait = lambda: None
    result = run("cancel", "running.jpg")
    assert result.exit_code == 0
    assert result.output == "will be cancelled once the current step ends: running.jpg in oil\n"
    assert sum(daemon.waits) == pytest.approx(CANCEL_SECONDS, abs=0.5)
    assert [job.input for job in journal.cancel_requests()] == ["running.jpg"]


@pytest.mark.parametrize("state", [JobState.DONE, JobState.REJECTED])
def test_it_may_be_too_late(
    run: Run, journal: Journal, daemon: FakeDaemon, state: JobState
) -> None:
    """A job that finishes before it is cancelled is reported as too late."""
    daemon.on_wait = lambda: daemon.end(job_about(journal, "running.jpg"), state)
    result = run("cancel", "running.jpg")
    assert result.exit_code == 0
    assert result.output == f"too late, it is {state} already: running.jpg in oil\n"


def test_what_has_ended_stays_as_it_is(run: Run, journal: Journal, daemon: FakeDaemon) -> None:
    """Finished jobs are not changed; the command reports their state without waiting."""
    for name in ("done.jpg", HOSTILE, "cancelled.jpg"):
        job = job_about(journal, name)
        result = run("cancel", job.id)
        assert result.exit_code == 0
        assert result.output.startswith(
            "cancelled: " if job.state is JobState.CANCELLED else f"too late, it is {job.state}"
        )
        assert journal.job(job.id) == job
    assert daemon.waits == []


# Cancelling while the daemon is not running


def test_without_a_daemon_the_wish_waits(
    run: Run, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a daemon the request is stored for the next start, and the command does not wait."""
    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda seconds: pytest.fail("it waits"))
    monkeypatch.setattr("styled.cli.jobs.time", clock)
    result = run("cancel", "trip/last.jpg")
    assert result.exit_code == 0
    assert result.output.startswith("will be cancelled when styled starts")
    assert result.output.endswith(": trip/last.jpg in oil\n")
    assert [job.input for job in journal.cancel_requests()] == ["trip/last.jpg"]
    assert states(journal)["trip/last.jpg oil"] == "queued"


# Invalid arguments


@pytest.mark.parametrize(
    "arg",
    ["nothing.jpg", "0123456789ab", "config.yaml", "inbox", "", "..",
     "../both.jpg", "/both.jpg", "\x1b[2J"],
)  # fmt: skip
def test_what_is_not_in_the_queue_is_refused_in_words(run: Run, journal: Journal, arg: str) -> None:
    """Arguments that are no job id and no photo in the inbox are a usage error with a hint.

    A file of the same name outside the inbox does not count.
    """
    result = run("cancel", arg)
    assert result.exit_code == 2
    assert "is not in the queue" in result.output
    assert "styled jobs lists them" in result.output
    assert "\x1b" not in result.output
    assert journal.cancel_requests() == []


def test_a_name_without_its_folder_gets_a_hint(run: Run, journal: Journal) -> None:
    """Nothing is cancelled on a guess."""
    result = run("cancel", "last.jpg")
    assert (result.exit_code, "did you mean trip/last.jpg?" in result.output) == (2, True)
    assert journal.cancel_requests() == []


def test_one_wrong_word_cancels_nothing(run: Run, journal: Journal) -> None:
    """All arguments are resolved before the first job is cancelled."""
    result = run("cancel", "both.jpg", "nothing.jpg")
    assert result.exit_code == 2
    assert journal.cancel_requests() == []


@pytest.mark.parametrize("args", ["", "--all both.jpg"])
def test_an_argument_is_required(run: Run, journal: Journal, args: str) -> None:
    """Either arguments or `--all` must be given, not both."""
    result = run("cancel", *args.split())
    assert result.exit_code == 2
    assert "--all" in result.output
    assert journal.cancel_requests() == []


def test_photos_can_be_put_first(run: Run, journal: Journal) -> None:
    """All jobs of the photo, before what has waited for longer; nothing else changes."""
    before = [job.input for job in journal.in_state(JobState.QUEUED, limit=-1)]
    last = before[-1]
    assert before[0] != last
    result = run("first", last)
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"next: {last} in ")
    after = [job.input for job in journal.in_state(JobState.QUEUED, limit=-1)]
    assert after[0] == last
    rest = [name for name in after if name != last]
    assert rest == [name for name in before if name != last]


def test_photos_are_put_first_in_the_order_given(run: Run, journal: Journal) -> None:
    """And before those that were put first by an earlier command."""
    before = [job.input for job in journal.in_state(JobState.QUEUED, limit=-1)]
    one, other = dict.fromkeys(before)
    for names in ((other,), (one, other), (other, one)):
        result = run("first", *names)
        assert result.exit_code == 0, result.output
        assert next(line.split()[1] for line in result.output.splitlines()) == names[0]
        after = [job.input for job in journal.in_state(JobState.QUEUED, limit=-1)]
        assert list(dict.fromkeys(after))[: len(names)] == list(names)


def test_what_is_not_queued_cannot_be_put_first(run: Run, journal: Journal) -> None:
    """The state is told; a name that is not in the queue is wrong usage."""
    claimed = journal.claim(1e12)
    assert claimed is not None
    result = run("first", claimed.id)
    assert (result.exit_code, "it is running already" in result.output) == (0, True)
    assert run("first", "nothing.jpg").exit_code == 2
