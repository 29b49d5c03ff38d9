"""Hooks of a real daemon: over restarts, beside the queue, and within the time of a stop."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from tests.daemon_harness import DaemonHarness


def configure(harness: DaemonHarness, timeout_seconds: float = 60, **scripts: str) -> None:
    hooks: dict[str, object] = {
        name: ["sh", "-c", script, name, "{result}"] for name, script in scripts.items()
    }
    harness.configure(hooks=json.dumps({**hooks, "timeout_seconds": timeout_seconds}))


def lines(harness: DaemonHarness, name: str = "calls") -> list[str]:
    path = harness.folder / name
    return path.read_text().splitlines() if path.exists() else []


CALL = 'echo "$0 $(basename "$1")" >> calls'


def test_once_runs_all_hooks_before_it_returns(harness: DaemonHarness) -> None:
    """For paintings and rejected photos, and at the end the one for an idle queue."""
    configure(harness, on_done=CALL, on_rejected=CALL, on_idle="echo idle >> calls")
    harness.drop("one.png", size=(48, 40))
    (harness.folder / "inbox/bad.png").write_bytes(b"no picture")
    assert harness.do("once").returncode == 1
    assert sorted(lines(harness)[:-1]) == ["on_done one.png", "on_rejected bad.png"]
    assert lines(harness)[-1] == "idle"


def test_a_hook_that_hangs_delays_no_photo_and_no_stop(harness: DaemonHarness) -> None:
    """Photos are painted beside it; a stop ends it; the next start runs it again."""
    configure(harness, on_done=f"test -e quick || exec sleep 100; {CALL}")
    with harness.running() as daemon:
        for name in ("one", "two", "three"):
            harness.drop(f"{name}.png", size=(48, 40))
        daemon.wait_for("job.published", 3)
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.wait(20)
        assert time.monotonic() - began < 5
    assert lines(harness) == []
    (harness.folder / "quick").touch()
    with harness.running() as daemon:
        daemon.wait_until(lambda: len(lines(harness)) == 3)
    assert sorted(lines(harness)) == [f"on_done {name}.png" for name in ("one", "three", "two")]


def test_a_killed_daemon_runs_the_hook_again(harness: DaemonHarness) -> None:
    """SIGKILL while the hook runs: at least once, after the restart."""
    configure(harness, on_done=f"touch begun; test -e quick || exec sleep 100; {CALL}")
    with harness.running() as daemon:
        harness.drop("one.png", size=(48, 40))
        daemon.wait_until((harness.folder / "begun").exists)
        daemon.kill()
    (harness.folder / "quick").touch()
    with harness.running() as daemon:
        daemon.wait_until(lambda: lines(harness) == ["on_done one.png"])


def test_a_failing_hook_is_shown_by_status(harness: DaemonHarness) -> None:
    """With its reason; the painting is there, and the log has the output."""
    configure(harness, timeout_seconds=3, on_done="echo I hang; sleep 100")
    with harness.running() as daemon:
        harness.drop("one.png", size=(48, 40))
        daemon.wait_for("hook.failed")
        status = harness.do("status").stdout
        document = json.loads(harness.do("status", "--json").stdout)
    message = "the hook on_done failed for"
    assert message in " ".join(status.split())
    assert any(message in problem for problem in document["problems"])
    (event,) = daemon.events("hook.failed")
    assert (event["output"], event["reason"]) == ("I hang", "it took longer than 3 s")
    assert Path(harness.folder / "outbox/swirls/one.png").exists()
