"""Hooks run for each job that ends, in order, at least once; nothing waits for them."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from styled.config import HooksConfig
from styled.errors import ResourceUnavailable
from styled.hooks import runner as runner_module
from styled.hooks.runner import RELEASE_SECONDS, HookRunner
from styled.journal.job import JobState
from styled.ops.heartbeats import Heartbeats
from tests.job_harness import TIMEOUT_SECONDS, JobHarness, LogLines

ROOT = Path(__file__).parents[2]

REPORT = (
    "sh", "-c", 'cat > /dev/null; printf "%s|" "$0" "$@" >> calls; echo >> calls',
    "{style}", "{result}", "{sidecar}", "{input}", "{reason}", "{job}",
)  # fmt: skip


@pytest.fixture
def harness(harness: JobHarness) -> JobHarness:
    """Return a working folder whose hooks append a line to `calls`."""
    configure(
        harness, on_done=REPORT, on_rejected=REPORT, on_idle=("sh", "-c", "echo idle >> calls")
    )
    return harness


def configure(harness: JobHarness, **hooks: object) -> None:
    harness.configure("hooks", **hooks)


def runner_of(harness: JobHarness, now: float | None = None) -> HookRunner:
    runner = HookRunner(
        harness.config, harness.journal, Heartbeats(), *([] if now is None else [lambda: now])
    )
    if not harness.journal.get_state().get("hooks_since"):
        harness.journal.set_state(hooks_since="1")
    return runner


def calls(harness: JobHarness) -> list[list[str]]:
    path = harness.config.base / "calls"
    if not path.exists():
        return []
    return [line.rstrip("|").split("|") for line in path.read_text().splitlines()]


def test_each_end_has_its_hook_in_order(harness: JobHarness) -> None:
    """Done and rejected photos with all that is known of them, then the idle queue; once each."""
    harness.drop("one.png")
    harness.drop("two.png", b"no picture")
    harness.drop("three.png")
    harness.work()
    runner = runner_of(harness)
    runner.run_due()
    config, jobs = harness.config, {job.input: job for job in harness.jobs()}
    one, two = jobs["one.png"], jobs["two.png"]
    lines = calls(harness)
    assert sorted(line[1:4] for line in lines if len(line) > 1) == sorted(
        [str(path), f"{path}.json", str(original)]
        for path, original in (
            (config.outbox / "oil/one.png", config.archive / "oil/one.png"),
            (config.rejected / "oil/two.png", config.rejected / "oil/two.png"),
            (config.outbox / "oil/three.png", config.archive / "oil/three.png"),
        )
    )
    assert lines[-1] == ["idle"]
    by_job = {line[-1]: line for line in lines[:-1]}
    assert by_job[one.id][0] == "oil"
    assert by_job[two.id][4] == two.reason
    for line in lines[:-1]:
        assert Path(line[1]).exists()
        assert Path(line[2]).exists()
    runner.run_due()
    assert calls(harness) == lines


def test_the_sidecar_is_on_standard_input(harness: JobHarness) -> None:
    """And the environment has what the words have."""
    configure(
        harness, on_done=("sh", "-c", 'cat > sidecar; echo "$STYLED_EVENT $STYLED_RESULT" > e')
    )
    harness.drop("one.png")
    harness.work()
    runner_of(harness).run_due()
    base = harness.config.base
    sidecar = json.loads((base / "sidecar").read_text())
    assert sidecar["result"]["path"] == "oil/one.png"
    assert (base / "e").read_text() == f"on_done {harness.config.outbox / 'oil/one.png'}\n"


def test_a_restart_runs_what_has_not_run(harness: JobHarness) -> None:
    """The journal knows which hooks have run."""
    harness.drop("one.png")
    harness.work()
    harness.restart()
    runner_of(harness).run_due()
    assert len(calls(harness)) == 2
    harness.restart()
    runner_of(harness).run_due()
    assert len(calls(harness)) == 2


def test_hooks_are_delayed_by_a_journal_that_does_not_answer(
    harness: JobHarness, logs: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run once it does, and the log says why they did not before."""
    monkeypatch.setattr(runner_module, "RETRY_SECONDS", 0.01)
    harness.drop("photo.png")
    harness.work()
    runner = runner_of(harness)
    run_due, failures = runner.run_due, iter([ResourceUnavailable("the journal is locked")])

    def fail_once() -> None:
        for failure in failures:
            raise failure
        run_due()

    monkeypatch.setattr(runner, "run_due", fail_once)
    runner.start()
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while len(calls(harness)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    runner.request_stop()
    assert runner.join(TIMEOUT_SECONDS)
    delays = [line["reason"] for line in logs if line["event"] == "hooks.delayed"]
    assert delays == ["the journal is locked"]


def test_cancelled_jobs_have_none(harness: JobHarness) -> None:
    """Whoever cancels a job knows it."""
    harness.drop("one.png")
    assert harness.request_cancel(harness.job())
    harness.work()
    assert harness.states() == ["cancelled"]
    runner_of(harness).run_due()
    assert calls(harness) == [["idle"]]
    assert not harness.journal.has_missing_hooks()


def test_jobs_that_ended_before_there_were_hooks_have_none(harness: JobHarness) -> None:
    """Whoever configures a hook does not want it for the last ten thousand photos."""
    harness.drop("one.png")
    harness.work()
    runner = HookRunner(harness.config, harness.journal, Heartbeats())
    runner.start()
    try:
        assert runner.wait_until_idle(20)
        assert calls(harness) == []
        harness.drop("two.png")
        harness.work()
        runner.wake()
        assert runner.wait_until_idle(20)
        assert [Path(line[1]).name for line in calls(harness)[:-1]] == ["two.png"]
    finally:
        runner.request_stop()
        assert runner.join(10)


def test_a_failing_hook_hurts_no_job_and_is_reported(harness: JobHarness, logs: LogLines) -> None:
    """In the log with its output, and in the state that `styled status` shows, until it works."""
    configure(harness, on_done=("sh", "-c", "echo problem; test -e fixed"))
    harness.drop("one.png")
    harness.drop("two.png")
    harness.work()
    assert harness.states() == ["done", "done"]
    runner = runner_of(harness)
    runner.run_due()
    failed = [line for line in logs if line["event"] == "hook.failed"]
    assert [(line["reason"], line["output"]) for line in failed] == [("exit code 1", "problem")] * 2
    problem = harness.journal.get_state()["hook_problem"]
    assert problem.startswith("the hook on_done failed for ")
    assert problem.endswith(": exit code 1")
    (harness.config.base / "fixed").touch()
    harness.drop("three.png")
    harness.work()
    runner.run_due()
    assert harness.journal.get_state()["hook_problem"] == ""


def test_a_hook_that_was_stopped_runs_again(harness: JobHarness) -> None:
    """At least once means that it has run to its end."""
    configure(harness, on_done=("sh", "-c", "test -e quick || exec sleep 60; echo ran >> calls"))
    harness.drop("one.png")
    harness.work()
    runner = runner_of(harness)
    threading.Timer(0.5, runner.request_stop).start()
    runner.run_due()
    assert harness.journal.has_missing_hooks()
    (harness.config.base / "quick").touch()
    runner_of(harness).run_due()
    assert ["ran"] in calls(harness)


def test_a_rejected_photo_that_is_stuck_has_its_hook_later(
    harness: JobHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the inbox for a reason that may last; its hook waits a minute for it."""
    harness.drop("one.png", b"no picture")
    harness.work()
    job = harness.job()
    assert job.finished_at is not None
    with harness.journal.transaction() as cursor:
        cursor.execute("UPDATE jobs SET in_inbox = 1, original = NULL")
    runner_of(harness, job.finished_at + RELEASE_SECONDS - 1).run_due()
    assert calls(harness) == []
    runner_of(harness, job.finished_at + RELEASE_SECONDS + 1).run_due()
    assert calls(harness)[0][3] == str(harness.config.inbox / "one.png")
    assert job.state is JobState.REJECTED


@pytest.mark.parametrize("name", ["a b.png", "$(touch evil).png", "'; touch evil;.png", "-rf.png"])
def test_names_of_photos_are_only_words(harness: JobHarness, name: str) -> None:
    """No shell reads them."""
    harness.drop(name)
    harness.work()
    runner_of(harness).run_due()
    assert Path(calls(harness)[0][1]).name == name
    assert not (harness.config.base / "evil").exists()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_documented_webhook_posts_the_sidecar(harness: JobHarness) -> None:
    """The commands of docs/operations.md, with the address of a server here, and a real curl."""
    bodies: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            bodies.append((self.headers["Content-Type"], json.loads(self.rfile.read(length))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    text = (ROOT / "docs/operations.md").read_text()
    blocks = [yaml.safe_load(b) for b in re.findall(r"```yaml\n(hooks:.*?)```", text, re.DOTALL)]
    assert [sorted(HooksConfig.model_validate(block["hooks"]).model_dump()) for block in blocks]
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            word.replace("https://hooks.example.org", f"http://127.0.0.1:{server.server_port}")
            for word in blocks[1]["hooks"]["on_done"]
        ]
        configure(harness, on_done=tuple(command))
        harness.drop("one.png")
        harness.work()
        runner_of(harness).run_due()
        server.shutdown()
    ((content_type, body),) = bodies
    assert content_type == "application/json"
    assert body["result"]["path"] == "oil/one.png"
    assert harness.journal.get_state().get("hook_problem", "") == ""


def test_without_a_command_nothing_is_run() -> None:
    """Each hook is off by default."""
    assert not HooksConfig().any
