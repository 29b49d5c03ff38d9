"""The engine that runs in this process: one resident network on one device."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import IO

import torch

from styled.degradation import Degradation
from styled.engine import memory
from styled.engine.checkpoint import Checkpoint, load_checkpoint, task_fingerprint
from styled.engine.determinism import choose_algorithms
from styled.engine.device import Device
from styled.engine.events import StepProgress, Stylized
from styled.engine.objective import Objective, style_targets
from styled.engine.precision import Precision, convolution_dtype
from styled.engine.style_cache import StyleCache
from styled.engine.stylize import stylize
from styled.engine.task_run import TaskRun
from styled.engine.vgg import Vgg19
from styled.engine.weights import Weights
from styled.engine_api import (
    CheckpointIgnored,
    EngineEvent,
    EngineInfo,
    Failed,
    Painted,
    PaintTask,
    Resumed,
)
from styled.errors import (
    ConfigError,
    DeviceLost,
    EngineFailure,
    StyledError,
    UnexpectedError,
)
from styled.recipes import PYRAMID, Recipe

WARM_UP = PYRAMID
"""The recipe of the one evaluation at construction."""

STYLE_SHARE = 0.1
"""The largest share of the memory available to pictures that cached style targets may take."""


class LocalEngine:
    """Keeps one VGG-19 on one device and paints one picture at a time."""

    def __init__(
        self,
        weights: Weights,
        device: Device,
        precision: Precision = "auto",
        degraded: Sequence[Degradation] = (),
        memory_limit: int | None = None,
        *,
        threads: int | None = None,
        deterministic: bool = True,
        faster_dtype: torch.dtype | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the network onto the device and run it once, so that the first job is not slower.

        Args:
            weights: From `load_weights`.
            device: From `choose_device`.
            precision: Of the convolutions. `auto` is bfloat16 where the device is faster at it,
                for recipes that allow it (`Recipe.precision`).
            degraded: Degradations from before the engine was made.
            memory_limit: Limit in bytes, including the network: of the process's memory on a
                CPU, of the device's on a GPU. None: most of what is free when a picture begins.
            threads: torch's intra-op thread count, set in whichever thread paints. None: torch's
                own choice in the thread that makes the engine.
            deterministic: As in `choose_algorithms`.
            clock: Monotonic seconds, for the intervals between events.
            faster_dtype: The faster dtype as measured at an earlier start, for `auto`. None:
                measure it.

        Raises:
            ConfigError: the network alone takes more than `memory_limit`.
        """
        choose_algorithms(device.torch_device, deterministic=deterministic)
        self._threads = threads or torch.get_num_threads()
        self._set_threads()
        if precision == "auto" and faster_dtype is not None:
            dtype = faster_dtype
        else:
            dtype = convolution_dtype(precision, device.torch_device)
        self._precision_was_chosen = precision != "auto"
        self._network = Vgg19(weights.convolutions, device.torch_device, dtype)
        self._style_cache = StyleCache()
        self._clock = clock
        self._to_stop: set[str] = set()
        untrained = Degradation("weights", "the network is untrained")
        self.info = EngineInfo(
            weights_source=weights.source,
            weights_sha256=weights.sha256,
            device=device.name,
            precision=str(dtype).removeprefix("torch."),
            torch=torch.__version__,
            degraded=(
                *([device.degradation] if device.degradation else []),
                *([untrained] if weights.source == "untrained" else []),
                *degraded,
            ),
            device_model=device.model,
            threads=self._threads,
            deterministic=deterministic if device.torch_device.type == "cuda" else None,
        )
        gray = torch.full((1, 3, 64, 64), 0.5, device=device.torch_device)
        targets = style_targets(self._network, WARM_UP, [(gray, 1.0)])
        Objective(self._network, WARM_UP, gray, targets).evaluate(gray)
        memory.empty_cache(device.torch_device)
        self._resident_bytes = memory.used_bytes(device.torch_device)
        self._memory_limit = memory_limit
        if memory_limit is not None and memory_limit <= self._resident_bytes:
            raise ConfigError(
                f"engine.memory_limit: {memory_limit >> 20} MiB is less than the network and "
                f"the program take on {device.name}, {self._resident_bytes >> 20} MiB",
                f"raise it to {(self._resident_bytes >> 20) + 1024} MiB or more, or use auto",
            )

    def run(self, task: PaintTask, checkpoint: IO[bytes] | None = None) -> Iterator[EngineEvent]:
        """Paint one picture; see `styled.engine_api.Engine`."""
        self._set_threads()
        failure: StyledError
        try:
            yield from self._events(task, checkpoint)
            return
        except (EngineFailure, DeviceLost) as error:
            # A new exception, because the old one's traceback keeps its frames and their tensors.
            failure = type(error)(error.message, *error.remedies)
        # A bug in this program. The network is unchanged and can paint other pictures.
        except Exception as error:  # noqa: BLE001  # it fails only its own task
            failure = UnexpectedError.of(error)
        finally:
            self._to_stop.discard(task.job_id)
        yield Failed(failure)

    def _events(self, task: PaintTask, checkpoint: IO[bytes] | None) -> Iterator[EngineEvent]:
        fingerprint = task_fingerprint(task, self.info.weights_sha256)
        resume = None
        if checkpoint is not None:
            try:
                resume = load_checkpoint(checkpoint, fingerprint, self._network.device)
            except ValueError as error:
                yield CheckpointIgnored(str(error))
            else:
                yield Resumed(resume.scale, resume.step)
        run = TaskRun(task, fingerprint, resume, lambda: task.job_id in self._to_stop, self._clock)
        painting = self._paint(task, resume)
        del resume  # its images are not needed after the first step
        for event in run.events(painting):
            if isinstance(event, Painted):
                event = replace(event, peak_memory_bytes=memory.peak_bytes(self._network.device))
            yield event

    def stop(self, job_id: str) -> None:
        """Stop this task after its next step; may be called from any thread."""
        self._to_stop.add(job_id)

    def check(self) -> None:
        """Do nothing: this engine is gone only if this process is."""

    def close(self) -> None:
        """Clear the style cache and return free memory to the system."""
        self._style_cache.shrink_to(0)
        memory.empty_cache(self._network.device)

    def _paint(
        self, task: PaintTask, resume: Checkpoint | None
    ) -> Generator[StepProgress, None, Stylized]:
        """Paint one picture; see `styled.engine.stylize.stylize`.

        Raises:
            EngineFailure: the loss or the result was bad, or there is too little memory.
            DeviceLost: the device failed; this process can't use it any more.
        """
        device = self._network.device
        memory.reset_peak(device)
        painting = stylize(
            self._network_for(task.recipe),
            task.content,
            task.styles,
            task.recipe,
            resume,
            self._style_cache.targets,
            self._available_bytes(),
            task.painted_size,
            task.init,
        )
        del resume
        try:
            return (yield from painting)
        except (RuntimeError, MemoryError) as error:
            if memory.is_out_of_memory(error):
                height, width = task.content.shape[-2:]
                raise EngineFailure(
                    f"there is too little memory on {self.info.device} for "
                    f"{width} x {height} pixels",
                    "lower the recipe's size, or its optimizer.history",
                ) from error
            # torch has no exception type for this error: only its message tells.
            if "cuda error" in str(error).lower():
                raise DeviceLost(
                    f"{self.info.device} broke while in use: {str(error).splitlines()[0]}",
                    "restart styled; if it happens again, look at the driver's messages (dmesg)",
                ) from error
            raise
        finally:
            memory.empty_cache(device)

    def _set_threads(self) -> None:
        # torch's thread count is per thread. The first read in a thread initialises it from the
        # process-wide value and overwrites a count set before, so read first.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)

    def _network_for(self, recipe: Recipe) -> Vgg19:
        exact = recipe.precision == "float32" and not self._precision_was_chosen
        return self._network.in_float32() if exact else self._network

    def _available_bytes(self) -> int | None:
        device = self._network.device
        free = memory.free_bytes(device)
        limits = [] if self._memory_limit is None else [self._memory_limit]
        if free is not None:
            limits.append(memory.used_bytes(device) + int(memory.SHARE_OF_FREE * free))
        if not limits:
            return None
        available = max(0, min(limits) - self._resident_bytes)
        self._style_cache.shrink_to(int(STYLE_SHARE * available))
        return available - self._style_cache.bytes

    @property
    def ops_done(self) -> int:
        """The number of network layers computed so far; it grows while work is in progress."""
        return self._network.progress.layers
