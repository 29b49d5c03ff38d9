"""`styled doctor`: all that may go wrong on this machine, in an order, with remedies."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from styled import __version__
from styled.cli.init import init_folder
from styled.degradation import Degradation
from styled.engine.device import Device
from styled.engine.weights import Weights
from styled.errors import DeviceError, WeightsError
from styled.jobs.job import JobState
from styled.jobs.journal import Journal
from styled.ops.lock import InstanceLock
from styled.ops.stuck_record import StuckRecord
from tests.cli.conftest import Run
from tests.jobs.conftest import Dropped

Told = dict[str, Any]


@dataclass
class Machine:
    """What the checks find that come from torch; by default all of the best."""

    device: Device = field(default_factory=lambda: Device(torch.device("cpu"), "NVIDIA H200"))
    free_bytes: float | None = 8e9
    source: str = "imagenet"


@pytest.fixture
def machine(here: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a good machine with a working folder, in which styled has never run.

    Loading a network takes seconds, and so does trying a device.
    """
    init_folder(here)
    network = here.parent / "torch/hub/checkpoints/vgg19-dcbb9e9d.pth"
    network.parent.mkdir(parents=True)
    network.touch()
    machine = Machine()
    monkeypatch.setattr(
        "styled.engine.weights.load_weights", lambda source: Weights({}, machine.source, "ab" * 32)
    )
    monkeypatch.setattr("styled.engine.device.choose_device", lambda requested: machine.device)
    monkeypatch.setattr("styled.engine.memory.free_bytes", lambda device: machine.free_bytes)
    monkeypatch.setattr(
        "styled.ops.doctor.shutil",
        SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=10**12, total=10**13)),
    )
    return machine


@pytest.fixture
def journal(here: Path, machine: Machine) -> Iterator[Journal]:
    """Return the journal of a daemon that has run here."""
    (here / "state").mkdir()
    journal = Journal.open(here / "state/journal.sqlite3")
    journal.set_state(state="running", version=__version__)
    yield journal
    journal.close()


@pytest.fixture
def daemon(here: Path, journal: Journal) -> Iterator[int]:
    """Hold the lock as a running daemon does; return its process id."""
    lock = InstanceLock(here / "state/lock")
    lock.acquire()
    yield os.getpid()
    lock.release()


def findings(run: Run, *, exit_code: int = 0) -> list[Told]:
    """Return all findings, as programs are told them."""
    result = run("doctor", "--json")
    assert result.exit_code == exit_code, result.output
    told: list[Told] = json.loads(result.stdout)
    assert all(
        set(finding) == {"level", "about", "words", "remedies", "exit_code"} for finding in told
    )
    return told


def about(told: list[Told], what: str) -> list[tuple[str, str]]:
    """Return level and words of the findings about something."""
    return [(finding["level"], finding["words"]) for finding in told if finding["about"] == what]


def remedies(told: list[Told], what: str) -> str:
    """Return all remedies of the findings about something."""
    return "\n".join("\n".join(one["remedies"]) for one in told if one["about"] == what)


# The whole


@pytest.mark.usefixtures("daemon")
def test_where_all_is_well_that_is_said(run: Run, here: Path) -> None:
    """Every check says in its line that it is right, and the code is 0."""
    before = sorted(path.name for path in here.rglob("*"))
    result = run("doctor")
    assert result.exit_code == 0, result.output
    *lines, last = result.output.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "ok    version", "ok    configuration", "ok    daemon", "ok    permissions", "ok    disks",
        "ok    inbox, outbox, state", "ok    inotify", "ok    uploads", "ok    journal",
        "ok    styles", "ok    weights", "ok    device",
    ]  # fmt: skip
    assert last == "all is well"
    assert f"styled {__version__}, Python 3." in result.output
    assert "config.yaml: 1 style\n" in result.output
    assert sorted(path.name for path in here.rglob("*")) == before


@pytest.mark.usefixtures("machine")
def test_before_the_first_start_only_the_daemon_is_missing(run: Run, here: Path) -> None:
    """Nothing is made by looking; a warning is no failure."""
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "\nwarn  daemon: it is not running on these folders\n" in result.output
    assert "\n      - start it: styled run, or systemctl start styled\n" in result.output
    assert "\nok    journal: there is none yet; the first start makes it\n" in result.output
    assert result.output.endswith("\n0 failures, 1 warning\n")
    assert sorted(path.name for path in here.iterdir()) == [
        "config.yaml", "inbox", "outbox", "styles",
    ]  # fmt: skip


