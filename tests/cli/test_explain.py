"""Tests of `styled explain`: why a file is or is not being painted."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from styled.degradation import Degradation
from styled.intake.scanning import MAX_FOLDER_DEPTH
from styled.journal.job import Job, JobState, Phase
from styled.journal.journal import Journal
from styled.ops.lock import InstanceLock
from styled.ops.stall_record import StallRecord
from styled.sidecar import InputInfo, JobInfo, Rejection, Sidecar, StyleInfo
from tests.cli.conftest import Run, draw
from tests.job_harness import Dropped, progress

CONFIGURATION = """\
default_style: oil
styles:
  oil: {image: styles/oil.png}
  ink: {images: [styles/ink.png, styles/oil.png]}
folders:
  both: [oil, ink]
"""

HOSTILE = os.fsdecode(b"caf\xe9\x1b[2J[bold].jpg")
ESCAPED = "caf\\xe9\\x1b[2J[bold].jpg"

START = ["start it: styled run, or systemctl start styled"]
LONG_AGO = 1_000_000_000

JsonObject = dict[str, Any]
"""An explanation as printed with `--json`."""


@pytest.fixture
def folder(cwd: Path) -> Path:
    """Return a working folder in which styled has never run."""
    (cwd / "config.yaml").write_text(CONFIGURATION)
    for name in ("oil", "ink"):
        draw(cwd / f"styles/{name}.png")
    for name in ("inbox", "outbox", "rejected", "archive", "state"):
        (cwd / name).mkdir()
    return cwd


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    """Return the journal of a working folder in which styled has run."""
    journal = Journal.open(folder / "state/journal.sqlite3")
    yield journal
    journal.close()


@pytest.fixture
def _running(folder: Path, journal: Journal) -> Iterator[None]:
    """Hold the lock, as a running daemon does."""
    journal.set_state(activity="running", inbox_problem="")
    lock = InstanceLock(folder / "state/lock")
    lock.acquire()
    yield
    lock.release()


def explain_one(run: Run, arg: str | Path) -> JsonObject:
    """Return the explanation of one argument."""
    result = run("explain", "--json", arg)
    assert result.exit_code == 0, result.output
    explanation: JsonObject = json.loads(result.stdout)
    return explanation


def drop(path: Path, *, mtime: float = LONG_AGO, data: bytes = b"photo") -> Path:
    """Write a file with an old modification time; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (mtime, mtime))
    return path


def submit(journal: Journal, folder: Path, name: str, *styles: str) -> list[Job]:
    """Write a photo to the inbox and submit it in the given styles, by default `oil`."""
    stat = drop(folder / "inbox" / name).stat()
    destinations = dict.fromkeys(styles or ("oil",), name)
    journal.submit([Dropped(name, stat.st_size, stat.st_mtime_ns, destinations)], time.time())
    jobs = journal.jobs_about("input", name)
    return [next(job for job in jobs if job.style == style) for style in destinations]


def claim(journal: Journal) -> Job:
    """Start the next job."""
    job = journal.claim(time.time())
    if job is not None:
        journal.set_phase(job, Phase.PAINTING, "engine-0")
    assert job is not None
    return job


def finish(journal: Journal, folder: Path, job: Job, state: JobState, **details: Any) -> Path:
    """Finish a job as of 90 seconds ago and move its photo; return the new path of the photo."""
    now = time.time() - 90
    root = "archive" if state is JobState.DONE else "rejected"
    original = folder / root / job.style / Path(job.input).name
    original.parent.mkdir(parents=True, exist_ok=True)
    if state is JobState.DONE:
        result = drop(folder / "outbox" / job.style / job.destination)
        journal.reserve_result(job, str(result.relative_to(folder / "outbox")), "ab", "cd")
    journal.reserve_original(job, original)
    journal.finish(job, state, now, **details)
    (folder / "inbox" / job.input).rename(original)
    journal.mark_input_gone(job)
    return original


def write_sidecar(
    path: Path,
    *,
    rejection: Rejection | None = None,
    degraded: tuple[Degradation, ...] = (),
    style: str | None = "oil",
) -> Path:
    """Write the sidecar of a file; return its path."""
    timestamp = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    sidecar = Sidecar(
        job=JobInfo(
            id="4a",
            attempts=1,
            resumed=False,
            submitted_at=timestamp,
            started_at=timestamp,
            finished_at=timestamp,
        ),
        input=InputInfo(path="trip/photo.jpg", bytes=5),
        style=None if style is None else StyleInfo(name=style, images=()),
        degraded=degraded,
        rejected=rejection,
    )
    sidecar_path = path.with_name(f"{path.name}.json")
    sidecar_path.write_bytes(sidecar.to_json())
    return sidecar_path


# In the inbox, before it is a job


def test_without_a_daemon_a_photo_stays_new(run: Run, folder: Path) -> None:
    """Without a daemon the styles and the start command are shown; no files are created."""
    photo = drop(folder / "inbox/a.jpg")
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation == {
        "path": str(photo), "verdict": "new", "jobs": [], "remedies": START, "settings": [],
        "reasons": ["it will be painted in oil, but styled is not running"],
    }  # fmt: skip
    assert list((folder / "state").iterdir()) == []


@pytest.mark.usefixtures("folder")
def test_all_styles_of_a_folder_are_reported(run: Run, folder: Path) -> None:
    """All styles of a folder with several styles are listed."""
    drop(folder / "inbox/both/a.jpg")
    (reason,) = explain_one(run, "inbox/both/a.jpg")["reasons"]
    assert reason.startswith("it will be painted in oil and in ink, ")


@pytest.mark.usefixtures("_running")
def test_what_has_just_changed_settles(run: Run, folder: Path) -> None:
    """A file that was just changed is settling."""
    drop(folder / "inbox/a.jpg", mtime=time.time())
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation["verdict"] == "settling"
    assert explanation["reasons"] == [
        "it will be painted in oil, once it has not changed for 1 s",
    ]  # fmt: skip


