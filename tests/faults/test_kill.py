"""kill -9 at any moment: everything once, nothing half, nothing lost."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import pytest

from styled.jobs.events import StopRequested
from styled.ops.pulse import Pulse
from styled.stages import Stages
from tests.faults.watchman import Watchman
from tests.jobs.conftest import Dropped, JobHarness, OneEngine, picture
from tests.studio import Forked, Studio

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("wanted", [12, pytest.param(50, marks=pytest.mark.heavy)])
def test_kills_over_a_backlog(studio: Studio, wanted: int) -> None:
    """Each photo has one result, one sidecar and one archived original at the end."""
    studio.configure(queue="{max_attempts: 100}")  # the same job may be hit again and again
    moments = random.Random(4)
    dropped: dict[str, str] = {}
    kills = 0
    with Watchman(studio) as watchman:
        while kills < wanted:
            # New ones come all the time, so that there is always something to interrupt.
            for _ in range(4):
                number = len(dropped)
                name = f"{('', 'coffee/', 'swirls/trip/')[number % 3]}{number:03}.jpg"
                path = studio.drop(name, "coffee", (100 + number % 20, 84 + number // 20))
                dropped[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            with studio.running() as daemon:
                daemon.wait_for("daemon.started")
                time.sleep(moments.uniform(0, 0.7))
                daemon.kill()
                kills += 1
        with studio.running() as daemon:
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


def test_a_photo_that_kills_the_process_each_time_is_rejected(studio: Studio) -> None:
    """After `max_attempts` deaths it stands aside with the reason, and the others are done.

    The first death may have been that of what was beside it: it counts for nobody.
    """
    studio.configure(queue="{max_attempts: 2}")
    studio.drop("a-killer.jpg", "coffee", (96, 72))
    studio.drop("b.jpg", "coffee", (96, 72))
    studio.drop("c.jpg", "coffee", (96, 72))
    for claimed in (2, 1, 1):  # later on it is alone
        with studio.running() as daemon:
            daemon.wait_for("job.started")
            daemon.wait_for("job.claimed", claimed)
            assert daemon.events("job.claimed")[0]["input"] == "a-killer.jpg"
            daemon.kill()
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
    assert studio.files("rejected") == ["swirls/a-killer.jpg", "swirls/a-killer.jpg.json"]
    rejection = studio.sidecar("rejected/swirls/a-killer.jpg.json")
    assert rejection["rejected"]["failure"] == "crash"
    assert "begun 2 times" in str(rejection["rejected"]["reason"])
    assert rejection["job"]["attempts"] == 2
    assert studio.files("archive") == ["swirls/b.jpg", "swirls/c.jpg"]


def test_what_a_dead_daemon_leaves_behind_is_no_hindrance(studio: Studio) -> None:
    """Its lock, a half-written file and a stale process number: the next one simply starts."""
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        daemon.kill()
    assert (studio.folder / "state/lock").read_text().strip() == str(daemon.process.pid)
    half = studio.folder / "outbox" / f".styled-{'0' * 32}.tmp"
    half.write_bytes(b"half a pic")
    status = json.loads(studio.do("status", "--json").stdout)
    assert status["running"] is False
    studio.drop("a.jpg", "coffee", (96, 72))
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
        status = json.loads(studio.do("status", "--json").stdout)
        assert (status["running"], status["pid"]) == (True, daemon.process.pid)
    assert studio.files("outbox") == ["swirls/a.jpg", "swirls/a.jpg.json"]


# Several engines


@pytest.mark.parametrize("engines", [1, 3])
def test_kills_of_a_queue_with_engines_in_threads(tmp_path: Path, engines: int) -> None:
    """Wherever that hits each of them, and the threads that prepare and publish."""
    base = tmp_path / "shop"
    moments = random.Random(engines)
    names = [f"{number}/photo.png" for number in range(12)]
    originals = {name: picture(size=(40 + number, 36)) for number, name in enumerate(names)}
    for name, data in originals.items():
        path = base / "inbox" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    kills = 0
    while True:
        process = Forked(work_with_threads, str(base), engines, names)
        time.sleep(moments.uniform(0.05, 0.5))
        if process.poll() is not None:
            assert process.wait(60) == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        kills += 1
        assert kills < 200, "it never ends"
    assert kills >= 3
    found = sorted(path.name for path in (base / "outbox/oil").iterdir())
    assert len(found) == 2 * len(names)
    archived = [path.read_bytes() for path in (base / "archive/oil").rglob("*.png")]
    assert sorted(archived) == sorted(originals.values())
    assert [path for path in (base / "inbox").rglob("*") if path.is_file()] == []
    assert not (base / "rejected").exists() or not list((base / "rejected").rglob("*.png"))
    for sidecar in (base / "outbox/oil").glob("*.json"):
        facts = json.loads(sidecar.read_bytes())
        data = sidecar.with_suffix("").read_bytes()
        assert facts["result"]["sha256"] == hashlib.sha256(data).hexdigest()


def work_with_threads(base: str, engines: int, names: list[str]) -> None:
    """Work until nothing is left, by the scheduler's own loop and a pool of threads."""
    shop = JobHarness(Path(base), engines=engines)
    shop.configure("queue", max_attempts=100)
    for engine in shop.engines:
        engine.on_sync = lambda: time.sleep(0.02)
    stages = Stages(shop.config, Pulse())
    factories = [OneEngine(engine, can_replace=False) for engine in shop.engines]
    scheduler, _ = stages.make_scheduler(shop.journal, shop.publisher, factories, observer=shop)
    scheduler.recover()
    shop._wanted = dict.fromkeys(names, ("oil",))
    wanted = {name: Path(name).name for name in names}
    shop.journal.submit(
        [
            Dropped(name, path.stat().st_size, path.stat().st_mtime_ns, {"oil": wanted[name]})
            for name in names
            if (path := shop.config.inbox / name).exists()
        ],
        shop.now,
    )
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    while shop.journal.unfinished_ids() or shop.journal.finished_in_inbox():
        time.sleep(0.01)
    stages.events.put(StopRequested())
    thread.join(60)
    os._exit(0 if not thread.is_alive() else 1)


