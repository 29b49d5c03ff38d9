"""The health monitor: what the world is told of a running daemon."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import structlog

from styled.config import Config, load_config
from styled.degradation import Degradation
from styled.jobs.events import EngineStalled
from styled.jobs.job import Job, JobState
from styled.jobs.scheduler import PART as SCHEDULER
from styled.jobs.snapshot import EngineSnapshot, QueueSnapshot
from styled.ops.pulse import Pulse
from styled.ops.service import ServiceManager
from styled.ops.stuck_record import StuckRecord
from styled.stages import INTAKE, Stages
from styled.vigil import STUCK_SECONDS, Vigil
from tests.jobs.conftest import LogLines, progress

JOB = Job(
    "4a", "a.jpg", 1, 2, "oil", "a.jpg", JobState.RUNNING, 1, 0.0, 0.0, None, None, None, None,
    None, None, None, None, 0.0,
)  # fmt: skip


@pytest.fixture
def logs() -> Iterator[LogLines]:
    """Return the list that every logged event goes into."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@dataclass
class PlayedScheduler:
    """Says how the queue stands, as the test wants it."""

    snapshot: QueueSnapshot = field(default_factory=QueueSnapshot)


@dataclass
class PlayedSlot:
    """Computes when the test wants it."""

    name: str
    ops_done: int = 0


class HealthHarness:
    """A monitor of parts that the test plays."""

    def __init__(self, base: Path, watchdog_seconds: int = 8) -> None:
        (base / "state").mkdir()
        (base / "inbox").mkdir()
        (base / "config.yaml").write_text("metrics: {textfile: false}\n")
        self.config: Config = load_config(base / "config.yaml")
        self.heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.heard.bind(str(base / "notify"))
        self.heard.setblocking(False)
        self.now = 1000.0
        self.pulse = Pulse(lambda: self.now)
        manager = ServiceManager(
            {"NOTIFY_SOCKET": str(base / "notify"), "WATCHDOG_USEC": f"{watchdog_seconds}000000"}
        )
        self.stages = Stages(self.config, self.pulse)
        self.vigil = Vigil(
            self.config, manager, self.pulse, self.stages, now=lambda: 2e9, clock=lambda: self.now
        )
        self.vigil.begin()
        self.scheduler = PlayedScheduler(QueueSnapshot((EngineSnapshot("engine-0", "cpu"),)))
        self.slots = [PlayedSlot("engine-0"), PlayedSlot("engine-1")]
        self.vigil.watch(self.scheduler, self.slots)

    def stand(self, **changes: object) -> None:
        """Have the queue stand otherwise."""
        self.scheduler.snapshot = replace(self.scheduler.snapshot, **changes)  # type: ignore[arg-type]  # its fields

    def later(self, seconds: float = 2.0) -> list[str]:
        """Let time pass, attend, and return what systemd has heard."""
        self.now += seconds
        self.vigil.attend()
        heard = []
        while True:
            try:
                heard.append(self.heard.recv(1000).decode())
            except BlockingIOError:
                return heard

    def status(self) -> str:
        """Return the status that is told next."""
        (status,) = (words for words in self.later() if words.startswith("STATUS="))
        return status.removeprefix("STATUS=")

    def wait_for_record(self, is_stuck: bool) -> StuckRecord:
        """Return what is on disk, once it says so."""
        for _ in range(1000):
            record = StuckRecord.load(self.config.state)
            if bool(record.reason) == is_stuck:
                return record
            threading.Event().wait(0.01)
        raise AssertionError("nothing was written")


@pytest.fixture
def scene(tmp_path: Path, logs: LogLines) -> Iterator[HealthHarness]:
    """Return a monitor that has begun."""
    scene = HealthHarness(tmp_path)
    yield scene
    scene.vigil.end()
    scene.heard.close()


