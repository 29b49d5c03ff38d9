"""Prometheus metrics: as a file for node_exporter, and over HTTP if configured.

Names and units follow Prometheus's conventions: base units, `_total` for counters.
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
from styled.ops.humanize import printable

LOOPBACK = "127.0.0.1"
"""Metrics are served to this machine only. For others, put an authenticating proxy in front."""

# Painting takes from seconds, on a GPU, to hours, at print size on a CPU.
_PHASE_BUCKETS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 4 * 3600, 24 * 3600)


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """The state of the daemon at one moment.

    Attributes:
        jobs: Style -> state -> number of unfinished jobs.
        oldest_submitted_at: Unix time of the oldest unfinished job; None without one.
        last_success_at: Unix time at which the last job succeeded.
        paused: Whether the queue is paused, on request or because of a resource.
        degradation_messages: Messages of the service's current degradations.
        stalled: Parts of the daemon that make no progress.
        steps_per_second: Engine -> speed of the job that it paints.
        engines: Engine -> whether it is available.
        locations: Engine that is available -> its node (empty: the daemon's machine) and device.
        free_bytes: Folder's name in the configuration -> free bytes on its disk.
    """

    jobs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    oldest_submitted_at: float | None = None
    last_success_at: float | None = None
    paused: bool = False
    degradation_messages: Sequence[str] = ()
    stalled: Sequence[str] = ()
    steps_per_second: Mapping[str, float] = field(default_factory=dict)
    engines: Mapping[str, bool] = field(default_factory=dict)
    locations: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    free_bytes: Mapping[str, int] = field(default_factory=dict)


class Metrics:
    """All metrics of a daemon, in a registry of its own.

    Attributes:
        events: Number of updates so far, snapshot excluded; a change means that there is news.
    """

    def __init__(
        self,
        snapshot: Callable[[], MetricsSnapshot],
        styles: Iterable[str],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Create all metrics.

        Args:
            snapshot: Called at each collection, from any thread. If it raises
                ResourceUnavailable or JournalDamaged, the gauges made from it are omitted.
            styles: The configured styles: their queues are shown even if they are empty.
            now: Unix time.
        """
        # `_created` series double the number of lines and are of no use.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
        self._server: tuple[WSGIServer, Thread] | None = None
        self.events = 0
        registry = self._registry = CollectorRegistry(auto_describe=True)
        registry.register(_SnapshotCollector(snapshot, tuple(styles), now))
        ProcessCollector(namespace="styled", registry=registry)
        self._info = Gauge(
            "styled_info", "What is running: always 1.", ["version", "device", "weights"],
            registry=registry,
        )  # fmt: skip
        self._started = Gauge(
            "styled_ready_timestamp_seconds", "When the daemon became ready.", registry=registry
        )
        self._finished = Counter(
            "styled_jobs_finished_total", "Jobs that have ended, by outcome and kind of failure.",
            ["outcome", "failure"], registry=registry,
        )  # fmt: skip
        self._failed_attempts = Counter(
            "styled_attempts_failed_total", "Attempts that failed and will be retried.",
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
            "styled_jobs_degraded_total", "Results that are degraded.",
            registry=registry,
        )  # fmt: skip
        self._peak = Gauge(
            "styled_job_peak_memory_bytes", "Peak memory of the last painted job.",
            registry=registry,
        )  # fmt: skip
        for outcome, failure in (("done", ""), ("rejected", "input"), ("rejected", "engine")):
            # Start at 0: Prometheus sees no increase in a series that first appears with 1.
            self._finished.labels(outcome, failure)

    def set_ready(self, version: str, device: str, weights: str, now: float) -> None:
        """Record what is running since `now` (Unix time)."""
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
        """Count a job that has ended.

        Args:
            outcome: For instance `done` or `rejected`.
            failure: The kind of failure, None without one.
            seconds: Phase -> its duration; empty if the job was not painted.
            steps: Optimisation steps; 0 if it was not painted.
            peak_memory_bytes: 0 if it was not painted.
            degraded: Whether the result is degraded.
        """
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
        """Count a failed attempt of a job that will be retried."""
        self._failed_attempts.labels(failure).inc()
        self.events += 1

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def serve(self, port: int) -> None:
        """Serve the metrics over HTTP on the loopback interface until `close`.

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


class _SnapshotCollector(Collector):
    """Takes a snapshot at each collection and yields it as gauges."""

    def __init__(
        self,
        snapshot: Callable[[], MetricsSnapshot],
        styles: Sequence[str],
        now: Callable[[], float],
    ) -> None:
        self._metrics_snapshot = snapshot
        self._styles = styles
        self._now = now

    def describe(self) -> Iterable[Metric]:
        return []  # otherwise `collect` is called at registration, before there is a snapshot

    def collect(self) -> Iterable[Metric]:
        with suppress(ResourceUnavailable, JournalDamaged):
            yield from self._families(self._metrics_snapshot())

    def _families(self, snapshot: MetricsSnapshot) -> Iterable[Metric]:
        queue = GaugeMetricFamily(
            "styled_queue_jobs", "Jobs that are queued or running.", labels=["style", "state"]
        )
        for style in dict.fromkeys((*self._styles, *snapshot.jobs)):
            for state in ("queued", "running"):
                queue.add_metric([style, state], snapshot.jobs.get(style, {}).get(state, 0))
        yield queue
        now, oldest = self._now(), snapshot.oldest_submitted_at
        yield _gauge(
            "styled_queue_oldest_age_seconds",
            "Age of the oldest job that is queued or running; 0 without one.",
            0.0 if oldest is None else max(0.0, now - oldest),
        )
        yield _gauge("styled_alive_timestamp_seconds", "When these metrics were collected.", now)
        if snapshot.last_success_at is not None:
            yield _gauge(
                "styled_last_success_timestamp_seconds",
                "When the last picture was finished.",
                snapshot.last_success_at,
            )
        yield _gauge(
            "styled_queue_paused",
            "1 while the queue is paused, on request or because of a resource.",
            snapshot.paused,
        )
        speed = GaugeMetricFamily(
            "styled_steps_per_second",
            "Speed of each job that is painted, at its current scale.",
            labels=["engine"],
        )
        for engine, steps_per_second in snapshot.steps_per_second.items():
            speed.add_metric([engine], steps_per_second)
        yield speed
        up = GaugeMetricFamily(
            "styled_engine_up", "1 for each engine that is available, else 0.",
            labels=["engine"],
        )  # fmt: skip
        for engine, is_up in snapshot.engines.items():
            up.add_metric([engine], is_up)
        yield up
        info = GaugeMetricFamily(
            "styled_engine_info", "Where each available engine is: always 1.",
            labels=["engine", "node", "device"],
        )  # fmt: skip
        for engine, (node, device) in snapshot.locations.items():
            info.add_metric([engine, printable(node), device], 1)
        yield info
        degraded = GaugeMetricFamily(
            "styled_degraded", "1 for each current degradation of the service.", labels=["reason"]
        )
        for reason in dict.fromkeys(snapshot.degradation_messages):
            degraded.add_metric([printable(reason)], 1)
        yield degraded
        stalled = GaugeMetricFamily(
            "styled_stalled", "1 for each part that makes no progress.", labels=["part"]
        )
        for part in snapshot.stalled:
            stalled.add_metric([part], 1)
        yield stalled
        free = GaugeMetricFamily(
            "styled_disk_free_bytes", "Free space on the disk of each folder.", labels=["folder"]
        )
        for folder, bytes_ in snapshot.free_bytes.items():
            free.add_metric([folder], bytes_)
        yield free


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)
