"""The health monitor: watchdog, status line, stall reports and metrics of a daemon."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue

import pytest
import structlog

from styled.app import INTAKE
from styled.config import Config, load_config
from styled.degradation import Degradation
from styled.health import STALLED_SECONDS, HealthMonitor
from styled.jobs.events import EngineStalled, Event
from styled.jobs.scheduler import PART as SCHEDULER
from styled.jobs.snapshot import EngineSnapshot, QueueSnapshot
from styled.journal.job import Job, JobState
from styled.ops.heartbeats import Heartbeats
from styled.ops.stall_record import StallRecord
from styled.ops.systemd import Notifier
from tests.job_harness import LogLines, progress

JOB = Job(
    "4a", "a.jpg", 1, 2, "oil", "a.jpg", JobState.RUNNING, 1, 0.0, 0.0, None, None, None, None,
    None, None, None, None, 0.0,
)  # fmt: skip


@pytest.fixture
def logs() -> Iterator[LogLines]:
    """Return the list of all logged events."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@dataclass
class ScriptedScheduler:
    """A scheduler whose snapshot the test sets."""

    snapshot: QueueSnapshot = field(default_factory=QueueSnapshot)


@dataclass
class ScriptedSlot:
    """An engine slot whose counter the test sets."""

    name: str
    ops_done: int = 0


@dataclass
class ScriptedHost:
    """A host whose problem the test sets."""

    problem: str = ""


def one_engine() -> ScriptedScheduler:
    return ScriptedScheduler(QueueSnapshot((EngineSnapshot("engine-0", "cpu"),)))


@dataclass
class ScriptedApp:
    """The monitored objects."""

    scheduler: ScriptedScheduler = field(default_factory=one_engine)
    slots: Sequence[ScriptedSlot] = field(
        default_factory=lambda: [ScriptedSlot("engine-0"), ScriptedSlot("engine-1")]
    )
    host: ScriptedHost = field(default_factory=ScriptedHost)
    events: SimpleQueue[Event] = field(default_factory=SimpleQueue)


class HealthHarness:
    """A monitor with a simulated clock, scripted parts and a listener in place of systemd."""

    def __init__(self, base: Path, watchdog_seconds: int = 8) -> None:
        (base / "state").mkdir()
        (base / "inbox").mkdir()
        (base / "config.yaml").write_text("metrics: {textfile: false}\n")
        self.config: Config = load_config(base / "config.yaml")
        self.received = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.received.bind(str(base / "notify"))
        self.received.setblocking(False)
        self.now = 1000.0
        self.heartbeats = Heartbeats(lambda: self.now)
        notifier = Notifier(
            {"NOTIFY_SOCKET": str(base / "notify"), "WATCHDOG_USEC": f"{watchdog_seconds}000000"}
        )
        self.health = HealthMonitor(
            self.config, notifier, self.heartbeats, now=lambda: 2e9, clock=lambda: self.now
        )
        self.health.start()
        self.app = ScriptedApp()
        self.health.watch(self.app)

    def change_snapshot(self, **changes: object) -> None:
        """Change fields of the queue's snapshot."""
        self.app.scheduler.snapshot = replace(self.app.scheduler.snapshot, **changes)  # type: ignore[arg-type]  # its fields

    def later(self, seconds: float = 2.0) -> list[str]:
        """Advance the clock, tick once, and return the notifications sent."""
        self.now += seconds
        self.health.tick()
        received = []
        while True:
            try:
                received.append(self.received.recv(1000).decode())
            except BlockingIOError:
                return received

    def status(self) -> str:
        """Return the next status line."""
        (status,) = (message for message in self.later() if message.startswith("STATUS="))
        return status.removeprefix("STATUS=")

    def wait_for_record(self, is_stalled: bool) -> StallRecord:
        """Return the record on disk, once it has the expected state."""
        for _ in range(1000):
            record = StallRecord.load(self.config.state)
            if bool(record.reason) == is_stalled:
                return record
            threading.Event().wait(0.01)
        raise AssertionError("nothing was written")


@pytest.fixture
def monitor(tmp_path: Path, logs: LogLines) -> Iterator[HealthHarness]:
    """Return a monitor that has started."""
    monitor = HealthHarness(tmp_path)
    yield monitor
    monitor.health.stop()
    monitor.received.close()


