"""The main job: `styled run` as a process, a real observer, real photographs, real files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image

from styled.sidecar import SCHEMA_FILE
from tests.studio import Studio

# Whole programs, on machines that may be busy with other things.
pytestmark = pytest.mark.timeout(400)


def sidecar(path: Path) -> dict[str, dict[str, object]]:
    """Read a sidecar, and check it against the schema that ships."""
    content: dict[str, dict[str, object]] = json.loads(path.read_bytes())
    jsonschema.validate(content, json.loads(SCHEMA_FILE.read_text()))
    return content


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_photo_dropped_in_the_inbox_comes_back_as_a_painting(studio: Studio) -> None:
    """Picture, sidecar, journal and archive say the same of the same job."""
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        photo = studio.drop("astronaut.jpg", "astronaut")
        dropped = sha256(photo)
        result = studio.folder / "outbox/swirls/astronaut.jpg"
        daemon.wait_until(lambda: not photo.exists())

    with Image.open(result) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (96, 96)
        assert len(picture.convert("RGB").getcolors(100_000) or []) > 500  # not blank
    facts = sidecar(result.with_name("astronaut.jpg.json"))
    assert facts["input"]["sha256"] == dropped
    assert facts["result"]["sha256"] == sha256(result)
    assert facts["style"]["name"] == "swirls"
    assert facts["recipe"]["name"] == "pyramid"
    assert facts["recipe"]["steps"] == 3
    degraded: Any = facts["degraded"]
    assert {"kind": "weights", "message": "the network is untrained"} in degraded
    assert facts["losses"]["last"]["total"] < facts["losses"]["first"]["total"]  # type: ignore[index]
    archived = studio.folder / "archive/swirls/astronaut.jpg"
    assert sha256(archived) == dropped
    with sqlite3.connect(studio.folder / "state/journal.sqlite3") as journal:
        rows = journal.execute("SELECT id, state, attempts, result FROM jobs").fetchall()
    assert rows == [(facts["job"]["id"], "done", 1, b"swirls/astronaut.jpg")]
    assert daemon.process.poll() == 0
    published = daemon.events("job.published")
    assert len(published) == 1
    assert published[0]["job"] == facts["job"]["id"]


def test_folders_decide_the_style_and_sub_paths_are_kept(studio: Studio) -> None:
    """A style's folder, a sub-path below it, and a folder that stands for two styles."""
    studio.drop("coffee/trip/day1/cat.png", "chelsea")
    studio.drop("both/rocket.jpg", "rocket")
    studio.drop("elsewhere/cat.png", "chelsea")
    done = studio.do("once")
    assert done.returncode == 0, done.stderr
    assert studio.files("outbox") == [
        "coffee/rocket.jpg",
        "coffee/rocket.jpg.json",
        "coffee/trip/day1/cat.png",
        "coffee/trip/day1/cat.png.json",
        "swirls/elsewhere/cat.png",
        "swirls/elsewhere/cat.png.json",
        "swirls/rocket.jpg",
        "swirls/rocket.jpg.json",
    ]
    assert studio.files("archive") == [
        "coffee/rocket.jpg",
        "coffee/trip/day1/cat.png",
        "swirls/elsewhere/cat.png",
        "swirls/rocket.jpg",
    ]
    assert studio.files("inbox") == []
    images = sidecar(studio.folder / "outbox/coffee/rocket.jpg.json")["style"]["images"]
    assert [image["weight"] for image in images] == [2.0, 1.0]  # type: ignore[attr-defined]


