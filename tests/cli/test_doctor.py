"""Tests of `styled doctor`: it reports the problems of a machine in order, with remedies."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
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
from styled.extras import install_command
from styled.journal.job import JobState
from styled.journal.journal import Journal
from styled.journal.pause_request import PAUSE_REQUEST_REASON
from styled.ops.lock import InstanceLock
from styled.ops.stall_record import StallRecord
from tests.cli.conftest import Run
from tests.job_harness import Dropped

JsonObject = dict[str, Any]


@dataclass
class Machine:
    """The results of the checks that use torch; without problems by default."""

    device: Device = field(default_factory=lambda: Device(torch.device("cpu"), "NVIDIA H200"))
    free_bytes: float | None = 8e9
    source: str = "imagenet"


@pytest.fixture
def machine(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine without problems, with a working folder in which styled has never run.

    Loading a network and testing a device take seconds, so both are replaced.
    """
    init_folder(cwd)
    network = cwd.parent / "torch/hub/checkpoints/vgg19-dcbb9e9d.pth"
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
def journal(cwd: Path, machine: Machine) -> Iterator[Journal]:
    """Return the journal of a daemon that has run in the working folder."""
    (cwd / "state").mkdir()
    journal = Journal.open(cwd / "state/journal.sqlite3")
    journal.set_state(activity="running", version=__version__)
    yield journal
    journal.close()


@pytest.fixture
def daemon(cwd: Path, journal: Journal) -> Iterator[int]:
    """Hold the lock as a running daemon does; return its process id."""
    lock = InstanceLock(cwd / "state/lock")
    lock.acquire()
    yield os.getpid()
    lock.release()


def run_doctor(run: Run, *, exit_code: int = 0) -> list[JsonObject]:
    """Return all findings of `styled doctor --json`."""
    result = run("doctor", "--json")
    assert result.exit_code == exit_code, result.output
    findings: list[JsonObject] = json.loads(result.stdout)
    assert all(
        set(finding) == {"level", "subject", "message", "remedies", "exit_code"}
        for finding in findings
    )
    return findings


def about(findings: list[JsonObject], subject: str) -> list[tuple[str, str]]:
    """Return level and text of the findings about a subject."""
    return [
        (finding["level"], finding["message"])
        for finding in findings
        if finding["subject"] == subject
    ]


def remedies(findings: list[JsonObject], subject: str) -> str:
    """Return all remedies of the findings about a subject, one per line."""
    return "\n".join(
        "\n".join(finding["remedies"]) for finding in findings if finding["subject"] == subject
    )


# All checks


@pytest.mark.usefixtures("daemon")
def test_without_problems_all_is_well(run: Run, cwd: Path) -> None:
    """Without problems each check prints one line, and the exit code is 0."""
    before = sorted(path.name for path in cwd.rglob("*"))
    result = run("doctor")
    assert result.exit_code == 0, result.output
    *lines, last = result.output.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "ok    version", "ok    formats", "ok    configuration", "ok    daemon",
        "ok    permissions", "ok    disks",
        "ok    inbox, outbox, state", "ok    inotify", "ok    uploads", "ok    journal",
        "ok    styles", "ok    weights", "ok    device",
    ]  # fmt: skip
    assert last == "all is well"
    assert f"styled {__version__}, Python 3." in result.output
    assert "raw photos (rawpy " in result.output
    assert "config.yaml: 1 style\n" in result.output
    assert sorted(path.name for path in cwd.rglob("*")) == before