def test_the_status_says_what_goes_on(monitor: HealthHarness) -> None:
    """The line has the photo, its progress and time left, and the number of waiting jobs."""
    assert monitor.status() == "running, waiting for photos"
    engine = EngineSnapshot("engine-0", "cpu", job=JOB)
    two = {"oil": {JobState.QUEUED: 2, JobState.RUNNING: 1}}
    monitor.change_snapshot(engines=(engine,), jobs=two)
    assert monitor.status() == "painting a.jpg in oil: 0%; 2 jobs waiting"
    monitor.change_snapshot(engines=(replace(engine, progress=progress(0.41, seconds_left=125.0)),))
    assert monitor.status() == "painting a.jpg in oil: 41%, 2 min 5 s left; 2 jobs waiting"
    monitor.change_snapshot(paused="the outbox is full")
    assert monitor.status() == "paused: the outbox is full; 2 jobs waiting"
    monitor.app.host.problem = "the inbox is gone"
    assert monitor.status() == "the inbox is gone; 2 jobs waiting"


def test_the_status_knows_many_engines(monitor: HealthHarness) -> None:
    """The line has the photos of all engines, and the number of missing engines."""
    engines = [
        EngineSnapshot("engine-0", "cuda:0", job=JOB),
        EngineSnapshot("engine-1", "cuda:1", job=replace(JOB, input="b\n.jpg")),
        EngineSnapshot("engine-2", problem="it broke"),
    ]
    monitor.change_snapshot(engines=tuple(engines))
    assert monitor.status() == "painting 2 photos (a.jpg, b\\n.jpg); 1 engine of 3 not available"
    monitor.change_snapshot(engines=(replace(engines[0], job=None), engines[2]))
    assert monitor.status() == "running, waiting for photos; 1 engine of 2 not available"


def test_a_layer_of_the_network_is_a_sign_of_life(monitor: HealthHarness) -> None:
    """Progress within a step that takes minutes feeds the watchdog; without it the pings stop."""
    monitor.heartbeats.beat(INTAKE, 1e6)
    monitor.heartbeats.beat("engine-0")
    for _ in range(10):
        monitor.app.slots[0].ops_done += 1
        assert "WATCHDOG=1" in monitor.later()
    received = [message for _ in range(10) for message in monitor.later()]
    assert received.count("WATCHDOG=1") <= 1  # for the last layer


def test_one_engine_is_no_sign_of_life_of_another(monitor: HealthHarness) -> None:
    """Each engine must make progress itself."""
    for slot in monitor.app.slots:
        monitor.heartbeats.beat(slot.name)
    received = []
    for _ in range(10):
        monitor.app.slots[0].ops_done += 1
        received += monitor.later()
    assert received.count("WATCHDOG=1") <= 1


def test_layers_do_not_cut_a_rest_short(monitor: HealthHarness) -> None:
    """The engine may have announced an idle time since the last layer."""
    monitor.heartbeats.beat(INTAKE, 1e6)
    monitor.app.slots[0].ops_done += 5
    monitor.heartbeats.beat("engine-0", 1e6)
    assert all("WATCHDOG=1" in monitor.later() for _ in range(10))


@pytest.mark.parametrize("part", [INTAKE, SCHEDULER])
def test_a_stall_and_its_end_are_logged_once(
    monitor: HealthHarness, logs: LogLines, part: str
) -> None:
    """The log, the status line and a file for `styled status` and the next start report it."""
    for each in (INTAKE, SCHEDULER):
        monitor.heartbeats.beat(each, 0.0 if each == part else 1e6)
    for _ in range(3):
        monitor.later(STALLED_SECONDS / 2)
    (stalled,) = [line for line in logs if line["event"] == "daemon.stalled"]
    assert (stalled["parts"], stalled["log_level"]) == ([part], "error")
    reason = f"the {part} has made no progress for 5 min"
    assert monitor.wait_for_record(is_stalled=True) == StallRecord(reason, (part,))
    assert "WATCHDOG=1" not in monitor.later(STALLED_SECONDS)
    monitor.heartbeats.beat(part, 1e6)
    assert monitor.status() == "running, waiting for photos"
    assert [line["event"] for line in logs if line["event"].startswith("daemon.")] == [
        "daemon.stalled", "daemon.recovered",
    ]  # fmt: skip
    monitor.wait_for_record(is_stalled=False)


