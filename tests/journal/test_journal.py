"""The journal: jobs and their states in an SQLite file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from styled.degradation import Degradation
from styled.errors import ResourceUnavailable
from styled.journal.job import ON_REQUEST, Job, JobState
from styled.journal.journal import Journal
from styled.journal.queries import MAX_WAIT_SECONDS
from tests.daemon_harness import let_others_in
from tests.job_harness import Dropped, progress


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal.open(path)
    yield journal
    journal.close()


def arrival(name: str = "a.jpg", mtime_ns: int = 5, *styles: str, size: int = 9) -> Dropped:
    return Dropped(name, size, mtime_ns, dict.fromkeys(styles or ("oil",), f"to/{name}"))


def claim(journal: Journal, now: float = 10.0) -> Job:
    job = journal.claim(now)
    assert job is not None
    return job


# Submitting


def test_a_submitted_input_becomes_a_queued_job(journal: Journal) -> None:
    """A submitted input gives a queued job with all of its values."""
    assert journal.submit([arrival()], 7.0) == 1
    (job,) = journal.in_state(JobState.QUEUED, limit=9)
    assert (job.input, job.size, job.mtime_ns) == ("a.jpg", 9, 5)
    assert (job.style, job.destination) == ("oil", "to/a.jpg")
    assert (job.state, job.attempts, job.submitted_at) == (JobState.QUEUED, 0, 7.0)
    assert journal.job(job.id) == job


def test_each_style_of_an_input_is_a_job(journal: Journal) -> None:
    """An input in two styles gives two jobs with different ids."""
    assert journal.submit([arrival("a.jpg", 5, "oil", "ink")], 7.0) == 2
    jobs = journal.in_state(JobState.QUEUED, limit=9)
    assert [job.style for job in jobs] == ["oil", "ink"]
    assert len({job.id for job in jobs}) == 2


@pytest.mark.parametrize("state", [None, JobState.DONE, JobState.REJECTED, JobState.CANCELLED])
def test_an_input_is_submitted_once_while_it_lies_there(
    journal: Journal, state: JobState | None
) -> None:
    """Submitting the same file again has no effect, whatever the state of its job."""
    journal.submit([arrival()], 7.0)
    if state is not None:
        failure = ON_REQUEST if state is JobState.CANCELLED else None
        journal.finish(claim(journal), state, 11.0, failure=failure)
    assert journal.submit([arrival(), arrival()], 12.0) == 0
    assert sum(journal.counts().values()) == 1


def test_an_input_whose_job_was_not_cancelled_on_request_may_come_again(journal: Journal) -> None:
    """It was moved away at its turn, or its style was removed: both may be undone."""
    journal.submit([arrival()], 7.0)
    journal.finish(claim(journal), JobState.CANCELLED, 11.0, failure="style removed")
    assert journal.submit([arrival()], 12.0) == 1


@pytest.mark.parametrize("changed", [arrival(mtime_ns=6), arrival(size=10), arrival("b.jpg")])
def test_another_file_is_another_job(journal: Journal, changed: Dropped) -> None:
    """A file with another name, size or mtime is another input."""
    journal.submit([arrival()], 7.0)
    assert journal.submit([changed], 8.0) == 1


def test_the_same_file_may_come_again_once_it_has_left(journal: Journal) -> None:
    """After `mark_input_gone` the same file can be submitted again; others are not affected."""
    journal.submit([arrival(), arrival("b.jpg")], 7.0)
    job = claim(journal)
    journal.finish(job, JobState.DONE, 11.0)
    journal.mark_input_gone(job)
    assert journal.submit([arrival(), arrival("b.jpg")], 12.0) == 1
    assert journal.counts() == {JobState.DONE: 1, JobState.QUEUED: 2}
    assert [j.input for j in journal.jobs_of_input(job)] == ["a.jpg"]


def test_a_hundred_thousand_inputs_are_submitted_in_one_go(journal: Journal) -> None:
    """100,000 inputs are submitted in one call; a second call changes nothing; order is kept."""
    flood = [arrival(f"{number}.jpg") for number in range(100_000)]
    assert journal.submit(flood, 7.0) == 100_000
    assert journal.submit(flood, 8.0) == 0
    assert [claim(journal).input for _ in range(3)] == ["0.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff\xfe", b"new\nline.jpg", "größe".encode()])
def test_names_of_any_bytes_round_trip(journal: Journal, path: Path, name: bytes) -> None:
    """Paths are restored as the same bytes, also by another connection."""
    text = os.fsdecode(name)
    journal.submit([arrival(text)], 7.0)
    job = claim(journal)
    journal.reserve_result(job, f"oil/{text}", "ab", "cd")
    journal.reserve_original(job, Path("/archive") / text)
    reader = Journal.open_read_only(path)
    job_read = reader.job(job.id)
    reader.close()
    assert job_read is not None
    assert os.fsencode(job_read.input) == name
    assert job_read.destination == f"to/{text}"
    assert (job_read.result, job_read.original) == (f"oil/{text}", f"/archive/{text}")


def test_reasons_may_name_files_that_are_not_utf8(journal: Journal) -> None:
    """In reasons and states, bytes that are not UTF-8 are escaped."""
    journal.submit([arrival()], 7.0)
    job = claim(journal)
    journal.requeue(job, reason="caf\udce9 is gone", attempt_counts=True)
    assert journal.in_state(JobState.QUEUED, limit=1)[0].reason == "caf\\xe9 is gone"
    journal.finish(job, JobState.REJECTED, 9.0, reason="caf\udce9 is bad", failure="input")
    assert journal.in_state(JobState.REJECTED, limit=1)[0].reason == "caf\\xe9 is bad"
    journal.set_state(activity="paused: caf\udce9")
    assert journal.get_state() == {"activity": "paused: caf\\xe9"}


def test_a_reason_is_kept_on_one_line(journal: Journal) -> None:
    """Line breaks in reasons are replaced by spaces, because tables and sidecars show one line."""
    journal.submit([arrival()], 7.0)
    job = claim(journal)
    journal.requeue(job, reason="shapes differ:\n  (1, 2)\r\n", attempt_counts=True)
    assert journal.in_state(JobState.QUEUED, limit=1)[0].reason == "shapes differ: (1, 2)"
    journal.finish(job, JobState.REJECTED, 9.0, reason="a\nb", remedies=["caf\udce9", "c"])
    rejected = journal.in_state(JobState.REJECTED, limit=1)[0]
    assert (rejected.reason, rejected.remedies) == ("a b", ("caf\\xe9", "c"))


def test_degradations_are_remembered(journal: Journal) -> None:
    """The degradations set last are kept in order, across attempts and after the job's end."""
    journal.submit([arrival()], 7.0)
    job = claim(journal)
    assert job.degraded == ()
    journal.set_degraded(job, [Degradation("memory", "memory was short")])
    degraded = Degradation("diverged", "it rose"), Degradation("color", "caf\udce9 has no colours")
    journal.set_degraded(job, degraded)
    kept = degraded[0], Degradation("color", "caf\\xe9 has no colours")
    journal.requeue(job, attempt_counts=True)
    second = claim(journal)
    assert second.degraded == kept
    journal.finish(second, JobState.DONE, 9.0)
    assert journal.in_state(JobState.DONE, limit=1)[0].degraded == kept


