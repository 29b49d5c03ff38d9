"""The life of one job: success, rejection, failures, stops, crashes, and changes of its files."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image

from styled.errors import DeviceLost, EngineFailure, InputRejected, JournalDamaged
from styled.jobs.events import StylesChanged
from styled.jobs.failure_policy import CONFIGURATION_RETRY_SECONDS, FIRST_RETRY_SECONDS
from styled.journal.job import JobState
from styled.photos.encode import _LONGEST_EDGE_PX
from tests.job_harness import STUB, Died, JobHarness, LogLines, picture


def fail_with(error: BaseException, at: int = 2) -> Callable[[int], None]:
    def at_step(step: int) -> None:
        if step == at:
            raise error

    return at_step


# Success


def test_a_photo_becomes_a_result_a_sidecar_and_an_archived_original(harness: JobHarness) -> None:
    """A finished job has a result and a sidecar in the outbox, and its original in the archive."""
    harness.drop("trip/photo.png")
    harness.work()
    assert harness.files("outbox") == ["oil/trip/photo.png", "oil/trip/photo.png.json"]
    assert harness.files("archive") == ["oil/trip/photo.png"]
    assert (harness.config.archive / "oil/trip/photo.png").read_bytes() == picture()
    assert (
        harness.files("inbox")
        == harness.files("rejected")
        == harness.files("state/checkpoints")
        == []
    )
    job = harness.job()
    assert (job.state, job.attempts, job.fraction) == (JobState.DONE, 1, 1.0)
    assert job.result == "oil/trip/photo.png"


def test_the_sidecar_describes_the_result_beside_it(harness: JobHarness) -> None:
    """The sidecar has the digest and size of the result, and the job's id."""
    harness.drop()
    harness.work()
    data = (harness.config.outbox / "oil/photo.png").read_bytes()
    sidecar = harness.sidecar("outbox/oil/photo.png.json")
    assert sidecar["result"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert Image.open(io.BytesIO(data)).size == (40, 36)
    assert sidecar["job"]["id"] == harness.job().id
    assert sidecar["input"]["sha256"] == hashlib.sha256(picture()).hexdigest()
    assert not sidecar["input"]["changed"]
    assert sidecar["degraded"] == [asdict(STUB)]


@pytest.mark.parametrize(
    ("after_success", "inbox", "archive"),
    [("archive", [], ["oil/photo.png"]), ("keep", ["photo.png"], []), ("delete", [], [])],
)
def test_after_success_decides_about_the_original(
    harness: JobHarness, after_success: str, inbox: list[str], archive: list[str]
) -> None:
    """The original is archived, kept or deleted, as configured, and the job runs only once."""
    harness.configure("output", after_success=after_success)
    harness.drop()
    harness.work()
    assert (harness.files("inbox"), harness.files("archive")) == (inbox, archive)
    harness.restart()
    harness.work()
    assert harness.engine.start_steps == [0]
    assert harness.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]


@pytest.mark.parametrize(
    ("name", "format", "configured", "result"),
    [
        ("photo.jpg", "png", "same", "photo.png"),
        ("photo.JPEG", "jpeg", "same", "photo.JPEG"),
        ("photo.png", "png", "jpeg", "photo.jpg"),
        ("photo", "png", "same", "photo.png"),
    ],
)
def test_a_result_is_named_after_what_it_is(
    harness: JobHarness, name: str, format: str, configured: str, result: str
) -> None:
    """The suffix of a result fits its format, whatever the photo's name."""
    harness.configure("output", format=configured)
    harness.drop(name, picture(format=format))
    harness.work()
    assert harness.files("outbox") == [f"oil/{result}", f"oil/{result}.json"]
    expected = "JPEG" if result.lower().endswith(("jpg", "jpeg")) else "PNG"
    with Image.open(harness.config.outbox / "oil" / result) as image:
        assert image.format == expected
    assert harness.files("archive") == [f"oil/{name}"]


