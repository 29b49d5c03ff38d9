"""Styles that are added, replaced and removed while a real daemon runs."""

from __future__ import annotations

import shutil

from tests.daemon_harness import DaemonHarness
from tests.faults.conftest import QUICK

SETTINGS = f"recipe: udacity\noverrides: {{size: {{long_edge: 48}}, {QUICK}}}\n"
SIZE = (96, 72)


def test_a_painting_that_is_dropped_is_a_style(harness: DaemonHarness) -> None:
    """Its inbox folder appears within seconds, and photos in it are painted; without a reload."""
    pictures = harness.folder / "more styles"
    harness.configure(
        styles_folder="more styles", intake="{settle_seconds: 0.2, rescan_seconds: 1}"
    )
    inbox = harness.folder / "inbox"
    with harness.running() as daemon:
        daemon.wait_for("daemon.started")
        assert pictures.is_dir()
        (pictures / "wave.yaml").write_text(SETTINGS)
        shutil.copy(harness.folder / "styles/swirls.png", pictures / "wave.png")
        daemon.wait_until((inbox / "wave").is_dir, 20)
        harness.drop("wave/a.jpg", "coffee", SIZE)
        daemon.wait_for("job.published")
        assert harness.sidecar("outbox/wave/a.jpg.json")["recipe"]["name"] == "udacity"

        # A photo's own settings may name it, too.
        (inbox / "own.jpg.yaml").write_text("style: [wave, swirls]\n")
        harness.drop("own.jpg", "coffee", SIZE)
        daemon.wait_until(lambda: "own.jpg" not in harness.files("inbox"))
        results = [name for name in harness.files("outbox") if name.endswith("own.jpg")]
        assert results == ["swirls/own.jpg", "wave/own.jpg"]

        # A replaced picture is used for the next photo.
        shutil.copy(harness.folder / "styles/coffee.jpg", pictures / "new")
        (pictures / "new").rename(pictures / "wave.png")
        harness.drop("wave/b.jpg", "coffee", SIZE)
        daemon.wait_for("job.published", 4)
        first, second = (harness.sidecar(f"outbox/wave/{name}.jpg.json")["style"] for name in "ab")
        assert first != second

        # A broken picture or broken settings are said, and hold up nothing else.
        (pictures / "broken.png").write_bytes(b"no picture")
        (pictures / "broken.yaml").write_text(SETTINGS)
        daemon.wait_until((inbox / "broken").is_dir, 20)
        daemon.wait_until(lambda: any("broken" in one for one in harness.status()["problems"]))
        (pictures / "wave.yaml").write_text("recipe: no such\n")
        daemon.wait_for("config.rejected")
        assert "wave.yaml:1: recipe" in str(daemon.events("config.rejected")[-1]["reason"])
        harness.drop("wave/c.jpg", "coffee", SIZE)
        daemon.wait_for("job.published", 5)

        # Mended, and removed: photos of a style that is gone belong to no style.
        (pictures / "wave.yaml").write_text(SETTINGS)
        shutil.copy(harness.folder / "styles/swirls.png", pictures / "broken.png")
        daemon.wait_until(lambda: harness.status()["problems"] == [], 20)
        for name in ("broken.png", "broken.yaml"):
            (pictures / name).unlink()
        reloads = len(daemon.events("config.reloaded"))
        daemon.wait_until(lambda: len(daemon.events("config.reloaded")) > reloads, 20)
        assert "broken" not in str(daemon.events("config.reloaded")[-1]["styles"])
