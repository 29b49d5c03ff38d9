"""Optimisers on functions with known minima."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from styled.engine import curvature_pairs
from styled.engine.frequency_bands import with_gains
from styled.engine.optimizers import Adam, Box, Lbfgs, Optimizer, make_optimizer
from styled.recipes import OptimizerSettings

LBFGS = OptimizerSettings(name="lbfgs", learning_rate=1.0, history=10)
GUARDED = replace(LBFGS, trust_radius=0.1)
BY_FREQUENCY = replace(GUARDED, history=5, frequency_preconditioner=True)
CARRYING = replace(BY_FREQUENCY, carry_curvature=True)
ADAM = OptimizerSettings(name="adam", learning_rate=0.005, betas=(0.9, 0.99))
UNIT = Box(torch.zeros(()), torch.ones(()))
FACTORIES: list[Callable[[], Optimizer]] = [
    lambda: Lbfgs(LBFGS, UNIT),
    lambda: Adam(ADAM, UNIT),
    lambda: Lbfgs(GUARDED, UNIT),
    lambda: Lbfgs(BY_FREQUENCY, UNIT),
]
STEPS_TO_MINIMUM = [
    (FACTORIES[0], 120),
    (FACTORIES[1], 1500),
    (FACTORIES[2], 120),
    (FACTORIES[3], 120),
]


class Quadratic:
    """0.5 (x - m)^T D (x - m) with a badly conditioned diagonal D."""

    def __init__(self, minimum: Tensor) -> None:
        self.minimum = minimum
        self.curvature = torch.logspace(0, 2, minimum.numel(), dtype=torch.float64).view_as(minimum)

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradient at x."""
        return self.curvature * (x - self.minimum)

    def value(self, x: Tensor) -> float:
        """Return the value at x."""
        return float((0.5 * self.curvature * (x - self.minimum).square()).sum())


def minimise(
    optimizer: Optimizer, function: Quadratic | Smoothing, x: Tensor, steps: int
) -> Tensor:
    """Take `steps` steps from x, which is updated in place; return it."""
    for _ in range(steps):
        optimizer.update(x, function.gradient(x), function.value(x))
    return x


def inside() -> Tensor:
    """Return a minimum inside the box."""
    generator = torch.Generator().manual_seed(0)
    return 0.2 + 0.6 * torch.rand(1, 3, 4, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("make", "steps"), STEPS_TO_MINIMUM)
def test_the_minimum_inside_the_box_is_found(make: Callable[[], Optimizer], steps: int) -> None:
    """All optimisers converge to the minimum of a quadratic with condition number 100."""
    function = Quadratic(inside())
    x = minimise(make(), function, torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64), steps)
    torch.testing.assert_close(x, function.minimum, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("make", "steps"), STEPS_TO_MINIMUM)
def test_a_minimum_outside_the_box_is_met_at_its_nearest_face(
    make: Callable[[], Optimizer], steps: int
) -> None:
    """Pixels whose minimum is outside [0, 1] end at the bound, all others at their minimum."""
    minimum = inside()
    minimum[0, 0] = 1.7
    minimum[0, 1, 0] = -0.4
    x = minimise(
        make(), Quadratic(minimum), torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64), steps
    )
    torch.testing.assert_close(x, minimum.clamp(0, 1), rtol=0, atol=1e-3)


def test_lbfgs_comes_lower_than_adam_in_as_many_steps() -> None:
    """On the quadratic, 60 steps of L-BFGS end a thousand times lower than 60 steps of Adam."""
    function = Quadratic(inside())
    start = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    newton = minimise(FACTORIES[0](), function, start.clone(), 60)
    adam = minimise(FACTORIES[1](), function, start.clone(), 60)
    assert function.value(newton) < 1e-3 * function.value(adam)


