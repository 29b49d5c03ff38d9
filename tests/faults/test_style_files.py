"""An initial image and a soft proof, of a style and of a photo, with a real daemon."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageCms

from tests.daemon_harness import DaemonHarness
from tests.faults.conftest import paint_slowly, wait_until_amid_a_job

SIZE = (96, 72)
WITH_FILES = "    image: styles/swirls.png\n    init_image: start.png\n    proof: paper.icc\n"


def result(harness: DaemonHarness, name: str) -> np.ndarray[Any, Any]:
    """Return the pixels of a result."""
    with Image.open(harness.folder / "outbox/swirls" / name) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_a_style_has_an_initial_image_and_a_profile(harness: DaemonHarness) -> None:
    """Both are in the sidecar; the painting is near the picture that it has started from."""
    text = harness.config.read_text()
    harness.config.write_text(text.replace("    image: styles/swirls.png\n", WITH_FILES, 1))
    Image.new("RGB", (48, 36), "navy").save(harness.folder / "start.png")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (harness.folder / "paper.icc").write_bytes(profile)
    harness.drop("a.png", "coffee", SIZE)
    harness.drop("b.png", "coffee", SIZE)
    Image.new("RGB", (96, 72), "orange").save(harness.folder / "inbox/b.png.init.png")
    with harness.running() as daemon:
        daemon.wait_for("job.published", 2)
        daemon.wait_until(lambda: harness.files("inbox") == [])
        first: Any = harness.sidecar("outbox/swirls/a.png.json")["style"]
        assert first["init_image"]["path"].endswith("start.png")
        assert first["proof"]["path"].endswith("paper.icc")
        second: Any = harness.sidecar("outbox/swirls/b.png.json")["style"]
        assert second["init_image"]["path"].endswith("b.png.init.png")
        blue, orange = result(harness, "a.png"), result(harness, "b.png")
        assert blue[..., 2].mean() > blue[..., 0].mean() + 50
        assert orange[..., 0].mean() > orange[..., 2].mean() + 100
        assert "swirls/b.png.init.png" in harness.files("archive")

        # A missing or broken profile concerns its style alone, and is waited for.
        (harness.folder / "paper.icc").write_bytes(b"no profile")
        harness.drop("c.png", "coffee", SIZE)
        harness.drop("coffee/d.png", "coffee", SIZE)
        daemon.wait_for("job.published", 3)
        (waiting,) = [job for job in harness.status()["waiting"] if job["input"] == "c.png"]
        assert "paper.icc" in waiting["reason"]
        assert "not a colour profile" in waiting["reason"]
    (harness.folder / "paper.icc").write_bytes(profile)
    with harness.running() as daemon:
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: harness.files("inbox") == [])
    assert harness.files("rejected") == []


def test_a_painting_from_an_initial_image_is_resumed(harness: DaemonHarness) -> None:
    """A checkpoint belongs to the picture that it was started from."""
    paint_slowly(harness, 60)
    results = []
    for name in ("a.png", "b.png"):
        harness.drop(name, "coffee", SIZE)
        Image.new("RGB", SIZE, "navy").save(harness.folder / f"inbox/{name}.init.png")
        with harness.running() as daemon:
            if name == "a.png":
                daemon.wait_for("job.published")
            else:
                wait_until_amid_a_job(harness, daemon)
        if name == "b.png":
            with harness.running() as daemon:
                daemon.wait_for("job.published")
                assert daemon.events("job.resumed")
        results.append(result(harness, name))
    assert np.array_equal(results[0], results[1])
