"""`styled explain`: why is this file (not) being painted?"""

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
from styled.intake.scanning import DEEPEST_FOLDER
from styled.jobs.job import Job, JobState, Phase
from styled.jobs.journal import Journal
from styled.ops.lock import InstanceLock
from styled.ops.stuck_record import StuckRecord
from styled.sidecar import InputFacts, JobFacts, Rejection, Sidecar, StyleFacts
from tests.cli.conftest import Run, draw
from tests.jobs.conftest import Dropped, progress

CONFIGURATION = """\
default_style: oil
styles:
  oil: {image: styles/oil.png}
  ink: {images: [styles/ink.png, styles/oil.png]}
folders:
  both: [oil, ink]
"""

HOSTILE = os.fsdecode(b"caf\xe9\x1b[2J[bold].jpg")
SHOWN = "caf\\xe9\\x1b[2J[bold].jpg"

START = ["start it: styled run, or systemctl start styled"]
LONG_AGO = 1_000_000_000

Told = dict[str, Any]
"""An explanation, as programs are told it."""


@pytest.fixture
def shop(here: Path) -> Path:
    """Return a working folder, in which styled has never run."""
    (here / "config.yaml").write_text(CONFIGURATION)
    for name in ("oil", "ink"):
        draw(here / f"styles/{name}.png")
    for name in ("inbox", "outbox", "rejected", "archive", "state"):
        (here / name).mkdir()
    return here


@pytest.fixture
def journal(shop: Path) -> Iterator[Journal]:
    """Return the journal of a working folder in which styled has run."""
    journal = Journal.open(shop / "state/journal.sqlite3")
    yield journal
    journal.close()


@pytest.fixture
def _running(shop: Path, journal: Journal) -> Iterator[None]:
    """Hold the lock, as a running daemon does."""
    journal.set_state(state="running", inbox_trouble="")
    lock = InstanceLock(shop / "state/lock")
    lock.acquire()
    yield
    lock.release()


def one(run: Run, word: str | Path) -> Told:
    """Return what there is to say of a word."""
    result = run("explain", "--json", word)
    assert result.exit_code == 0, result.output
    told: Told = json.loads(result.stdout)
    return told


