"""Frames: intermediate images of a job, which are published with the result."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from styled.atomic import atomic_write, make_folder
from styled.delivery import publisher
from styled.delivery.publisher import Publisher
from styled.engine.checkpoint import Checkpoint
from styled.engine.events import StepProgress, Stylized
from styled.engine.objective import Losses
from styled.engine.scales import resize
from styled.engine_api import PaintTask, TraceRow
from styled.errors import EngineFailure, ResourceUnavailable
from styled.job_io.job_files import JobFiles
from tests.job_harness import Died, JobHarness, LogLines, ScriptedEngine, picture

SIZE = (41, 37)


class TwoScaleEngine(ScriptedEngine):
    """Takes 3 steps at half the size and 4 at full size; its loss trace skips steps."""

    def __init__(self) -> None:
        super().__init__(steps=7)
        self.preview_error: BaseException | None = None

    def paint(
        self, task: PaintTask, resume: Checkpoint | None
    ) -> Generator[StepProgress, None, Stylized]:
        height, width = task.content.shape[-2:]
        plan = ((width // 2, height // 2), (width, height))
        image = resize(task.content, *plan[0]) if resume is None else resume.image
        trace = [] if resume is None else [TraceRow(*row) for row in resume.trace]
        first = 0 if resume is None else resume.step + (3 if resume.scale == 2 else 0)
        self.start_steps.append(first)
        for number in range(first + 1, 8):
            scale, step, steps = (1, number, 3) if number <= 3 else (2, number - 3, 4)
            self.on_sync()
            self.at_step(number)
            self.on_sync()
            image = resize(image, *plan[scale - 1]) * 0.95
            loss = Losses.of(1.0 / number, 0.25 / number, 0.5 / number, 0.25 / number)
            if step in (1, steps):
                trace.append(TraceRow(scale, step, loss.total, loss.content, loss.style, loss.tv))
            snapshot = Checkpoint(
                scale, step, False, image, image, loss.total, loss.total, {}, {}, {},
                [tuple(r) for r in trace],
            )  # fmt: skip
            yield StepProgress(
                plan, scale, step, steps, step == steps, loss,
                checkpoint=lambda s=snapshot: s,  # type: ignore[misc]  # mypy can't infer a default argument's type
                preview=lambda edge_px, i=image: self._preview(i),  # type: ignore[misc]  # likewise
                budget=(3, 4),
            )  # fmt: skip
        return Stylized(image, tuple(trace))

    def _preview(self, image: Tensor) -> Tensor:
        if self.preview_error is not None:
            raise self.preview_error
        return image


@pytest.fixture
def engine() -> TwoScaleEngine:
    """Return an engine with two scales."""
    return TwoScaleEngine()


@pytest.fixture
def harness(tmp_path: Path, logs: LogLines, engine: TwoScaleEngine) -> Iterator[JobHarness]:
    """Return a working folder where a frame is kept every two steps."""
    harness = make_harness(tmp_path / "harness", engine)
    yield harness
    harness.close()


def make_harness(base: Path, engine: TwoScaleEngine) -> JobHarness:
    harness = JobHarness(base)
    harness.engine = engine
    harness.configure("output", keep_frames=2)
    return harness


def limit_frames(harness: JobHarness, edge_px: int) -> None:
    """Limit the long edge of frames, in pixels."""
    run = harness.engine.run
    harness.engine.run = lambda task, checkpoint=None: run(  # type: ignore[method-assign]  # wraps the original
        replace(task, frame_px=edge_px), checkpoint
    )


def drop(harness: JobHarness, name: str = "photo.png", format: str = "png") -> None:
    harness.drop(name, picture(size=SIZE, format=format))


def frames_of(harness: JobHarness, folder: str = "oil/photo.frames") -> dict[str, bytes]:
    """Return the published frames of a job: their contents by name."""
    paths = (harness.config.outbox / folder).glob("*.jpg")
    return {path.name: path.read_bytes() for path in sorted(paths)}


def die_once(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Let the process die at the next call of a method of `Publisher`."""
    original, has_died = getattr(Publisher, method), [False]

    def die(self: Publisher, *args: Any, **options: Any) -> Any:
        if not has_died[0]:
            has_died[0] = True
            raise Died
        return original(self, *args, **options)

    monkeypatch.setattr(Publisher, method, die)


# Content