def test_a_taken_name_is_never_overwritten(harness: JobHarness) -> None:
    """A second photo of the same name gets a number in outbox and archive."""
    harness.drop()
    harness.work()
    harness.drop("photo.png", picture("olive"))
    harness.work()
    assert harness.files("outbox") == [
        "oil/photo-2.png", "oil/photo-2.png.json", "oil/photo.png", "oil/photo.png.json",
    ]  # fmt: skip
    assert harness.files("archive") == ["oil/photo-2.png", "oil/photo.png"]
    assert (harness.config.archive / "oil/photo.png").read_bytes() == picture()


def test_names_that_are_not_utf8_travel_unchanged(harness: JobHarness) -> None:
    """A name that is not UTF-8 keeps its bytes, and is escaped in the sidecar."""
    name = os.fsdecode(b"caf\xe9\x1b.png")
    harness.drop(name)
    harness.work()
    assert harness.files("outbox") == [f"oil/{name}", f"oil/{name}.json"]
    assert harness.files("archive") == [f"oil/{name}"]
    path = harness.config.outbox / "oil" / f"{name}.json"
    sidecar = harness.sidecar(str(path.relative_to(harness.base)))
    assert sidecar["result"]["path"] == "oil/caf\\xe9\x1b.png"


def test_a_file_from_the_far_future_is_painted_too(harness: JobHarness) -> None:
    """A file whose mtime exceeds 64 bits of nanoseconds is painted like any other."""
    path = harness.drop("later.png")
    harness.journal.mark_input_gone(harness.job())
    year_2286_ns = 10**19
    os.utime(path, ns=(year_2286_ns, year_2286_ns))
    harness.rescan()
    harness.work()
    assert harness.states() == ["cancelled", "done"]
    assert harness.files("archive") == ["oil/later.png"]


