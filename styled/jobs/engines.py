"""The scheduler's engines: which slots have one, and what each is doing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import structlog

from styled.engine_api import EngineInfo
from styled.errors import StyledError
from styled.jobs.engine_slot import Assignment, EngineSlot
from styled.jobs.running import RunningJobs, SlotState
from styled.jobs.snapshot import EngineSnapshot

log = structlog.get_logger()


class Engines:
    """All slots, with the state of each as the scheduler knows it.

    Attributes:
        slots: All slots; replaced when one comes or goes, so any thread may read it.
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

    def remove(self, slot: str, reason: str) -> int | None:
        """Close a slot and forget it.

        Returns:
            The number of the assignment that it was running, None if it ran none.
        """
        if slot not in self._slots:
            return None
        self._slots.pop(slot).close()
        run_id = self._states.pop(slot).run_id
        self._free.discard(slot)
        self._busy.discard(slot)
        self._slots_changed()
        log.warning("engine.removed", engine=slot, reason=reason)
        return run_id

    def _slots_changed(self) -> None:
        # Precomputed: there may be hundreds of slots and thousands of turns.
        self._order = {name: number for number, name in enumerate(self._slots)}
        self.slots = tuple(self._slots.values())

    def close(self) -> None:
        """Let each slot end after its current task."""
        for slot in self._slots.values():
            slot.close()

    def ready(self, slot: str, info: EngineInfo) -> None:
        """Record that a slot has an engine, which is free."""
        if slot not in self._slots:
            return  # it was removed in the meantime
        self._states[slot] = SlotState(info)
        self._free.add(slot)
        log.info("engine.ready", engine=slot, device=info.device, node=info.node)

    def lost(self, slot: str, error: StyledError, retry_seconds: float | None) -> int | None:
        """Record that a slot has lost its engine.

        Args:
            slot: The slot's name.
            error: Why.
            retry_seconds: Seconds until the slot tries to replace it; None: never.

        Returns:
            The number of the assignment that it was running, None if it ran none.
        """
        if slot not in self._slots:
            return None
        run_id = self._states[slot].run_id
        self._free.discard(slot)
        self._busy.discard(slot)
        self._states[slot] = SlotState(problem=error.message, is_gone=retry_seconds is None)
        log.error("engine.lost", engine=slot, reason=error.message, remedies=list(error.remedies),
                  retry_seconds=retry_seconds)  # fmt: skip
        return run_id

    def replace(self, slot: str) -> bool:
        """Abandon and replace a stalled engine; return False if that is impossible."""
        return slot in self._slots and self._slots[slot].replace()

    def free(self) -> Iterator[tuple[str, EngineInfo]]:
        """Yield the slots whose engines are free, in the order of the slots."""
        for name in sorted(self._free, key=self._order.__getitem__):
            info = self._states[name].info
            if info is not None:
                yield name, info

    def begin(self, slot: str, run_id: int) -> None:
        """Record that a slot runs an assignment from now on."""
        self._states[slot].run_id = run_id
        self._free.discard(slot)
        self._busy.add(slot)

    def end(self, slot: str, run_id: int) -> None:
        """Record that a slot has ended an assignment and is free."""
        if slot in self._states and self._states[slot].run_id == run_id:
            self._states[slot].run_id = None
            self._busy.discard(slot)
            self._free.add(slot)

    def assign(self, slot: str, assignment: Assignment) -> None:
        """Pass an assignment to a slot, unless its engine was lost since `begin`.

        The journal may have failed in between, which delays assignments by some turns. Then the
        job was requeued already.
        """
        state = self._states.get(slot)
        if state is not None and state.run_id == assignment.run_id:
            self._slots[slot].assign(assignment)

    def stop(self, slot: str, job_id: str) -> None:
        """Make an engine stop a job at its next step."""
        if slot in self._slots:
            self._slots[slot].stop(job_id)

    @property
    def count(self) -> int:
        """Number of engines that are available, free or busy."""
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
    def are_all_gone(self) -> bool:
        """Whether there were engines, all are lost and none will be replaced."""
        return bool(self._states) and all(state.is_gone for state in self._states.values())

    def as_json(self) -> str:
        """Return name, device and problem of each engine as JSON, for `styled status`."""
        return json.dumps([
            {
                "name": name, "device": state.info and state.info.device,
                "node": state.info and state.info.node, "problem": state.problem,
            }
            for name, state in self._states.items()
        ])  # fmt: skip

    def snapshot(self, running: RunningJobs) -> tuple[EngineSnapshot, ...]:
        """Return the state of each engine, with the job that it paints."""
        return tuple(
            EngineSnapshot(
                name,
                state.info.device if state.info else None,
                state.info.degraded if state.info else (),
                state.info.node if state.info else None,
                state.problem,
                running_job.job if running_job else None,
                running_job.progress if running_job else None,
            )
            for name, state in self._states.items()
            for running_job in [None if state.run_id is None else running.of_run(state.run_id)]
        )
