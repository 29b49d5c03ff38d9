"""An engine of the cluster as the queue sees it, and the factory that makes one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from typing import IO, Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from styled.cluster.engine_actor import CONTROL, IMAGE_FOLLOWS, EngineActor
from styled.cluster.errors import styled_errors
from styled.cluster.placement import Placement
from styled.cluster.remote_images import remote_painted
from styled.cluster.shared_objects import SharedObjects
from styled.engine_api import Engine, EngineEvent, EngineInfo, Failed, Painted, PaintTask
from styled.errors import EngineDied, NodeLost, StyledError

POLL_SECONDS = 5.0
"""How often an engine that reports nothing is asked whether it still computes."""

ANSWER_SECONDS = 30.0

ENGINE_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""Of an engine's process. `configure_allocator` says the same, but too late for threads that Ray
has started before: glibc gives each a heap of its own, without blocks above 64 MiB, so that the
kernel maps and clears larger ones at each step. A step then takes half as long again."""

START_SECONDS = 300.0
"""How long an engine may take to start: torch is loaded from a cold disk, or its GPU is in use."""

BACKPRESSURE_OBJECTS = 32
"""Events that the daemon has not taken yet; an engine that is further ahead waits."""


class RemoteEngine:
    """An engine in an actor of the cluster.

    Attributes:
        info: The properties of the engine.
        ops_done: A counter that grows while work is in progress.
    """

    def __init__(self, actor: Any, info: EngineInfo, placement: Placement) -> None:
        """Use the engine of `actor`, which has these properties and this placement."""
        self._actor = actor
        self._placement = placement
        self.info = info
        self.ops_done = 0

    def run(self, task: PaintTask, checkpoint: IO[bytes] | None = None) -> Iterator[EngineEvent]:
        """Paint one picture; see `styled.engine_api.Engine`.

        Raises:
            EngineDied: the engine's process has died.
            NodeLost: its machine is gone.
        """
        try:
            self._require_alive()
            yield from self._run(task, None if checkpoint is None else checkpoint.read())
        except StyledError:
            self.close()  # a process that still lives would keep the place of its replacement
            raise

    def _run(self, task: PaintTask, checkpoint: bytes | None) -> Iterator[EngineEvent]:
        try:
            with self._errors():
                run = self._actor.run.options(
                    num_returns="streaming",
                    _generator_backpressure_num_objects=BACKPRESSURE_OBJECTS,
                )
                yield from self._events(run.remote(task, checkpoint))
        except NodeLost as error:
            self.check()
            yield Failed(error)  # not this machine was lost, but one that had the photo's pixels

    def _events(self, items: Any) -> Iterator[EngineEvent]:
        pixels, is_image = None, False
        while True:
            # Pixels are not fetched: they stay on their machine until the painting is encoded.
            ready, _ = ray.wait([items], timeout=POLL_SECONDS, fetch_local=False)
            if not ready:
                self._ask_for_ops_done()
                continue
            try:
                item = next(items)
            except StopIteration:
                return
            if is_image:
                pixels, is_image = item, False
                continue
            event = ray.get(item)
            if event == IMAGE_FOLLOWS:
                is_image = True
            elif isinstance(event, Painted):
                assert pixels is not None, "they come first"
                yield remote_painted(event, pixels, self._placement.node.id)
            else:
                yield event

    def _ask_for_ops_done(self) -> None:
        with suppress(GetTimeoutError):  # a process that does not answer does not work either
            self.ops_done = ray.get(self._actor.ops_done.remote(), timeout=ANSWER_SECONDS)

    def stop(self, job_id: str) -> None:
        """Stop this task after its next step; does not wait for an answer."""
        with suppress(Exception):  # `run` finds out that the engine is gone
            self._actor.stop.remote(job_id)

    def check(self) -> None:
        """Check that the engine's process answers.

        Raises:
            EngineDied, NodeLost: it is gone.
        """
        with self._errors():
            self._ask_for_ops_done()

    def _require_alive(self) -> None:
        """Check the same before a job, which is not to blame.

        Raises:
            NodeLost: the engine is gone.
        """
        try:
            self.check()
        except EngineDied as error:
            raise NodeLost(
                f"an engine on {self._placement.node.name} had died before the job began",
                *error.remedies,
            ) from error

    def close(self) -> None:
        """End the engine's process."""
        _kill(self._actor)

    def _errors(self) -> AbstractContextManager[None]:
        return styled_errors(self._placement.node.id, self._placement.node.name)


_ACTOR: Any = ray.remote(concurrency_groups={CONTROL: 2})(EngineActor)  # type: ignore[call-overload]  # Ray's types lack it


class RemoteEngineFactory:
    """Makes the engine of one placement, and its replacements."""

    can_replace = True

    def __init__(self, placement: Placement, objects: SharedObjects) -> None:
        """Make engines at `placement` with the weights of `objects`."""
        self._placement = placement
        self._objects = objects

    def make(self) -> Engine:
        """Start an actor and its engine.

        Raises:
            EngineDied, NodeLost, StyledError: it could not be made.
        """
        placement = self._placement
        with styled_errors(placement.node.id, placement.node.name):
            actor = _ACTOR.options(
                num_cpus=placement.cpus,
                num_gpus=placement.gpus,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(placement.node.id, soft=False),
                enable_task_events=False,
                runtime_env={"env_vars": ENGINE_ENVIRONMENT},
            ).remote()
            try:
                info = self._started(actor)
            except BaseException:
                _kill(actor)  # it would keep the place of the next one
                raise
        self._objects.record_precision(info)
        return RemoteEngine(actor, info, placement)

    def _started(self, actor: Any) -> EngineInfo:
        """Start the engine of an actor; return its properties."""
        settings = self._objects.engine_settings(self._placement)
        started = actor.start.remote(settings, self._objects.weights())
        try:
            info: EngineInfo = ray.get(started, timeout=START_SECONDS)
        except GetTimeoutError as error:
            node = self._placement.node.name
            raise EngineDied(
                f"an engine on {node} has not started within {START_SECONDS:.0f} s",
                "something else may be using that machine's GPUs or cores: ray status tells",
            ) from error
        return info


def _kill(actor: Any) -> None:
    """End an actor's process."""
    with suppress(Exception):  # it is gone already, or the cluster is
        ray.kill(actor)
