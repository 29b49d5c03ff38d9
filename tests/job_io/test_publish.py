"""Publishing: the size of results, and what their file format cannot hold."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from styled.codec.encode import encode
from styled.codec.prepare import Prepared, prepare
from styled.codec.source_files import read_source_files
from styled.config import OutputConfig, Style, StyleImage
from styled.degradation import Degradation
from styled.engine.checkpoint import Checkpoint
from styled.engine.events import StepProgress, Stylized
from styled.engine.scales import resize
from styled.engine_api import Painted, PaintTask
from styled.errors import DiskFailure
from styled.job_io import requests
from styled.job_io.requests import PublishRequest
from styled.jobs.pending_effects import Request
from styled.photos.encode import _LONGEST_EDGE_PX
from styled.recipes import PYRAMID, Size
from tests.job_harness import STUB, JobHarness, LogLines, ScriptedEngine, picture

PHOTO = (160, 120)


class DetailEngine(ScriptedEngine):
    """Records the sizes of its tasks, and reports the recipe's detail steps if there are any."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[tuple[int, int], tuple[int, int] | None]] = []
        self.short_of_memory = False

    def paint(
        self, task: PaintTask, resume: Checkpoint | None
    ) -> Generator[StepProgress, None, Stylized]:
        height, width = task.content.shape[-2:]
        self.sizes.append(((width, height), task.painted_size))
        stylized = yield from super().paint(task, resume)
        if self.short_of_memory:
            return replace(stylized, image=resize(stylized.image, 80, 60))
        detail_steps = task.recipe.detail_steps if task.painted_size is not None else 0
        return replace(stylized, detail_steps=detail_steps)


@pytest.fixture
def engine() -> DetailEngine:
    """Return an engine that takes detail steps."""
    return DetailEngine()


@pytest.fixture
def harness(tmp_path: Path, logs: LogLines, engine: DetailEngine) -> Iterator[JobHarness]:
    """Return a working folder with `output.size: input`."""
    workshop = JobHarness(tmp_path / "harness")
    workshop.engine = engine
    workshop.configure("output", size="input")
    yield workshop
    workshop.close()


def paint_at(harness: JobHarness, size: Size, detail_steps: int = 10) -> dict[str, Any]:
    """Paint a photo with this size and these detail steps; return the sidecar's `result`."""
    style = harness.styles["oil"]
    recipe = replace(style.recipe, size=size, detail_steps=detail_steps)
    harness.styles["oil"] = replace(style, recipe=recipe)
    harness.drop("photo.png", picture(size=PHOTO))
    harness.work()
    assert harness.states() == ["done"]
    with Image.open(harness.config.outbox / "oil/photo.png") as image:
        size_of_file = image.size
    result_info: dict[str, Any] = harness.sidecar("outbox/oil/photo.png.json")["result"]
    assert (result_info["width"], result_info["height"]) == size_of_file
    return result_info


def sizes(result_info: dict[str, Any]) -> tuple[object, ...]:
    """Return width, height, painted width and height, and detail steps."""
    names = ("width", "height", "painted_width", "painted_height", "detail_steps")
    return tuple(result_info[name] for name in names)


def test_a_large_photo_is_painted_small_and_detailed_at_its_own_size(
    harness: JobHarness, engine: DetailEngine
) -> None:
    """The engine gets the photo at full size and the painted size; both are in the sidecar."""
    result_info = paint_at(harness, Size(long_edge=64))
    assert engine.sizes == [(PHOTO, (64, 48))]
    assert sizes(result_info) == (*PHOTO, 64, 48, 10)


def test_the_style_is_looked_at_in_the_size_of_the_result(
    harness: JobHarness, tmp_path: Path
) -> None:
    """With detail steps the style images are prepared at the size of the result."""
    style = harness.styles["oil"]
    recipe = replace(style.recipe, size=Size(long_edge=64), style_size="content")
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture(size=PHOTO))
    inputs = read_source_files(photo, style)
    prepared = prepare(inputs, recipe, max_pixels=10**6, at_own_size=True)
    assert prepared.content.shape == (1, 3, 120, 160)
    assert prepared.styles[0].image.shape == (1, 3, 120, 160)
    assert (prepared.painted_size, prepared.result_size) == ((64, 48), PHOTO)


def test_without_detail_steps_the_painting_is_enlarged(
    harness: JobHarness, engine: DetailEngine
) -> None:
    """Without detail steps the painting is enlarged to the photo's size, as the sidecar says."""
    result_info = paint_at(harness, Size(long_edge=64), detail_steps=0)
    assert engine.sizes == [((64, 48), None)]
    assert sizes(result_info) == (*PHOTO, 64, 48, 0)


