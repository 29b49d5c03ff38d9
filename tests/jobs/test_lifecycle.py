"""What becomes of one job, whatever happens on the way."""

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
from styled.jobs.failure_policy import FIRST_RETRY_SECONDS, MENDED_SECONDS
from styled.jobs.job import JobState
from styled.photos.saving import _LONGEST_EDGE_PX
from tests.jobs.conftest import STUB, Died, JobHarness, LogLines, picture


def fail_with(error: BaseException, at: int = 2) -> Callable[[int], None]:
    def at_step(step: int) -> None:
        if step == at:
            raise error

    return at_step


# All goes well


def test_a_photo_becomes_a_result_a_sidecar_and_an_archived_original(shop: JobHarness) -> None:
    """A finished job leaves result and sidecar in the outbox and the original in the archive."""
    shop.drop("trip/photo.png")
    shop.work()
    assert shop.files("outbox") == ["oil/trip/photo.png", "oil/trip/photo.png.json"]
    assert shop.files("archive") == ["oil/trip/photo.png"]
    assert (shop.config.archive / "oil/trip/photo.png").read_bytes() == picture()
    assert shop.files("inbox") == shop.files("rejected") == shop.files("state/checkpoints") == []
    job = shop.job()
    assert (job.state, job.attempts, job.fraction) == (JobState.DONE, 1, 1.0)
    assert job.result == "oil/trip/photo.png"


def test_the_sidecar_describes_the_result_beside_it(shop: JobHarness) -> None:
    """The sidecar's digest and size are those of the file, and it names the job."""
    shop.drop()
    shop.work()
    data = (shop.config.outbox / "oil/photo.png").read_bytes()
    sidecar = shop.sidecar("outbox/oil/photo.png.json")
    assert sidecar["result"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert Image.open(io.BytesIO(data)).size == (40, 36)
    assert sidecar["job"]["id"] == shop.job().id
    assert sidecar["input"]["sha256"] == hashlib.sha256(picture()).hexdigest()
    assert not sidecar["input"]["changed"]
    assert sidecar["degraded"] == [asdict(STUB)]


@pytest.mark.parametrize(
    ("after_success", "inbox", "archive"),
    [("archive", [], ["oil/photo.png"]), ("keep", ["photo.png"], []), ("delete", [], [])],
)
def test_after_success_decides_about_the_original(
    shop: JobHarness, after_success: str, inbox: list[str], archive: list[str]
) -> None:
    """The original is archived, kept in the inbox or deleted, as configured, and done once."""
    shop.configure("output", after_success=after_success)
    shop.drop()
    shop.work()
    assert (shop.files("inbox"), shop.files("archive")) == (inbox, archive)
    shop.restart()
    shop.work()
    assert shop.engine.begun == [0]
    assert shop.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]


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
    shop: JobHarness, name: str, format: str, configured: str, result: str
) -> None:
    """The suffix of a result tells its true format, whatever the photo was called."""
    shop.configure("output", format=configured)
    shop.drop(name, picture(format=format))
    shop.work()
    assert shop.files("outbox") == [f"oil/{result}", f"oil/{result}.json"]
    expected = "JPEG" if result.lower().endswith(("jpg", "jpeg")) else "PNG"
    with Image.open(shop.config.outbox / "oil" / result) as image:
        assert image.format == expected
    assert shop.files("archive") == [f"oil/{name}"]


def test_a_taken_name_is_never_overwritten(shop: JobHarness) -> None:
    """A second photo of the same name gets a number, in outbox and archive alike."""
    shop.drop()
    shop.work()
    shop.drop("photo.png", picture("olive"))
    shop.work()
    assert shop.files("outbox") == [
        "oil/photo-2.png", "oil/photo-2.png.json", "oil/photo.png", "oil/photo.png.json",
    ]  # fmt: skip
    assert shop.files("archive") == ["oil/photo-2.png", "oil/photo.png"]
    assert (shop.config.archive / "oil/photo.png").read_bytes() == picture()