# Rejected inputs


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"Dear diary, this is not a picture." * 9, "not a picture"),
        (picture(size=(40, 20)), "too small"),
        (picture(size=(2000, 36)), "no edge may be under 32 pixels"),
    ],
)
def test_a_hopeless_input_is_rejected_at_once(
    harness: JobHarness, data: bytes, reason: str
) -> None:
    """An invalid input is rejected in its first attempt, with a sidecar that has the reason."""
    harness.drop("photo.png", data)
    harness.work()
    assert harness.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    assert (harness.config.rejected / "oil/photo.png").read_bytes() == data
    assert harness.files("inbox") == harness.files("outbox") == harness.files("archive") == []
    sidecar = harness.sidecar("rejected/oil/photo.png.json")
    assert reason in sidecar["rejected"]["reason"]
    assert sidecar["rejected"]["failure"] == "input"
    assert sidecar["input"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert (harness.job().state, harness.job().attempts) == (JobState.REJECTED, 1)


def test_an_engine_may_find_the_input_impossible_too(harness: JobHarness) -> None:
    """`InputRejected` from an engine rejects the job without further attempts."""
    harness.engine.at_step = fail_with(InputRejected("it can't be tiled"))
    harness.drop()
    harness.work()
    assert harness.states() == ["rejected"]
    assert harness.engine.start_steps == [0]


# Incomplete inputs


def test_a_truncated_photo_is_rejected(harness: JobHarness) -> None:
    """A truncated photo is rejected as incomplete: the intake has waited for the rest already."""
    harness.drop("photo.png", picture()[:-40])
    harness.work()
    assert harness.states() == ["rejected"]
    assert harness.sidecar("rejected/oil/photo.png.json")["rejected"]["failure"] == "incomplete"


def test_a_photo_that_changes_while_it_is_read_is_not_rejected(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a photo changes while it is read, its job is cancelled; the new file is another job."""
    path = harness.drop("photo.png")
    fstat = os.fstat
    calls = []

    def change_in_between(descriptor: int) -> os.stat_result:
        stat = fstat(descriptor)
        if os.path.samestat(stat, path.stat()):
            calls.append(descriptor)
            if len(calls) == 1:
                with open(path, "ab") as stream:
                    stream.write(b"more")
        return stat

    monkeypatch.setattr(os, "fstat", change_in_between)
    harness.work()
    monkeypatch.undo()
    assert harness.states() == ["cancelled"]
    assert "changed while it was read" in str(harness.job().reason)
    assert harness.files("inbox") == ["photo.png"]
    assert harness.files("rejected") == []


# Engine failures


def test_an_engine_failure_is_tried_again_then_rejected(harness: JobHarness) -> None:
    """After `max_attempts` engine failures, and not before, the input is rejected."""
    harness.engine.at_step = fail_with(EngineFailure("the loss became nan", "lower the rate"))
    harness.drop()
    harness.work()
    harness.now += FIRST_RETRY_SECONDS
    harness.work()
    job = harness.job()
    assert (job.state, job.attempts, job.failure) == (JobState.QUEUED, 2, "engine")
    harness.now += 2 * FIRST_RETRY_SECONDS
    harness.work()
    assert harness.states() == ["rejected"]
    assert harness.sidecar("rejected/oil/photo.png.json")["rejected"] == {
        "reason": "the loss became nan (after 3 attempts)",
        "failure": "engine",
        "remedies": ["lower the rate"],
    }
    assert harness.files("inbox") == harness.files("state/checkpoints") == []


def test_retries_are_ever_farther_apart_and_let_others_pass(harness: JobHarness) -> None:
    """Retries wait 10 s, then twice as long each time up to 300 s; other jobs run meanwhile."""
    harness.configure("queue", max_attempts=8)

    def fail_for_a_small_picture(step: int) -> None:
        if harness.jobs()[0].state is JobState.RUNNING:
            raise EngineFailure("out of memory")

    harness.engine.at_step = fail_for_a_small_picture
    harness.drop("bad.png")
    harness.drop("good.png", picture("olive"))
    harness.work()
    assert harness.states() == ["queued", "done"]
    waits = []
    while (due := harness.journal.next_due()) is not None:
        waits.append(due - harness.now)
        harness.now = due - 0.1
        harness.work()
        assert harness.states()[0] == "queued"
        harness.now = due
        harness.work()
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    assert harness.states() == ["rejected", "done"]


@pytest.mark.parametrize("jump", [-1e8, -4000.0, 1e8])
def test_a_clock_that_jumps_holds_nobody_up(harness: JobHarness, jump: float) -> None:
    """If the time of day jumps, waiting jobs are neither delayed nor rejected."""
    harness.engine.at_step = fail_with(EngineFailure("out of memory"))
    image = harness.base / "styles/ink.png"
    image.rename(harness.base / "away.png")
    harness.drop("failing.png")
    harness.drop("waiting.png", None, "ink")
    harness.work()
    assert harness.states() == ["queued", "queued"]
    harness.engine.at_step = lambda step: None
    harness.wall_clock_offset += jump
    harness.work()
    assert harness.states() == ["done", "queued"]
    (harness.base / "away.png").rename(image)
    harness.work_and_wait()
    assert harness.states() == ["done", "done"]


def test_an_engine_that_recovers_finishes_the_job(harness: JobHarness) -> None:
    """If the second attempt succeeds the sidecar has two attempts."""
    harness.engine.at_step = fail_with(EngineFailure("out of memory"))
    harness.drop()
    harness.work_on_one()
    harness.engine.at_step = lambda step: None
    harness.work_and_wait()
    assert harness.states() == ["done"]
    assert harness.sidecar("outbox/oil/photo.png.json")["job"]["attempts"] == 2
    assert harness.job().reason is None


@pytest.mark.parametrize("error", [ZeroDivisionError("surprise"), FileNotFoundError("a kernel")])
def test_an_unexpected_error_ends_only_its_own_job(
    harness: JobHarness, logs: LogLines, error: Exception
) -> None:
    """An unexpected exception rejects its job after all attempts; other jobs are done."""
    harness.engine.at_step = fail_with(error)
    harness.drop("bad.png")
    harness.work_and_wait()
    harness.engine.at_step = lambda step: None
    harness.drop("good.png", picture("olive"))
    harness.work()
    assert harness.states() == ["rejected", "done"]
    assert type(error).__name__ in str(harness.jobs()[0].reason)
    assert [line["event"] for line in logs].count("job.internal_error") == 3


def test_a_lost_device_ends_the_process(harness: JobHarness) -> None:
    """`DeviceLost` ends the process without blame, and the next start does the job."""
    harness.engine.at_step = fail_with(DeviceLost("the GPU has fallen off the bus"))
    harness.drop()
    with pytest.raises(DeviceLost):
        harness.work()
    assert harness.states() == ["queued"]
    harness.restart()
    harness.work()
    assert harness.states() == ["done"]


def test_a_picture_that_its_format_cannot_hold_is_rejected(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result too large for its file format is rejected with the failure "configuration"."""
    monkeypatch.setitem(_LONGEST_EDGE_PX, "webp", 33)
    harness.configure("output", format="webp")
    harness.drop()
    harness.work()
    assert harness.job().failure == "configuration"
    assert "33 pixels" in str(harness.job().reason)
    assert "output.format" in harness.job().remedies[0]


# Stopping


def stop_at(harness: JobHarness, step: int) -> Callable[[int], None]:
    def at_step(current: int) -> None:
        if current == step:
            harness.request_stop()

    return at_step


def test_a_stop_saves_a_checkpoint_and_costs_no_attempt(harness: JobHarness) -> None:
    """A stopped job is requeued with a checkpoint, without an attempt, and resumes from it."""
    harness.engine.at_step = stop_at(harness, 2)
    harness.drop()
    harness.work_on_one()
    job = harness.job()
    assert (job.state, job.attempts, job.failure) == (JobState.QUEUED, 0, None)
    assert harness.files("state/checkpoints") == [f"{job.id}.ckpt"]
    harness.restart()
    harness.work()
    assert harness.engine.start_steps == [0, 2]
    sidecar = harness.sidecar("outbox/oil/photo.png.json")
    assert (sidecar["job"]["resumed"], sidecar["job"]["attempts"]) == (True, 1)
    assert len(sidecar["losses"]["trace"]) == 3
    assert harness.files("state/checkpoints") == []


def test_a_resumed_result_is_the_undisturbed_one(harness: JobHarness) -> None:
    """A job that was stopped and resumed gives the same bytes as an uninterrupted one."""
    harness.drop("one.png")
    harness.work()
    harness.engine.at_step = stop_at(harness, 1)
    harness.drop("two.png")
    harness.work_on_one()
    harness.restart()
    harness.work()
    one, two = (
        (harness.config.outbox / "oil" / name).read_bytes() for name in ("one.png", "two.png")
    )
    assert harness.engine.start_steps == [0, 0, 1]
    assert one == two


def test_checkpoints_come_at_their_interval(harness: JobHarness) -> None:
    """A checkpoint is saved every `checkpoint_seconds`, which limits the loss by a crash."""

    def at_step(step: int) -> None:
        if step == 35:
            raise Died
        harness.advance(1.5)  # a checkpoint is due after 30 s: step 20

    harness.engine.steps = 40
    harness.engine.at_step = at_step
    harness.drop()
    with pytest.raises(Died):
        harness.work()
    harness.restart()
    harness.work()
    assert harness.engine.start_steps == [0, 20]


def test_slow_steps_are_saved_each(harness: JobHarness) -> None:
    """If steps are slow, a checkpoint is saved after each: a stop might not wait for the next."""

    def at_step(step: int) -> None:
        if step == 5:
            raise Died
        harness.advance(3)

    harness.engine.steps = 6
    harness.engine.at_step = at_step
    harness.drop()
    with pytest.raises(Died):
        harness.work()
    harness.restart()
    harness.work()
    assert harness.engine.start_steps == [0, 4]


def test_progress_is_noted_while_a_job_runs(harness: JobHarness) -> None:
    """The progress in the journal is at most a second old."""
    seen: list[float] = []

    def at_step(step: int) -> None:
        seen.append(harness.job().fraction)
        harness.advance(1)

    harness.engine.at_step = at_step
    harness.drop()
    harness.work()
    assert seen == pytest.approx([0, 1 / 3, 2 / 3])


# Crashes


def die_while_painting(harness: JobHarness) -> None:
    harness.engine.at_step = fail_with(Died())
    with pytest.raises(Died):
        harness.work()


def test_a_job_on_which_the_process_keeps_dying_is_rejected(harness: JobHarness) -> None:
    """After `max_attempts` crashes the job is rejected without painting; others are done."""
    harness.drop("killer.png")
    for _ in range(3):
        die_while_painting(harness)
        harness.restart()
    assert harness.states() == ["queued"]
    harness.drop("other.png", picture("olive"))
    harness.work()
    assert harness.states() == ["rejected", "done"]
    assert harness.engine.start_steps == [0, 0, 0, 0]
    rejection = harness.sidecar("rejected/oil/killer.png.json")["rejected"]
    assert rejection["failure"] == "crash"
    assert "this photo, 3 times" in rejection["reason"]


def test_a_death_before_the_last_costs_nothing(harness: JobHarness) -> None:
    """After fewer than `max_attempts` crashes the job is done."""
    harness.drop()
    for _ in range(2):
        die_while_painting(harness)
        harness.restart()
    harness.work()
    assert harness.states() == ["done"]


FINISHING = [
    ("journal", "reserve_result"),
    ("publisher", "publish_result"),
    ("publisher", "publish_sidecar"),
    ("journal", "finish"),
    ("job_files", "drop"),
    ("journal", "reserve_original"),
    ("publisher", "move_original"),
    ("journal", "mark_input_gone"),
]


def die_around(owner: object, method: str, *, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(owner, method)

    def dying(*args: object, **kwargs: object) -> None:
        if after:
            original(*args, **kwargs)
        raise Died

    monkeypatch.setattr(owner, method, dying)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(len(FINISHING)), ids=[name for _, name in FINISHING])
def test_a_death_at_any_step_of_finishing_is_mended(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    """After a crash at any step of finishing there is one result, sidecar and archived original.

    If the sidecar had been published, the photo is not painted again.
    """
    harness.configure("queue", max_attempts=1 if step >= 2 and after else 2)
    owner, method = FINISHING[step]
    harness.engine.at_step = lambda step: harness.advance(60)  # so that a checkpoint is saved, too
    harness.drop()
    with monkeypatch.context() as patch:
        die_around(getattr(harness, owner), method, after=after, monkeypatch=patch)
        with pytest.raises(Died):
            harness.work()
    harness.restart()
    harness.work()
    assert harness.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]
    assert harness.files("archive") == ["oil/photo.png"]
    assert (
        harness.files("inbox")
        == harness.files("rejected")
        == harness.files("state/checkpoints")
        == []
    )
    assert harness.states() == ["done"]
    sidecar_was_out = step > 2 or (step == 2 and after)
    assert len(harness.engine.start_steps) == (1 if sidecar_was_out else 2)
    data = (harness.config.outbox / "oil/photo.png").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert harness.sidecar("outbox/oil/photo.png.json")["result"]["sha256"] == digest
    assert harness.job().result_sha256 == digest


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "method"),
    [
        ("journal", "finish"),
        ("journal", "reserve_original"),
        ("publisher", "move_original"),
        ("publisher", "publish_sidecar"),
        ("journal", "mark_input_gone"),
    ],
)
def test_a_death_at_any_step_of_rejecting_is_mended(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, owner: str, method: str, after: bool
) -> None:
    """After a crash at any step of a rejection there is one original and one correct sidecar."""
    harness.drop("photo.png", b"not a picture at all")
    with monkeypatch.context() as patch:
        die_around(getattr(harness, owner), method, after=after, monkeypatch=patch)
        with pytest.raises(Died):
            harness.work()
    harness.restart()
    harness.work()
    assert harness.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    assert harness.files("inbox") == []
    assert harness.states() == ["rejected"]
    input_info = harness.sidecar("rejected/oil/photo.png.json")["input"]
    assert input_info["sha256"] == hashlib.sha256(b"not a picture at all").hexdigest()
    assert not input_info["changed"]