@pytest.mark.usefixtures("machine", "cwd")
def test_formats_that_need_a_package_are_named_with_their_extra(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without rawpy, raw photos can't be read."""

    def version_of(package: str) -> str:
        if package == "rawpy":
            raise PackageNotFoundError
        return version(package)

    monkeypatch.setattr("styled.cli.doctor.version", version_of)
    assert f"not raw photos: {install_command('rawpy')}" in run("doctor").output


@pytest.mark.usefixtures("machine")
def test_before_the_first_start_only_the_daemon_is_missing(run: Run, cwd: Path) -> None:
    """The checks create no files; a warning is not a failure."""
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "\nwarn  daemon: it is not running on these folders\n" in result.output
    assert "\n      - start it: styled run, or systemctl start styled\n" in result.output
    assert "\nok    journal: there is none yet; the first start makes it\n" in result.output
    assert result.output.endswith("\n0 failures, 1 warning\n")
    assert sorted(path.name for path in cwd.iterdir()) == [
        "config.yaml", "inbox", "outbox", "styles",
    ]  # fmt: skip


@pytest.mark.usefixtures("daemon")
def test_all_failures_appear_and_the_first_decides(
    run: Run, cwd: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken style, network and device are all reported; the exit code is that of the style."""

    def broken(*args: object) -> None:
        raise DeviceError("the device is gone", "plug it in")

    def missing(*args: object) -> None:
        raise WeightsError("the file is gone", "fetch it")

    (cwd / "styles/red-trees.png").write_bytes(b"no picture")
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
    codes = [
        finding["exit_code"]
        for finding in run_doctor(run, exit_code=78)
        if finding["level"] == "fail"
    ]
    assert codes == [78, 69, 69]


@pytest.mark.usefixtures("daemon")
def test_json_has_the_same_findings(run: Run) -> None:
    """`--json` prints an array with the same findings as the text output."""
    findings = run_doctor(run)
    lines = run("doctor").output.splitlines()[:-1]
    assert [
        f"{finding['level']:4}  {finding['subject']}: {finding['message']}" for finding in findings
    ] == lines


@pytest.mark.usefixtures("cwd")
def test_without_a_configuration_there_is_nothing_to_examine(run: Run, cwd: Path) -> None:
    """A missing or invalid configuration gives exit code 78 and the error."""
    assert run("doctor").exit_code == 78
    (cwd / "config.yaml").write_text("output: {quality: high}\n")
    result = run("doctor", "--json")
    assert result.exit_code == 78
    assert "config.yaml:1: output.quality:" in result.output


@pytest.mark.usefixtures("machine")
def test_paths_and_words_cannot_move_the_cursor(
    run: Run, cwd: Path, journal: Journal, daemon: int
) -> None:
    """Untrusted text is escaped and not interpreted as markup; each finding is a single line."""
    journal.set_state(inbox_problem="at \x1b[2J[bold]x\ny")
    output = run("doctor").output
    assert "\nfail  daemon: at \\x1b[2J[bold]x y\n" in output
    assert "\x1b" not in output


# The daemon


def test_a_running_daemon_is_named(run: Run, daemon: int) -> None:
    """The finding has the process id and the state of the daemon."""
    findings = run_doctor(run)
    assert about(findings, "daemon") == [("ok", f"running as process {daemon}: running")]


@pytest.mark.usefixtures("daemon")
def test_a_daemon_of_another_version_is_a_warning(run: Run, journal: Journal) -> None:
    """A daemon of another version is a warning, with a restart as the remedy."""
    journal.set_state(version="9.9")
    findings = run_doctor(run)
    assert ("warn", f"it is styled 9.9, this is {__version__}") in about(findings, "daemon")
    assert "restart it" in remedies(findings, "daemon")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("name", ["inbox_problem", "metrics_problem"])
def test_its_problems_are_failures(run: Run, journal: Journal, name: str) -> None:
    """Problems of the daemon are failures with exit code 75."""
    journal.set_state(**{name: "it hangs"})
    findings = run_doctor(run, exit_code=75)
    assert about(findings, "daemon")[1:] == [("fail", "it hangs")]
    journal.set_state(**{name: ""})
    assert len(about(run_doctor(run), "daemon")) == 1


@pytest.mark.usefixtures("daemon", "journal")
def test_what_is_stuck_is_a_failure(run: Run, cwd: Path) -> None:
    """A stall is read from a file, because the journal may be what hangs."""
    StallRecord("it hangs", ("engine-0",)).save(cwd / "state")
    findings = run_doctor(run, exit_code=75)
    assert about(findings, "daemon")[1:] == [("fail", "it hangs")]


@pytest.mark.usefixtures("daemon")
def test_a_pause_on_request_is_a_warning(run: Run, journal: Journal) -> None:
    """It is no fault; the remedy ends it."""
    journal.set_state(activity=f"paused: {PAUSE_REQUEST_REASON}")
    findings = run_doctor(run)
    assert about(findings, "queue") == [("warn", f"paused: {PAUSE_REQUEST_REASON}")]
    assert remedies(findings, "queue") == "styled resume"


@pytest.mark.usefixtures("daemon")
def test_a_paused_queue_is_a_failure(run: Run, journal: Journal) -> None:
    """The finding has the reason; its remedy says that work continues automatically."""
    journal.set_state(activity="paused: the outbox is full")
    findings = run_doctor(run, exit_code=73)
    assert about(findings, "queue") == [("fail", "paused: the outbox is full")]
    assert "by itself" in remedies(findings, "queue")


@pytest.mark.usefixtures("daemon")
def test_what_it_does_without_is_a_warning(run: Run, journal: Journal) -> None:
    """Each degradation of the engine and of the intake is a separate warning."""
    of_engine = [{"kind": "device", "message": "a"}, {"kind": "weights", "message": "b"}]
    of_intake = [{"kind": "polling", "message": "c"}]
    journal.set_state(degraded_engines=json.dumps(of_engine), degraded_intake=json.dumps(of_intake))
    findings = run_doctor(run)
    assert about(findings, "degraded") == [("warn", "a"), ("warn", "b"), ("warn", "c")]
    output = remedies(findings, "degraded")
    assert all(key in output for key in ("engine.device", "engine.weights", "intake.mode"))


@pytest.mark.usefixtures("machine", "daemon")
def test_a_restart_that_is_due_is_a_warning(run: Run, journal: Journal) -> None:
    """It is no failure, nor is a picture of the styles folder that is not a style."""
    journal.set_state(
        needs_restart="changes of inbox need a restart",
        styles_left_out="styles/a.txt is not a style: it is a text",
    )
    findings = run_doctor(run)
    assert [one for one in about(findings, "daemon") if one[0] != "ok"] == [
        ("warn", "changes of inbox need a restart"),
        ("warn", "styles/a.txt is not a style: it is a text"),
    ]
    assert "systemctl restart styled" in remedies(findings, "daemon")


def test_what_a_dead_daemon_left_behind_does_not_count(run: Run, journal: Journal) -> None:
    """If the daemon is not running, its stored state is ignored."""
    journal.set_state(
        inbox_problem="it is away", activity="paused: full", version="9.9",
        degraded_engines=json.dumps([{"kind": "device", "message": "a"}]),
    )  # fmt: skip
    findings = run_doctor(run)
    assert [finding["subject"] for finding in findings if finding["level"] != "ok"] == ["daemon"]
    assert about(findings, "daemon") == [("warn", "it is not running on these folders")]


# The journal


def test_a_sound_journal_tells_its_size_and_what_waits(run: Run, journal: Journal) -> None:
    """The finding has the size of the journal and the number of waiting jobs."""
    names = ("a.jpg", "b.jpg", "c.jpg")
    journal.submit([Dropped(name, 1, 2, {"oil": name}) for name in names], time.time())
    job = journal.claim(time.time())
    assert job is not None
    journal.finish(job, JobState.DONE, time.time())
    ((level, text),) = about(run_doctor(run), "journal")
    assert level == "ok"
    assert re.fullmatch(r"\d.* [kM]?B|\d.*B, sound; 2 jobs waiting", text)


@pytest.mark.parametrize(("hours", "level"), [(23.9, "ok"), (24.1, "warn")])
def test_a_job_that_waits_for_a_day_is_a_warning(
    run: Run, journal: Journal, hours: float, level: str
) -> None:
    """The warning has the age of the oldest job and refers to `styled jobs`."""
    since = time.time() - hours * 3600
    journal.submit([Dropped("a.jpg", 1, 2, {"oil": "a.jpg"})], since)
    journal.submit([Dropped("b.jpg", 1, 2, {"oil": "b.jpg"})], time.time())
    findings = run_doctor(run)
    ((actual_level, text),) = about(findings, "journal")
    assert actual_level == level
    if level == "warn":
        assert text.endswith("2 jobs waiting, the oldest for 1 d")
        assert "styled jobs" in remedies(findings, "journal")


@pytest.mark.parametrize("damage", ["garbage", "page"])
def test_a_damaged_journal_is_a_failure(run: Run, cwd: Path, journal: Journal, damage: str) -> None:
    """A file that is not a database, or has a damaged page, gives exit code 75 and a remedy."""
    names = [f"{number:09}.jpg" for number in range(999)]
    journal.submit([Dropped(name, 1, 2, {"oil": name}) for name in names], 5.0)
    journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal.close()
    path = cwd / "state/journal.sqlite3"
    content = bytearray(path.read_bytes())
    begin = 0 if damage == "garbage" else len(content) // 8192 * 4096
    content[begin : begin + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    findings = run_doctor(run, exit_code=75)
    ((level, text),) = about(findings, "journal")
    assert level == "fail"
    assert "journal.sqlite3 is damaged: " in text
    assert remedies(findings, "journal")


def test_a_journal_of_another_version_is_a_failure(run: Run, journal: Journal) -> None:
    """A journal of a newer version is a failure with its remedy."""
    journal._connection.execute("PRAGMA user_version = 99")
    findings = run_doctor(run, exit_code=75)
    ((level, text),) = about(findings, "journal")
    assert level == "fail"
    assert "another version of styled" in text
    assert remedies(findings, "journal") == "use the version that the daemon has"


# Styles, network, device


@pytest.mark.usefixtures("daemon")
def test_without_styles_nothing_is_ever_painted(run: Run, cwd: Path) -> None:
    """A configuration without styles gives exit code 78."""
    (cwd / "config.yaml").write_text("{}")
    findings = run_doctor(run, exit_code=78)
    assert about(findings, "styles") == [("fail", "there is none, so nothing is ever painted")]
    assert "styles:" in remedies(findings, "styles")


@pytest.mark.usefixtures("daemon")
def test_a_missing_network_is_not_fetched(run: Run, cwd: Path) -> None:
    """A missing network is not downloaded: exit code 69, with all remedies."""
    (cwd.parent / "torch/hub/checkpoints/vgg19-dcbb9e9d.pth").unlink()
    findings = run_doctor(run, exit_code=69)
    ((level, text),) = about(findings, "weights")
    assert level == "fail"
    assert "vgg19-dcbb9e9d.pth" in text
    assert "styled weights fetch" in remedies(findings, "weights")
    assert "untrained" in remedies(findings, "weights")


@pytest.mark.usefixtures("daemon")
def test_the_network_is_reported_with_its_digest(run: Run, machine: Machine) -> None:
    """The finding has the digest; untrained weights are a warning, as better ones exist."""
    assert about(run_doctor(run), "weights") == [("ok", "imagenet, sha256 abababababab...")]
    machine.source = "untrained"
    ((level, text),) = about(findings := run_doctor(run), "weights")
    assert level == "warn"
    assert text.startswith("untrained, sha256 abababababab...: pictures are plainer")
    assert "imagenet" in remedies(findings, "weights")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("free", "level", "text"),
    [
        (8e9, "ok", ", 8 GB of memory free"),
        (2e9, "ok", ", 2 GB of memory free"),
        (1.99e9, "warn", ", 1.99 GB of memory free"),
        (None, "ok", ""),
    ],
)
def test_the_device_is_reported_with_its_memory(
    run: Run, machine: Machine, free: float | None, level: str, text: str
) -> None:
    """Little free memory is a warning; unknown free memory is not."""
    machine.free_bytes = free
    findings = run_doctor(run)
    assert about(findings, "device") == [(level, f"NVIDIA H200, torch {torch.__version__}{text}")]
    assert ("tiles" in remedies(findings, "device")) == (level == "warn")


@pytest.mark.usefixtures("daemon")
def test_a_device_that_was_not_hoped_for_is_a_warning(run: Run, machine: Machine) -> None:
    """A fallback device is a warning with the reason and one remedy."""
    degradation = Degradation("device", "no GPU was found")
    machine.device = Device(torch.device("cpu"), "cpu", degradation)
    findings = run_doctor(run)
    ((level, text),) = about(findings, "device")
    assert level == "warn"
    assert text.endswith(" (no GPU was found)")
    assert len(remedies(findings, "device").splitlines()) == 1


# The machine itself; tests/ops tests the details of styled/ops/doctor.py


@pytest.mark.usefixtures("daemon")
def test_a_folder_that_cannot_be_is_a_failure(run: Run, cwd: Path) -> None:
    """A file in place of a folder gives exit code 73, with its path."""
    (cwd / "archive").write_text("a file")
    findings = run_doctor(run, exit_code=73)
    assert [finding["subject"] for finding in findings if finding["level"] == "fail"] == ["archive"]
    assert str(cwd / "archive") in about(findings, "archive")[0][1]


@pytest.mark.usefixtures("daemon")
def test_a_disk_that_is_missing_is_a_failure(run: Run, cwd: Path) -> None:
    """A disk that is not mounted gives exit code 75."""
    mount = {"point": str(cwd), "source": "nas:/photos", "inode": 1}
    record = json.dumps({str(cwd / "inbox"): mount})
    (cwd / "state/mounts.json").write_text(record)
    findings = run_doctor(run, exit_code=75)
    ((level, text),) = about(findings, "inbox")
    assert level == "fail"
    assert "nothing is mounted now" in text
    assert remedies(findings, "inbox").startswith(f"mount {cwd}\n")
    assert (cwd / "state/mounts.json").read_text() == record


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("free", "level", "exit_code"), [(3e9, "ok", 0), (1e9, "warn", 0), (5e7, "fail", 73)]
)
def test_a_disk_that_is_full_is_a_failure(
    run: Run, monkeypatch: pytest.MonkeyPatch, free: float, level: str, exit_code: int
) -> None:
    """A full disk is a failure; a disk with little free space is a warning."""
    monkeypatch.setattr(
        "styled.ops.doctor.shutil",
        SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=free, total=9e12)),
    )
    ((actual_level, text),) = about(run_doctor(run, exit_code=exit_code), "inbox, outbox, state")
    assert actual_level == level
    assert text.split(";")[0].endswith("B free")
