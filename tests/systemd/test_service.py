"""The unit under a real systemd: start, reload, stop, crash, hang, and a bad configuration."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import Machine, booted, container_marks
from tests.systemd.package import PREFIX, python_mounts
from tests.systemd.service import (
    CONFIG,
    DATA,
    HANG,
    LONG,
    WEIGHTS,
    Service,
    documented_commands,
    install,
)

PROBE = Path(__file__).with_name("probe.py")

pytestmark = container_marks()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Boot a container and install the service in it, as docs/operations.md describes."""
    with booted(tmp_path_factory.mktemp("machine"), python_mounts()) as machine:
        yield install(machine)


@pytest.fixture
def service(installed: Service) -> Service:
    """Return the service, active and as installed; files of earlier tests may exist."""
    if not installed.is_as_installed():
        installed.restart_clean()
    return installed


@pytest.fixture
def stopped(installed: Service) -> Iterator[Service]:
    """Return the stopped service with empty folders and an empty journal; tests may change it.

    It is not started here, which takes seconds: most tests that change it have to start it anyway.
    """
    installed.clear()
    yield installed
    for what in ("engine", "intake"):
        installed.machine.path(f"{HANG}-{what}").unlink(missing_ok=True)
    installed.drop_in("test", "")


@pytest.fixture
def changed(stopped: Service) -> Service:
    """Return the running service with empty folders and an empty journal; tests may change it."""
    stopped.restart_clean()
    return stopped


def test_a_photo_that_a_member_of_the_group_drops_comes_back(service: Service) -> None:
    """A photo dropped by a group member is painted; the user can read the result and the status."""
    service.drop("a.png")
    service.wait_for("outbox/red-trees/a.png.json")
    machine = service.machine
    machine.run("cat", f"{DATA}/outbox/red-trees/a.png", user="alice")
    assert service.sidecar("a.png")["result"]["width"] == 64
    machine.wait_until(lambda: not machine.path(f"{DATA}/inbox/a.png").exists())
    status = service.do("status", user="alice")
    assert "styled is running" in status
    assert "red-trees/a.png" in status
    service.wait_for("state/metrics.prom")
    machine.wait_until(lambda: "waiting for photos" in service.property("StatusText"))


def test_the_journal_knows_the_level_of_every_line(service: Service) -> None:
    """Log lines have the journal priority of their level: warning for a rejection, else info."""
    service.drop("bad.jpg", b"no picture")
    service.wait_for("rejected/red-trees/bad.jpg.json")
    (rejected,) = service.events("job.rejected")
    assert (rejected["PRIORITY"], rejected["level"]) == ("4", "warning")
    (started,) = service.events("daemon.started")[-1:]
    assert (started["PRIORITY"], started["level"]) == ("6", "info")
    warnings = service.machine.run("journalctl", "-u", "styled", "-p", "warning", "-o", "cat")
    assert "job.rejected" in warnings.stdout
    assert "daemon.started" not in warnings.stdout


def test_two_instances_run_beside_each_other(service: Service) -> None:
    """They have their own configuration and folders, with the right modes from the first start."""
    machine = service.machine
    other = Service(machine, "styled@left", f"{DATA}/left", "/etc/styled/left/config.yaml")
    other.configure()
    machine.systemctl("start", "styled@left")
    modes = machine.run("stat", "-c", "%a", f"{DATA}/left/inbox", f"{DATA}/left/state")
    assert modes.stdout.split() == ["2775", "755"]
    for instance in (service, other):
        instance.drop("two.png")
        instance.wait_for("outbox/red-trees/two.png.json")
    assert service.property("ActiveState") == other.property("ActiveState") == "active"
    machine.systemctl("stop", "styled@left")


def run_probe(service: Service, more: str = "") -> dict[str, object]:
    """Run the probe with the settings of the installed unit, and return its results.

    Args:
        service: The service.
        more: Directives that are added to those of the unit.
    """
    machine, name = service.machine, "styled-probe"
    service.write("/opt/probe.py", PROBE.read_text())
    photo = f"{DATA}/of-somebody-else.png"
    machine.run("install", "-o", "alice", "-m", "644", "/etc/styled/styles/red-trees.png", photo)
    unit = machine.run("cat", "/usr/local/lib/systemd/system/styled.service").stdout
    service.write(f"/etc/systemd/system/{name}.service", unit)
    service.write(
        f"/etc/systemd/system/{name}.service.d/probe.conf",
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecReload=\nExecStart=\n"
        f"ExecStart={PREFIX}/bin/python -I /opt/probe.py {DATA} {photo}\n"
        f"SyslogIdentifier={name}\n{more}\n",
    )
    machine.systemctl("daemon-reload")
    before = len(machine.journal(name))
    machine.systemctl("start", name, timeout=100)
    messages = [str(entry["MESSAGE"]) for entry in machine.journal(name)[before:]]
    (results,) = [json.loads(line) for line in messages if line.startswith("{")]
    return dict(results)