def test_names_that_are_not_utf8_travel_unchanged(shop: JobHarness) -> None:
    """A name of arbitrary bytes comes out as the same bytes, and escaped in the sidecar."""
    name = os.fsdecode(b"caf\xe9\x1b.png")
    shop.drop(name)
    shop.work()
    assert shop.files("outbox") == [f"oil/{name}", f"oil/{name}.json"]
    assert shop.files("archive") == [f"oil/{name}"]
    path = shop.config.outbox / "oil" / f"{name}.json"
    sidecar = shop.sidecar(str(path.relative_to(shop.base)))
    assert sidecar["result"]["path"] == "oil/caf\\xe9\x1b.png"


def test_a_file_from_the_far_future_is_painted_too(shop: JobHarness) -> None:
    """A date that does not fit into 64 bits of nanoseconds neither stops nor loses a photo."""
    path = shop.drop("later.png")
    shop.journal.mark_input_gone(shop.job())
    year_2286_ns = 10**19
    os.utime(path, ns=(year_2286_ns, year_2286_ns))
    shop.rescan()
    shop.work()
    assert shop.states() == ["cancelled", "done"]
    assert shop.files("archive") == ["oil/later.png"]


# The input's fault


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"Dear diary, this is not a picture." * 9, "not a picture"),
        (picture(size=(40, 20)), "too small"),
        (picture(size=(2000, 36)), "no edge may be under 32 pixels"),
    ],
)
def test_a_hopeless_input_is_rejected_at_once(shop: JobHarness, data: bytes, reason: str) -> None:
    """What can never be painted is moved aside at its first attempt, with the reason beside it."""
    shop.drop("photo.png", data)
    shop.work()
    assert shop.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    assert (shop.config.rejected / "oil/photo.png").read_bytes() == data
    assert shop.files("inbox") == shop.files("outbox") == shop.files("archive") == []
    sidecar = shop.sidecar("rejected/oil/photo.png.json")
    assert reason in sidecar["rejected"]["reason"]
    assert sidecar["rejected"]["failure"] == "input"
    assert sidecar["input"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert (shop.job().state, shop.job().attempts) == (JobState.REJECTED, 1)


def test_an_engine_may_find_the_input_impossible_too(shop: JobHarness) -> None:
    """A rejection while painting is final, without further attempts."""
    shop.engine.at_step = fail_with(InputRejected("it can't be tiled"))
    shop.drop()
    shop.work()
    assert shop.states() == ["rejected"]
    assert shop.engine.begun == [0]


# Incomplete


def test_a_truncated_photo_is_rejected(shop: JobHarness) -> None:
    """Intake has waited for its rest; that it is incomplete is said."""
    shop.drop("photo.png", picture()[:-40])
    shop.work()
    assert shop.states() == ["rejected"]
    assert shop.sidecar("rejected/oil/photo.png.json")["rejected"]["failure"] == "incomplete"


def test_a_photo_that_changes_while_it_is_read_is_not_rejected(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is neither the old nor the new one; the new one is a job of its own."""
    path = shop.drop("photo.png")
    fstat = os.fstat
    looks = []

    def change_in_between(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if os.path.samestat(found, path.stat()):
            looks.append(descriptor)
            if len(looks) == 1:
                with open(path, "ab") as stream:
                    stream.write(b"more")
        return found

    monkeypatch.setattr(os, "fstat", change_in_between)
    shop.work()
    monkeypatch.undo()
    assert shop.states() == ["cancelled"]
    assert "changed while it was read" in str(shop.job().reason)
    assert shop.files("inbox") == ["photo.png"]
    assert shop.files("rejected") == []


# The engine


def test_an_engine_failure_is_tried_again_then_rejected(shop: JobHarness) -> None:
    """After `max_attempts` failures the input is rejected with the story; not after fewer."""
    shop.engine.at_step = fail_with(EngineFailure("the loss became nan", "lower the rate"))
    shop.drop()
    shop.work()
    shop.now += FIRST_RETRY_SECONDS
    shop.work()
    job = shop.job()
    assert (job.state, job.attempts, job.failure) == (JobState.QUEUED, 2, "engine")
    shop.now += 2 * FIRST_RETRY_SECONDS
    shop.work()
    assert shop.states() == ["rejected"]
    assert shop.sidecar("rejected/oil/photo.png.json")["rejected"] == {
        "reason": "the loss became nan (after 3 attempts)",
        "failure": "engine",
        "remedies": ["lower the rate"],
    }
    assert shop.files("inbox") == shop.files("state/checkpoints") == []


def test_retries_are_ever_farther_apart_and_let_others_pass(shop: JobHarness) -> None:
    """10 s after the first failure, then twice as long each time, 300 s at most."""
    shop.configure("queue", max_attempts=8)

    def fail_for_a_small_picture(step: int) -> None:
        if shop.jobs()[0].state is JobState.RUNNING:
            raise EngineFailure("out of memory")

    shop.engine.at_step = fail_for_a_small_picture
    shop.drop("bad.png")
    shop.drop("good.png", picture("olive"))
    shop.work()
    assert shop.states() == ["queued", "done"]
    waits = []
    while (due := shop.journal.next_due()) is not None:
        waits.append(due - shop.now)
        shop.now = due - 0.1
        shop.work()
        assert shop.states()[0] == "queued"
        shop.now = due
        shop.work()
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    assert shop.states() == ["rejected", "done"]


@pytest.mark.parametrize("jump", [-1e8, -4000.0, 1e8])
def test_a_clock_that_jumps_holds_nobody_up(shop: JobHarness, jump: float) -> None:
    """Set back by years, a waiting job does not wait for years; set forward, none is given up."""
    shop.engine.at_step = fail_with(EngineFailure("out of memory"))
    image = shop.base / "styles/ink.png"
    image.rename(shop.base / "away.png")
    shop.drop("failing.png")
    shop.drop("waiting.png", None, "ink")
    shop.work()
    assert shop.states() == ["queued", "queued"]
    shop.engine.at_step = lambda step: None
    shop.jump += jump
    shop.work()
    assert shop.states() == ["done", "queued"]
    (shop.base / "away.png").rename(image)
    shop.work_and_wait()
    assert shop.states() == ["done", "done"]


def test_an_engine_that_recovers_finishes_the_job(shop: JobHarness) -> None:
    """A second attempt that succeeds gives a result whose sidecar counts both."""
    shop.engine.at_step = fail_with(EngineFailure("out of memory"))
    shop.drop()
    shop.work_on_one()
    shop.engine.at_step = lambda step: None
    shop.work_and_wait()
    assert shop.states() == ["done"]
    assert shop.sidecar("outbox/oil/photo.png.json")["job"]["attempts"] == 2
    assert shop.job().reason is None


@pytest.mark.parametrize("error", [ZeroDivisionError("surprise"), FileNotFoundError("a kernel")])
def test_an_unexpected_error_ends_only_its_own_job(
    shop: JobHarness, logs: LogLines, error: Exception
) -> None:
    """Whatever a picture provokes rejects that picture in the end; all others are done."""
    shop.engine.at_step = fail_with(error)
    shop.drop("bad.png")
    shop.work_and_wait()
    shop.engine.at_step = lambda step: None
    shop.drop("good.png", picture("olive"))
    shop.work()
    assert shop.states() == ["rejected", "done"]
    assert type(error).__name__ in str(shop.jobs()[0].reason)
    assert [line["event"] for line in logs].count("job.crashed") == 3


def test_a_lost_device_ends_the_process(shop: JobHarness) -> None:
    """A lost device is no job's fault: it goes up, and the next process takes the job up."""
    shop.engine.at_step = fail_with(DeviceLost("the GPU has fallen off the bus"))
    shop.drop()
    with pytest.raises(DeviceLost):
        shop.work()
    assert shop.states() == ["queued"]
    shop.restart()
    shop.work()
    assert shop.states() == ["done"]


def test_a_picture_that_its_format_cannot_hold_is_rejected(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only another configuration could save is rejected as such."""
    monkeypatch.setitem(_LONGEST_EDGE_PX, "webp", 33)
    shop.configure("output", format="webp")
    shop.drop()
    shop.work()
    assert shop.job().failure == "configuration"
    assert "33 pixels" in str(shop.job().reason)
    assert "output.format" in shop.job().remedies[0]


# Stopping


def stop_at(shop: JobHarness, step: int) -> Callable[[int], None]:
    def at_step(present: int) -> None:
        if present == step:
            shop.request_stop()

    return at_step


def test_a_stop_saves_a_checkpoint_and_costs_no_attempt(shop: JobHarness) -> None:
    """A stopped job goes back to the queue with its checkpoint, and resumes from there."""
    shop.engine.at_step = stop_at(shop, 2)
    shop.drop()
    shop.work_on_one()
    job = shop.job()
    assert (job.state, job.attempts, job.failure) == (JobState.QUEUED, 0, None)
    assert shop.files("state/checkpoints") == [f"{job.id}.ckpt"]
    shop.restart()
    shop.work()
    assert shop.engine.begun == [0, 2]
    sidecar = shop.sidecar("outbox/oil/photo.png.json")
    assert (sidecar["job"]["resumed"], sidecar["job"]["attempts"]) == (True, 1)
    assert len(sidecar["losses"]["trace"]) == 3
    assert shop.files("state/checkpoints") == []


def test_a_resumed_result_is_the_undisturbed_one(shop: JobHarness) -> None:
    """Stopping and resuming does not change a byte of the result."""
    shop.drop("one.png")
    shop.work()
    shop.engine.at_step = stop_at(shop, 1)
    shop.drop("two.png")
    shop.work_on_one()
    shop.restart()
    shop.work()
    one, two = ((shop.config.outbox / "oil" / name).read_bytes() for name in ("one.png", "two.png"))
    assert shop.engine.begun == [0, 0, 1]
    assert one == two


def test_checkpoints_come_at_their_interval(shop: JobHarness) -> None:
    """A running job is saved every `checkpoint_seconds`, so that a death costs no more."""

    def at_step(step: int) -> None:
        if step == 35:
            raise Died
        shop.advance(1.5)  # due after 30 s: the twentieth

    shop.engine.steps = 40
    shop.engine.at_step = at_step
    shop.drop()
    with pytest.raises(Died):
        shop.work()
    shop.restart()
    shop.work()
    assert shop.engine.begun == [0, 20]


def test_slow_steps_are_saved_each(shop: JobHarness) -> None:
    """The next one may be too long to be waited for when the daemon is stopped."""

    def at_step(step: int) -> None:
        if step == 5:
            raise Died
        shop.advance(3)

    shop.engine.steps = 6
    shop.engine.at_step = at_step
    shop.drop()
    with pytest.raises(Died):
        shop.work()
    shop.restart()
    shop.work()
    assert shop.engine.begun == [0, 4]


def test_progress_is_noted_while_a_job_runs(shop: JobHarness) -> None:
    """The journal knows how far a running job is, at most a second late."""
    seen: list[float] = []

    def at_step(step: int) -> None:
        seen.append(shop.job().fraction)
        shop.advance(1)

    shop.engine.at_step = at_step
    shop.drop()
    shop.work()
    assert seen == pytest.approx([0, 1 / 3, 2 / 3])


# Deaths


def die_while_painting(shop: JobHarness) -> None:
    shop.engine.at_step = fail_with(Died())
    with pytest.raises(Died):
        shop.work()


def test_a_job_on_which_the_process_keeps_dying_is_rejected(shop: JobHarness) -> None:
    """After `max_attempts` deaths a job is rejected unpainted, and the others are done."""
    shop.drop("killer.png")
    for _ in range(3):
        die_while_painting(shop)
        shop.restart()
    assert shop.states() == ["queued"]
    shop.drop("other.png", picture("olive"))
    shop.work()
    assert shop.states() == ["rejected", "done"]
    assert shop.engine.begun == [0, 0, 0, 0]
    rejection = shop.sidecar("rejected/oil/killer.png.json")["rejected"]
    assert rejection["failure"] == "crash"
    assert "begun 3 times" in rejection["reason"]


def test_a_death_before_the_last_costs_nothing(shop: JobHarness) -> None:
    """One death fewer than `max_attempts`, and the job is done."""
    shop.drop()
    for _ in range(2):
        die_while_painting(shop)
        shop.restart()
    shop.work()
    assert shop.states() == ["done"]


FINISHING = [
    ("journal", "reserve_result"),
    ("publisher", "publish_result"),
    ("publisher", "publish_sidecar"),
    ("journal", "finish"),
    ("files_of_jobs", "drop"),
    ("journal", "reserve_original"),
    ("publisher", "take_original"),
    ("journal", "mark_input_gone"),
]


def die_around(owner: object, method: str, *, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(owner, method)

    def dying(*args: object, **options: object) -> None:
        if after:
            original(*args, **options)
        raise Died

    monkeypatch.setattr(owner, method, dying)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(len(FINISHING)), ids=[name for _, name in FINISHING])
def test_a_death_at_any_step_of_finishing_is_mended(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    """Exactly one result, sidecar and archived original, and nothing published is painted twice."""
    shop.configure("queue", max_attempts=1 if step >= 2 and after else 2)
    owner, method = FINISHING[step]
    shop.engine.at_step = lambda step: shop.advance(60)  # so that there is a checkpoint as well
    shop.drop()
    with monkeypatch.context() as patch:
        die_around(getattr(shop, owner), method, after=after, monkeypatch=patch)
        with pytest.raises(Died):
            shop.work()
    shop.restart()
    shop.work()
    assert shop.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]
    assert shop.files("archive") == ["oil/photo.png"]
    assert shop.files("inbox") == shop.files("rejected") == shop.files("state/checkpoints") == []
    assert shop.states() == ["done"]
    sidecar_was_out = step > 2 or (step == 2 and after)
    assert len(shop.engine.begun) == (1 if sidecar_was_out else 2)
    data = (shop.config.outbox / "oil/photo.png").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert shop.sidecar("outbox/oil/photo.png.json")["result"]["sha256"] == digest
    assert shop.job().result_sha256 == digest


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "method"),
    [
        ("journal", "finish"),
        ("journal", "reserve_original"),
        ("publisher", "take_original"),
        ("publisher", "publish_sidecar"),
        ("journal", "mark_input_gone"),
    ],
)
def test_a_death_at_any_step_of_rejecting_is_mended(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch, owner: str, method: str, after: bool
) -> None:
    """Exactly one rejected original with one sidecar that tells its true digest."""
    shop.drop("photo.png", b"not a picture at all")
    with monkeypatch.context() as patch:
        die_around(getattr(shop, owner), method, after=after, monkeypatch=patch)
        with pytest.raises(Died):
            shop.work()
    shop.restart()
    shop.work()
    assert shop.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    assert shop.files("inbox") == []
    assert shop.states() == ["rejected"]
    facts = shop.sidecar("rejected/oil/photo.png.json")["input"]
    assert facts["sha256"] == hashlib.sha256(b"not a picture at all").hexdigest()
    assert not facts["changed"]


def test_a_stranger_that_took_the_reserved_name_is_left_alone(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that appeared under the reserved name after a death keeps it; the result moves on."""
    shop.drop()
    with monkeypatch.context() as patch:
        die_around(shop.journal, "reserve_result", after=True, monkeypatch=patch)
        with pytest.raises(Died):
            shop.work()
    stranger = shop.config.outbox / "oil/photo.png"
    stranger.parent.mkdir(parents=True, exist_ok=True)
    stranger.write_bytes(b"mine")
    shop.restart()
    shop.work()
    assert stranger.read_bytes() == b"mine"
    assert shop.files("outbox") == ["oil/photo-2.png", "oil/photo-2.png.json", "oil/photo.png"]
    assert shop.job().result == "oil/photo-2.png"


def test_a_checkpoint_that_cannot_be_deleted_undoes_nothing(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """A finished job stays finished even if its checkpoint can't be deleted."""
    shop.configure("queue", max_attempts=1)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    shop.drop()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        shop.work()
    assert shop.states() == ["done"]
    assert "job_file.kept" in [line["event"] for line in logs]


# Several styles


def test_an_original_leaves_only_after_its_last_style(shop: JobHarness) -> None:
    """With two styles the photo stays until both are done, and is archived under each."""
    shop.drop("photo.png", None, "oil", "ink")
    shop.work_on_one()
    assert shop.states() == ["done", "running"]
    assert shop.files("inbox") == ["photo.png"]
    assert shop.files("archive") == []
    shop.work()
    assert shop.files("inbox") == []
    assert shop.files("archive") == ["ink/photo.png", "oil/photo.png"]
    assert shop.files("outbox") == [
        "ink/photo.png", "ink/photo.png.json", "oil/photo.png", "oil/photo.png.json",
    ]  # fmt: skip


def test_one_style_may_fail_where_another_succeeds(shop: JobHarness) -> None:
    """The original goes to the archive under the one and to `rejected` under the other."""
    shop.configure("queue", max_attempts=1)
    shop.engine.at_step = fail_with(EngineFailure("nan"))
    shop.drop("photo.png", None, "oil", "ink")
    shop.work_on_one()
    shop.engine.at_step = lambda step: None
    shop.work()
    assert shop.states() == ["rejected", "done"]
    assert shop.files("archive") == ["ink/photo.png"]
    assert shop.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    assert shop.files("inbox") == []


# The input changes


def test_a_photo_removed_before_its_turn_is_cancelled(shop: JobHarness) -> None:
    """A photo that is gone gives no result and no rejection, and may come again."""
    path = shop.drop()
    facts = path.stat()
    path.unlink()
    shop.work()
    assert shop.states() == ["cancelled"]
    assert shop.files("rejected") == shop.files("outbox") == []
    path.write_bytes(picture())
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert shop.rescan() == 1


def test_a_photo_replaced_before_its_turn_is_a_new_job(shop: JobHarness) -> None:
    """Only the new content is painted, once."""
    shop.drop("photo.png")
    shop.drop("photo.png", picture("olive", (44, 44)))
    shop.work()
    assert shop.states() == ["cancelled", "done"]
    assert shop.engine.begun == [0]
    assert (shop.config.archive / "oil/photo.png").read_bytes() == picture("olive", (44, 44))


def test_a_photo_replaced_while_painted_gives_both_results(shop: JobHarness) -> None:
    """What was read is published and says so; the new file stays and becomes a job of its own."""
    new = picture("olive", (44, 44))

    def at_step(step: int) -> None:
        if step == 2 and len(shop.engine.begun) == 1:
            shop.drop("photo.png", new)

    shop.engine.at_step = at_step
    shop.drop("photo.png")
    shop.work_on_one()
    assert shop.sidecar("outbox/oil/photo.png.json")["input"]["changed"]
    assert (shop.config.inbox / "photo.png").read_bytes() == new
    shop.work()
    assert shop.states() == ["done", "done"]
    assert not shop.sidecar("outbox/oil/photo-2.png.json")["input"]["changed"]
    assert (shop.config.archive / "oil/photo.png").read_bytes() == new


def test_a_photo_removed_while_painted_still_gives_its_result(shop: JobHarness) -> None:
    """The result of what was read is published, and the sidecar says that the photo is gone."""

    def at_step(step: int) -> None:
        (shop.config.inbox / "photo.png").unlink(missing_ok=True)

    shop.engine.at_step = at_step
    shop.drop("photo.png")
    shop.work()
    assert shop.states() == ["done"]
    assert shop.sidecar("outbox/oil/photo.png.json")["input"]["changed"]
    assert shop.files("archive") == []


# Styles come and go


def test_a_style_that_was_removed_paints_nothing_until_it_is_back(shop: JobHarness) -> None:
    """A photo of a removed style stays in the inbox and is painted once the style returns."""
    shop.drop("photo.png", None, "ink")
    ink = shop.styles.pop("ink")
    shop.work()
    shop.rescan()
    shop.work()
    assert shop.states() == ["cancelled"]
    assert shop.files("inbox") == ["photo.png"]
    shop.styles["ink"] = ink
    shop.rescan()
    shop.work()
    assert shop.states() == ["cancelled", "done"]
    assert shop.files("outbox") == ["ink/photo.png", "ink/photo.png.json"]


@pytest.mark.parametrize("damage", [b"", b"not a picture", None])
def test_an_unreadable_style_stops_only_its_own_jobs(
    shop: JobHarness, damage: bytes | None
) -> None:
    """Jobs of a style whose image is gone or damaged wait, at no cost; others are done."""
    image = shop.base / "styles/oil.png"
    if damage is None:
        image.unlink()
    else:
        image.write_bytes(damage)
    shop.drop("first.png", None, "oil")
    shop.drop("second.png", None, "ink")
    shop.work()
    assert shop.states() == ["queued", "done"]
    assert shop.jobs()[0].attempts == 0
    assert "styles/oil.png" in str(shop.jobs()[0].reason)
    image.write_bytes(picture("crimson"))
    shop.now += MENDED_SECONDS
    shop.work()
    assert shop.states() == ["done", "done"]


def test_a_changed_recipe_is_not_resumed_from_an_old_checkpoint(
    shop: JobHarness, logs: LogLines
) -> None:
    """A checkpoint of other work is ignored, with a word in the log."""
    shop.engine.at_step = stop_at(shop, 2)
    shop.drop()
    shop.work_on_one()
    recipe = replace(shop.styles["oil"].recipe, steps=7)
    shop.styles["oil"] = replace(shop.styles["oil"], recipe=recipe)
    shop.restart()
    shop.work()
    assert shop.engine.begun == [0, 0]
    assert "checkpoint.ignored" in [line["event"] for line in logs]


# What a file system refuses


@pytest.mark.parametrize("root", ["outbox", "archive", "rejected"])
def test_a_name_that_a_file_system_refuses_stops_nobody_else(
    shop: JobHarness, logs: LogLines, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    """Such as a colon on a disk that Windows has formatted: only that photo waits, as is said."""
    rename = os.rename

    def refuse(source: object, target: object) -> None:
        if "12:30" in str(target) and f"/{root}/" in str(target):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        rename(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "rename", refuse)
    shop.drop("12:30.png", b"no photo" if root == "rejected" else None)
    shop.drop("good.png", picture("olive"))
    shop.work()
    assert shop.jobs()[1].state is JobState.DONE
    assert shop.files("inbox") == ["12:30.png"]
    said = [line["event"] for line in logs]
    assert "queue.paused" not in said
    assert ("job.waits" if root == "outbox" else "input.stuck") in said
    monkeypatch.undo()
    shop.work_and_wait()
    shop.tidy()
    assert shop.files("inbox") == []


def test_a_damaged_journal_is_not_blamed_on_the_photo(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes up, and the process is started again."""

    def damaged(*_: object) -> None:
        raise JournalDamaged("the journal is damaged")

    monkeypatch.setattr(shop.journal, "reserve_result", damaged)
    shop.drop()
    with pytest.raises(JournalDamaged):
        shop.work_on_one()
    assert shop.states() == ["running"]
    assert shop.files("rejected") == []