def drop(path: Path, *, at: float = LONG_AGO, data: bytes = b"photo") -> Path:
    """Put a file somewhere that was last changed long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (at, at))
    return path


def submit(journal: Journal, shop: Path, name: str, *styles: str) -> list[Job]:
    """Drop a photo and enter it into the journal, in the style `oil` if no other is named."""
    facts = drop(shop / "inbox" / name).stat()
    wanted = dict.fromkeys(styles or ("oil",), name)
    journal.submit([Dropped(name, facts.st_size, facts.st_mtime_ns, wanted)], time.time())
    jobs = journal.jobs_about("input", name)
    return [next(job for job in jobs if job.style == style) for style in wanted]


def claim(journal: Journal) -> Job:
    """Begin the next job."""
    job = journal.claim(time.time())
    if job is not None:
        journal.set_phase(job, Phase.PAINTING, "engine-0")
    assert job is not None
    return job


def leave(journal: Journal, shop: Path, job: Job, state: JobState, **why: Any) -> Path:
    """End a job 90 seconds ago; return where its photo is now."""
    now = time.time() - 90
    root = "archive" if state is JobState.DONE else "rejected"
    original = shop / root / job.style / Path(job.input).name
    original.parent.mkdir(parents=True, exist_ok=True)
    if state is JobState.DONE:
        result = drop(shop / "outbox" / job.style / job.destination)
        journal.reserve_result(job, str(result.relative_to(shop / "outbox")), "ab", "cd")
    journal.reserve_original(job, original)
    journal.finish(job, state, now, **why)
    (shop / "inbox" / job.input).rename(original)
    journal.mark_input_gone(job)
    return original


def describe(
    path: Path,
    *,
    rejection: Rejection | None = None,
    degraded: tuple[Degradation, ...] = (),
    style: str | None = "oil",
) -> Path:
    """Write the sidecar of a file; return its path."""
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    sidecar = Sidecar(
        job=JobFacts(
            id="4a", attempts=1, resumed=False, submitted_at=at, started_at=at, finished_at=at
        ),
        input=InputFacts(path="trip/photo.jpg", bytes=5),
        style=None if style is None else StyleFacts(name=style, images=()),
        degraded=degraded,
        rejected=rejection,
    )
    place = path.with_name(f"{path.name}.json")
    place.write_bytes(sidecar.to_json())
    return place


# In the inbox, before it is a job


def test_without_a_daemon_a_photo_stays_new(run: Run, shop: Path) -> None:
    """It is said what would become of it, and how; nothing is made by asking."""
    photo = drop(shop / "inbox/a.jpg")
    told = one(run, "inbox/a.jpg")
    assert told == {
        "path": str(photo), "verdict": "new", "jobs": [], "remedies": START,
        "reasons": ["it will be painted in oil, but styled is not running"],
    }  # fmt: skip
    assert list((shop / "state").iterdir()) == []


@pytest.mark.usefixtures("shop")
def test_all_styles_of_a_folder_are_told(run: Run, shop: Path) -> None:
    """A folder may stand for several."""
    drop(shop / "inbox/both/a.jpg")
    (reason,) = one(run, "inbox/both/a.jpg")["reasons"]
    assert reason.startswith("it will be painted in oil and in ink, ")


@pytest.mark.usefixtures("_running")
def test_what_has_just_changed_settles(run: Run, shop: Path) -> None:
    """The file may still be on its way."""
    drop(shop / "inbox/a.jpg", at=time.time())
    told = one(run, "inbox/a.jpg")
    assert told["verdict"] == "settling"
    assert told["reasons"] == [
        "it will be painted in oil, once it has not changed for 1 s",
    ]  # fmt: skip


@pytest.mark.usefixtures("_running")
def test_how_long_it_has_to_settle_is_configured(run: Run, shop: Path) -> None:
    """The words and the verdict follow the configuration."""
    with open(shop / "config.yaml", "a") as file:
        file.write("intake: {settle_seconds: 600.5, rescan_seconds: 90}\n")
    drop(shop / "inbox/a.jpg", at=time.time() - 60)
    assert one(run, "inbox/a.jpg")["reasons"][0].endswith("not changed for 600.5 s")
    drop(shop / "inbox/a.jpg", at=time.time() - 700)
    told = one(run, "inbox/a.jpg")
    assert (told["verdict"], told["remedies"]) == ("new", [])
    assert told["reasons"] == [
        "it will be painted in oil; it is taken at the next look at the inbox, within 1 min 30 s"
    ]


@pytest.mark.usefixtures("_running")
@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"inbox_trouble": "it is gone", "state": "paused: full"}, "it is gone"),
        ({"state": "paused: the outbox is full"}, "paused: the outbox is full"),
    ],
)
def test_a_daemon_in_trouble_takes_nothing(
    run: Run, shop: Path, journal: Journal, facts: dict[str, str], expected: str
) -> None:
    """The gravest trouble comes first, before what would be done with the photo."""
    journal.set_state(**facts)
    drop(shop / "inbox/a.jpg", at=time.time())
    told = one(run, "inbox/a.jpg")
    assert told["verdict"] == "new"
    assert told["reasons"] == [expected, "it will be painted in oil"]


@pytest.mark.usefixtures("_running")
def test_a_daemon_that_is_stuck_takes_nothing(run: Run, shop: Path, journal: Journal) -> None:
    """That is graver than all else."""
    journal.set_state(inbox_trouble="it is gone")
    StuckRecord("it is stuck", ("intake",)).save(shop / "state")
    drop(shop / "inbox/a.jpg", at=time.time())
    assert one(run, "inbox/a.jpg")["reasons"] == ["it is stuck", "it will be painted in oil"]


def test_the_trouble_of_a_dead_daemon_is_over(run: Run, shop: Path, journal: Journal) -> None:
    """That it does not run is what counts."""
    StuckRecord("it is stuck", ("intake",)).save(shop / "state")
    journal.set_state(state="paused: full")
    drop(shop / "inbox/a.jpg")
    told = one(run, "inbox/a.jpg")
    assert told["reasons"] == ["it will be painted in oil, but styled is not running"]


@pytest.mark.usefixtures("_running")
def test_another_file_under_the_name_of_a_job_is_new(
    run: Run, shop: Path, journal: Journal
) -> None:
    """What became of the one before it is another story."""
    job = claim_of(journal, shop, "a.jpg")
    leave(journal, shop, job, JobState.DONE)
    drop(shop / "inbox/a.jpg", data=b"another photo")
    told = one(run, "inbox/a.jpg")
    assert (told["verdict"], told["jobs"]) == ("new", [])


def claim_of(journal: Journal, shop: Path, name: str) -> Job:
    """Submit a photo and begin its only job."""
    submit(journal, shop, name)
    return claim(journal)


# In the inbox, and left alone


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
def test_ignored_names_are_told_with_their_pattern(
    run: Run, shop: Path, path: str, name: str, pattern: str
) -> None:
    """That of a folder above counts too; it does not matter whether anything lies there."""
    told = one(run, f"inbox/{path}")
    assert told["verdict"] == "ignored"
    assert told["reasons"] == [
        f'its name is left alone: "{name}" matches "{pattern}" in intake.ignore'
    ]
    assert told["remedies"] == ["rename it, or take that pattern out of intake.ignore"]
    drop(shop / "inbox" / path)
    assert one(run, f"inbox/{path}") == told


@pytest.mark.usefixtures("_running")
def test_our_own_unfinished_files_are_ignored(run: Run, shop: Path) -> None:
    """There is no setting to change that, so none is named."""
    drop(shop / "inbox/.styled-x.jpg")
    told = one(run, "inbox/.styled-x.jpg")
    assert (told["verdict"], told["remedies"]) == ("ignored", [])
    assert told["reasons"] == ["it is an unfinished file of styled's own"]


@pytest.mark.usefixtures("_running")
def test_what_lies_too_deep_is_ignored(run: Run, shop: Path) -> None:
    """The deepest folder that is looked into is the limit, and not one above it."""
    deepest = "/".join("d" * DEEPEST_FOLDER)
    drop(shop / f"inbox/{deepest}/a.jpg")
    assert one(run, f"inbox/{deepest}/a.jpg")["verdict"] == "new"
    drop(shop / f"inbox/{deepest}/d/a.jpg")
    told = one(run, f"inbox/{deepest}/d/a.jpg")
    assert told["verdict"] == "ignored"
    assert told["reasons"] == [f"it lies more than {DEEPEST_FOLDER} folders deep"]
    assert told["remedies"] == ["move it further up"]


def make_socket(path: Path) -> None:
    """Bind a socket, from its folder: the name of one must not be long."""
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
    run: Run, shop: Path, make: Callable[[Path], None], kind: str
) -> None:
    """It is told what it is; links are not followed, whatever they lead to."""
    drop(shop / "inbox/photo.jpg")
    make(shop / "inbox/x.jpg")
    told = one(run, shop / "inbox/x.jpg")
    assert told["path"] == str(shop / "inbox/x.jpg")
    assert told["verdict"] == "no file"
    assert told["reasons"] == [f"it is {kind}: those are never opened nor moved"]
    assert told["remedies"] == ["put the photo itself here"]


def test_without_a_default_style_a_photo_may_belong_to_none(run: Run, shop: Path) -> None:
    """All places where it would belong to one are named."""
    text = CONFIGURATION.replace("default_style: oil\n", "")
    (shop / "config.yaml").write_text(text)
    drop(shop / "inbox/trip/a.jpg")
    expected = [
        f"move it into one of {shop}/inbox/oil, {shop}/inbox/ink, {shop}/inbox/both",
        "or name a default_style in the configuration",
    ]
    why = "to no style: the folder names none, and there is no default_style"
    told = one(run, "inbox/trip/a.jpg")
    assert (told["verdict"], told["remedies"]) == ("unpaired", expected)
    assert told["reasons"] == [f"it belongs {why}"]
    told = one(run, "inbox/trip")
    assert (told["verdict"], told["remedies"]) == ("unpaired", expected)
    assert told["reasons"] == [f"photos in it belong {why}"]
    drop(shop / "inbox/ink/a.jpg")
    assert one(run, "inbox/ink/a.jpg")["verdict"] == "new"


def test_without_any_style_that_is_the_remedy(run: Run, shop: Path) -> None:
    """There is no folder to name."""
    (shop / "config.yaml").write_text("{}")
    drop(shop / "inbox/a.jpg")
    told = one(run, "inbox/a.jpg")
    assert told["verdict"] == "unpaired"
    assert told["remedies"][0] == "configure a style"


@pytest.mark.parametrize(
    ("name", "styles"),
    [("trip", "oil"), ("ink", "ink"), ("ink/trip", "ink"), ("both", "oil and in ink")],
)
def test_a_folder_tells_what_photos_in_it_become(
    run: Run, shop: Path, name: str, styles: str
) -> None:
    """Its name is what decides, as it does for them."""
    (shop / "inbox" / name).mkdir(parents=True)
    told = one(run, f"inbox/{name}")
    assert told["verdict"] == "folder"
    assert told["reasons"] == [f"photos in it are painted in {styles}"]


@pytest.mark.parametrize("name", ["inbox", "outbox", "rejected", "archive"])
def test_the_folders_themselves_are_known(run: Run, shop: Path, name: str) -> None:
    """Whatever way leads there."""
    (shop / "link").symlink_to(name)
    told = one(run, name)
    assert (told["verdict"], told["reasons"]) == ("folder", [f"the {name} itself"])
    assert one(run, f"{name}/")["reasons"] == told["reasons"]


def test_where_the_disk_is_missing_everything_waits(run: Run, shop: Path, journal: Journal) -> None:
    """What lies below the bare mount point is nobody's photo, and nobody's absence."""
    home = {"point": str(shop), "source": "nas:/photos", "inode": 1}
    (shop / "state/mounts.json").write_text(json.dumps({str(shop / "inbox"): home}))
    drop(shop / "inbox/a.jpg")
    for word in ("inbox/a.jpg", "inbox/gone.jpg"):
        told = one(run, word)
        assert told["verdict"] == "waiting"
        assert "nothing is mounted now" in told["reasons"][0]
        assert told["remedies"][0] == f"mount {shop}; work goes on by itself"


def test_nothing_is_said_of_nothing(run: Run, shop: Path, journal: Journal) -> None:
    """Neither a file nor a job."""
    told = one(run, "inbox/gone.jpg")
    assert told["verdict"] == "missing"
    assert told["reasons"] == ["there is no such file, and no known job is about it"]


# Jobs


@pytest.mark.usefixtures("_running")
def test_the_running_job_tells_how_far_it_is(run: Run, shop: Path, journal: Journal) -> None:
    """With the time that is left, once that is known."""
    job = claim_of(journal, shop, "a.jpg")
    assert one(run, "inbox/a.jpg")["reasons"] == ["oil: is being painted, 0% done"]
    journal.update_progress(job, progress(0.42, seconds_left=75.0))
    told = one(run, "inbox/a.jpg")
    assert (told["verdict"], told["remedies"]) == ("painting", [])
    assert told["reasons"] == ["oil: is being painted, 42% done, about 1 min 15 s left"]
    (listed,) = told["jobs"]
    assert (listed["id"], listed["progress"]["step"]) == (job.id, 4)


@pytest.mark.usefixtures("_running")
def test_a_waiting_job_tells_its_place(run: Run, shop: Path, journal: Journal) -> None:
    """The running one is before it too."""
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        submit(journal, shop, name)
    told = one(run, "inbox/a.jpg")
    assert (told["verdict"], told["reasons"]) == ("waiting", ["oil: is next"])
    claim(journal)
    assert one(run, "inbox/b.jpg")["reasons"] == ["oil: waits, with 1 job before it"]
    assert one(run, "inbox/c.jpg")["reasons"] == ["oil: waits, with 2 jobs before it"]


@pytest.mark.usefixtures("_running")
def test_a_job_that_is_to_be_cancelled_says_so(run: Run, shop: Path, journal: Journal) -> None:
    """As long as it has not happened it waits."""
    (job,) = submit(journal, shop, "a.jpg")
    journal.request_cancel(job)
    told = one(run, "inbox/a.jpg")
    assert told["verdict"] == "waiting"
    assert told["reasons"] == ["oil: is next, and is to be cancelled"]


@pytest.mark.usefixtures("_running")
def test_a_job_that_has_failed_tells_why_and_when(run: Run, shop: Path, journal: Journal) -> None:
    """Once the time has come there is only the reason."""
    job = claim_of(journal, shop, "a.jpg")
    journal.requeue(
        job, reason="it diverged", remedies=["try another size"], not_before=time.time() + 1800,
        attempt_counts=True,
    )  # fmt: skip
    told = one(run, "inbox/a.jpg")
    assert told["verdict"] == "waiting"
    (reason,) = told["reasons"]
    assert re.fullmatch(r"oil: waits: it diverged; tried again in (30 min|29 min 5\d s)", reason)
    assert "try another size" in told["remedies"]
    journal._execute("UPDATE jobs SET not_before = 1")
    assert one(run, "inbox/a.jpg")["reasons"] == ["oil: waits: it diverged"]


def test_without_a_daemon_no_job_goes_on(run: Run, shop: Path, journal: Journal) -> None:
    """That comes first, and so does its remedy."""
    submit(journal, shop, "a.jpg")
    told = one(run, "inbox/a.jpg")
    assert told["reasons"] == ["styled is not running", "oil: is next"]
    assert told["remedies"] == START


@pytest.mark.usefixtures("_running")
def test_a_daemon_in_trouble_is_why_a_job_waits(run: Run, shop: Path, journal: Journal) -> None:
    """The trouble comes first; what has ended is none of its business."""
    journal.set_state(state="paused: the outbox is full")
    (job,) = submit(journal, shop, "a.jpg")
    assert one(run, job.id)["reasons"] == ["paused: the outbox is full", "oil: is next"]
    leave(journal, shop, claim(journal), JobState.DONE)
    (reason,) = one(run, job.id)["reasons"]
    assert reason.startswith("oil: was painted")


def test_a_finished_job_tells_where_its_painting_is(run: Run, shop: Path, journal: Journal) -> None:
    """And that it is not there any more, if so; a daemon is not needed for that."""
    job = claim_of(journal, shop, "a.jpg")
    leave(journal, shop, job, JobState.DONE)
    told = one(run, "inbox/a.jpg")
    assert (told["verdict"], told["remedies"]) == ("done", [])
    (reason,) = told["reasons"]
    place = re.escape(str(shop / "outbox/oil/a.jpg"))
    assert re.fullmatch(rf"oil: was painted 1 min 3\d s ago: {place}", reason)
    (shop / "outbox/oil/a.jpg").unlink()
    assert one(run, "inbox/a.jpg")["reasons"][0].endswith("a.jpg (it is not there any more)")


@pytest.mark.parametrize(
    ("state", "failure", "verdict"),
    [(JobState.REJECTED, "input", "rejected"), (JobState.CANCELLED, "cancelled", "cancelled")],
)
def test_what_was_refused_tells_why_and_how_to_have_it_back(
    run: Run, shop: Path, journal: Journal, state: JobState, failure: str, verdict: str
) -> None:
    """Rejected or cancelled on request: it lies where `styled retry` finds it."""
    job = claim_of(journal, shop, "a.jpg")
    why = {"reason": "because", "failure": failure, "remedies": ["so it is"]}
    place = leave(journal, shop, job, state, **why)
    told = one(run, "inbox/a.jpg")
    assert told["verdict"] == verdict
    assert told["remedies"] == [
        "so it is", f"to have it tried once more: styled retry {job.id}",
    ]  # fmt: skip
    (reason,) = told["reasons"]
    assert re.fullmatch(
        {
            "rejected": r"oil: was rejected 1 min 3\d s ago: because",
            "cancelled": r"oil: was cancelled on request 1 min 3\d s ago",
        }[verdict]
        + f"; it lies in {re.escape(str(place))}",
        reason,
    )
    assert one(run, job.id)["reasons"] == told["reasons"]


def test_a_job_whose_photo_was_replaced_cannot_be_had_back(
    run: Run, shop: Path, journal: Journal
) -> None:
    """Nobody has it, so nothing is promised."""
    job = claim_of(journal, shop, "a.jpg")
    journal.finish(job, JobState.CANCELLED, time.time(), reason="the input was removed")
    journal.mark_input_gone(job)
    (shop / "inbox/a.jpg").unlink()
    told = one(run, job.id)
    assert (told["verdict"], told["remedies"]) == ("cancelled", [])
    assert re.fullmatch(r"oil: was cancelled \d s ago: the input was removed", told["reasons"][0])


@pytest.mark.usefixtures("_running")
def test_all_styles_of_a_photo_are_told(run: Run, shop: Path, journal: Journal) -> None:
    """One reason for each; what is still being done decides the verdict."""
    oil, ink = submit(journal, shop, "both/a.jpg", "oil", "ink")
    assert claim(journal).id == oil.id
    journal.reserve_result(oil, "oil/a.jpg", "ab", "cd")
    journal.finish(oil, JobState.DONE, time.time())
    told = one(run, "inbox/both/a.jpg")
    assert told["verdict"] == "waiting"
    assert told["reasons"][0] == "ink: is next"
    assert told["reasons"][1].startswith("oil: was painted")
    claim(journal)
    assert one(run, "inbox/both/a.jpg")["verdict"] == "painting"
    journal.finish(ink, JobState.REJECTED, time.time(), reason="because")
    (shop / "inbox/both/a.jpg").unlink()
    told = one(run, "inbox/both/a.jpg")
    assert told["verdict"] == "rejected"
    assert [job["style"] for job in told["jobs"]] == ["ink", "oil"]
    assert [reason.split(":")[0] for reason in told["reasons"]] == ["ink", "oil"]


@pytest.mark.usefixtures("_running")
def test_what_is_still_to_be_done_decides(run: Run, shop: Path, journal: Journal) -> None:
    """Even if the photo was rejected in one style, and has been taken away since."""
    oil, _ = submit(journal, shop, "both/a.jpg", "oil", "ink")
    assert claim(journal).id == oil.id
    journal.finish(oil, JobState.REJECTED, time.time(), reason="because")
    (shop / "inbox/both/a.jpg").unlink()
    told = one(run, "inbox/both/a.jpg")
    assert told["verdict"] == "waiting"
    assert told["remedies"] == [f"to have it tried once more: styled retry {oil.id}"]


def test_of_photos_that_are_gone_the_latest_is_meant(
    run: Run, shop: Path, journal: Journal
) -> None:
    """The same name may have been many photos'."""
    leave(journal, shop, claim_of(journal, shop, "a.jpg"), JobState.DONE)
    drop(shop / "inbox/a.jpg", data=b"another")
    facts = (shop / "inbox/a.jpg").stat()
    journal.submit([Dropped("a.jpg", facts.st_size, facts.st_mtime_ns, {"ink": "a.jpg"})], 5.0)
    job = claim(journal)
    leave(journal, shop, job, JobState.REJECTED, reason="because")
    told = one(run, "inbox/a.jpg")
    assert told["verdict"] == "rejected"
    assert [listed["id"] for listed in told["jobs"]] == [job.id]