def net_namespace(machine: Machine) -> str:
    """Return the network namespace of the container's PID 1."""
    return machine.run("readlink", "/proc/1/ns/net").stdout.strip()


CAP_LEASE = 1 << 28


def test_the_service_may_do_nothing_else(service: Service) -> None:
    """The sandbox denies other folders, the network, devices and all capabilities but CAP_LEASE."""
    results = run_probe(service)
    assert results["user"] != 0
    assert results["data"] == "yes"
    assert results["read_only"] == ["/etc", "/opt", "/usr"]
    assert results["home"] == "Permission denied"
    assert (results["null"], results["tun"]) == ("yes", "Operation not permitted")
    assert results["network"] != net_namespace(service.machine)
    assert results["internet_socket"] == "Address family not supported by protocol"
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert results[capabilities] == CAP_LEASE, capabilities
    assert results["NoNewPrivs"] == 1
    assert results["lease"] == "yes"


def test_what_the_unit_forbids_would_be_possible_without_it(service: Service) -> None:
    """Without the unit's restrictions the probe's actions succeed, so the test above is valid."""
    results = run_probe(
        service,
        "ProtectSystem=no\nProtectHome=no\nDevicePolicy=auto\nDeviceAllow=\nPrivateNetwork=no\n"
        "RestrictAddressFamilies=\nCapabilityBoundingSet=\nAmbientCapabilities=\n",
    )
    assert results["read_only"] == []
    assert (results["home"], results["tun"], results["internet_socket"]) == ("yes", "yes", "yes")
    assert results["network"] == net_namespace(service.machine)
    assert (results["CapEff"], results["CapBnd"]) == (0, 0)
    assert results["lease"] == "Permission denied"


def test_the_daemon_itself_is_confined(service: Service) -> None:
    """The restrictions that the probe checks also apply to the daemon's own process."""
    machine, pid = service.machine, service.pid()
    status = machine.path(f"/proc/{pid}/status").read_text()
    assert f"CapEff:\t{CAP_LEASE:016x}" in status
    assert "NoNewPrivs:\t1" in status
    assert machine.run("readlink", f"/proc/{pid}/ns/net").stdout.strip() != net_namespace(machine)
    assert service.property("DevicePolicy") == "closed"
    allowed = set(service.property("DeviceAllow").splitlines())
    of_protect_clock = {"char-rtc r"}
    assert allowed - of_protect_clock == {"char-drm rw", "char-kfd rw", "char-nvidia* rw"}
    assert set(service.property("IPAddressDeny").split()) == {"::/0", "0.0.0.0/0"}


def test_systemd_finds_no_fault_with_the_units(service: Service) -> None:
    """`systemd-analyze verify` reports nothing, and the security exposure is at most 1.5."""
    for unit in ("styled.service", "styled@left.service"):
        path = unit.replace("left", "")
        verification = service.machine.run(
            "systemd-analyze", "verify", f"/usr/local/lib/systemd/system/{path}"
        )
        assert verification.stdout + verification.stderr == ""
        # The command fails if the exposure is above 1.5, on a scale up to 10 (worst).
        completed = service.machine.run("systemd-analyze", "security", "--threshold=15", unit)
        assert "PrivateNetwork=" in completed.stdout


def test_a_reload_takes_over_what_is_right_and_refuses_what_is_not(service: Service) -> None:
    """`systemctl reload` applies a valid configuration, and fails for an invalid one.

    In that case the error is in the journal, and the service runs on with the old configuration.
    """
    machine, pid = service.machine, service.pid()
    service.configure(more="folders: {both: [red-trees]}")
    machine.systemctl("reload", "styled")
    machine.wait_until(lambda: service.events("config.reloaded"))
    service.wait_for("inbox/both")

    service.configure(more="queue: {max_attempts: many}")
    refused = machine.systemctl("reload", "styled", check=False)
    assert refused.returncode != 0
    assert "queue.max_attempts: expected a whole number" in service.messages()
    assert (service.property("ActiveState"), service.pid()) == ("active", pid)
    service.drop("both/b.png")
    service.wait_for("outbox/red-trees/b.png.json")


