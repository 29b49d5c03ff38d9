"""The guard, triggered by learning rates, weights and photos that give bad losses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from styled.engine.checkpoint import Checkpoint
from styled.engine.events import Stylized
from styled.engine.guard import MAX_FAILURES, RunSettings, check_result, is_good, safer
from styled.engine.memory import MMAP_THRESHOLD_WITH_ARENA, MMAP_THRESHOLD_WITHOUT_ARENA
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.errors import EngineFailure
from styled.recipes import OptimizerSettings, Recipe
from tests.engine.conftest import SHALLOW, driven, dumped, loaded, picture, untrained

CONTENT, STYLES = picture(48, 40), [(picture(48, 48, 1), 1.0)]
UNBOUNDED = replace(SHALLOW, steps=14, scales=None, clamp=False, trace_every=1)


def painted(network: Vgg19, recipe: Recipe, resume: Checkpoint | None = None) -> Stylized:
    """Paint to the end."""
    return driven(stylize(network, CONTENT, STYLES, recipe, resume))


@pytest.mark.parametrize(
    "optimizer",
    [OptimizerSettings(learning_rate=1e6), OptimizerSettings(name="adam", learning_rate=1e4)],
    ids=["lbfgs", "adam"],
)
def test_a_huge_learning_rate_is_lowered_and_put_on_record(
    network: Vgg19, optimizer: OptimizerSettings
) -> None:
    """The run continues from the last good image, lowers the loss, and records a degradation."""
    result = painted(network, replace(UNBOUNDED, optimizer=optimizer))
    assert {degradation.kind for degradation in result.degraded} == {"diverged"}
    assert any("learning rate was lowered" in d.message for d in result.degraded)
    first, *later = [row.total for row in result.trace]
    assert min(later) < first
    assert result.image.isfinite().all()


def test_lbfgs_gives_way_to_adam_when_a_lower_rate_is_not_enough(network: Vgg19) -> None:
    """After its second failure L-BFGS is replaced by Adam, and the loss falls."""
    recipe = replace(UNBOUNDED, optimizer=OptimizerSettings(learning_rate=1e9), steps=30)
    result = painted(network, recipe)
    assert {degradation.kind for degradation in result.degraded} == {"diverged"}
    assert any("Adam" in degradation.message for degradation in result.degraded)
    assert result.trace[-1].total < result.trace[0].total


def test_a_good_job_has_nothing_on_record(network: Vgg19) -> None:
    """Without bad steps there are no degradations."""
    assert painted(network, replace(UNBOUNDED, clamp=True)).degraded == ()


def test_weights_with_an_infinity_end_in_an_engine_failure() -> None:
    """If even the safest settings give NaN, the error lists what was tried."""
    convolutions = dict(untrained())
    kernel = convolutions["conv1_1"][0].clone()
    kernel[0, 0, 0, 0] = float("inf")
    convolutions["conv1_1"] = kernel, convolutions["conv1_1"][1]
    with pytest.raises(EngineFailure, match="was not a number again, although") as caught:
        painted(Vgg19(convolutions), UNBOUNDED)
    assert "Adam" in str(caught.value)


class Overflowing(Vgg19):
    """A network whose features overflow; its float32 copy is an ordinary network."""

    def features(self, *args: object, **options: object) -> dict[str, Tensor]:
        """Return the features times the largest value of their dtype."""
        features_by_layer = super().features(*args, **options)  # type: ignore[arg-type]  # handed through
        return {name: f * torch.finfo(f.dtype).max for name, f in features_by_layer.items()}


def test_bfloat16_that_overflows_gives_way_to_float32() -> None:
    """After an overflow in bfloat16 the run continues in float32, with a degradation."""
    result = painted(Overflowing(untrained(), dtype=torch.bfloat16), UNBOUNDED)
    (degradation,) = result.degraded
    assert degradation.kind == "diverged"
    assert degradation.message.endswith("convolutions went on in float32")


def test_what_gives_way_to_float32_keeps_its_memory_as_float32_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Float32 steps use an `ActivationArena`, so that the allocator gets the lower threshold."""
    thresholds: list[int] = []
    monkeypatch.setattr("styled.engine.stylize.configure_allocator", thresholds.append)
    painted(Overflowing(untrained(), dtype=torch.bfloat16), UNBOUNDED)
    assert thresholds == [MMAP_THRESHOLD_WITHOUT_ARENA, MMAP_THRESHOLD_WITH_ARENA]


def test_a_resumed_job_remembers_what_became_safer(network: Vgg19) -> None:
    """Resumed after a rollback, image and degradations equal those of an uninterrupted run."""
    recipe = replace(UNBOUNDED, optimizer=OptimizerSettings(name="adam", learning_rate=1e4))
    whole = painted(network, recipe)
    painting = stylize(network, CONTENT, STYLES, recipe)
    for _ in range(6):
        progress = next(painting)
    data = dumped(progress.checkpoint())
    resume = loaded(data)
    resumed = painted(network, recipe, resume)
    assert whole.degraded == resumed.degraded != ()
    assert torch.equal(whole.image, resumed.image)


def test_what_counts_as_good() -> None:
    """A loss is good if it is finite and below a hundred times the first loss."""
    assert is_good(0.5, 1.0)
    assert is_good(99.0, 1.0)
    assert not is_good(101.0, 1.0)
    assert not is_good(float("nan"), 1.0)
    assert not is_good(float("inf"), float("inf"))


def test_the_ladder_comes_to_an_end() -> None:
    """After `MAX_FAILURES` fallbacks the next bad step is an error."""
    settings = RunSettings(OptimizerSettings(name="adam", learning_rate=1.0))
    for _ in range(MAX_FAILURES):
        settings = safer(settings, float("inf"), reduced_precision=False)
    assert settings.optimizer.learning_rate == pytest.approx(0.01 * 0.25 ** (MAX_FAILURES - 2))
    with pytest.raises(EngineFailure):
        safer(settings, float("inf"), reduced_precision=False)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (torch.full((1, 3, 8, 8), float("nan")), "not finite"),
        (torch.full((1, 3, 8, 8), 0.5), "blank"),
        ((picture(8, 8) > 0.5).float(), "saturated"),
    ],
)
def test_a_ruined_result_is_never_handed_on(result: Tensor, message: str) -> None:
    """Results that are not finite, blank or saturated are errors."""
    with pytest.raises(EngineFailure, match=message):
        check_result(result, picture(8, 8))


def test_a_blank_or_saturated_photo_may_give_such_a_result() -> None:
    """A blank or saturated result is accepted if the photo is blank or saturated as well."""
    wall, drawing = torch.ones(1, 3, 8, 8), (picture(8, 8) > 0.5).float()
    check_result(wall, wall)
    check_result(drawing, drawing)
