"""The estimate of a job's remaining time, tested on recorded and on synthetic jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median

import pytest

from styled.engine.convergence import Convergence
from styled.engine.task_run import LATEST_STEPS
from styled.engine_api import PixelSize, Progress
from styled.eta import EtaEstimator, EtaHistories, EtaHistory, EtaKey
from styled.recipes import PYRAMID, RECIPES

TRACES = sorted(Path(__file__).with_name("traces").glob("*.json"))

Step = tuple[int, int, float, bool, float | None]
"""Scale, step, duration in seconds, whether the scale ended, and its expected steps."""


class Engine:
    """Computes the progress event after each step, like an engine."""

    def __init__(self, plan: Sequence[tuple[int, int]], budget: Sequence[int]) -> None:
        self._plan = tuple(PixelSize(*size) for size in plan)
        self._budget = tuple(budget)
        self._seconds: dict[int, list[float]] = {}

    def after(self, step: Step) -> Progress:
        scale, number, seconds, finished, expected_steps = step
        (first,) = self._seconds.setdefault(scale, [])[:1] or [seconds]
        self._seconds[scale].append(seconds)
        latest = self._seconds[scale][1:][-LATEST_STEPS:]
        return Progress(
            plan=self._plan, budget=self._budget, scale=scale, step=number,
            finished=finished, loss=1.0, first_step_seconds=first,
            step_seconds=median(latest) if latest else None, expected_steps=expected_steps,
        )  # fmt: skip


@dataclass
class Moment:
    """The estimated and the actual remaining time after a step, in seconds."""

    done: float  # elapsed time as a fraction of the total
    estimate: float | None
    left: float


def replay(
    estimator: EtaEstimator,
    plan: Sequence[tuple[int, int]],
    budget: Sequence[int],
    rows: Sequence[Step],
) -> list[Moment]:
    """Feed the steps of a job to an estimator; return the estimate after each."""
    total = sum(row[2] for row in rows)
    passed = 0.0
    moments = []
    engine = Engine(plan, budget)
    for row in rows:
        passed += row[2]
        estimator.note(engine.after(row))
        moments.append(Moment(passed / total, estimator.seconds_left(), total - passed))
    return moments


def recorded_job(path: Path) -> tuple[list[tuple[int, int]], list[int], list[Step]]:
    """Return the plan, the step limit of each scale, and the steps of a recorded job.

    Recorded are each step's scale, number, seconds, whether the scale ended, and the loss.
    """
    trace = json.loads(path.read_text())
    plan = [(width, height) for width, height in trace["plan"]]
    min_improvement = RECIPES[recipe_of(path)].min_improvement
    rows: list[Step] = []
    convergence, lowest = Convergence(min_improvement), inf
    for scale, step, seconds, ended, loss in trace["rows"]:
        if step == 1:
            convergence, lowest = Convergence(min_improvement), inf
        lowest = min(lowest, loss)
        convergence.note(step, lowest)
        rows.append((scale, step, seconds, bool(ended), convergence.expected_steps))
    return plan, trace["budget"], rows


def synthetic_steps(
    seconds_of_scales: Sequence[float],
    taken: int,
    first: float = 0.0,
    expected: float | None = None,
) -> Iterator[Step]:
    """Yield the steps of a synthetic job in which every scale ends after `taken` steps.

    The first step of each scale takes `first` seconds longer.
    """
    for scale, seconds in enumerate(seconds_of_scales, 1):
        for step in range(1, taken + 1):
            extra = first if step == 1 else 0.0
            yield scale, step, seconds + extra, step == taken, expected


def recipe_of(path: Path) -> str:
    """Return the recipe of a recorded job, which is in the file's name."""
    return path.stem.rpartition("-")[2]


def first_history(path: Path) -> EtaHistory:
    """Return what is known before a recorded job."""
    weights = "untrained" if "-untrained-" in path.stem else "imagenet"
    return EtaHistory.of(RECIPES[recipe_of(path)], weights)