def logged_at(machine: Machine, text: str) -> int:
    """Return the timestamp of the unit's first journal message with this text, in microseconds."""
    return next(
        int(str(entry["__REALTIME_TIMESTAMP"]))
        for entry in machine.journal("styled")
        if text in str(entry["MESSAGE"])
    )


def test_it_is_started_once_the_network_has_run_and_not_before(changed: Service) -> None:
    """The unit becomes active once the network has run; if that hangs, the start times out."""
    service, machine = changed, changed.machine
    assert service.property("ActiveState") == "active"
    assert machine.run("ps", "-o", "user=", "-p", service.pid()).stdout.strip() == "styled"
    assert logged_at(machine, '"daemon.started"') <= logged_at(machine, "Started styled")
    service.drop_in("test", "[Service]\nTimeoutStartSec=8\n")
    machine.systemctl("stop", "styled")
    machine.path(f"{HANG}-engine").touch()  # the network is loaded, but its layers hang
    machine.systemctl("start", "--no-block", "styled")
    machine.wait_until(lambda: "start operation timed out" in service.messages())
    assert (
        '"daemon.started"' not in service.messages()[service.messages().index("Stopped styled") :]
    )


def test_a_crash_is_followed_by_a_start(changed: Service) -> None:
    """After kill -9 systemd restarts the service, and a photo dropped before is painted."""
    service, machine, pid = changed, changed.machine, changed.pid()
    service.drop("c.png")
    machine.run("kill", "-9", pid)
    machine.wait_until(lambda: service.property("NRestarts") == "1")
    service.wait_for("outbox/red-trees/c.png.json")
    assert service.pid() not in (pid, "0")


def test_a_stop_amid_a_job_is_quick_and_the_start_goes_on(stopped: Service) -> None:
    """A stop during a job saves a checkpoint within 10 s; the job resumes in its first attempt."""
    service, machine = stopped, stopped.machine
    service.configure(LONG)
    machine.systemctl("start", "styled")
    service.drop("long.png")
    machine.wait_until(lambda: "painting long.png" in service.property("StatusText"))
    start = time.monotonic()
    machine.systemctl("stop", "styled")
    assert time.monotonic() - start < 10
    assert service.property("Result") == "success"
    assert list(machine.path(f"{DATA}/state/checkpoints").glob("*.ckpt"))
    machine.systemctl("start", "styled")
    machine.wait_until(lambda: service.events("job.resumed"))
    (job,) = service.events("job.resumed")
    assert service.events("job.claimed")[-1]["attempts"] == 1
    service.do("cancel", str(job["job"]))
    service.wait_for("rejected/red-trees/long.png.json")


@pytest.mark.parametrize("what", ["engine", "intake"])
def test_the_watchdog_ends_what_hangs(stopped: Service, what: str) -> None:
    """If the engine or the scan hangs, the watchdog kills the service; the restart does the job."""
    service, machine = stopped, stopped.machine
    service.drop_in("test", "[Service]\nWatchdogSec=6\nRestartSec=1\n")
    machine.systemctl("start", "styled")
    pid = service.pid()
    time.sleep(8)  # longer than WatchdogSec: without a hang it is not killed
    assert service.pid() == pid
    machine.path(f"{HANG}-{what}").touch()
    service.drop("h.png")
    machine.wait_until(lambda: "Watchdog timeout" in service.messages(), 40)
    messages = service.messages()
    assert "Fatal Python error: Aborted" in messages
    function = {"engine": "conv2d", "intake": "scandir"}[what]
    assert f"in {function}" in messages  # the traceback shows the function that hangs
    machine.path(f"{HANG}-{what}").unlink()
    service.wait_for("outbox/red-trees/h.png.json")
    assert service.pid() not in (pid, "0")
    assert service.property("NRestarts") == "1"


def test_a_bad_configuration_fails_once_and_says_why(stopped: Service) -> None:
    """With an invalid configuration the unit fails with exit code 78 and is not restarted."""
    service, machine = stopped, stopped.machine
    service.configure(more="colour: blue")
    assert machine.systemctl("start", "styled", check=False).returncode != 0
    time.sleep(7)  # RestartSec is 5
    assert service.property("ActiveState") == "failed"
    assert service.property("NRestarts") == "0"
    assert service.property("ExecMainStatus") == "78"
    errors = machine.run("journalctl", "-u", "styled", "-p", "err", "-o", "cat").stdout
    assert f"{CONFIG}:" in errors
    assert "colour: unknown key" in errors