def test_every_so_many_steps_a_frame_lies_beside_the_result(harness: JobHarness) -> None:
    """Frames are numbered by step, counted over all scales, and the sidecar names their folder."""
    drop(harness)
    harness.work()
    assert harness.files("outbox") == [
        "oil/photo.frames/00002.jpg", "oil/photo.frames/00004.jpg", "oil/photo.frames/00006.jpg",
        "oil/photo.frames/frames.json", "oil/photo.png", "oil/photo.png.json",
    ]  # fmt: skip
    assert harness.sidecar("outbox/oil/photo.png.json")["result"]["frames"] == "oil/photo.frames"
    assert harness.sidecar("outbox/oil/photo.frames/frames.json")["job"]["id"] == harness.job().id
    assert harness.files("state/frames") == []


def test_all_frames_have_one_even_size(harness: JobHarness) -> None:
    """All frames have the same even width and height, as video codecs require.

    Those of smaller scales are enlarged.
    """
    drop(harness)
    harness.work()
    for data in frames_of(harness).values():
        with Image.open(io.BytesIO(data)) as frame:
            assert (frame.format, frame.size) == ("JPEG", (40, 36))


def test_frames_are_no_longer_than_a_film_is_wide(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of large paintings are reduced to a maximum edge; width and height stay even."""
    limit_frames(harness, 31)
    drop(harness)
    harness.work()
    sizes = {Image.open(io.BytesIO(data)).size for data in frames_of(harness).values()}
    assert sizes == {(32, 28)}


def test_frames_of_a_strip_are_no_thinner_than_codecs_allow(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames have at least 2 pixels along each edge."""
    limit_frames(harness, 10)
    harness.drop("photo.png", picture(size=(40, 400)))
    harness.work()
    sizes = {Image.open(io.BytesIO(data)).size for data in frames_of(harness).values()}
    assert sizes == {(2, 10)}


def test_frames_show_how_it_became(harness: JobHarness) -> None:
    """Each frame shows the image after its step."""
    drop(harness)
    harness.work()
    brightness = [
        sum(Image.open(io.BytesIO(data)).convert("L").resize((1, 1)).tobytes())
        for data in frames_of(harness).values()
    ]
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(brightness)) == 3


def test_nothing_is_kept_unless_it_is_asked_for(harness: JobHarness) -> None:
    """Without `keep_frames` no frames are published."""
    harness.configure("output", keep_frames=None)
    drop(harness)
    harness.work()
    assert harness.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]
    assert harness.sidecar("outbox/oil/photo.png.json")["result"]["frames"] is None


def test_a_painting_of_fewer_steps_has_none(harness: JobHarness) -> None:
    """A job with fewer steps than `keep_frames` has no frames and no folder for them."""
    harness.configure("output", keep_frames=50)
    drop(harness)
    harness.work()
    assert harness.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]


# Interruptions


@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize("how", ["stopped", "killed after a checkpoint", "killed"])
def test_an_interrupted_painting_has_the_frames_of_an_undisturbed_one(
    harness: JobHarness, tmp_path: Path, how: str, at: int
) -> None:
    """An interrupted job has the same frames as an uninterrupted one, after a stop or a kill."""

    def interrupt(number: int) -> None:
        if how == "killed after a checkpoint" and number == at - 1:
            harness.advance(1e4)  # a checkpoint is due
        if number == at:
            if how != "stopped":
                raise Died
            harness.request_stop()

    drop(harness)
    harness.engine.at_step = interrupt
    if how == "stopped":
        harness.work()
    else:
        with pytest.raises(Died):
            harness.work()
    harness.restart()
    harness.work()
    assert len(harness.engine.start_steps) == 2
    assert (harness.engine.start_steps[1] > 0) == (
        how == "stopped" or (how == "killed after a checkpoint" and at > 1)
    )
    other = make_harness(tmp_path / "other", TwoScaleEngine())
    drop(other)
    other.work()
    other.close()
    assert frames_of(harness) == frames_of(other)
    assert len(frames_of(harness)) == 3


def test_frames_of_an_attempt_that_is_restarted_are_dropped(harness: JobHarness) -> None:
    """If a job starts without a checkpoint, frames of earlier attempts are deleted."""
    drop(harness)
    stale = harness.config.state / "frames" / harness.job().id / "00099.jpg"
    make_folder(stale.parent)
    stale.write_bytes(b"stale")
    harness.work()
    assert list(frames_of(harness)) == ["00002.jpg", "00004.jpg", "00006.jpg"]


