"""The vigil: what the world is told of a running daemon, with all parts but the painting real."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from styled.config import Config, load_config
from styled.jobs.job import JobState
from styled.jobs.journal import Journal
from styled.ops.pulse import Pulse
from styled.ops.service import ServiceManager
from styled.stages import INTAKE, SCHEDULER
from styled.vigil import STUCK_SECONDS, Vigil
from tests.jobs.conftest import Dropped, LogLines, ScriptedEngine, progress


@pytest.fixture
def logs() -> Iterator[LogLines]:
    """Return the list that every logged event goes into."""
    with structlog.testing.capture_logs() as lines:
        yield lines


class Scene:
    """A vigil over a journal in which the test plays all parts."""

    def __init__(self, base: Path, watchdog_seconds: int = 8) -> None:
        (base / "state").mkdir()
        (base / "inbox").mkdir()
        (base / "config.yaml").write_text("metrics: {textfile: false}\n")
        self.config: Config = load_config(base / "config.yaml")
        self.journal = Journal.open(base / "state/journal.sqlite3")
        self.heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.heard.bind(str(base / "notify"))
        self.heard.setblocking(False)
        self.now = 1000.0
        self.pulse = Pulse(lambda: self.now)
        self.wake = threading.Event()
        manager = ServiceManager(
            {"NOTIFY_SOCKET": str(base / "notify"), "WATCHDOG_USEC": f"{watchdog_seconds}000000"}
        )
        self.vigil = Vigil(
            self.config, manager, self.pulse, self.wake, now=lambda: 2e9, clock=lambda: self.now
        )
        self.journal.write_daemon(state="running")
        self.vigil.begin(self.journal)
        self.engine = ScriptedEngine()

    def submit(self, *names: str) -> None:
        self.journal.submit([Dropped(name, 1, 2, {"oil": name}) for name in names], 5.0)

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


@pytest.fixture
def scene(tmp_path: Path, logs: LogLines) -> Iterator[Scene]:
    """Return a vigil that has begun."""
    scene = Scene(tmp_path)
    yield scene
    scene.vigil.end()
    scene.journal.close()
    scene.heard.close()


def test_the_status_says_what_goes_on(scene: Scene) -> None:
    """In one line: what is painted, how far it is, how long it takes, what waits."""
    assert scene.status() == "running, waiting for photos"
    scene.submit("a.jpg", "b\n.jpg", "c.jpg")
    job = scene.journal.claim(10.0)
    assert job is not None
    assert scene.status() == "painting a.jpg in oil: 0%; 2 jobs waiting"
    scene.journal.note_progress(job, progress(0.41, seconds_left=125.0))
    assert scene.status() == "painting a.jpg in oil: 41%, 2 min 5 s left; 2 jobs waiting"
    scene.journal.finish(job, JobState.DONE, 20.0)
    scene.journal.write_daemon(state="paused: the outbox is full")
    assert scene.status() == "paused: the outbox is full; 2 jobs waiting"
    scene.journal.write_daemon(inbox_trouble="the inbox is gone")
    assert scene.status() == "the inbox is gone; 2 jobs waiting"


def test_a_layer_of_the_network_is_a_sign_of_life(scene: Scene) -> None:
    """A step of minutes does not bring the watchdog on; a network that stands still does."""
    scene.vigil.engine = scene.engine
    scene.pulse.beat(INTAKE, 1e6)
    scene.pulse.beat(SCHEDULER)
    for _ in range(10):
        scene.engine.layers_run += 1
        assert "WATCHDOG=1" in scene.later()
    heard = [words for _ in range(10) for words in scene.later()]
    assert heard.count("WATCHDOG=1") <= 1  # for the last layer


def test_layers_do_not_cut_a_rest_short(scene: Scene) -> None:
    """The scheduler may have begun to rest since the last of them."""
    scene.vigil.engine = scene.engine
    scene.pulse.beat(INTAKE, 1e6)
    scene.engine.layers_run += 5
    scene.pulse.beat(SCHEDULER, 1e6)
    assert all("WATCHDOG=1" in scene.later() for _ in range(10))


@pytest.mark.parametrize("part", [INTAKE, SCHEDULER])
def test_what_is_stuck_is_said_once_and_so_is_its_waking(
    scene: Scene, logs: LogLines, part: str
) -> None:
    """In the log, in the status, and for `styled status`."""
    for each in (INTAKE, SCHEDULER):
        scene.pulse.beat(each, 0.0 if each == part else 1e6)
    for _ in range(3):
        scene.later(STUCK_SECONDS / 2)
    (stuck,) = [line for line in logs if line["event"] == "daemon.stuck"]
    assert (stuck["parts"], stuck["log_level"]) == ([part], "error")
    said = scene.journal.read_daemon()["stuck"]
    assert said == f"the {part} has given no sign of life for 5 min"
    assert not [words for words in scene.later(STUCK_SECONDS) if words == "WATCHDOG=1"]
    scene.pulse.beat(part, 1e6)
    assert scene.status() == "running, waiting for photos"
    assert [line["event"] for line in logs if "stuck" in line["event"]] == [
        "daemon.stuck", "daemon.unstuck",
    ]  # fmt: skip
    assert scene.journal.read_daemon()["stuck"] == ""


def test_who_hangs_in_the_journal_is_not_waited_for(scene: Scene, logs: LogLines) -> None:
    """The log says at once what is stuck; the journal learns it once it can be had."""
    scene.pulse.beat(INTAKE, 1e6)
    scene.pulse.beat(SCHEDULER)
    with scene.journal._lock:  # as during a commit to a disk that hangs
        assert scene.later(STUCK_SECONDS) == ["WATCHDOG=1"]  # for what was before
        assert scene.later() == []
    assert [line["event"] for line in logs] == ["daemon.stuck"]
    scene.later()
    assert scene.journal.read_daemon()["stuck"].startswith("the scheduler")


def test_a_request_of_another_process_wakes_the_scheduler(scene: Scene) -> None:
    """And nothing else does: an idle daemon is left alone."""
    scene.submit("a.jpg")
    scene.later()
    scene.journal.write_daemon(state="running")  # by itself
    scene.later()
    assert not scene.wake.is_set()
    other = Journal.open_for_requests(scene.config.state / "journal.sqlite3")
    other.request_cancel(scene.journal.in_state(JobState.QUEUED, limit=1)[0])
    other.close()
    scene.later()
    assert scene.wake.is_set()


def test_without_the_journal_the_watchdog_is_told_all_the_same(scene: Scene) -> None:
    """A disk that is gone is waited for, which is no hanging."""
    scene.pulse.beat(INTAKE, 1e6)
    scene.pulse.beat(SCHEDULER, 1e6)
    scene.journal._connection.execute("DROP TABLE daemon")
    assert scene.later() == ["WATCHDOG=1"]


def test_a_port_that_is_taken_is_said_and_stops_nobody(tmp_path: Path, logs: LogLines) -> None:
    """Pictures are more important than figures about them."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "state").mkdir()
        (tmp_path / "config.yaml").write_text(f"metrics: {{http_port: {port}}}\n")
        journal = Journal.open(tmp_path / "state/journal.sqlite3")
        vigil = Vigil(
            load_config(tmp_path / "config.yaml"), ServiceManager({}), Pulse(), threading.Event()
        )
        vigil.begin(journal)
        vigil.end()
    assert [line["event"] for line in logs] == ["metrics.not_served"]
    assert str(port) in journal.read_daemon()["metrics_trouble"]
    assert b"styled_queue_jobs" in (tmp_path / "state/metrics.prom").read_bytes()
    journal.close()