def test_bad_input_is_rejected_in_words_and_the_next_photo_is_done(studio: Studio) -> None:
    """Corrupt, text, empty, bomb and truncated files: each a reason; the good one a painting."""
    inbox = studio.folder / "inbox"
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        (inbox / "letter.jpg").write_text("Dear photographer, this is not a photo.\n")
        (inbox / "empty.png").touch()
        whole = studio.drop("whole.jpg", "coffee").read_bytes()
        corrupt = bytearray(studio.drop("corrupt.png", "chelsea").read_bytes())
        corrupt[3000:3100] = bytes(100)
        (inbox / "corrupt.png").write_bytes(corrupt)
        (inbox / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
        # Written elsewhere, because it takes so long that its first bytes would be judged alone.
        Image.new("1", (30000, 30000)).save(studio.folder / "bomb.png")
        (studio.folder / "bomb.png").rename(inbox / "bomb.png")
        daemon.wait_until(lambda: studio.files("inbox") == [])

    assert studio.files("outbox") == ["swirls/whole.jpg", "swirls/whole.jpg.json"]
    rejected = {
        name: sidecar(studio.folder / "rejected/swirls" / f"{name}.json")["rejected"]
        for name in ("letter.jpg", "empty.png", "corrupt.png", "truncated.jpg", "bomb.png")
    }
    assert "not a picture" in str(rejected["letter.jpg"]["reason"])
    assert "empty" in str(rejected["empty.png"]["reason"])
    assert "max_pixels" in str(rejected["bomb.png"]["remedies"])
    assert all(one["reason"] and one["remedies"] for one in rejected.values())
    assert (studio.folder / "rejected/swirls/letter.jpg").read_text().startswith("Dear")


def test_once_says_by_its_exit_code_that_something_was_rejected(studio: Studio) -> None:
    """`styled once` exits with 1 after a rejection."""
    (studio.folder / "inbox").mkdir()
    (studio.folder / "inbox/letter.jpg").write_text("not a photo")
    done = studio.do("once")
    assert done.returncode == 1, done.stderr


def test_a_truncated_upload_that_is_completed_later_is_done(studio: Studio) -> None:
    """Half a JPEG waits; once the rest has come it is painted and nothing is rejected."""
    # Its turn may come late on a slow machine: the time it is given must not be over by then.
    patient = studio.config.read_text().replace("grace_seconds: 2", "grace_seconds: 600")
    studio.config.write_text(patient)
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        data = studio.drop("ready.jpg", "coffee").read_bytes()
        upload = studio.folder / "inbox" / "upload.jpg"
        upload.write_bytes(data[: len(data) // 2])
        daemon.wait_for("input.awaited")
        with open(upload, "ab") as stream:
            stream.write(data[len(data) // 2 :])
        daemon.wait_until(lambda: studio.files("inbox") == [])
    assert "swirls/upload.jpg.json" in studio.files("outbox")
    assert studio.files("rejected") == []


def test_a_kill_in_the_middle_loses_nothing_and_repeats_nothing(studio: Studio) -> None:
    """After SIGKILL mid-job the next start finishes every photo exactly once."""
    for name in ("a.jpg", "b.jpg"):
        studio.drop(name, "coffee")
    with studio.running() as daemon:
        daemon.wait_for("job.published")
        daemon.wait_for("job.started", 2)
        os.kill(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait()
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
        assert len(daemon.events("job.recovered")) <= 1
    assert studio.files("outbox") == [
        f"swirls/{name}{suffix}" for name in ("a.jpg", "b.jpg") for suffix in ("", ".json")
    ]
    assert studio.files("archive") == ["swirls/a.jpg", "swirls/b.jpg"]


def test_sigterm_in_the_middle_saves_and_the_next_start_gives_the_same_picture(
    studio: Studio,
) -> None:
    """Stopped mid-job and resumed, the picture is byte for byte the undisturbed one."""
    text = studio.config.read_text().replace("steps: 3", "steps: 40\n      min_improvement: 0")
    studio.config.write_text(text)
    studio.drop("undisturbed.png", "chelsea")
    assert studio.do("once").returncode == 0
    source = studio.folder / "archive/swirls/undisturbed.png"
    shutil.copy(source, studio.folder / "inbox/stopped.png")
    with studio.running() as daemon:
        daemon.wait_for("job.started")
        with sqlite3.connect(studio.folder / "state/journal.sqlite3") as journal:
            query = "SELECT fraction FROM jobs WHERE state = 'running'"
            daemon.wait_until(lambda: (journal.execute(query).fetchone() or [0])[0] > 0.1)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(timeout=5) == 0
    assert len(studio.files("state/checkpoints")) == 1
    assert studio.files("inbox") == ["stopped.png"]
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
        assert len(daemon.events("job.resumed")) == 1
    outbox = studio.folder / "outbox/swirls"
    assert sidecar(outbox / "stopped.png.json")["job"]["resumed"] is True
    assert sidecar(outbox / "stopped.png.json")["job"]["attempts"] == 1
    assert sha256(outbox / "stopped.png") == sha256(outbox / "undisturbed.png")
    assert studio.files("state/checkpoints") == []


def test_sighup_takes_over_a_new_style(studio: Studio) -> None:
    """A style that is added while the daemon runs is used after SIGHUP; a bad file is refused."""
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        good = studio.config.read_text()
        studio.config.write_text(good.replace("styles:", "stiles:"))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.kept")
        assert "stiles" in str(daemon.events("config.kept")[0]["reason"])
        studio.config.write_text(
            good.replace(
                "  coffee:", "  latte: {image: styles/coffee.jpg, overrides: *small}\n  coffee:"
            )
        )
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.reloaded")
        studio.drop("latte/cat.png", "chelsea")
        daemon.wait_until(lambda: "latte/cat.png.json" in studio.files("outbox"))


def test_a_second_daemon_on_the_same_folders_leaves_with_73(studio: Studio) -> None:
    """The second instance names the first one's process and touches nothing."""
    with studio.running() as daemon:
        daemon.wait_for("daemon.started")
        second = studio.do("run", timeout=60)
        assert second.returncode == 73
        assert str(daemon.process.pid) in second.stderr
