"""The guard: provoked by rates, weights and photos that can't work."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from styled.engine.checkpoint import Checkpoint
from styled.engine.guard import MOST_FAILURES, Settings, check_result, is_good, safer
from styled.engine.memory import EVERY_BLOCK, SMALL_BLOCKS
from styled.engine.progress import Stylized
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.errors import EngineFailure
from styled.recipes import Optimizer, Recipe
from tests.engine.conftest import SHALLOW, driven, dumped, loaded, picture, untrained

CONTENT, STYLES = picture(48, 40), [(picture(48, 48, 1), 1.0)]
UNBOUNDED = replace(SHALLOW, steps=14, scales=None, clamp=False, trace_every=1)


def painted(network: Vgg19, recipe: Recipe, resume: Checkpoint | None = None) -> Stylized:
    """Paint to the end."""
    return driven(stylize(network, CONTENT, STYLES, recipe, resume))


@pytest.mark.parametrize(
    "optimizer",
    [Optimizer(learning_rate=1e6), Optimizer(name="adam", learning_rate=1e4)],
    ids=["lbfgs", "adam"],
)
def test_a_huge_learning_rate_is_lowered_and_put_on_record(
    network: Vgg19, optimizer: Optimizer
) -> None:
    """The picture goes on from the last good image, is better than the photo, and says so."""
    result = painted(network, replace(UNBOUNDED, optimizer=optimizer))
    assert {degradation.kind for degradation in result.degraded} == {"guard"}
    assert any("learning rate was lowered" in d.message for d in result.degraded)
    first, *later = [row.total for row in result.trace]
    assert min(later) < first
    assert result.image.isfinite().all()


def test_lbfgs_gives_way_to_adam_when_a_lower_rate_is_not_enough(network: Vgg19) -> None:
    """The second failure of L-BFGS hands over to Adam, and the loss falls after all."""
    recipe = replace(UNBOUNDED, optimizer=Optimizer(learning_rate=1e9), steps=30)
    result = painted(network, recipe)
    assert {degradation.kind for degradation in result.degraded} == {"guard"}
    assert any("Adam" in degradation.message for degradation in result.degraded)
    assert result.trace[-1].total < result.trace[0].total


def test_a_good_job_has_nothing_on_record(network: Vgg19) -> None:
    """Where nothing goes wrong nothing is degraded."""
    assert painted(network, replace(UNBOUNDED, clamp=True)).degraded == ()


def test_weights_with_an_infinity_end_in_an_engine_failure() -> None:
    """When even the safest settings give no number, the story is told and nothing published."""
    convolutions = dict(untrained())
    kernel = convolutions["conv1_1"][0].clone()
    kernel[0, 0, 0, 0] = float("inf")
    convolutions["conv1_1"] = kernel, convolutions["conv1_1"][1]
    with pytest.raises(EngineFailure, match="was not a number again, although") as caught:
        painted(Vgg19(convolutions), UNBOUNDED)
    assert "Adam" in str(caught.value)


class Overflowing(Vgg19):
    """One whose features are too large for its precision; its copy in float32 is as any other."""

    def features(self, *args: object, **options: object) -> dict[str, Tensor]:
        """Return them times the largest number that there is."""
        found = super().features(*args, **options)  # type: ignore[arg-type]  # handed through
        return {name: f * torch.finfo(f.dtype).max for name, f in found.items()}


def test_bfloat16_that_overflows_gives_way_to_float32() -> None:
    """A number that bfloat16 can't give is computed in float32 from then on, on record."""
    result = painted(Overflowing(untrained(), dtype=torch.bfloat16), UNBOUNDED)
    (degradation,) = result.degraded
    assert degradation.kind == "guard"
    assert degradation.message.endswith("convolutions went on in float32")


def test_what_gives_way_to_float32_keeps_its_memory_as_float32_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There a step has a workplace, and what is freed beside it is not kept."""
    kept: list[int] = []
    monkeypatch.setattr("styled.engine.stylize.keep_freed_memory", kept.append)
    painted(Overflowing(untrained(), dtype=torch.bfloat16), UNBOUNDED)
    assert kept == [EVERY_BLOCK, SMALL_BLOCKS]


def test_a_resumed_job_remembers_what_became_safer(network: Vgg19) -> None:
    """Stopped after a rollback and resumed, the picture and its record are the undisturbed ones."""
    recipe = replace(UNBOUNDED, optimizer=Optimizer(name="adam", learning_rate=1e4))
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
    """Finite and below a hundred times the first loss is good; nothing else is."""
    assert is_good(0.5, 1.0)
    assert is_good(99.0, 1.0)
    assert not is_good(101.0, 1.0)
    assert not is_good(float("nan"), 1.0)
    assert not is_good(float("inf"), float("inf"))


def test_the_ladder_comes_to_an_end() -> None:
    """After the last safer setting comes the failure, with the whole story."""
    settings = Settings(Optimizer(name="adam", learning_rate=1.0))
    for _ in range(MOST_FAILURES):
        settings = safer(settings, float("inf"), reduced_precision=False)
    assert settings.optimizer.learning_rate == pytest.approx(0.01 * 0.25 ** (MOST_FAILURES - 2))
    with pytest.raises(EngineFailure):
        safer(settings, float("inf"), reduced_precision=False)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (torch.full((1, 3, 8, 8), float("nan")), "not finite"),
        (torch.full((1, 3, 8, 8), 0.5), "blank"),
        ((picture(8, 8) > 0.5).float(), "saturated"),
    ],
)
def test_a_ruined_result_is_never_handed_on(result: Tensor, said: str) -> None:
    """Not finite, blank and saturated results are failures, not pictures."""
    with pytest.raises(EngineFailure, match=said):
        check_result(result, picture(8, 8))


def test_a_blank_or_saturated_photo_may_give_such_a_result() -> None:
    """Whoever paints a white wall or a black and white drawing gets what they asked for."""
    wall, drawing = torch.ones(1, 3, 8, 8), (picture(8, 8) > 0.5).float()
    check_result(wall, wall)
    check_result(drawing, drawing)
