"""Each degradation of a job is in the log, in `status` and `jobs`, and in the sidecar."""

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

from styled.app import build_engine
from styled.cli.main import app
from styled.config import load_config
from styled.daemon import Daemon
from styled.degradation import KINDS, Degradation, Kind
from styled.delivery.publisher import Publisher
from styled.engine.checkpoint import Checkpoint
from styled.engine.device import Device
from styled.engine.events import StepProgress, Stylized
from styled.engine.local_engine import LocalEngine
from styled.engine.objective import Losses, Objective
from styled.engine.vgg import Convolutions
from styled.engine.weights import Weights
from styled.engine_api import PaintTask
from styled.journal.job import JobState
from styled.journal.journal import Journal
from styled.ops.lock import InstanceLock
from styled.recipes import OptimizerSettings, Recipe, Scales
from tests.engine.conftest import SHALLOW, untrained
from tests.job_harness import STUB, Died, JobHarness, LogLines, ScriptedEngine, picture
from tests.photos.samples import deep_png

Arrange = Callable[[JobHarness, "RealEngine", pytest.MonkeyPatch], None]


class RealEngine(ScriptedEngine):
    """A real `LocalEngine`; `at_step` is called after a step's progress has been handled."""

    def __init__(self, engine: LocalEngine) -> None:
        super().__init__()
        self._engine = engine
        self.info = engine.info

    def paint(
        self, task: PaintTask, resume: Checkpoint | None
    ) -> Generator[StepProgress, None, Stylized]:
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
    """Return the untrained network, which takes seconds to build."""
    return untrained()


@pytest.fixture(scope="module")
def local_engine(convolutions: Convolutions) -> LocalEngine:
    """Return a `LocalEngine` on the CPU."""
    weights = Weights(convolutions, "untrained", "0" * 64)
    return LocalEngine(weights, Device(torch.device("cpu"), "cpu"), "float32")


@pytest.fixture
def real(local_engine: LocalEngine) -> RealEngine:
    """Return the same engine with an `at_step` callback."""
    return RealEngine(local_engine)


def run(base: Path, *args: str) -> str:
    """Return the output of a `styled` command for a working folder."""
    result = CliRunner(env={"COLUMNS": "1000"}).invoke(
        app, [*args, "-c", str(base / "config.yaml")]
    )
    assert result.exit_code == 0, result.output
    return result.output


@dataclass(frozen=True)
class Output:
    """The output of `styled status` and `styled jobs` at one moment, as text and from JSON."""

    texts: tuple[str, ...]
    degraded: tuple[list[dict[str, str]], ...]  # one for each job in each list

    @classmethod
    def of(cls, base: Path) -> Output:
        """Run both commands."""
        status = json.loads(run(base, "status", "--json"))
        jobs = [*status["current"], *status["waiting"], *status["last"]]
        jobs += json.loads(run(base, "jobs", "--json"))
        return cls((run(base, "status"), run(base, "jobs")), tuple(job["degraded"] for job in jobs))

    def assert_has(self, degradation: Degradation) -> None:
        """Check that both commands show a degradation of one job, as text and in JSON."""
        assert len(self.degraded) == 2
        assert all(asdict(degradation) in degraded for degraded in self.degraded)
        assert all(f"degraded: {degradation.message}" in text for text in self.texts)


def paint_with(harness: JobHarness, engine: ScriptedEngine, recipe: Recipe) -> None:
    """Use another engine and recipe from now on; restarts the harness."""
    harness.styles["oil"] = replace(harness.styles["oil"], recipe=recipe)
    harness.engine = engine
    harness.restart()


# Functions that provoke one kind of degradation each


