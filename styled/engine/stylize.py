"""The loop: from coarse to fine, step by step, until the picture is done.

`stylize` is a generator. It yields after every step and returns the result, so that
whoever drives it decides when to look, when to save and when to stop: closing the
generator stops it at a safe point, and nothing here calls back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from styled.engine.checkpoint import Checkpoint
from styled.engine.objective import Losses, Objective, style_targets
from styled.engine.optimizers import Optimizer, make_optimizer
from styled.engine.scales import fitted, plan_scales, resize
from styled.engine.vgg import Vgg19
from styled.errors import EngineFailure
from styled.recipes import Recipe


class TraceRow(NamedTuple):
    """The weighted losses at one step; scales and steps count from one."""

    scale: int
    step: int
    total: float
    content: float
    style: float
    tv: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a picture stands after one step.

    Attributes:
        scale: The present scale, counted from one, of `scales`.
        width: Of the present scale, in pixels.
        step: Steps done at this scale, of `steps`.
        fraction: How much of the whole work is done, by pixels times steps, in [0, 1].
        losses: Of the image that this step started from.
        checkpoint: Takes a snapshot to resume from; call it before going on, if at all.
    """

    scale: int
    scales: int
    width: int
    height: int
    step: int
    steps: int
    fraction: float
    losses: Losses
    checkpoint: Callable[[], Checkpoint]


@dataclass(frozen=True, slots=True)
class Stylized:
    """A finished picture.

    Attributes:
        image: 1x3xHxW float32 on the CPU, sRGB in [0, 1].
        trace: Losses every `trace_every` steps, and at the first and last of each scale.
    """

    image: Tensor
    trace: tuple[TraceRow, ...]


def stylize(
    network: Vgg19,
    content: Tensor,
    styles: Sequence[tuple[Tensor, float]],
    recipe: Recipe,
    resume: Checkpoint | None = None,
) -> Generator[Progress, None, Stylized]:
    """Paint `content` in the manner of `styles`, yielding after every step.

    Args:
        network: The resident network.
        content: 1x3xHxW float32, sRGB in [0, 1], at the size of the result.
        styles: 1x3xHxW float32, sRGB in [0, 1], each with its weight.
        recipe: How.
        resume: A snapshot of the same work to go on from.

    Raises:
        EngineFailure: the loss is no longer a finite number.
    """
    height, width = content.shape[-2:]
    plan = plan_scales(recipe.scales, width, height)
    work_of_scales = [w * h for w, h in plan]
    content = content.to(network.device)
    styles = [(image.to(network.device), weight) for image, weight in styles]

    trace = [TraceRow(*row) for row in resume.trace] if resume else []
    result = content  # of the scale before; replaced at once unless `init` is content
    for scale, (w, h) in enumerate(plan, start=1):
        if resume is not None and scale < resume.scale:
            continue
        targets = style_targets(
            network,
            recipe,
            [(_style_at(image, recipe, max(w, h)), weight) for image, weight in styles],
        )
        objective = Objective(network, recipe, resize(content, w, h), targets)
        optimizer = make_optimizer(recipe.optimizer)
        if resume is not None and scale == resume.scale:
            stage = _Stage.resumed(resume, optimizer, network.device)
        else:
            start = _first_image(recipe, content, w, h) if scale == 1 else resize(result, w, h)
            stage = _Stage(start.clone(), optimizer)
        for step in range(stage.steps_done + 1, recipe.steps + 1):
            losses = stage.advance(objective)
            if step in (1, recipe.steps) or step % recipe.trace_every == 0:
                trace.append(TraceRow(scale, step, *_terms(losses)))
            work_done = sum(work_of_scales[: scale - 1]) + w * h * step / recipe.steps
            yield Progress(
                scale,
                len(plan),
                w,
                h,
                step,
                recipe.steps,
                work_done / sum(work_of_scales),
                losses,
                checkpoint=lambda at=(scale, stage): at[1].snapshot(at[0], trace),  # type: ignore[misc]  # mypy can't infer a default argument's type
            )
        result = stage.best
    return Stylized(result.detach().float().cpu(), tuple(trace))


class _Stage:
    """The state of the optimisation at one scale."""

    def __init__(self, image: Tensor, optimizer: Optimizer) -> None:
        self._image = image
        self._optimizer = optimizer
        self.steps_done = 0
        self.best = image.clone()
        self._best_total = math.inf

    @classmethod
    def resumed(cls, checkpoint: Checkpoint, optimizer: Optimizer, device: torch.device) -> _Stage:
        stage = cls(checkpoint.image.to(device), optimizer)
        stage.steps_done = checkpoint.step
        stage.best, stage._best_total = checkpoint.best.to(device), checkpoint.best_total
        optimizer.load(checkpoint.optimizer)
        return stage

    def advance(self, objective: Objective) -> Losses:
        losses, gradient = objective.evaluate(self._image)
        if not math.isfinite(losses.total):
            raise EngineFailure(
                f"the loss became {losses.total} at step {self.steps_done + 1}",
                "lower the recipe's optimizer.learning_rate",
            )
        # Without a line search a step may overshoot, so the best image is kept, not the last.
        if losses.total < self._best_total:
            self._best_total = losses.total
            self.best.copy_(self._image)
        self._optimizer.update(self._image, gradient)
        self.steps_done += 1
        return losses

    def snapshot(self, scale: int, trace: Sequence[TraceRow]) -> Checkpoint:
        return Checkpoint(
            scale=scale,
            step=self.steps_done,
            image=self._image,
            best=self.best,
            best_total=self._best_total,
            optimizer=self._optimizer.state(),
            trace=[tuple(row) for row in trace],
        )


def _first_image(recipe: Recipe, content: Tensor, width: int, height: int) -> Tensor:
    if recipe.init == "content":
        return resize(content, width, height)
    if recipe.init == "gray":
        return content.new_full((1, 3, height, width), 0.5)
    generator = torch.Generator().manual_seed(recipe.seed)
    # Drawn on the CPU, so that a seed means the same noise on every device.
    return torch.rand(1, 3, height, width, generator=generator).to(content.device)


def _style_at(image: Tensor, recipe: Recipe, long_edge: int) -> Tensor:
    height, width = image.shape[-2:]
    return resize(image, *fitted(width, height, round(long_edge * recipe.style_scale)))


def _terms(losses: Losses) -> tuple[float, float, float, float]:
    return losses.total, losses.content, losses.style, losses.tv
