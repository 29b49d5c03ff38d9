"""The loop: from coarse to fine, step by step, until the picture is done.

`stylize` is a generator. It yields after every step and returns the result, so that
whoever drives it decides when to look, when to save and when to stop: closing the
generator stops it at a safe point, and nothing here calls back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from styled.engine.checkpoint import Checkpoint
from styled.engine.color import in_style_colors, keep_colors, recolored_styles
from styled.engine.guard import Settings, check_result
from styled.engine.objective import (
    Losses,
    Objective,
    StyleTargets,
    from_space,
    style_targets,
    to_space,
)
from styled.engine.scales import plan_scales, resize, style_picture_size
from styled.engine.stage import Stage, restored_settings
from styled.engine.vgg import Vgg19
from styled.recipes import Recipe

TargetsOf = Callable[[Vgg19, Recipe, Sequence[tuple[Tensor, float]]], StyleTargets]
"""Computes style targets, or remembers them; see `style_targets`."""


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
        step: Steps done at this scale, of `steps` at most.
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
        degraded: What had to be given up on the way, in words.
    """

    image: Tensor
    trace: tuple[TraceRow, ...]
    degraded: tuple[str, ...] = ()


def stylize(
    network: Vgg19,
    content: Tensor,
    styles: Sequence[tuple[Tensor, float]],
    recipe: Recipe,
    resume: Checkpoint | None = None,
    targets_of: TargetsOf = style_targets,
) -> Generator[Progress, None, Stylized]:
    """Paint `content` in the manner of `styles`, yielding after every step.

    Args:
        network: The resident network.
        content: 1x3xHxW float32, sRGB in [0, 1], at the size of the result.
        styles: 1x3xHxW float32, sRGB in [0, 1], each with its weight.
        recipe: How.
        resume: A snapshot of the same work to go on from.
        targets_of: Computes the style targets, or remembers them from an earlier picture.

    Raises:
        EngineFailure: the loss was not a number or exploded, with the safest settings too,
            or the result is one that nobody can have wanted.
    """
    height, width = content.shape[-2:]
    plan = plan_scales(recipe.scales, width, height)
    work_of_scales = [w * h for w, h in plan]
    content = content.to(network.device)
    styles = [(image.to(network.device), weight) for image, weight in styles]
    styles = recolored_styles(recipe.preserve_color, styles, content)

    settings = restored_settings(resume.settings) if resume else Settings(recipe.optimizer)
    trace = [TraceRow(*row) for row in resume.trace] if resume else []
    stage: Stage | None = None
    for scale, (w, h) in enumerate(plan, start=1):
        if resume is not None and scale < resume.scale:
            continue
        objective_in = partial(
            _objective, recipe=recipe, content=resize(content, w, h),
            styles=[(_style_at(recipe, image, w, h, width), weight) for image, weight in styles],
            targets_of=targets_of,
        )  # fmt: skip
        if resume is not None and scale == resume.scale:
            stage = Stage.resumed(resume, recipe, settings, network, objective_in)
        elif stage is None:
            start = to_space(recipe, _first_image(recipe, content, styles, w, h))
            stage = Stage(start, recipe, settings, network, objective_in)
        else:
            stage = stage.enlarged(w, h, objective_in)
        while not stage.finished:
            losses = stage.advance()
            step = stage.steps_done
            if step == 1 or stage.finished or step % recipe.trace_every == 0:
                trace.append(TraceRow(scale, step, *_terms(losses)))
            done_here = 1.0 if stage.finished else step / recipe.steps
            work_done = sum(work_of_scales[: scale - 1]) + w * h * done_here
            yield Progress(
                scale,
                len(plan),
                w,
                h,
                step,
                recipe.steps,
                work_done / sum(work_of_scales),
                losses,
                checkpoint=partial(_snapshot, stage, scale, trace),
            )
    assert stage is not None  # a plan has at least one scale
    image = from_space(recipe, stage.result()).clamp(0, 1)
    image = keep_colors(recipe.preserve_color, image, content)
    check_result(image, content)
    return Stylized(image.float().cpu(), tuple(trace), stage.settings.degraded)


def _objective(
    network: Vgg19,
    *,
    recipe: Recipe,
    content: Tensor,
    styles: Sequence[tuple[Tensor, float]],
    targets_of: TargetsOf,
) -> Objective:
    return Objective(network, recipe, content, targets_of(network, recipe, styles))


def _snapshot(stage: Stage, scale: int, trace: Sequence[TraceRow]) -> Checkpoint:
    return stage.snapshot(scale, [tuple(row) for row in trace])


def _style_at(recipe: Recipe, style: Tensor, w: int, h: int, full_width: int) -> Tensor:
    """Return a style image as it is looked at while the result is `w` x `h`."""
    height, width = style.shape[-2:]
    if recipe.style_size in ("scaled", "content"):
        return resize(style, *style_picture_size(recipe, (w, h), (width, height)))
    shrink = w / full_width
    return resize(style, round(width * shrink), round(height * shrink))


def _first_image(
    recipe: Recipe,
    content: Tensor,
    styles: Sequence[tuple[Tensor, float]],
    width: int,
    height: int,
) -> Tensor:
    if recipe.init == "gray":
        return content.new_full((1, 3, height, width), 0.5)
    if recipe.init == "noise":
        generator = torch.Generator().manual_seed(recipe.seed)
        # Drawn on the CPU, so that a seed means the same noise on every device.
        return torch.rand(1, 3, height, width, generator=generator).to(content)
    small = resize(content, width, height)
    return in_style_colors(small, styles) if recipe.init == "style_colors" else small


def _terms(losses: Losses) -> tuple[float, float, float, float]:
    return losses.total, losses.content, losses.style, losses.tv