def test_the_last_figures_are_those_of_the_end(tmp_path: Path) -> None:
    """Whoever looks at the file after a stop sees what had been done by then."""
    (tmp_path / "state").mkdir()
    (tmp_path / "config.yaml").write_text("")
    journal = Journal.open(tmp_path / "state/journal.sqlite3")
    vigil = Vigil(
        load_config(tmp_path / "config.yaml"), ServiceManager({}), Pulse(), threading.Event()
    )
    vigil.begin(journal)
    vigil.metrics.count_ended("done", None, {"optimise": 2.0}, 7, 1, degraded=True)
    vigil.end()
    assert b"styled_steps_total 7.0" in (tmp_path / "state/metrics.prom").read_bytes()
    journal.close()


def test_clocks_are_no_reason_to_write_metrics(scene: Scene) -> None:
    """Of an idle daemon they are written every ten minutes, although each time they differ."""
    written = []
    for _ in range(81):
        if scene.vigil.update_metrics():
            written.append(scene.now)
        scene.now += 15.0
    assert written == [1000.0, 1600.0, 2200.0]


def test_what_matters_is_written_at_once(scene: Scene) -> None:
    """Jobs, their ends, a pause, a degradation and what is stuck are each a reason, once."""

    def get_stuck() -> None:
        scene.pulse.beat(INTAKE)
        scene.later(STUCK_SECONDS)

    path = scene.config.state / "metrics.prom"
    scene.vigil.update_metrics()
    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: scene.submit("a.jpg"), 'styled_queue_jobs{state="queued",style="oil"} 1.0'),
        (lambda: scene.journal.write_daemon(state="paused: full"), "styled_queue_paused 1.0"),
        (
            lambda: scene.journal.write_daemon(
                degraded='[{"kind": "weights", "message": "untrained"}]'
            ),
            'styled_degraded{reason="untrained"} 1.0',
        ),
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
