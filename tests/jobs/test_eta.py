"""The estimate of a job's remaining time, tested on recorded and on synthetic jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from styled.engine.task_run import LATEST_STEPS
from styled.engine_api import PixelSize, Progress
from styled.jobs.eta import EtaEstimator, EtaHistories, EtaHistory, EtaKey
from styled.recipes import PYRAMID, RECIPES, Recipe

TRACES = sorted(Path(__file__).with_name("traces").glob("*.json"))

Step = tuple[int, int, float, bool]
"""Scale, step, duration in seconds, and whether the scale ended."""


class Engine:
    """Computes the progress event after each step, like an engine."""

    def __init__(self, plan: Sequence[tuple[int, int]], steps: int) -> None:
        self._plan = tuple(PixelSize(*size) for size in plan)
        self._steps = steps
        self._seconds: dict[int, list[float]] = {}

    def after(self, step: Step) -> Progress:
        scale, number, seconds, finished = step
        (first,) = self._seconds.setdefault(scale, [])[:1] or [seconds]
        self._seconds[scale].append(seconds)
        latest = self._seconds[scale][1:][-LATEST_STEPS:]
        return Progress(
            plan=self._plan, budget=(self._steps,) * len(self._plan), scale=scale, step=number,
            finished=finished, loss=1.0, first_step_seconds=first,
            step_seconds=median(latest) if latest else None,
        )  # fmt: skip


@dataclass
class Moment:
    """The estimated and the actual remaining time after a step, in seconds."""

    done: float  # elapsed time as a fraction of the total
    estimate: float | None
    left: float


def replay(
    estimator: EtaEstimator, plan: Sequence[tuple[int, int]], steps: int, rows: list[Step]
) -> list[Moment]:
    """Feed the steps of a job to an estimator; return the estimate after each."""
    total = sum(seconds for _, _, seconds, _ in rows)
    passed = 0.0
    moments = []
    engine = Engine(plan, steps)
    for row in rows:
        passed += row[2]
        estimator.note(engine.after(row))
        moments.append(Moment(passed / total, estimator.seconds_left(), total - passed))
    return moments


def recorded_job(path: Path) -> tuple[list[tuple[int, int]], int, list[Step]]:
    """Return the plan, the maximum steps per scale, and the steps of a recorded job."""
    trace = json.loads(path.read_text())
    plan = [(width, height) for width, height in trace["plan"]]
    rows = [(scale, step, seconds, bool(ended)) for scale, step, seconds, ended in trace["rows"]]
    return plan, trace["steps"], rows


def synthetic_steps(
    seconds_of_scales: Sequence[float], steps: int, taken: int, first: float = 0.0
) -> Iterator[Step]:
    """Yield the steps of a synthetic job in which every scale ends after `taken` steps.

    The first step of each scale takes `first` seconds longer.
    """
    for scale, seconds in enumerate(seconds_of_scales, 1):
        for step in range(1, taken + 1):
            yield scale, step, seconds + (first if step == 1 else 0.0), step == taken


def errors(moments: list[Moment], after: float) -> list[float]:
    """Return the absolute errors of the estimates, as fractions of the total time.

    Only estimates made after the fraction `after` of the time count.
    """
    total = moments[0].left / (1 - moments[0].done)
    return [
        abs(moment.estimate - moment.left) / total
        for moment in moments
        if moment.done >= after and moment.estimate is not None
    ]


def recipe_of(path: Path) -> Recipe:
    """Return the recipe of a recorded job, which is in the file's name."""
    return RECIPES[path.stem.rpartition("-")[2]]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_of_real_paintings_the_end_is_told_within_a_fifth(path: Path) -> None:
    """On a first job errors are below 20%: the median after 10% of the time, all after 50%."""
    moments = replay(EtaEstimator(EtaHistory.of(recipe_of(path))), *recorded_job(path))
    assert median(errors(moments, after=0.1)) < 0.2
    assert max(errors(moments, after=0.5)) < 0.2


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_the_second_painting_is_told_better(path: Path) -> None:
    """On a second, similar job the median error is below 10%, and all are below 20% after 35%."""
    first = EtaEstimator(EtaHistory.of(recipe_of(path)))
    replay(first, *recorded_job(path))
    moments = replay(EtaEstimator(first.learnt()), *recorded_job(path))
    assert median(errors(moments, after=0.1)) < 0.1
    assert max(errors(moments, after=0.35)) < 0.2


def test_real_paintings_were_recorded() -> None:
    """The recordings exist and are of two recipes, so that the tests above are not empty."""
    assert {recipe_of(path).name for path in TRACES} == {"pyramid", "d2l"}


def test_at_first_nothing_is_said() -> None:
    """The first step gives no estimate, because it computes values that all later steps reuse."""
    estimator = EtaEstimator()
    assert estimator.seconds_left() is None
    engine = Engine([(64, 48)], 10)
    estimator.note(engine.after((1, 1, 9.0, False)))
    assert estimator.seconds_left() is None
    estimator.note(engine.after((1, 2, 0.5, False)))
    assert estimator.seconds_left() == pytest.approx(8 * 0.5)


