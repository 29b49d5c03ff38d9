"""Pictures that are resumed with another thread count, precision or torch version."""

from __future__ import annotations

import io
import threading
from dataclasses import replace

import pytest
import torch

from styled.degradation import Degradation
from styled.engine.device import Device
from styled.engine.local_engine import LocalEngine
from styled.engine.weights import Weights
from styled.engine_api import Degraded, Progress, Stopped
from styled.recipes import PYRAMID, Scales
from tests.engine.conftest import (
    SHALLOW,
    checkpoint_after,
    painted_by,
    picture,
    task_of,
    untrained,
)

CPU = Device(torch.device("cpu"), "cpu")
RECIPE = replace(SHALLOW, steps=4, scales=Scales(start_px=32), size=PYRAMID.size)
CONTENT, STYLES = picture(64, 48), [(picture(48, 48, 1), 1.0)]


@pytest.fixture(scope="module")
def engines() -> dict[str, LocalEngine]:
    """Return two engines with the same weights and different thread counts."""
    weights = Weights(untrained(), "untrained", "0" * 64)
    return {
        "one": LocalEngine(weights, CPU, "float32", threads=1),
        "two": LocalEngine(weights, CPU, "float32", threads=2),
    }


TASK = task_of(CONTENT, STYLES, RECIPE)


def first_degradations(engine: LocalEngine, checkpoint: bytes) -> tuple[Degradation, ...]:
    """Return the degradations reported before the first progress after resuming."""
    for event in engine.run(TASK, io.BytesIO(checkpoint)):
        if isinstance(event, Degraded):
            return event.degraded
        if isinstance(event, Progress):
            break
    return ()


def test_the_result_says_so_from_the_first_step_on(engines: dict[str, LocalEngine]) -> None:
    """The degradation is reported at the first step after resuming, and is in the result once."""
    one, two = engines["one"], engines["two"]
    checkpoint = checkpoint_after(one, TASK, 2)
    (degradation,) = first_degradations(two, checkpoint)
    version = torch.__version__
    assert degradation.kind == "resumed"
    assert degradation.message == (
        f"resumed on cpu with 2 threads, torch {version}; begun on cpu with 1 thread, "
        f"torch {version}"
    )
    assert painted_by(two, TASK, checkpoint).degraded == (degradation,)


def test_another_precision_is_named(engines: dict[str, LocalEngine]) -> None:
    """The degradation names both precisions."""
    one = engines["one"]
    weights = Weights(untrained(), "untrained", "0" * 64)
    half = LocalEngine(weights, CPU, "bfloat16", threads=1)
    (degradation,) = first_degradations(half, checkpoint_after(one, TASK, 2))
    assert "1 thread in bfloat16" in degradation.message
    assert "begun on cpu with 1 thread in float32" in degradation.message


def test_another_torch_is_named(
    engines: dict[str, LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The degradation names both versions of torch."""
    one = engines["one"]
    checkpoint = checkpoint_after(one, TASK, 2)
    monkeypatch.setattr(torch, "__version__", "99.0")
    (degradation,) = first_degradations(one, checkpoint)
    assert "resumed on cpu with 1 thread, torch 99.0; begun on" in degradation.message


def test_a_second_resume_keeps_the_origin(engines: dict[str, LocalEngine]) -> None:
    """After two changes there are two degradations, in order."""
    one, two = engines["one"], engines["two"]
    second = checkpoint_after(two, TASK, 2, checkpoint_after(one, TASK, 2))
    first_change, second_change = painted_by(one, TASK, second).degraded
    assert "; begun on cpu with 1 thread," in first_change.message
    assert second_change.message.startswith("resumed on cpu with 1 thread,")
    assert "; before that on cpu with 2 threads," in second_change.message


def test_the_same_engine_has_nothing_to_say_and_gives_the_same_bytes(
    engines: dict[str, LocalEngine],
) -> None:
    """Resumed in the same environment, the picture equals that of an uninterrupted run."""
    two = engines["two"]
    whole = painted_by(two, TASK)
    resumed = painted_by(two, TASK, checkpoint_after(two, TASK, 3))
    assert (resumed.resumed, whole.resumed) == (True, False)
    assert resumed.degraded == whole.degraded == ()
    assert torch.equal(resumed.image, whole.image)


def test_one_thread_count_gives_one_picture(engines: dict[str, LocalEngine]) -> None:
    """Runs with equal thread counts are identical, whatever other engines do in between."""
    images = [painted_by(engines[name], TASK).image for name in ("two", "one", "two", "one")]
    assert torch.equal(images[0], images[2])
    assert torch.equal(images[1], images[3])


def test_the_count_that_is_reported_is_the_one_that_paints(
    engines: dict[str, LocalEngine],
) -> None:
    """The thread count holds in any thread, also after other calls of `set_num_threads`."""
    seen: dict[str, list[int]] = {"one": [], "two": []}

    def paint(name: str) -> None:
        torch.set_num_threads(4)
        for _ in engines[name].run(TASK):
            seen[name].append(torch.get_num_threads())

    for name in seen:
        thread = threading.Thread(target=paint, args=(name,))
        thread.start()
        thread.join()
        assert set(seen[name]) == {engines[name].info.threads}
    assert [engines[name].info.threads for name in seen] == [1, 2]


def test_a_stop_holds_for_the_task_that_comes_after_it(engines: dict[str, LocalEngine]) -> None:
    """A task that was stopped before it began ends after its first step; the next one does not."""
    one = engines["one"]
    one.stop(TASK.job_id)
    events = list(one.run(TASK))
    assert isinstance(events[-1], Stopped)
    assert sum(isinstance(event, Progress) for event in events) <= 1
    assert painted_by(one, TASK).trace