# How a file or job is named


@pytest.mark.usefixtures("_running")
def test_a_photo_is_named_by_any_of_its_paths(run: Run, shop: Path, journal: Journal) -> None:
    """From here, from the root, below the inbox, or by way of a link to it."""
    submit(journal, shop, "trip/a.jpg")
    (shop / "drop").symlink_to(shop / "inbox")
    told = one(run, shop / "inbox/trip/a.jpg")
    assert told["path"] == str(shop / "inbox/trip/a.jpg")
    assert told["verdict"] == "waiting"
    for word in ("inbox/trip/a.jpg", "trip/a.jpg", "drop/trip/a.jpg", "inbox/../inbox/trip/a.jpg"):
        assert one(run, word) == told


@pytest.mark.usefixtures("_running")
def test_the_inbox_may_be_a_link(run: Run, shop: Path, journal: Journal) -> None:
    """What lies in the folder that it leads to lies in the inbox."""
    submit(journal, shop, "a.jpg")
    (shop / "inbox").rename(shop / "photos")
    (shop / "inbox").symlink_to("photos")
    assert one(run, "inbox/a.jpg")["verdict"] == "waiting"
    assert one(run, "photos/a.jpg")["verdict"] == "waiting"


def test_what_lies_here_comes_before_what_lies_in_the_inbox(run: Run, shop: Path) -> None:
    """As with every other command."""
    drop(shop / "inbox/a.jpg")
    assert one(run, "a.jpg")["verdict"] == "new"
    drop(shop / "a.jpg")
    told = one(run, "a.jpg")
    assert (told["path"], told["verdict"]) == (str(shop / "a.jpg"), "elsewhere")