@pytest.mark.parametrize("mtime_ns", [-(10**18), 10**19])
def test_dates_beyond_64_bits_are_kept(journal: Journal, mtime_ns: int) -> None:
    """An mtime before 1970 or after 2262 is stored and compared like any other."""
    assert journal.submit([arrival(mtime_ns=mtime_ns)], 7.0) == 1
    assert journal.submit([arrival(mtime_ns=mtime_ns)], 7.0) == 0
    job = claim(journal)
    assert job.mtime_ns == mtime_ns
    assert journal.jobs_of_input(job) == [job]
    journal.mark_input_gone(job)
    assert journal.jobs_of_input(job) == []


# Running


def test_claims_come_in_order_and_count_attempts(journal: Journal) -> None:
    """Each claim returns the oldest queued job and counts an attempt; None if there is none."""
    journal.submit([arrival("b.jpg"), arrival("a.jpg")], 7.0)
    first = claim(journal, 8.0)
    assert (first.input, first.attempts, first.started_at) == ("b.jpg", 1, 8.0)
    assert first.state is JobState.RUNNING
    assert claim(journal).input == "a.jpg"
    assert journal.claim(10.0) is None


def test_a_waiting_job_lets_others_pass_until_it_is_due(journal: Journal) -> None:
    """A job with `not_before` is claimed only then, and `next_due` returns that time."""
    journal.submit([arrival("a.jpg"), arrival("b.jpg")], 7.0)
    journal.requeue(claim(journal), not_before=20.0, attempt_counts=False)
    assert journal.next_due() == 0.0
    assert claim(journal).input == "b.jpg"
    assert journal.next_due() == 20.0
    assert journal.claim(19.9) is None
    assert claim(journal, 20.0).input == "a.jpg"
    assert journal.next_due() is None


