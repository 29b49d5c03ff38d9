"""Keeps the connection to the cluster, and one slot for each engine that is placed on it."""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Protocol

import structlog

from styled.cluster.connection import Connection, is_reachable
from styled.cluster.membership import Membership
from styled.cluster.placement import Placement, new_placements
from styled.cluster.remote_codec import SPARE_RAY_TASKS, CodecNode, CodecNodes, RemotePhotoCodec
from styled.cluster.remote_engine import RemoteEngineFactory
from styled.cluster.shared_objects import SharedObjects
from styled.config import Config
from styled.degradation import Degradation
from styled.errors import ClusterUnavailable, StyledError
from styled.job_io.job_files import JobFiles
from styled.job_io.protocols import HeartbeatsProtocol
from styled.jobs.engine_slot import EngineSlot
from styled.jobs.events import Event, ServiceDegradationsChanged, SlotAdded, SlotRemoved

log = structlog.get_logger()

PART = "cluster"
"""The fleet's name in the heartbeats and among the parts of the service."""

POLL_SECONDS = 2.0
"""How often the machines of the cluster are looked up."""

PROBING_SECONDS = 0.2
"""How often, while a machine's versions are awaited."""

CALL_SECONDS = 60.0
"""Maximum time of one look at the cluster, for the heartbeat."""

FIRST_RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 60.0
"""Back-off of connecting again after the cluster was lost."""


class FleetObserver(Protocol):
    """Receives the state of the cluster."""

    def cluster_changed(self, problem: str) -> None:
        """Called when the reason has changed why there are no engines, or fewer than wanted.

        Args:
            problem: One sentence; empty if all is well.
        """