def test_a_job_is_named_by_its_id(run: Run, shop: Path, journal: Journal) -> None:
    """Of several styles only the one is told that it is about."""
    oil, ink = submit(journal, shop, "a.jpg", "oil", "ink")
    told = one(run, ink.id)
    assert told["path"].endswith("a.jpg")
    assert [job["id"] for job in told["jobs"]] == [ink.id]
    assert oil.id != ink.id


@pytest.mark.usefixtures("_running")
def test_hostile_names_are_told_and_harmless(run: Run, shop: Path, journal: Journal) -> None:
    """They can be named by path and id; nothing in them moves the cursor or is markup."""
    (job,) = submit(journal, shop, HOSTILE)
    told = one(run, f"inbox/{HOSTILE}")
    assert told["path"] == f"{shop}/inbox/caf\\xe9\x1b[2J[bold].jpg"
    assert told["jobs"][0]["id"] == job.id
    said = run("explain", f"inbox/{HOSTILE}").output
    assert said == f"{shop}/inbox/{SHOWN}: waiting\n  oil: is next\n"
    place = leave(journal, shop, claim(journal), JobState.REJECTED, reason="no \x1b[2J picture")
    describe(place, rejection=Rejection(reason="no \x1b[2J picture", failure="input"))
    for word in (job.id, place, shop / "inbox" / HOSTILE):
        said = run("explain", word).output
        assert f"rejected/oil/{SHOWN}" in said
        assert "no \\x1b[2J picture" in said
        assert "\x1b" not in said


