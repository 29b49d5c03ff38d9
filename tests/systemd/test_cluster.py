"""Engines on a cluster under a real systemd: the drop-ins and the worker's unit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import Machine, booted, container_marks
from tests.systemd.package import PREFIX, python_mounts
from tests.systemd.service import Service, install

DROP_INS = Path(__file__).parents[2] / "systemd/drop-ins"
WORKER = "styled-worker"

pytestmark = container_marks()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Boot a container with the service and Ray."""
    with booted(tmp_path_factory.mktemp("machine"), python_mounts()) as machine:
        service = install(machine)
        # pip makes this file; here the packages are those of the tests' environment.
        ray = machine.path(f"{PREFIX}/bin/ray")
        ray.write_text(f"#!{PREFIX}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
        ray.chmod(0o755)
        yield service


@pytest.fixture
def stopped(installed: Service) -> Iterator[Service]:
    """Return the stopped service with empty folders and an empty journal."""
    installed.clear()
    yield installed
    installed.machine.systemctl("stop", installed.unit, check=False)
    installed.drop_in("cluster", "")


def paint(service: Service, *names: str) -> None:
    """Start the service and paint photos."""
    service.machine.systemctl("start", service.unit)
    for name in names:
        service.drop(name)
    for name in names:
        service.wait_for(f"outbox/red-trees/{name}.json", 120)


def ray_processes(machine: Machine) -> str:
    """Return Ray's processes in the container."""
    return machine.run("sh", "-c", "ps axo args | grep -E '[r]aylet/raylet|[g]cs_server'",
                       check=False).stdout  # fmt: skip


def test_several_engines_on_one_machine(stopped: Service) -> None:
    """Ray runs within the service: in its own network, with nothing left after a stop."""
    stopped.configure(more="cluster: {address: local, engines: 2, cpus_per_engine: 1}")
    stopped.drop_in("cluster", (DROP_INS / "local-cluster.conf").read_text())
    paint(stopped, "a.png", "b.png")
    assert stopped.sidecar("a.png")["engine"]["node"] == "127.0.0.1"
    status = json.loads(stopped.do("status", "--json"))
    assert [engine["problem"] for engine in status["engines"]] == [None, None]
    assert stopped.property("PrivateNetwork") == "yes"
    assert ray_processes(stopped.machine)
    stopped.machine.systemctl("stop", stopped.unit)
    assert stopped.property("Result") == "success"
    assert ray_processes(stopped.machine) == ""
    assert stopped.events("daemon.stopped")


@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")
def test_a_worker_as_a_service(stopped: Service) -> None:
    """The daemon uses a cluster whose machine is `styled-worker.service`; both restart alone."""
    machine, host, port = stopped.machine, "10.0.0.1", 6379
    # The container has no network but the loopback interface.
    machine.run("ip", "address", "add", f"{host}/24", "dev", "lo")
    stopped.write("/etc/styled/cluster-token", "ab" * 32)
    stopped.write(
        "/etc/styled/worker.env",
        f"RAY_START=--head --node-ip-address={host} --port={port} --num-cpus=1 "
        "--temp-dir=/run/styled-ray --object-store-memory=200000000\n",
    )
    stopped.write(
        f"/etc/systemd/system/{WORKER}.service.d/cluster.conf",
        "[Service]\nIPAddressAllow=10.0.0.0/24\n",
    )
    stopped.configure(more=f"cluster: {{address: '{host}:{port}'}}")
    stopped.drop_in("cluster", (DROP_INS / "cluster.conf").read_text())
    try:
        machine.systemctl("start", WORKER)
        machine.wait_until(lambda: ray_processes(machine).count("\n") >= 2, 60)
        paint(stopped, "a.png")
        assert stopped.sidecar("a.png")["engine"]["node"] == host
        assert "10.0.0.0/24" in stopped.property("IPAddressAllow")
        assert set(stopped.property("IPAddressDeny").split()) == {"::/0", "0.0.0.0/0"}
        doctor = stopped.do("doctor", user="styled", check=False)
        assert "engine-0: cpu of" in doctor
        machine.systemctl("restart", WORKER)
        stopped.drop("b.png")
        stopped.wait_for("outbox/red-trees/b.png.json", 150)
        machine.systemctl("stop", stopped.unit)
        assert stopped.property("Result") == "success"
    finally:
        machine.systemctl("stop", WORKER, check=False)
    assert machine.property(WORKER, "Result") in ("success", "exit-code")
    assert ray_processes(machine) == ""
