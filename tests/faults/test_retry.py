"""`styled retry` with the daemon running: a rejected photo gets another chance."""

from __future__ import annotations

import signal

import pytest

from tests.studio import Studio

pytestmark = pytest.mark.timeout(400)


def test_a_rejected_photo_is_done_once_its_reason_is_gone(studio: Studio) -> None:
    """It goes back to where it came from, its reason goes away, and it is painted."""
    studio.configure(intake="{settle_seconds: 0.2, max_pixels: 250000}")
    studio.drop("coffee/trip/large.jpg", "coffee", (700, 500))
    (studio.folder / "inbox/letter.jpg").write_text("no photo")
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
    assert len(studio.files("rejected")) == 4
    studio.configure(intake="{settle_seconds: 0.2}")
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        done = studio.do("retry", "--all")
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2
        daemon.wait_for("job.rejected")
        daemon.wait_until(lambda: studio.files("inbox") == [])
    # What can't be done is rejected anew, under its old name.
    assert studio.files("rejected") == ["swirls/letter.jpg", "swirls/letter.jpg.json"]
    assert studio.files("outbox") == ["coffee/trip/large.jpg", "coffee/trip/large.jpg.json"]
    assert studio.sidecar("outbox/coffee/trip/large.jpg.json")["job"]["attempts"] == 1


def test_a_rejected_photo_may_be_replaced_by_a_good_one(studio: Studio) -> None:
    """Dropped under the same name it is done, and the rejected one stays where it is."""
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        (studio.folder / "inbox/photo.jpg").write_text("no photo")
        daemon.wait_until(lambda: studio.files("inbox") == [])
        studio.drop("photo.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: studio.files("archive") == ["swirls/photo.jpg"])
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(30) == 0
    assert studio.files("outbox") == ["swirls/photo.jpg", "swirls/photo.jpg.json"]
    assert studio.files("rejected") == ["swirls/photo.jpg", "swirls/photo.jpg.json"]