class Fleet:
    """Adds and removes engine slots as machines join and leave.

    Attributes:
        codec: Decodes photos and encodes results on the machines of the cluster.
        weights_source: `imagenet`, `untrained` or a file's path; known after `start`.
    """

    def __init__(
        self,
        config: Config,
        objects: SharedObjects,
        events: SimpleQueue[Event],
        files: JobFiles,
        heartbeats: HeartbeatsProtocol,
        observer: FleetObserver,
        name_prefix: str,
    ) -> None:
        """Prepare everything; `start` connects.

        Args:
            config: The configuration.
            objects: What the engines are made of.
            events: The scheduler's queue.
            files: Where checkpoints, previews and frames are kept.
            heartbeats: Receives the heartbeats of this thread and of the slots.
            observer: Receives the state of the cluster.
            name_prefix: Slots are named by it and a number.
        """
        address = config.cluster.address
        assert address is not None, "a cluster is configured"
        self._config = config
        self._objects = objects
        self._events = events
        self._files = files
        self._heartbeats = heartbeats
        self._observer = observer
        self._name_prefix = name_prefix
        self._connection = Connection(address)
        self._members = Membership()
        self._placements: dict[str, Placement] = {}  # by slot name
        self._use_gpus = False
        self._nodes = CodecNodes()
        self._problem: str | None = None
        self._is_lost = False
        self._is_stopping = threading.Event()
        self._started: Future[None] = Future()
        # This thread also holds the connection: see `Connection.connect`.
        self._thread = threading.Thread(target=self._run, name=PART, daemon=True)
        self.codec = RemotePhotoCodec(self._nodes, objects)

    @property
    def weights_source(self) -> str:
        """`imagenet`, `untrained` or a file's path."""
        return self._objects.weights_source

    def start(self, *, is_lost: bool = False) -> None:
        """Connect, and add slots from now on.

        Args:
            is_lost: Whether to wait for a cluster that can't be reached, as after its loss,
                instead of raising ClusterUnavailable.

        Raises:
            ClusterUnavailable: the cluster can't be reached.
            WeightsError: the weights are not available.
        """
        self._is_lost = is_lost
        self._thread.start()
        self._started.result()

    def stop(self, within_seconds: float | None = None) -> bool:
        """Disconnect; return False if that takes longer than `within_seconds`."""
        self._is_stopping.set()
        if self._thread.ident is not None:
            self._thread.join(within_seconds)
        return not self._thread.is_alive()

    # In the fleet's thread

    def _run(self) -> None:
        try:
            self._connect_first()
        except BaseException as error:  # noqa: BLE001  # raised in the thread that has called `start`
            self._connection.close()
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        try:
            while not self._is_stopping.wait(self._poll_seconds):
                self._heartbeats.beat(PART, CALL_SECONDS)
                if not self._try_poll():
                    self._give_up_engines()
                    self._reconnect()
        finally:
            self._connection.close()

    def _try_poll(self) -> bool:
        """Look up the machines; return False if the cluster can't be used."""
        try:
            if is_reachable():
                self._poll()
                return True
        # Whatever Ray raises here, connecting again is the remedy; this thread must not end. Ray
        # raises SystemExit in threads that wait for it when its process on this machine dies.
        except (Exception, SystemExit):
            log.exception("cluster.internal_error")
        return False

    def _connect_first(self) -> None:
        try:
            self._connect()
        except ClusterUnavailable as error:
            if not self._is_lost:
                raise
            log.error("cluster.lost", address=self._connection.address, reason=error.message)
            self._report(f"{error.message}; photos wait until it is back")
        else:
            self._poll()

    @property
    def _poll_seconds(self) -> float:
        return PROBING_SECONDS if self._members.is_being_probed else POLL_SECONDS

    def _connect(self) -> None:
        self._connection.connect()
        self._members = Membership()
        self._objects.reset()
        self._objects.weights()
        log.info("cluster.connected", address=self._connection.address)

    def _give_up_engines(self) -> None:
        """Remove all engines of a cluster that was lost just now."""
        if not self._connection.is_made:
            return
        reason = f"the cluster {self._connection.address} can't be reached any more"
        log.error("cluster.lost", address=self._connection.address)
        for name in tuple(self._placements):
            self._remove(name, reason)
        self._nodes.set(())
        self._report(f"{reason}; photos wait until it is back")
        self._connection.close()

    def _reconnect(self) -> None:
        """Connect again, as often as it takes."""
        seconds = FIRST_RETRY_SECONDS
        while not self._is_stopping.wait(seconds):
            self._heartbeats.beat(PART, MAX_RETRY_SECONDS + CALL_SECONDS)
            try:
                self._connect()
            except StyledError as error:
                log.warning("cluster.not_reconnected", reason=error.message)
                seconds = min(2 * seconds, MAX_RETRY_SECONDS)
            else:
                return  # the machines are looked up at the next poll

    def _poll(self) -> None:
        """Look up the machines; remove and add slots accordingly."""
        members, config = self._members, self._config
        before = {node.id: node.name for node in members.usable}
        members.update()
        usable = {node.id: node for node in members.usable}
        for node in usable.values():
            if node.id not in before:
                log.info("node.joined", node=node.name, cpus=node.cpus, gpus=node.gpus)
        for node_id, name in before.items():
            if node_id not in usable:
                log.warning("node.left", node=name, expected=name not in members.gone)
        for slot, placement in tuple(self._placements.items()):
            if placement.node.id not in usable:
                self._remove(slot, f"its machine {placement.node.name} has left the cluster")
        # Once there was a GPU, machines without one are not used: they would take hours.
        self._use_gpus |= config.engine.device != "cpu" and any(n.gpus > 0 for n in members.usable)
        taken: dict[str, list[Placement]] = defaultdict(list)
        for placement in self._placements.values():
            taken[placement.node.id].append(placement)
        new = new_placements(members.usable, taken, config.cluster, use_gpus=self._use_gpus)
        for placement in new:
            self._add(placement)
            taken[placement.node.id].append(placement)
        self._nodes.set([
            CodecNode(node.id, node.name, len(taken[node.id]) + SPARE_RAY_TASKS)
            for node in members.usable
            if taken[node.id]
        ])  # fmt: skip
        self._report(self._current_problem())

    def _add(self, placement: Placement) -> None:
        names = map(self._name, range(len(self._placements) + 1))
        name = next(name for name in names if name not in self._placements)
        self._placements[name] = placement
        log.info("engine.added", engine=name, node=placement.node.name, gpus=placement.gpus,
                 cpus=placement.cpus)  # fmt: skip
        factory = RemoteEngineFactory(placement, self._objects)
        slot = EngineSlot(name, factory, self._files, self._events, self._heartbeats)
        self._events.put(SlotAdded(slot))

    def _remove(self, name: str, reason: str) -> None:
        del self._placements[name]
        self._events.put(SlotRemoved(name, reason))

    def _name(self, number: int) -> str:
        return f"{self._name_prefix}-{number}"

    def _current_problem(self) -> str:
        members, wanted = self._members, self._config.cluster.engines
        there = len(self._placements)
        parts = [f"the machine {n} is not used: {why}" for n, why in members.refused.items()]
        parts += [f"the machine {name} is gone" for name in members.gone]
        if not there:
            if members.is_being_probed and not parts:
                return ""  # the answer takes a moment
            parts.insert(0, "no machine of the cluster has a place for an engine; photos wait")
        elif wanted != "auto" and there < wanted:
            parts.insert(0, f"there are places for {there} of {wanted} engines only")
        return "; ".join(parts)

    def _report(self, problem: str) -> None:
        if problem == self._problem:
            return
        if problem:
            log.warning("cluster.degraded", reason=problem)
        elif self._problem is not None:
            log.info("cluster.recovered")
        self._problem = problem
        degraded = (Degradation("cluster", problem),) if problem else ()
        self._events.put(ServiceDegradationsChanged(PART, degraded))
        self._observer.cluster_changed(problem)
