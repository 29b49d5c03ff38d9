"""Metrics in Prometheus's text format, over HTTP, and in the example alerts."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from styled.errors import JournalDamaged, ResourceUnavailable, StyledError
from styled.ops.humanize import printable
from styled.ops.metrics import LOOPBACK, Metrics, MetricsSnapshot
from styled.ops.metrics_file import INTERVAL_SECONDS
from tests.ports import free_port

ALERTS = Path(__file__).parents[2] / "systemd/alerts.example.yaml"
NOW = 1_000_000.0

FULL = MetricsSnapshot(
    jobs={"swirls": {"queued": 3, "running": 1}, "gone": {"queued": 2}},
    oldest_submitted_at=NOW - 90.0,
    last_success_at=NOW - 30.0,
    paused=True,
    degradation_messages=('polled: "it" is\non a\\drive', "no GPU"),
    stalled=("intake", "scheduler"),
    steps_per_second={"engine-0": 2.5, "engine-1": 4.0},
    engines={"engine-0": True, "engine-1": True, "engine-2": False},
    free_bytes={"inbox": 10**9, "outbox": 5},
)

Labels = dict[str, str]


def metrics_of(snapshot: MetricsSnapshot) -> Metrics:
    return Metrics(lambda: snapshot, ["swirls", "coffee"], lambda: NOW)


def families(text: bytes) -> dict[str, str]:
    """Return the type of each metric family."""
    return {family.name: family.type for family in text_string_to_metric_families(text.decode())}


def values(text: bytes, name: str) -> list[tuple[Labels, float]]:
    """Return labels and values of all samples of a name."""
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    ]


def value(text: bytes, name: str, **labels: str) -> float | None:
    """Return the only value of a name with exactly these labels, None if there is none."""
    found = [amount for its_labels, amount in values(text, name) if its_labels == labels]
    assert len(found) <= 1
    return found[0] if found else None


def populated() -> Metrics:
    """Return metrics in which every kind of event was counted."""
    metrics = metrics_of(FULL)
    metrics.set_ready("1.2.3", "cpu", "untrained", NOW - 1000.0)
    seconds = {"waited": 5.0, "prepare": 0.2, "optimise": 45.0, "publish": 0.01}
    metrics.count_ended("done", None, seconds, 120, 3_000_000, degraded=True)
    metrics.count_ended("rejected", "input", {}, 0, 0, degraded=False)
    metrics.count_ended("cancelled", "request", {}, 0, 0, degraded=False)
    metrics.count_failed_attempt("engine")
    return metrics


# Counters


def test_jobs_are_counted_by_how_and_why_they_ended() -> None:
    """Each finished job increments only the series of its outcome and failure."""
    metrics = metrics_of(MetricsSnapshot())
    for _ in range(2):
        metrics.count_ended("done", None, {}, 0, 0, degraded=False)
    metrics.count_ended("rejected", "input", {}, 0, 0, degraded=False)
    metrics.count_ended("rejected", "configuration", {}, 0, 0, degraded=False)
    text = metrics.text()
    name = "styled_jobs_finished_total"
    assert families(text)["styled_jobs_finished"] == "counter"
    assert value(text, name, outcome="done", failure="") == 2
    assert value(text, name, outcome="rejected", failure="input") == 1
    assert value(text, name, outcome="rejected", failure="configuration") == 1
    assert value(text, name, outcome="rejected", failure="engine") == 0
    assert sum(amount for _, amount in values(text, name)) == 4


def test_the_usual_ends_are_there_before_they_happen() -> None:
    """Prometheus sees no increase in a series that first appears with the value 1."""
    text = metrics_of(MetricsSnapshot()).text()
    for outcome, failure in (("done", ""), ("rejected", "input"), ("rejected", "engine")):
        assert value(text, "styled_jobs_finished_total", outcome=outcome, failure=failure) == 0
    assert value(text, "styled_steps_total") == 0
    assert value(text, "styled_jobs_degraded_total") == 0


def test_failed_attempts_are_counted_by_their_reason() -> None:
    """An attempt that will be retried does not count as a finished job."""
    metrics = metrics_of(MetricsSnapshot())
    before = values(metrics.text(), "styled_jobs_finished_total")
    for failure in ("engine", "engine", "internal"):
        metrics.count_failed_attempt(failure)
    text = metrics.text()
    assert value(text, "styled_attempts_failed_total", failure="engine") == 2
    assert value(text, "styled_attempts_failed_total", failure="internal") == 1
    assert values(text, "styled_jobs_finished_total") == before


def test_each_phase_has_a_histogram_of_its_own() -> None:
    """Sums, counts and buckets are correct, from 0.1 s to a day."""
    metrics = metrics_of(MetricsSnapshot())
    metrics.count_ended("done", None, {"prepare": 0.2, "optimise": 45.0}, 0, 0, degraded=False)
    metrics.count_ended("done", None, {"prepare": 0.05, "optimise": 9e5}, 0, 0, degraded=False)
    text, name = metrics.text(), "styled_job_phase_seconds"
    assert families(text)[name] == "histogram"
    assert value(text, f"{name}_count", phase="prepare") == 2
    assert value(text, f"{name}_sum", phase="prepare") == pytest.approx(0.25)
    assert value(text, f"{name}_sum", phase="optimise") == 900_045.0
    buckets = {
        (labels["phase"], float(labels["le"])): amount
        for labels, amount in values(text, f"{name}_bucket")
    }
    assert [buckets["prepare", le] for le in (0.1, 0.3, float("inf"))] == [1, 2, 2]
    assert [buckets["optimise", le] for le in (30.0, 100.0, 86400.0)] == [0, 1, 1]
    assert buckets["optimise", float("inf")] == 2


def test_steps_and_degraded_results_add_up_and_the_peak_is_the_last() -> None:
    """A job that was not painted does not change the peak memory."""
    metrics = metrics_of(MetricsSnapshot())
    metrics.count_ended("done", None, {}, 100, 7000, degraded=True)
    metrics.count_ended("done", None, {}, 20, 5000, degraded=False)
    metrics.count_ended("rejected", "input", {}, 0, 0, degraded=False)
    text = metrics.text()
    assert value(text, "styled_steps_total") == 120
    assert value(text, "styled_jobs_degraded_total") == 1
    assert value(text, "styled_job_peak_memory_bytes") == 5000


def test_what_is_running_is_reported_in_labels() -> None:
    """The time at which it became ready is a metric of its own."""
    metrics = metrics_of(MetricsSnapshot())
    metrics.set_ready("1.2.3", "cuda:0", "imagenet", 5000.0)
    text = metrics.text()
    labels = {"version": "1.2.3", "device": "cuda:0", "weights": "imagenet"}
    assert values(text, "styled_info") == [(labels, 1)]
    assert value(text, "styled_ready_timestamp_seconds") == 5000.0


def test_the_process_itself_is_measured() -> None:
    """At least its memory is measured, which would show a leak."""
    memory = value(metrics_of(MetricsSnapshot()).text(), "styled_process_resident_memory_bytes")
    assert memory is not None
    assert memory > 1e6


def test_no_line_says_when_a_counter_was_made() -> None:
    """`_created` series would double the text."""
    assert b"_created" not in populated().text()


# Gauges of the snapshot


def test_the_queue_is_shown_by_style_and_state() -> None:
    """Configured styles are always shown, others only if they have jobs."""
    text = metrics_of(FULL).text()
    assert {
        (labels["style"], labels["state"]): amount
        for labels, amount in values(text, "styled_queue_jobs")
    } == {
        ("swirls", "queued"): 3,
        ("swirls", "running"): 1,
        ("coffee", "queued"): 0,
        ("coffee", "running"): 0,
        ("gone", "queued"): 2,
        ("gone", "running"): 0,
    }


def test_everything_that_stands_is_a_gauge() -> None:
    """The values are those of the snapshot, and the age of the oldest job is that of now."""
    text = metrics_of(FULL).text()
    assert value(text, "styled_queue_oldest_age_seconds") == 90.0
    assert value(text, "styled_alive_timestamp_seconds") == NOW
    assert value(text, "styled_last_success_timestamp_seconds") == NOW - 30.0
    assert value(text, "styled_queue_paused") == 1
    assert value(text, "styled_steps_per_second", engine="engine-0") == 2.5
    assert value(text, "styled_steps_per_second", engine="engine-1") == 4.0
    assert value(text, "styled_engine_up", engine="engine-1") == 1
    assert value(text, "styled_engine_up", engine="engine-2") == 0
    assert values(text, "styled_degraded") == [
        ({"reason": printable(reason)}, 1) for reason in FULL.degradation_messages
    ]
    assert values(text, "styled_stalled") == [({"part": p}, 1) for p in ("intake", "scheduler")]
    assert value(text, "styled_disk_free_bytes", folder="inbox") == 1e9
    assert value(text, "styled_disk_free_bytes", folder="outbox") == 5
    kinds = families(text)
    for name in ("queue_jobs", "queue_paused", "degraded", "stalled", "disk_free_bytes"):
        assert kinds[f"styled_{name}"] == "gauge"


def test_what_there_is_nothing_to_say_about_is_left_out() -> None:
    """Without a success there is no time of it, and without a running job no speed."""
    text = metrics_of(MetricsSnapshot()).text()
    for name in ("last_success_timestamp_seconds", "steps_per_second", "degraded", "stalled"):
        assert values(text, f"styled_{name}") == []
    assert value(text, "styled_queue_oldest_age_seconds") == 0
    assert value(text, "styled_queue_paused") == 0


def test_a_clock_that_was_set_back_makes_no_age_negative() -> None:
    """The age is 0 instead."""
    snapshot = MetricsSnapshot(oldest_submitted_at=NOW + 50.0)
    assert value(metrics_of(snapshot).text(), "styled_queue_oldest_age_seconds") == 0


def test_a_reason_that_is_given_twice_is_one_line() -> None:
    """Prometheus rejects duplicate series."""
    text = metrics_of(MetricsSnapshot(degradation_messages=("no GPU", "no GPU"))).text()
    assert values(text, "styled_degraded") == [({"reason": "no GPU"}, 1)]


def test_standing_is_asked_each_time_that_somebody_looks() -> None:
    """No snapshot is taken when the metrics are created."""
    calls: list[int] = []

    def snapshot() -> MetricsSnapshot:
        calls.append(1)
        return MetricsSnapshot(steps_per_second={"engine-0": float(len(calls))})

    metrics = Metrics(snapshot, ["swirls"], lambda: NOW)
    assert calls == []
    for times in (1, 2, 3):
        assert value(metrics.text(), "styled_steps_per_second", engine="engine-0") == times


def test_a_name_that_is_not_utf_8_is_escaped() -> None:
    """Folder names of any bytes may be part of a degradation's message."""
    (labels, _), *_ = values(
        metrics_of(MetricsSnapshot(degradation_messages=["/mnt/\udcff"])).text(), "styled_degraded"
    )
    assert labels == {"reason": "/mnt/\\udcff"}