@pytest.mark.parametrize("method", ["publish_result", "publish_sidecar"])
def test_what_a_crash_left_in_the_outbox_is_replaced(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A job that is published again after a crash replaces its frames in the same folder."""
    drop(harness)
    die_once(monkeypatch, method)
    with pytest.raises(Died):
        harness.work()
    expected = frames_of(harness)
    (harness.config.outbox / "oil/photo.frames/00004.jpg").write_bytes(b"damaged")
    harness.restart()
    harness.work()
    assert frames_of(harness) == expected
    assert [p.name for p in sorted((harness.config.outbox / "oil").iterdir())] == [
        "photo.frames", "photo.png", "photo.png.json",
    ]  # fmt: skip


def test_frames_of_an_earlier_publication_are_taken_away(harness: JobHarness) -> None:
    """Publishing again removes the job's old frames, and keeps files of other origin."""
    folder = harness.config.outbox / "oil/photo.frames"
    frames = harness.base / "frames"
    for path in (folder.parent, frames):
        make_folder(path)
    result = folder.with_name("photo.png")
    for number in (2, 4):
        (frames / f"{number:05}.jpg").write_bytes(b"frame")
    harness.publisher.publish_frames(result, "ab", sorted(frames.iterdir()))
    (folder / "cover.jpg").write_bytes(b"mine")
    harness.publisher.publish_frames(result, "ab", [frames / "00002.jpg"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "00002.jpg", "cover.jpg", "frames.json",
    ]  # fmt: skip


def test_an_empty_folder_is_made_use_of(harness: JobHarness) -> None:
    """An empty folder of that name, as a crash may leave it, is used."""
    make_folder(harness.config.outbox / "oil/photo.frames")
    drop(harness)
    harness.work()
    assert harness.sidecar("outbox/oil/photo.png.json")["result"]["frames"] == "oil/photo.frames"


def test_a_crash_amid_the_frames_leaves_no_second_folder(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash while frames are published, the same folder is used again."""
    drop(harness)

    def die(path: Path, data: bytes) -> None:
        if path.name == "00004.jpg":
            raise Died
        original(path, data)

    original = atomic_write
    with monkeypatch.context() as patch:
        patch.setattr(publisher, "atomic_write", die)
        with pytest.raises(Died):
            harness.work()
    assert list(frames_of(harness)) == ["00002.jpg"]
    harness.restart()
    harness.work()
    assert len(frames_of(harness)) == 3
    assert not (harness.config.outbox / "oil/photo-2.frames").exists()


# Names


def test_two_photos_that_differ_in_their_format_do_not_mix(harness: JobHarness) -> None:
    """`photo.jpg` and `photo.png` have separate frame folders, which their sidecars name."""
    drop(harness, "photo.jpg", "jpeg")
    drop(harness, "photo.png")
    harness.work()
    for name, folder in (("photo.jpg", "photo.frames"), ("photo.png", "photo-2.frames")):
        sidecar = harness.sidecar(f"outbox/oil/{name}.json")
        assert sidecar["result"]["frames"] == f"oil/{folder}"
        owner = harness.sidecar(f"outbox/oil/{folder}/frames.json")
        assert owner["job"]["id"] == sidecar["job"]["id"]
        assert len(frames_of(harness, f"oil/{folder}")) == 3


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_somebody_else_calls_so_is_left_alone(harness: JobHarness, kind: str) -> None:
    """If the name is used by files of other origin, frames go to another folder."""
    foreign = harness.config.outbox / "oil/photo.frames"
    elsewhere = harness.base / "elsewhere"
    for folder in (foreign.parent, elsewhere):
        make_folder(folder)
    if kind == "folder":
        foreign.mkdir()
        (foreign / "00002.jpg").write_bytes(b"mine")
        (foreign / "frames.json").write_text("[]")
    elif kind == "file":
        foreign.write_bytes(b"mine")
    else:
        foreign.symlink_to(elsewhere)
    drop(harness)
    harness.work()
    sidecar = harness.sidecar("outbox/oil/photo.png.json")
    assert sidecar["result"]["frames"] == "oil/photo-2.frames"
    assert len(frames_of(harness, "oil/photo-2.frames")) == 3
    if kind == "folder":
        assert {path.name: path.read_bytes() for path in foreign.iterdir()} == {
            "00002.jpg": b"mine", "frames.json": b"[]",
        }  # fmt: skip
    elif kind == "file":
        assert foreign.read_bytes() == b"mine"
    assert list(elsewhere.iterdir()) == []


# Jobs without a result


@pytest.mark.parametrize("ending", ["cancelled", "rejected"])
def test_no_frame_outlives_a_job_that_has_no_result(harness: JobHarness, ending: str) -> None:
    """The frames of cancelled and rejected jobs are deleted."""
    drop(harness)
    frame_counts: list[int] = []

    def end(step: int) -> None:
        harness.advance(2.0)
        if step == 5:
            frame_counts.append(len(harness.files("state/frames")))
            if ending == "rejected":
                raise EngineFailure("it diverged")
            harness.request_cancel(harness.job())

    harness.engine.at_step = end
    harness.work_and_wait()
    assert harness.states() == [ending]
    assert frame_counts[0] == 2
    assert harness.files("state/frames") == []
    assert harness.files("outbox") == []


def test_frames_that_were_published_are_taken_back_with_a_cancelled_job(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelling a half-published job removes its frames from the outbox, and nothing else."""
    drop(harness)
    die_once(monkeypatch, "publish_sidecar")
    with pytest.raises(Died):
        harness.work()
    foreign = harness.config.outbox / "oil/other.frames/00002.jpg"
    make_folder(foreign.parent)
    foreign.write_bytes(b"mine")
    harness.request_cancel(harness.job())
    harness.restart()
    harness.work()
    assert harness.states() == ["cancelled"]
    assert harness.files("outbox") == ["oil/other.frames/00002.jpg"]


def test_frames_of_jobs_that_have_ended_are_swept_at_the_start(harness: JobHarness) -> None:
    """At the start frames of ended jobs are deleted; those of jobs that will resume are kept."""
    drop(harness)
    harness.engine.at_step = lambda step: harness.request_stop() if step == 5 else None
    harness.work()
    kept = harness.files("state/frames")
    assert len(kept) == 2
    stale = harness.config.state / "frames/000000000000/00002.jpg"
    make_folder(stale.parent)
    stale.write_bytes(b"stale")
    stray = harness.config.state / "frames/notes.txt"  # not a folder: it is ignored
    stray.write_bytes(b"stray")
    harness.restart()
    stray.unlink()
    assert harness.files("state/frames") == kept
    JobFiles(harness.base / "nowhere").sweep(keep=())


# Errors


def test_a_full_disk_costs_the_frames_and_not_the_job(harness: JobHarness, logs: LogLines) -> None:
    """If frames cannot be written, the job is done without them, and each failure is logged."""
    (harness.config.state / "frames").write_text("in the way")
    drop(harness)
    harness.work()
    assert harness.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]
    assert harness.sidecar("outbox/oil/photo.png.json")["result"]["frames"] is None
    assert len([line for line in logs if line["event"] == "frame.failed"]) == 3


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory"), MemoryError(), ValueError("not finite")]
)
def test_a_frame_that_cannot_be_made_costs_nothing_else(
    harness: JobHarness, engine: TwoScaleEngine, error: Exception
) -> None:
    """An exception while a frame is made does not fail the job."""
    engine.preview_error = error
    drop(harness)
    harness.work()
    job = harness.job()
    assert (job.state, job.attempts, engine.start_steps) == ("done", 1, [0])


def test_a_frame_of_numbers_that_are_none_is_left_out(tmp_path: Path) -> None:
    """A frame with NaN values is not saved; the frame of the repeated step is."""
    files = JobFiles(tmp_path)
    files.save_frame("4a", 1, torch.full((1, 3, 8, 8), torch.nan))
    assert files.frames("4a") == []
    files.save_frame("4a", 1, torch.zeros(1, 3, 8, 8))
    assert [path.name for path in files.frames("4a")] == ["00001.jpg"]


def test_a_full_outbox_is_waited_out_with_the_frames(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If frames cannot be published, the result waits too, and all are published later."""
    original, times = Publisher.publish_frames, [0]

    def fail_once(self: Publisher, result: Path, job_id: str, frames: Sequence[Path]) -> Path:
        times[0] += 1
        if times[0] == 1:
            raise ResourceUnavailable("no space left on device")
        return original(self, result, job_id, frames)

    monkeypatch.setattr(Publisher, "publish_frames", fail_once)
    drop(harness)
    harness.work_and_wait()
    assert harness.states() == ["done"]
    assert list(frames_of(harness)) == ["00002.jpg", "00004.jpg", "00006.jpg"]


def test_frames_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    """Frames are returned in the order of their steps, up to 99,999."""
    files = JobFiles(tmp_path)
    for number in (10, 9, 1000, 99_999):
        files.save_frame("4a", number, torch.zeros(1, 3, 8, 8))
    assert [path.stem for path in files.frames("4a")] == ["00009", "00010", "01000", "99999"]
