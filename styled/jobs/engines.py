"""The engines of a scheduler: which are there, and what each of them does."""

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
    """The slots, and what the scheduler knows of each."""

    def __init__(self, slots: Sequence[EngineSlot]) -> None:
        """Have these; none has an engine yet."""
        self._slots = {slot.name: slot for slot in slots}
        self._states = {slot.name: SlotState() for slot in slots}
        # Kept, since there may be hundreds of slots, and turns by the thousand.
        self._order = {name: number for number, name in enumerate(self._slots)}
        self._free: set[str] = set()
        self._busy: set[str] = set()

    def start(self) -> None:
        """Have each slot get its engine."""
        for slot in self._slots.values():
            slot.start()

    def close(self) -> None:
        """Have each slot end after what it is at."""
        for slot in self._slots.values():
            slot.close()

    def ready(self, slot: str, info: EngineInfo) -> None:
        """A slot has an engine."""
        self._states[slot] = SlotState(info)
        self._free.add(slot)
        log.info("engine.ready", engine=slot, device=info.device)

    def lost(self, slot: str, error: StyledError, retry_seconds: float | None) -> int | None:
        """A slot has no engine any more; return the assignment that it worked on, if any."""
        run = self._states[slot].run
        self._free.discard(slot)
        self._busy.discard(slot)
        self._states[slot] = SlotState(trouble=error.message, is_gone=retry_seconds is None)
        log.error("engine.lost", engine=slot, reason=error.message, remedies=list(error.remedies),
                  retry_seconds=retry_seconds)  # fmt: skip
        return run

    def replace(self, slot: str) -> bool:
        """Give up an engine that has stalled; return whether that is possible."""
        return self._slots[slot].replace()

    def free(self) -> Iterator[tuple[str, EngineInfo]]:
        """Yield the slots whose engines have nothing to do, in their order."""
        for name in sorted(self._free, key=self._order.__getitem__):
            info = self._states[name].info
            if info is not None:
                yield name, info

    def begin(self, slot: str, run: int) -> None:
        """A slot works on an assignment from now on."""
        self._states[slot].run = run
        self._free.discard(slot)
        self._busy.add(slot)

    def end(self, slot: str, run: int) -> None:
        """A slot has ended an assignment."""
        if self._states[slot].run == run:
            self._states[slot].run = None
            self._busy.discard(slot)
            self._free.add(slot)

    def assign(self, slot: str, assignment: Assignment) -> None:
        """Hand an assignment to a slot."""
        self._slots[slot].assign(assignment)

    def stop(self, slot: str, job_id: str) -> None:
        """Have an engine stop a job at its next step."""
        self._slots[slot].stop(job_id)

    @property
    def count(self) -> int:
        """How many engines there are."""
        return len(self._free) + len(self._busy)

    @property
    def free_count(self) -> int:
        """How many of them have nothing to do."""
        return len(self._free)

    @property
    def is_busy(self) -> bool:
        """Whether any of them works."""
        return bool(self._busy)

    @property
    def are_all_gone(self) -> bool:
        """Whether there is no engine, and none to come."""
        return all(state.is_gone for state in self._states.values())

    def as_json(self) -> str:
        """Return what engines there are, for `styled status`."""
        return json.dumps([
            {"name": name, "device": state.info and state.info.device, "trouble": state.trouble}
            for name, state in self._states.items()
        ])  # fmt: skip

    def snapshot(self, running: RunningJobs) -> tuple[EngineSnapshot, ...]:
        """Return how they stand."""
        return tuple(
            EngineSnapshot(
                name,
                state.info.device if state.info else None,
                state.info.degraded if state.info else (),
                state.trouble,
                job.job if job else None,
                job.progress if job else None,
            )
            for name, state in self._states.items()
            for job in [None if state.run is None else running.of_run(state.run)]
        )