@pytest.mark.parametrize("kind", [ResourceUnavailable, JournalDamaged])
def test_without_its_journal_all_else_is_reported(kind: type[StyledError]) -> None:
    """Gauges of the snapshot are omitted, counters are not."""
    missing = True

    def snapshot() -> MetricsSnapshot:
        if missing:
            raise kind("the journal is gone")
        return FULL

    metrics = Metrics(snapshot, ["swirls"], lambda: NOW)
    metrics.count_ended("done", None, {}, 5, 0, degraded=False)
    text = metrics.text()
    assert value(text, "styled_jobs_finished_total", outcome="done", failure="") == 1
    assert value(text, "styled_steps_total") == 5
    for name in ("queue_jobs", "alive_timestamp_seconds", "queue_paused"):
        assert values(text, f"styled_{name}") == []
    missing = False
    assert value(metrics.text(), "styled_alive_timestamp_seconds") == NOW


def test_two_daemons_in_one_process_count_for_themselves() -> None:
    """Each has a registry of its own."""
    first, second = metrics_of(FULL), metrics_of(MetricsSnapshot())
    first.count_ended("done", None, {}, 5, 0, degraded=False)
    assert value(first.text(), "styled_steps_total") == 5
    assert value(second.text(), "styled_steps_total") == 0
    assert value(second.text(), "styled_queue_paused") == 0


