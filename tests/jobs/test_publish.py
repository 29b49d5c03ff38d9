"""The size of results, and what their files can't hold."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from styled.config import OutputConfig, Style, StyleImage
from styled.degradation import Degradation
from styled.engine.checkpoint import Checkpoint
from styled.engine.progress import Progress, Stylized
from styled.engine.scales import resize
from styled.engine_api import Painted, PaintTask
from styled.jobs import requests
from styled.jobs.pending import Request
from styled.jobs.prepare import Prepared, prepare, read_inputs
from styled.jobs.publish import encode
from styled.jobs.requests import PublishRequest
from styled.photos.saving import _LONGEST_EDGE_PX
from styled.recipes import PYRAMID, Size
from tests.jobs.conftest import STUB, JobHarness, LogLines, ScriptedEngine, picture

PHOTO = (160, 120)


class DetailEngine(ScriptedEngine):
    """Notes the sizes that it is asked for, and takes the recipe's steps at full size."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[tuple[int, int], tuple[int, int] | None]] = []
        self.short_of_memory = False

    def paint(
        self, task: PaintTask, resume: Checkpoint | None
    ) -> Generator[Progress, None, Stylized]:
        height, width = task.content.shape[-2:]
        self.asked.append(((width, height), task.painted_size))
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
def shop(tmp_path: Path, logs: LogLines, engine: DetailEngine) -> Iterator[JobHarness]:
    """Return a working folder whose results are as large as the photos."""
    workshop = JobHarness(tmp_path / "shop")
    workshop.engine = engine
    workshop.configure("output", size="input")
    yield workshop
    workshop.close()


def paint_at(shop: JobHarness, size: Size, detail_steps: int = 10) -> dict[str, Any]:
    """Paint a photo by such a recipe; return what the sidecar says of the result."""
    style = shop.styles["oil"]
    recipe = replace(style.recipe, size=size, detail_steps=detail_steps)
    shop.styles["oil"] = replace(style, recipe=recipe)
    shop.drop("photo.png", picture(size=PHOTO))
    shop.work()
    assert shop.states() == ["done"]
    with Image.open(shop.config.outbox / "oil/photo.png") as image:
        size_of_file = image.size
    facts: dict[str, Any] = shop.sidecar("outbox/oil/photo.png.json")["result"]
    assert (facts["width"], facts["height"]) == size_of_file
    return facts


def sizes(facts: dict[str, Any]) -> tuple[object, ...]:
    """Return width, height, painted width and height, and detail steps."""
    names = ("width", "height", "painted_width", "painted_height", "detail_steps")
    return tuple(facts[name] for name in names)


def test_a_large_photo_is_painted_small_and_detailed_at_its_own_size(
    shop: JobHarness, engine: DetailEngine
) -> None:
    """The engine gets the whole photo and both sizes, and the sidecar tells them."""
    facts = paint_at(shop, Size(long_edge=64))
    assert engine.asked == [(PHOTO, (64, 48))]
    assert sizes(facts) == (*PHOTO, 64, 48, 10)


def test_the_style_is_looked_at_in_the_size_of_the_result(shop: JobHarness, tmp_path: Path) -> None:
    """As it is without details."""
    style = shop.styles["oil"]
    recipe = replace(style.recipe, size=Size(long_edge=64), style_size="content")
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture(size=PHOTO))
    inputs = read_inputs(photo, style)
    prepared = prepare(inputs, recipe, max_pixels=10**6, at_own_size=True)
    assert prepared.content.shape == (1, 3, 120, 160)
    assert prepared.styles[0].image.shape == (1, 3, 120, 160)
    assert (prepared.painted_size, prepared.result_size) == ((64, 48), PHOTO)


def test_without_detail_steps_the_painting_is_enlarged(
    shop: JobHarness, engine: DetailEngine
) -> None:
    """Nothing is painted at full size, and the sidecar does not say so either."""
    facts = paint_at(shop, Size(long_edge=64), detail_steps=0)
    assert engine.asked == [((64, 48), None)]
    assert sizes(facts) == (*PHOTO, 64, 48, 0)


def test_what_was_painted_larger_is_brought_back_down(
    shop: JobHarness, engine: DetailEngine
) -> None:
    """A recipe that enlarges photos paints large all the same."""
    facts = paint_at(shop, Size(long_edge=200, upscale=True))
    assert engine.asked == [((200, 150), None)]
    assert sizes(facts) == (*PHOTO, 200, 150, 0)


def test_a_photo_that_is_painted_in_its_own_size_needs_nothing(
    shop: JobHarness, engine: DetailEngine
) -> None:
    """Its sidecar is as with `output.size: painted`."""
    facts = paint_at(shop, Size(long_edge=512))
    assert engine.asked == [(PHOTO, None)]
    assert sizes(facts) == (*PHOTO, None, None, 0)


def test_an_exact_size_of_another_shape_is_undone(shop: JobHarness, engine: DetailEngine) -> None:
    """The result has the photo's shape again."""
    facts = paint_at(shop, Size(exact=(64, 64)), detail_steps=0)
    assert engine.asked == [((64, 64), None)]
    assert sizes(facts) == (*PHOTO, 64, 64, 0)


def test_what_became_smaller_for_lack_of_memory_is_enlarged(
    shop: JobHarness, engine: DetailEngine
) -> None:
    """The sidecar tells the size that was painted indeed."""
    engine.short_of_memory = True
    assert sizes(paint_at(shop, Size(long_edge=64))) == (*PHOTO, 80, 60, 0)


