"""How long a painting will still take: on recorded paintings, and on made-up ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from styled.engine.task_run import LATEST_STEPS
from styled.engine_api import PixelSize, Progress
from styled.jobs.eta import EtaEstimator, EtaHistories, EtaHistory, Kind
from styled.recipes import PYRAMID, RECIPES, Recipe

TRACES = sorted(Path(__file__).with_name("traces").glob("*.json"))

Step = tuple[int, int, float, bool]
"""Scale, step, seconds, and whether the scale ended."""


class Engine:
    """Says after each step what an engine says."""

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
    """What was thought, and what came."""

    done: float  # of the time that it took altogether
    thought: float | None
    left: float


def replay(
    estimate: EtaEstimator, plan: Sequence[tuple[int, int]], steps: int, rows: list[Step]
) -> list[Moment]:
    """Let the steps of a painting go by."""
    total = sum(seconds for _, _, seconds, _ in rows)
    passed = 0.0
    moments = []
    engine = Engine(plan, steps)
    for row in rows:
        passed += row[2]
        estimate.note(engine.after(row))
        moments.append(Moment(passed / total, estimate.seconds_left(), total - passed))
    return moments


def recorded(path: Path) -> tuple[list[tuple[int, int]], int, list[Step]]:
    """Return the plan, the most steps of a scale, and the steps of a real painting."""
    trace = json.loads(path.read_text())
    plan = [(width, height) for width, height in trace["plan"]]
    rows = [(scale, step, seconds, bool(ended)) for scale, step, seconds, ended in trace["rows"]]
    return plan, trace["steps"], rows


def made_up(
    seconds_of_scales: Sequence[float], steps: int, taken: int, first: float = 0.0
) -> Iterator[Step]:
    """Yield the steps of a painting whose scales all end after as many steps."""
    for scale, seconds in enumerate(seconds_of_scales, 1):
        for step in range(1, taken + 1):
            yield scale, step, seconds + (first if step == 1 else 0.0), step == taken


def errors(moments: list[Moment], after: float) -> list[float]:
    """Return how wrong each thought was after a share of the time, as a share of the whole."""
    whole = moments[0].left / (1 - moments[0].done)
    return [
        abs(moment.thought - moment.left) / whole
        for moment in moments
        if moment.done >= after and moment.thought is not None
    ]


def recipe_of(path: Path) -> Recipe:
    """Return the recipe of a recorded painting."""
    return RECIPES[path.stem.rpartition("-")[2]]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_of_real_paintings_the_end_is_told_within_a_fifth(path: Path) -> None:
    """Half of the time by less, and never by more once half of it is done."""
    moments = replay(EtaEstimator(EtaHistory.of(recipe_of(path))), *recorded(path))
    assert median(errors(moments, after=0.1)) < 0.2
    assert max(errors(moments, after=0.5)) < 0.2


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_the_second_painting_is_told_better(path: Path) -> None:
    """What the first has taught about size, and scales that end early, holds for the next one."""
    first = EtaEstimator(EtaHistory.of(recipe_of(path)))
    replay(first, *recorded(path))
    moments = replay(EtaEstimator(first.learnt()), *recorded(path))
    assert median(errors(moments, after=0.1)) < 0.1
    assert max(errors(moments, after=0.35)) < 0.2


def test_real_paintings_were_recorded() -> None:
    """Of several recipes, so that the tests of them are none of nothing."""
    assert {recipe_of(path).name for path in TRACES} == {"pyramid", "d2l"}


def test_at_first_nothing_is_said() -> None:
    """One step says nothing: it computes what all others use."""
    estimate = EtaEstimator()
    assert estimate.seconds_left() is None
    engine = Engine([(64, 48)], 10)
    estimate.note(engine.after((1, 1, 9.0, False)))
    assert estimate.seconds_left() is None
    estimate.note(engine.after((1, 2, 0.5, False)))
    assert estimate.seconds_left() == pytest.approx(8 * 0.5)


def test_larger_scales_take_longer_by_their_pixels() -> None:
    """Ten steps at 100 pixels and ten at 400, of which five are done."""
    estimate = EtaEstimator()
    plan = [(10, 10), (20, 20)]
    moments = replay(estimate, plan, 10, list(made_up([1.0, 4.0], 10, 10)))
    assert moments[4].thought == pytest.approx(5 * 1.0 + 10 * 4.0)
    assert [moment.thought for moment in moments[9:]] == pytest.approx(
        [moment.left for moment in moments[9:]]
    )


def test_what_a_step_costs_regardless_of_its_size_is_learnt() -> None:
    """On a GPU a small scale is as slow as one four times its size."""
    plan = [(10, 10), (20, 20), (40, 40)]
    seconds = [1.0 + pixels / 1000 for pixels in (100, 400, 1600)]
    estimate = EtaEstimator()
    moments = replay(estimate, plan, 10, list(made_up(seconds, 10, 10)))
    at_second_scale = moments[15]
    assert at_second_scale.thought == pytest.approx(at_second_scale.left)
    assert estimate.learnt().fixed_pixels == pytest.approx(1000)


def test_scales_that_end_early_teach_the_later_ones() -> None:
    """Of fifty steps each scale takes twenty: after the first that is expected of the others."""
    plan = [(10, 10), (20, 20), (40, 40)]
    estimate = EtaEstimator()
    moments = replay(estimate, plan, 50, list(made_up([1.0, 4.0, 16.0], 50, 20)))
    assert moments[5].thought == pytest.approx(44 + 50 * 20)
    assert moments[19].thought == pytest.approx(20 * 20)
    learnt = estimate.learnt()
    assert (learnt.share, round(learnt.fixed_pixels, 6)) == (0.4, 0.0)


def test_a_scale_that_goes_on_for_longer_than_expected_may_end_at_any_step() -> None:
    """The estimate falls towards nothing, and never below."""
    estimate = EtaEstimator(EtaHistory(share=0.2))
    moments = replay(estimate, [(10, 10)], 50, list(made_up([1.0], 50, 50)))
    thoughts = [moment.thought for moment in moments[2:] if moment.thought is not None]
    assert min(thoughts) == 0.0
    assert moments[20].thought == pytest.approx((50 - 21) / 2)


def test_a_slow_first_step_is_expected_of_every_scale() -> None:
    """It computes the targets of the style, at each size anew."""
    plan = [(10, 10), (20, 20)]
    moments = replay(
        EtaEstimator(), plan, 10,
        [*made_up([1.0], 10, 10, first=4.0), *((2, s, 20.0 if s == 1 else 4.0, s == 10)
                                               for s in range(1, 11))],
    )  # fmt: skip
    assert moments[9].thought == pytest.approx(moments[9].left)


def test_a_smaller_picture_than_planned_is_another_scale() -> None:
    """Memory ran out: what the larger one took says nothing of it."""
    estimate = EtaEstimator()
    for size, seconds in ((40, 9.0), (20, 1.0)):
        engine = Engine([(size, size)], 10)
        for step in (1, 2, 3):
            estimate.note(engine.after((1, step, seconds, False)))
    assert estimate.seconds_left() == pytest.approx(7.0)


def test_noise_makes_nothing_negative_or_endless() -> None:
    """A larger scale that was faster, for instance because others let the processor go."""
    plan = [(10, 10), (20, 20), (40, 40)]
    for moment in replay(EtaEstimator(), plan, 10, list(made_up([3.0, 1.0, 2.0], 10, 10))):
        assert moment.thought is None or 0 <= moment.thought < 1000


def test_a_painting_that_ended_in_its_first_scale_teaches_nothing() -> None:
    """It was stopped, perhaps."""
    known = EtaHistory(share=0.5, fixed_pixels=7.0)
    estimate = EtaEstimator(known)
    estimate.note(Engine([(10, 10)], 10).after((1, 1, 1.0, False)))
    assert estimate.learnt() == known


def test_what_was_learnt_is_of_a_recipe_a_device_and_a_size() -> None:
    """The same recipe is slower on another device and on larger photos; the nearest size counts."""
    histories = EtaHistories()
    small, large = (Kind.of(PYRAMID, "one GPU", PixelSize(edge, edge)) for edge in (256, 2048))
    histories.learn(small, EtaHistory(share=0.2))
    histories.learn(large, EtaHistory(share=0.9))
    assert histories.find(PYRAMID, small).share == 0.2
    nearly_large = Kind.of(PYRAMID, "one GPU", PixelSize(1900, 1700))
    assert histories.find(PYRAMID, nearly_large).share == 0.9
    elsewhere = Kind.of(PYRAMID, "another", PixelSize(256, 256))
    assert histories.find(PYRAMID, elsewhere) == EtaHistory.of(PYRAMID)


def test_the_second_of_a_kind_is_told_before_its_second_step() -> None:
    """What a step takes is known from the first."""
    plan = [(10, 10), (20, 20)]
    first = EtaEstimator()
    replay(first, plan, 10, list(made_up([1.0, 4.0], 10, 10)))
    second = EtaEstimator(first.learnt())
    moments = replay(second, plan, 10, list(made_up([1.0, 4.0], 10, 10)))
    assert moments[0].thought == pytest.approx(moments[0].left)