def test_the_status_says_what_goes_on(scene: HealthHarness) -> None:
    """In one line: what is painted, how far it is, how long it takes, what waits."""
    assert scene.status() == "running, waiting for photos"
    engine = EngineSnapshot("engine-0", "cpu", job=JOB)
    two = {"oil": {JobState.QUEUED: 2, JobState.RUNNING: 1}}
    scene.stand(engines=(engine,), jobs=two)
    assert scene.status() == "painting a.jpg in oil: 0%; 2 jobs waiting"
    scene.stand(engines=(replace(engine, progress=progress(0.41, seconds_left=125.0)),))
    assert scene.status() == "painting a.jpg in oil: 41%, 2 min 5 s left; 2 jobs waiting"
    scene.stand(paused="the outbox is full")
    assert scene.status() == "paused: the outbox is full; 2 jobs waiting"
    scene.stages.intake_trouble = "the inbox is gone"
    assert scene.status() == "the inbox is gone; 2 jobs waiting"


def test_the_status_knows_many_engines(scene: HealthHarness) -> None:
    """What each of them paints, and which are gone."""
    engines = [
        EngineSnapshot("engine-0", "cuda:0", job=JOB),
        EngineSnapshot("engine-1", "cuda:1", job=replace(JOB, input="b\n.jpg")),
        EngineSnapshot("engine-2", trouble="it broke"),
    ]
    scene.stand(engines=tuple(engines))
    assert scene.status() == "painting 2 photos (a.jpg, b\\n.jpg); 1 engine of 3 not there"
    scene.stand(engines=(replace(engines[0], job=None), engines[2]))
    assert scene.status() == "running, waiting for photos; 1 engine of 2 not there"


def test_a_layer_of_the_network_is_a_sign_of_life(scene: HealthHarness) -> None:
    """A step of minutes does not bring the watchdog on; a network that stands still does."""
    scene.pulse.beat(INTAKE, 1e6)
    scene.pulse.beat("engine-0")
    for _ in range(10):
        scene.slots[0].ops_done += 1
        assert "WATCHDOG=1" in scene.later()
    heard = [words for _ in range(10) for words in scene.later()]
    assert heard.count("WATCHDOG=1") <= 1  # for the last layer


def test_one_engine_is_no_sign_of_life_of_another(scene: HealthHarness) -> None:
    """Each has to compute by itself."""
    for slot in scene.slots:
        scene.pulse.beat(slot.name)
    heard = []
    for _ in range(10):
        scene.slots[0].ops_done += 1
        heard += scene.later()
    assert heard.count("WATCHDOG=1") <= 1


def test_layers_do_not_cut_a_rest_short(scene: HealthHarness) -> None:
    """The engine may have begun to rest since the last of them."""
    scene.pulse.beat(INTAKE, 1e6)
    scene.slots[0].ops_done += 5
    scene.pulse.beat("engine-0", 1e6)
    assert all("WATCHDOG=1" in scene.later() for _ in range(10))


@pytest.mark.parametrize("part", [INTAKE, SCHEDULER])
def test_what_is_stuck_is_said_once_and_so_is_its_waking(
    scene: HealthHarness, logs: LogLines, part: str
) -> None:
    """In the log, in the status, and on disk for `styled status` and the next start."""
    for each in (INTAKE, SCHEDULER):
        scene.pulse.beat(each, 0.0 if each == part else 1e6)
    for _ in range(3):
        scene.later(STUCK_SECONDS / 2)
    (stuck,) = [line for line in logs if line["event"] == "daemon.stuck"]
    assert (stuck["parts"], stuck["log_level"]) == ([part], "error")
    reason = f"the {part} has given no sign of life for 5 min"
    assert scene.wait_for_record(is_stuck=True) == StuckRecord(reason, (part,))
    assert not [words for words in scene.later(STUCK_SECONDS) if words == "WATCHDOG=1"]
    scene.pulse.beat(part, 1e6)
    assert scene.status() == "running, waiting for photos"
    assert [line["event"] for line in logs if "stuck" in line["event"]] == [
        "daemon.stuck", "daemon.unstuck",
    ]  # fmt: skip
    scene.wait_for_record(is_stuck=False)


def test_an_engine_that_has_stalled_is_to_be_replaced(scene: HealthHarness) -> None:
    """The scheduler is told once, and which."""
    for slot in scene.slots:
        scene.pulse.beat(slot.name, 0.0 if slot.name == "engine-1" else 1e6)
    for _ in range(3):
        scene.later(STUCK_SECONDS)
    assert scene.stages.events.get_nowait() == EngineStalled("engine-1")
    assert scene.stages.events.empty()