def check(moments: list[Moment], after: float) -> None:
    """Each estimate after a share of the time is within 30 % of what remains, or 5 % of the job."""
    total = moments[0].left / (1 - moments[0].done)
    later = [moment for moment in moments if moment.done >= after]
    assert later
    for moment in later:
        assert moment.estimate is not None
        allowed = max(0.3 * moment.left, 0.05 * total)
        assert abs(moment.estimate - moment.left) <= allowed, moment


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_recorded_paintings_after_the_first_fifth(path: Path) -> None:
    """On a first job, every estimate after a fifth of the time is close."""
    check(replay(EtaEstimator(first_history(path)), *recorded_job(path)), after=0.2)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_recorded_paintings_are_not_said_to_end_soon(path: Path) -> None:
    """On a first job, the very first estimates may be too long, but hardly too short."""
    for moment in replay(EtaEstimator(first_history(path)), *recorded_job(path)):
        if moment.estimate is not None and moment.done < 0.2:
            assert 0.75 < moment.estimate / moment.left < 2.0, moment


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_second_recorded_painting_from_its_second_step(path: Path) -> None:
    """On a second job of the same kind, estimates are close after a twentieth of the time."""
    first = EtaEstimator(first_history(path))
    replay(first, *recorded_job(path))
    check(replay(EtaEstimator(first.learnt()), *recorded_job(path)), after=0.05)


def test_paintings_were_recorded() -> None:
    """Of the default recipe at three sizes, with both networks, and of two published recipes."""
    assert {recipe_of(path) for path in TRACES} == {"pyramid", "d2l", "avgpool"}
    pyramids = {tuple(path.stem.split("-")[1:3]) for path in TRACES if recipe_of(path) == "pyramid"}
    assert pyramids == {
        (size, network) for size in ("192", "256", "384") for network in ("trained", "untrained")
    }


def test_at_first_nothing_is_logged() -> None:
    """The first step gives no estimate, because it computes values that all later steps reuse."""
    estimator = EtaEstimator()
    assert estimator.seconds_left() is None
    engine = Engine([(64, 48)], [10])
    estimator.note(engine.after((1, 1, 9.0, False, None)))
    assert estimator.seconds_left() is None
    estimator.note(engine.after((1, 2, 0.5, False, None)))
    assert estimator.seconds_left() == pytest.approx(8 * 0.5)


def test_larger_scales_take_longer_by_their_pixels() -> None:
    """The time per step at a larger scale is estimated in proportion to its pixels."""
    estimator = EtaEstimator()
    plan = [(10, 10), (20, 20)]
    moments = replay(estimator, plan, [10, 10], list(synthetic_steps([1.0, 4.0], 10)))
    assert moments[4].estimate == pytest.approx(5 * 1.0 + 10 * 4.0)
    assert [moment.estimate for moment in moments[9:]] == pytest.approx(
        [moment.left for moment in moments[9:]]
    )


def test_what_a_step_costs_regardless_of_its_size_is_learnt() -> None:
    """The fixed cost of a step is learnt: on a GPU small scales are as slow as larger ones."""
    plan = [(10, 10), (20, 20), (40, 40)]
    seconds = [1.0 + pixels / 1000 for pixels in (100, 400, 1600)]
    estimator = EtaEstimator()
    moments = replay(estimator, plan, [10] * 3, list(synthetic_steps(seconds, 10)))
    at_second_scale = moments[15]
    assert at_second_scale.estimate == pytest.approx(at_second_scale.left)
    assert estimator.learnt().fixed_pixels == pytest.approx(1000)


def test_what_is_expected_of_one_scale_is_expected_of_the_next() -> None:
    """If the first scale is expected to converge after 20 of its 50 steps, so are later ones."""
    plan = [(10, 10), (20, 20), (40, 40)]
    estimator = EtaEstimator()
    steps = list(synthetic_steps([1.0, 4.0, 16.0], 20, expected=20.0))
    moments = replay(estimator, plan, [15, 50, 50], [(*steps[0][:4], None), *steps[1:]])
    assert moments[5].estimate == pytest.approx(9 + 20 * 20)
    assert moments[30].estimate == pytest.approx(9 * 4 + 20 * 16)
    assert estimator.learnt().expected_steps == 20.0


def test_a_scale_that_goes_on_for_longer_than_expected_may_end_soon() -> None:
    """After the expected end of a scale, half an interval between two checks is left."""
    estimator = EtaEstimator(EtaHistory(expected_steps=10.0))
    moments = replay(estimator, [(10, 10)], [50], list(synthetic_steps([1.0], 50)))
    assert moments[4].estimate == pytest.approx(5.0)
    assert moments[20].estimate == pytest.approx(2.5)
    assert moments[-1].estimate == 0.0


