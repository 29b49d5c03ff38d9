"""Signals: SIGTERM and SIGINT stop the daemon without losses, SIGHUP reloads."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.daemon_harness import Daemon, DaemonHarness, start_styled
from tests.faults.conftest import QUICK, STOP_LIMIT_SECONDS, paint_slowly, wait_until_amid_a_job

pytestmark = pytest.mark.timeout(400)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_amid_a_job_resumes_to_the_undisturbed_picture(
    harness: DaemonHarness, number: signal.Signals
) -> None:
    """A stop exits with 0 within 5 s; the resumed job gives the bytes of an uninterrupted one."""
    paint_slowly(harness, 25)
    harness.drop("undisturbed.png", "chelsea", (96, 72))
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
    harness.drop("stopped.png", "chelsea", (96, 72))
    harness.drop("waiting.png", "chelsea", (96, 72))
    for _ in range(2):
        with harness.running() as daemon:
            wait_until_amid_a_job(harness, daemon)
            start = time.monotonic()
            daemon.process.send_signal(number)
            assert daemon.process.wait(STOP_LIMIT_SECONDS) == 0
            assert time.monotonic() - start < STOP_LIMIT_SECONDS
            assert daemon.events("job.interrupted")
            assert daemon.events("daemon.stopped")
        assert len(harness.files("state/checkpoints")) == 1
        assert harness.files("inbox") == ["stopped.png", "waiting.png"]
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
        assert len(daemon.events("job.resumed")) == 1

    def digest(name: str) -> str:
        return hashlib.sha256((harness.folder / "outbox/swirls" / name).read_bytes()).hexdigest()

    job = harness.sidecar("outbox/swirls/stopped.png.json")["job"]
    assert (job["resumed"], job["attempts"]) == (True, 1)
    assert digest("stopped.png") == digest("undisturbed.png") == digest("waiting.png")
    assert harness.files("state/checkpoints") == []


def test_a_stop_does_not_wait_for_a_step_that_takes_long(harness: DaemonHarness) -> None:
    """A stop exits with 0 within 5 s even if a step takes longer, without a counted attempt."""
    harness.configure(queue="{max_attempts: 1}")
    text = harness.config.read_text().replace(QUICK, "steps: 2")  # with all default layers
    harness.config.write_text(text.replace("long_edge: 48", "long_edge: 1000"))
    harness.drop("large.jpg", "coffee", (1000, 720))
    for _ in range(2):
        with harness.running() as daemon:
            daemon.wait_for("job.painting_started")
            time.sleep(1.0)
            start = time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(STOP_LIMIT_SECONDS + 5.0) == 0
            assert time.monotonic() - start < STOP_LIMIT_SECONDS
            assert daemon.events("daemon.step_abandoned")
    status = json.loads(harness.do("status", "--json").stdout)
    assert [(job["input"], job["attempts"]) for job in status["waiting"]] == [("large.jpg", 0)]
    assert harness.files("inbox") == ["large.jpg"]


def test_once_that_abandons_a_step_leaves_a_photo(harness: DaemonHarness) -> None:
    """It says so, and exits with 75 within 5 s."""
    harness.take_time(30)
    harness.drop("a.jpg", "coffee", (96, 72))
    log = harness.folder / "once.log"
    with log.open("wb") as file:
        process = start_styled(
            harness.command("once")[3:], file.fileno(), file.fileno(), harness.environment
        )
    once = Daemon(process, log)
    once.wait_for("job.painting_started")
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_LIMIT_SECONDS + 5.0) == 75
    assert "a photo was not processed" in log.read_text()
    assert harness.files("inbox") == ["a.jpg"]


def test_a_stop_while_starting_is_a_stop(harness: DaemonHarness) -> None:
    """A stop during the start ends the process; the attempt of an earlier death stays counted."""
    paint_slowly(harness, 400)
    harness.drop("killer.jpg", "coffee", (96, 72))
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        daemon.kill()
    for delay in (0.3, 0.6, 0.9):
        with harness.running() as daemon:
            time.sleep(delay)
            daemon.process.send_signal(signal.SIGTERM)
            # Before the daemon has installed its handlers, SIGTERM kills the process.
            assert daemon.process.wait(STOP_LIMIT_SECONDS) in (0, -signal.SIGTERM)
        with closing(sqlite3.connect(harness.folder / "state/journal.sqlite3")) as journal:
            assert journal.execute("SELECT attempts FROM jobs").fetchall() == [(1,)]


def test_a_reload_takes_over_what_is_right(harness: DaemonHarness) -> None:
    """A reload applies new styles and style images, and removes styles with queued jobs."""
    paint_slowly(harness, 40)
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        harness.drop("swirls/first.jpg", "coffee", (96, 72))
        daemon.wait_for("job.painting_started")
        for number in range(3):
            harness.drop(f"coffee/{number}.jpg", "coffee", (96, 72))
        daemon.wait_for("jobs.submitted", 2)
        text = harness.config.read_text()
        gone = text[text.index("  coffee:") : text.index("folders:")]
        added = gone.replace("  coffee:", "  latte:")
        text = text.replace(gone, added).replace("[swirls, coffee]", "[swirls, latte]")
        harness.config.write_text(text)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.reloaded")
        assert daemon.events("config.reloaded")[0]["styles"] == ["swirls", "latte"]
        harness.drop("latte/new.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: "latte/new.jpg.json" in harness.files("outbox"))
        old = harness.sidecar("outbox/swirls/first.jpg.json")["style"]["images"]

        # Style images are read when a job begins.
        other = (harness.folder / "styles/coffee.jpg").read_bytes()
        (harness.folder / "styles/swirls.png").write_bytes(other)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.reloaded", 2)
        harness.drop("swirls/second.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: "swirls/second.jpg.json" in harness.files("outbox"))
        assert harness.sidecar("outbox/swirls/second.jpg.json")["style"]["images"] != old
        assert daemon.process.poll() is None
    assert "coffee" not in {name.split("/")[0] for name in harness.files("outbox")}
    kept = [*harness.files("inbox"), *harness.files("archive")]
    assert sum(name.endswith(("0.jpg", "1.jpg", "2.jpg")) for name in kept) == 3


def test_a_reload_does_not_move_the_inbox(harness: DaemonHarness) -> None:
    """Paths are those of the start until a restart, which log and status ask for; photos arrive."""
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        harness.configure(inbox="elsewhere")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.needs_restart")
        harness.drop("a.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: harness.files("inbox") == [])
        assert daemon.events("inbox.unavailable") == []
        assert "changes of inbox need a restart" in harness.do("status").stdout
    assert harness.files("outbox") == ["swirls/a.jpg", "swirls/a.jpg.json"]


def test_a_reload_of_what_is_wrong_changes_nothing(harness: DaemonHarness) -> None:
    """An invalid configuration is logged at a reload, and the daemon goes on with the old one."""
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        good = harness.config.read_text()
        wrong = [
            (good.replace("styles:", "stiles:", 1), "stiles"),
            (good.replace("swirls.png", "nowhere.png"), "nowhere.png"),
            (good + "\tx: [", "config.yaml"),
        ]
        for number, (text, expected) in enumerate(wrong, start=1):
            harness.config.write_text(text)
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_for("config.rejected", number)
            assert expected in str(daemon.events("config.rejected")[-1]["reason"])
            harness.drop(f"{number}.jpg", "coffee", (96, 72))
            daemon.wait_until(lambda n=number: f"swirls/{n}.jpg.json" in harness.files("outbox"))  # type: ignore[misc]
        harness.config.unlink()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.rejected", 4)
        harness.config.write_text(good)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.reloaded")


def test_the_heartbeat_file_exists_while_the_daemon_runs(
    harness: DaemonHarness, tmp_path: Path
) -> None:
    """`styled health` succeeds then only, and says what the daemon is doing."""
    harness.environment["RUNTIME_DIRECTORY"] = str(tmp_path)
    paint_slowly(harness, 600)
    harness.drop("a.jpg", "coffee", (96, 72))
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        daemon.wait_until(lambda: "painting a.jpg in swirls" in health(harness).stdout, 60)
        assert health(harness).returncode == 0
    done = health(harness)
    assert (done.returncode, "there is no heartbeat" in done.stderr) == (69, True)
    assert list(tmp_path.glob("heartbeat*")) == []


def health(harness: DaemonHarness) -> subprocess.CompletedProcess[str]:
    """Run `styled health`, which needs no configuration."""
    return subprocess.run(
        [sys.executable, "-m", "styled", "health"], capture_output=True, text=True,
        env={**os.environ, **harness.environment},
    )  # fmt: skip