def test_an_engine_that_has_stalled_is_to_be_replaced(monitor: HealthHarness) -> None:
    """The scheduler gets one event with the engine's name."""
    for slot in monitor.app.slots:
        monitor.heartbeats.beat(slot.name, 0.0 if slot.name == "engine-1" else 1e6)
    for _ in range(3):
        monitor.later(STALLED_SECONDS)
    assert monitor.app.events.get_nowait() == EngineStalled("engine-1")
    assert monitor.app.events.empty()


def test_a_new_start_forgets_what_was_stuck(monitor: HealthHarness) -> None:
    """Otherwise the new process would be reported as stalled."""
    StallRecord("the intake is stuck", ("intake",)).save(monitor.config.state)
    monitor.health.start()
    assert StallRecord.load(monitor.config.state) == StallRecord()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"reason": 1}'])
def test_a_record_that_makes_no_sense_is_none(tmp_path: Path, content: bytes) -> None:
    """A damaged record is read as an empty one."""
    (tmp_path / "stalled.json").write_bytes(content)
    assert StallRecord.load(tmp_path) == StallRecord()


def test_a_port_in_use_is_reported_and_stops_nothing(tmp_path: Path, logs: LogLines) -> None:
    """The daemon runs without serving metrics, and still writes the file."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "state").mkdir()
        (tmp_path / "config.yaml").write_text(f"metrics: {{http_port: {port}}}\n")
        health = monitor_of(load_config(tmp_path / "config.yaml"))
        assert str(port) in health.start()
        health.stop()
    assert [line["event"] for line in logs] == ["metrics.not_served"]
    assert b"styled_queue_jobs" in (tmp_path / "state/metrics.prom").read_bytes()


def monitor_of(config: Config) -> HealthMonitor:
    return HealthMonitor(config, Notifier({}), Heartbeats())


def test_the_last_figures_are_those_of_the_end(tmp_path: Path) -> None:
    """The file is written a last time at the stop."""
    (tmp_path / "state").mkdir()
    (tmp_path / "config.yaml").write_text("")
    health = monitor_of(load_config(tmp_path / "config.yaml"))
    health.start()
    health.metrics.count_ended("done", None, {"optimise": 2.0}, 7, 1, degraded=True)
    health.stop()
    assert b"styled_steps_total 7.0" in (tmp_path / "state/metrics.prom").read_bytes()


def test_clocks_are_no_reason_to_write_metrics(monitor: HealthHarness) -> None:
    """An idle daemon writes them every 600 s, although clocks differ each time."""
    written = []
    for _ in range(81):
        if monitor.health.update_metrics():
            written.append(monitor.now)
        monitor.now += 15.0
    assert written == [1000.0, 1600.0, 2200.0]


def test_what_matters_is_written_at_once(monitor: HealthHarness) -> None:
    """Changes of jobs, counters, pause, degradations and stalled parts each cause one write."""

    def stall_intake() -> None:
        monitor.heartbeats.beat(INTAKE)
        monitor.later(STALLED_SECONDS)

    path = monitor.config.state / "metrics.prom"
    monitor.health.update_metrics()
    untrained = (Degradation("weights", "untrained"),)
    working = EngineSnapshot("engine-0", "cpu", job=JOB, progress=progress(0.5))
    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: monitor.change_snapshot(jobs={"oil": {JobState.QUEUED: 1}}),
         'styled_queue_jobs{state="queued",style="oil"} 1.0'),
        (lambda: monitor.change_snapshot(paused="full"), "styled_queue_paused 1.0"),
        (lambda: monitor.change_snapshot(degraded=untrained),
         'styled_degraded{reason="untrained"} 1.0'),
        (lambda: monitor.change_snapshot(engines=(working,)),
         'styled_steps_per_second{engine="engine-0"} 4.0'),
        (lambda: monitor.change_snapshot(engines=(EngineSnapshot("engine-0", problem="it broke"),)),
         'styled_engine_up{engine="engine-0"} 0.0'),
        (lambda: monitor.health.metrics.count_failed_attempt("engine"),
         'styled_attempts_failed_total{failure="engine"} 1.0'),
        (stall_intake, 'styled_stalled{part="intake"} 1.0'),
    ]  # fmt: skip
    for change, line in changes:
        assert not monitor.health.update_metrics()
        assert line not in path.read_text()
        change()
        assert monitor.health.update_metrics()
        assert line in path.read_text()
