"""The container in which the service is tested: it boots, runs things, and leaves nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import Machine, booted, reason_to_skip
from tests.systemd.package import install_package, python_mounts

_reason = reason_to_skip()
pytestmark = [
    pytest.mark.systemd,
    pytest.mark.timeout(300),
    pytest.mark.skipif(_reason is not None, reason=_reason or ""),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Boot a container with styled in it."""
    with booted(tmp_path_factory.mktemp("machine"), python_mounts()) as machine:
        install_package(machine)
        yield machine


def test_a_service_is_started_and_its_words_are_in_the_journal(machine: Machine) -> None:
    """The whole way: a unit is written from outside, started, looked at and read."""
    machine.path("/etc/systemd/system/hello.service").write_text(
        "[Service]\nDynamicUser=yes\nExecStart=sh -c 'echo hello; exec sleep 1000'\n"
    )
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "hello")
    machine.wait_until(lambda: "hello" in [m["MESSAGE"] for m in machine.journal("hello")])
    assert machine.property("hello", "ActiveState") == "active"
    assert machine.run("id", "-un", user="hello").stdout == "hello\n"


def test_devices_that_a_service_may_not_use_are_refused(machine: Machine) -> None:
    """What hardens a unit is enforced in the container; else tests of it would prove nothing."""
    refused = machine.run(
        "systemd-run", "--pipe", "--wait", "--quiet", "--property=DevicePolicy=closed",
        "sh", "-c", "exec < /dev/net/tun", check=False,
    )  # fmt: skip
    assert "Operation not permitted" in refused.stderr
    machine.run("sh", "-c", "exec < /dev/net/tun")


def test_the_installed_program_is_the_wheel_and_anybody_may_run_it(machine: Machine) -> None:
    """Neither an editable install nor a Python in somebody's home is in the way."""
    said = machine.run("/opt/styled/bin/styled", "--version", user="nobody").stdout
    assert "styled" in said
    code = "import styled, torch; print(styled.__file__)"
    found = machine.run("/opt/styled/bin/python", "-c", code, user="nobody").stdout
    assert found.startswith("/opt/styled/lib/")


def test_nothing_is_left_behind_after_an_error(tmp_path: Path) -> None:
    """No mounts, processes or control groups stay, even if a test fails in the middle."""
    seen: list[Machine] = []

    def fail() -> None:
        with booted(tmp_path / "machine") as machine:
            seen.append(machine)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not Path(f"/proc/{seen[0].leader}").exists()
    assert not seen[0].commands.parents[1].exists()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert os.listdir(tmp_path / "machine") == ["console.log"]