class Smoothing:
    """0.5 (x - m)^T L (x - m), where L is like the Hessian of a squared total variation.

    Its curvature grows with the square of the frequency from 1e-3 to 4, and is twice that for the
    mean of the three colours.
    """

    def __init__(self, minimum: Tensor) -> None:
        self.minimum = minimum
        rows = torch.fft.fftfreq(minimum.shape[2])[:, None]
        columns = torch.fft.rfftfreq(minimum.shape[3])[None]
        self.curvature = 1e-3 + 2 - torch.cos(6.2832 * rows) - torch.cos(6.2832 * columns)

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradient at x."""
        offset = x - self.minimum
        offset = offset + offset.mean(dim=1, keepdim=True)
        transform = torch.fft.rfft2(offset) * self.curvature
        gradient: Tensor = torch.fft.irfft2(transform, s=x.shape[-2:])
        return gradient

    def value(self, x: Tensor) -> float:
        """Return the value at x."""
        return float(0.5 * (self.gradient(x) * (x - self.minimum)).sum())


def test_by_frequency_coarse_and_fine_come_to_their_minimum_together() -> None:
    """If curvature is 1e-3 to 4 depending on frequency, 25 steps end a hundred times lower."""
    generator = torch.Generator().manual_seed(1)
    function = Smoothing(0.4 + 0.2 * torch.rand(1, 3, 48, 64, generator=generator))
    plain, preconditioned = (
        function.value(minimise(Lbfgs(recipe), function, torch.full((1, 3, 48, 64), 0.3), 25))
        for recipe in (replace(BY_FREQUENCY, frequency_preconditioner=False), BY_FREQUENCY)
    )
    assert preconditioned < plain / 100


def smoothing_per_pixel(height: int, width: int) -> tuple[Smoothing, Tensor]:
    """Return a mean over pixels, with its minimum at noise, and an image to start from."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    function = Smoothing(0.4 + 0.2 * noise)
    function.curvature /= height * width
    return function, torch.full((1, 3, height, width), 0.45)


def after_a_coarser_scale(settings: OptimizerSettings = CARRYING) -> Optimizer:
    """Return the optimiser for 48x64 px that has taken 15 steps at 30x40 px."""
    function, x = smoothing_per_pixel(30, 40)
    coarse = Lbfgs(settings)
    minimise(coarse, function, x, 15)
    return coarse.for_scale(64, 48, settings)


def test_the_curvature_of_the_coarser_scale_serves_the_first_step() -> None:
    """The first step is half of the Newton step: it takes off more than half of the loss."""
    function, start = smoothing_per_pixel(48, 64)
    before = function.value(start)
    first = function.value(minimise(after_a_coarser_scale(), function, start.clone(), 1))
    assert 0.15 * before < first < 0.45 * before  # a fourth, if all factors were right
    assert function.value(minimise(Lbfgs(BY_FREQUENCY), function, start, 1)) > 0.7 * before


def test_a_wrong_curvature_of_the_coarser_scale_is_forgotten() -> None:
    """If the function is a thousand times as steep, the first step is undone and 25 suffice."""
    function, x = smoothing_per_pixel(48, 64)
    function.curvature *= 1e3
    before = function.value(x)
    optimizer = after_a_coarser_scale(replace(CARRYING, trust_radius=10.0))
    assert function.value(minimise(optimizer, function, x, 1)) > before
    assert function.value(minimise(optimizer, function, x, 24)) < before / 1000


@pytest.mark.parametrize(
    "settings",
    [
        BY_FREQUENCY,
        replace(CARRYING, trust_radius=0.0),  # a step that is too long would not be undone
        replace(CARRYING, frequency_preconditioner=False),
    ],
)
def test_no_other_lbfgs_starts_from_the_coarser_scale(settings: OptimizerSettings) -> None:
    """Unless it is asked for, with a trust radius and frequency bands, there is nothing."""
    function, start = smoothing_per_pixel(48, 64)
    fresh = minimise(Lbfgs(settings), function, start.clone(), 1)
    assert torch.equal(minimise(after_a_coarser_scale(settings), function, start, 1), fresh)


