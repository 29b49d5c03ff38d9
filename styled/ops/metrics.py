"""Metrics in Prometheus's form: as a file for node_exporter, and over HTTP when asked.

Names and units follow Prometheus's conventions: base units, `_total` for what only grows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from styled.errors import JournalDamaged, ResourceUnavailable
from styled.ops.lines import printable

LOOPBACK = "127.0.0.1"
"""Metrics are for this machine: whoever wants them elsewhere has a proxy that asks who is there."""

# Painting takes from seconds, on a GPU, to hours, at print size on a CPU.
_PHASE_BUCKETS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 4 * 3600, 24 * 3600)


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand at one moment.

    Attributes:
        jobs: Style -> state -> how many are still to be done.
        oldest_submitted_at: Unix time; None where nothing is to be done.
        last_success_at: Unix time of the last job that was done.
        paused: Whether the queue waits for a disk, a folder or a permission.
        degraded: What the service does without, in words.
        silent: The parts that have got stuck.
        steps_per_second: Of the jobs that are painted, by engine.
        engines: Whether each engine is there.
        free_bytes: Folder's name in the configuration -> what is free on its disk.
    """

    jobs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    oldest_submitted_at: float | None = None
    last_success_at: float | None = None
    paused: bool = False
    degraded: Sequence[str] = ()
    silent: Sequence[str] = ()
    steps_per_second: Mapping[str, float] = field(default_factory=dict)
    engines: Mapping[str, bool] = field(default_factory=dict)
    free_bytes: Mapping[str, int] = field(default_factory=dict)