# Over HTTP


def get(port: int, host: str = LOOPBACK) -> tuple[str, bytes]:
    """Return the content type and the content of a response."""
    with build_opener(ProxyHandler({})).open(f"http://{host}:{port}/metrics", timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read()


@pytest.fixture
def port() -> int:
    """Return a free port."""
    return free_port(LOOPBACK)


@pytest.fixture
def served(port: int) -> Iterator[Metrics]:
    """Serve the metrics of `populated`."""
    metrics = populated()
    metrics.serve(port)
    yield metrics
    metrics.close()


def test_prometheus_can_ask_over_http(served: Metrics, port: int) -> None:
    """The response is the current text of the metrics."""
    kind, text = get(port)
    assert kind.startswith("text/plain; version=")
    assert families(text) == families(served.text())
    assert values(text, "styled_degraded") == values(served.text(), "styled_degraded")
    served.count_ended("done", None, {}, 1000, 0, degraded=False)
    assert value(get(port)[1], "styled_steps_total") == 1120


@pytest.mark.usefixtures("served")
def test_nobody_else_can_ask(port: int) -> None:
    """The server listens only on the loopback address, which other machines can't reach."""
    with pytest.raises(URLError):
        get(port, "127.0.0.2")


def test_a_port_that_is_taken_is_named(served: Metrics, port: int) -> None:
    """The error names the setting; the other server is not affected, and counting works."""
    late = metrics_of(MetricsSnapshot())
    with pytest.raises(ResourceUnavailable) as caught:
        late.serve(port)
    assert caught.value.message == (
        f"metrics.http_port: metrics can't be served on 127.0.0.1:{port}: Address already in use"
    )
    assert caught.value.remedies
    late.close()
    assert families(get(port)[1]) == families(served.text())
    assert value(late.text(), "styled_steps_total") == 0


def test_closing_ends_the_thread_and_frees_the_port(port: int) -> None:
    """The port is free at once for the next start. Closing twice is no error."""
    before = set(threading.enumerate())
    metrics = populated()
    metrics.close()
    metrics.serve(port)
    (thread,) = set(threading.enumerate()) - before
    get(port)
    metrics.close()
    assert not thread.is_alive()
    with pytest.raises(URLError):
        get(port)
    metrics.close()
    metrics.serve(port)
    get(port)
    metrics.close()


# Example alerts


def rules() -> list[dict[str, str]]:
    """Return all example alerts."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, str]] = group["rules"]
    return found


def test_an_idle_daemon_is_not_taken_for_one_that_is_down() -> None:
    """The alert fires some time after the metrics of an idle daemon are due again."""
    (expression,) = [rule["expr"] for rule in rules() if rule["alert"] == "StyledDown"]
    found = re.search(r"styled_alive_timestamp_seconds > (\d+)", expression)
    assert found is not None
    assert 1.25 * INTERVAL_SECONDS <= int(found[1]) <= 2 * INTERVAL_SECONDS


def test_there_is_something_behind_each_alert() -> None:
    """An alert on a misspelt metric would never fire."""
    text = populated().text()
    exported = {
        sample.name
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    used = {name for rule in rules() for name in re.findall(r"styled_\w+", rule["expr"])}
    assert len(used) >= 8
    assert used - exported == set()


def test_labels_that_alerts_ask_for_exist() -> None:
    """This covers labels in expressions, with their values, and labels in annotations."""
    text = populated().text()
    for rule in rules():
        (name, *_) = re.findall(r"styled_\w+", rule["expr"])
        labels = [its_labels for its_labels, _ in values(text, name)]
        for label, expected in re.findall(r'{(\w+)="(\w+)"}', rule["expr"]):
            assert expected in [its_labels[label] for its_labels in labels]
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert all(label in its_labels for its_labels in labels)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_itself_finds_nothing_wrong() -> None:
    """`promtool` accepts the alerts and the names and units of the metrics."""
    for args, stdin in (
        (("rules", str(ALERTS)), b""),
        (("metrics",), populated().text()),
        (("metrics",), metrics_of(MetricsSnapshot()).text()),
    ):
        process = subprocess.run(
            ["promtool", "check", *args], input=stdin, capture_output=True, timeout=60
        )
        assert process.returncode == 0, (process.stdout + process.stderr).decode()
