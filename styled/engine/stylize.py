"""The loop: from coarse to fine, step by step, until the picture is done.

`stylize` is a generator. It yields after every step and returns the result, so that
whoever drives it decides when to look, when to save and when to stop: closing the
generator stops it at a safe point, and nothing here calls back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, replace
from functools import partial
from math import prod, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from styled.degradation import Degradation
from styled.engine.checkpoint import Checkpoint
from styled.engine.color import in_style_colors, keep_colors, recolored_styles
from styled.engine.environment import Environment, resumed_elsewhere
from styled.engine.footprint import Footprint
from styled.engine.guard import Settings, check_result
from styled.engine.ladder import Pixels, smaller_plan, thriftier, within
from styled.engine.memory import (
    EVERY_BLOCK,
    SMALL_BLOCKS,
    give_back,
    give_back_heap,
    is_out_of_memory,
    keep_freed_memory,
)
from styled.engine.objective import (
    Losses,
    Objective,
    StyleTargets,
    from_space,
    style_targets,
    to_space,
)
from styled.engine.progress import Progress, Stylized
from styled.engine.scales import plan_scales, resize, style_picture_size
from styled.engine.stage import Stage, restored_settings
from styled.engine.vgg import Vgg19
from styled.engine_api import TraceRow
from styled.recipes import Recipe

TargetsOf = Callable[[Vgg19, Recipe, Sequence[tuple[Tensor, float]], int | None], StyleTargets]
"""Computes style targets, or remembers them; see `style_targets`."""


def stylize(
    network: Vgg19,
    content: Tensor,
    styles: Sequence[tuple[Tensor, float]],
    recipe: Recipe,
    resume: Checkpoint | None = None,
    targets_of: TargetsOf = style_targets,
    memory_bytes: int | None = None,
    painted_size: Pixels | None = None,
) -> Generator[Progress, None, Stylized]:
    """Paint `content` in the manner of `styles`, yielding after every step.

    Args:
        network: The resident network.
        content: 1x3xHxW float32, sRGB in [0, 1], at the size of the result; or 1x4xHxW with
            opacity, see `opacity`.
        styles: 1x3xHxW float32, sRGB in [0, 1], or 1x4xHxW, each with its weight.
        recipe: How.
        resume: A snapshot of the same work to go on from.
        targets_of: Computes the style targets, or remembers them from an earlier picture.
        memory_bytes: What may be used on the device, besides what the network takes; where
            a picture needs more, see `ladder`. None: as much as there is.
        painted_size: Paint at this width and height, smaller than the content's; then enlarge
            it, and take `recipe.detail_steps` steps at the content's own size, which give it
            strokes as fine as its pixels. None: paint at the content's size.

    Raises:
        EngineFailure: the loss was not a number or exploded, with the safest settings too;
            or the result is one that nobody can have wanted; or there is too little memory
            for the smallest picture.
    """
    painting = _Painting(network, content, styles, recipe, targets_of, memory_bytes, painted_size)
    resume = painting.fit_plan(resume)
    stage: Stage | None = None
    before: Stage | None
    scale = resume.scale if resume else 1
    while scale <= len(painting.plan):
        before, stage = stage, None
        while stage is None or not stage.finished:
            try:
                stage = stage or painting.begin(scale, before, resume)
                if stage.finished:  # as a resumed one may be
                    break
                losses = stage.advance()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                losses = None
            # Not in the except block: while the error lives, so do the frames that it came
            # through, and all tensors in them.
            if losses is None:
                relieved = painting.relieve(scale, stage)
                give_back(network.device)
                if not relieved:
                    stage = None  # and the plan has become smaller
                    break
            elif stage is not None:
                before = resume = None  # whose images would take memory to the end
                painting.settings = stage.settings
                yield painting.progress(scale, stage, losses)
        if stage is not None:
            stage.release()
            scale += 1
        elif before is not None:
            stage = before  # it is the picture: the plan ends here now
        else:
            scale, resume = 1, None
            painting.begin_again()
    assert stage is not None  # a plan has at least one scale
    return painting.finished(stage)


class _Painting:
    """What all scales of one picture have in common.

    Attributes:
        plan: Width and height of each scale, coarse to fine.
        settings: What has become safer, or thriftier, so far.
        trace: Loss rows so far.
    """

    def __init__(
        self,
        network: Vgg19,
        content: Tensor,
        styles: Sequence[tuple[Tensor, float]],
        recipe: Recipe,
        targets_of: TargetsOf,
        memory_bytes: int | None,
        painted_size: Pixels | None,
    ) -> None:
        height, width = content.shape[-2:]
        self._network = network
        self._recipe = recipe
        self._targets_of = targets_of
        self._memory_bytes = memory_bytes
        self._asked: Pixels = width, height
        self._content = content.to(network.device)
        styles = [(image.to(network.device), weight) for image, weight in styles]
        self._styles = recolored_styles(recipe.preserve_color, styles, self._content)
        self._needs = Footprint.of(
            network, recipe, self._content, self._styles, painted_size
        ).peak_bytes
        self._painted_size = painted_size or (width, height)
        self.plan = plan_scales(recipe.scales, *self._painted_size)
        if self.plan[-1] != self._asked and recipe.detail_steps:
            self.plan.append(self._asked)
        self.settings = Settings(recipe.optimizer)
        self.trace: list[TraceRow] = []
        self._environment = Environment.current(network.device, network.dtype)
        self._last: tuple[int, int, Losses] | None = None  # scale, step and losses

    def fit_plan(self, resume: Checkpoint | None) -> Checkpoint | None:
        """Make the plan smaller until its last scale fits into memory.

        Returns:
            The snapshot to go on from, if there is one that fits into the plan.

        Raises:
            EngineFailure: not even a tiny picture would fit.
        """
        if resume is not None:
            self.settings = restored_settings(resume.settings)
        while not within(self._memory_bytes, self.settings, self.plan[-1], self._needs)[1]:
            self.plan = self._smaller_plan()
        if resume is None:
            return None
        height, width = resume.image.shape[-2:]
        # The picture may have become smaller before it was interrupted.
        while resume.scale == len(self.plan) and self.plan[-1] > (width, height):
            self.plan = self._smaller_plan()
        if resume.scale > len(self.plan) or self.plan[resume.scale - 1] != (width, height):
            self.settings = Settings(self._recipe.optimizer)
            return None
        self.trace = [TraceRow(*row) for row in resume.trace]
        self._note_resumed(resume)
        return resume

    def _note_resumed(self, resume: Checkpoint) -> None:
        """Put on record that the picture was begun on something else, if it was."""
        if not resume.environment:
            return
        degraded = self.settings.degraded
        again = any(known.kind == "resumed" for known in degraded)
        before = Environment(**resume.environment)
        if note := resumed_elsewhere(before, self._environment, again=again):
            self.settings = replace(self.settings, degraded=(*degraded, note))

    def begin_again(self) -> None:
        """Forget the trace, and what a snapshot was made on: nothing of it is left."""
        self.trace.clear()
        others = (known for known in self.settings.degraded if known.kind != "resumed")
        self.settings = replace(self.settings, degraded=tuple(others))

    def begin(self, scale: int, before: Stage | None, resume: Checkpoint | None) -> Stage:
        """Return the stage of a scale, in the memory that there is."""
        give_back_heap()
        w, h = self.plan[scale - 1]
        recipe = self._recipe_at(scale)
        self.settings, _ = within(self._memory_bytes, self.settings, (w, h), self._needs)
        make_objective = partial(self._objective, size=(w, h))
        if resume is not None and scale == resume.scale:
            stage = Stage.resumed(resume, recipe, self.settings, self._network, make_objective)
        elif before is None:
            start = to_space(recipe, _first_image(recipe, self._content, self._styles, w, h))
            stage = Stage(start, recipe, self.settings, self._network, make_objective)
        else:
            stage = before.enlarged(w, h, recipe, self.settings, make_objective)
            before.settle()
        return stage

    def _recipe_at(self, scale: int) -> Recipe:
        """Return the recipe, with as many steps as a scale of the plan may take."""
        recipe = self._recipe
        if self._is_detail(scale):
            return replace(recipe, steps=recipe.detail_steps)
        is_coarse = scale < len(self.plan) and self.plan[scale - 1] != self._painted_size
        if is_coarse and recipe.scales is not None and recipe.scales.steps is not None:
            return replace(recipe, steps=recipe.scales.steps)
        return recipe

    def _smaller_plan(self) -> list[Pixels]:
        """Return a plan that takes less memory: detail first becomes smaller, then is left out.

        Raises:
            EngineFailure: as `smaller_plan`.
        """
        width, height = self.plan[-1]
        half = round(width / sqrt(2)), round(height / sqrt(2))
        if self._is_detail(len(self.plan)) and prod(half) > 2 * prod(self._painted_size):
            return [*self.plan[:-1], half]
        return smaller_plan(self.plan)

    def _is_detail(self, scale: int) -> bool:
        return prod(self.plan[scale - 1]) > prod(self._painted_size)

    def relieve(self, scale: int, stage: Stage | None) -> bool:
        """Climb down a rung of the memory ladder after an allocation has failed.

        Returns:
            Whether the stage can go on. If not, the plan has become smaller.

        Raises:
            EngineFailure: there is no rung left.
        """
        size = self.plan[scale - 1]
        in_update = stage is not None and stage.updating
        thrifty = thriftier(self.settings, size, in_update=in_update)
        if thrifty is None:
            self.plan = self.plan[:scale]
            if stage is not None and stage.steps_done > 0:
                note = f"memory ran out at {size[0]} x {size[1]} after {stage.steps_done} steps"
                self.settings = stage.settings = _noting(self.settings, note)
                stage.finished = True
                return True
            self.plan = self._smaller_plan()
            return False
        if thrifty.tile_px != self.settings.tile_px:
            note = f"memory ran out at {size[0]} x {size[1]}: it went on in tiles"
            thrifty = _noting(thrifty, note)
        self.settings = thrifty
        if stage is not None:
            stage.relieve(thrifty)
        return True

    def progress(self, scale: int, stage: Stage, losses: Losses) -> Progress:
        """Note the step that was just taken, and describe it."""
        step, steps = stage.steps_done, self._recipe_at(scale).steps
        self._last = scale, step, losses
        if step == 1 or stage.finished or step % self._recipe.trace_every == 0:
            self.trace.append(_row(*self._last))
        return Progress(
            tuple(self.plan),
            scale,
            step,
            steps,
            stage.finished,
            losses,
            checkpoint=lambda: stage.snapshot(
                scale, [tuple(row) for row in self.trace], asdict(self._environment)
            ),
            preview=partial(self._preview, stage),
            budget=tuple(self._recipe_at(at).steps for at in range(1, len(self.plan) + 1)),
            degraded=self._degraded(),
        )

    def _degraded(self) -> tuple[Degradation, ...]:
        """Return what has been given up so far, a size that was given up included."""
        wanted = self._asked if self._recipe.detail_steps else self._painted_size
        if self.plan[-1] == wanted:
            return self.settings.degraded
        (width, height), (w, h) = self.plan[-1], wanted
        message = f"memory was short: painted at {width} x {height} in place of {w} x {h}"
        return (*self.settings.degraded, Degradation("memory", message))

    def _preview(self, stage: Stage, long_edge_px: int) -> Tensor:
        """Return the picture as it is now, made small before anything else is done to it."""
        image = from_space(self._recipe, stage.thumbnail(long_edge_px)).clamp(0, 1)
        content = F.interpolate(self._content, image.shape[-2:], mode="area")
        return keep_colors(self._recipe.preserve_color, image, content).float().cpu()

    def finished(self, stage: Stage) -> Stylized:
        """Return the picture.

        Raises:
            EngineFailure: it is one that nobody can have wanted.
        """
        image = from_space(self._recipe, stage.result()).clamp(0, 1)
        content = resize(self._content, *self.plan[-1])
        image = keep_colors(self._recipe.preserve_color, image, content)
        check_result(image, content[:, :3])
        settings = self.settings
        if self._last and self.trace[-1] != _row(*self._last):
            self.trace.append(_row(*self._last))  # it ended early
        stage.settle()  # a snapshot needs no more, and the next picture all the room
        give_back_heap()
        return Stylized(
            image.float().cpu(),
            tuple(self.trace),
            self._degraded(),
            settings.tile_px,
            detail_steps=stage.steps_done if self._is_detail(len(self.plan)) else 0,
            precision="float32"
            if settings.float32
            else str(self._network.dtype).removeprefix("torch."),
        )

    def _objective(self, network: Vgg19, tile_px: int | None, *, size: Pixels) -> Objective:
        # Whether a step has a workplace, see `Objective`, may change with the precision.
        keep_freed_memory(SMALL_BLOCKS if network.has_own_layers else EVERY_BLOCK)
        recipe, (w, h) = self._recipe, size
        styles = [(self._style_at(image, w, h), weight) for image, weight in self._styles]
        targets = self._targets_of(network, recipe, styles, tile_px)
        return Objective(network, recipe, resize(self._content, w, h), targets, tile_px)

    def _style_at(self, style: Tensor, w: int, h: int) -> Tensor:
        """Return a style image as it is looked at while the result is `w` x `h`."""
        height, width = style.shape[-2:]
        if self._recipe.style_size in ("scaled", "content"):
            return resize(style, *style_picture_size(self._recipe, (w, h), (width, height)))
        shrink = min(1.0, w / self._painted_size[0])
        return resize(style, round(width * shrink), round(height * shrink))


def _row(scale: int, step: int, losses: Losses) -> TraceRow:
    return TraceRow(scale, step, losses.total, losses.content, losses.style, losses.tv)


def _noting(settings: Settings, message: str) -> Settings:
    degradation = Degradation("memory", message)
    others = tuple(known for known in settings.degraded if known != degradation)
    return replace(settings, degraded=(*others, degradation))


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
    return (in_style_colors(small, styles) if recipe.init == "style_colors" else small)[:, :3]
