"""When a scale ends, and when it is expected to."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from styled.engine.convergence import FIRST_CHECK_STEP, Convergence


def steps_until_end(loss: Callable[[int], float], limit: float, most: int = 1000) -> int | None:
    """Return the step at which a scale with this loss after each step ends; None: it does not."""
    convergence = Convergence(limit)
    return next((k for k in range(1, most) if convergence.note(k, loss(k))), None)


def test_a_loss_that_decays_fast_ends_soon() -> None:
    """After a few steps nothing is left to gain."""
    assert steps_until_end(lambda k: 1 + 2 * 0.7**k, 0.015) == 20


def test_a_loss_that_decays_slowly_goes_on() -> None:
    """Gains of 2 % in ten steps do not end a scale that still has several times that to gain."""
    end = steps_until_end(lambda k: 1 + 3 / k, 0.015)
    assert end is not None
    assert 1 + 3 / (end - 10) < 1.02 * (1 + 3 / end)  # its last ten steps gained less than that
    assert 3 / end < 0.04  # what was left; the estimate is half of it where the loss is 1 + 3 / k
    assert end > 80


def test_the_limit_decides_how_much_may_be_left() -> None:
    """A tenth of the limit takes more steps; 0 never ends."""
    ends = [steps_until_end(lambda k: 1 + 30 / k**2, limit) for limit in (0.02, 0.002)]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0] < ends[1]
    assert steps_until_end(lambda k: 1.0, 0.0) is None


def test_a_loss_that_does_not_fall_ends_at_the_first_check() -> None:
    """Neither does it divide by zero, with any loss."""
    assert steps_until_end(lambda k: 1.0, 0.015) == FIRST_CHECK_STEP
    assert steps_until_end(lambda k: 0.0, 0.015) == FIRST_CHECK_STEP


def test_gains_that_grow_never_end_a_scale() -> None:
    """A loss that falls faster and faster has no expected end, and the prediction is infinite."""
    convergence = Convergence(0.015)
    for k in range(1, 41):
        assert not convergence.note(k, 100.0 - 0.05 * k**2)
    assert convergence.expected_steps == float("inf")


def test_the_end_is_predicted_from_the_first_check_on() -> None:
    """Within a third, for a loss that decays as the rule assumes."""
    end = steps_until_end(lambda k: 1 + 300 / k**3, 0.015)
    assert end is not None
    convergence = Convergence(0.015)
    for k in count(1):
        convergence.note(k, 1 + 300 / k**3)
        if k < FIRST_CHECK_STEP:
            assert convergence.expected_steps is None
        elif k < end:
            assert convergence.expected_steps == pytest.approx(end, rel=0.33)
        else:
            break


def test_its_state_continues_it() -> None:
    """A restored history gives the same end."""

    def loss(k: int) -> float:
        return 1 + 30 / k**2

    convergence, end = Convergence(0.01), steps_until_end(loss, 0.01)
    for k in count(1):
        convergence = Convergence.restored(0.01, convergence.state())
        if convergence.note(k, loss(k)):
            assert k == end
            return
