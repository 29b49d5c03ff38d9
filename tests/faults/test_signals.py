"""Signals: a stop that loses nothing, and a reload that takes over what is right."""

from __future__ import annotations

import hashlib
import json
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from tests.faults.conftest import QUICK, paint_slowly
from tests.studio import Daemon, Studio

pytestmark = pytest.mark.timeout(400)

STOP_LIMIT_SECONDS = 5.0


def wait_until_amid_a_job(studio: Studio, daemon: Daemon) -> None:
    """Wait until some of a job's steps have been taken, and not all."""
    with closing(sqlite3.connect(studio.folder / "state/journal.sqlite3")) as journal:
        query = "SELECT max(fraction) FROM jobs WHERE state = 'running'"
        daemon.wait_until(lambda: (journal.execute(query).fetchone()[0] or 0) > 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_amid_a_job_resumes_to_the_undisturbed_picture(
    studio: Studio, number: signal.Signals
) -> None:
    """Exit code 0 within 5 s, a checkpoint, and then the same bytes as without the stop."""
    paint_slowly(studio, 25)
    studio.drop("undisturbed.png", "chelsea", (96, 72))
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
    studio.drop("stopped.png", "chelsea", (96, 72))
    studio.drop("waiting.png", "chelsea", (96, 72))
    for _ in range(2):
        with studio.running() as daemon:
            wait_until_amid_a_job(studio, daemon)
            begun = time.monotonic()
            daemon.process.send_signal(number)
            assert daemon.process.wait(STOP_LIMIT_SECONDS) == 0
            assert time.monotonic() - begun < STOP_LIMIT_SECONDS
            assert daemon.events("job.interrupted")
            assert daemon.events("daemon.stopped")
        assert len(studio.files("state/checkpoints")) == 1
        assert studio.files("inbox") == ["stopped.png", "waiting.png"]
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
        assert len(daemon.events("job.resumed")) == 1

    def digest(name: str) -> str:
        return hashlib.sha256((studio.folder / "outbox/swirls" / name).read_bytes()).hexdigest()

    facts = studio.sidecar("outbox/swirls/stopped.png.json")["job"]
    assert (facts["resumed"], facts["attempts"]) == (True, 1)
    assert digest("stopped.png") == digest("undisturbed.png") == digest("waiting.png")
    assert studio.files("state/checkpoints") == []


def test_a_stop_does_not_wait_for_a_step_that_takes_long(studio: Studio) -> None:
    """Exit code 0 within 5 s though a step takes longer; it costs no attempt and no input."""
    studio.configure(queue="{max_attempts: 1}")
    text = studio.config.read_text().replace(QUICK, "steps: 2")  # of the whole network
    studio.config.write_text(text.replace("long_edge: 48", "long_edge: 1000"))
    studio.drop("large.jpg", "coffee", (1000, 720))
    for _ in range(2):
        with studio.running() as daemon:
            daemon.wait_for("job.started")
            time.sleep(1.0)
            begun = time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(STOP_LIMIT_SECONDS + 5.0) == 0
            assert time.monotonic() - begun < STOP_LIMIT_SECONDS
            assert daemon.events("daemon.stopped_amid_a_step")
    status = json.loads(studio.do("status", "--json").stdout)
    assert [(job["input"], job["attempts"]) for job in status["waiting"]] == [("large.jpg", 0)]
    assert studio.files("inbox") == ["large.jpg"]


def test_a_stop_while_starting_is_a_stop(studio: Studio) -> None:
    """At any moment until the network is loaded; an earlier death is not forgiven by it."""
    paint_slowly(studio, 400)
    studio.drop("killer.jpg", "coffee", (96, 72))
    with studio.running() as daemon:
        daemon.wait_for("job.started")
        daemon.kill()
    for delay in (0.3, 0.6, 0.9):
        with studio.running() as daemon:
            time.sleep(delay)
            daemon.process.send_signal(signal.SIGTERM)
            # Before its own handlers are there, the signal ends it as it ends any process.
            assert daemon.process.wait(STOP_LIMIT_SECONDS) in (0, -signal.SIGTERM)
        with closing(sqlite3.connect(studio.folder / "state/journal.sqlite3")) as journal:
            assert journal.execute("SELECT attempts FROM jobs").fetchall() == [(1,)]


def test_a_reload_takes_over_what_is_right(studio: Studio) -> None:
    """A new style, another picture for a style, and a style that is gone with jobs waiting."""
    paint_slowly(studio, 15)
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        studio.drop("swirls/first.jpg", "coffee", (96, 72))
        daemon.wait_for("job.started")
        for number in range(3):
            studio.drop(f"coffee/{number}.jpg", "coffee", (96, 72))
        daemon.wait_for("jobs.submitted", 2)
        text = studio.config.read_text()
        gone = text[text.index("  coffee:") : text.index("folders:")]
        added = gone.replace("  coffee:", "  latte:")
        text = text.replace(gone, added).replace("[swirls, coffee]", "[swirls, latte]")
        studio.config.write_text(text)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.reloaded")
        assert daemon.events("config.reloaded")[0]["styles"] == ["swirls", "latte"]
        studio.drop("latte/new.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: "latte/new.jpg.json" in studio.files("outbox"))
        old = studio.sidecar("outbox/swirls/first.jpg.json")["style"]["images"]

        # The picture of a style is read when a job begins, from the file that is there.
        other = (studio.folder / "styles/coffee.jpg").read_bytes()
        (studio.folder / "styles/swirls.png").write_bytes(other)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.reloaded", 2)
        studio.drop("swirls/second.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: "swirls/second.jpg.json" in studio.files("outbox"))
        assert studio.sidecar("outbox/swirls/second.jpg.json")["style"]["images"] != old
        assert daemon.process.poll() is None
    assert "coffee" not in {name.split("/")[0] for name in studio.files("outbox")}
    kept = [*studio.files("inbox"), *studio.files("archive")]
    assert sum(name.endswith(("0.jpg", "1.jpg", "2.jpg")) for name in kept) == 3


def test_a_reload_of_what_is_wrong_changes_nothing(studio: Studio) -> None:
    """Each mistake is said, and the daemon paints on with what it had."""
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        good = studio.config.read_text()
        wrong = [
            (good.replace("styles:", "stiles:", 1), "stiles"),
            (good.replace("swirls.png", "nowhere.png"), "nowhere.png"),
            (good + "\tx: [", "config.yaml"),
        ]
        for number, (text, said) in enumerate(wrong, start=1):
            studio.config.write_text(text)
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_for("config.kept", number)
            assert said in str(daemon.events("config.kept")[-1]["reason"])
            studio.drop(f"{number}.jpg", "coffee", (96, 72))
            daemon.wait_until(lambda n=number: f"swirls/{n}.jpg.json" in studio.files("outbox"))  # type: ignore[misc]
        studio.config.unlink()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.kept", 4)
        studio.config.write_text(good)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.reloaded")