def test_a_new_start_forgets_what_was_stuck(scene: HealthHarness) -> None:
    """It would be said of what is well."""
    StuckRecord("the intake is stuck", ("intake",)).save(scene.config.state)
    scene.vigil.begin()
    assert StuckRecord.load(scene.config.state) == StuckRecord()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"reason": 1}'])
def test_a_record_that_makes_no_sense_is_none(tmp_path: Path, content: bytes) -> None:
    """Somebody may have written there."""
    (tmp_path / "stuck.json").write_bytes(content)
    assert StuckRecord.load(tmp_path) == StuckRecord()


def test_a_port_that_is_taken_is_said_and_stops_nobody(tmp_path: Path, logs: LogLines) -> None:
    """Pictures are more important than figures about them."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "state").mkdir()
        (tmp_path / "config.yaml").write_text(f"metrics: {{http_port: {port}}}\n")
        vigil = vigil_of(load_config(tmp_path / "config.yaml"))
        assert str(port) in vigil.begin()
        vigil.end()
    assert [line["event"] for line in logs] == ["metrics.not_served"]
    assert b"styled_queue_jobs" in (tmp_path / "state/metrics.prom").read_bytes()


def vigil_of(config: Config) -> Vigil:
    pulse = Pulse()
    return Vigil(config, ServiceManager({}), pulse, Stages(config, pulse))


def test_the_last_figures_are_those_of_the_end(tmp_path: Path) -> None:
    """Whoever looks at the file after a stop sees what had been done by then."""
    (tmp_path / "state").mkdir()
    (tmp_path / "config.yaml").write_text("")
    vigil = vigil_of(load_config(tmp_path / "config.yaml"))
    vigil.begin()
    vigil.metrics.count_ended("done", None, {"optimise": 2.0}, 7, 1, degraded=True)
    vigil.end()
    assert b"styled_steps_total 7.0" in (tmp_path / "state/metrics.prom").read_bytes()


def test_clocks_are_no_reason_to_write_metrics(scene: HealthHarness) -> None:
    """Of an idle daemon they are written every ten minutes, although each time they differ."""
    written = []
    for _ in range(81):
        if scene.vigil.update_metrics():
            written.append(scene.now)
        scene.now += 15.0
    assert written == [1000.0, 1600.0, 2200.0]


def test_what_matters_is_written_at_once(scene: HealthHarness) -> None:
    """Jobs, their ends, a pause, a degradation and what is stuck are each a reason, once."""

    def get_stuck() -> None:
        scene.pulse.beat(INTAKE)
        scene.later(STUCK_SECONDS)

    path = scene.config.state / "metrics.prom"
    scene.vigil.update_metrics()
    untrained = (Degradation("weights", "untrained"),)
    working = EngineSnapshot("engine-0", "cpu", job=JOB, progress=progress(0.5))
    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: scene.stand(jobs={"oil": {JobState.QUEUED: 1}}),
         'styled_queue_jobs{state="queued",style="oil"} 1.0'),
        (lambda: scene.stand(paused="full"), "styled_queue_paused 1.0"),
        (lambda: scene.stand(degraded=untrained), 'styled_degraded{reason="untrained"} 1.0'),
        (lambda: scene.stand(engines=(working,)), 'styled_steps_per_second{engine="engine-0"} 4.0'),
        (lambda: scene.stand(engines=(EngineSnapshot("engine-0", trouble="it broke"),)),
         'styled_engine_up{engine="engine-0"} 0.0'),
        (lambda: scene.vigil.metrics.count_failed_attempt("engine"),
         'styled_attempts_failed_total{failure="engine"} 1.0'),
        (get_stuck, 'styled_stuck{part="intake"} 1.0'),
    ]  # fmt: skip
    for change, line in changes:
        assert not scene.vigil.update_metrics()
        assert line not in path.read_text()
        change()
        assert scene.vigil.update_metrics()
        assert line in path.read_text()