@pytest.mark.usefixtures("_running")
def test_how_long_it_has_to_settle_is_configured(run: Run, folder: Path) -> None:
    """Text and verdict use `settle_seconds` and `rescan_seconds` of the configuration."""
    with open(folder / "config.yaml", "a") as file:
        file.write("intake: {settle_seconds: 600.5, rescan_seconds: 90}\n")
    drop(folder / "inbox/a.jpg", mtime=time.time() - 60)
    assert explain_one(run, "inbox/a.jpg")["reasons"][0].endswith("not changed for 600.5 s")
    drop(folder / "inbox/a.jpg", mtime=time.time() - 700)
    explanation = explain_one(run, "inbox/a.jpg")
    assert (explanation["verdict"], explanation["remedies"]) == ("new", [])
    assert explanation["reasons"] == [
        "it will be painted in oil; it is taken at the next scan of the inbox, within 1 min 30 s"
    ]


@pytest.mark.usefixtures("_running")
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"inbox_problem": "it is gone", "activity": "paused: full"}, "it is gone"),
        ({"activity": "paused: the outbox is full"}, "paused: the outbox is full"),
    ],
)
def test_a_daemon_with_a_problem_takes_nothing(
    run: Run, folder: Path, journal: Journal, state: dict[str, str], expected: str
) -> None:
    """The most serious problem of the daemon is the first reason."""
    journal.set_state(**state)
    drop(folder / "inbox/a.jpg", mtime=time.time())
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation["verdict"] == "new"
    assert explanation["reasons"] == [expected, "it will be painted in oil"]


@pytest.mark.usefixtures("_running")
def test_a_daemon_that_is_stuck_takes_nothing(run: Run, folder: Path, journal: Journal) -> None:
    """A stall is more serious than all other problems."""
    journal.set_state(inbox_problem="it is gone")
    StallRecord("it is stuck", ("intake",)).save(folder / "state")
    drop(folder / "inbox/a.jpg", mtime=time.time())
    assert explain_one(run, "inbox/a.jpg")["reasons"] == [
        "it is stuck",
        "it will be painted in oil",
    ]


def test_the_problem_of_a_dead_daemon_is_over(run: Run, folder: Path, journal: Journal) -> None:
    """If the daemon is not running, its stored problems are ignored."""
    StallRecord("it is stuck", ("intake",)).save(folder / "state")
    journal.set_state(activity="paused: full")
    drop(folder / "inbox/a.jpg")
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation["reasons"] == ["it will be painted in oil, but styled is not running"]


@pytest.mark.usefixtures("_running")
def test_another_file_under_the_name_of_a_job_is_new(
    run: Run, folder: Path, journal: Journal
) -> None:
    """A new file with the name of a finished job's photo has no jobs."""
    job = submit_and_claim(journal, folder, "a.jpg")
    finish(journal, folder, job, JobState.DONE)
    drop(folder / "inbox/a.jpg", data=b"another photo")
    explanation = explain_one(run, "inbox/a.jpg")
    assert (explanation["verdict"], explanation["jobs"]) == ("new", [])


def submit_and_claim(journal: Journal, folder: Path, name: str) -> Job:
    """Submit a photo and start its only job."""
    submit(journal, folder, name)
    return claim(journal)


# In the inbox, and ignored


@pytest.mark.usefixtures("_running")
@pytest.mark.parametrize(
    ("path", "name", "pattern"),
    [
        ("a.jpg.part", "a.jpg.part", "*.part"),
        (".a.jpg", ".a.jpg", ".*"),
        ("Thumbs.DB", "Thumbs.DB", "Thumbs.db"),
        (".cache/deep/a.jpg", ".cache", ".*"),
    ],
)
def test_ignored_names_are_reported_with_their_pattern(
    run: Run, folder: Path, path: str, name: str, pattern: str
) -> None:
    """The reason has name and pattern, also for parent folders and for files that do not exist."""
    explanation = explain_one(run, f"inbox/{path}")
    assert explanation["verdict"] == "ignored"
    assert explanation["reasons"] == [
        f'its name is left alone: "{name}" matches "{pattern}" in intake.ignore'
    ]
    assert explanation["remedies"] == ["rename it, or take that pattern out of intake.ignore"]
    drop(folder / "inbox" / path)
    assert explain_one(run, f"inbox/{path}") == explanation


@pytest.mark.usefixtures("_running")
def test_our_own_incomplete_files_are_ignored(run: Run, folder: Path) -> None:
    """styled's own temporary files are ignored regardless of settings, so there is no remedy."""
    drop(folder / "inbox/.styled-x.jpg")
    explanation = explain_one(run, "inbox/.styled-x.jpg")
    assert (explanation["verdict"], explanation["remedies"]) == ("ignored", [])
    assert explanation["reasons"] == ["it is an incomplete file of styled's own"]


@pytest.mark.usefixtures("_running")
def test_what_lies_too_deep_is_ignored(run: Run, folder: Path) -> None:
    """Files below the maximum folder depth are ignored; files at that depth are not."""
    deepest = "/".join("d" * MAX_FOLDER_DEPTH)
    drop(folder / f"inbox/{deepest}/a.jpg")
    assert explain_one(run, f"inbox/{deepest}/a.jpg")["verdict"] == "new"
    drop(folder / f"inbox/{deepest}/d/a.jpg")
    explanation = explain_one(run, f"inbox/{deepest}/d/a.jpg")
    assert explanation["verdict"] == "ignored"
    assert explanation["reasons"] == [f"it lies more than {MAX_FOLDER_DEPTH} folders deep"]
    assert explanation["remedies"] == ["move it further up"]