def test_the_pretrained_network_is_not_waited_for_without_a_network(stopped: Service) -> None:
    """In the unit's sandbox no restart can load it: the unit fails once and names the command."""
    service, machine = stopped, stopped.machine
    service.write(CONFIG, machine.path(CONFIG).read_text().replace(WEIGHTS, "imagenet"))
    assert machine.systemctl("start", "styled", check=False).returncode != 0
    time.sleep(7)  # RestartSec is 5
    assert service.property("ActiveState") == "failed"
    assert service.property("NRestarts") == "0"
    assert (
        "TORCH_HOME=/var/cache/styled/torch /opt/styled/bin/styled weights fetch"
        in service.messages()
    )


def test_missing_weights_are_reported_and_waited_for(stopped: Service) -> None:
    """Without weights the service exits with 69 and is restarted until the file exists."""
    service, machine = stopped, stopped.machine
    text = machine.path(CONFIG).read_text().replace(WEIGHTS, "/etc/styled/vgg19.safetensors")
    service.write(CONFIG, text)
    assert machine.systemctl("start", "styled", check=False).returncode != 0
    machine.wait_until(lambda: service.property("ExecMainStatus") == "69")
    assert "/etc/styled/vgg19.safetensors" in service.messages()
    machine.run("/opt/styled/bin/styled", "weights", "export", "/etc/styled/vgg19.safetensors",
                "--weights", "untrained", timeout=100)  # fmt: skip
    machine.wait_until(lambda: service.property("ActiveState") == "active", 60)


def test_folders_elsewhere_take_one_line(stopped: Service) -> None:
    """Folders elsewhere work with `ReadWritePaths=`; without it the start fails with a message."""
    machine = stopped.machine
    machine.run("install", "-d", "-o", "styled", "-g", "styled", "-m", "2775", "/srv/photos")
    text = stopped.configuration().replace(f"{DATA}/inbox", "/srv/photos/inbox")
    stopped.write(CONFIG, text.replace(f"{DATA}/outbox", "/srv/photos/outbox"))
    assert machine.systemctl("start", "styled", check=False).returncode != 0
    assert stopped.property("ExecMainStatus") == "73"
    assert "/srv/photos/inbox can't be written: Read-only file system" in stopped.messages()
    stopped.drop_in("test", "[Service]\nReadWritePaths=/srv/photos\n")
    for name in ("a.png", "b.png"):  # twice: each start gets its own mount of the folder
        machine.systemctl("restart", "styled")
        machine.run("runuser", "-u", "styled", "--", "cp", "/etc/styled/styles/red-trees.png",
                    f"/srv/photos/inbox/{name}")  # fmt: skip
        result = machine.path(f"/srv/photos/outbox/red-trees/{name}.json")
        machine.wait_until(result.exists, 60)


@pytest.fixture
def removable(service: Service) -> Iterator[Service]:
    """Return the running service; files that the test uninstalls are restored afterwards."""
    machine, kept = service.machine, "/var/tmp/kept"
    removed = documented_commands("To uninstall")[1].partition(" -rf ")[2]
    # Some exist only if somebody has made drop-ins, timers or a link.
    copy = 'for path in "$@"; do [ ! -e "$path" ] || cp -a --parents "$path" '
    machine.run("sh", "-ec", f"mkdir {kept}; set -- {removed}; {copy} {kept}; done")
    yield service
    machine.run("sh", "-ec", f"cp -a {kept}/. /; rm -r {kept}")
    machine.systemctl("daemon-reload")
    machine.systemctl("enable", "--now", "styled")


def test_it_is_gone_after_three_commands(removable: Service) -> None:
    """The documented uninstall commands keep the results and the configuration; timers go too."""
    service = removable
    machine = service.machine
    service.write(
        "/etc/systemd/system/styled-pause.timer",
        "[Timer]\nOnCalendar=*-*-* 07:00\n[Install]\nWantedBy=timers.target\n",
    )
    service.write(
        "/etc/systemd/system/styled-pause.service", "[Service]\nType=oneshot\nExecStart=true\n"
    )
    machine.systemctl("enable", "--now", "styled-pause.timer")
    service.drop("last.png")
    service.wait_for("outbox/red-trees/last.png.json")
    for command in documented_commands("To uninstall"):
        service.machine.run("sh", "-ec", command.replace("sudo ", ""))
    listed = machine.run("sh", "-c", "systemctl list-units --all --no-legend 'styled*'").stdout
    assert "loaded" not in listed
    assert service.property("LoadState") == "not-found"
    assert not service.machine.path("/opt/styled").exists()
    assert service.machine.path(f"{DATA}/outbox/red-trees/last.png").exists()
    assert service.machine.path(CONFIG).exists()
