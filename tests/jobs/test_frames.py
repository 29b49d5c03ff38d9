"""Frames: pictures of a painting's making, in order, of one size, and gone with their job."""

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
from styled.engine.objective import Losses
from styled.engine.progress import Progress, Stylized
from styled.engine.scales import resize
from styled.engine_api import PaintTask, TraceRow
from styled.errors import EngineFailure, ResourceUnavailable
from styled.jobs.job_files import JobFiles
from tests.jobs.conftest import Died, JobHarness, LogLines, ScriptedEngine, picture

SIZE = (41, 37)


class LadderEngine(ScriptedEngine):
    """Takes 3 steps at half the size and 4 at full size; its trace has not every step."""

    def __init__(self) -> None:
        super().__init__(steps=7)
        self.preview_error: BaseException | None = None

    def paint(
        self, task: PaintTask, resume: Checkpoint | None
    ) -> Generator[Progress, None, Stylized]:
        height, width = task.content.shape[-2:]
        plan = ((width // 2, height // 2), (width, height))
        image = resize(task.content, *plan[0]) if resume is None else resume.image
        trace = [] if resume is None else [TraceRow(*row) for row in resume.trace]
        first = 0 if resume is None else resume.step + (3 if resume.scale == 2 else 0)
        self.begun.append(first)
        for number in range(first + 1, 8):
            scale, step, steps = (1, number, 3) if number <= 3 else (2, number - 3, 4)
            self.on_sync()
            self.at_step(number)
            self.on_sync()
            image = resize(image, *plan[scale - 1]) * 0.95
            loss = Losses(1.0 / number, 0.25 / number, 0.5 / number, 0.25 / number)
            if step in (1, steps):
                trace.append(TraceRow(scale, step, loss.total, loss.content, loss.style, loss.tv))
            snapshot = Checkpoint(
                scale, step, False, image, image, loss.total, loss.total, loss.total, {}, {},
                [tuple(r) for r in trace],
            )  # fmt: skip
            yield Progress(
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
def engine() -> LadderEngine:
    """Return an engine with two scales."""
    return LadderEngine()


@pytest.fixture
def shop(tmp_path: Path, logs: LogLines, engine: LadderEngine) -> Iterator[JobHarness]:
    """Return a working folder where every second step is kept."""
    workshop = open_shop(tmp_path / "shop", engine)
    yield workshop
    workshop.close()


def open_shop(base: Path, engine: LadderEngine) -> JobHarness:
    workshop = JobHarness(base)
    workshop.engine = engine
    workshop.configure("output", keep_frames=2)
    return workshop


def limit_frames(shop: JobHarness, edge_px: int) -> None:
    """Have frames of at most so many pixels along an edge."""
    paint = shop.engine.run
    shop.engine.run = lambda task, checkpoint=None: paint(  # type: ignore[method-assign]  # the same, smaller
        replace(task, frame_px=edge_px), checkpoint
    )


def drop(shop: JobHarness, name: str = "photo.png", format: str = "png") -> None:
    shop.drop(name, picture(size=SIZE, format=format))


def frames_of(shop: JobHarness, folder: str = "oil/photo.frames") -> dict[str, bytes]:
    """Return the published frames of a job."""
    found = (shop.config.outbox / folder).glob("*.jpg")
    return {path.name: path.read_bytes() for path in sorted(found)}


def die_once(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Have the process die the next time that it would publish something."""
    real, died = getattr(Publisher, method), [False]

    def die(self: Publisher, *arguments: Any) -> Any:
        if not died[0]:
            died[0] = True
            raise Died
        return real(self, *arguments)

    monkeypatch.setattr(Publisher, method, die)


# Which they are


def test_every_so_many_steps_a_frame_lies_beside_the_result(shop: JobHarness) -> None:
    """They are numbered by steps, all scales counted together, and the sidecar names them."""
    drop(shop)
    shop.work()
    assert shop.files("outbox") == [
        "oil/photo.frames/00002.jpg", "oil/photo.frames/00004.jpg", "oil/photo.frames/00006.jpg",
        "oil/photo.frames/frames.json", "oil/photo.png", "oil/photo.png.json",
    ]  # fmt: skip
    assert shop.sidecar("outbox/oil/photo.png.json")["result"]["frames"] == "oil/photo.frames"
    assert shop.sidecar("outbox/oil/photo.frames/frames.json")["job"]["id"] == shop.job().id
    assert shop.files("state/frames") == []


def test_all_frames_have_one_even_size(shop: JobHarness) -> None:
    """Those of smaller scales are enlarged: video codecs take nothing else."""
    drop(shop)
    shop.work()
    for data in frames_of(shop).values():
        with Image.open(io.BytesIO(data)) as frame:
            assert (frame.format, frame.size) == ("JPEG", (40, 36))


def test_frames_are_no_longer_than_a_film_is_wide(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large paintings have smaller frames, in their shape, even all the same."""
    limit_frames(shop, 31)
    drop(shop)
    shop.work()
    sizes = {Image.open(io.BytesIO(data)).size for data in frames_of(shop).values()}
    assert sizes == {(32, 28)}


def test_frames_of_a_strip_are_no_thinner_than_codecs_allow(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than a pixel becomes two."""
    limit_frames(shop, 10)
    shop.drop("photo.png", picture(size=(40, 400)))
    shop.work()
    sizes = {Image.open(io.BytesIO(data)).size for data in frames_of(shop).values()}
    assert sizes == {(2, 10)}


def test_frames_show_how_it_became(shop: JobHarness) -> None:
    """Each is a picture of what there was after its step."""
    drop(shop)
    shop.work()
    brightness = [
        sum(Image.open(io.BytesIO(data)).convert("L").resize((1, 1)).tobytes())
        for data in frames_of(shop).values()
    ]
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(brightness)) == 3


def test_nothing_is_kept_unless_it_is_asked_for(shop: JobHarness) -> None:
    """Frames take space."""
    shop.configure("output", keep_frames=None)
    drop(shop)
    shop.work()
    assert shop.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]
    assert shop.sidecar("outbox/oil/photo.png.json")["result"]["frames"] is None


def test_a_painting_of_fewer_steps_has_none(shop: JobHarness) -> None:
    """Nor an empty folder."""
    shop.configure("output", keep_frames=50)
    drop(shop)
    shop.work()
    assert shop.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]


# Interruptions


@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize("how", ["stopped", "killed after a checkpoint", "killed"])
def test_an_interrupted_painting_has_the_frames_of_an_undisturbed_one(
    shop: JobHarness, tmp_path: Path, how: str, at: int
) -> None:
    """Wherever it was interrupted, and however much of it is painted again."""

    def interrupt(number: int) -> None:
        if how == "killed after a checkpoint" and number == at - 1:
            shop.advance(1e4)  # a checkpoint is due
        if number == at:
            if how != "stopped":
                raise Died
            shop.request_stop()

    drop(shop)
    shop.engine.at_step = interrupt
    if how == "stopped":
        shop.work()
    else:
        with pytest.raises(Died):
            shop.work()
    shop.restart()
    shop.work()
    assert len(shop.engine.begun) == 2
    assert (shop.engine.begun[1] > 0) == (
        how == "stopped" or (how == "killed after a checkpoint" and at > 1)
    )
    other = open_shop(tmp_path / "other", LadderEngine())
    drop(other)
    other.work()
    other.close()
    assert frames_of(shop) == frames_of(other)
    assert len(frames_of(shop)) == 3


def test_frames_of_an_attempt_that_is_begun_anew_are_dropped(shop: JobHarness) -> None:
    """They may be of another style or size by now."""
    drop(shop)
    stale = shop.config.state / "frames" / shop.job().id / "00099.jpg"
    make_folder(stale.parent)
    stale.write_bytes(b"stale")
    shop.work()
    assert list(frames_of(shop)) == ["00002.jpg", "00004.jpg", "00006.jpg"]


@pytest.mark.parametrize("method", ["publish_result", "publish_sidecar"])
def test_what_a_crash_left_in_the_outbox_is_replaced(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The same job has one folder of frames, however often it publishes."""
    drop(shop)
    die_once(monkeypatch, method)
    with pytest.raises(Died):
        shop.work()
    undisturbed = frames_of(shop)
    (shop.config.outbox / "oil/photo.frames/00004.jpg").write_bytes(b"damaged")
    shop.restart()
    shop.work()
    assert frames_of(shop) == undisturbed
    assert [p.name for p in sorted((shop.config.outbox / "oil").iterdir())] == [
        "photo.frames", "photo.png", "photo.png.json",
    ]  # fmt: skip


def test_frames_of_an_earlier_publication_are_taken_away(shop: JobHarness) -> None:
    """What is not of this making goes; what somebody has put there stays."""
    folder = shop.config.outbox / "oil/photo.frames"
    frames = shop.base / "frames"
    for path in (folder.parent, frames):
        make_folder(path)
    result = folder.with_name("photo.png")
    for number in (2, 4):
        (frames / f"{number:05}.jpg").write_bytes(b"frame")
    shop.publisher.publish_frames(result, "ab", sorted(frames.iterdir()))
    (folder / "cover.jpg").write_bytes(b"mine")
    shop.publisher.publish_frames(result, "ab", [frames / "00002.jpg"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "00002.jpg", "cover.jpg", "frames.json",
    ]  # fmt: skip


def test_an_empty_folder_is_made_use_of(shop: JobHarness) -> None:
    """A process died just after making it."""
    make_folder(shop.config.outbox / "oil/photo.frames")
    drop(shop)
    shop.work()
    assert shop.sidecar("outbox/oil/photo.png.json")["result"]["frames"] == "oil/photo.frames"


def test_a_crash_amid_the_frames_leaves_no_second_folder(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose they are is noted before the first of them."""
    drop(shop)

    def die(path: Path, data: bytes) -> None:
        if path.name == "00004.jpg":
            raise Died
        real(path, data)

    real = atomic_write
    with monkeypatch.context() as patch:
        patch.setattr(publisher, "atomic_write", die)
        with pytest.raises(Died):
            shop.work()
    assert list(frames_of(shop)) == ["00002.jpg"]
    shop.restart()
    shop.work()
    assert len(frames_of(shop)) == 3
    assert not (shop.config.outbox / "oil/photo-2.frames").exists()


# Names


def test_two_photos_that_differ_in_their_format_do_not_mix(shop: JobHarness) -> None:
    """`photo.jpg` and `photo.png` have a folder each, and their sidecars tell which."""
    drop(shop, "photo.jpg", "jpeg")
    drop(shop, "photo.png")
    shop.work()
    for name, folder in (("photo.jpg", "photo.frames"), ("photo.png", "photo-2.frames")):
        facts = shop.sidecar(f"outbox/oil/{name}.json")
        assert facts["result"]["frames"] == f"oil/{folder}"
        owner = shop.sidecar(f"outbox/oil/{folder}/frames.json")
        assert owner["job"]["id"] == facts["job"]["id"]
        assert len(frames_of(shop, f"oil/{folder}")) == 3


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_somebody_else_calls_so_is_left_alone(shop: JobHarness, kind: str) -> None:
    """The frames lie in another folder then."""
    theirs = shop.config.outbox / "oil/photo.frames"
    elsewhere = shop.base / "elsewhere"
    for folder in (theirs.parent, elsewhere):
        make_folder(folder)
    if kind == "folder":
        theirs.mkdir()
        (theirs / "00002.jpg").write_bytes(b"mine")
        (theirs / "frames.json").write_text("[]")
    elif kind == "file":
        theirs.write_bytes(b"mine")
    else:
        theirs.symlink_to(elsewhere)
    drop(shop)
    shop.work()
    facts = shop.sidecar("outbox/oil/photo.png.json")
    assert facts["result"]["frames"] == "oil/photo-2.frames"
    assert len(frames_of(shop, "oil/photo-2.frames")) == 3
    if kind == "folder":
        assert {path.name: path.read_bytes() for path in theirs.iterdir()} == {
            "00002.jpg": b"mine", "frames.json": b"[]",
        }  # fmt: skip
    elif kind == "file":
        assert theirs.read_bytes() == b"mine"
    assert list(elsewhere.iterdir()) == []


# Ends


@pytest.mark.parametrize("ending", ["cancelled", "rejected"])
def test_no_frame_outlives_a_job_that_has_no_result(shop: JobHarness, ending: str) -> None:
    """However it ends."""
    drop(shop)
    kept: list[int] = []

    def end(step: int) -> None:
        shop.advance(2.0)
        if step == 5:
            kept.append(len(shop.files("state/frames")))
            if ending == "rejected":
                raise EngineFailure("it diverged")
            shop.request_cancel(shop.job())

    shop.engine.at_step = end
    shop.work_and_wait()
    assert shop.states() == [ending]
    assert kept[0] == 2
    assert shop.files("state/frames") == []
    assert shop.files("outbox") == []


def test_frames_that_were_published_are_taken_back_with_a_cancelled_job(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a publication is none; what others have put beside it stays."""
    drop(shop)
    die_once(monkeypatch, "publish_sidecar")
    with pytest.raises(Died):
        shop.work()
    theirs = shop.config.outbox / "oil/other.frames/00002.jpg"
    make_folder(theirs.parent)
    theirs.write_bytes(b"mine")
    shop.request_cancel(shop.job())
    shop.restart()
    shop.work()
    assert shop.states() == ["cancelled"]
    assert shop.files("outbox") == ["oil/other.frames/00002.jpg"]


def test_frames_of_jobs_that_have_ended_are_swept_at_the_start(shop: JobHarness) -> None:
    """Those of a painting that goes on stay."""
    drop(shop)
    shop.engine.at_step = lambda step: shop.request_stop() if step == 5 else None
    shop.work()
    mine = shop.files("state/frames")
    assert len(mine) == 2
    stale = shop.config.state / "frames/000000000000/00002.jpg"
    make_folder(stale.parent)
    stale.write_bytes(b"stale")
    stray = shop.config.state / "frames/notes.txt"  # no folder: it is left alone, and no hindrance
    stray.write_bytes(b"stray")
    shop.restart()
    stray.unlink()
    assert shop.files("state/frames") == mine
    JobFiles(shop.base / "nowhere").sweep(keep=())


# Trouble


def test_a_full_disk_costs_the_frames_and_not_the_job(shop: JobHarness, logs: LogLines) -> None:
    """The painting is what matters; the log names what is missing."""
    (shop.config.state / "frames").write_text("in the way")
    drop(shop)
    shop.work()
    assert shop.files("outbox") == ["oil/photo.png", "oil/photo.png.json"]
    assert shop.sidecar("outbox/oil/photo.png.json")["result"]["frames"] is None
    assert len([line for line in logs if line["event"] == "frame.failed"]) == 3


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory"), MemoryError(), ValueError("not finite")]
)
def test_a_frame_that_cannot_be_made_costs_nothing_else(
    shop: JobHarness, engine: LadderEngine, error: Exception
) -> None:
    """As little as a preview that can't."""
    engine.preview_error = error
    drop(shop)
    shop.work()
    job = shop.job()
    assert (job.state, job.attempts, engine.begun) == ("done", 1, [0])


def test_a_frame_of_numbers_that_are_none_is_left_out(tmp_path: Path) -> None:
    """They are rolled back at once; the frame of that step comes with the next try."""
    files = JobFiles(tmp_path)
    files.save_frame("4a", 1, torch.full((1, 3, 8, 8), torch.nan))
    assert files.frames("4a") == []
    files.save_frame("4a", 1, torch.zeros(1, 3, 8, 8))
    assert [path.name for path in files.frames("4a")] == ["00001.jpg"]


def test_a_full_outbox_is_waited_out_with_the_frames(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that can't be published keep the result back, as a full disk does; none is lost."""
    real, times = Publisher.publish_frames, [0]

    def fail_once(self: Publisher, result: Path, job_id: str, frames: Sequence[Path]) -> Path:
        times[0] += 1
        if times[0] == 1:
            raise ResourceUnavailable("no space left on device")
        return real(self, result, job_id, frames)

    monkeypatch.setattr(Publisher, "publish_frames", fail_once)
    drop(shop)
    shop.work_and_wait()
    assert shop.states() == ["done"]
    assert list(frames_of(shop)) == ["00002.jpg", "00004.jpg", "00006.jpg"]


def test_frames_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    """Up to 99,999 steps."""
    files = JobFiles(tmp_path)
    for number in (10, 9, 1000, 99_999):
        files.save_frame("4a", number, torch.zeros(1, 3, 8, 8))
    assert [path.stem for path in files.frames("4a")] == ["00009", "00010", "01000", "99999"]