def test_larger_scales_take_longer_by_their_pixels() -> None:
    """The time per step at a larger scale is estimated in proportion to its pixels."""
    estimator = EtaEstimator()
    plan = [(10, 10), (20, 20)]
    moments = replay(estimator, plan, 10, list(synthetic_steps([1.0, 4.0], 10, 10)))
    assert moments[4].estimate == pytest.approx(5 * 1.0 + 10 * 4.0)
    assert [moment.estimate for moment in moments[9:]] == pytest.approx(
        [moment.left for moment in moments[9:]]
    )


def test_what_a_step_costs_regardless_of_its_size_is_learnt() -> None:
    """The fixed cost of a step is learnt: on a GPU small scales are as slow as larger ones."""
    plan = [(10, 10), (20, 20), (40, 40)]
    seconds = [1.0 + pixels / 1000 for pixels in (100, 400, 1600)]
    estimator = EtaEstimator()
    moments = replay(estimator, plan, 10, list(synthetic_steps(seconds, 10, 10)))
    at_second_scale = moments[15]
    assert at_second_scale.estimate == pytest.approx(at_second_scale.left)
    assert estimator.learnt().fixed_pixels == pytest.approx(1000)


def test_scales_that_end_early_teach_the_later_ones() -> None:
    """If the first scale ends early, the same share of the steps is expected of later scales."""
    plan = [(10, 10), (20, 20), (40, 40)]
    estimator = EtaEstimator()
    moments = replay(estimator, plan, 50, list(synthetic_steps([1.0, 4.0, 16.0], 50, 20)))
    assert moments[5].estimate == pytest.approx(44 + 50 * 20)
    assert moments[19].estimate == pytest.approx(20 * 20)
    learnt = estimator.learnt()
    assert (learnt.share, round(learnt.fixed_pixels, 6)) == (0.4, 0.0)


def test_a_scale_that_goes_on_for_longer_than_expected_may_end_at_any_step() -> None:
    """After the expected end of a scale the estimate falls towards zero, and not below."""
    estimator = EtaEstimator(EtaHistory(share=0.2))
    moments = replay(estimator, [(10, 10)], 50, list(synthetic_steps([1.0], 50, 50)))
    estimates = [moment.estimate for moment in moments[2:] if moment.estimate is not None]
    assert min(estimates) == 0.0
    assert moments[20].estimate == pytest.approx((50 - 21) / 2)


def test_a_slow_first_step_is_expected_of_every_scale() -> None:
    """A slow first step, which computes the style targets, is expected at each scale."""
    plan = [(10, 10), (20, 20)]
    moments = replay(
        EtaEstimator(), plan, 10,
        [*synthetic_steps([1.0], 10, 10, first=4.0), *((2, s, 20.0 if s == 1 else 4.0, s == 10)
                                               for s in range(1, 11))],
    )  # fmt: skip
    assert moments[9].estimate == pytest.approx(moments[9].left)


def test_a_smaller_picture_than_planned_is_another_scale() -> None:
    """After memory ran out and the size was reduced, times of the larger size are not used."""
    estimator = EtaEstimator()
    for size, seconds in ((40, 9.0), (20, 1.0)):
        engine = Engine([(size, size)], 10)
        for step in (1, 2, 3):
            estimator.note(engine.after((1, step, seconds, False)))
    assert estimator.seconds_left() == pytest.approx(7.0)


def test_noise_makes_nothing_negative_or_endless() -> None:
    """Estimates stay finite and not negative if a larger scale is faster than a smaller one."""
    plan = [(10, 10), (20, 20), (40, 40)]
    for moment in replay(EtaEstimator(), plan, 10, list(synthetic_steps([3.0, 1.0, 2.0], 10, 10))):
        assert moment.estimate is None or 0 <= moment.estimate < 1000


def test_a_painting_that_ended_in_its_first_scale_teaches_nothing() -> None:
    """A job that ended in its first scale, perhaps stopped, does not change the history."""
    known = EtaHistory(share=0.5, fixed_pixels=7.0)
    estimator = EtaEstimator(known)
    estimator.note(Engine([(10, 10)], 10).after((1, 1, 1.0, False)))
    assert estimator.learnt() == known


def test_what_was_learnt_is_of_a_recipe_a_device_and_a_size() -> None:
    """Histories are kept per recipe, device and size; the one of the nearest size is used."""
    histories = EtaHistories()
    small, large = (EtaKey.of(PYRAMID, "one GPU", PixelSize(edge, edge)) for edge in (256, 2048))
    histories.learn(small, EtaHistory(share=0.2))
    histories.learn(large, EtaHistory(share=0.9))
    assert histories.find(PYRAMID, small).share == 0.2
    nearly_large = EtaKey.of(PYRAMID, "one GPU", PixelSize(1900, 1700))
    assert histories.find(PYRAMID, nearly_large).share == 0.9
    elsewhere = EtaKey.of(PYRAMID, "another", PixelSize(256, 256))
    assert histories.find(PYRAMID, elsewhere) == EtaHistory.of(PYRAMID)


def test_the_second_of_a_kind_is_told_before_its_second_step() -> None:
    """With a history there is an estimate after the first step."""
    plan = [(10, 10), (20, 20)]
    first = EtaEstimator()
    replay(first, plan, 10, list(synthetic_steps([1.0, 4.0], 10, 10)))
    second = EtaEstimator(first.learnt())
    moments = replay(second, plan, 10, list(synthetic_steps([1.0, 4.0], 10, 10)))
    assert moments[0].estimate == pytest.approx(moments[0].left)
