"""Runs the configured hooks for jobs that have ended, in order, in a thread of its own."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from styled.config import Config
from styled.errors import JournalDamaged, ResourceUnavailable
from styled.files import readable
from styled.hooks.process import TERMINATION_SECONDS, run_hook
from styled.job_io.protocols import HeartbeatsProtocol
from styled.journal.job import Job, JobState
from styled.journal.journal import Journal

log = structlog.get_logger()

HOOKS = "hooks"
"""The thread's name in the heartbeats."""

RELEASE_SECONDS = 60.0
"""How long the hook of a rejected photo waits for it to leave the inbox; it may be stuck there."""

RETRY_SECONDS = 2.0
"""Interval of looking for jobs while some have ended whose hooks can't run yet."""

_AT_ONCE = 50
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class HookRunner:
    """Runs each hook at least once for each job that ends, across restarts too.

    The journal records which have run. A hook that fails is not repeated; `styled status` says so.
    No job waits for a hook.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        heartbeats: HeartbeatsProtocol,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Run the hooks of `config` for the jobs of `journal`."""
        self._config = config
        self._hooks = config.hooks
        self._journal = journal
        self._heartbeats = heartbeats
        self._now = now
        self._stopping = threading.Event()
        self._wakeup = threading.Event()
        self._idle = threading.Event()
        self._jobs_ended = False
        self._problems: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="hooks", daemon=True)

    def start(self) -> None:
        """Start the thread. Jobs that ended before hooks were configured have none to run."""
        if not self._journal.get_state().get("hooks_since"):
            self._journal.skip_hooks()
            self._journal.set_state(hooks_since=str(self._now()))
        self._thread.start()

    def wake(self) -> None:
        """Look for jobs that have ended; may be called from any thread."""
        self._idle.clear()
        self._wakeup.set()

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until all hooks that are due have run; return whether that is so."""
        return self._idle.wait(seconds)

    def request_stop(self) -> None:
        """End a running hook, which runs again at the next start, and then the thread."""
        self._stopping.set()
        self._wakeup.set()

    def join(self, seconds: float | None) -> bool:
        """Wait until the thread has ended; return whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._heartbeats.beat(HOOKS, math.inf)
            is_waiting = True
            self._wakeup.clear()
            try:
                self.run_due()
                is_waiting = self._journal.has_missing_hooks()
            except (ResourceUnavailable, JournalDamaged) as error:
                log.warning("hooks.delayed", reason=error.message)
            if not is_waiting and not self._wakeup.is_set():
                self._idle.set()
            self._wakeup.wait(RETRY_SECONDS if is_waiting else None)

    def run_due(self) -> None:
        """Run the hooks of all jobs that have ended, and that for an idle queue.

        Raises:
            ResourceUnavailable, JournalDamaged: the journal can't be used.
        """
        while jobs := self._journal.missing_hooks(_AT_ONCE, self._now() - RELEASE_SECONDS):
            for job in jobs:
                if self._stopping.is_set() or not self._run_for(job):
                    return
                self._journal.mark_hook_run(job)
                self._jobs_ended = True
        if self._jobs_ended and not self._journal.unfinished_ids():
            self._jobs_ended = False
            self._call("on_idle", self._hooks.on_idle, {}, None)

    def _run_for(self, job: Job) -> bool:
        """Run the hook of one job; return False if it was ended because the daemon stops."""
        config = self._config
        original = Path(job.original) if job.original else config.inbox / job.input
        if job.state is JobState.DONE and job.result is not None:
            name, command, path = "on_done", self._hooks.on_done, config.outbox / job.result
        elif job.state is JobState.REJECTED:
            name, command, path = "on_rejected", self._hooks.on_rejected, original
        else:
            return True
        sidecar = path.with_name(path.name + ".json")
        values = {
            "result": str(path), "sidecar": str(sidecar), "input": str(original),
            "style": job.style, "job": job.id, "reason": job.reason or "",
        }  # fmt: skip
        return self._call(name, command, values, sidecar)

    def _call(
        self, name: str, command: Sequence[str], values: dict[str, str], sidecar: Path | None
    ) -> bool:
        if not command:
            return True
        limit = self._hooks.timeout_seconds
        self._heartbeats.beat(HOOKS, limit + TERMINATION_SECONDS + 10)
        began = time.monotonic()
        outcome = run_hook(
            [_PLACEHOLDER.sub(lambda m: values.get(m[1], m[0]), word) for word in command],
            {"STYLED_EVENT": name, **{f"STYLED_{k.upper()}": v for k, v in values.items()}},
            self._config.base, sidecar, limit, self._stopping,
        )  # fmt: skip
        context = {
            "hook": name, "job": values.get("job"), "seconds": round(time.monotonic() - began, 2),
            "output": outcome.output.strip(),
        }  # fmt: skip
        if outcome.was_stopped:
            log.info("hook.interrupted", **context)
            return False
        if outcome.reason:
            log.warning("hook.failed", reason=outcome.reason, **context)
        else:
            log.info("hook.finished", **context)
        of_job = f" for {readable(values['input'])}" if values else ""
        self._note(name, f"the hook {name} failed{of_job}: {outcome.reason}", outcome.reason)
        return True

    def _note(self, name: str, message: str, reason: str) -> None:
        """Record for `styled status` whether the last call of a hook failed."""
        if (message if reason else "") == self._problems.get(name, ""):
            return
        self._problems[name] = message if reason else ""
        problem = "; ".join(text for text in self._problems.values() if text)
        self._journal.set_state(hook_problem=problem)
