"""Tests of the container in which the service is tested."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import Machine, booted, container_marks
from tests.systemd.package import install_package, python_mounts

pytestmark = container_marks()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Boot a container and install styled in it."""
    with booted(tmp_path_factory.mktemp("machine"), python_mounts()) as machine:
        install_package(machine)
        yield machine


def test_a_service_is_started_and_its_words_are_in_the_journal(machine: Machine) -> None:
    """A unit that is written from outside can be started, and its output is in the journal."""
    machine.path("/etc/systemd/system/hello.service").write_text(
        "[Service]\nDynamicUser=yes\nExecStart=sh -c 'echo hello; exec sleep 1000'\n"
    )
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "hello")
    machine.wait_until(lambda: "hello" in [m["MESSAGE"] for m in machine.journal("hello")])
    assert machine.property("hello", "ActiveState") == "active"
    assert machine.run("id", "-un", user="hello").stdout == "hello\n"


def test_devices_that_a_service_may_not_use_are_refused(machine: Machine) -> None:
    """The container enforces a unit's DevicePolicy; otherwise tests of it would prove nothing."""
    completed = machine.run(
        "systemd-run", "--pipe", "--wait", "--quiet", "--property=DevicePolicy=closed",
        "sh", "-c", "exec < /dev/net/tun", check=False,
    )  # fmt: skip
    assert "Operation not permitted" in completed.stderr
    machine.run("sh", "-c", "exec < /dev/net/tun")


def test_the_installed_program_is_the_wheel_and_anybody_may_run_it(machine: Machine) -> None:
    """The installed package comes from the wheel, and any user can import and run it."""
    version = machine.run("/opt/styled/bin/styled", "--version", user="nobody").stdout
    assert "styled" in version
    code = "import styled, torch; print(styled.__file__)"
    path = machine.run("/opt/styled/bin/python", "-c", code, user="nobody").stdout
    assert path.startswith("/opt/styled/lib/")


def test_nothing_is_left_behind_after_an_error(tmp_path: Path) -> None:
    """After an exception in the context no mounts, processes or control groups are left."""
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