def test_painted_results_stay_as_they_are(shop: JobHarness, engine: DetailEngine) -> None:
    """That is the default."""
    shop.configure("output", size=OutputConfig().size)
    facts = paint_at(shop, Size(long_edge=64))
    assert engine.asked == [((64, 48), None)]
    assert sizes(facts) == (64, 48, None, None, 0)


def test_a_resumed_painting_knows_both_sizes(shop: JobHarness, engine: DetailEngine) -> None:
    """It goes on from its checkpoint to the same size."""
    engine.at_step = lambda step: shop.request_stop() if step == 2 else None
    style = shop.styles["oil"]
    shop.styles["oil"] = replace(style, recipe=replace(style.recipe, size=Size(long_edge=64)))
    shop.drop("photo.png", picture(size=PHOTO))
    shop.work_on_one()
    shop.restart()
    shop.work()
    assert engine.begun == [0, 2]
    assert engine.asked == [(PHOTO, (64, 48))] * 2
    assert sizes(shop.sidecar("outbox/oil/photo.png.json")["result"]) == (*PHOTO, 64, 48, 10)


# What the file can't hold


def transparent(format: str = "png") -> bytes:
    """Return a picture of which one half is transparent."""
    image = Image.new("RGBA", (48, 40), "#00800000")
    image.paste("gold", (0, 0, 24, 40))
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def test_what_a_file_can_not_hold_is_told(shop: JobHarness, logs: LogLines) -> None:
    """In the sidecar and in the log, beside all else that is less than it should be."""
    shop.configure("output", format="jpeg")
    shop.drop("photo.png", transparent())
    shop.work()
    message = "transparency was placed on white: JPEG files have none"
    degraded = (STUB, Degradation("transparency", message))
    told = [asdict(degradation) for degradation in degraded]
    assert shop.sidecar("outbox/oil/photo.jpg.json")["degraded"] == told
    (line,) = (line for line in logs if line["event"] == "job.published")
    assert line["degraded"] == told
    assert shop.finished[-1].degraded == degraded


def test_what_a_file_can_hold_is_not_mentioned(shop: JobHarness) -> None:
    """A transparent photo has a transparent result, of the same size."""
    shop.drop("photo.png", transparent())
    shop.work()
    assert shop.sidecar("outbox/oil/photo.png.json")["degraded"] == [asdict(STUB)]
    with Image.open(shop.config.outbox / "oil/photo.png") as image:
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
    """Bits and colours are as asked for, and the sidecar's facts are those of the file."""
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((64, 64)).save(photo)
    prepared = prepared_of(photo)
    painted = Painted(prepared.content[:, :3], ())
    result = encode(prepared, painted, "png", output)
    facts = result.facts("photo.png")
    bits, mode, color = expected
    assert (facts.bits, facts.color) == (bits, color)
    assert result.data[24] == bits  # of the PNG's header
    with Image.open(io.BytesIO(result.data)) as image:
        assert image.mode == mode


def prepared_of(photo: Path) -> Prepared:
    """Return a photo as it is painted, in its own style."""
    style = Style((StyleImage(photo),), replace(PYRAMID, size=Size(long_edge=64)))
    return prepare(read_inputs(photo, style), style.recipe, max_pixels=10**6)


def test_a_size_that_does_not_fit_is_found_before_it_is_painted(
    shop: JobHarness, engine: DetailEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for hours to hear that."""
    monkeypatch.setitem(_LONGEST_EDGE_PX, "webp", 150)
    shop.configure("output", format="webp")
    shop.drop("photo.png", picture(size=PHOTO))
    shop.work()
    assert shop.states() == ["rejected"]
    assert "160 x 120 pixels do not fit into a webp file" in str(shop.job().reason)
    assert engine.asked == []


def test_a_rejected_jobs_half_publication_is_taken_back(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if its place was chosen by the very attempt that failed."""
    shop.configure("queue", max_attempts=1)

    def fail(*words: object) -> None:
        raise RuntimeError("nobody has thought of this")

    monkeypatch.setattr(shop.publisher, "publish_sidecar", fail)
    shop.drop("photo.png", picture(size=PHOTO))
    shop.work()
    assert shop.states() == ["rejected"]
    assert shop.files("outbox") == []


def test_a_large_picture_may_take_its_time_to_be_saved(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is brought into a file it is said for how long that may be, by its pixels."""
    monkeypatch.setattr(requests, "ENCODED_PIXELS_PER_SECOND", 100)
    beats: list[float] = []
    submit = shop.pool.submit

    def noting(request: Request) -> None:
        if isinstance(request, PublishRequest):
            request.run(beats.append)
        submit(request)

    monkeypatch.setattr(shop.pool, "submit", noting)
    paint_at(shop, Size(long_edge=80))
    assert beats == [160 * 120 / 100]


def test_the_gallery_shows_grey_what_stays_grey(tmp_path: Path) -> None:
    """What is handed on to be shown is what the file holds."""
    photo = tmp_path / "gray.png"
    photo.write_bytes(grey_picture())
    styles = (StyleImage(tmp_path / "style.png"),)
    styles[0].path.write_bytes(picture())
    inputs = read_inputs(photo, Style(styles, PYRAMID))
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
    """Return a PNG of lightness alone."""
    file = io.BytesIO()
    Image.open(io.BytesIO(picture())).convert("L").save(file, "png")
    return file.getvalue()
