"""The actor that holds an engine on a machine of the cluster."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import ray

from styled.config import EngineConfig
from styled.engine_api import EngineEvent, EngineInfo, Failed, Painted, PaintTask
from styled.errors import NodeLost

if TYPE_CHECKING:
    from torch import Tensor

    from styled.engine.local_engine import LocalEngine
    from styled.engine.weights import Weights

CONTROL = "control"
"""Concurrency group of the calls that are answered while a picture is painted."""

IMAGE_FOLLOWS: Final = "image follows"
"""Sent before the pixels of a painting, which then stay in the object store of their machine."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How an engine of the cluster is made.

    Attributes:
        config: The section `engine`; its number of threads is not used.
        node: The name of the machine.
        uses_gpu: Whether the actor has a GPU.
        recorded_precisions: Device model -> torch's version -> precision, as measured before.
    """

    config: EngineConfig
    node: str
    threads: int
    uses_gpu: bool
    recorded_precisions: dict[str, dict[str, str]]


class EngineActor:
    """One engine in a process of its own."""

    def __init__(self) -> None:
        """Do nothing: `start` makes the engine. Ray would hide the type of an error raised here."""
        self._engine: LocalEngine | None = None

    def start(self, settings: EngineSettings, weights: Weights) -> EngineInfo:
        """Make the engine.

        Raises:
            DeviceError, ConfigError: it can't be made on this machine.
        """
        from styled.engine.memory import configure_allocator
        from styled.engine_setup import make_engine
        from styled.precision_record import KnownPrecisions

        config, threads = settings.config, settings.threads
        # Ray shows each actor its own GPUs only, as cuda:0 and so on.
        if config.device.startswith("cuda:"):
            config = config.model_copy(update={"device": "cuda"})
        if settings.uses_gpu and config.device == "auto":
            config = config.model_copy(update={"device": "cuda"})
        config = config.model_copy(update={"threads": threads})
        configure_allocator()
        known = KnownPrecisions(settings.recorded_precisions)
        engine = make_engine(config, lambda done, total: None, known, weights=weights)
        info = replace(engine.info, node=settings.node)
        if gpu_ids := ray.get_gpu_ids():  # as the machine numbers them
            info = replace(info, device=f"cuda:{','.join(map(str, gpu_ids))}")
        self._engine = engine
        return info

    def run(
        self, task: PaintTask, checkpoint: bytes | None
    ) -> Iterator[EngineEvent | Tensor | str]:
        """Paint one picture; yields the engine's events.

        The pixels of the painting are an item of their own, after `IMAGE_FOLLOWS`; the `Painted`
        after them has an image without pixels, on torch's meta device.
        """
        engine = self._engine
        assert engine is not None, "`start` is called first"
        try:
            task = task.loaded()
        except NodeLost as error:
            yield Failed(error)
            return
        for event in engine.run(task, None if checkpoint is None else io.BytesIO(checkpoint)):
            if isinstance(event, Painted):
                yield IMAGE_FOLLOWS
                yield event.image
                event = replace(event, image=event.image.to("meta"))
            yield event

    @ray.method(concurrency_group=CONTROL)
    def stop(self, job_id: str) -> None:
        """Stop this task after its next step."""
        if self._engine is not None:
            self._engine.stop(job_id)

    @ray.method(concurrency_group=CONTROL)
    def ops_done(self) -> int:
        """Return a counter that grows while the engine computes."""
        return 0 if self._engine is None else self._engine.ops_done