def make_socket(path: Path) -> None:
    """Create a socket; with a relative path, because socket paths have a length limit."""
    with chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: path.symlink_to(path.parent / "photo.jpg"), "a symbolic link"),
        (lambda path: path.symlink_to("/nowhere"), "a symbolic link"),
        (lambda path: path.symlink_to(path.parent), "a symbolic link"),
        (lambda path: os.mkfifo(path), "a pipe"),
        (make_socket, "a socket"),
    ],
)
def test_what_is_no_regular_file_is_never_opened(
    run: Run, folder: Path, make: Callable[[Path], None], kind: str
) -> None:
    """The reason has the kind of the file; symbolic links are not followed."""
    drop(folder / "inbox/photo.jpg")
    make(folder / "inbox/x.jpg")
    explanation = explain_one(run, folder / "inbox/x.jpg")
    assert explanation["path"] == str(folder / "inbox/x.jpg")
    assert explanation["verdict"] == "not a file"
    assert explanation["reasons"] == [f"it is {kind}: those are never opened nor moved"]
    assert explanation["remedies"] == ["put the photo itself here"]


def test_without_a_default_style_a_photo_may_belong_to_none(run: Run, folder: Path) -> None:
    """The remedy for an unpaired photo lists all folders that have a style."""
    text = CONFIGURATION.replace("default_style: oil\n", "")
    (folder / "config.yaml").write_text(text)
    drop(folder / "inbox/trip/a.jpg")
    expected = [
        f"move it into one of {folder}/inbox/oil, {folder}/inbox/ink, {folder}/inbox/both",
        "or name a default_style in the configuration",
    ]
    reason = "to no style: the folder names none, and there is no default_style"
    explanation = explain_one(run, "inbox/trip/a.jpg")
    assert (explanation["verdict"], explanation["remedies"]) == ("unpaired", expected)
    assert explanation["reasons"] == [f"it belongs {reason}"]
    explanation = explain_one(run, "inbox/trip")
    assert (explanation["verdict"], explanation["remedies"]) == ("unpaired", expected)
    assert explanation["reasons"] == [f"photos in it belong {reason}"]
    drop(folder / "inbox/ink/a.jpg")
    assert explain_one(run, "inbox/ink/a.jpg")["verdict"] == "new"


def test_without_any_style_that_is_the_remedy(run: Run, folder: Path) -> None:
    """Without any style the remedy is to configure one."""
    (folder / "config.yaml").write_text("{}")
    drop(folder / "inbox/a.jpg")
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation["verdict"] == "unpaired"
    assert explanation["remedies"][0] == "configure a style"


@pytest.mark.parametrize(
    ("name", "styles"),
    [("trip", "oil"), ("ink", "ink"), ("ink/trip", "ink"), ("both", "oil and in ink")],
)
def test_a_folder_tells_what_photos_in_it_become(
    run: Run, folder: Path, name: str, styles: str
) -> None:
    """The styles of a folder in the inbox are those of photos in it."""
    (folder / "inbox" / name).mkdir(parents=True)
    explanation = explain_one(run, f"inbox/{name}")
    assert explanation["verdict"] == "folder"
    assert explanation["reasons"] == [f"photos in it are painted in {styles}"]


@pytest.mark.parametrize("name", ["inbox", "outbox", "rejected", "archive"])
def test_the_folders_themselves_are_known(run: Run, folder: Path, name: str) -> None:
    """The folders of the configuration are recognised."""
    (folder / "link").symlink_to(name)
    explanation = explain_one(run, name)
    assert (explanation["verdict"], explanation["reasons"]) == ("folder", [f"the {name} itself"])
    assert explain_one(run, f"{name}/")["reasons"] == explanation["reasons"]


def test_where_the_disk_is_missing_everything_waits(
    run: Run, folder: Path, journal: Journal
) -> None:
    """If the inbox is not mounted, files below the mount point wait, existing or not."""
    mount = {"point": str(folder), "source": "nas:/photos", "inode": 1}
    (folder / "state/mounts.json").write_text(json.dumps({str(folder / "inbox"): mount}))
    drop(folder / "inbox/a.jpg")
    for arg in ("inbox/a.jpg", "inbox/gone.jpg"):
        explanation = explain_one(run, arg)
        assert explanation["verdict"] == "waiting"
        assert "nothing is mounted now" in explanation["reasons"][0]
        assert explanation["remedies"][0] == f"mount {folder}"


def test_an_unknown_path_is_missing(run: Run, folder: Path, journal: Journal) -> None:
    """A path without file and job is missing."""
    explanation = explain_one(run, "inbox/gone.jpg")
    assert explanation["verdict"] == "missing"
    assert explanation["reasons"] == ["there is no such file, and no known job is about it"]


# Jobs


@pytest.mark.usefixtures("_running")
def test_the_running_job_tells_how_far_it_is(run: Run, folder: Path, journal: Journal) -> None:
    """A running job shows its progress and, if known, the remaining time."""
    job = submit_and_claim(journal, folder, "a.jpg")
    assert explain_one(run, "inbox/a.jpg")["reasons"] == ["oil: is being painted, 0% done"]
    journal.update_progress(job, progress(0.42, seconds_left=75.0))
    explanation = explain_one(run, "inbox/a.jpg")
    assert (explanation["verdict"], explanation["remedies"]) == ("painting", [])
    assert explanation["reasons"] == ["oil: is being painted, 42% done, about 1 min 15 s left"]
    (job_json,) = explanation["jobs"]
    assert (job_json["id"], job_json["progress"]["step"]) == (job.id, 4)


@pytest.mark.usefixtures("_running")
def test_a_waiting_job_tells_its_place(run: Run, folder: Path, journal: Journal) -> None:
    """A queued job shows the number of jobs before it, including the running one."""
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        submit(journal, folder, name)
    explanation = explain_one(run, "inbox/a.jpg")
    assert (explanation["verdict"], explanation["reasons"]) == ("waiting", ["oil: is next"])
    claim(journal)
    assert explain_one(run, "inbox/b.jpg")["reasons"] == ["oil: waits, with 1 job before it"]
    assert explain_one(run, "inbox/c.jpg")["reasons"] == ["oil: waits, with 2 jobs before it"]