class Metrics:
    """All that is measured, in a registry of its own.

    Attributes:
        events: How often something was counted or noted.
    """

    def __init__(
        self,
        standing: Callable[[], Standing],
        styles: Iterable[str],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Measure; `standing` is asked whenever somebody looks, from any thread.

        Args:
            standing: May raise ResourceUnavailable or JournalDamaged: then what it would say
                is left out.
            styles: Those that are configured: their queues are shown when empty too.
            now: Unix time.
        """
        # They double the number of lines, and nobody plots them.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
        self._server: tuple[WSGIServer, Thread] | None = None
        self.events = 0
        registry = self._registry = CollectorRegistry(auto_describe=True)
        registry.register(_StandingCollector(standing, tuple(styles), now))
        ProcessCollector(namespace="styled", registry=registry)
        self._info = Gauge(
            "styled_info", "What is running: always 1.", ["version", "device", "weights"],
            registry=registry,
        )  # fmt: skip
        self._started = Gauge(
            "styled_ready_timestamp_seconds", "When the daemon became ready.", registry=registry
        )
        self._finished = Counter(
            "styled_jobs_finished_total", "Jobs that have ended, by how and why.",
            ["outcome", "failure"], registry=registry,
        )  # fmt: skip
        self._failed_attempts = Counter(
            "styled_attempts_failed_total", "Attempts that failed and will be made again.",
            ["failure"], registry=registry,
        )  # fmt: skip
        self._phases = Histogram(
            "styled_job_phase_seconds", "How long each phase of a painted job took.", ["phase"],
            buckets=_PHASE_BUCKETS, registry=registry,
        )  # fmt: skip
        self._steps = Counter(
            "styled_steps_total", "Optimisation steps of painted jobs.", registry=registry
        )
        self._degraded = Counter(
            "styled_jobs_degraded_total", "Results that are less than what was asked for.",
            registry=registry,
        )  # fmt: skip
        self._peak = Gauge(
            "styled_job_peak_memory_bytes", "Most memory that the last painted job has used.",
            registry=registry,
        )  # fmt: skip
        for outcome, failure in (("done", ""), ("rejected", "input"), ("rejected", "engine")):
            self._finished.labels(outcome, failure)  # so that the first one is an increase

    def note_ready(self, version: str, device: str, weights: str, now: float) -> None:
        """Note what is running from now on."""
        self._info.labels(version, device, printable(weights)).set(1)
        self._started.set(now)
        self.events += 1

    def count_ended(
        self,
        outcome: str,
        failure: str | None,
        seconds: Mapping[str, float],
        steps: int,
        peak_memory_bytes: int,
        *,
        degraded: bool,
    ) -> None:
        """Count a job that has ended; the latter four are those of a painted one."""
        self._finished.labels(outcome, failure or "").inc()
        for phase, spent in seconds.items():
            self._phases.labels(phase).observe(spent)
        self._steps.inc(steps)
        if peak_memory_bytes:
            self._peak.set(peak_memory_bytes)
        if degraded:
            self._degraded.inc()
        self.events += 1

    def count_failed_attempt(self, failure: str) -> None:
        """Count an attempt that will be made again."""
        self._failed_attempts.labels(failure).inc()
        self.events += 1

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self._registry)

    def serve(self, port: int) -> None:
        """Serve it on the loopback interface until `close`.

        Raises:
            ResourceUnavailable: the port is taken, or may not be used.
        """
        try:
            self._server = start_http_server(port, LOOPBACK, self._registry)
        except OSError as error:
            raise ResourceUnavailable(
                f"metrics.http_port: metrics can't be served on {LOOPBACK}:{port}: "
                f"{error.strerror}",
                "choose another port, or stop what uses this one",
            ) from error

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            server, thread = self._server
            self._server = None
            server.shutdown()
            server.server_close()
            thread.join()


class _StandingCollector(Collector):
    """Asks how things stand whenever somebody looks."""

    def __init__(
        self, standing: Callable[[], Standing], styles: Sequence[str], now: Callable[[], float]
    ) -> None:
        self._standing = standing
        self._styles = styles
        self._now = now

    def describe(self) -> Iterable[Metric]:
        return []  # else it would be asked before there is anything to say

    def collect(self) -> Iterable[Metric]:
        with suppress(ResourceUnavailable, JournalDamaged):
            yield from self._of(self._standing())

    def _of(self, standing: Standing) -> Iterable[Metric]:
        queue = GaugeMetricFamily(
            "styled_queue_jobs", "Jobs that are still to be done.", labels=["style", "state"]
        )
        for style in dict.fromkeys((*self._styles, *standing.jobs)):
            for state in ("queued", "running"):
                queue.add_metric([style, state], standing.jobs.get(style, {}).get(state, 0))
        yield queue
        now, oldest = self._now(), standing.oldest_submitted_at
        yield _gauge(
            "styled_queue_oldest_age_seconds",
            "How long the oldest of these has been waiting; 0 where there is none.",
            0.0 if oldest is None else max(0.0, now - oldest),
        )
        yield _gauge("styled_alive_timestamp_seconds", "When these figures were taken.", now)
        if standing.last_success_at is not None:
            yield _gauge(
                "styled_last_success_timestamp_seconds",
                "When the last picture was finished.",
                standing.last_success_at,
            )
        yield _gauge(
            "styled_queue_paused",
            "1 while the queue waits for a disk, a folder or a permission.",
            standing.paused,
        )
        speed = GaugeMetricFamily(
            "styled_steps_per_second",
            "Speed of each job that is painted, at its current scale.",
            labels=["engine"],
        )
        for engine, steps_per_second in standing.steps_per_second.items():
            speed.add_metric([engine], steps_per_second)
        yield speed
        up = GaugeMetricFamily(
            "styled_engine_up", "1 for each engine that is there, 0 for one that is gone.",
            labels=["engine"],
        )  # fmt: skip
        for engine, is_up in standing.engines.items():
            up.add_metric([engine], is_up)
        yield up
        degraded = GaugeMetricFamily(
            "styled_degraded", "1 for each thing that the service does without.", labels=["reason"]
        )
        for reason in dict.fromkeys(standing.degraded):
            degraded.add_metric([printable(reason)], 1)
        yield degraded
        stuck = GaugeMetricFamily(
            "styled_stuck", "1 for each part that gives no sign of life.", labels=["part"]
        )
        for part in standing.silent:
            stuck.add_metric([part], 1)
        yield stuck
        free = GaugeMetricFamily(
            "styled_disk_free_bytes", "Room on the disk of each folder.", labels=["folder"]
        )
        for folder, bytes_ in standing.free_bytes.items():
            free.add_metric([folder], bytes_)
        yield free


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)