def test_what_was_painted_larger_is_brought_back_down(
    harness: JobHarness, engine: DetailEngine
) -> None:
    """With a recipe that enlarges photos the painting is reduced to the photo's size."""
    result_info = paint_at(harness, Size(long_edge=200, upscale=True))
    assert engine.sizes == [((200, 150), None)]
    assert sizes(result_info) == (*PHOTO, 200, 150, 0)


def test_a_photo_that_is_painted_in_its_own_size_needs_nothing(
    harness: JobHarness, engine: DetailEngine
) -> None:
    """If a photo is painted in its own size, the sidecar is as with `output.size: painted`."""
    result_info = paint_at(harness, Size(long_edge=512))
    assert engine.sizes == [(PHOTO, None)]
    assert sizes(result_info) == (*PHOTO, None, None, 0)


def test_an_exact_size_of_another_shape_is_undone(
    harness: JobHarness, engine: DetailEngine
) -> None:
    """With an exact size of another shape the result has the photo's shape."""
    result_info = paint_at(harness, Size(exact=(64, 64)), detail_steps=0)
    assert engine.sizes == [((64, 64), None)]
    assert sizes(result_info) == (*PHOTO, 64, 64, 0)


def test_what_became_smaller_for_lack_of_memory_is_enlarged(
    harness: JobHarness, engine: DetailEngine
) -> None:
    """A painting reduced for lack of memory is enlarged; the sidecar has the painted size."""
    engine.short_of_memory = True
    assert sizes(paint_at(harness, Size(long_edge=64))) == (*PHOTO, 80, 60, 0)


def test_painted_results_stay_as_they_are(harness: JobHarness, engine: DetailEngine) -> None:
    """By default the result has the painted size."""
    harness.configure("output", size=OutputConfig().size)
    result_info = paint_at(harness, Size(long_edge=64))
    assert engine.sizes == [((64, 48), None)]
    assert sizes(result_info) == (64, 48, None, None, 0)


def test_a_resumed_painting_knows_both_sizes(harness: JobHarness, engine: DetailEngine) -> None:
    """A resumed job has the same painted and result sizes."""
    engine.at_step = lambda step: harness.request_stop() if step == 2 else None
    style = harness.styles["oil"]
    harness.styles["oil"] = replace(style, recipe=replace(style.recipe, size=Size(long_edge=64)))
    harness.drop("photo.png", picture(size=PHOTO))
    harness.work_on_one()
    harness.restart()
    harness.work()
    assert engine.start_steps == [0, 2]
    assert engine.sizes == [(PHOTO, (64, 48))] * 2
    assert sizes(harness.sidecar("outbox/oil/photo.png.json")["result"]) == (*PHOTO, 64, 48, 10)


# What the file format can't hold


def transparent(format: str = "png") -> bytes:
    """Return an image of which one half is transparent."""
    image = Image.new("RGBA", (48, 40), "#00800000")
    image.paste("gold", (0, 0, 24, 40))
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def test_what_a_file_cannot_hold_is_reported(harness: JobHarness, logs: LogLines) -> None:
    """A loss of transparency is in the sidecar and in the log, after other degradations."""
    harness.configure("output", format="jpeg")
    harness.drop("photo.png", transparent())
    harness.work()
    message = "transparency was placed on white: JPEG files have none"
    degraded = (STUB, Degradation("transparency", message))
    expected = [asdict(degradation) for degradation in degraded]
    assert harness.sidecar("outbox/oil/photo.jpg.json")["degraded"] == expected
    (line,) = (line for line in logs if line["event"] == "job.published")
    assert line["degraded"] == expected
    assert harness.finished[-1].degraded == degraded


def test_what_a_file_can_hold_is_not_mentioned(harness: JobHarness) -> None:
    """A transparent photo gives a transparent PNG, without a degradation."""
    harness.drop("photo.png", transparent())
    harness.work()
    assert harness.sidecar("outbox/oil/photo.png.json")["degraded"] == [asdict(STUB)]
    with Image.open(harness.config.outbox / "oil/photo.png") as image:
        assert (image.mode, image.size) == ("RGBA", (48, 40))
        opacity = image.getchannel("A")
    assert (opacity.getpixel((40, 20)), opacity.getpixel((8, 20))) == (0, 255)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OutputConfig(), (8, "RGB", "sRGB")),
        (OutputConfig(bits=16), (16, "RGB", "sRGB")),
        (OutputConfig(grayscale="keep"), (8, "L", None)),
    ],
)
def test_the_configuration_decides_about_the_file(
    tmp_path: Path, output: OutputConfig, expected: tuple[int, str, str | None]
) -> None:
    """Bits and colour are as configured, and the sidecar's values are those of the file."""
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((64, 64)).save(photo)
    prepared = prepared_of(photo)
    painted = Painted(prepared.content[:, :3], ())
    result = encode(prepared, painted, "png", output)
    result_info = result.result_info("photo.png")
    bits, mode, color = expected
    assert (result_info.bits, result_info.color) == (bits, color)
    assert result.data[24] == bits  # the bit depth in the PNG's header
    with Image.open(io.BytesIO(result.data)) as image:
        assert image.mode == mode