# In the other folders


def test_a_painting_tells_what_it_is_of(run: Run, shop: Path) -> None:
    """By its sidecar, which may be named as well; with what it is less than asked for."""
    result = drop(shop / "outbox/oil/trip/photo.jpg")
    sidecar = describe(result, degraded=(Degradation("weights", "the network is untrained"),))
    told = one(run, result)
    assert told["verdict"] == "result"
    assert told["reasons"] == [
        "the painting of trip/photo.jpg in oil, of 2026-01-02 03:04 UTC (job 4a)",
        "degraded: the network is untrained",
    ]
    assert one(run, sidecar)["reasons"] == told["reasons"]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[" * 10**5, b"\xff"])
def test_a_painting_without_its_sidecar_is_told_as_such(
    run: Run, shop: Path, content: bytes | None
) -> None:
    """Where there is none, or nobody could make sense of it."""
    result = drop(shop / "outbox/oil/photo.jpg")
    if content is not None:
        (shop / "outbox/oil/photo.jpg.json").write_bytes(content)
    told = one(run, result)
    assert told["verdict"] == "result"
    assert "no .json of styled's beside it" in told["reasons"][0]


def test_a_rejected_file_tells_why(run: Run, shop: Path) -> None:
    """By its sidecar, with all remedies and the one that is always there."""
    place = drop(shop / "rejected/oil/photo.jpg")
    remedies = ("send another", "or none")
    why = Rejection(reason="it is no picture", failure="input", remedies=remedies)
    sidecar = describe(place, rejection=why)
    told = one(run, place)
    assert told["verdict"] == "rejected"
    assert told["reasons"] == ["trip/photo.jpg in oil: it is no picture"]
    assert told["remedies"] == [
        "send another", "or none", f"to have it tried once more: styled retry {place}",
    ]  # fmt: skip
    assert one(run, sidecar)["reasons"] == told["reasons"]
    describe(place, rejection=why, style=None)
    assert one(run, place)["reasons"] == ["trip/photo.jpg in no style: it is no picture"]


def test_a_rejected_file_without_its_sidecar_is_told_as_such(run: Run, shop: Path) -> None:
    """That of a painting is none either."""
    place = drop(shop / "rejected/oil/photo.jpg")
    expected = ["it has no .json of styled's beside it that says why"]
    assert one(run, place)["reasons"] == expected
    describe(place)
    told = one(run, place)
    assert (told["verdict"], told["reasons"], told["remedies"]) == ("rejected", expected, [])


def test_an_original_tells_what_became_of_it(run: Run, shop: Path, journal: Journal) -> None:
    """As long as the journal knows; then it is still an original."""
    place = leave(journal, shop, claim_of(journal, shop, "a.jpg"), JobState.DONE)
    told = one(run, place)
    assert told["verdict"] == "original"
    assert told["reasons"][0].startswith("oil: was painted")
    journal.prune(before=time.time(), keep=0)
    told = one(run, place)
    assert told["verdict"] == "original"
    assert told["reasons"] == ["the original of a photo that was painted long ago"]


@pytest.mark.parametrize("root", ["outbox", "rejected", "archive"])
def test_a_file_that_is_in_none_of_them_is_missing(run: Run, shop: Path, root: str) -> None:
    """The folder is named in which it would be."""
    told = one(run, f"{root}/oil/a.jpg")
    assert told["verdict"] == "missing"
    assert told["reasons"] == [f"there is no such file in the {root}"]


# Elsewhere


def test_style_images_tell_their_styles(run: Run, shop: Path) -> None:
    """One picture may be part of several."""
    told = one(run, "styles/oil.png")
    assert told["verdict"] == "style"
    assert told["reasons"] == ["it is what oil and ink paints in the style of"]
    assert one(run, "styles/ink.png")["reasons"] == ["it is what ink paints in the style of"]


@pytest.mark.parametrize(
    ("word", "reason", "has_remedy"),
    [
        ("config.yaml", "it is the configuration", False),
        ("state/lock", "it is in the state folder, which is styled's own", False),
        ("other/photo.jpg", "it lies in none of styled's folders", True),
    ],
)
@pytest.mark.usefixtures("journal")
def test_everything_else_is_elsewhere(
    run: Run, shop: Path, word: str, reason: str, has_remedy: bool
) -> None:
    """With what it is, and where it would have to be."""
    drop(shop / "other/photo.jpg")
    (shop / "state/lock").touch()
    told = one(run, word)
    assert (told["verdict"], told["reasons"]) == ("elsewhere", [reason])
    expected = [f"to have it painted, copy it to {shop}/inbox"] if has_remedy else []
    assert told["remedies"] == expected


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize("word", ["/nowhere/photo.jpg", "0123456789ab"])
def test_what_is_neither_a_file_nor_a_job_is_told_as_such(run: Run, word: str) -> None:
    """Both are said, because both might have been meant."""
    assert one(run, word)["reasons"] == ["there is no such file, nor a job of that id"]


# What is said, and what can't be known


@pytest.mark.usefixtures("_running")
def test_people_are_told_in_lines(run: Run, shop: Path) -> None:
    """File and verdict, then reasons, then remedies; for each word, in their order."""
    (shop / "inbox/link").symlink_to("/nowhere")
    drop(shop / "inbox/a.jpg")
    result = run("explain", "inbox/link", "inbox/a.jpg")
    assert result.exit_code == 0
    assert result.output == (
        f"{shop}/inbox/link: no file\n"
        "  it is a symbolic link: those are never opened nor moved\n"
        "  - put the photo itself here\n"
        f"{shop}/inbox/a.jpg: new\n"
        "  it will be painted in oil; it is taken at the next look at the inbox, within 30 s\n"
    )


def test_programs_are_told_in_objects(run: Run, shop: Path) -> None:
    """One on each line, in the order of the words."""
    result = run("explain", "--json", "inbox", "outbox", "inbox")
    assert [json.loads(line)["reasons"] for line in result.stdout.splitlines()] == [
        ["the inbox itself"], ["the outbox itself"], ["the inbox itself"],
    ]  # fmt: skip


@pytest.mark.usefixtures("shop")
def test_it_has_to_be_told_what(run: Run) -> None:
    """Nothing is wrong usage; no configuration is what it always is."""
    assert run("explain").exit_code == 2
    assert run("explain", "-c", "none.yaml", "a.jpg").exit_code == 78


@pytest.mark.usefixtures("_running")
def test_a_damaged_journal_is_the_trouble(run: Run, shop: Path, journal: Journal) -> None:
    """What can be known without it is told all the same."""
    journal.close()
    (shop / "state/journal.sqlite3").write_bytes(b"not a database" * 99)
    drop(shop / "inbox/a.jpg")
    told = one(run, "inbox/a.jpg")
    assert told["verdict"] == "new"
    assert "is damaged" in told["reasons"][0]
    assert told["reasons"][1:] == ["it will be painted in oil"]
    assert one(run, "inbox/a.jpg.part")["verdict"] == "ignored"


# What was put back, or left, or can't be asked for


@pytest.mark.parametrize("word", ["a.jpg", "trip/b.jpg"])
def test_a_photo_that_has_left_is_named_as_before(
    run: Run, shop: Path, journal: Journal, word: str
) -> None:
    """The path below the inbox means the same once the photo is painted."""
    leave(journal, shop, claim_of(journal, shop, word), JobState.DONE)
    assert one(run, word)["verdict"] == "done"


@pytest.mark.usefixtures("_running")
def test_a_photo_that_is_tried_again_is_new(run: Run, shop: Path, journal: Journal) -> None:
    """What was cancelled and put back waits to be taken; it does not lie where it lay."""
    job = claim_of(journal, shop, "oil/a.jpg")
    place = leave(journal, shop, job, JobState.CANCELLED, reason="on request", failure="cancelled")
    place.rename(shop / "inbox/oil/a.jpg")  # as `styled retry` does
    told = one(run, "inbox/oil/a.jpg")
    assert (told["verdict"], told["remedies"]) == ("new", [])


@pytest.mark.parametrize("failure", ["cancelled", "input"])
def test_a_second_try_is_what_counts(run: Run, shop: Path, journal: Journal, failure: str) -> None:
    """A photo that was refused, put back and then painted is done."""
    state = JobState.CANCELLED if failure == "cancelled" else JobState.REJECTED
    job = claim_of(journal, shop, "a.jpg")
    place = leave(journal, shop, job, state, reason="because", failure=failure)
    place.rename(shop / "inbox/a.jpg")
    facts = (shop / "inbox/a.jpg").stat()
    journal.submit([Dropped("a.jpg", facts.st_size, facts.st_mtime_ns, {"oil": "a.jpg"})], 5.0)
    leave(journal, shop, claim(journal), JobState.DONE)
    told = one(run, "inbox/a.jpg")
    assert (told["verdict"], told["remedies"]) == ("done", [])


def test_a_photo_that_is_kept_tells_what_went_wrong(run: Run, shop: Path, journal: Journal) -> None:
    """With `after_success: keep` it stays in the inbox, rejected in one style or not."""
    for job in submit(journal, shop, "a.jpg", "oil", "ink"):
        state = JobState.DONE if job.style == "oil" else JobState.REJECTED
        journal.finish(claim(journal), state, time.time(), reason="because")
    told = one(run, "inbox/a.jpg")
    assert [job["style"] for job in told["jobs"]] == ["ink", "oil"]


def test_a_job_that_was_interrupted_is_not_being_painted(
    run: Run, shop: Path, journal: Journal
) -> None:
    """After a kill -9 it waits for the next start."""
    claim_of(journal, shop, "a.jpg")
    told = one(run, "inbox/a.jpg")
    assert told["verdict"] == "waiting"
    assert "is being painted" not in " ".join(told["reasons"])


@pytest.mark.parametrize("root", ["outbox", "rejected", "archive"])
def test_folders_are_folders_everywhere(run: Run, shop: Path, root: str) -> None:
    """No sidecar is missed beside them."""
    (shop / root / "oil").mkdir()
    assert one(run, f"{root}/oil")["verdict"] == "folder"


def test_a_rejected_file_may_be_called_like_a_sidecar(run: Run, shop: Path) -> None:
    """Whoever drops a .json into the inbox finds it here, with one of its own."""
    place = drop(shop / "rejected/oil/notes.json", data=b"{}")
    describe(place, rejection=Rejection(reason="it is no picture", failure="input"))
    assert one(run, place)["reasons"] == ["trip/photo.jpg in oil: it is no picture"]


@pytest.mark.parametrize("word", ["inbox/.", "inbox/oil/..", "."])
def test_dots_are_no_names(run: Run, shop: Path, word: str) -> None:
    """They lead somewhere, and are no hidden files."""
    (shop / "inbox/oil").mkdir()
    told = one(run, word)
    assert told["path"] == str((shop / word).resolve())
    assert one(run, "inbox/..")["verdict"] == "elsewhere"


def test_a_damaged_journal_is_told_without_a_daemon(run: Run, shop: Path) -> None:
    """Else it would seem that no job was ever about the file."""
    (shop / "state/journal.sqlite3").write_bytes(b"not a database" * 99)
    assert "is damaged" in " ".join(one(run, "inbox/a.jpg")["reasons"])


@pytest.mark.usefixtures("_running")
def test_a_journal_of_another_version_is_told(run: Run, shop: Path, journal: Journal) -> None:
    """As one that may not be read: what is known of the file is less than there is."""
    submit(journal, shop, "a.jpg")
    journal._connection.execute("PRAGMA user_version = 99")
    assert "another version of styled" in " ".join(one(run, "inbox/a.jpg")["reasons"])


@pytest.mark.usefixtures("shop")
def test_what_is_nowhere_is_missing(run: Run) -> None:
    """Nothing can be copied that is not there."""
    told = one(run, "nothing.jpg")
    assert (told["verdict"], told["remedies"]) == ("missing", [])


def test_a_sidecar_that_is_a_pipe_is_not_waited_for(run: Run, shop: Path) -> None:
    """Nobody may ever write to it."""
    place = drop(shop / "rejected/oil/p.jpg")
    os.mkfifo(place.with_name("p.jpg.json"))
    assert "no .json of styled's" in one(run, place)["reasons"][0]


def test_a_photo_behind_a_link_is_told_as_such(run: Run, shop: Path) -> None:
    """It lies elsewhere, and nobody follows the link."""
    drop(shop / "album/a.jpg")
    (shop / "inbox/album").symlink_to(shop / "album")
    told = one(run, "inbox/album/a.jpg")
    assert told["verdict"] == "no file"
    assert "over a link" in told["reasons"][0]