# Between any two calls to the system


@pytest.mark.parametrize(
    ("data", "delivered"),
    [
        pytest.param(picture(), ["archive/oil/photo.png", "outbox/oil/photo.png"], id="done"),
        pytest.param(b"no photo", ["rejected/oil/photo.png"], id="rejected"),
    ],
)
def test_a_kill_before_any_call_to_the_system(
    tmp_path: Path, data: bytes, delivered: list[str]
) -> None:
    """A real SIGKILL before each single call that a job makes: the end is always the same."""
    calls = tmp_path / "calls"
    assert Forked(work_and_die, str(tmp_path / "undisturbed"), data, 0, str(calls)).wait(60) == 0
    names = calls.read_text().split()
    assert {"rename", "fsync", "execute"} <= set(names)
    for number in range(1, len(names) + 1):
        base = tmp_path / str(number)
        died = Forked(work_and_die, str(base), data, number, str(calls)).wait(60)
        assert died == -signal.SIGKILL, f"before call {number}"
        whole = {}
        for root in ("outbox", "archive", "rejected"):
            for path in (base / root).rglob("[!.]*.png"):
                whole[f"{root}/oil/{path.name}"] = path.read_bytes()
        shop = JobHarness(base)
        shop._wanted["photo.png"] = ("oil",)
        shop.restart()
        shop.work_and_wait()
        shop.close()
        found = [
            f"{root}/{name}" for root in ("archive", "outbox", "rejected")
            for name in shop.files(root)
        ]  # fmt: skip
        sidecars = [f"{name}.json" for name in delivered if not name.startswith("archive")]
        where = f"killed before call {number}, {names[number - 1]}"
        assert found == sorted([*delivered, *sidecars]), where
        assert shop.files("inbox") == [], where
        assert (base / delivered[0]).read_bytes() == data, where
        # What was visible when the process died was whole already.
        assert all((base / name).read_bytes() == content for name, content in whole.items()), where


DEADLY = frozenset(
    {"open", "rename", "replace", "link", "unlink", "mkdir", "fsync", "write", "flush", "execute",
     "executemany"}
)  # fmt: skip


def work_and_die(base: str, data: bytes, fatal: int, calls: str) -> None:
    """Drop a photo and work on it, dying before the call to the system of this number."""
    shop = JobHarness(Path(base))
    shop.drop("photo.png", data)
    made: list[str] = []

    def on_event(frame: FrameType, event: str, called: object) -> None:
        name = getattr(called, "__name__", "")
        is_log = isinstance(getattr(called, "__self__", None), io.TextIOBase)
        if event == "c_call" and name in DEADLY and not is_log:
            made.append(name)
            if len(made) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(on_event)  # the engine's thread writes files too
    sys.setprofile(on_event)
    shop.work()
    sys.setprofile(None)
    Path(calls).write_text("\n".join(made))