@pytest.mark.usefixtures("_running")
def test_the_place_in_the_queue_follows_priorities(
    run: Run, folder: Path, journal: Journal
) -> None:
    """Jobs that are painted earlier count, not those that were submitted earlier."""
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        drop(folder / "inbox" / name)
        submit(journal, folder, name)
    assert "waits, with 2 jobs before it" in explain_one(run, "inbox/c.jpg")["reasons"][-1]
    (job,) = [job for job in journal.in_state(JobState.QUEUED, limit=9) if job.input == "c.jpg"]
    assert journal.put_first(job)
    assert "is next" in explain_one(run, "inbox/c.jpg")["reasons"][-1]
    assert "waits, with 1 job before it" in explain_one(run, "inbox/a.jpg")["reasons"][-1]
    assert "waits, with 2 jobs before it" in explain_one(run, "inbox/b.jpg")["reasons"][-1]


@pytest.mark.usefixtures("_running")
def test_a_job_that_is_to_be_cancelled_says_so(run: Run, folder: Path, journal: Journal) -> None:
    """A job whose cancellation is pending is waiting."""
    (job,) = submit(journal, folder, "a.jpg")
    journal.request_cancel(job)
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation["verdict"] == "waiting"
    assert explanation["reasons"] == ["oil: is next, and is to be cancelled"]


@pytest.mark.usefixtures("_running")
def test_a_job_that_has_failed_tells_why_and_when(run: Run, folder: Path, journal: Journal) -> None:
    """A failed job shows its reason and, until then, the time of the next attempt."""
    job = submit_and_claim(journal, folder, "a.jpg")
    journal.requeue(
        job, reason="it diverged", remedies=["try another size"], not_before=time.time() + 1800,
        attempt_counts=True,
    )  # fmt: skip
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation["verdict"] == "waiting"
    (reason,) = explanation["reasons"]
    assert re.fullmatch(r"oil: waits: it diverged; tried again in (30 min|29 min 5\d s)", reason)
    assert "try another size" in explanation["remedies"]
    journal._execute("UPDATE jobs SET not_before = 1")
    assert explain_one(run, "inbox/a.jpg")["reasons"] == ["oil: waits: it diverged"]


def test_without_a_daemon_no_job_goes_on(run: Run, folder: Path, journal: Journal) -> None:
    """If the daemon is not running, that is the first reason of a waiting job."""
    submit(journal, folder, "a.jpg")
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation["reasons"] == ["styled is not running", "oil: is next"]
    assert explanation["remedies"] == START


@pytest.mark.usefixtures("_running")
def test_a_problem_of_the_daemon_is_why_a_job_waits(
    run: Run, folder: Path, journal: Journal
) -> None:
    """A problem of the daemon is the first reason of unfinished jobs, not of finished ones."""
    journal.set_state(activity="paused: the outbox is full")
    (job,) = submit(journal, folder, "a.jpg")
    assert explain_one(run, job.id)["reasons"] == ["paused: the outbox is full", "oil: is next"]
    finish(journal, folder, claim(journal), JobState.DONE)
    (reason,) = explain_one(run, job.id)["reasons"]
    assert reason.startswith("oil: was painted")


def test_a_finished_job_tells_where_its_painting_is(
    run: Run, folder: Path, journal: Journal
) -> None:
    """A finished job shows the path of its result, and whether that was removed."""
    job = submit_and_claim(journal, folder, "a.jpg")
    finish(journal, folder, job, JobState.DONE)
    explanation = explain_one(run, "inbox/a.jpg")
    assert (explanation["verdict"], explanation["remedies"]) == ("done", [])
    (reason,) = explanation["reasons"]
    path = re.escape(str(folder / "outbox/oil/a.jpg"))
    assert re.fullmatch(rf"oil: was painted 1 min 3\d s ago: {path}", reason)
    (folder / "outbox/oil/a.jpg").unlink()
    assert explain_one(run, "inbox/a.jpg")["reasons"][0].endswith(
        "a.jpg (it is not there any more)"
    )


@pytest.mark.parametrize(
    ("state", "failure", "verdict"),
    [(JobState.REJECTED, "input", "rejected"), (JobState.CANCELLED, "cancelled", "cancelled")],
)
def test_what_was_refused_tells_why_and_how_to_have_it_back(
    run: Run, folder: Path, journal: Journal, state: JobState, failure: str, verdict: str
) -> None:
    """A rejected or cancelled job shows its reason, its original and the `retry` command."""
    job = submit_and_claim(journal, folder, "a.jpg")
    details = {"reason": "because", "failure": failure, "remedies": ["so it is"]}
    path = finish(journal, folder, job, state, **details)
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation["verdict"] == verdict
    assert explanation["remedies"] == [
        "so it is", f"to have it tried once more: styled retry {job.id}",
    ]  # fmt: skip
    (reason,) = explanation["reasons"]
    assert re.fullmatch(
        {
            "rejected": r"oil: was rejected 1 min 3\d s ago: because",
            "cancelled": r"oil: was cancelled on request 1 min 3\d s ago",
        }[verdict]
        + f"; it lies in {re.escape(str(path))}",
        reason,
    )
    (by_number,) = explain_one(run, job.id)["reasons"]
    age = r"1 min 3\d s"
    assert re.sub(age, "", by_number) == re.sub(age, "", reason)


