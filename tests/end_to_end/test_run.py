"""`styled run` as a process, with a real inotify observer, real photos and real files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import skimage.data
from PIL import Image

from styled.sidecar import SCHEMA_FILE
from tests.daemon_harness import DaemonHarness

# Long, because whole programs run, possibly on a busy machine.
pytestmark = pytest.mark.timeout(400)


def sidecar(path: Path) -> dict[str, dict[str, object]]:
    """Read a sidecar, and check it against the JSON Schema of the package."""
    content: dict[str, dict[str, object]] = json.loads(path.read_bytes())
    jsonschema.validate(content, json.loads(SCHEMA_FILE.read_text()))
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as a hexadecimal string."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_photo_dropped_in_the_inbox_comes_back_as_a_painting(harness: DaemonHarness) -> None:
    """A dropped photo gives a result, sidecar, journal row and archived photo that agree."""
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        photo = harness.drop("astronaut.jpg", "astronaut")
        photo_sha256 = sha256(photo)
        result = harness.folder / "outbox/swirls/astronaut.jpg"
        daemon.wait_until(lambda: not photo.exists())

    with Image.open(result) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (96, 96)
        assert len(picture.convert("RGB").getcolors(100_000) or []) > 500  # not blank
    content = sidecar(result.with_name("astronaut.jpg.json"))
    assert content["input"]["sha256"] == photo_sha256
    assert content["result"]["sha256"] == sha256(result)
    assert content["style"]["name"] == "swirls"
    assert content["recipe"]["name"] == "pyramid"
    assert content["recipe"]["steps"] == 3
    degraded: Any = content["degraded"]
    assert {"kind": "weights", "message": "the network is untrained"} in degraded
    assert content["losses"]["last"]["total"] < content["losses"]["first"]["total"]  # type: ignore[index]
    archived = harness.folder / "archive/swirls/astronaut.jpg"
    assert sha256(archived) == photo_sha256
    with closing(sqlite3.connect(harness.folder / "state/journal.sqlite3")) as journal:
        rows = journal.execute("SELECT id, state, attempts, result FROM jobs").fetchall()
    assert rows == [(content["job"]["id"], "done", 1, b"swirls/astronaut.jpg")]
    assert daemon.process.poll() == 0
    published = daemon.events("job.published")
    assert len(published) == 1
    assert published[0]["job"] == content["job"]["id"]


def test_folders_decide_the_style_and_sub_paths_are_kept(harness: DaemonHarness) -> None:
    """The inbox folder selects the style, or two styles, and the path below it is kept."""
    harness.drop("coffee/trip/day1/cat.png", "chelsea")
    harness.drop("both/rocket.jpg", "rocket")
    harness.drop("elsewhere/cat.png", "chelsea")
    completed = harness.do("once")
    assert completed.returncode == 0, completed.stderr
    assert harness.files("outbox") == [
        "coffee/rocket.jpg",
        "coffee/rocket.jpg.json",
        "coffee/trip/day1/cat.png",
        "coffee/trip/day1/cat.png.json",
        "swirls/elsewhere/cat.png",
        "swirls/elsewhere/cat.png.json",
        "swirls/rocket.jpg",
        "swirls/rocket.jpg.json",
    ]
    assert harness.files("archive") == [
        "coffee/rocket.jpg",
        "coffee/trip/day1/cat.png",
        "swirls/elsewhere/cat.png",
        "swirls/rocket.jpg",
    ]
    assert harness.files("inbox") == []
    images = sidecar(harness.folder / "outbox/coffee/rocket.jpg.json")["style"]["images"]
    assert [image["weight"] for image in images] == [2.0, 1.0]  # type: ignore[attr-defined]


def test_bad_input_is_rejected_in_words_and_the_next_photo_is_done(harness: DaemonHarness) -> None:
    """Corrupt, text, empty, huge and truncated files are rejected with reasons; others are done."""
    inbox = harness.folder / "inbox"
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        (inbox / "letter.jpg").write_text("Dear photographer, this is not a photo.\n")
        (inbox / "empty.png").touch()
        data = harness.drop("whole.jpg", "coffee").read_bytes()
        buffer = io.BytesIO()
        Image.fromarray(skimage.data.chelsea()).save(buffer, "png")  # type: ignore[no-untyped-call]  # it has no types
        corrupt = bytearray(buffer.getvalue())
        corrupt[3000:3100] = bytes(100)
        (inbox / "corrupt.png").write_bytes(corrupt)
        (inbox / "truncated.jpg").write_bytes(data[: len(data) // 2])
        # Saved elsewhere and renamed: writing takes so long that a partial file could be read.
        Image.new("1", (30000, 30000)).save(harness.folder / "bomb.png")
        (harness.folder / "bomb.png").rename(inbox / "bomb.png")
        daemon.wait_until(lambda: harness.files("inbox") == [])

    assert harness.files("outbox") == ["swirls/whole.jpg", "swirls/whole.jpg.json"]
    rejected = {
        name: sidecar(harness.folder / "rejected/swirls" / f"{name}.json")["rejected"]
        for name in ("letter.jpg", "empty.png", "corrupt.png", "truncated.jpg", "bomb.png")
    }
    assert "not a picture" in str(rejected["letter.jpg"]["reason"])
    assert "empty" in str(rejected["empty.png"]["reason"])
    assert "max_pixels" in str(rejected["bomb.png"]["remedies"])
    assert all(entry["reason"] and entry["remedies"] for entry in rejected.values())
    assert (harness.folder / "rejected/swirls/letter.jpg").read_text().startswith("Dear")


def test_once_says_by_its_exit_code_that_something_was_rejected(harness: DaemonHarness) -> None:
    """`styled once` exits with 1 after a rejection."""
    (harness.folder / "inbox").mkdir()
    (harness.folder / "inbox/letter.jpg").write_text("not a photo")
    completed = harness.do("once")
    assert completed.returncode == 1, completed.stderr


def test_a_truncated_upload_that_is_completed_later_is_done(harness: DaemonHarness) -> None:
    """A truncated JPEG waits, and is done once it is complete; nothing is rejected."""
    # On a slow machine it may be read late; its grace period must not have passed by then.
    config = harness.config.read_text().replace("grace_seconds: 2", "grace_seconds: 600")
    harness.config.write_text(config)
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        data = harness.drop("ready.jpg", "coffee").read_bytes()
        upload = harness.folder / "inbox" / "upload.jpg"
        upload.write_bytes(data[: len(data) // 2])
        daemon.wait_for("input.incomplete")
        with open(upload, "ab") as stream:
            stream.write(data[len(data) // 2 :])
        daemon.wait_until(lambda: harness.files("inbox") == [])
    assert "swirls/upload.jpg.json" in harness.files("outbox")
    assert harness.files("rejected") == []


def test_a_kill_in_the_middle_loses_nothing_and_repeats_nothing(harness: DaemonHarness) -> None:
    """After SIGKILL mid-job the next start finishes every photo exactly once."""
    for name in ("a.jpg", "b.jpg"):
        harness.drop(name, "coffee")
    with harness.running() as daemon:
        daemon.wait_for("job.published")
        daemon.wait_for("job.painting_started", 2)
        os.kill(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait()
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
        # The first one may have been published just before that was in the journal.
        assert len(daemon.events("job.painting_started")) <= 1
    assert harness.files("outbox") == [
        f"swirls/{name}{suffix}" for name in ("a.jpg", "b.jpg") for suffix in ("", ".json")
    ]
    assert harness.files("archive") == ["swirls/a.jpg", "swirls/b.jpg"]


def test_sigterm_in_the_middle_saves_and_the_next_start_gives_the_same_picture(
    harness: DaemonHarness,
) -> None:
    """A job stopped by SIGTERM and resumed gives the same bytes as an uninterrupted job."""
    text = harness.config.read_text().replace("steps: 3", "steps: 40\n      min_improvement: 0")
    harness.config.write_text(text)
    harness.take_time(0.05)
    harness.drop("undisturbed.png", "chelsea")
    assert harness.do("once").returncode == 0
    source = harness.folder / "archive/swirls/undisturbed.png"
    shutil.copy(source, harness.folder / "inbox/stopped.png")
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        with closing(sqlite3.connect(harness.folder / "state/journal.sqlite3")) as journal:
            query = "SELECT fraction FROM jobs WHERE state = 'running'"
            daemon.wait_until(lambda: (journal.execute(query).fetchone() or [0])[0] > 0.1)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(timeout=15) == 0
    assert len(harness.files("state/checkpoints")) == 1
    assert harness.files("inbox") == ["stopped.png"]
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
        assert len(daemon.events("job.resumed")) == 1
    outbox = harness.folder / "outbox/swirls"
    assert sidecar(outbox / "stopped.png.json")["job"]["resumed"] is True
    assert sidecar(outbox / "stopped.png.json")["job"]["attempts"] == 1
    assert sha256(outbox / "stopped.png") == sha256(outbox / "undisturbed.png")
    assert harness.files("state/checkpoints") == []


def test_sighup_takes_over_a_new_style(harness: DaemonHarness) -> None:
    """SIGHUP loads a style that was added to the configuration; an invalid file is refused."""
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        good = harness.config.read_text()
        harness.config.write_text(good.replace("styles:", "stiles:"))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.rejected")
        assert "stiles" in str(daemon.events("config.rejected")[0]["reason"])
        harness.config.write_text(
            good.replace(
                "  coffee:", "  latte: {image: styles/coffee.jpg, overrides: *small}\n  coffee:"
            )
        )
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.reloaded")
        harness.drop("latte/cat.png", "chelsea")
        daemon.wait_until(lambda: "latte/cat.png.json" in harness.files("outbox"))


def test_a_second_daemon_on_the_same_folders_leaves_with_73(harness: DaemonHarness) -> None:
    """A second daemon on the same folders exits with 73 and names the first one's process ID."""
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        second = harness.do("run", timeout=60)
        assert second.returncode == 73
        assert str(daemon.process.pid) in second.stderr
