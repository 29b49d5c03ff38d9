"""The intake stage: one reconciling look at the inbox, whenever there may be a reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from styled.errors import ResourceUnavailable
from styled.intake.pairing import Pairing
from styled.intake.scanning import Found, IgnoreRules, scan
from styled.intake.settling import SettleGate
from styled.intake.watching import Watcher

log = structlog.get_logger()

Mode = Literal["auto", "native", "polling"]

POLL_SECONDS = 1.0
"""How often to look where the kernel does not tell of changes."""

REST_SECONDS = 0.1
"""The least pause between two looks: a storm of events collapses into one of them."""


@dataclass(frozen=True, slots=True)
class SettledInput:
    """A file that has stopped changing, and what it is wanted for.

    Attributes:
        path: Relative to the inbox.
        size: In bytes.
        mtime_ns: Nanoseconds since the epoch.
        destinations: For each style, the result's path below the style's folder.
    """

    path: str
    size: int
    mtime_ns: int
    destinations: dict[str, str]


class Intake:
    """Looks at the inbox at start, when the kernel hints, and every so often regardless."""

    def __init__(
        self,
        inbox: Path,
        pairing: Pairing,
        submit: Callable[[Sequence[SettledInput]], None],
        *,
        ignore: IgnoreRules,
        mode: Mode = "auto",
        settle_seconds: float = 1.0,
        rescan_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        on_degraded: Callable[[str | None], None] = lambda reason: None,
    ) -> None:
        """Hand settled inputs to `submit`, and a word whenever watching fails to `on_degraded`.

        Both are called from the intake's own thread; None means that watching works again.
        """
        self._inbox = inbox
        self._pairing = pairing
        self._submit = submit
        self._ignore = ignore
        self._mode = mode
        self._rescan_seconds = rescan_seconds
        self._clock = clock
        self._on_degraded = on_degraded
        self._gate = SettleGate(settle_seconds)
        self._hint = threading.Event()
        self._stopping = threading.Event()
        self._watcher = Watcher(inbox, self._hint.set)
        self._thread = threading.Thread(target=self._run, name="intake")
        self._trouble: str | None = None
        self.degraded: str | None = None

    def start(self) -> None:
        """Start watching in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching and join the thread."""
        self._stopping.set()
        self._hint.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> bool:
        """Look at the whole inbox once, and submit what has settled.

        Returns:
            Whether everything that lies there has settled.
        """
        now = self._clock()
        try:
            settled = self._gate.pass_settled(scan(self._inbox, self._ignore), now)
            self._hand_on(settled)
        except ResourceUnavailable as error:
            # What was let through but not handed on must come again.
            self._gate.forget()
            if self._trouble != error.message:
                log.error("inbox.unavailable", reason=error.message, remedies=error.remedies)
            self._trouble = error.message
            return False
        if self._trouble is not None:
            log.info("inbox.recovered")
            self._trouble = None
        return self._gate.next_settled_at() is None

    def look_at_everything_again(self, pairing: Pairing) -> None:
        """Use another pairing from now on, for everything that lies in the inbox."""
        self._pairing = pairing
        self._gate.forget()
        self._hint.set()

    def _hand_on(self, settled: Sequence[Found]) -> None:
        inputs = [
            SettledInput(file.path, file.size, file.mtime_ns, destinations)
            for file in settled
            if (destinations := self._pairing.destinations(file.path))
        ]
        if inputs:
            self._submit(inputs)

    def _run(self) -> None:
        next_full_look = self._clock()
        while not self._stopping.is_set():
            self._hint.clear()
            self._watch()
            if self._clock() >= next_full_look:
                # Once in a while everything is offered again: the journal knows what it
                # has, and whatever a hint or a look has missed is found.
                self._gate.forget()
                next_full_look = self._clock() + self._rescan_seconds
            self.look()
            if self._stopping.wait(REST_SECONDS):
                break  # without this, the hint of stop() might be the one cleared above
            self._hint.wait(max(0.0, self._next_look_at(next_full_look) - self._clock()))
        self._watcher.stop()

    def _next_look_at(self, next_full_look: float) -> float:
        soon = self._clock() + POLL_SECONDS
        if self._trouble is not None:
            return min(next_full_look, soon)  # what has settled long ago is no reason to hurry
        moments = [next_full_look]
        if self.degraded is not None or self._mode == "polling":
            moments.append(soon)
        settles = self._gate.next_settled_at()
        if settles is not None:
            moments.append(settles)
        return min(moments)

    def _watch(self) -> None:
        if self._mode == "polling":
            return
        problem = self._watcher.ensure()
        if problem == self.degraded:
            return
        if problem is not None:
            log.warning("inbox.polled", reason=problem, every_seconds=POLL_SECONDS)
        self.degraded = problem
        self._on_degraded(None if problem is None else f"the inbox is polled: {problem}")