@pytest.mark.parametrize(("counts", "attempts"), [(True, 2), (False, 1)])
def test_only_attempts_that_count_are_counted(
    journal: Journal, counts: bool, attempts: int
) -> None:
    """A requeued job keeps its attempt count only if the attempt counts."""
    journal.submit([arrival()], 7.0)
    journal.requeue(claim(journal), reason="why", failure="engine", attempt_counts=counts)
    job = claim(journal)
    assert (job.attempts, job.reason, job.failure) == (attempts, "why", "engine")


def test_recovery_queues_what_was_running_and_nothing_else(journal: Journal, path: Path) -> None:
    """`recover` requeues the running jobs, with their attempt counted, and no others."""
    journal.submit([arrival("a.jpg"), arrival("b.jpg"), arrival("c.jpg")], 7.0)
    journal.finish(claim(journal), JobState.DONE, 9.0)
    claim(journal)
    journal.close()
    later = Journal.open(path)
    assert [job.input for job in later.recover()] == ["b.jpg"]
    assert later.counts() == {JobState.DONE: 1, JobState.QUEUED: 2}
    assert claim(later).attempts == 2
    later.close()


def test_a_done_job_is_wholly_done(journal: Journal) -> None:
    """A done job has fraction 1 and no reason; a rejected one keeps its fraction."""
    journal.submit([arrival("a.jpg"), arrival("b.jpg")], 7.0)
    for state in (JobState.DONE, JobState.REJECTED):
        job = claim(journal)
        journal.update_progress(job, progress(0.4))
        journal.requeue(job, reason="once", attempt_counts=True)
        journal.update_progress(claim(journal), progress(0.5))
        journal.finish(job, state, 12.0)
    (done,) = journal.in_state(JobState.DONE, limit=9)
    assert (done.fraction, done.reason, done.finished_at) == (1.0, None, 12.0)
    assert journal.in_state(JobState.REJECTED, limit=9)[0].fraction == 0.5


def test_finished_inputs_are_listed_until_they_have_left(journal: Journal) -> None:
    """`finished_in_inbox` returns one job per finished input, until that is marked as gone."""
    journal.submit([arrival("a.jpg", 5, "oil", "ink"), arrival("b.jpg")], 7.0)
    for _ in range(2):
        journal.finish(claim(journal), JobState.DONE, 9.0)
    (job,) = journal.finished_in_inbox()
    assert job.input == "a.jpg"
    journal.mark_input_gone(job)
    assert journal.finished_in_inbox() == []


# Queries


def test_counts_and_lists_tell_what_there_is(journal: Journal) -> None:
    """Jobs are counted by state and listed in either order, up to a limit."""
    journal.submit([arrival(f"{name}.jpg") for name in "abcd"], 7.0)
    for number in range(3):
        journal.finish(claim(journal), JobState.REJECTED, 20.0 + number)
    assert journal.counts() == {JobState.REJECTED: 3, JobState.QUEUED: 1}
    newest = journal.in_state(JobState.REJECTED, JobState.DONE, limit=2, newest_first=True)
    assert [job.input for job in newest] == ["c.jpg", "b.jpg"]
    assert journal.unfinished_ids() == {journal.in_state(JobState.QUEUED, limit=1)[0].id}
    assert journal.job("nobody") is None


def test_lists_of_several_states_are_in_one_order(journal: Journal) -> None:
    """The order of listed jobs does not depend on which states are requested."""
    journal.submit([arrival(f"{name}.jpg") for name in "abcdef"], 7.0)
    for at, state in enumerate(
        (JobState.DONE, JobState.REJECTED, JobState.DONE, JobState.REJECTED)
    ):
        journal.finish(claim(journal), state, 20.0 + at)

    def inputs(*states: JobState, limit: int = -1, newest_first: bool = False) -> str:
        jobs = journal.in_state(*states, limit=limit, newest_first=newest_first)
        return "".join(job.input[0] for job in jobs)

    for ended in permutations((JobState.DONE, JobState.REJECTED, JobState.CANCELLED)):
        assert inputs(*ended) == "abcd"
        assert inputs(*ended, newest_first=True) == "dcba"
        assert inputs(*ended, limit=3, newest_first=True) == "dcb"
        assert inputs(*ended, JobState.QUEUED, limit=5) == "abcde"
    assert journal.last_finished(JobState.REJECTED) == 23.0
    assert journal.last_finished(JobState.CANCELLED) is None


