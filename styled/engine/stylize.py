"""The optimisation loop over all scales, from coarse to fine.

`stylize` is a generator. It yields after every step and returns the result, so that the caller
decides when to take previews and checkpoints and when to stop. Closing the generator stops the
work between two steps. Progress is reported by yielding, not through callbacks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
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
from styled.engine.events import StepProgress, Stylized
from styled.engine.guard import RunSettings, check_result
from styled.engine.memory import (
    CatchMemoryShortage,
    configure_allocator,
    empty_cache,
    trim_heap,
)
from styled.engine.memory_estimate import MemoryEstimate
from styled.engine.memory_fallback import fit_to_limit, next_fallback, reduce_plan
from styled.engine.objective import (
    Losses,
    Objective,
    StyleTargets,
    from_space,
    style_targets,
    to_space,
)
from styled.engine.scale_run import ScaleRun, restored_settings
from styled.engine.scales import plan_scales, resize, style_image_size
from styled.engine.vgg import Vgg19
from styled.engine_api import PixelSize, TraceRow
from styled.recipes import Recipe, effective, style_share

TargetsOf = Callable[[Vgg19, Recipe, Sequence[tuple[Tensor, float]], int | None], StyleTargets]
"""Computes style targets or returns cached ones; see `style_targets`."""


def stylize(
    network: Vgg19,
    content: Tensor,
    styles: Sequence[tuple[Tensor, float]],
    recipe: Recipe,
    resume: Checkpoint | None = None,
    targets_of: TargetsOf = style_targets,
    memory_bytes: int | None = None,
    painted_size: PixelSize | None = None,
    init: Tensor | None = None,
) -> Generator[StepProgress, None, Stylized]:
    """Paint `content` in the style of `styles`, yielding after every step.

    Args:
        network: The network, already on its device.
        content: 1x3xHxW float32, sRGB in [0, 1], at the size of the result; or 1x4xHxW with
            opacity, see `opacity`.
        styles: 1x3xHxW float32, sRGB in [0, 1], or 1x4xHxW, each with its weight.
        recipe: The objective and the settings of the optimisation.
        resume: Checkpoint of the same task to resume from. None: start from the beginning.
        targets_of: Computes the style targets, or returns those cached for an earlier picture.
        memory_bytes: Limit on device memory, not counting the network. A picture that needs
            more is reduced as described in `memory_fallback`. None: no limit.
        painted_size: Paint at this width and height, smaller than the content's; then enlarge
            it, and take `recipe.detail_steps` steps at the content's own size, which give it
            strokes as fine as its pixels. None: paint at the content's size.
        init: The initial image, 1x3xHxW float32, sRGB in [0, 1], of any size. None: as the recipe
            says.

    Raises:
        EngineFailure: the loss was NaN or exploded even with the safest settings; or the result
            is not finite, blank or saturated; or there is too little memory for the smallest
            picture.
    """
    recipe = effective(recipe)
    painting = _StylizeRun(
        network, content, styles, recipe, targets_of, memory_bytes, painted_size, init
    )
    painting.resume(resume)
    resume = None  # the first step frees its images
    for scale in painting.scales():
        while not painting.is_finished(scale):
            with CatchMemoryShortage() as shortage:
                losses = painting.advance(scale)
            # Not in an except block: there the error's traceback would still keep its frames
            # alive, and with them all their tensors.
            if shortage.occurred:
                painting.reduce_memory(scale)
            elif losses is not None:
                yield painting.progress(scale, losses)
    return painting.finished()


class _StylizeRun:
    """The state shared by all scales of one picture.

    Attributes:
        plan: Width and height of each scale, coarse to fine.
        settings: The current settings, with all fallbacks applied so far.
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
        painted_size: PixelSize | None,
        init: Tensor | None,
    ) -> None:
        height, width = content.shape[-2:]
        self._network = network
        self._recipe = recipe
        self._targets_of = targets_of
        self._memory_bytes = memory_bytes
        self._requested_size: PixelSize = PixelSize(width, height)
        self._content = content.to(network.device)
        styles = [(image.to(network.device), weight) for image, weight in styles]
        styles = recolored_styles(recipe.preserve_color, styles, self._content)
        self._styles = _with_photo(styles, self._content, style_share(recipe))
        self._estimate_peak_bytes = MemoryEstimate.of(
            network, recipe, self._content, self._styles, painted_size
        ).peak_bytes
        self._init = init  # stays where it is: its first, smallest version is what is needed
        self._painted_size = painted_size or (width, height)
        self.plan = plan_scales(recipe.scales, *self._painted_size)
        if self.plan[-1] != self._requested_size and recipe.detail_steps:
            self.plan.append(self._requested_size)
        self.settings = RunSettings(recipe.optimizer)
        self.trace: list[TraceRow] = []
        self._environment = Environment.current(network.device, network.dtype)
        self._last_step: tuple[int, int, Losses] | None = None  # scale, step and losses
        self._run: ScaleRun | None = None
        self._previous: ScaleRun | None = None  # until the first step of the current scale
        self._resume: Checkpoint | None = None  # likewise

    def scales(self) -> Iterator[int]:
        """Yield the number of each scale to paint, from one; the plan may shrink meanwhile."""
        scale = self._resume.scale if self._resume else 1
        while scale <= len(self.plan):
            self._start_scale()
            yield scale
            if self._run is not None:
                self._run.drop_objective()
                scale += 1
            elif self._previous is None:
                scale = 1  # the scale at which it resumed did not fit

    def _start_scale(self) -> None:
        self._previous, self._run = self._run, None

    def is_finished(self, scale: int) -> bool:
        """Return whether a scale is finished, or has been dropped for lack of memory."""
        return scale > len(self.plan) or (self._run is not None and self._run.finished)

    def advance(self, scale: int) -> Losses | None:
        """Take one step; None: there was none left to take, which is possible after resuming."""
        if self._run is None:
            self._run = self._begin(scale)
        if self._run.finished:
            self._resume = None
            return None
        losses = self._run.advance()
        self._previous = self._resume = None  # free their images
        precision_changed = self._run.settings.float32 != self.settings.float32
        self.settings = self._run.settings
        if precision_changed:
            self._configure_allocator()
        return losses

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Reduce the plan until the estimate for its last scale is within the memory limit.

        Args:
            checkpoint: To resume from, unless it does not fit the plan. None: there is none.

        Raises:
            EngineFailure: not even a tiny picture would fit.
        """
        if checkpoint is not None:
            self.settings = restored_settings(checkpoint.run_settings)
        while not fit_to_limit(
            self._memory_bytes, self.settings, self.plan[-1], self._estimate_peak_bytes
        )[1]:
            self.plan = self._reduce_plan()
        if checkpoint is None:
            return
        height, width = checkpoint.image.shape[-2:]
        # The plan may have been reduced before the interruption.
        while checkpoint.scale == len(self.plan) and self.plan[-1] > (width, height):
            self.plan = self._reduce_plan()
        size = self.plan[checkpoint.scale - 1] if checkpoint.scale <= len(self.plan) else None
        if size != (width, height):
            self.settings = RunSettings(self._recipe.optimizer)
            return
        self.trace = [TraceRow(*row) for row in checkpoint.trace]
        self._record_resumed(checkpoint)
        self._resume = checkpoint

    def _record_resumed(self, resume: Checkpoint) -> None:
        """Record a degradation if the checkpoint was made in a different environment."""
        if not resume.environment:
            return
        degraded = self.settings.degraded
        again = any(degradation.kind == "resumed" for degradation in degraded)
        previous = Environment(**resume.environment)
        if note := resumed_elsewhere(previous, self._environment, again=again):
            self.settings = replace(self.settings, degraded=(*degraded, note))

    def _restart(self) -> None:
        """Clear the trace and the `resumed` degradation: no earlier result is used any more."""
        self.trace.clear()
        others = (d for d in self.settings.degraded if d.kind != "resumed")
        self.settings = replace(self.settings, degraded=tuple(others))

    def _begin(self, scale: int) -> ScaleRun:
        """Create the run of a scale, with settings that keep it within the memory limit."""
        trim_heap()
        size = self.plan[scale - 1]
        recipe = self._recipe_at(scale)
        self.settings, _ = fit_to_limit(
            self._memory_bytes, self.settings, size, self._estimate_peak_bytes
        )
        self._configure_allocator()
        make_objective = partial(self._objective, size=size)
        resume, previous = self._resume, self._previous
        if resume is not None:
            run = ScaleRun.from_checkpoint(
                resume, recipe, self.settings, self._network, make_objective
            )
        elif previous is None:
            first = (
                _first_image(recipe, self._content, self._styles, *size)
                if self._init is None
                else resize(self._init, *size).to(self._content)
            )
            start = to_space(recipe, first)
            run = ScaleRun(start, recipe, self.settings, self._network, make_objective)
        else:
            detail = self._detail_of_photo(self.plan[scale - 2], size)
            run = previous.next_scale(*size, recipe, self.settings, make_objective, detail)
            previous.keep_result_only()
        return run

    def _detail_of_photo(self, smaller: PixelSize, size: PixelSize) -> Tensor | None:
        """Return the share of the photo's detail that enlarging from `smaller` does not give.

        None from strength 50 on. Below, the photo itself is a part of the target, down to its
        finest detail, which the few steps of a scale would not find again.
        """
        share = style_share(self._recipe)
        if share == 1:
            return None
        photo = self._content[:, :3]
        blurred = resize(resize(photo, *smaller), *size)
        return (resize(photo, *size) - blurred) * (1 - share)

    def _configure_allocator(self) -> None:
        network = self._network.in_float32() if self.settings.float32 else self._network
        configure_allocator(network.backend.mmap_threshold)

    def _recipe_at(self, scale: int) -> Recipe:
        """Return the recipe with the step limit of this scale."""
        recipe = self._recipe
        if self._is_detail(scale):
            return replace(recipe, steps=recipe.detail_steps)
        is_coarse = scale < len(self.plan) and self.plan[scale - 1] != self._painted_size
        if is_coarse and recipe.scales is not None and recipe.scales.steps is not None:
            return replace(recipe, steps=recipe.scales.steps)
        return recipe

    def _reduce_plan(self) -> list[PixelSize]:
        """Return a plan that takes less memory.

        The pixels of a detail scale are halved if more than twice those of the painted size
        remain; otherwise as `reduce_plan`.

        Raises:
            EngineFailure: the plan can't be reduced any further.
        """
        width, height = self.plan[-1]
        half = PixelSize(round(width / sqrt(2)), round(height / sqrt(2)))
        if self._is_detail(len(self.plan)) and prod(half) > 2 * prod(self._painted_size):
            return [*self.plan[:-1], half]
        return reduce_plan(self.plan)

    def _is_detail(self, scale: int) -> bool:
        return prod(self.plan[scale - 1]) > prod(self._painted_size)

    def reduce_memory(self, scale: int) -> None:
        """Apply the next memory fallback after an allocation has failed.

        It may end the current scale early, or drop it from the plan.

        Raises:
            EngineFailure: no fallback is left.
        """
        size, run = self.plan[scale - 1], self._run
        in_update = run is not None and run.updating
        fallback = next_fallback(self.settings, size, in_update=in_update)
        if fallback is not None:
            if fallback.tile_px != self.settings.tile_px:
                note = f"memory ran out at {size[0]} x {size[1]}: it went on in tiles"
                fallback = _with_memory_note(fallback, note)
            self.settings = fallback
            if run is not None:
                run.reduce_memory(fallback)
        else:
            self.plan = self.plan[:scale]
            if run is not None and run.steps_done > 0:
                note = f"memory ran out at {size[0]} x {size[1]} after {run.steps_done} steps"
                self.settings = run.settings = _with_memory_note(self.settings, note)
                run.finished = True
            else:
                self.plan, self._run = self._reduce_plan(), None
                if self._previous is None:
                    self._resume = None
                    self._restart()
        empty_cache(self._network.device)

    def progress(self, scale: int, losses: Losses) -> StepProgress:
        """Record the step that was just taken and return its progress."""
        run = self._run
        assert run is not None
        step, steps = run.steps_done, self._recipe_at(scale).steps
        self._last_step = scale, step, losses
        if step == 1 or run.finished or step % self._recipe.trace_every == 0:
            self.trace.append(_row(*self._last_step))
        return StepProgress(
            tuple(self.plan),
            scale,
            step,
            steps,
            run.finished,
            losses,
            checkpoint=lambda: run.snapshot(
                scale, [tuple(row) for row in self.trace], asdict(self._environment)
            ),
            preview=partial(self._preview, run),
            budget=tuple(self._recipe_at(at).steps for at in range(1, len(self.plan) + 1)),
            degraded=self._degraded(),
            expected_steps=run.expected_steps,
        )

    def _degraded(self) -> tuple[Degradation, ...]:
        """Return all degradations so far, including that of a reduced size."""
        requested = self._requested_size if self._recipe.detail_steps else self._painted_size
        if self.plan[-1] == requested:
            return self.settings.degraded
        (width, height), (w, h) = self.plan[-1], requested
        message = f"memory was short: painted at {width} x {height} in place of {w} x {h}"
        return (*self.settings.degraded, Degradation("memory", message))

    def _preview(self, run: ScaleRun, long_edge_px: int) -> Tensor:
        """Return the current image, shrunk first so that all further work is on few pixels."""
        image = from_space(self._recipe, run.thumbnail(long_edge_px)).clamp(0, 1)
        content = F.interpolate(self._content, image.shape[-2:], mode="area")
        return keep_colors(self._recipe.preserve_color, image, content).float().cpu()

    def finished(self) -> Stylized:
        """Return the final picture: that of the previous scale if the last one was dropped.

        Raises:
            EngineFailure: it is not finite, blank or saturated.
        """
        run = self._run or self._previous
        assert run is not None  # a plan has at least one scale
        image = from_space(self._recipe, run.result()).clamp(0, 1)
        content = resize(self._content, *self.plan[-1])
        image = keep_colors(self._recipe.preserve_color, image, content)
        check_result(image, content[:, :3])
        settings = self.settings
        if self._last_step and self.trace[-1] != _row(*self._last_step):
            self.trace.append(_row(*self._last_step))  # the scale ended early
        run.keep_result_only()  # enough for a checkpoint; frees memory for the next picture
        trim_heap()
        return Stylized(
            image.float().cpu(),
            tuple(self.trace),
            self._degraded(),
            settings.tile_px,
            detail_steps=run.steps_done if self._is_detail(len(self.plan)) else 0,
            precision="float32"
            if settings.float32
            else str(self._network.dtype).removeprefix("torch."),
        )

    def _objective(self, network: Vgg19, tile_px: int | None, *, size: PixelSize) -> Objective:
        recipe, (w, h) = self._recipe, size
        styles = [(self._style_at(image, w, h), weight) for image, weight in self._styles]
        targets = self._targets_of(network, recipe, styles, tile_px)
        return Objective(network, recipe, resize(self._content, w, h), targets, tile_px)

    def _style_at(self, style: Tensor, w: int, h: int) -> Tensor:
        """Return a style image at the size used while the result is `w` x `h`."""
        height, width = style.shape[-2:]
        if self._recipe.style_size in ("scaled", "content"):
            return resize(
                style, *style_image_size(self._recipe, PixelSize(w, h), PixelSize(width, height))
            )
        shrink = min(1.0, w / self._painted_size[0])
        return resize(style, round(width * shrink), round(height * shrink))


def _row(scale: int, step: int, losses: Losses) -> TraceRow:
    return TraceRow(scale, step, losses.total, losses.content, losses.style, losses.tv)


def _with_memory_note(settings: RunSettings, message: str) -> RunSettings:
    degradation = Degradation("memory", message)
    others = tuple(d for d in settings.degraded if d != degradation)
    return replace(settings, degraded=(*others, degradation))


def _with_photo(
    styles: Sequence[tuple[Tensor, float]], photo: Tensor, share: float
) -> list[tuple[Tensor, float]]:
    """Return the styles with their share of the weight, and the photo with the rest."""
    if share == 1:
        return list(styles)
    rest = sum(weight for _, weight in styles) * (1 - share)
    kept = [(image, weight * share) for image, weight in styles if share > 0]
    return [*kept, (photo, rest)]


def _first_image(
    recipe: Recipe,
    content: Tensor,
    styles: Sequence[tuple[Tensor, float]],
    width: int,
    height: int,
) -> Tensor:
    if recipe.init == "gray":
        return content.new_full((1, 3, height, width), 0.5)
    if recipe.init in ("noise", "uniform"):
        generator = torch.Generator().manual_seed(recipe.seed)
        # Drawn on the CPU, so that a seed gives the same noise on every device.
        return torch.rand(1, 3, height, width, generator=generator).to(content)
    small = resize(content, width, height)
    return (in_style_colors(small, styles) if recipe.init == "style_colors" else small)[:, :3]