def test_a_stranger_that_took_the_reserved_name_is_left_alone(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If after a crash another file has the reserved name, the result gets a new name."""
    harness.drop()
    with monkeypatch.context() as patch:
        die_around(harness.journal, "reserve_result", after=True, monkeypatch=patch)
        with pytest.raises(Died):
            harness.work()
    foreign = harness.config.outbox / "oil/photo.png"
    foreign.parent.mkdir(parents=True, exist_ok=True)
    foreign.write_bytes(b"mine")
    harness.restart()
    harness.work()
    assert foreign.read_bytes() == b"mine"
    assert harness.files("outbox") == ["oil/photo-2.png", "oil/photo-2.png.json", "oil/photo.png"]
    assert harness.job().result == "oil/photo-2.png"


def test_a_checkpoint_that_cannot_be_deleted_undoes_nothing(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """A job stays done if its checkpoint cannot be deleted."""
    harness.configure("queue", max_attempts=1)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    harness.drop()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        harness.work()
    assert harness.states() == ["done"]
    assert "job_file.not_deleted" in [line["event"] for line in logs]


# Several styles


def test_an_original_leaves_only_after_its_last_style(harness: JobHarness) -> None:
    """With two styles the photo is archived under each, once both are done."""
    harness.drop("photo.png", None, "oil", "ink")
    harness.work_on_one()
    assert harness.states() == ["done", "running"]
    assert harness.files("inbox") == ["photo.png"]
    assert harness.files("archive") == []
    harness.work()
    assert harness.files("inbox") == []
    assert harness.files("archive") == ["ink/photo.png", "oil/photo.png"]
    assert harness.files("outbox") == [
        "ink/photo.png", "ink/photo.png.json", "oil/photo.png", "oil/photo.png.json",
    ]  # fmt: skip


def test_one_style_may_fail_where_another_succeeds(harness: JobHarness) -> None:
    """If one of two styles is rejected, the original goes to `archive` and to `rejected`."""
    harness.configure("queue", max_attempts=1)
    harness.engine.at_step = fail_with(EngineFailure("nan"))
    harness.drop("photo.png", None, "oil", "ink")
    harness.work_on_one()
    harness.engine.at_step = lambda step: None
    harness.work()
    assert harness.states() == ["rejected", "done"]
    assert harness.files("archive") == ["ink/photo.png"]
    assert harness.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    assert harness.files("inbox") == []


# Inputs that change


def test_a_photo_removed_before_its_turn_is_cancelled(harness: JobHarness) -> None:
    """A photo removed before its turn cancels the job, and can be submitted again."""
    path = harness.drop()
    stat = path.stat()
    path.unlink()
    harness.work()
    assert harness.states() == ["cancelled"]
    assert harness.files("rejected") == harness.files("outbox") == []
    path.write_bytes(picture())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert harness.rescan() == 1


def test_a_photo_replaced_before_its_turn_is_a_new_job(harness: JobHarness) -> None:
    """If a photo is replaced before its turn, only the new content is painted."""
    harness.drop("photo.png")
    harness.drop("photo.png", picture("olive", (44, 44)))
    harness.work()
    assert harness.states() == ["cancelled", "done"]
    assert harness.engine.start_steps == [0]
    assert (harness.config.archive / "oil/photo.png").read_bytes() == picture("olive", (44, 44))


def test_a_photo_replaced_while_painted_gives_both_results(harness: JobHarness) -> None:
    """If a photo is replaced while painted, both contents give a result; the first is marked."""
    new = picture("olive", (44, 44))

    def at_step(step: int) -> None:
        if step == 2 and len(harness.engine.start_steps) == 1:
            harness.drop("photo.png", new)

    harness.engine.at_step = at_step
    harness.drop("photo.png")
    harness.work_on_one()
    assert harness.sidecar("outbox/oil/photo.png.json")["input"]["changed"]
    assert (harness.config.inbox / "photo.png").read_bytes() == new
    harness.work()
    assert harness.states() == ["done", "done"]
    assert not harness.sidecar("outbox/oil/photo-2.png.json")["input"]["changed"]
    assert (harness.config.archive / "oil/photo.png").read_bytes() == new


def test_a_photo_removed_while_painted_still_gives_its_result(harness: JobHarness) -> None:
    """If a photo is removed while painted, its result is published and marked as changed."""

    def at_step(step: int) -> None:
        (harness.config.inbox / "photo.png").unlink(missing_ok=True)

    harness.engine.at_step = at_step
    harness.drop("photo.png")
    harness.work()
    assert harness.states() == ["done"]
    assert harness.sidecar("outbox/oil/photo.png.json")["input"]["changed"]
    assert harness.files("archive") == []


# Styles that change


def test_a_style_that_was_removed_paints_nothing_until_it_is_back(harness: JobHarness) -> None:
    """Photos of a removed style stay in the inbox and are painted once the style is back."""
    harness.drop("photo.png", None, "ink")
    ink = harness.styles.pop("ink")
    harness.work()
    harness.rescan()
    harness.work()
    assert harness.states() == ["cancelled"]
    assert harness.files("inbox") == ["photo.png"]
    harness.styles["ink"] = ink
    harness.rescan()
    harness.work()
    assert harness.states() == ["cancelled", "done"]
    assert harness.files("outbox") == ["ink/photo.png", "ink/photo.png.json"]


@pytest.mark.parametrize("damage", [b"", b"not a picture", None])
def test_an_unreadable_style_stops_only_its_own_jobs(
    harness: JobHarness, damage: bytes | None
) -> None:
    """Jobs of a style with an unusable image wait without losing attempts; others are done."""
    image = harness.base / "styles/oil.png"
    if damage is None:
        image.unlink()
    else:
        image.write_bytes(damage)
    harness.drop("first.png", None, "oil")
    harness.drop("second.png", None, "ink")
    harness.work()
    assert harness.states() == ["queued", "done"]
    assert harness.jobs()[0].attempts == 0
    assert "styles/oil.png" in str(harness.jobs()[0].reason)
    image.write_bytes(picture("crimson"))
    harness.now += CONFIGURATION_RETRY_SECONDS
    harness.work()
    assert harness.states() == ["done", "done"]


def test_a_changed_recipe_is_not_resumed_from_an_old_checkpoint(
    harness: JobHarness, logs: LogLines
) -> None:
    """A checkpoint of another recipe is ignored, which is logged."""
    harness.engine.at_step = stop_at(harness, 2)
    harness.drop()
    harness.work_on_one()
    recipe = replace(harness.styles["oil"].recipe, steps=7)
    harness.styles["oil"] = replace(harness.styles["oil"], recipe=recipe)
    harness.restart()
    harness.work()
    assert harness.engine.start_steps == [0, 0]
    assert "checkpoint.ignored" in [line["event"] for line in logs]


# File system and journal errors


@pytest.mark.parametrize("root", ["outbox", "archive", "rejected"])
def test_a_name_that_a_file_system_refuses_stops_nobody_else(
    harness: JobHarness, logs: LogLines, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    """A name that a file system refuses, such as one with a colon, holds up only that photo."""
    rename = os.rename

    def refuse(source: object, target: object) -> None:
        if "12:30" in str(target) and f"/{root}/" in str(target):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        rename(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "rename", refuse)
    harness.drop("12:30.png", b"no photo" if root == "rejected" else None)
    harness.drop("good.png", picture("olive"))
    harness.work()
    assert harness.jobs()[1].state is JobState.DONE
    assert harness.files("inbox") == ["12:30.png"]
    event_names = [line["event"] for line in logs]
    assert "queue.paused" not in event_names
    assert ("job.postponed" if root == "outbox" else "input.stuck") in event_names
    monkeypatch.undo()
    harness.work_and_wait()
    harness.run_cleanup()
    assert harness.files("inbox") == []


def test_a_damaged_journal_is_not_blamed_on_the_photo(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`JournalDamaged` is raised to the daemon, which restarts; the photo is not rejected."""

    def fail(*_: object) -> None:
        raise JournalDamaged("the journal is damaged")

    monkeypatch.setattr(harness.journal, "reserve_result", fail)
    harness.drop()
    with pytest.raises(JournalDamaged):
        harness.work_on_one()
    assert harness.states() == ["running"]
    assert harness.files("rejected") == []


@pytest.mark.parametrize("after_success", ["archive", "keep"])
def test_a_style_that_is_removed_and_back_paints_its_photos(
    harness: JobHarness, after_success: str
) -> None:
    """Also if the same photo was or is being painted in another style."""
    harness.configure("output", after_success=after_success)
    harness.drop("photo.png", None, "oil", "ink")
    both = dict(harness.styles)

    def remove_and_restore(step: int) -> None:
        if step == 1:
            harness.events.put(StylesChanged({"oil": both["oil"]}))
        if step == 3:
            harness.events.put(StylesChanged(both))
            harness.rescan()

    harness.engine.at_step = remove_and_restore
    harness.work()
    harness.engine.at_step = lambda step: None
    harness.rescan()
    harness.work()
    assert {"ink/photo.png", "oil/photo.png"} < set(harness.files("outbox"))
