"""Settings of single photos, in files beside them, with a real daemon."""

from __future__ import annotations

import fcntl
import json
import signal
from typing import Any

from PIL import Image

from tests.daemon_harness import DaemonHarness

SIZE = (96, 72)
OFTEN = "{settle_seconds: 0.2, truncated_grace_seconds: 2, rescan_seconds: 1}"


def settings(harness: DaemonHarness, name: str, text: str) -> None:
    """Write the settings of a photo."""
    path = harness.folder / "inbox" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_photo_has_settings_of_its_own(harness: DaemonHarness) -> None:
    """Styles, size, strength and output; they are archived with it and in its sidecar."""
    settings(harness, "trip/a.jpg", "style: [coffee, swirls]\nsize: 44\nstrength: 20\nseed: 7\n"
             "output: {format: png}\noverrides: {steps: 1}\n")  # fmt: skip
    harness.drop("trip/a.jpg", "coffee", SIZE)
    harness.drop("b.jpg", "coffee", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("job.published", 3)
        daemon.wait_until(lambda: harness.files("inbox") == [])
    for style in ("coffee", "swirls"):
        sidecar: Any = harness.sidecar(f"outbox/{style}/trip/a.png.json")
        with Image.open(harness.folder / f"outbox/{style}/trip/a.png") as image:
            assert (image.format, image.size) == ("PNG", (44, 33))
        recipe = sidecar["recipe"]
        assert (recipe["strength"], recipe["steps"], recipe["seed"]) == (20, 1, 7)
        assert sidecar["input"]["settings"]["path"] == "a.jpg.yaml"
        assert sidecar["input"]["settings"]["values"]["size"] == 44
    plain: Any = harness.sidecar("outbox/swirls/b.jpg.json")
    assert plain["input"]["settings"] is None
    assert plain["recipe"]["strength"] == 50
    assert harness.files("archive") == [
        "coffee/trip/a.jpg", "coffee/trip/a.jpg.yaml", "swirls/b.jpg",
        "swirls/trip/a.jpg", "swirls/trip/a.jpg.yaml",
    ]  # fmt: skip


def test_wrong_settings_reject_the_photo_with_every_problem(harness: DaemonHarness) -> None:
    """With file and line; `retry` brings both back, and mended, the photo is painted."""
    wrong = "style: swirl\nsize: big\noutput: {quality: 0}\nmood: bad\n"
    settings(harness, "a.jpg", wrong)
    harness.drop("a.jpg", "coffee", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("job.rejected")
        # The sidecar comes last.
        daemon.wait_until(lambda: "swirls/a.jpg.json" in harness.files("rejected"))
        assert harness.files("inbox") == []
        assert harness.files("rejected") == [
            "swirls/a.jpg", "swirls/a.jpg.json", "swirls/a.jpg.yaml"
        ]  # fmt: skip
        rejected: Any = harness.sidecar("rejected/swirls/a.jpg.json")
        reason = rejected["rejected"]["reason"]
        for problem in (
            'a.jpg.yaml:1: style: "swirl" is not a style',
            "a.jpg.yaml:2: size: expected the long edge in pixels",
            "a.jpg.yaml:3: output.quality: expected",
            "a.jpg.yaml:4: mood: unknown key",
        ):
            assert problem in reason, reason
        (harness.folder / "rejected/swirls/a.jpg.yaml").write_text("style: [coffee, missing]\n")
        assert harness.do("retry", "--all").returncode == 0
        daemon.wait_for("job.rejected", 2)
        daemon.wait_until(lambda: "swirls/a.jpg.json" in harness.files("rejected"))
        again: Any = harness.sidecar("rejected/swirls/a.jpg.json")
        assert '"missing" is not a style' in again["rejected"]["reason"]
        (harness.folder / "rejected/swirls/a.jpg.yaml").write_text("style: coffee\n")
        assert harness.do("retry", "--all").returncode == 0
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: harness.files("inbox") == [])
    assert harness.files("archive") == ["coffee/a.jpg", "coffee/a.jpg.yaml"]
    assert harness.files("rejected") == []


def test_wrong_settings_are_reported_before_the_photos_turn(harness: DaemonHarness) -> None:
    """Status and log name them as soon as the photo arrives; mended in time, it is painted."""
    harness.configure(intake=OFTEN)
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        assert harness.do("pause").returncode == 0
        settings(harness, "a.jpg", "strength: much\n")
        harness.drop("a.jpg", "coffee", SIZE)
        daemon.wait_for("settings.invalid")
        (problem,) = harness.status()["invalid_settings"]
        assert problem["path"] == "a.jpg"
        assert "a.jpg.yaml:1: strength: expected" in problem["reason"]
        settings(harness, "a.jpg", "strength: 70\n")
        daemon.wait_until(lambda: harness.status()["invalid_settings"] == [])
        assert harness.do("resume").returncode == 0
        daemon.wait_for("job.published")
    assert harness.files("rejected") == []


def test_a_queued_photo_is_not_shown_as_arriving_after_a_restart(harness: DaemonHarness) -> None:
    """What was accepted before, for instance after its grace, waits for nothing but its turn."""
    harness.configure(intake=OFTEN)
    photo = harness.drop("a.jpg", "coffee", SIZE)
    truncated = photo.read_bytes()[:-600]
    photo.unlink()
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        assert harness.do("pause").returncode == 0
        photo.write_bytes(truncated)
        daemon.wait_for("jobs.submitted")
        assert len(daemon.events("input.incomplete")) == 1
    harness.configure(intake=OFTEN.replace("grace_seconds: 2", "grace_seconds: 600"))
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        assert harness.do("explain", "a.jpg").stdout.startswith(f"{photo}: waiting")
        assert harness.status()["incomplete"] == []
        assert harness.do("resume").returncode == 0
        daemon.wait_for("job.rejected")
    assert daemon.events("input.incomplete") == []


def test_settings_are_never_photos(harness: DaemonHarness) -> None:
    """Not even where all other files are rejected, and without a photo beside them."""
    harness.configure(intake=OFTEN.replace("}", ", not_pictures: reject}"))
    settings(harness, "lonely.jpg", "style: coffee\n")
    (harness.folder / "inbox/lonely.png.mask.png").write_bytes(b"whatever")
    harness.drop("a.jpg", "coffee", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("job.published")
        explained = harness.do("explain", "lonely.jpg.yaml").stdout
        assert "it belongs to lonely.jpg and goes where that goes" in explained
    assert harness.files("rejected") == []
    assert harness.files("inbox") == ["lonely.jpg.yaml", "lonely.png.mask.png"]


def test_deleted_and_kept_photos(harness: DaemonHarness) -> None:
    """Their settings are deleted and kept as well; a kept photo is painted once."""
    for after, left in (("delete", []), ("keep", ["a.jpg", "a.jpg.yaml"])):
        harness.configure(output=f"{{after_success: {after}}}", intake=OFTEN)
        settings(harness, "a.jpg", "strength: 70\n")
        harness.drop("a.jpg", "coffee", SIZE)
        with harness.running() as daemon:
            daemon.wait_for("job.published")
            daemon.wait_until(lambda left=left: harness.files("inbox") == left)  # type: ignore[misc]
        assert harness.files("archive") == []


def test_no_settings_stop_the_others(harness: DaemonHarness) -> None:
    """Numbers, characters and directives on which the YAML reader itself fails, and odd names."""
    hostile = {
        "a.jpg": "strength: " + "1:" * 300 + "1.0\n",
        "b.jpg": 'style: "\\UFFFFFFFF"\n',
        "c.jpg": "%YAML 1." + "9" * 5000 + "\n---\nstrength: 5\n",
        "d.jpg": 'mask: "\\ud800.mask.png"\n',
        "e.jpg": f"mask: {'x' * 300}.mask.png\n",
        "f.jpg": "when: 2026-01-01\n? [a]\n: b\n",
        "g.jpg": "strength: .nan\nsize: {megapixels: .inf}\n",
    }
    for name, text in hostile.items():
        settings(harness, name, text)
        harness.drop(name, "coffee", SIZE)
    harness.drop("z.jpg", "coffee", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("job.published")
        daemon.wait_for("job.rejected", len(hostile))
        daemon.wait_until(lambda: harness.files("inbox") == [])
        names = {json.loads(line)["event"] for line in daemon.log.read_text().splitlines()}
    assert not names & {
        "intake.internal_error",
        "io.internal_error",
        "job.internal_error",
        "settings.not_read",
    }
    for name in hostile:
        rejected: Any = harness.sidecar(f"rejected/swirls/{name}.json")
        assert f"{name}.yaml" in rejected["rejected"]["reason"]


def test_only_the_style_that_failed_is_painted_again(harness: DaemonHarness) -> None:
    """`retry` of one of several styles leaves the others as they are."""
    settings(harness, "b.jpg", "style: [swirls, coffee]\nmask: none.mask.png\n")
    harness.drop("b.jpg", "coffee", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("job.rejected", 2)
        daemon.wait_until(lambda: "b.jpg" not in harness.files("inbox"))
        path = harness.folder / "rejected/coffee/b.jpg.yaml"
        path.write_text("style: [swirls, coffee]\n")
        assert harness.do("retry", str(path.with_suffix(""))).returncode == 0
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: "coffee/b.jpg" not in harness.files("inbox"))
    assert harness.files("outbox") == ["coffee/b.jpg", "coffee/b.jpg.json"]
    assert "swirls/b.jpg" in harness.files("rejected")


def test_settings_that_can_not_be_read_yet_are_waited_for(harness: DaemonHarness) -> None:
    """As while Samba's client has the file: the photo is not painted in another style."""
    harness.configure(intake=OFTEN)
    settings(harness, "a.jpg", "style: coffee\n")
    path = harness.folder / "inbox/a.jpg.yaml"
    harness.drop("a.jpg", "coffee", SIZE)
    # The kernel sends it to who has the lease, when the daemon tries to open the file.
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    with open(path, "r+b") as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with harness.running() as daemon:
            daemon.wait_for("input.incomplete")
            assert daemon.events("job.claimed") == []
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            file.close()
            daemon.wait_for("job.published")
    signal.signal(signal.SIGIO, before)
    assert harness.files("outbox") == ["coffee/a.jpg", "coffee/a.jpg.json"]


def test_files_of_no_use_beside_photos_are_reported(harness: DaemonHarness) -> None:
    """Links, other letters, masks without a photo; folders with such names hold photos."""
    harness.configure(intake=OFTEN)
    inbox = harness.folder / "inbox"
    harness.drop("trip.init.png/a.jpg", "coffee", SIZE)
    (inbox / "b.jpg.mask.png").symlink_to("elsewhere.png")
    (inbox / "c.jpg.MASK.PNG").write_bytes(b"")
    (inbox / "hall.mask.png").write_bytes(b"")
    with harness.running() as daemon:
        daemon.wait_for("job.published")
        status = harness.status()
    reasons = {one["path"]: one["reason"] for one in status["skipped"]}
    assert "not a regular file" in reasons["b.jpg.mask.png"]
    assert "capital letters" in reasons["c.jpg.MASK.PNG"]
    assert status["not_pictures"] == 1
    assert harness.files("archive") == ["swirls/trip.init.png/a.jpg"]
