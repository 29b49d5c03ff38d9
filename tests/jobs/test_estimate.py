"""How long a painting will still take: on recorded paintings, and on made-up ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from styled.engine.objective import Losses
from styled.engine.progress import Progress
from styled.jobs.estimate import Estimate, Experience
from styled.recipes import RECIPES, Recipe

TRACES = sorted(Path(__file__).with_name("traces").glob("*.json"))

Step = tuple[int, int, float, bool]
"""Scale, step, seconds, and whether the scale ended."""


def step_of(plan: Sequence[tuple[int, int]], steps: int, step: Step) -> Progress:
    """Return what the engine says after a step."""

    def never(*_: object) -> None:
        raise AssertionError("an estimate looks at no pictures")

    return Progress(
        plan=tuple(plan), scale=step[0], step=step[1], steps=steps, finished=step[3],
        losses=Losses(1.0, 0.25, 0.5, 0.25), checkpoint=never, preview=never,  # type: ignore[arg-type]  # never called
    )  # fmt: skip


@dataclass
class Moment:
    """What was thought, and what came."""

    done: float  # of the time that it took altogether
    thought: float | None
    left: float


def replay(estimate: Estimate, plan: Sequence[tuple[int, int]], steps: int, rows: list[Step]) -> (
    list[Moment]
):  # fmt: skip
    """Let the steps of a painting go by."""
    total = sum(seconds for _, _, seconds, _ in rows)
    passed = 0.0
    moments = []
    for row in rows:
        passed += row[2]
        estimate.note(step_of(plan, steps, row), row[2])
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
    moments = replay(Estimate(Experience.of(recipe_of(path))), *recorded(path))
    assert median(errors(moments, after=0.1)) < 0.2
    assert max(errors(moments, after=0.5)) < 0.2


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_the_second_painting_is_told_better(path: Path) -> None:
    """What the first has taught about size, and scales that end early, holds for the next one."""
    first = Estimate(Experience.of(recipe_of(path)))
    replay(first, *recorded(path))
    moments = replay(Estimate(first.learnt()), *recorded(path))
    assert median(errors(moments, after=0.1)) < 0.1
    assert max(errors(moments, after=0.35)) < 0.2


def test_real_paintings_were_recorded() -> None:
    """Of several recipes, so that the tests of them are none of nothing."""
    assert {recipe_of(path).name for path in TRACES} == {"pyramid", "d2l"}


def test_at_first_nothing_is_said() -> None:
    """One step says nothing: it computes what all others use."""
    estimate = Estimate()
    assert estimate.seconds_left() is None
    assert estimate.step_seconds() is None
    estimate.note(step_of([(64, 48)], 10, (1, 1, 9.0, False)), 9.0)
    assert estimate.seconds_left() is None
    estimate.note(step_of([(64, 48)], 10, (1, 2, 0.5, False)), 0.5)
    assert estimate.seconds_left() == pytest.approx(8 * 0.5)
    assert estimate.step_seconds() == 0.5


def test_larger_scales_take_longer_by_their_pixels() -> None:
    """Ten steps at 100 pixels and ten at 400, of which five are done."""
    estimate = Estimate()
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
    estimate = Estimate()
    moments = replay(estimate, plan, 10, list(made_up(seconds, 10, 10)))
    at_second_scale = moments[15]
    assert at_second_scale.thought == pytest.approx(at_second_scale.left)
    assert estimate.learnt().fixed_pixels == pytest.approx(1000)


def test_scales_that_end_early_teach_the_later_ones() -> None:
    """Of fifty steps each scale takes twenty: after the first that is expected of the others."""
    plan = [(10, 10), (20, 20), (40, 40)]
    estimate = Estimate()
    moments = replay(estimate, plan, 50, list(made_up([1.0, 4.0, 16.0], 50, 20)))
    assert moments[5].thought == pytest.approx(44 + 50 * 20)
    assert moments[19].thought == pytest.approx(20 * 20)
    learnt = estimate.learnt()
    assert (learnt.share, round(learnt.fixed_pixels, 6)) == (0.4, 0.0)


def test_a_scale_that_goes_on_for_longer_than_expected_may_end_at_any_step() -> None:
    """The estimate falls towards nothing, and never below."""
    estimate = Estimate(Experience(share=0.2))
    moments = replay(estimate, [(10, 10)], 50, list(made_up([1.0], 50, 50)))
    thoughts = [moment.thought for moment in moments[2:] if moment.thought is not None]
    assert min(thoughts) == 0.0
    assert moments[20].thought == pytest.approx((50 - 21) / 2)


def test_a_slow_first_step_is_expected_of_every_scale() -> None:
    """It computes the targets of the style, at each size anew."""
    plan = [(10, 10), (20, 20)]
    moments = replay(
        Estimate(), plan, 10,
        [*made_up([1.0], 10, 10, first=4.0), *((2, s, 20.0 if s == 1 else 4.0, s == 10)
                                               for s in range(1, 11))],
    )  # fmt: skip
    assert moments[9].thought == pytest.approx(moments[9].left)


def test_a_smaller_picture_than_planned_is_another_scale() -> None:
    """Memory ran out: what the larger one took says nothing of it."""
    estimate = Estimate()
    for step in (1, 2, 3):
        estimate.note(step_of([(40, 40)], 10, (1, step, 9.0, False)), 9.0)
    for step in (1, 2, 3):
        estimate.note(step_of([(20, 20)], 10, (1, step, 1.0, False)), 1.0)
    assert estimate.step_seconds() == 1.0
    assert estimate.seconds_left() == pytest.approx(7.0)


def test_noise_makes_nothing_negative_or_endless() -> None:
    """A larger scale that was faster, for instance because others let the processor go."""
    plan = [(10, 10), (20, 20), (40, 40)]
    for moment in replay(Estimate(), plan, 10, list(made_up([3.0, 1.0, 2.0], 10, 10))):
        assert moment.thought is None or 0 <= moment.thought < 1000


def test_a_painting_that_ended_in_its_first_scale_teaches_nothing() -> None:
    """It was stopped, perhaps."""
    known = Experience(share=0.5, fixed_pixels=7.0)
    estimate = Estimate(known)
    estimate.note(step_of([(10, 10)], 10, (1, 1, 1.0, False)), 1.0)
    assert estimate.learnt() == known