def test_daemon_facts_are_replaced_one_by_one(journal: Journal) -> None:
    """`set_state` replaces single values and keeps the others."""
    journal.set_state(activity="running", pid="4")
    journal.set_state(activity="stopped")
    assert journal.get_state() == {"activity": "stopped", "pid": "4"}


def test_a_reader_sees_what_is_written_meanwhile(journal: Journal, path: Path) -> None:
    """A read-only connection sees new writes, and cannot write."""
    reader = Journal.open_read_only(path)
    journal.submit([arrival()], 7.0)
    assert reader.counts() == {JobState.QUEUED: 1}
    with pytest.raises(ResourceUnavailable, match="readonly"):
        reader.set_state(activity="x")
    reader.close()


# `nobody` may not be able to read Python's own files: what is used must have been imported before.
READ_AS_NOBODY = """
import os, sys, urllib.parse
from pathlib import Path
from styled.journal.journal import Journal
from styled.journal.queries import MAX_WAIT_SECONDS
os.setuid(65534)
print(Journal.open_read_only(Path(sys.argv[1])).get_state()["activity"])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("running", [True, False])
def test_a_user_who_may_only_read_can_look(tmp_path: Path, running: bool) -> None:
    """A user with read permission can open the journal, with or without a running daemon."""
    let_others_in(tmp_path)
    path = tmp_path / "journal.sqlite3"
    journal = Journal.open(path)
    journal.set_state(activity="here")
    if not running:
        journal.close()
    completed = subprocess.run(
        [sys.executable, "-c", READ_AS_NOBODY, path], capture_output=True, text=True, check=False
    )
    journal.close()
    assert (completed.stdout, completed.returncode) == ("here\n", 0), completed.stderr


# Errors


def test_a_journal_that_cannot_be_made_is_refused_in_words(tmp_path: Path) -> None:
    """If the file cannot be created, `ResourceUnavailable` is raised."""
    with pytest.raises(ResourceUnavailable, match="can't be used"):
        Journal.open(tmp_path / "missing/journal.sqlite3")
    with pytest.raises(ResourceUnavailable, match="can't be used"):
        Journal.open(tmp_path)


def test_looking_at_no_journal_says_that_there_is_none(path: Path) -> None:
    """Opening a missing journal read-only fails and does not create it."""
    with pytest.raises(ResourceUnavailable, match="no journal"):
        Journal.open_read_only(path)
    assert not path.exists()


def test_a_failed_write_changes_nothing(journal: Journal, path: Path) -> None:
    """A transaction that SQLite refuses is rolled back, and the next one works."""
    journal.submit([arrival()], 7.0)
    raw = sqlite3.connect(path)
    raw.execute(
        "CREATE TRIGGER full BEFORE INSERT ON jobs WHEN new.input = CAST('bad.jpg' AS BLOB)"
        " BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END"
    )
    raw.close()
    with pytest.raises(ResourceUnavailable, match="disk is full"):
        journal.submit([arrival("good.jpg"), arrival("bad.jpg")], 8.0)
    assert journal.counts() == {JobState.QUEUED: 1}
    assert journal.submit([arrival("good.jpg")], 9.0) == 1


# Pruning


def add_finished(journal: Journal, count: int, *, in_inbox: int = 0) -> None:
    """Add finished jobs with the end times 1, 2, 3...; the last ones' inputs stay in the inbox."""
    for number in range(1, count + 1):
        journal.submit([arrival(f"{number}.jpg")], 0.0)
        job = claim(journal)
        journal.finish(job, JobState.DONE, float(number))
        if number <= count - in_inbox:
            journal.mark_input_gone(job)


def inputs_of(journal: Journal) -> list[str]:
    """Return the names of all inputs in the journal."""
    return [job.input for job in journal._jobs("1 ORDER BY seq")]


def test_old_jobs_are_forgotten(journal: Journal) -> None:
    """Finished jobs are pruned by age and by number; the latest are kept."""
    add_finished(journal, 5)
    assert journal.prune(before=3.0, keep=100) == 2
    assert inputs_of(journal) == ["3.jpg", "4.jpg", "5.jpg"]
    assert journal.prune(before=0.0, keep=2) == 1
    assert inputs_of(journal) == ["4.jpg", "5.jpg"]
    assert journal.prune(before=0.0, keep=2) == 0