def test_a_job_whose_photo_was_replaced_cannot_be_had_back(
    run: Run, folder: Path, journal: Journal
) -> None:
    """A job whose photo was removed or replaced has no `retry` remedy."""
    job = submit_and_claim(journal, folder, "a.jpg")
    journal.finish(job, JobState.CANCELLED, time.time(), reason="the input was removed")
    journal.mark_input_gone(job)
    (folder / "inbox/a.jpg").unlink()
    explanation = explain_one(run, job.id)
    assert (explanation["verdict"], explanation["remedies"]) == ("cancelled", [])
    assert re.fullmatch(
        r"oil: was cancelled \d s ago: the input was removed", explanation["reasons"][0]
    )


@pytest.mark.usefixtures("_running")
def test_all_styles_of_a_photo_are_reported(run: Run, folder: Path, journal: Journal) -> None:
    """There is one reason per style; unfinished jobs determine the verdict."""
    oil, ink = submit(journal, folder, "both/a.jpg", "oil", "ink")
    assert claim(journal).id == oil.id
    journal.reserve_result(oil, "oil/a.jpg", "ab", "cd")
    journal.finish(oil, JobState.DONE, time.time())
    explanation = explain_one(run, "inbox/both/a.jpg")
    assert explanation["verdict"] == "waiting"
    assert explanation["reasons"][0] == "ink: is next"
    assert explanation["reasons"][1].startswith("oil: was painted")
    claim(journal)
    assert explain_one(run, "inbox/both/a.jpg")["verdict"] == "painting"
    journal.finish(ink, JobState.REJECTED, time.time(), reason="because")
    (folder / "inbox/both/a.jpg").unlink()
    explanation = explain_one(run, "inbox/both/a.jpg")
    assert explanation["verdict"] == "rejected"
    assert [job["style"] for job in explanation["jobs"]] == ["ink", "oil"]
    assert [reason.split(":")[0] for reason in explanation["reasons"]] == ["ink", "oil"]


@pytest.mark.usefixtures("_running")
def test_what_is_still_to_be_done_decides(run: Run, folder: Path, journal: Journal) -> None:
    """The verdict is that of the queued job, even if another one was rejected."""
    oil, _ = submit(journal, folder, "both/a.jpg", "oil", "ink")
    assert claim(journal).id == oil.id
    journal.finish(oil, JobState.REJECTED, time.time(), reason="because")
    (folder / "inbox/both/a.jpg").unlink()
    explanation = explain_one(run, "inbox/both/a.jpg")
    assert explanation["verdict"] == "waiting"
    assert explanation["remedies"] == [f"to have it tried once more: styled retry {oil.id}"]


def test_of_photos_that_are_gone_the_latest_is_meant(
    run: Run, folder: Path, journal: Journal
) -> None:
    """If several photos had the same path, the jobs of the latest one are shown."""
    finish(journal, folder, submit_and_claim(journal, folder, "a.jpg"), JobState.DONE)
    drop(folder / "inbox/a.jpg", data=b"another")
    stat = (folder / "inbox/a.jpg").stat()
    journal.submit([Dropped("a.jpg", stat.st_size, stat.st_mtime_ns, {"ink": "a.jpg"})], 5.0)
    job = claim(journal)
    finish(journal, folder, job, JobState.REJECTED, reason="because")
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation["verdict"] == "rejected"
    assert [job_json["id"] for job_json in explanation["jobs"]] == [job.id]


# Kinds of arguments


@pytest.mark.usefixtures("_running")
def test_a_photo_is_named_by_any_of_its_paths(run: Run, folder: Path, journal: Journal) -> None:
    """A path may be relative to the current folder or the inbox, absolute, or lead over a link."""
    submit(journal, folder, "trip/a.jpg")
    (folder / "drop").symlink_to(folder / "inbox")
    explanation = explain_one(run, folder / "inbox/trip/a.jpg")
    assert explanation["path"] == str(folder / "inbox/trip/a.jpg")
    assert explanation["verdict"] == "waiting"
    for arg in ("inbox/trip/a.jpg", "trip/a.jpg", "drop/trip/a.jpg", "inbox/../inbox/trip/a.jpg"):
        assert explain_one(run, arg) == explanation


@pytest.mark.usefixtures("_running")
def test_the_inbox_may_be_a_link(run: Run, folder: Path, journal: Journal) -> None:
    """The inbox may be a symbolic link; paths through its target work as well."""
    submit(journal, folder, "a.jpg")
    (folder / "inbox").rename(folder / "photos")
    (folder / "inbox").symlink_to("photos")
    assert explain_one(run, "inbox/a.jpg")["verdict"] == "waiting"
    assert explain_one(run, "photos/a.jpg")["verdict"] == "waiting"


def test_what_lies_here_comes_before_what_lies_in_the_inbox(run: Run, folder: Path) -> None:
    """A relative path refers to the current folder first, then to the inbox."""
    drop(folder / "inbox/a.jpg")
    assert explain_one(run, "a.jpg")["verdict"] == "new"
    drop(folder / "a.jpg")
    explanation = explain_one(run, "a.jpg")
    assert (explanation["path"], explanation["verdict"]) == (str(folder / "a.jpg"), "elsewhere")


def test_a_job_is_named_by_its_id(run: Run, folder: Path, journal: Journal) -> None:
    """A job id selects only this job, not those of other styles."""
    oil, ink = submit(journal, folder, "a.jpg", "oil", "ink")
    explanation = explain_one(run, ink.id)
    assert explanation["path"].endswith("a.jpg")
    assert [job["id"] for job in explanation["jobs"]] == [ink.id]
    assert oil.id != ink.id


