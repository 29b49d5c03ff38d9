"""kill -9 at any moment: every job is done once, and no file is lost or incomplete."""

from __future__ import annotations

import hashlib
import io
import itertools
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
from tests.daemon_harness import DaemonHarness, Forked
from tests.faults.conftest import paint_slowly
from tests.faults.output_checker import OutputChecker
from tests.job_harness import Dropped, JobHarness, OneEngine, picture, threaded_scheduler

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("min_kills", [12, pytest.param(50, marks=pytest.mark.heavy)])
def test_kills_over_a_backlog(harness: DaemonHarness, min_kills: int) -> None:
    """After many kills each photo has one result, one sidecar and one archived original."""
    harness.configure(queue="{max_attempts: 100}")  # the same job may be killed many times
    rng = random.Random(4)
    dropped: dict[str, str] = {}
    kills = 0
    with OutputChecker(harness) as checker:
        while kills < min_kills:
            # New photos in each round, so that there is always a job to interrupt.
            for _ in range(4):
                number = len(dropped)
                name = f"{('', 'coffee/', 'swirls/trip/')[number % 3]}{number:03}.jpg"
                path = harness.drop(name, "coffee", (100 + number % 20, 84 + number // 20))
                dropped[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            with harness.running() as daemon:
                daemon.wait_for("daemon.started")
                time.sleep(rng.uniform(0, 0.7))
                daemon.kill()
                kills += 1
        with harness.running() as daemon:
            daemon.wait_until(lambda: harness.files("inbox") == [])
        checker.check()
    assert checker.seen >= 3 * len(dropped)

    results = {
        (name if name.startswith(("coffee/", "swirls/")) else f"swirls/{name}"): digest
        for name, digest in dropped.items()
    }
    assert harness.files("archive") == sorted(results)
    assert harness.files("outbox") == sorted([*results, *(f"{name}.json" for name in results)])
    assert harness.files("rejected") == []
    for name, digest in results.items():
        original = (harness.folder / "archive" / name).read_bytes()
        assert hashlib.sha256(original).hexdigest() == digest
        sidecar_content = harness.sidecar(f"outbox/{name}.json")
        picture = (harness.folder / "outbox" / name).read_bytes()
        assert sidecar_content["input"]["sha256"] == digest
        assert sidecar_content["result"]["sha256"] == hashlib.sha256(picture).hexdigest()


def test_a_photo_that_kills_the_process_each_time_is_rejected(harness: DaemonHarness) -> None:
    """A photo is rejected after `max_attempts` deaths while it ran alone; the others are done.

    The first death does not count, because another job was running as well.
    """
    harness.configure(queue="{max_attempts: 2}")
    paint_slowly(harness, 20)  # none of them ends before the kill
    harness.drop("a-killer.jpg", "coffee", (96, 72))
    harness.drop("b.jpg", "coffee", (96, 72))
    harness.drop("c.jpg", "coffee", (96, 72))
    for claimed in (2, 1, 1):  # after the first death it runs alone
        with harness.running() as daemon:
            daemon.wait_for("job.painting_started")
            daemon.wait_for("job.claimed", claimed)
            assert daemon.events("job.claimed")[0]["input"] == "a-killer.jpg"
            daemon.kill()
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
    assert harness.files("rejected") == ["swirls/a-killer.jpg", "swirls/a-killer.jpg.json"]
    rejection = harness.sidecar("rejected/swirls/a-killer.jpg.json")
    assert rejection["rejected"]["failure"] == "crash"
    assert "this photo, 2 times" in str(rejection["rejected"]["reason"])
    assert rejection["job"]["attempts"] == 2
    assert harness.files("archive") == ["swirls/b.jpg", "swirls/c.jpg"]


def test_what_a_dead_daemon_leaves_behind_is_no_hindrance(harness: DaemonHarness) -> None:
    """A leftover lock file, temporary file and process ID do not prevent the next start."""
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        daemon.kill()
    assert (harness.folder / "state/lock").read_text().strip() == str(daemon.process.pid)
    half = harness.folder / "outbox" / f".styled-{'0' * 32}.tmp"
    half.write_bytes(b"half a pic")
    status = json.loads(harness.do("status", "--json").stdout)
    assert status["running"] is False
    harness.drop("a.jpg", "coffee", (96, 72))
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
        status = json.loads(harness.do("status", "--json").stdout)
        assert (status["running"], status["pid"]) == (True, daemon.process.pid)
    assert harness.files("outbox") == ["swirls/a.jpg", "swirls/a.jpg.json"]


# Several engines


@pytest.mark.parametrize("engines", [1, 3])
def test_kills_of_a_queue_with_engines_in_threads(tmp_path: Path, engines: int) -> None:
    """The same holds with several engines and an I/O pool of threads."""
    base = tmp_path / "harness"
    rng = random.Random(engines)
    names = [f"{number}/photo.png" for number in range(12)]
    originals = {name: picture(size=(40 + number, 36)) for number, name in enumerate(names)}
    for name, data in originals.items():
        path = base / "inbox" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    kills = 0
    while True:
        process = Forked(work_with_threads, str(base), engines, names)
        # Longer and longer: on a busy machine half a second may not even suffice for the start.
        time.sleep(rng.uniform(0.05, 0.5 + 0.02 * kills))
        if process.poll() is not None:
            assert process.wait(60) == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        kills += 1
        assert kills < 200, "the jobs do not end"
    assert kills >= 3
    names_in_outbox = sorted(path.name for path in (base / "outbox/oil").iterdir())
    assert len(names_in_outbox) == 2 * len(names)
    archived = [path.read_bytes() for path in (base / "archive/oil").rglob("*.png")]
    assert sorted(archived) == sorted(originals.values())
    assert [path for path in (base / "inbox").rglob("*") if path.is_file()] == []
    assert not (base / "rejected").exists() or not list((base / "rejected").rglob("*.png"))
    for sidecar in (base / "outbox/oil").glob("*.json"):
        sidecar_content = json.loads(sidecar.read_bytes())
        data = sidecar.with_suffix("").read_bytes()
        assert sidecar_content["result"]["sha256"] == hashlib.sha256(data).hexdigest()


def work_with_threads(base: str, engines: int, names: list[str]) -> None:
    """Run all jobs with the scheduler's own loop and an I/O pool of threads, then exit."""
    harness = JobHarness(Path(base), engines=engines)
    harness.configure("queue", max_attempts=100)
    for engine in harness.engines:
        engine.on_sync = lambda: time.sleep(0.02)
    factories = [OneEngine(engine, can_replace=False) for engine in harness.engines]
    scheduler, _, events = threaded_scheduler(harness, factories)
    scheduler.recover()
    harness._styles_by_name = dict.fromkeys(names, ("oil",))
    destinations = {name: Path(name).name for name in names}
    harness.journal.submit(
        [
            Dropped(name, path.stat().st_size, path.stat().st_mtime_ns, {"oil": destinations[name]})
            for name in names
            if (path := harness.config.inbox / name).exists()
        ],
        harness.now,
    )
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    while harness.journal.unfinished_ids() or harness.journal.finished_in_inbox():
        time.sleep(0.01)
    events.put(StopRequested())
    thread.join(60)
    os._exit(0 if not thread.is_alive() else 1)


# Between any two system calls


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
    """A SIGKILL before any single system call of a job gives the same files after a restart."""
    calls = tmp_path / "calls"
    assert Forked(work_and_die, str(tmp_path / "undisturbed"), data, 0, str(calls)).wait(60) == 0
    names = calls.read_text().split()
    assert {"rename", "fsync", "execute"} <= set(names)
    for number in range(1, len(names) + 1):
        base = tmp_path / str(number)
        exit_code = Forked(work_and_die, str(base), data, number, str(calls)).wait(60)
        assert exit_code == -signal.SIGKILL, f"before call {number}"
        whole = {}
        for root in ("outbox", "archive", "rejected"):
            for path in (base / root).rglob("[!.]*.png"):
                whole[f"{root}/oil/{path.name}"] = path.read_bytes()
        harness = JobHarness(base)
        harness._styles_by_name["photo.png"] = ("oil",)
        harness.restart()
        harness.work_and_wait()
        harness.close()
        files = [
            f"{root}/{name}" for root in ("archive", "outbox", "rejected")
            for name in harness.files(root)
        ]  # fmt: skip
        sidecars = [f"{name}.json" for name in delivered if not name.startswith("archive")]
        where = f"killed before call {number}, {names[number - 1]}"
        assert files == sorted([*delivered, *sidecars]), where
        assert harness.files("inbox") == [], where
        assert (base / delivered[0]).read_bytes() == data, where
        # Files that were visible when the process died were complete.
        assert all((base / name).read_bytes() == content for name, content in whole.items()), where


DEADLY = frozenset(
    {"open", "rename", "replace", "link", "unlink", "mkdir", "fsync", "write", "flush", "execute",
     "executemany"}
)  # fmt: skip


def work_and_die(base: str, data: bytes, fatal: int, calls: str) -> None:
    """Drop a photo and run its job; die by SIGKILL before the system call number `fatal`."""
    harness = JobHarness(Path(base))
    harness.drop("photo.png", data)
    calls_made: list[str] = []
    number = itertools.count(1)

    def on_event(frame: FrameType, event: str, function: object) -> None:
        name = getattr(function, "__name__", "")
        is_log = isinstance(getattr(function, "__self__", None), io.TextIOBase)
        if event == "c_call" and name in DEADLY and not is_log:
            calls_made.append(name)
            # Not the length of the list: two threads may append before either reads it.
            if next(number) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(on_event)  # the engine's thread writes files too
    sys.setprofile(on_event)
    harness.work()
    sys.setprofile(None)
    Path(calls).write_text("\n".join(calls_made))
