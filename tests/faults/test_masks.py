"""Masks with a real daemon: where a photo is painted, and where it stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests.daemon_harness import DaemonHarness
from tests.faults.conftest import paint_slowly, wait_until_amid_a_job

SIZE = (96, 72)


def write_mask(path: Path, size: tuple[int, int] = SIZE) -> np.ndarray[Any, Any]:
    """Write a mask that is black on the left, grey in the middle and white on the right."""
    values = np.zeros((size[1], size[0]), dtype=np.uint8)
    values[:, size[0] // 3 :] = 128
    values[:, 2 * size[0] // 3 :] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return values


def coffee(size: tuple[int, int]) -> Image.Image:
    """Return a real photo."""
    return Image.fromarray(getattr(skimage.data, "coffee")()).resize(size)  # noqa: B009  # untyped


@pytest.mark.parametrize("bits", [8, 16])
def test_black_stays_the_photo_bit_for_bit(harness: DaemonHarness, bits: int) -> None:
    """At the result's size, which is the photo's own here; white is painted, grey is between."""
    harness.configure(output="{size: input}")
    photo = harness.folder / "inbox/a.png"
    photo.parent.mkdir()
    pixels = np.asarray(coffee(SIZE))
    if bits == 16:  # Pillow can't write 16-bit RGB; the mask may have 16 bits all the same
        values = write_mask(photo.with_name("a.png.mask.png")).astype(np.uint16) * 257
        Image.fromarray(values).save(photo.with_name("a.png.mask.png"))
    else:
        write_mask(photo.with_name("a.png.mask.png"))
    Image.fromarray(pixels).save(photo)
    with harness.running() as daemon:
        daemon.wait_for("job.published")
        daemon.wait_until(lambda: harness.files("inbox") == [])
    with Image.open(harness.folder / "outbox/swirls/a.png") as image:
        painted = np.asarray(image.convert("RGB"))
    difference = np.abs(painted.astype(int) - pixels.astype(int)).max(axis=2)
    third = SIZE[0] // 3
    assert difference[:, : third - 1].max() == 0
    assert difference[:, 2 * third + 1 :].mean() > 1
    sidecar: Any = harness.sidecar("outbox/swirls/a.png.json")
    assert sidecar["input"]["mask"]["path"] == "a.png.mask.png"
    assert harness.files("archive") == ["swirls/a.png", "swirls/a.png.mask.png"]


def test_a_shared_mask_is_named_in_the_settings(harness: DaemonHarness) -> None:
    """It stays; one that is missing, black or broken rejects the photo, and says why."""
    inbox = harness.folder / "inbox"
    write_mask(inbox / "frame.mask.png", (30, 20))  # too small to be a picture
    write_mask(inbox / "all.mask.png", (48, 36))
    Image.new("L", SIZE).save(inbox / "black.mask.png")
    for name, mask in (
        ("a", "all.mask.png"), ("b", "missing.mask.png"), ("c", "black.mask.png"),
        ("d", "frame.mask.png"), ("e", "../../config.yaml"),
    ):  # fmt: skip
        (inbox / f"{name}.jpg.yaml").write_text(f"mask: {mask}\n")
        harness.drop(f"{name}.jpg", "coffee", SIZE)
    with harness.running() as daemon:
        daemon.wait_for("job.published")
        daemon.wait_for("job.rejected", 4)
        daemon.wait_until(lambda: len(harness.files("inbox")) == 3)
    assert harness.files("inbox") == ["all.mask.png", "black.mask.png", "frame.mask.png"]
    reasons = {
        name: str(harness.sidecar(f"rejected/swirls/{name}.jpg.json")["rejected"]["reason"])
        for name in "bcde"
    }
    assert "name the mask missing.mask.png, which is not there" in reasons["b"]
    assert "the mask leaves nothing to paint" in reasons["c"]
    assert "the mask is too small" in reasons["d"]
    assert "e.jpg.yaml:1: mask: expected the name of a file beside the photo" in reasons["e"]


def test_a_masked_photo_is_resumed(harness: DaemonHarness) -> None:
    """A stop and a start in the middle give the same picture as one run."""
    paint_slowly(harness, 60)
    results = []
    for name in ("a", "b"):
        write_mask(harness.folder / f"inbox/{name}.png.mask.png")
        coffee(SIZE).save(harness.folder / f"inbox/{name}.png")
        with harness.running() as daemon:
            daemon.wait_for("job.painting_started")
            if name == "b":
                wait_until_amid_a_job(harness, daemon)
            else:
                daemon.wait_for("job.published")
        if name == "b":
            with harness.running() as daemon:
                daemon.wait_for("job.published")
                assert daemon.events("job.resumed")
        with Image.open(harness.folder / f"outbox/swirls/{name}.png") as image:
            results.append(np.asarray(image))
    assert np.array_equal(results[0], results[1])
