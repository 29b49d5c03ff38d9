"""A picture that is begun with one thread count or precision and goes on with another."""

from __future__ import annotations

import io
import threading
from collections.abc import Generator
from dataclasses import replace

import pytest
import torch

from styled.engine.checkpoint import Checkpoint
from styled.engine.device import Device
from styled.engine.local import LocalEngine
from styled.engine.progress import Progress, Stylized
from styled.engine.weights import Weights
from styled.recipes import PYRAMID, Scales
from tests.engine.conftest import SHALLOW, driven, picture, untrained

CPU = Device(torch.device("cpu"), "cpu")
RECIPE = replace(SHALLOW, steps=4, scales=Scales(start_px=32), size=PYRAMID.size)
CONTENT, STYLES = picture(64, 48), [(picture(48, 48, 1), 1.0)]


@pytest.fixture(scope="module")
def engines() -> dict[str, LocalEngine]:
    """Return engines that differ in threads, with one network."""
    weights = Weights(untrained(), "untrained", "0" * 64)
    return {
        "one": LocalEngine(weights, CPU, "float32", threads=1),
        "two": LocalEngine(weights, CPU, "float32", threads=2),
    }


def begun(
    engine: LocalEngine, resume: Checkpoint | None = None
) -> Generator[Progress, None, Stylized]:
    """Return the painting, from its start or from a checkpoint."""
    return engine.stylize(CONTENT, STYLES, RECIPE, resume)


def carried_over(progress: Progress, source: LocalEngine, target: LocalEngine) -> Checkpoint:
    """Return a checkpoint after it was a file, bound to the work by each engine itself."""
    stream = io.BytesIO()
    fingerprint = source.fingerprint(CONTENT, STYLES, RECIPE)
    source.dump_checkpoint(progress.checkpoint(), fingerprint, stream)
    stream.seek(0)
    return target.load_checkpoint(stream, target.fingerprint(CONTENT, STYLES, RECIPE))


def steps_of(painting: Generator[Progress, None, Stylized], count: int) -> Progress:
    """Take some steps; return the last one's progress."""
    for _ in range(count):
        progress = next(painting)
    return progress


def test_the_result_says_so_from_the_first_step_on(engines: dict[str, LocalEngine]) -> None:
    """The degradation is in the progress after resuming and in the result, once."""
    one, two = engines["one"], engines["two"]
    resumed = begun(two, carried_over(steps_of(begun(one), 2), one, two))
    (known,) = next(resumed).degraded
    version = torch.__version__
    assert known.kind == "resumed"
    assert known.message == (
        f"resumed on cpu with 2 threads, torch {version}; begun on cpu with 1 thread, "
        f"torch {version}"
    )
    assert driven(resumed).degraded == (known,)


def test_another_precision_is_named(engines: dict[str, LocalEngine]) -> None:
    """Both are."""
    one = engines["one"]
    weights = Weights(untrained(), "untrained", "0" * 64)
    half = LocalEngine(weights, CPU, "bfloat16", threads=1)
    (known,) = next(begun(half, carried_over(steps_of(begun(one), 2), one, half))).degraded
    assert "1 thread in bfloat16" in known.message
    assert "begun on cpu with 1 thread in float32" in known.message


def test_another_torch_is_named(
    engines: dict[str, LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade between two starts is part of the story."""
    one = engines["one"]
    checkpoint = carried_over(steps_of(begun(one), 2), one, one)
    monkeypatch.setattr(torch, "__version__", "99.0")
    (known,) = next(begun(one, checkpoint)).degraded
    assert "resumed on cpu with 1 thread, torch 99.0; begun on" in known.message


def test_a_second_resume_keeps_the_origin(engines: dict[str, LocalEngine]) -> None:
    """Back on the first engine the story has both changes, in their order."""
    one, two = engines["one"], engines["two"]
    second = begun(two, carried_over(steps_of(begun(one), 2), one, two))
    third = begun(one, carried_over(steps_of(second, 2), two, one))
    first_change, second_change = driven(third).degraded
    assert "; begun on cpu with 1 thread," in first_change.message
    assert second_change.message.startswith("resumed on cpu with 1 thread,")
    assert "; before that on cpu with 2 threads," in second_change.message


def test_the_same_engine_has_nothing_to_say_and_gives_the_same_bytes(
    engines: dict[str, LocalEngine],
) -> None:
    """Resumed with the same threads, precision and torch: the undisturbed picture."""
    two = engines["two"]
    whole = driven(begun(two))
    resumed = driven(begun(two, carried_over(steps_of(begun(two), 3), two, two)))
    assert resumed.degraded == whole.degraded == ()
    assert torch.equal(resumed.image, whole.image)


def test_one_thread_count_gives_one_picture(engines: dict[str, LocalEngine]) -> None:
    """Twice the same bytes, whatever was painted with another count in between."""
    images = [driven(begun(engines[name])).image for name in ("two", "one", "two", "one")]
    assert torch.equal(images[0], images[2])
    assert torch.equal(images[1], images[3])


def test_the_count_that_is_reported_is_the_one_that_paints(
    engines: dict[str, LocalEngine],
) -> None:
    """In whichever thread that is, and whatever other threads have told torch."""
    seen: dict[str, list[int]] = {"one": [], "two": []}

    def paint(name: str) -> None:
        torch.set_num_threads(4)
        for _ in begun(engines[name]):
            seen[name].append(torch.get_num_threads())

    for name in seen:
        thread = threading.Thread(target=paint, args=(name,))
        thread.start()
        thread.join()
        assert set(seen[name]) == {engines[name].facts.threads}
    assert [engines[name].facts.threads for name in seen] == [1, 2]
