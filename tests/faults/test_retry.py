"""`styled retry` with a running daemon."""

from __future__ import annotations

import signal

import pytest

from tests.daemon_harness import DaemonHarness

pytestmark = pytest.mark.timeout(400)


def test_a_rejected_photo_is_done_once_its_reason_is_gone(harness: DaemonHarness) -> None:
    """A retried photo is moved back into the inbox, its sidecar is removed, and it is painted."""
    harness.configure(intake="{settle_seconds: 0.2, max_pixels: 250000}")
    harness.drop("coffee/trip/large.jpg", "coffee", (700, 500))
    (harness.folder / "inbox/letter.jpg").write_text("no photo")
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
    assert len(harness.files("rejected")) == 4
    harness.configure(intake="{settle_seconds: 0.2}")
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        completed = harness.do("retry", "--all")
        assert completed.returncode == 0, completed.stderr
        assert len(completed.stdout.splitlines()) == 2
        daemon.wait_for("job.rejected")
        daemon.wait_until(lambda: harness.files("inbox") == [])
    # A file that still cannot be painted is rejected again, under the same name.
    assert harness.files("rejected") == ["swirls/letter.jpg", "swirls/letter.jpg.json"]
    assert harness.files("outbox") == ["coffee/trip/large.jpg", "coffee/trip/large.jpg.json"]
    assert harness.sidecar("outbox/coffee/trip/large.jpg.json")["job"]["attempts"] == 1


def test_a_rejected_photo_may_be_replaced_by_a_good_one(harness: DaemonHarness) -> None:
    """A good photo with the name of a rejected one is painted, and the rejected one is kept."""
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        (harness.folder / "inbox/photo.jpg").write_text("no photo")
        daemon.wait_until(lambda: harness.files("inbox") == [])
        harness.drop("photo.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: harness.files("archive") == ["swirls/photo.jpg"])
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(30) == 0
    assert harness.files("outbox") == ["swirls/photo.jpg", "swirls/photo.jpg.json"]
    assert harness.files("rejected") == ["swirls/photo.jpg", "swirls/photo.jpg.json"]