@pytest.mark.usefixtures("_running")
def test_hostile_names_are_escaped(run: Run, folder: Path, journal: Journal) -> None:
    """Hostile names work as arguments, and are escaped and not interpreted as markup."""
    (job,) = submit(journal, folder, HOSTILE)
    explanation = explain_one(run, f"inbox/{HOSTILE}")
    assert explanation["path"] == f"{folder}/inbox/caf\\xe9\x1b[2J[bold].jpg"
    assert explanation["jobs"][0]["id"] == job.id
    output = run("explain", f"inbox/{HOSTILE}").output
    assert output == f"{folder}/inbox/{ESCAPED}: waiting\n  oil: is next\n"
    path = finish(journal, folder, claim(journal), JobState.REJECTED, reason="no \x1b[2J picture")
    write_sidecar(path, rejection=Rejection(reason="no \x1b[2J picture", failure="input"))
    for arg in (job.id, path, folder / "inbox" / HOSTILE):
        output = run("explain", arg).output
        assert f"rejected/oil/{ESCAPED}" in output
        assert "no \\x1b[2J picture" in output
        assert "\x1b" not in output


# In outbox, rejected and archive


def test_a_painting_tells_what_it_is_of(run: Run, folder: Path) -> None:
    """A result or its sidecar shows photo, style, date, job and degradations."""
    result = drop(folder / "outbox/oil/trip/photo.jpg")
    sidecar = write_sidecar(result, degraded=(Degradation("weights", "the network is untrained"),))
    explanation = explain_one(run, result)
    assert explanation["verdict"] == "result"
    assert explanation["reasons"] == [
        "the painting of trip/photo.jpg in oil, of 2026-01-02 03:04 UTC (job 4a)",
        "degraded: the network is untrained",
    ]
    assert explain_one(run, sidecar)["reasons"] == explanation["reasons"]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[" * 10**5, b"\xff"])
def test_a_painting_without_its_sidecar_is_reported(
    run: Run, folder: Path, content: bytes | None
) -> None:
    """A result with a missing or invalid sidecar is reported as such."""
    result = drop(folder / "outbox/oil/photo.jpg")
    if content is not None:
        (folder / "outbox/oil/photo.jpg.json").write_bytes(content)
    explanation = explain_one(run, result)
    assert explanation["verdict"] == "result"
    assert "no sidecar (.json) of styled's" in explanation["reasons"][0]


def test_a_rejected_file_tells_why(run: Run, folder: Path) -> None:
    """A rejected file or its sidecar shows the reason, its remedies and the `retry` command."""
    path = drop(folder / "rejected/oil/photo.jpg")
    remedies = ("send another", "or none")
    rejection = Rejection(reason="it is no picture", failure="input", remedies=remedies)
    sidecar = write_sidecar(path, rejection=rejection)
    explanation = explain_one(run, path)
    assert explanation["verdict"] == "rejected"
    assert explanation["reasons"] == ["trip/photo.jpg in oil: it is no picture"]
    assert explanation["remedies"] == [
        "send another", "or none", f"to have it tried once more: styled retry {path}",
    ]  # fmt: skip
    assert explain_one(run, sidecar)["reasons"] == explanation["reasons"]
    write_sidecar(path, rejection=rejection, style=None)
    assert explain_one(run, path)["reasons"] == ["trip/photo.jpg in no style: it is no picture"]


def test_a_rejected_file_without_its_sidecar_is_reported(run: Run, folder: Path) -> None:
    """A sidecar without a rejection counts as missing."""
    path = drop(folder / "rejected/oil/photo.jpg")
    expected = ["it has no sidecar (.json) of styled's that says why"]
    assert explain_one(run, path)["reasons"] == expected
    write_sidecar(path)
    explanation = explain_one(run, path)
    assert (explanation["verdict"], explanation["reasons"], explanation["remedies"]) == (
        "rejected",
        expected,
        [],
    )


def test_an_original_tells_what_became_of_it(run: Run, folder: Path, journal: Journal) -> None:
    """An original shows its job, or a general reason once the journal has forgotten the job."""
    path = finish(journal, folder, submit_and_claim(journal, folder, "a.jpg"), JobState.DONE)
    explanation = explain_one(run, path)
    assert explanation["verdict"] == "original"
    assert explanation["reasons"][0].startswith("oil: was painted")
    journal.prune(before=time.time(), keep=0)
    explanation = explain_one(run, path)
    assert explanation["verdict"] == "original"
    assert explanation["reasons"] == ["the original of a photo that was painted long ago"]


@pytest.mark.parametrize("root", ["outbox", "rejected", "archive"])
def test_a_file_that_is_in_none_of_them_is_missing(run: Run, folder: Path, root: str) -> None:
    """The reason for a missing file has the name of its folder."""
    explanation = explain_one(run, f"{root}/oil/a.jpg")
    assert explanation["verdict"] == "missing"
    assert explanation["reasons"] == [f"there is no such file in the folder {root}"]


# Outside the folders of styled


def test_style_images_tell_their_styles(run: Run, folder: Path) -> None:
    """A style image lists all styles that use it."""
    explanation = explain_one(run, "styles/oil.png")
    assert explanation["verdict"] == "style"
    assert explanation["reasons"] == ["it is what oil and ink paints in the style of"]
    assert explain_one(run, "styles/ink.png")["reasons"] == [
        "it is what ink paints in the style of"
    ]


@pytest.mark.parametrize(
    ("arg", "reason", "has_remedy"),
    [
        ("config.yaml", "it is the configuration", False),
        ("state/lock", "it is in the state folder, which is styled's own", False),
        ("other/photo.jpg", "it lies in none of styled's folders", True),
    ],
)
@pytest.mark.usefixtures("journal")
def test_everything_else_is_elsewhere(
    run: Run, folder: Path, arg: str, reason: str, has_remedy: bool
) -> None:
    """Other files are explained, with the inbox as the remedy for photos."""
    drop(folder / "other/photo.jpg")
    (folder / "state/lock").touch()
    explanation = explain_one(run, arg)
    assert (explanation["verdict"], explanation["reasons"]) == ("elsewhere", [reason])
    expected = [f"to have it painted, copy it to {folder}/inbox"] if has_remedy else []
    assert explanation["remedies"] == expected


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize("arg", ["/nowhere/photo.jpg", "0123456789ab"])
def test_what_is_neither_a_file_nor_a_job_is_reported(run: Run, arg: str) -> None:
    """The reason mentions files and jobs, because the argument may be either."""
    assert explain_one(run, arg)["reasons"] == ["there is no such file, nor a job of that id"]


# Output, and incomplete information


@pytest.mark.usefixtures("_running")
def test_text_output_has_lines(run: Run, folder: Path) -> None:
    """The text has path and verdict, reasons, then remedies, in the order of the arguments."""
    (folder / "inbox/link").symlink_to("/nowhere")
    drop(folder / "inbox/a.jpg")
    result = run("explain", "inbox/link", "inbox/a.jpg")
    assert result.exit_code == 0
    assert result.output == (
        f"{folder}/inbox/link: not a file\n"
        "  it is a symbolic link: those are never opened nor moved\n"
        "  - put the photo itself here\n"
        f"{folder}/inbox/a.jpg: new\n"
        "  it will be painted in oil; it is taken at the next scan of the inbox, within 30 s\n"
    )


def test_json_output_has_objects(run: Run, folder: Path) -> None:
    """`--json` prints one object per line, in the order of the arguments."""
    result = run("explain", "--json", "inbox", "outbox", "inbox")
    assert [json.loads(line)["reasons"] for line in result.stdout.splitlines()] == [
        ["the inbox itself"], ["the outbox itself"], ["the inbox itself"],
    ]  # fmt: skip


@pytest.mark.usefixtures("folder")
def test_an_argument_is_required(run: Run) -> None:
    """No arguments exit with 2, and a missing configuration with 78."""
    assert run("explain").exit_code == 2
    assert run("explain", "-c", "none.yaml", "a.jpg").exit_code == 78


@pytest.mark.usefixtures("_running")
def test_a_damaged_journal_is_the_problem(run: Run, folder: Path, journal: Journal) -> None:
    """With a damaged journal the explanation has what is known without it."""
    journal.close()
    (folder / "state/journal.sqlite3").write_bytes(b"not a database" * 99)
    drop(folder / "inbox/a.jpg")
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation["verdict"] == "new"
    assert "is damaged" in explanation["reasons"][0]
    assert explanation["reasons"][1:] == ["it will be painted in oil"]
    assert explain_one(run, "inbox/a.jpg.part")["verdict"] == "ignored"


# Retried photos and special cases


@pytest.mark.parametrize("arg", ["a.jpg", "trip/b.jpg"])
def test_a_photo_that_has_left_is_named_as_before(
    run: Run, folder: Path, journal: Journal, arg: str
) -> None:
    """The path in the inbox still works after the photo was painted and moved."""
    finish(journal, folder, submit_and_claim(journal, folder, arg), JobState.DONE)
    assert explain_one(run, arg)["verdict"] == "done"


@pytest.mark.usefixtures("_running")
def test_a_photo_that_is_tried_again_is_new(run: Run, folder: Path, journal: Journal) -> None:
    """A cancelled photo that was moved back into the inbox is new."""
    job = submit_and_claim(journal, folder, "oil/a.jpg")
    path = finish(
        journal, folder, job, JobState.CANCELLED, reason="on request", failure="cancelled"
    )
    path.rename(folder / "inbox/oil/a.jpg")  # as `styled retry` does
    explanation = explain_one(run, "inbox/oil/a.jpg")
    assert (explanation["verdict"], explanation["remedies"]) == ("new", [])


@pytest.mark.parametrize("failure", ["cancelled", "input"])
def test_a_second_try_is_what_counts(
    run: Run, folder: Path, journal: Journal, failure: str
) -> None:
    """A photo that was rejected or cancelled, then retried and painted is done."""
    state = JobState.CANCELLED if failure == "cancelled" else JobState.REJECTED
    job = submit_and_claim(journal, folder, "a.jpg")
    path = finish(journal, folder, job, state, reason="because", failure=failure)
    path.rename(folder / "inbox/a.jpg")
    stat = (folder / "inbox/a.jpg").stat()
    journal.submit([Dropped("a.jpg", stat.st_size, stat.st_mtime_ns, {"oil": "a.jpg"})], 5.0)
    finish(journal, folder, claim(journal), JobState.DONE)
    explanation = explain_one(run, "inbox/a.jpg")
    assert (explanation["verdict"], explanation["remedies"]) == ("done", [])


def test_a_photo_that_is_kept_tells_what_went_wrong(
    run: Run, folder: Path, journal: Journal
) -> None:
    """A photo that stays in the inbox (`after_success: keep`) shows the jobs of all styles."""
    for job in submit(journal, folder, "a.jpg", "oil", "ink"):
        state = JobState.DONE if job.style == "oil" else JobState.REJECTED
        journal.finish(claim(journal), state, time.time(), reason="because")
    explanation = explain_one(run, "inbox/a.jpg")
    assert [job["style"] for job in explanation["jobs"]] == ["ink", "oil"]


def test_a_job_that_was_interrupted_is_not_being_painted(
    run: Run, folder: Path, journal: Journal
) -> None:
    """A job that was running when the daemon was killed is waiting for the next start."""
    submit_and_claim(journal, folder, "a.jpg")
    explanation = explain_one(run, "inbox/a.jpg")
    assert explanation["verdict"] == "waiting"
    assert "is being painted" not in " ".join(explanation["reasons"])


@pytest.mark.parametrize("root", ["outbox", "rejected", "archive"])
def test_folders_are_folders_everywhere(run: Run, folder: Path, root: str) -> None:
    """Folders have no sidecar, and its absence is not reported."""
    (folder / root / "oil").mkdir()
    assert explain_one(run, f"{root}/oil")["verdict"] == "folder"


def test_a_rejected_file_may_be_called_like_a_sidecar(run: Run, folder: Path) -> None:
    """A rejected file with the suffix .json has its own sidecar."""
    path = drop(folder / "rejected/oil/notes.json", data=b"{}")
    write_sidecar(path, rejection=Rejection(reason="it is no picture", failure="input"))
    assert explain_one(run, path)["reasons"] == ["trip/photo.jpg in oil: it is no picture"]


@pytest.mark.parametrize("arg", ["inbox/.", "inbox/oil/..", "."])
def test_dots_are_no_names(run: Run, folder: Path, arg: str) -> None:
    """`.` and `..` are resolved and not treated as hidden files."""
    (folder / "inbox/oil").mkdir()
    explanation = explain_one(run, arg)
    assert explanation["path"] == str((folder / arg).resolve())
    assert explain_one(run, "inbox/..")["verdict"] == "elsewhere"


def test_a_damaged_journal_is_reported_without_a_daemon(run: Run, folder: Path) -> None:
    """A damaged journal is reported, because jobs of the file may be missing."""
    (folder / "state/journal.sqlite3").write_bytes(b"not a database" * 99)
    assert "is damaged" in " ".join(explain_one(run, "inbox/a.jpg")["reasons"])


@pytest.mark.usefixtures("_running")
def test_a_journal_of_another_version_is_reported(run: Run, folder: Path, journal: Journal) -> None:
    """A journal of another version is reported, because jobs of the file are missing."""
    submit(journal, folder, "a.jpg")
    journal._connection.execute("PRAGMA user_version = 99")
    assert "another version of styled" in " ".join(explain_one(run, "inbox/a.jpg")["reasons"])


@pytest.mark.usefixtures("folder")
def test_what_is_nowhere_is_missing(run: Run) -> None:
    """A missing file has no remedy."""
    explanation = explain_one(run, "nothing.jpg")
    assert (explanation["verdict"], explanation["remedies"]) == ("missing", [])


def test_a_sidecar_that_is_a_pipe_is_not_waited_for(run: Run, folder: Path) -> None:
    """A pipe is not read, because that would block."""
    path = drop(folder / "rejected/oil/p.jpg")
    os.mkfifo(path.with_name("p.jpg.json"))
    assert "no sidecar (.json) of styled's" in explain_one(run, path)["reasons"][0]


def test_a_photo_behind_a_link_is_reported(run: Run, folder: Path) -> None:
    """A photo in a linked folder of the inbox is never taken, because links are not followed."""
    drop(folder / "album/a.jpg")
    (folder / "inbox/album").symlink_to(folder / "album")
    explanation = explain_one(run, "inbox/album/a.jpg")
    assert explanation["verdict"] == "not a file"
    assert "is a link" in explanation["reasons"][0]


@pytest.mark.usefixtures("journal")
def test_a_folder_with_nomedia_is_named(run: Run, folder: Path) -> None:
    """And what to do to have its photos painted."""
    (folder / "inbox/trip").mkdir(parents=True)
    (folder / "inbox/trip/.nomedia").touch()
    explanation = explain_one(run, drop(folder / "inbox/trip/day1/photo.jpg"))
    assert explanation["verdict"] == "ignored"
    assert explanation["reasons"] == ["trip is left alone: it holds .nomedia"]
    assert explanation["remedies"] == ["delete .nomedia there"]


@pytest.mark.parametrize(
    ("name", "data", "reason", "remedy"),
    [
        ("a.json", b"{}", "its name and its content are no picture", "if it is one, save it again"),
        ("a.pdf", b"%PDF-1.7", "it is a PDF document", "Export the page"),
        ("a.mp4", b"\0\0\0\x18ftypisom", "it is a video", "Save one frame of it"),
    ],
)
@pytest.mark.usefixtures("journal")
def test_a_file_that_is_no_picture_is_reported(
    run: Run, folder: Path, name: str, data: bytes, reason: str, remedy: str
) -> None:
    """What it is, that it stays, and what to do if it was meant to be painted."""
    path = folder / "inbox/oil" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    explanation = explain_one(run, path)
    assert explanation["verdict"] == "not a picture"
    assert explanation["reasons"] == [f"{reason}, so it is left where it is"]
    assert explanation["remedies"][0].startswith(remedy)


@pytest.mark.usefixtures("journal")
def test_it_says_where_the_settings_come_from(run: Run, folder: Path) -> None:
    """Recipe, style, folder and the photo's own file, and its mask."""
    (folder / "config.yaml").write_text(
        "styles:\n"
        "  oil: {image: styles/oil.png, recipe: d2l, overrides: {steps: 9}, priority: 2}\n"
        "  ink: {image: styles/ink.png, output: {format: png}}\n"
        "folders: {both: {styles: [oil, ink], priority: 5}}\n"
    )
    photo = drop(folder / "inbox/both/a.jpg")
    photo.with_name("a.jpg.yaml").write_text("strength: 70\nsize: 99\noutput: {quality: 80}\n")
    drop(photo.with_name("a.jpg.mask.png"))
    assert explain_one(run, photo)["settings"] == [
        "oil: recipe d2l; from the style: steps 9; from its own settings: "
        'size {"long_edge": 99, "upscale": true}, strength 70.0; '
        "output from its own settings: quality 80; priority 5 from the folder",
        'ink: recipe pyramid; from its own settings: size {"long_edge": 99}, strength 70.0; '
        "output from the style: format png; output from its own settings: quality 80; "
        "priority 5 from the folder",
        "it is painted where a.jpg.mask.png is white",
    ]
    photo.with_name("a.jpg.yaml").write_text("style: [ink]\nrecipe: gatys\n")
    assert explain_one(run, photo)["settings"][0] == (
        "ink: recipe gatys; output from the style: format png; priority 5 from the folder"
    )
    photo.with_name("a.jpg.yaml").write_text("styl: ink\n")
    assert "a.jpg.yaml:1: styl: unknown key" in explain_one(run, photo)["settings"][0]
    assert "not valid" in run("explain", str(photo)).output
