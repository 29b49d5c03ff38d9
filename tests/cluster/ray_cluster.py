"""A real Ray cluster whose nodes are processes on this machine, started by `ray start`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.daemon_harness import SHORTCUTS
from tests.ports import free_port

TOKEN = "5e" * 32
START_SECONDS = 60.0
STORE_BYTES = 150_000_000
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "3600000",  # as docs/cluster.md says
    # All nodes share the loopback interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
}


class StepSeconds:
    """How long each step of an engine in a Ray worker sleeps; may be changed at any time.

    Attributes:
        environment: What the workers need for that.
    """

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        """Keep the time in a file in `folder`."""
        self._file = folder / "step_seconds"
        self.environment = {
            "PYTHONPATH": SHORTCUTS,
            "STYLED_TESTS_STEP_SECONDS_FILE": str(self._file),
        }
        self.set(seconds)

    def set(self, seconds: float) -> None:
        """Change the time from the next step on."""
        temporary = self._file.with_suffix(".new")
        temporary.write_text(str(seconds))
        temporary.replace(self._file)


class Node:
    """A node: the processes of one `ray start --block`, in a process group of their own."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, log: Path) -> None:
        """Wrap the process of a node that is starting."""
        self.process = process
        self.name = name
        self.log = log

    def pids(self, program: str = "") -> list[int]:
        """Return the processes of this node whose command line contains `program`."""
        return [pid for pid, line in processes_below(self.process.pid) if program in line]

    def kill(self) -> None:
        """Kill all processes of the node at once, as a power cut does."""
        for pid in [self.process.pid, *self.pids()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    def kill_raylet(self) -> None:
        """Kill only the node's raylet."""
        for pid in self.pids("raylet/raylet"):
            os.kill(pid, signal.SIGKILL)

    def leave(self) -> None:
        """Leave the cluster as `ray stop` does, which would stop all nodes of this machine."""
        raylets = self.pids("raylet/raylet")
        for pid in raylets:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in raylets):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        self.kill()


class RayCluster:
    """A head node without CPUs, and workers that join and leave.

    Attributes:
        address: HOST:PORT, for `cluster.address`.
        environment: What the daemon and the nodes need.
        step_seconds: How long each step of its engines sleeps.
    """

    def __init__(self, folder: Path) -> None:
        """Start the head node; its logs and sockets are in `folder`, whose path must be short."""
        self.folder = folder
        self.environment = dict(ENVIRONMENT)
        self.step_seconds = StepSeconds(folder)
        self.nodes: list[Node] = []
        self.address = f"{own_address()}:{free_port()}"
        self.start_head()

    def start_head(self) -> None:
        """Start the head node, also again at the same address."""
        self.head = self._start(
            "head", "--head", "--port", self.address.rpartition(":")[2], "--num-cpus", "0",
            "--include-dashboard", "false", "--no-monitor", "--temp-dir", str(self.folder / "ray"),
        )  # fmt: skip
        host, _, port = self.address.rpartition(":")
        self._wait(self.head, lambda: _accepts(host, int(port)))

    def add(self, name: str, cpus: int = 1, environment: dict[str, str] | None = None) -> Node:
        """Start a worker; does not wait until it has joined."""
        node = self._start(
            name, "--address", self.address, "--num-cpus", str(cpus), "--node-name", name,
            environment=environment,
        )  # fmt: skip
        self.nodes.append(node)
        return node

    def close(self) -> None:
        """Kill everything."""
        for node in (*self.nodes, self.head):
            node.kill()

    def _start(self, name: str, *args: str, environment: dict[str, str] | None = None) -> Node:
        log = self.folder / f"{name}-{time.time_ns()}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
                 "--disable-usage-stats", "--object-store-memory", str(STORE_BYTES),
                 "--include-log-monitor", "false", *args],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={
                    **os.environ, **self.environment, **self.step_seconds.environment,
                    **(environment or {}),
                },
            )  # fmt: skip
        return Node(process, name, log)

    def _wait(self, node: Node, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            assert node.process.poll() is None, node.log.read_text()
            assert time.monotonic() < deadline, node.log.read_text()
            time.sleep(0.05)


@contextmanager
def short_folder() -> Iterator[Path]:
    """Make a temporary folder whose path is short enough for Ray's sockets (107 bytes in all)."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_address() -> str:
    """Return the address that Ray chooses for this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 1))  # sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def processes_below(root: int) -> list[tuple[int, str]]:
    """Return the id and the command line of each process that descends from `root`."""
    parents, lines = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            parents[int(path.name)] = int(fields[1])
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ")
            lines[int(path.name)] = line.decode(errors="replace")
    below = {root}
    while new := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= new
    return [(pid, lines[pid]) for pid in below - {root} if pid in lines]


def ray_processes(text: str) -> list[str]:
    """Return the command lines of all of Ray's processes that contain `text`."""
    return [
        line for _, line in processes_below(1)
        if text in line and ("raylet" in line or "gcs_server" in line or line.startswith("ray::"))
    ]  # fmt: skip


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True