@pytest.mark.usefixtures("daemon")
def test_all_failures_appear_and_the_first_decides(
    run: Run, here: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken style, network and device are all told; the exit code is that of the style."""

    def broken(*words: object) -> None:
        raise DeviceError("the device is gone", "plug it in")

    def missing(*words: object) -> None:
        raise WeightsError("the file is gone", "fetch it")

    (here / "styles/red-trees.png").write_bytes(b"no picture")
    monkeypatch.setattr("styled.engine.weights.load_weights", missing)
    monkeypatch.setattr("styled.engine.device.choose_device", broken)
    result = run("doctor")
    assert result.exit_code == 78
    for line in (
        r"fail  styles: styles.red-trees: .*",
        r"fail  weights: the file is gone", r"      - fetch it",
        r"fail  device: the device is gone", r"      - plug it in",
        r"3 failures, 0 warnings",
    ):  # fmt: skip
        assert re.search(rf"\n{line}\n", result.output), line
    codes = [told["exit_code"] for told in findings(run, exit_code=78) if told["level"] == "fail"]
    assert codes == [78, 69, 69]


@pytest.mark.usefixtures("daemon")
def test_programs_are_told_the_same(run: Run) -> None:
    """One array; the findings are those that people see."""
    told = findings(run)
    lines = run("doctor").output.splitlines()[:-1]
    assert [f"{one['level']:4}  {one['about']}: {one['words']}" for one in told] == lines


@pytest.mark.usefixtures("here")
def test_without_a_configuration_there_is_nothing_to_examine(run: Run, here: Path) -> None:
    """78, and what is wrong with it."""
    assert run("doctor").exit_code == 78
    (here / "config.yaml").write_text("output: {quality: high}\n")
    result = run("doctor", "--json")
    assert result.exit_code == 78
    assert "config.yaml:1: output.quality:" in result.output


@pytest.mark.usefixtures("machine")
def test_paths_and_words_cannot_move_the_cursor(
    run: Run, here: Path, journal: Journal, daemon: int
) -> None:
    """What was called so by strangers is escaped, and no markup; a line stays a line."""
    journal.set_state(inbox_trouble="at \x1b[2J[bold]x\ny")
    said = run("doctor").output
    assert "\nfail  daemon: at \\x1b[2J[bold]x y\n" in said
    assert "\x1b" not in said


# The daemon


def test_a_running_daemon_is_named(run: Run, daemon: int) -> None:
    """With its process and its state."""
    told = findings(run)
    assert about(told, "daemon") == [("ok", f"running as process {daemon}: running")]


@pytest.mark.usefixtures("daemon")
def test_a_daemon_of_another_version_is_a_warning(run: Run, journal: Journal) -> None:
    """After an update it has to be restarted."""
    journal.set_state(version="9.9")
    told = findings(run)
    assert ("warn", f"it is styled 9.9, this is {__version__}") in about(told, "daemon")
    assert "restart it" in remedies(told, "daemon")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("name", ["inbox_trouble", "metrics_trouble"])
def test_its_troubles_are_failures(run: Run, journal: Journal, name: str) -> None:
    """They are temporary ones: 75."""
    journal.set_state(**{name: "it is in trouble"})
    told = findings(run, exit_code=75)
    assert about(told, "daemon")[1:] == [("fail", "it is in trouble")]
    journal.set_state(**{name: ""})
    assert len(about(findings(run), "daemon")) == 1


@pytest.mark.usefixtures("daemon", "journal")
def test_what_is_stuck_is_a_failure(run: Run, here: Path) -> None:
    """The journal may be what hangs, so that a file says it."""
    StuckRecord("it is in trouble", ("engine-0",)).save(here / "state")
    told = findings(run, exit_code=75)
    assert about(told, "daemon")[1:] == [("fail", "it is in trouble")]


@pytest.mark.usefixtures("daemon")
def test_a_paused_queue_is_a_failure(run: Run, journal: Journal) -> None:
    """Whatever it waits for is named, and that no more is to be done."""
    journal.set_state(state="paused: the outbox is full")
    told = findings(run, exit_code=73)
    assert about(told, "queue") == [("fail", "paused: the outbox is full")]
    assert "by itself" in remedies(told, "queue")


@pytest.mark.usefixtures("daemon")
def test_what_it_does_without_is_a_warning(run: Run, journal: Journal) -> None:
    """The notes of engine and intake, each by itself."""
    of_engine = [{"kind": "device", "message": "a"}, {"kind": "weights", "message": "b"}]
    of_intake = [{"kind": "polling", "message": "c"}]
    journal.set_state(degraded=json.dumps(of_engine), degraded_intake=json.dumps(of_intake))
    told = findings(run)
    assert about(told, "degraded") == [("warn", "a"), ("warn", "b"), ("warn", "c")]
    said = remedies(told, "degraded")
    assert all(key in said for key in ("engine.device", "engine.weights", "intake.mode"))


def test_what_a_dead_daemon_left_behind_does_not_count(run: Run, journal: Journal) -> None:
    """That it is not running is all there is to say of it."""
    journal.set_state(
        inbox_trouble="it is away", state="paused: full", version="9.9",
        degraded=json.dumps([{"kind": "device", "message": "a"}]),
    )  # fmt: skip
    told = findings(run)
    assert [one["about"] for one in told if one["level"] != "ok"] == ["daemon"]
    assert about(told, "daemon") == [("warn", "it is not running on these folders")]


# The journal


def test_a_sound_journal_tells_its_size_and_what_waits(run: Run, journal: Journal) -> None:
    """Jobs that have ended do not wait."""
    names = ("a.jpg", "b.jpg", "c.jpg")
    journal.submit([Dropped(name, 1, 2, {"oil": name}) for name in names], time.time())
    job = journal.claim(time.time())
    assert job is not None
    journal.finish(job, JobState.DONE, time.time())
    ((level, words),) = about(findings(run), "journal")
    assert level == "ok"
    assert re.fullmatch(r"\d.* [kM]?B|\d.*B, sound; 2 jobs waiting", words)


@pytest.mark.parametrize(("hours", "level"), [(23.9, "ok"), (24.1, "warn")])
def test_a_job_that_waits_for_a_day_is_a_warning(
    run: Run, journal: Journal, hours: float, level: str
) -> None:
    """The oldest counts, and that it may wait for something is the hint."""
    since = time.time() - hours * 3600
    journal.submit([Dropped("a.jpg", 1, 2, {"oil": "a.jpg"})], since)
    journal.submit([Dropped("b.jpg", 1, 2, {"oil": "b.jpg"})], time.time())
    told = findings(run)
    ((found, words),) = about(told, "journal")
    assert found == level
    if level == "warn":
        assert words.endswith("2 jobs waiting, the oldest for 1 d")
        assert "styled jobs" in remedies(told, "journal")


@pytest.mark.parametrize("damage", ["garbage", "page"])
def test_a_damaged_journal_is_a_failure(
    run: Run, here: Path, journal: Journal, damage: str
) -> None:
    """Whether it is no database at all or one page of it is wrong: 75, and it mends itself."""
    names = [f"{number:09}.jpg" for number in range(999)]
    journal.submit([Dropped(name, 1, 2, {"oil": name}) for name in names], 5.0)
    journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal.close()
    path = here / "state/journal.sqlite3"
    content = bytearray(path.read_bytes())
    begin = 0 if damage == "garbage" else len(content) // 8192 * 4096
    content[begin : begin + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    told = findings(run, exit_code=75)
    ((level, words),) = about(told, "journal")
    assert level == "fail"
    assert "journal.sqlite3 is damaged: " in words
    assert remedies(told, "journal")


def test_a_journal_of_another_version_is_a_failure(run: Run, journal: Journal) -> None:
    """With the remedy that the journal itself tells."""
    journal._connection.execute("PRAGMA user_version = 99")
    told = findings(run, exit_code=75)
    ((level, words),) = about(told, "journal")
    assert level == "fail"
    assert "another version of styled" in words
    assert remedies(told, "journal") == "use the version that the daemon has"


# Styles, network, device


@pytest.mark.usefixtures("daemon")
def test_without_styles_nothing_is_ever_painted(run: Run, here: Path) -> None:
    """That is a failure of the configuration."""
    (here / "config.yaml").write_text("{}")
    told = findings(run, exit_code=78)
    assert about(told, "styles") == [("fail", "there is none, so nothing is ever painted")]
    assert "styles:" in remedies(told, "styles")


@pytest.mark.usefixtures("daemon")
def test_a_missing_network_is_not_fetched(run: Run, here: Path) -> None:
    """Half a gigabyte is nobody's idea of looking: 69, with the ways out."""
    (here.parent / "torch/hub/checkpoints/vgg19-dcbb9e9d.pth").unlink()
    told = findings(run, exit_code=69)
    ((level, words),) = about(told, "weights")
    assert level == "fail"
    assert "vgg19-dcbb9e9d.pth" in words
    assert "styled weights fetch" in remedies(told, "weights")
    assert "untrained" in remedies(told, "weights")


@pytest.mark.usefixtures("daemon")
def test_the_network_is_told_with_its_digest(run: Run, machine: Machine) -> None:
    """The untrained one is a warning, because something better can be had."""
    assert about(findings(run), "weights") == [("ok", "imagenet, sha256 abababababab...")]
    machine.source = "untrained"
    ((level, words),) = about(told := findings(run), "weights")
    assert level == "warn"
    assert words.startswith("untrained, sha256 abababababab...: pictures are plainer")
    assert "imagenet" in remedies(told, "weights")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("free", "level", "words"),
    [
        (8e9, "ok", ", 8 GB of memory free"),
        (2e9, "ok", ", 2 GB of memory free"),
        (1.99e9, "warn", ", 1.99 GB of memory free"),
        (None, "ok", ""),
    ],
)
def test_the_device_is_told_with_its_memory(
    run: Run, machine: Machine, free: float | None, level: str, words: str
) -> None:
    """Little of it is a warning; not knowing is none."""
    machine.free_bytes = free
    told = findings(run)
    assert about(told, "device") == [(level, f"NVIDIA H200, torch {torch.__version__}{words}")]
    assert ("tiles" in remedies(told, "device")) == (level == "warn")


