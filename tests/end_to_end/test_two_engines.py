"""Two real engines in one daemon, each with its own network, on one thread each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from styled.config import load_config
from styled.daemon import Daemon
from styled.jobs.journal import Journal
from styled.stages import LocalEngineFactory
from tests.studio import Forked, Studio, make_studio


def test_two_engines_paint_what_one_does(tmp_path: Path) -> None:
    """The same bytes, each photo once; both have painted; names do not get in each other's way."""
    one, two = (studio_with_photos(tmp_path / name) for name in ("one", "two"))
    assert Forked(work_through, str(one.config), 1).wait(300) == 0
    assert Forked(work_through, str(two.config), 2).wait(300) == 0
    results = [sorted(name for name in studio.files("outbox/swirls")) for studio in (one, two)]
    assert results[0] == results[1]
    assert len(results[0]) == 12
    assert digests(one) == digests(two)
    journal = Journal.open_read_only(two.folder / "state/journal.sqlite3")
    jobs = journal._jobs("1")
    journal.close()
    assert {job.engine for job in jobs} == {"engine-0", "engine-1"}
    assert {(job.state, job.attempts) for job in jobs} == {("done", 1)}
    assert two.files("inbox") == two.files("state/checkpoints") == []


def studio_with_photos(folder: Path) -> Studio:
    """Make a working folder with six photos, some of the same name."""
    studio = make_studio(folder)
    text = studio.config.read_text()
    studio.config.write_text(text.replace("device: cpu,", "device: cpu, threads: 1,"))
    for number in range(6):
        studio.drop(f"{number}.jpg", "coffee", (60 + number, 44))
    return studio


def digests(studio: Studio) -> dict[str, str]:
    """Return, for each photo, the digest of its result."""
    found = {}
    for sidecar in (studio.folder / "outbox/swirls").glob("*.json"):
        facts = json.loads(sidecar.read_bytes())
        data = sidecar.with_suffix("").read_bytes()
        assert facts["engine"]["threads"] == 1
        found[facts["input"]["path"]] = hashlib.sha256(data).hexdigest()
    return found


def work_through(config_path: str, engines: int) -> None:
    """Do all that is in the inbox, as `styled once` does."""
    config = load_config(Path(config_path))
    factory = LocalEngineFactory(config, lambda done, total: None)
    result = Daemon(config, [factory] * engines).once()
    assert (result.rejected, list(result.left)) == (0, [])
