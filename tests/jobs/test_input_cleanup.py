"""How an input leaves the inbox."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import pytest

from styled.errors import ResourceUnavailable
from styled.jobs import input_cleanup
from styled.jobs.input_cleanup import InputCleanup
from styled.jobs.job import Job, JobState
from tests.jobs.conftest import JobHarness, picture


def end(shop: JobHarness, *states: JobState) -> list[Job]:
    """Claim and end the jobs one after the other, as if they had been worked on."""
    jobs = []
    for state in states:
        job = shop.journal.claim(shop.now)
        assert job is not None
        shop.journal.finish(job, state, shop.now, reason="because", failure="input")
        jobs.append(job)
    return jobs


AfterSuccess = Literal["archive", "keep", "delete"]


def release(shop: JobHarness, job: Job, after_success: AfterSuccess = "archive") -> None:
    output = shop.config.output.model_copy(update={"after_success": after_success})
    config = replace(shop.config, output=output)
    InputCleanup(config, shop.journal, shop.publisher, shop.mounts, shop.time_of_day).release_input(
        job
    )


def test_an_input_with_work_left_stays(shop: JobHarness) -> None:
    """Nothing leaves, or is copied, while a job of the same input is still to be done."""
    shop.drop("photo.png", None, "oil", "ink")
    (job,) = end(shop, JobState.REJECTED)
    release(shop, job)
    assert shop.files("inbox") == ["photo.png"]
    assert shop.files("rejected") == []


def test_releasing_twice_changes_nothing(shop: JobHarness) -> None:
    """Everything may be repeated: the second time finds the input gone and all in place."""
    shop.drop("photo.png", None, "oil", "ink")
    jobs = end(shop, JobState.DONE, JobState.REJECTED)
    for job in jobs * 2:
        release(shop, job)
    assert shop.files("archive") == ["oil/photo.png"]
    assert shop.files("rejected") == ["ink/photo.png", "ink/photo.png.json"]
    assert shop.files("inbox") == []


def test_a_kept_original_stays_known_until_it_is_gone(shop: JobHarness) -> None:
    """A kept photo is not taken for a new one; once it was removed, it may come again."""
    path = shop.drop()
    (job,) = end(shop, JobState.DONE)
    release(shop, job, "keep")
    assert shop.rescan() == 0
    facts, data = path.stat(), path.read_bytes()
    path.unlink()
    release(shop, job, "keep")
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert shop.rescan() == 1


@pytest.mark.parametrize("after_success", ["archive", "keep", "delete"])
def test_a_rejected_original_always_leaves(shop: JobHarness, after_success: AfterSuccess) -> None:
    """`after_success` decides about successes alone: what failed goes to `rejected`."""
    shop.drop()
    (job,) = end(shop, JobState.REJECTED)
    release(shop, job, after_success)
    assert shop.files("inbox") == []
    assert shop.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]


def test_a_rejection_is_dated_when_it_was_decided(shop: JobHarness) -> None:
    """However late the original can be moved, the sidecar tells when the job ended."""
    shop.drop()
    (job,) = end(shop, JobState.REJECTED)
    shop.advance(3600)
    release(shop, job)
    finished_at = shop.sidecar("rejected/oil/photo.png.json")["job"]["finished_at"]
    assert datetime.fromisoformat(finished_at).timestamp() == shop.now - 3600


def test_a_rejected_input_that_was_taken_away_leaves_its_reason(shop: JobHarness) -> None:
    """Without the original there still is a sidecar, which says that the file has changed."""
    shop.drop().unlink()
    (job,) = end(shop, JobState.REJECTED)
    release(shop, job)
    assert shop.files("rejected") == ["oil/photo.png.json"]
    facts = shop.sidecar("rejected/oil/photo.png.json")["input"]
    assert facts["changed"]
    assert facts["sha256"] is None


def test_the_digest_of_a_rejection_is_never_that_of_another_file(shop: JobHarness) -> None:
    """A file that has replaced the rejected one stays, and is not described in its stead."""
    path = shop.drop()
    (job,) = end(shop, JobState.REJECTED)
    path.write_bytes(picture("olive", (44, 44)))
    release(shop, job)
    assert path.exists()
    facts = shop.sidecar("rejected/oil/photo.png.json")["input"]
    assert facts["sha256"] is None
    assert facts["changed"]


def test_a_moved_original_whose_name_is_in_use_again_is_not_moved_twice(shop: JobHarness) -> None:
    """After a death between move and note, a new file of that name changes nothing."""
    path = shop.drop()
    (job,) = end(shop, JobState.REJECTED)
    place = shop.config.rejected / "oil/photo.png"
    shop.journal.reserve_original(job, place)
    place.parent.mkdir(parents=True)
    path.rename(place)
    path.write_bytes(picture("olive", (44, 44)))
    release(shop, job)
    assert shop.files("rejected") == ["oil/photo.png", "oil/photo.png.json"]
    facts = shop.sidecar("rejected/oil/photo.png.json")["input"]
    assert facts["sha256"] == hashlib.sha256(picture()).hexdigest()
    assert path.read_bytes() == picture("olive", (44, 44))


def test_a_cancelled_photo_that_is_still_there_stays_and_stays_known(shop: JobHarness) -> None:
    """A job cancelled while its photo lies in the inbox does not start again by itself."""
    shop.drop()
    (job,) = end(shop, JobState.CANCELLED)
    release(shop, job)
    assert shop.files("inbox") == ["photo.png"]
    assert shop.rescan() == 0


def test_without_its_inbox_no_input_is_forgotten(shop: JobHarness) -> None:
    """A missing inbox is a resource to wait for, not proof that the photo has left."""
    shop.drop()
    (job,) = end(shop, JobState.DONE)
    shop.config.inbox.rename(shop.base / "elsewhere")
    with pytest.raises(ResourceUnavailable, match="inbox"):
        release(shop, job)
    assert shop.journal.finished_in_inbox() != []


@pytest.mark.parametrize("after_success", ["archive", "keep", "delete"])
def test_a_rewritten_input_is_known_by_its_bytes(
    shop: JobHarness, after_success: AfterSuccess
) -> None:
    """Size and date may be the same: it stays, the sidecar says so, and it is painted too."""
    shop.configure("output", after_success=after_success)
    old = picture("teal")
    new = bytes(reversed(old[-200:]))
    path = shop.drop("photo.png", old)
    facts = path.stat()

    def rewrite(step: int) -> None:
        if step == 2:
            path.write_bytes(old[:-200] + new)
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    shop.engine.at_step = rewrite
    shop.work_on_one()
    shop.engine.at_step = lambda step: None
    assert shop.sidecar("outbox/oil/photo.png.json")["input"]["changed"] is True
    assert shop.files("archive") == []
    assert path.read_bytes() == old[:-200] + new
    assert shop.rescan() == 1


def test_a_folder_that_became_a_link_leads_nowhere(shop: JobHarness) -> None:
    """The file of the same name behind it is neither painted nor moved."""
    inside = shop.drop("sub/photo.png")
    elsewhere = shop.base / "elsewhere"
    inside.parent.rename(elsewhere)
    inside.parent.symlink_to(elsewhere)
    shop.work()
    assert shop.states() == ["cancelled"]
    assert shop.files("elsewhere") == ["photo.png"]
    assert shop.files("outbox") == shop.files("archive") == []


def test_what_is_kept_is_not_read_again_and_again(
    shop: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tidying up looks at size and date: there may be ten thousand of them."""
    shop.configure("output", after_success="keep")
    path = shop.drop()
    shop.work()

    def read(path: Path) -> str:
        raise AssertionError("nobody asked for its bytes")

    monkeypatch.setattr(input_cleanup, "sha256_of", read)
    shop.tidy()
    assert shop.rescan() == 0
    path.unlink()
    shop.tidy()
    shop.drop()
    assert shop.states() == ["done", "queued"]