@pytest.mark.usefixtures("daemon")
def test_a_device_that_was_not_hoped_for_is_a_warning(run: Run, machine: Machine) -> None:
    """With a reason why, and one guess at what to do."""
    degradation = Degradation("device", "no GPU was found")
    machine.device = Device(torch.device("cpu"), "cpu", degradation)
    told = findings(run)
    ((level, words),) = about(told, "device")
    assert level == "warn"
    assert words.endswith(" (no GPU was found)")
    assert len(remedies(told, "device").splitlines()) == 1


# The machine itself; styled/ops/doctor.py has tests of its own


@pytest.mark.usefixtures("daemon")
def test_a_folder_that_cannot_be_is_a_failure(run: Run, here: Path) -> None:
    """A file is in its place: 73, naming it."""
    (here / "archive").write_text("a file")
    told = findings(run, exit_code=73)
    assert [one["about"] for one in told if one["level"] == "fail"] == ["archive"]
    assert str(here / "archive") in about(told, "archive")[0][1]


@pytest.mark.usefixtures("daemon")
def test_a_disk_that_is_missing_is_a_failure(run: Run, here: Path) -> None:
    """It comes back by itself, or by mounting it: 75."""
    home = {"point": str(here), "source": "nas:/photos", "inode": 1}
    record = json.dumps({str(here / "inbox"): home})
    (here / "state/mounts.json").write_text(record)
    told = findings(run, exit_code=75)
    ((level, words),) = about(told, "inbox")
    assert level == "fail"
    assert "nothing is mounted now" in words
    assert remedies(told, "inbox").startswith(f"mount {here}; ")
    assert (here / "state/mounts.json").read_text() == record


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("free", "level", "exit_code"), [(3e9, "ok", 0), (1e9, "warn", 0), (5e7, "fail", 73)]
)
def test_a_disk_that_is_full_is_a_failure(
    run: Run, monkeypatch: pytest.MonkeyPatch, free: float, level: str, exit_code: int
) -> None:
    """One that will be soon is a warning."""
    monkeypatch.setattr(
        "styled.ops.doctor.shutil",
        SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=free, total=9e12)),
    )
    ((found, words),) = about(findings(run, exit_code=exit_code), "inbox, outbox, state")
    assert found == level
    assert words.endswith("B free")
