"""Starting without Ray, or without a cluster that can be reached."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import requires
from pathlib import Path

import pytest
import ray

from styled.cluster import environment
from styled.cluster.connection import SESSION_PREFIX, session_parent, sweep_sessions
from styled.cluster.errors import styled_errors
from styled.errors import ClusterUnavailable, MemoryShortage, NodeLost
from tests.cluster.conftest import harness_of
from tests.cluster.ray_cluster import ENVIRONMENT, RayCluster, own_address
from tests.daemon_harness import make_harness
from tests.ports import free_port


def test_without_ray_the_extra_is_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install, and that no cluster is needed for one engine."""
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    with pytest.raises(ClusterUnavailable, match="pip install ray"):
        environment.prepare_environment("local")


def test_without_a_cluster_ray_is_neither_imported_nor_required(tmp_path: Path) -> None:
    """A photo is painted although importing ray fails, and the package does not depend on it."""
    poison = tmp_path / "poison"
    poison.mkdir()
    (poison / "ray.py").write_text("raise AssertionError('ray was imported')\n")
    harness = make_harness(tmp_path / "harness")
    harness.drop("a.jpg", size=(64, 48))
    done = subprocess.run(
        harness.command("once"), env={**os.environ, "PYTHONPATH": str(poison)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(harness.files("outbox")) == 2
    assert not [one for one in requires("styled") or () if one.startswith("ray") and ";" not in one]


def test_whatever_fails_without_a_connection_is_the_loss_of_the_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call that runs while the connection is closed fails anywhere in Ray."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(NodeLost, match="machine-1"), styled_errors("id", "machine-1"):
        raise AttributeError("'Worker' object has no attribute 'core_worker'")
    with pytest.raises(MemoryShortage), styled_errors("id", "machine-1"):
        raise MemoryShortage("memory was short")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(AttributeError), styled_errors("id", "machine-1"):
        raise AttributeError("a bug")


def test_a_call_without_a_connection_starts_no_cluster() -> None:
    """As after the loss of one, in a thread that does not know about it yet."""
    code = (
        "from styled.cluster.environment import prepare_environment\n"
        "prepare_environment('10.0.0.1:6379')\n"
        "import ray\n"
        "try:\n"
        "    ray.put(1)\n"
        "except ray.exceptions.RayError:\n"
        "    print(ray.is_initialized())\n"
    )
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "False\n", done.stderr


def test_tokens_are_required_unless_the_user_has_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local cluster gets a token of its own; what the user has set stays."""
    monkeypatch.setattr(os, "environ", {"RAY_AUTH_TOKEN": "mine"})
    environment.prepare_environment("local")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_AUTH_TOKEN"] == "mine"
    os.environ.clear()
    environment.prepare_environment("local")
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    os.environ.clear()
    environment.prepare_environment("10.0.0.1:6379")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_long_temporary_folder_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's sockets would have paths of more than 107 bytes."""
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    assert session_parent() == Path("/var/tmp")
    monkeypatch.setattr(tempfile, "tempdir", "/home/somebody/temporary files")
    assert session_parent() == Path("/tmp")


def test_folders_of_killed_processes_are_swept(tmp_path: Path) -> None:
    """Those of processes that live, and other folders, are kept."""
    kept = [
        tmp_path / f"{SESSION_PREFIX}{os.getpid()}-a",
        tmp_path / "styled-ray-x",
        tmp_path / "b",
    ]
    dead = tmp_path / f"{SESSION_PREFIX}{2**22 + 1}-a"
    for folder in (*kept, dead):
        folder.mkdir()
    sweep_sessions(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_an_unreachable_cluster_is_exit_code_69(tmp_path: Path) -> None:
    """At once, with the address and what to do."""
    address = f"{own_address()}:{free_port()}"
    harness = harness_of(tmp_path / "harness", address)
    harness.environment.update(ENVIRONMENT)
    done = harness.do("run")
    assert done.returncode == 69
    assert f"the Ray cluster {address} can't be reached: Connection refused" in done.stderr
    assert "ray start --address=HOST:PORT" in done.stderr
    assert harness.do("once").returncode == 69


def test_auto_takes_the_address_from_the_environment(tmp_path: Path) -> None:
    """As Ray's own programs do."""
    address = f"{own_address()}:{free_port()}"
    harness = harness_of(tmp_path / "harness", "auto")
    harness.environment.update({**ENVIRONMENT, "RAY_ADDRESS": address})
    done = harness.do("run")
    assert done.returncode == 69
    assert f"the Ray cluster {address} can't be reached" in done.stderr


def test_a_wrong_token_is_exit_code_69(tmp_path: Path, cluster: RayCluster) -> None:
    """The message names the token, and how to make one."""
    harness = harness_of(tmp_path / "harness", cluster.address)
    harness.environment.update({**cluster.environment, "RAY_AUTH_TOKEN": "0" * 64})
    done = harness.do("run")
    assert done.returncode == 69, done.stderr
    assert "ray get-auth-token" in done.stderr


def test_a_stop_while_there_is_no_machine_is_quick(tmp_path: Path, cluster: RayCluster) -> None:
    """The daemon is ready without any machine, says so, and leaves within seconds."""
    harness = harness_of(tmp_path / "harness", cluster.address)
    harness.environment.update(cluster.environment)
    harness.drop("a.jpg", size=(64, 48))
    with harness.running() as daemon:
        daemon.wait_for("jobs.submitted")
        status = harness.do("status").stdout
        assert "no machine of the cluster has a place for an engine; photos wait" in status
        assert "1 waiting" in status
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(15) == 0
    assert harness.files("inbox") == ["a.jpg"]