def test_what_lies_in_the_inbox_is_never_forgotten(journal: Journal) -> None:
    """Jobs whose input is in the inbox, and unfinished jobs, are never pruned."""
    add_finished(journal, 3, in_inbox=1)
    journal.submit([arrival("waiting.jpg")], 0.0)
    journal.prune(before=1e12, keep=0)
    assert inputs_of(journal) == ["3.jpg", "waiting.jpg"]


def test_the_file_stays_small_over_many_jobs(journal: Journal, path: Path) -> None:
    """The space of pruned jobs is reused, so that the file does not grow."""
    sizes = []
    for _ in range(4):
        add_finished(journal, 300)
        journal.prune(before=1e12, keep=0)
        sizes.append(path.stat().st_size)
    assert sizes[-1] <= sizes[0] + 8 * 4096


def test_what_has_ended_is_not_put_back(journal: Journal) -> None:
    """Requeuing a finished job has no effect."""
    journal.submit([arrival("a.jpg")], 0.0)
    job = claim(journal)
    journal.finish(job, JobState.DONE, 5.0)
    journal.requeue(job, attempt_counts=False)
    current = journal.job(job.id)
    assert current is not None
    assert (current.state, current.attempts) == (JobState.DONE, 1)


@pytest.mark.parametrize(("wait", "is_due"), [(30.0, False), (MAX_WAIT_SECONDS + 1, True)])
def test_no_wait_exceeds_the_limit(journal: Journal, wait: float, is_due: bool) -> None:
    """A `not_before` too far in the future is ignored: the clock was set back."""
    journal.submit([arrival("a.jpg")], 0.0)
    journal.requeue(claim(journal), not_before=1000.0, attempt_counts=True)
    assert (journal.claim(1000.0 - wait) is not None) is is_due


def test_threads_that_wait_share_a_commit(journal: Journal) -> None:
    """Writes of waiting threads share one commit, and each thread sees its own write."""
    journal.submit([Dropped(f"{n}.png", 1, 2, {"oil": f"{n}.png"}) for n in range(40)], 5.0)
    jobs = journal._jobs("1")
    commits: list[str] = []
    journal._connection.set_trace_callback(
        lambda statement: commits.append(statement) if statement == "COMMIT" else None
    )
    originals: list[str | None] = []

    def reserve(job: Job) -> None:
        journal.reserve_original(job, Path("/archive") / job.input)
        after = journal.job(job.id)
        originals.append(None if after is None else after.original)

    threads = [threading.Thread(target=reserve, args=(job,)) for job in jobs]
    with journal._lock:  # as during a commit to a slow disk
        for thread in threads:
            thread.start()
        while len(journal._waiting) < len(jobs):
            threading.Event().wait(0.001)
    for thread in threads:
        thread.join()
    assert sorted(map(str, originals)) == sorted(f"/archive/{job.input}" for job in jobs)
    assert len(commits) == 1


def test_a_write_error_reaches_each_waiter(journal: Journal) -> None:
    """If a shared commit fails, each of the waiting threads gets the error."""
    journal.submit([Dropped(f"{n}.png", 1, 2, {"oil": f"{n}.png"}) for n in range(5)], 5.0)
    jobs = journal._jobs("1")
    failures: list[str] = []

    def reserve(job: Job) -> None:
        try:
            journal.reserve_original(job, Path("/archive") / job.input)
        except ResourceUnavailable as error:
            failures.append(error.message)

    threads = [threading.Thread(target=reserve, args=(job,)) for job in jobs]
    with journal._lock:
        for thread in threads:
            thread.start()
        while len(journal._waiting) < len(jobs):
            threading.Event().wait(0.001)
        journal._connection.set_authorizer(
            lambda action, *_: (
                sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_UPDATE else sqlite3.SQLITE_OK
            )
        )
    for thread in threads:
        thread.join()
    assert len(failures) == len(jobs)
    journal._connection.set_authorizer(None)
    reserve(jobs[0])
    after = journal.job(jobs[0].id)
    assert after is not None
    assert after.original == f"/archive/{jobs[0].input}"


def test_a_suspect_is_not_claimed_beside_others_nor_is_what_comes_after_it(
    journal: Journal,
) -> None:
    """A suspect, and any job after it, can only be claimed if no other job is running."""
    journal.submit([Dropped(f"{n}.png", 1, 2, {"oil": f"{n}.png"}) for n in range(2)], 5.0)
    assert journal.claim(6.0) is not None
    journal.recover()
    assert journal.claim(7.0, is_idle=False) is None
    suspect = journal.claim(8.0, is_idle=True)
    assert suspect is not None
    assert (suspect.input, suspect.is_suspect) == ("0.png", True)
