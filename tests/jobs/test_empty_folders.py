"""Sub-folders of the inbox that have become empty."""

from __future__ import annotations

from tests.job_harness import JobHarness


def test_empty_folders_are_removed_if_that_is_wanted(harness: JobHarness) -> None:
    """Those that a photo has left, up to the folder of its style; never one that is not empty."""
    harness.configure("intake", remove_empty_folders=True)
    inbox = harness.config.inbox
    (inbox / "trip/day2").mkdir(parents=True)
    (inbox / "oil").mkdir(exist_ok=True)
    harness.drop("trip/day1/one.png")
    harness.drop("oil/deep/er/two.png")
    harness.work()
    assert set(harness.states()) == {"done"}
    folders = sorted(str(p.relative_to(inbox)) for p in inbox.rglob("*") if p.is_dir())
    assert folders == ["oil", "trip", "trip/day2"]


def test_by_default_folders_stay(harness: JobHarness) -> None:
    """A program may be copying into them."""
    harness.drop("trip/day1/one.png")
    harness.work()
    assert (harness.config.inbox / "trip/day1").is_dir()