def drop_gif_with_two_frames(
    harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    first, second = (Image.new("RGB", (40, 36), color) for color in ("teal", "gold"))
    first.save(file, "GIF", save_all=True, append_images=[second])
    harness.drop("photo.gif", file.getvalue())


def drop_sixteen_bit_png_for_jpeg(
    harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.configure("output", format="jpeg")
    harness.drop("photo.png", deep_png(np.full((36, 40, 3), 30_000, dtype=np.uint16)))


def drop_without_end(
    harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.drop("photo.jpg", picture(format="jpeg")[:-2])


def drop_damaged_profile(
    harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 36), "teal").save(file, "PNG", icc_profile=b"nonsense")
    harness.drop("photo.png", file.getvalue())


def drop_transparent_png_for_jpeg(
    harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.configure("output", format="jpeg")
    image = Image.new("RGBA", (40, 36), "#00800000")
    image.paste("gold", (0, 0, 20, 36))
    file = io.BytesIO()
    image.save(file, "PNG")
    harness.drop("photo.png", file.getvalue())


def drop_damaged_exif(
    harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, exif = picture(format="jpeg"), b"Exif\0\0nonsense"
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    harness.drop("photo.jpg", plain[:2] + segment + plain[2:])


def use_huge_learning_rate(
    harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = OptimizerSettings(name="adam", learning_rate=1e4)
    recipe = replace(SHALLOW, scales=None, clamp=False, steps=6, optimizer=optimizer)
    paint_with(harness, real, recipe)
    harness.drop()


def fail_one_allocation(
    harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = Objective.evaluate
    calls: list[None] = []

    def fail_evaluation(*args: Any, **kwargs: Any) -> tuple[Losses, Tensor]:
        calls.append(None)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(Objective, "evaluate", fail_evaluation)
    paint_with(harness, real, replace(SHALLOW, scales=None, steps=4))
    harness.drop()


def stop_and_resume(harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "resumed on cpu: it was begun on NVIDIA H200"
    harness.engine.at_step = lambda step: harness.request_stop()
    harness.drop()
    harness.work()
    assert harness.states() == ["queued"]
    harness.engine.degraded = (Degradation("resumed", message),)
    harness.restart()


def stop_and_change_the_style(
    harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.engine.at_step = lambda step: harness.request_stop()
    harness.drop()
    harness.work()
    assert harness.states() == ["queued"]
    style = harness.styles["oil"]
    changed = replace(style, recipe=replace(style.recipe, seed=99))
    harness.styles = {**harness.styles, "oil": changed}
    harness.restart()


@dataclass(frozen=True)
class Case:
    """How one kind of degradation is provoked, and its message.

    Attributes:
        message: The beginning of the message.
        arrange: Drops a photo, and prepares everything else.
        known_when_published: Whether it only becomes known when the result is encoded.
    """

    message: str
    arrange: Arrange
    known_when_published: bool = False


OF_JOBS: dict[Kind, Case] = {
    "frames": Case("only the first of 2 frames was used", drop_gif_with_two_frames),
    "damaged": Case("the file ends too early, but all of the picture is there", drop_without_end),
    "bits": Case("more than 8 bits were rounded to 8: JPEG", drop_sixteen_bit_png_for_jpeg, True),
    "color": Case("the colour profile is damaged and was ignored", drop_damaged_profile),
    "transparency": Case(
        "transparency was placed on white: JPEG", drop_transparent_png_for_jpeg, True
    ),
    "metadata": Case("the EXIF data is damaged and was left out", drop_damaged_exif),
    "diverged": Case("the loss rose to ", use_huge_learning_rate),
    "memory": Case("memory was short: L-BFGS kept only ", fail_one_allocation),
    # How the engine detects it is tested elsewhere.
    "resumed": Case("resumed on cpu", stop_and_resume),
    "restarted": Case(
        "restarted from the beginning: the settings, the pictures or the weights have changed",
        stop_and_change_the_style,
    ),
}

OF_CLUSTERS: set[Kind] = {"cluster"}
"""Kinds that are tested with a real cluster; see tests/cluster."""

OF_THE_SERVICE: set[Kind] = {"device", "weights", "polling"}
"""Kinds that concern all jobs; see `test_what_the_service_does_without_is_reported`."""


def test_each_kind_is_tested() -> None:
    """Every kind of degradation has a test in this file."""
    assert sorted([*OF_JOBS, *OF_THE_SERVICE, *OF_CLUSTERS]) == sorted(KINDS)


@pytest.mark.parametrize("kind", OF_JOBS)
def test_what_a_job_gives_up_is_reported(
    harness: JobHarness,
    real: RealEngine,
    monkeypatch: pytest.MonkeyPatch,
    logs: LogLines,
    kind: Kind,
) -> None:
    """A job's degradation is in the log, the output of `status` and `jobs`, and the sidecar.

    It is logged when it happens, and shown by both commands while the job runs and afterwards.
    """
    case = OF_JOBS[kind]
    case.arrange(harness, real, monkeypatch)
    logs.clear()

    def logged() -> list[Degradation]:
        return [
            Degradation(line["kind"], line["reason"])
            for line in logs
            if line["event"] == "job.degraded" and line["kind"] == kind
        ]

    lock = InstanceLock(harness.config.state / "lock")
    lock.acquire()
    snapshots: list[tuple[list[Degradation], JobState, list[str], Output]] = []

    def record(at: Any = None) -> None:
        if logged() and not snapshots:
            snapshots.append(
                (logged(), harness.job().state, harness.files("outbox"), Output.of(harness.base))
            )

    publish = Publisher.publish_result

    def record_and_publish(publisher: Publisher, *args: Any, **options: Any) -> None:
        record()
        publish(publisher, *args, **options)

    if case.known_when_published:
        monkeypatch.setattr(Publisher, "publish_result", record_and_publish)
    else:
        harness.on_turn = record
    harness.work()
    assert harness.states() == ["done"]
    (degradations, state, published, output), *_ = snapshots
    assert (state, published) == (JobState.RUNNING, [])
    assert degradations == logged()[:1]
    output.assert_has(degradations[0])
    # Each degradation is logged once.
    assert len(logged()) == len(set(logged()))
    assert all(degradation.message.startswith(case.message) for degradation in logged())

    degradation = logged()[-1]
    Output.of(harness.base).assert_has(degradation)
    lock.release()
    Output.of(harness.base).assert_has(degradation)
    result = harness.job().result
    assert result is not None
    sidecar = harness.sidecar(f"outbox/{result}.json")
    assert asdict(degradation) in sidecar["degraded"]
    assert sidecar["degraded"] == [asdict(one) for one in harness.job().degraded]


@pytest.mark.parametrize("policy", ["reject", "paint"])
def test_a_damaged_photo_is_rejected_or_painted_as_configured(
    harness: JobHarness, policy: str
) -> None:
    """`intake.damaged: paint` paints what is left of it, and says so."""
    harness.configure("intake", damaged=policy)
    data = picture(format="jpeg")
    harness.drop("photo.jpg", data[: len(data) * 3 // 4] + b"\xff\xd9")
    harness.work()
    if policy == "reject":
        assert harness.states() == ["rejected"]
        rejected = harness.sidecar("rejected/oil/photo.jpg.json")["rejected"]
        assert rejected["reason"] == "the file is damaged: its data ends too early"
        assert len(rejected["remedies"]) == 2
    else:
        assert harness.states() == ["done"]
        damaged = [one.message for one in harness.job().degraded if one.kind == "damaged"]
        assert ["painted as far as it goes" in message for message in damaged] == [True]


def test_what_the_service_does_without_is_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logs: LogLines,
    convolutions: Convolutions,
) -> None:
    """Degradations of the whole service are logged at the start and attached to every job.

    These are a GPU that does not work, an untrained network, and an inbox that cannot be watched.
    They are shown by `status` and `jobs`, and are in the sidecar of each result.
    """
    base = tmp_path / "harness"
    for name in ("styles/oil.png", "inbox/one.png", "inbox/two.png"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(picture("teal" if name.endswith("one.png") else "olive"))
    (base / "config.yaml").write_text(
        "default_style: oil\n"
        "styles: {oil: {image: styles/oil.png, overrides: {steps: 2, scales: null}}}\n"
        "engine: {device: auto, precision: float32, weights: untrained}\n"
        "intake: {settle_seconds: 0}\n"
    )
    zeros = torch.zeros

    def fail_on_gpu(*size: Any, **kwargs: Any) -> Tensor:
        if str(kwargs.get("device")).startswith(("cuda", "mps")):
            raise RuntimeError("the driver is too old")
        return zeros(*size, **kwargs)

    def fail_to_watch(observer: BaseObserver) -> NoReturn:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(torch, "zeros", fail_on_gpu)
    monkeypatch.setattr("styled.engine.device.GPU_DEVICE_FILES", (str(base),))
    monkeypatch.setattr(BaseObserver, "start", fail_to_watch)
    monkeypatch.setattr("styled.engine.weights.untrained", lambda: convolutions)
    monkeypatch.setattr("styled.daemon.configure_allocator", lambda: None)  # cannot be undone
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
    snapshots: list[tuple[dict[str, Any], Output]] = []

    def record_and_stop(step: int) -> None:
        if [line["event"] for line in logs].count("job.painting_started") == 2 and not snapshots:
            try:
                snapshots.append((json.loads(run(base, "status", "--json")), Output.of(base)))
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

    config = load_config(base / "config.yaml")

    class Factory:
        can_replace = False

        def make(self) -> RealEngine:
            engine = RealEngine(build_engine(config, lambda done, total: None))
            engine.at_step = record_and_stop
            return engine

    Daemon(config, [Factory()]).run()
    ((status, output),) = snapshots
    assert status["running"]
    assert status["degraded"] == [asdict(degradation) for degradation in expected]
    assert all(f"degraded: {one.message}" in text for text in output.texts for one in expected)
    assert len(output.degraded) == 4
    for degraded in output.degraded:
        assert degraded == [asdict(degradation) for degradation in expected]
    logged = [(line["kind"], line["reason"]) for line in logs if line["event"] == "engine.degraded"]
    assert logged == [(one.kind, one.message) for one in expected[:2]]
    (polled,) = [line for line in logs if line["event"] == "inbox.polled"]
    assert polled["reason"].endswith("inotify watch limit reached")
    assert "job.degraded" not in [line["event"] for line in logs]
    for path in (base / "outbox").rglob("*.json"):
        sidecar = json.loads(path.read_bytes())
        assert sidecar["degraded"] == [asdict(degradation) for degradation in expected]
    assert list((base / "outbox").rglob("*.png.json")) != []


# Further log events of a running job


def test_a_size_that_was_given_up_is_reported_while_the_job_runs(
    harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """A size reduced for lack of memory is in the journal from the first step, and in the log."""

    def peak_bytes(_: object, settings: object, size: tuple[int, int]) -> int:
        return 2**60 if max(size) > 48 else 0

    monkeypatch.setattr("styled.engine.memory_estimate.MemoryEstimate.peak_bytes", peak_bytes)
    paint_with(harness, real, replace(SHALLOW, scales=Scales(start_px=48), steps=2))
    seen: list[tuple[Degradation, ...]] = []
    real.at_step = lambda step: seen.append(harness.job().degraded)
    harness.drop("photo.png", picture(size=(96, 72)))
    harness.work()
    message = "memory was short: painted at 48 x 36 in place of 96 x 72"
    assert seen[0] == (*real.info.degraded, Degradation("memory", message))
    reasons = [line["reason"] for line in logs if line["event"] == "job.degraded"]
    assert reasons == [message]


def test_each_scale_is_logged_once_when_it_is_finished(
    harness: JobHarness, real: RealEngine, logs: LogLines
) -> None:
    """The event `scale.finished` is logged once per scale, as soon as the scale is finished."""
    paint_with(harness, real, replace(SHALLOW, scales=Scales(start_px=48), steps=2))
    harness.drop("photo.png", picture(size=(96, 72)))
    seen: list[int] = []
    real.at_step = lambda step: seen.append(
        [line["event"] for line in logs].count("scale.finished")
    )
    harness.work()
    lines = [line for line in logs if line["event"] == "scale.finished"]
    assert [(line["scale"], line["scales"], line["steps"]) for line in lines] == [
        (1, 3, 2), (2, 3, 2), (3, 3, 2),
    ]  # fmt: skip
    assert [(line["width"], line["height"]) for line in lines] == [(48, 36), (68, 51), (96, 72)]
    assert [line["fraction"] for line in lines] == sorted({line["fraction"] for line in lines})
    assert lines[-1]["fraction"] == 1
    assert seen == [0, 1, 1, 2, 2, 3]


def test_a_scale_that_ends_for_lack_of_memory_is_logged_too(
    harness: JobHarness, real: RealEngine, monkeypatch: pytest.MonkeyPatch, logs: LogLines
) -> None:
    """A scale that ends early because memory ran out also logs `scale.finished`."""
    evaluate = Objective.evaluate
    calls: list[None] = []

    def fail_evaluation(*args: Any, **kwargs: Any) -> tuple[Losses, Tensor]:
        calls.append(None)
        if len(calls) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(Objective, "evaluate", fail_evaluation)
    paint_with(harness, real, replace(SHALLOW, scales=None, steps=9))
    harness.drop()
    harness.work()
    assert harness.states() == ["done"]
    (line,) = [line for line in logs if line["event"] == "scale.finished"]
    assert (line["scale"], line["steps"]) == (1, 2)
    (message,) = {one.message for one in harness.job().degraded if "ran out" in one.message}
    assert message == "memory ran out at 40 x 36 after 2 steps"
    assert message in [line["reason"] for line in logs if line["event"] == "job.degraded"]


def test_a_later_fallback_takes_the_place_of_an_earlier_one(
    harness: JobHarness, logs: LogLines
) -> None:
    """The journal and the sidecar have the last memory fallback; the log has all of them."""
    first, second = (Degradation("memory", f"memory was short: {n} steps") for n in (10, 5))

    def at_step(step: int) -> None:
        harness.engine.degraded = {1: (first,), 2: (second,), 3: (second,)}[step]

    harness.engine.at_step = at_step
    harness.drop()
    harness.work()
    assert harness.job().degraded == (STUB, second)
    assert harness.sidecar("outbox/oil/photo.png.json")["degraded"] == [
        asdict(STUB),
        asdict(second),
    ]
    reasons = [line["reason"] for line in logs if line["event"] == "job.degraded"]
    assert reasons == [first.message, second.message]


def test_a_crash_after_publishing_forgets_no_degradation(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Degradations are in the journal before the result is visible, so they survive a crash."""
    drop_transparent_png_for_jpeg(harness, None, monkeypatch)  # type: ignore[arg-type]  # engine is unused

    def die(*_: object, **__: object) -> NoReturn:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "finish", die)
        with pytest.raises(Died):
            harness.work()
    harness.restart()
    harness.work()
    assert harness.states() == ["done"]
    assert [one.kind for one in harness.job().degraded] == ["weights", "transparency"]
    assert harness.finished[-1].degraded == harness.job().degraded