def prepared_of(photo: Path) -> Prepared:
    """Prepare a photo, with itself as the style image."""
    style = Style((StyleImage(photo),), replace(PYRAMID, size=Size(long_edge=64)))
    return prepare(read_source_files(photo, style), style.recipe, max_pixels=10**6)


def test_a_size_that_does_not_fit_is_found_before_it_is_painted(
    harness: JobHarness, engine: DetailEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size that the file format cannot hold is rejected before painting."""
    monkeypatch.setitem(_LONGEST_EDGE_PX, "webp", 150)
    harness.configure("output", format="webp")
    harness.drop("photo.png", picture(size=PHOTO))
    harness.work()
    assert harness.states() == ["rejected"]
    assert "160 x 120 pixels do not fit into a webp file" in str(harness.job().reason)
    assert engine.sizes == []


def test_a_rejected_jobs_half_publication_is_taken_back(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a job is rejected because publishing fails, its partial result is removed."""
    harness.configure("queue", max_attempts=1)

    def fail(*args: object) -> None:
        raise RuntimeError("nobody has thought of this")

    monkeypatch.setattr(harness.publisher, "publish_sidecar", fail)
    harness.drop("photo.png", picture(size=PHOTO))
    harness.work()
    assert harness.states() == ["rejected"]
    assert harness.files("outbox") == []


def test_a_large_picture_may_take_its_time_to_be_saved(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before encoding, the heartbeat announces a time in proportion to the pixels."""
    monkeypatch.setattr(requests, "ENCODED_PIXELS_PER_SECOND", 100)
    beats: list[float] = []
    submit = harness.pool.submit

    def record(request: Request) -> None:
        if isinstance(request, PublishRequest):
            request.run(beats.append)
        submit(request)

    monkeypatch.setattr(harness.pool, "submit", record)
    paint_at(harness, Size(long_edge=80))
    assert beats == [160 * 120 / 100]


def test_the_gallery_shows_grey_what_stays_grey(tmp_path: Path) -> None:
    """The image passed to the gallery has the colours of the file."""
    photo = tmp_path / "gray.png"
    photo.write_bytes(grey_picture())
    styles = (StyleImage(tmp_path / "style.png"),)
    styles[0].path.write_bytes(picture())
    inputs = read_source_files(photo, Style(styles, PYRAMID))
    prepared = prepare(inputs, PYRAMID, max_pixels=10**6)
    colourful = torch.rand(1, 3, *prepared.content.shape[-2:])
    kept = encode(prepared, Painted(colourful, ()), "png", OutputConfig(grayscale="keep"))
    painted = encode(prepared, Painted(colourful, ()), "png", OutputConfig())
    assert torch.equal(kept.image[:, 0], kept.image[:, 2])
    assert not torch.equal(painted.image[:, 0], painted.image[:, 2])
    with Image.open(io.BytesIO(kept.data)) as image:
        assert image.mode == "L"
        levels = torch.tensor(list(image.get_flattened_data())).view(1, image.height, image.width)
    assert float((kept.image[:, 0] * 255 - levels).abs().max()) <= 0.51


def grey_picture() -> bytes:
    """Return a grayscale PNG."""
    file = io.BytesIO()
    Image.open(io.BytesIO(picture())).convert("L").save(file, "png")
    return file.getvalue()


def test_another_format_since_the_last_attempt_changes_the_name(harness: JobHarness) -> None:
    """The suffix of a result is always that of its format."""
    harness.configure("output", format="png")
    harness.drop()

    def fail(path: Path, data: bytes, **options: object) -> None:
        harness.request_stop()
        raise DiskFailure("the disk is full", "free some space")

    harness.publisher.publish_result = fail  # type: ignore[method-assign]  # until the restart
    harness.work()
    harness.configure("output", format="jpeg")
    harness.work()
    assert harness.files("outbox") == ["oil/photo.jpg", "oil/photo.jpg.json"]