def test_a_slow_first_step_is_expected_of_every_scale() -> None:
    """A slow first step, which computes the style targets, is expected at each scale."""
    plan = [(10, 10), (20, 20)]
    moments = replay(
        EtaEstimator(), plan, [10, 10],
        [*synthetic_steps([1.0], 10, first=4.0),
         *((2, s, 20.0 if s == 1 else 4.0, s == 10, None) for s in range(1, 11))],
    )  # fmt: skip
    assert moments[9].estimate == pytest.approx(moments[9].left)


def test_a_smaller_picture_than_planned_is_another_scale() -> None:
    """After memory ran out and the size was reduced, times of the larger size are not used."""
    estimator = EtaEstimator()
    for size, seconds in ((40, 9.0), (20, 1.0)):
        engine = Engine([(size, size)], [10])
        for step in (1, 2, 3):
            estimator.note(engine.after((1, step, seconds, False, None)))
    assert estimator.seconds_left() == pytest.approx(7.0)


def test_noise_makes_nothing_negative_or_endless() -> None:
    """Estimates stay finite and not negative if a larger scale is faster than a smaller one."""
    plan = [(10, 10), (20, 20), (40, 40)]
    for moment in replay(
        EtaEstimator(), plan, [10] * 3, list(synthetic_steps([3.0, 1.0, 2.0], 10))
    ):
        assert moment.estimate is None or 0 <= moment.estimate < 1000


def test_a_painting_that_ended_in_its_first_scale_teaches_nothing() -> None:
    """A job that ended in its first scale, perhaps stopped, does not change the history."""
    known = EtaHistory(expected_steps=25.0, fixed_pixels=7.0)
    estimator = EtaEstimator(known)
    estimator.note(Engine([(10, 10)], [10]).after((1, 1, 1.0, False, None)))
    assert estimator.learnt() == known


def test_what_was_learnt_is_of_a_recipe_a_device_and_a_size() -> None:
    """Histories are kept per recipe, device and size; the one of the nearest size is used."""
    histories = EtaHistories()
    small, large = (EtaKey.of(PYRAMID, "one GPU", PixelSize(edge, edge)) for edge in (256, 2048))
    histories.learn(small, EtaHistory(expected_steps=20.0))
    histories.learn(large, EtaHistory(expected_steps=90.0))
    assert histories.find(PYRAMID, small, "imagenet").expected_steps == 20.0
    nearly_large = EtaKey.of(PYRAMID, "one GPU", PixelSize(1900, 1700))
    assert histories.find(PYRAMID, nearly_large, "imagenet").expected_steps == 90.0
    elsewhere = EtaKey.of(PYRAMID, "another", PixelSize(256, 256))
    assert histories.find(PYRAMID, elsewhere, "untrained") == EtaHistory.of(PYRAMID, "untrained")


def test_the_second_of_a_kind_has_an_estimate_before_its_second_step() -> None:
    """With a history there is an estimate after the first step."""
    plan = [(10, 10), (20, 20)]
    first = EtaEstimator()
    replay(first, plan, [10, 10], list(synthetic_steps([1.0, 4.0], 10)))
    second = EtaEstimator(first.learnt())
    moments = replay(second, plan, [10, 10], list(synthetic_steps([1.0, 4.0], 10)))
    assert moments[0].estimate == pytest.approx(moments[0].left)


def test_what_is_predicted_of_a_scale_counts_for_it_alone() -> None:
    """Of the next scales the higher middle one of all predictions holds, not the latest."""
    plan, budget = [(100, 100)] * 4, [60] * 4
    estimator, engine = EtaEstimator(EtaHistory()), Engine(plan, budget)
    for scale, end in ((1, 20.0), (2, 20.0)):
        for step in range(1, 21):
            estimator.note(engine.after((scale, step, 1.0, step == 20, end if step > 14 else None)))
    for step in range(1, 16):
        estimator.note(engine.after((3, step, 1.0, False, 40.0 if step == 15 else None)))
    assert estimator.seconds_left() == pytest.approx((40 - 15) + 20)
