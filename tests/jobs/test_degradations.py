"""Whatever is less than was asked for is in the log, in `status` and `jobs`, and in the sidecar."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner
from watchdog.observers.api import BaseObserver

from styled.cli.main import app
from styled.config import load_config
from styled.daemon import Daemon
from styled.degradation import KINDS, Degradation, Kind
from styled.delivery.publisher import Publisher
from styled.engine.checkpoint import Checkpoint
from styled.engine.device import Device
from styled.engine.local import LocalEngine
from styled.engine.objective import Losses, Objective
from styled.engine.progress import Progress, Stylized
from styled.engine.vgg import Convolutions
from styled.engine.weights import Weights
from styled.engine_api import PaintTask
from styled.jobs.job import JobState
from styled.jobs.journal import Journal
from styled.ops.lock import InstanceLock
from styled.recipes import Optimizer, Recipe, Scales
from styled.stages import build_engine
from tests.engine.conftest import SHALLOW, untrained
from tests.jobs.conftest import STUB, Died, JobHarness, LogLines, ScriptedEngine, picture
from tests.photos.samples import deep_png

Arrange = Callable[[JobHarness, "RealEngine", pytest.MonkeyPatch], None]


class RealEngine(ScriptedEngine):
    """The engine that ships; `at_step` is called once what a step gave has been dealt with."""

    def __init__(self, engine: LocalEngine) -> None:
        super().__init__()
        self._engine = engine
        self.info = engine.info

    def paint(
        self, task: PaintTask, resume: Checkpoint | None
    ) -> Generator[Progress, None, Stylized]:
        painting = self._engine._paint(task, resume)
        while True:
            try:
                progress = next(painting)
            except StopIteration as finished:
                stylized: Stylized = finished.value
                return stylized
            yield progress
            self.on_sync()
            self.at_step(progress.step)
            self.on_sync()


@pytest.fixture(scope="module")
def convolutions() -> Convolutions:
    """Return the untrained network, which takes seconds to make."""
    return untrained()


@pytest.fixture(scope="module")
def local_engine(convolutions: Convolutions) -> LocalEngine:
    """Return an engine on the CPU."""
    weights = Weights(convolutions, "untrained", "0" * 64)
    return LocalEngine(weights, Device(torch.device("cpu"), "cpu"), "float32")


@pytest.fixture
def real(local_engine: LocalEngine) -> RealEngine:
    """Return that engine, with steps to look in at."""
    return RealEngine(local_engine)


def ask(base: Path, *arguments: str) -> str:
    """Return what `styled` says about the folders of a configuration."""
    result = CliRunner(env={"COLUMNS": "1000"}).invoke(
        app, [*arguments, "-c", str(base / "config.yaml")]
    )
    assert result.exit_code == 0, result.output
    return result.output


@dataclass(frozen=True)
class Said:
    """What `styled status` and `styled jobs` say at one moment, for people and for programs."""

    words: tuple[str, ...]
    degraded: tuple[list[dict[str, str]], ...]  # of each job in each list

    @classmethod
    def about(cls, base: Path) -> Said:
        """Ask both commands."""
        status = json.loads(ask(base, "status", "--json"))
        jobs = [*status["current"], *status["waiting"], *status["last"]]
        jobs += json.loads(ask(base, "jobs", "--json"))
        return cls((ask(base, "status"), ask(base, "jobs")), tuple(job["degraded"] for job in jobs))

    def assert_has(self, degradation: Degradation) -> None:
        """Check that both have it, of one job, in both forms."""
        assert len(self.degraded) == 2
        assert all(asdict(degradation) in degraded for degraded in self.degraded)
        assert all(f"degraded: {degradation.message}" in words for words in self.words)


def paint_with(shop: JobHarness, engine: ScriptedEngine, recipe: Recipe) -> None:
    """Have the photos painted by another engine from now on."""
    shop.styles["oil"] = replace(shop.styles["oil"], recipe=recipe)
    shop.engine = engine
    shop.restart()


# What each kind is provoked by


def several_frames(shop: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    first, second = (Image.new("RGB", (40, 36), color) for color in ("teal", "gold"))
    first.save(file, "GIF", save_all=True, append_images=[second])
    shop.drop("photo.gif", file.getvalue())


def sixteen_bits_as_a_jpeg(
    shop: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.configure("output", format="jpeg")
    shop.drop("photo.png", deep_png(np.full((36, 40, 3), 30_000, dtype=np.uint16)))


def a_damaged_profile(shop: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 36), "teal").save(file, "PNG", icc_profile=b"nonsense")
    shop.drop("photo.png", file.getvalue())


def transparency_as_a_jpeg(
    shop: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.configure("output", format="jpeg")
    image = Image.new("RGBA", (40, 36), "#00800000")
    image.paste("gold", (0, 0, 20, 36))
    file = io.BytesIO()
    image.save(file, "PNG")
    shop.drop("photo.png", file.getvalue())


def damaged_exif(shop: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, exif = picture(format="jpeg"), b"Exif\0\0nonsense"
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    shop.drop("photo.jpg", plain[:2] + segment + plain[2:])


def a_huge_learning_rate(
    shop: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = Optimizer(name="adam", learning_rate=1e4)
    recipe = replace(SHALLOW, scales=None, clamp=False, steps=6, optimizer=optimizer)
    paint_with(shop, real, recipe)
    shop.drop()


def an_allocation_that_fails(
    shop: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = Objective.evaluate
    calls: list[None] = []

    def short_of_memory(*values: Any, **named: Any) -> tuple[Losses, Tensor]:
        calls.append(None)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        return evaluate(*values, **named)

    monkeypatch.setattr(Objective, "evaluate", short_of_memory)
    paint_with(shop, real, replace(SHALLOW, scales=None, steps=4))
    shop.drop()


def another_device(shop: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "resumed on cpu: it was begun on NVIDIA H200"
    shop.engine.at_step = lambda step: shop.request_stop()
    shop.drop()
    shop.work()
    assert shop.states() == ["queued"]
    shop.engine.degraded = (Degradation("resumed", message),)
    shop.restart()


@dataclass(frozen=True)
class Case:
    """How one kind is provoked, and what is said of it.

    Attributes:
        message: How the message begins.
        arrange: Drops a photo, and sees to the rest.
        known_when_published: Whether it shows in the result's file alone, and not before.
    """

    message: str
    arrange: Arrange
    known_when_published: bool = False


OF_JOBS: dict[Kind, Case] = {
    "frames": Case("only the first of 2 frames was used", several_frames),
    "bits": Case("16 bits were rounded to 8: JPEG", sixteen_bits_as_a_jpeg, True),
    "color": Case("the colour profile is damaged and was ignored", a_damaged_profile),
    "transparency": Case("transparency was placed on white: JPEG", transparency_as_a_jpeg, True),
    "metadata": Case("the EXIF data is damaged and was ignored", damaged_exif),
    "guard": Case("the loss rose to ", a_huge_learning_rate),
    "memory": Case("memory was short: L-BFGS remembered ", an_allocation_that_fails),
    # What the engine compares to know it has tests of its own.
    "resumed": Case("resumed on cpu", another_device),
}

OF_THE_SERVICE: set[Kind] = {"device", "weights", "polling"}
"""See `test_what_the_service_does_without_is_told`."""


def test_each_kind_is_tested() -> None:
    """A new kind has to be provoked here."""
    assert sorted([*OF_JOBS, *OF_THE_SERVICE]) == sorted(KINDS)


@pytest.mark.parametrize("kind", OF_JOBS)
def test_what_a_job_gives_up_is_told(
    shop: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch, logs: LogLines, kind: Kind
) -> None:
    """The log has it when it happens; `status` and `jobs` while the job runs and afterwards; and
    the sidecar has it."""
    case = OF_JOBS[kind]
    case.arrange(shop, real, monkeypatch)
    logs.clear()

    def logged() -> list[Degradation]:
        return [
            Degradation(line["kind"], line["reason"])
            for line in logs
            if line["event"] == "job.degraded" and line["kind"] == kind
        ]

    lock = InstanceLock(shop.config.state / "lock")
    lock.acquire()
    looks: list[tuple[list[Degradation], JobState, list[str], Said]] = []

    def look(at: Any = None) -> None:
        if logged() and not looks:
            looks.append((logged(), shop.job().state, shop.files("outbox"), Said.about(shop.base)))

    publish = Publisher.publish_result

    def publish_and_look(publisher: Publisher, *values: Any) -> None:
        look()
        publish(publisher, *values)

    if case.known_when_published:
        monkeypatch.setattr(Publisher, "publish_result", publish_and_look)
    else:
        shop.on_turn = look
    shop.work()
    assert shop.states() == ["done"]
    (degradations, state, published, said), *_ = looks
    assert (state, published) == (JobState.RUNNING, [])
    assert degradations == logged()[:1]
    said.assert_has(degradations[0])
    # Once for each time that it happened.
    assert len(logged()) == len(set(logged()))
    assert all(degradation.message.startswith(case.message) for degradation in logged())

    degradation = logged()[-1]
    Said.about(shop.base).assert_has(degradation)
    lock.release()
    Said.about(shop.base).assert_has(degradation)
    result = shop.job().result
    assert result is not None
    sidecar = shop.sidecar(f"outbox/{result}.json")
    assert asdict(degradation) in sidecar["degraded"]
    assert sidecar["degraded"] == [asdict(one) for one in shop.job().degraded]


def test_what_the_service_does_without_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logs: LogLines,
    convolutions: Convolutions,
) -> None:
    """A GPU that does not work, an untrained network and an inbox that can't be watched are in the
    log at the start, in `status` and `jobs`, and in the sidecar of what is painted."""
    base = tmp_path / "shop"
    for name in ("styles/oil.png", "inbox/one.png", "inbox/two.png"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(picture("teal" if name.endswith("one.png") else "olive"))
    (base / "config.yaml").write_text(
        "default_style: oil\n"
        "styles: {oil: {image: styles/oil.png, overrides: {steps: 2, scales: null}}}\n"
        "engine: {device: auto, precision: float32, weights: untrained}\n"
        "intake: {settle_seconds: 0, rescan_seconds: 0.2}\n"
    )
    zeros = torch.zeros

    def broken(*size: Any, **named: Any) -> Tensor:
        if str(named.get("device")).startswith(("cuda", "mps")):
            raise RuntimeError("the driver is too old")
        return zeros(*size, **named)

    def unwatchable(observer: BaseObserver) -> NoReturn:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(torch, "zeros", broken)
    monkeypatch.setattr("styled.engine.device.GPU_DEVICE_FILES", (str(base),))
    monkeypatch.setattr(BaseObserver, "start", unwatchable)
    monkeypatch.setattr("styled.engine.weights.untrained", lambda: convolutions)
    monkeypatch.setattr("styled.daemon.keep_freed_memory", lambda: None)  # it is for ever
    expected = [
        Degradation(
            "device",
            "a GPU was found, but cuda does not work here: the driver is too old: "
            "running on the CPU",
        ),
        Degradation("weights", "the network is untrained"),
        Degradation(
            "polling",
            f"the inbox is polled every 1 s: {base / 'inbox'} can't be watched: "
            "inotify watch limit reached",
        ),
    ]
    assert {degradation.kind for degradation in expected} == OF_THE_SERVICE
    seen: list[tuple[dict[str, Any], Said]] = []

    def look(step: int) -> None:
        if [line["event"] for line in logs].count("job.started") == 2 and not seen:
            try:
                seen.append((json.loads(ask(base, "status", "--json")), Said.about(base)))
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

    config = load_config(base / "config.yaml")

    class EngineWithALook:
        can_replace = False

        def make(self) -> RealEngine:
            engine = RealEngine(build_engine(config, lambda done, total: None))
            engine.at_step = look
            return engine

    Daemon(config, [EngineWithALook()]).run()
    ((status, said),) = seen
    assert status["running"]
    assert status["degraded"] == [asdict(degradation) for degradation in expected]
    assert all(f"degraded: {one.message}" in words for words in said.words for one in expected)
    assert len(said.degraded) == 4
    for degraded in said.degraded:
        assert degraded == [asdict(degradation) for degradation in expected]
    told = [(line["kind"], line["reason"]) for line in logs if line["event"] == "daemon.degraded"]
    assert told == [(one.kind, one.message) for one in expected[:2]]
    (polled,) = [line for line in logs if line["event"] == "inbox.polled"]
    assert polled["reason"].endswith("inotify watch limit reached")
    assert "job.degraded" not in [line["event"] for line in logs]
    for path in (base / "outbox").rglob("*.json"):
        sidecar = json.loads(path.read_bytes())
        assert sidecar["degraded"] == [asdict(degradation) for degradation in expected]
    assert list((base / "outbox").rglob("*.png.json")) != []


# What else is said while a job runs


def test_a_size_that_was_given_up_is_told_while_the_job_runs(
    shop: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """It is known at the first step, and an hour may pass until the last."""

    def peak_bytes(_: object, settings: object, size: tuple[int, int]) -> int:
        return 2**60 if max(size) > 48 else 0

    monkeypatch.setattr("styled.engine.footprint.Footprint.peak_bytes", peak_bytes)
    paint_with(shop, real, replace(SHALLOW, scales=Scales(start_px=48), steps=2))
    seen: list[tuple[Degradation, ...]] = []
    real.at_step = lambda step: seen.append(shop.job().degraded)
    shop.drop("photo.png", picture(size=(96, 72)))
    shop.work()
    message = "memory was short: painted at 48 x 36 in place of 96 x 72"
    assert seen[0] == (*real.info.degraded, Degradation("memory", message))
    reasons = [line["reason"] for line in logs if line["event"] == "job.degraded"]
    assert reasons == [message]


def test_each_scale_is_logged_once_when_it_is_finished(
    shop: JobHarness, real: RealEngine, logs: LogLines
) -> None:
    """A job that takes an hour can be followed in the log."""
    paint_with(shop, real, replace(SHALLOW, scales=Scales(start_px=48), steps=2))
    shop.drop("photo.png", picture(size=(96, 72)))
    seen: list[int] = []
    real.at_step = lambda step: seen.append(
        [line["event"] for line in logs].count("scale.finished")
    )
    shop.work()
    lines = [line for line in logs if line["event"] == "scale.finished"]
    assert [(line["scale"], line["scales"], line["steps"]) for line in lines] == [
        (1, 3, 2), (2, 3, 2), (3, 3, 2),
    ]  # fmt: skip
    assert [(line["width"], line["height"]) for line in lines] == [(48, 36), (68, 51), (96, 72)]
    assert [line["fraction"] for line in lines] == sorted({line["fraction"] for line in lines})
    assert lines[-1]["fraction"] == 1
    assert seen == [0, 1, 1, 2, 2, 3]


def test_a_scale_that_ends_for_lack_of_memory_is_logged_too(
    shop: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """It has no last step that says so."""
    evaluate = Objective.evaluate
    calls: list[None] = []

    def short_of_memory(*values: Any, **named: Any) -> tuple[Losses, Tensor]:
        calls.append(None)
        if len(calls) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        return evaluate(*values, **named)

    monkeypatch.setattr(Objective, "evaluate", short_of_memory)
    paint_with(shop, real, replace(SHALLOW, scales=None, steps=9))
    shop.drop()
    shop.work()
    assert shop.states() == ["done"]
    (line,) = [line for line in logs if line["event"] == "scale.finished"]
    assert (line["scale"], line["steps"]) == (1, 2)
    (message,) = {one.message for one in shop.job().degraded if "ran out" in one.message}
    assert message == "memory ran out at 40 x 36 after 2 steps"
    assert message in [line["reason"] for line in logs if line["event"] == "job.degraded"]


def test_a_later_fallback_takes_the_place_of_an_earlier_one(
    shop: JobHarness, logs: LogLines
) -> None:
    """What holds is in the journal and in the sidecar; all that happened is in the log."""
    first, second = (Degradation("memory", f"memory was short: {n} steps") for n in (10, 5))

    def at_step(step: int) -> None:
        shop.engine.degraded = {1: (first,), 2: (second,), 3: (second,)}[step]

    shop.engine.at_step = at_step
    shop.drop()
    shop.work()
    assert shop.job().degraded == (STUB, second)
    assert shop.sidecar("outbox/oil/photo.png.json")["degraded"] == [asdict(STUB), asdict(second)]
    reasons = [line["reason"] for line in logs if line["event"] == "job.degraded"]
    assert reasons == [first.message, second.message]


def test_a_crash_after_publishing_forgets_no_degradation(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal knows it before the result is visible, so that the next start knows it too."""
    transparency_as_a_jpeg(shop, None, monkeypatch)  # type: ignore[arg-type]  # it needs none

    def die(*_: object, **__: object) -> NoReturn:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "finish", die)
        with pytest.raises(Died):
            shop.work()
    shop.restart()
    shop.work()
    assert shop.states() == ["done"]
    assert [one.kind for one in shop.job().degraded] == ["weights", "transparency"]
    assert shop.finished[-1].degraded == shop.job().degraded