def test_a_scale_that_learnt_nothing_leaves_nothing() -> None:
    """With a gradient of zero throughout there is no curvature, and the next scale is as ever."""
    coarse, x = Lbfgs(CARRYING), torch.full((1, 3, 30, 40), 0.5)
    for _ in range(3):
        coarse.update(x, torch.zeros_like(x), 1.0)
    function, start = smoothing_per_pixel(48, 64)
    fresh = minimise(Lbfgs(CARRYING), function, start.clone(), 3)
    assert torch.equal(minimise(coarse.for_scale(64, 48, CARRYING), function, start, 3), fresh)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_what_a_coarser_scale_left_is_saved(steps: int) -> None:
    """After each number of steps, a restored optimiser goes on bitwise the same."""
    function, start = smoothing_per_pixel(48, 64)
    first = after_a_coarser_scale()
    minimise(first, function, start, steps)
    second = Lbfgs(BY_FREQUENCY)
    second.load(first.state())
    found = minimise(second, function, start.clone(), 10)
    assert torch.equal(found, minimise(first, function, start, 10))


def test_a_band_without_curvature_is_not_stretched_without_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the gradient of the coarsest band is constant, rounding errors do not set its gain."""
    function = Smoothing(torch.full((1, 3, 48, 64), 0.5))
    for rows in (slice(0, 3), slice(-3, None)):
        function.curvature[rows, :3] = 0.0
    recorded: list[Tensor] = []

    def recording(picture: Tensor, gains: Tensor) -> Tensor:
        recorded.append(gains)
        return with_gains(picture, gains)

    monkeypatch.setattr(curvature_pairs, "with_gains", recording)
    generator = torch.Generator().manual_seed(1)
    optimizer, x = Lbfgs(BY_FREQUENCY), torch.rand(1, 3, 48, 64, generator=generator)
    for _ in range(20):
        value = function.value(x) + 1e-3 * float(x.sum())
        optimizer.update(x, function.gradient(x) + 1e-3, value)
    assert x.mean() < 0
    assert max(float(gains.max() / gains.median()) for gains in recorded) <= 1001


def test_lbfgs_ignores_a_pair_of_negative_curvature() -> None:
    """With negative curvature the step is still finite and in a descent direction."""
    optimizer = Lbfgs(LBFGS, UNIT)
    x = torch.full((1, 3, 2, 2), 0.5)
    optimizer.update(x, torch.full_like(x, 1.0), 1.0)
    before = x.clone()
    optimizer.update(x, torch.full_like(x, 2.0), 0.5)  # lower loss, steeper gradient: concave
    assert x.isfinite().all()
    assert (x < before).all()


@pytest.mark.parametrize("recipe", [LBFGS, GUARDED, BY_FREQUENCY])
def test_lbfgs_leaves_a_hilltop_within_a_few_steps(recipe: OptimizerSettings) -> None:
    """On -|x - 0.5|^2, which is concave everywhere, steps grow until all pixels are at a bound."""
    optimizer = Lbfgs(recipe, UNIT)
    x = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    x += 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for _ in range(40):
        optimizer.update(x, -2 * (x - 0.5), -float((x - 0.5).square().sum()))
    assert bool(((x == 0) | (x == 1)).all())


@pytest.mark.parametrize("make", FACTORIES)
def test_a_zero_gradient_moves_nothing(make: Callable[[], Optimizer]) -> None:
    """At a stationary point the image stays as it is."""
    x = torch.full((1, 3, 2, 2), 0.5)
    optimizer = make()
    for _ in range(3):
        optimizer.update(x, torch.zeros_like(x), 1.0)
    assert (x == 0.5).all()


@pytest.mark.parametrize("make", FACTORIES)
def test_going_on_from_a_saved_state_gives_the_same_numbers(
    make: Callable[[], Optimizer],
) -> None:
    """Ten steps, save, load into a new optimiser, ten more: bitwise the same as twenty steps."""
    function = Quadratic(inside())
    start = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    whole = minimise(make(), function, start.clone(), 20)
    first, x = make(), start.clone()
    minimise(first, function, x, 10)
    second = make()
    second.load(first.state())
    assert torch.equal(minimise(second, function, x, 10), whole)


def test_adams_first_step_is_the_learning_rate() -> None:
    """With bias correction Adam's first step is -learning_rate times the gradient's sign."""
    x = torch.tensor([[[[0.5, 0.5]]]])
    gradient = torch.tensor([[[[3.0, -0.01]]]])
    Adam(replace(ADAM, learning_rate=0.1), UNIT).update(x, gradient, 1.0)
    torch.testing.assert_close(x, torch.tensor([[[[0.4, 0.6]]]]))


def test_the_recipe_chooses_the_optimiser() -> None:
    """`optimizer.name` decides which of the two is made."""
    assert isinstance(make_optimizer(LBFGS, UNIT), Lbfgs)
    assert isinstance(make_optimizer(ADAM, UNIT), Adam)


def valley(x: Tensor) -> tuple[Tensor, float]:
    """Return gradient and value of sum(sqrt(1e-6 + (x - 0.5)^2)), nearly |x - 0.5|."""
    height = (1e-6 + (x - 0.5).square()).sqrt()
    return (x - 0.5) / height, float(height.sum())


def test_a_step_that_led_uphill_is_taken_back() -> None:
    """With a trust radius, the loss of the accepted iterates never increases."""
    optimizer = Lbfgs(GUARDED, UNIT)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 3, 4, 4, generator=generator, dtype=torch.float64)
    accepted: list[float] = []
    undone = 0
    for _ in range(60):
        gradient, total = valley(x)
        undone += bool(accepted) and total > accepted[-1]
        optimizer.update(x, gradient, total)
        assert optimizer._last is not None
        accepted.append(float(optimizer._last.total))
    assert undone > 0  # otherwise this tests nothing
    assert accepted == sorted(accepted, reverse=True)
    assert accepted[-1] < 0.05 * accepted[0]


def test_after_a_step_that_was_taken_back_the_next_ones_are_shorter() -> None:
    """Each undone step halves the step length; each accepted one undoes half of a halving."""
    optimizer = Lbfgs(replace(GUARDED, trust_radius=100.0, learning_rate=0.01))
    x = torch.ones(1, 3, 4, 4, dtype=torch.float64)
    step_lengths = []
    for leads_uphill in (False, False, True, True, False, False, False, False, False):
        start = optimizer._last.image if leads_uphill and optimizer._last else x.clone()
        # The full Newton step would end at zero; the learning rate takes 0.01 of it.
        optimizer.update(x, x.clone(), float("inf") if leads_uphill else float(x.square().sum()))
        step_lengths.append(float(((start - x) / start).mean()) / 0.01)
    backtracks = [0, 1, 2, 1.5, 1, 0.5, 0, 0]
    assert step_lengths[1:] == pytest.approx([0.5**exponent for exponent in backtracks])


def test_no_step_goes_farther_than_the_reach() -> None:
    """At a distance of 30 the quasi-Newton step would be 30; the trust radius limits it to 0.1."""
    optimizer = Lbfgs(GUARDED)
    x = torch.full((1, 3, 4, 4), 30.0, dtype=torch.float64)
    lengths = []
    for _ in range(20):
        before = x.clone()
        optimizer.update(x, x.clone(), float(x.square().sum() / 2))
        lengths.append(float((x - before).square().mean().sqrt()))
    assert max(lengths) == pytest.approx(0.1)


def test_the_first_step_with_a_reach_tells_curvature_from_rounding() -> None:
    """For any gradient norm, the largest change of a pixel is a fifth of the trust radius."""
    for steepness in (1e-6, 1.0, 1e6):
        x = torch.full((1, 3, 2, 2), 0.5)
        gradient = steepness * torch.linspace(-1, 1, 12).view(1, 3, 2, 2)
        Lbfgs(GUARDED, UNIT).update(x, gradient, 1.0)
        assert float((x - 0.5).abs().max()) == pytest.approx(0.02, rel=1e-3)
