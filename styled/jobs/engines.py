"""The engine slots as the scheduler knows them: which have an engine, and what each is doing.

A slot is a thread that owns at most one engine, and replaces it after a loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import structlog

from styled.engine_api import EngineInfo
from styled.errors import StyledError
from styled.jobs.engine_slot import EngineSlot
from styled.jobs.events import Assignment
from styled.jobs.running import RunningJobs, SlotState
from styled.jobs.snapshot import EngineSnapshot

log = structlog.get_logger()


class Engines:
    """All slots, with the state of each. Events of slots that have been removed are ignored.

    Attributes:
        slots: All slots. Each change assigns a new tuple, so that any thread may read it.
    """

    def __init__(self, slots: Sequence[EngineSlot]) -> None:
        """Manage `slots`, none of which has an engine yet."""
        self._slots = {slot.name: slot for slot in slots}
        self._states = {slot.name: SlotState() for slot in slots}
        self._order: dict[str, int] = {}
        self._free: set[str] = set()
        self._busy: set[str] = set()
        self.slots: tuple[EngineSlot, ...] = ()
        self._slots_changed()

    def start(self) -> None:
        """Start all slots: each makes its engine."""
        for slot in self._slots.values():
            slot.start()

    def add(self, slot: EngineSlot) -> None:
        """Manage a further slot, and start it."""
        self._slots[slot.name] = slot
        self._states[slot.name] = SlotState()
        self._slots_changed()
        slot.start()

    def remove(self, engine_name: str, reason: str) -> int | None:
        """Close a slot and forget it.

        Returns:
            The number of the assignment that it was running, None if it ran none.
        """
        if engine_name not in self._slots:
            return None
        self._slots.pop(engine_name).close()
        assignment_id = self._states.pop(engine_name).assignment_id
        self._free.discard(engine_name)
        self._busy.discard(engine_name)
        self._slots_changed()
        log.warning("engine.removed", engine=engine_name, reason=reason)
        return assignment_id

    def _slots_changed(self) -> None:
        # For `free_slots`, which would have to search for each position at every turn.
        self._order = {name: number for number, name in enumerate(self._slots)}
        self.slots = tuple(self._slots.values())

    def close(self) -> None:
        """Let each slot end after its current task."""
        for slot in self._slots.values():
            slot.close()

    def engine_ready(self, engine_name: str, info: EngineInfo) -> None:
        """Record that a slot has an engine, which is free."""
        if engine_name not in self._slots:
            return
        self._states[engine_name] = SlotState(info)
        self._free.add(engine_name)
        log.info("engine.ready", engine=engine_name, device=info.device, node=info.node)

    def engine_lost(
        self, engine_name: str, error: StyledError, retry_seconds: float | None
    ) -> int | None:
        """Record that a slot has lost its engine.

        Args:
            engine_name: Name of the slot.
            error: The reason.
            retry_seconds: Seconds until the slot tries to replace it; None: never.

        Returns:
            The number of the assignment that it was running, None if it ran none.
        """
        if engine_name not in self._slots:
            return None
        assignment_id = self._states[engine_name].assignment_id
        self._free.discard(engine_name)
        self._busy.discard(engine_name)
        is_given_up = retry_seconds is None
        self._states[engine_name] = SlotState(problem=error.message, is_given_up=is_given_up)
        log.error("engine.lost", engine=engine_name, reason=error.message,
                  remedies=list(error.remedies), retry_seconds=retry_seconds)  # fmt: skip
        return assignment_id

    def replace(self, engine_name: str) -> bool:
        """Abandon a stalled engine and its thread, and start anew.

        The slot's state does not change: call `engine_lost` afterwards.

        Returns:
            False if the slot is gone, or its engine is in this process, where a thread can't be
            killed.
        """
        return engine_name in self._slots and self._slots[engine_name].replace()

    def free_slots(self) -> Iterator[tuple[str, EngineInfo]]:
        """Yield the slots whose engines are free, in the order of the slots."""
        for name in sorted(self._free, key=self._order.__getitem__):
            info = self._states[name].info
            if info is not None:  # always: for the type checker
                yield name, info

    def assignment_started(self, engine_name: str, assignment_id: int) -> None:
        """Record that a slot runs an assignment from now on."""
        self._states[engine_name].assignment_id = assignment_id
        self._free.discard(engine_name)
        self._busy.add(engine_name)

    def assignment_ended(self, engine_name: str, assignment_id: int) -> None:
        """Record that a slot has ended an assignment and is free.

        Ignored if it has another assignment by now: an abandoned engine reports late.
        """
        if engine_name in self._states and self._states[engine_name].assignment_id == assignment_id:
            self._states[engine_name].assignment_id = None
            self._busy.discard(engine_name)
            self._free.add(engine_name)

    def assign(self, engine_name: str, assignment: Assignment) -> None:
        """Pass an assignment to a slot, unless its engine was lost since `assignment_started`.

        The journal may have failed in between, which delays assignments by some turns. Then the
        job was requeued already.
        """
        state = self._states.get(engine_name)
        if state is not None and state.assignment_id == assignment.assignment_id:
            self._slots[engine_name].assign(assignment)

    def stop(self, engine_name: str, job_id: str) -> None:
        """Ask a slot's engine to stop painting a job after its current step."""
        if engine_name in self._slots:
            self._slots[engine_name].stop(job_id)

    @property
    def count(self) -> int:
        """Number of engines, whether free or busy."""
        return len(self._free) + len(self._busy)

    @property
    def free_count(self) -> int:
        """Number of free engines."""
        return len(self._free)

    @property
    def is_busy(self) -> bool:
        """Whether any engine runs an assignment."""
        return bool(self._busy)

    @property
    def none_will_come(self) -> bool:
        """Whether there are slots, none has an engine, and none will make another one.

        False without any slot: a cluster may still add some.
        """
        return bool(self._states) and all(state.is_given_up for state in self._states.values())

    def as_json(self) -> str:
        """Return a JSON list with name, device, node and problem of each slot's engine.

        `device` is null while the slot has no engine; `node` is null on the daemon's machine.
        """
        return json.dumps([
            {
                "name": name, "device": state.info and state.info.device,
                "node": state.info and state.info.node, "problem": state.problem,
            }
            for name, state in self._states.items()
        ])  # fmt: skip

    def snapshot(self, running: RunningJobs) -> tuple[EngineSnapshot, ...]:
        """Return the state of each slot's engine, with the job that it paints."""
        return tuple(_snapshot(name, state, running) for name, state in self._states.items())


def _snapshot(name: str, state: SlotState, running: RunningJobs) -> EngineSnapshot:
    painting = None if state.assignment_id is None else running.of_assignment(state.assignment_id)
    return EngineSnapshot(
        name,
        device=state.info.device if state.info else None,
        degraded=state.info.degraded if state.info else (),
        node=state.info.node if state.info else None,
        problem=state.problem,
        job=painting.job if painting else None,
        progress=painting.progress if painting else None,
    )
