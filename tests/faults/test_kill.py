"""kill -9 at any moment: everything once, nothing half, nothing lost."""

from __future__ import annotations

import hashlib
import random
import time

import pytest

from tests.faults.watchman import Watchman
from tests.studio import Studio

pytestmark = pytest.mark.timeout(600)

KILLS = 50


def test_fifty_kills_over_a_backlog(studio: Studio) -> None:
    """Each photo has one result, one sidecar and one archived original at the end."""
    studio.configure(queue="{max_attempts: 100}")  # the same job may be hit again and again
    moments = random.Random(4)
    dropped: dict[str, str] = {}
    kills = 0
    with Watchman(studio) as watchman:
        while kills < KILLS:
            # New ones come all the time, so that there is always something to interrupt.
            for _ in range(4):
                number = len(dropped)
                name = f"{('', 'coffee/', 'swirls/trip/')[number % 3]}{number:03}.jpg"
                path = studio.drop(name, "coffee", (100 + number % 20, 84 + number // 20))
                dropped[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            with studio.running_soon() as daemon:
                daemon.wait_for("daemon.started")
                time.sleep(moments.uniform(0, 0.7))
                daemon.kill()
                kills += 1
        with studio.running_soon() as daemon:
            daemon.wait_until(lambda: studio.files("inbox") == [])
        watchman.look()
    assert watchman.seen >= 3 * len(dropped)

    results = {
        (name if name.startswith(("coffee/", "swirls/")) else f"swirls/{name}"): digest
        for name, digest in dropped.items()
    }
    assert studio.files("archive") == sorted(results)
    assert studio.files("outbox") == sorted([*results, *(f"{name}.json" for name in results)])
    assert studio.files("rejected") == []
    for name, digest in results.items():
        original = (studio.folder / "archive" / name).read_bytes()
        assert hashlib.sha256(original).hexdigest() == digest
        facts = studio.sidecar(f"outbox/{name}.json")
        picture = (studio.folder / "outbox" / name).read_bytes()
        assert facts["input"]["sha256"] == digest
        assert facts["result"]["sha256"] == hashlib.sha256(picture).hexdigest()
