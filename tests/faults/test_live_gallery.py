"""What a real daemon shows on the gallery page while it paints."""

from __future__ import annotations

import json
import signal

from tests.daemon_harness import DaemonHarness
from tests.faults.conftest import paint_slowly


def test_the_gallery_shows_what_is_painted(harness: DaemonHarness) -> None:
    """While photos are painted, and not before or after; a killed daemon's files are removed."""
    paint_slowly(harness, 60)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        harness.drop(name, "coffee", (96, 72))
    live = harness.folder / "outbox/gallery_files/live"
    with harness.running() as daemon:
        daemon.wait_until(lambda: len(list(live.glob("*.jpg"))) == 1)
        daemon.wait_until((live / "now.js").exists)
        shown = json.loads((live / "now.js").read_text()[len("styledLive(") : -3])
        assert [job["name"] for job in shown["jobs"]] == ["a.jpg"]
        assert shown["waiting"] == 1  # and one that is prepared
        assert (harness.folder / "outbox/gallery.html").exists()
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
    assert (live / "now.js").exists()
    paint_slowly(harness, 2)
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
        daemon.wait_until(lambda: not live.exists())


def test_without_a_gallery_nothing_is_shown(harness: DaemonHarness) -> None:
    """`output.gallery: false` leaves the outbox to the results."""
    harness.configure(output="{gallery: false}")
    paint_slowly(harness, 40)
    harness.drop("a.jpg", "coffee", (96, 72))
    with harness.running() as daemon:
        daemon.wait_for("job.published")
    assert [path.name for path in (harness.folder / "outbox").iterdir()] == ["swirls"]
