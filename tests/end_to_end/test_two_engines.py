"""Two real engines in one daemon, each with its own network and one thread."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from styled.app import LocalEngineFactory
from styled.config import load_config
from styled.daemon import Daemon
from styled.journal.journal import Journal
from tests.daemon_harness import DaemonHarness, Forked, make_harness


def test_two_engines_paint_what_one_does(tmp_path: Path) -> None:
    """Two engines give the same files and bytes as one, each job runs once, and both are used."""
    one, two = (harness_with_photos(tmp_path / name) for name in ("one", "two"))
    assert Forked(work_through, str(one.config), 1).wait(300) == 0
    assert Forked(work_through, str(two.config), 2).wait(300) == 0
    results = [sorted(name for name in harness.files("outbox/swirls")) for harness in (one, two)]
    assert results[0] == results[1]
    assert len(results[0]) == 12
    assert digests(one) == digests(two)
    journal = Journal.open_read_only(two.folder / "state/journal.sqlite3")
    jobs = journal._jobs("1")
    journal.close()
    assert {job.engine for job in jobs} == {"engine-0", "engine-1"}
    assert {(job.state, job.attempts) for job in jobs} == {("done", 1)}
    assert two.files("inbox") == two.files("state/checkpoints") == []


def harness_with_photos(folder: Path) -> DaemonHarness:
    """Make a working folder with six photos in the inbox."""
    harness = make_harness(folder)
    text = harness.config.read_text()
    harness.config.write_text(text.replace("device: cpu,", "device: cpu, threads: 1,"))
    for number in range(6):
        harness.drop(f"{number}.jpg", "coffee", (60 + number, 44))
    return harness


def digests(harness: DaemonHarness) -> dict[str, str]:
    """Return the SHA-256 of each result, by the photo's path."""
    digests_by_path = {}
    for sidecar in (harness.folder / "outbox/swirls").glob("*.json"):
        content = json.loads(sidecar.read_bytes())
        data = sidecar.with_suffix("").read_bytes()
        assert content["engine"]["threads"] == 1
        digests_by_path[content["input"]["path"]] = hashlib.sha256(data).hexdigest()
    return digests_by_path


def work_through(config_path: str, engines: int) -> None:
    """Process the inbox with this many engines, as `styled once` does."""
    config = load_config(Path(config_path))
    factory = LocalEngineFactory(config, lambda done, total: None)
    result = Daemon(config, [factory] * engines).once()
    assert (result.rejected, list(result.unprocessed)) == (0, [])
