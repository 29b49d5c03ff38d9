"""The connection to a Ray cluster: how it is made, watched and ended."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray

from styled.errors import ClusterUnavailable

CONNECT_SECONDS = 5.0
ALIVE_SECONDS = 2.0

SESSION_PREFIX = "styled-ray-"
"""Start of the names of folders for the logs and sockets of a local cluster."""

MAX_PARENT_BYTES = 15
"""The path of a socket has at most 107 bytes, of which Ray's names take 64 and ours 28."""


class Connection:
    """The connection of this process. There can be only one at a time.

    Attributes:
        address: As configured: `local`, `auto` or HOST:PORT.
        is_made: Whether `connect` has succeeded and `close` was not called since.
    """

    def __init__(self, address: str) -> None:
        """Prepare the connection; `connect` makes it."""
        self.address = address
        self.is_made = False
        self._session: Path | None = None

    def connect(self) -> None:
        """Connect to the cluster, or start one on this machine.

        Call it in a thread that lives as long as the connection: the processes of a local cluster
        end with the thread that has started them. It must not be the main thread, whose signal
        handlers Ray would replace.

        Raises:
            ClusterUnavailable: the cluster can't be reached, or refuses the token.
        """
        # Importing Ray has set another level, and that its records do not reach our own handler:
        # without any, Python would print them between the lines of the log.
        ray_logger = logging.getLogger("ray")
        ray_logger.setLevel(logging.ERROR)
        ray_logger.propagate = True
        options: dict[str, Any]
        if self.address == "local":
            sweep_sessions()
            prefix = f"{SESSION_PREFIX}{os.getpid()}-"
            self._session = Path(tempfile.mkdtemp(prefix=prefix, dir=session_parent()))
            session = str(self._session)
            options = {"address": "local", "include_dashboard": False, "_temp_dir": session}
        else:
            options = {"address": self._resolved()}
        try:
            ray.init(namespace="styled", log_to_driver=False, configure_logging=False, **options)
        # Ray raises ConnectionError, RuntimeError, ValueError and exceptions of its own.
        except Exception as error:
            self.close()
            raise ClusterUnavailable(
                f"the Ray cluster {self.address} can't be used: {_first_line(error)}",
                *self._remedies(),
            ) from error
        self.is_made = True
        # At the end of the process `close` has a time limit; this has none.
        atexit.unregister(ray.shutdown)

    def close(self) -> None:
        """Disconnect; a cluster on this machine that was started by `connect` ends.

        Takes a second, and ten if the cluster is gone.
        """
        self.is_made = False
        with suppress(Exception):  # nothing can be done about a cluster that is gone
            ray.shutdown()
        if self._session is not None:
            shutil.rmtree(self._session, ignore_errors=True)
            self._session = None

    def _resolved(self) -> str:
        """Return the address with an IP; Ray would wait for an unreachable one without end.

        Raises:
            ClusterUnavailable: nothing answers there.
        """
        if self.address == "auto":
            known = os.environ.get("RAY_ADDRESS", "")
            if ":" not in known or known.startswith("ray:"):
                return "auto"
            address = known
        else:
            address = self.address
        host, _, port = address.rpartition(":")
        try:
            ip = str(
                socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0][4][0]
            )
            socket.create_connection((ip, int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            raise ClusterUnavailable(
                f"the Ray cluster {address} can't be reached: {error.strerror or error}",
                *self._remedies(),
            ) from error
        return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"

    def _remedies(self) -> tuple[str, ...]:
        if self.address == "local":
            return ("python -c 'import ray; ray.init()' shows what Ray has to say about it",)
        return (
            "start the cluster: ray start --head on one machine, and ray start --address=HOST:PORT "
            "on the others, this one included",
            "check cluster.address, and the firewall between the machines",
            "all machines need the same token: ray get-auth-token --generate makes one, in "
            "~/.ray/auth_token; or set RAY_AUTH_TOKEN_PATH to the file that has it",
        )


def is_reachable() -> bool:
    """Return whether the connected cluster's head, and Ray on this machine, answer.

    To be asked before calls such as `ray.nodes()`, which can end this process if they do not.
    """
    if not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    if not accepts_connections(host.strip("[]"), int(port)):
        return False
    own = next((one for one in node_records() if one["NodeID"] == context.get_node_id()), None)
    return (
        own is not None
        and own["Alive"]
        and accepts_connections(own["NodeManagerAddress"], own["NodeManagerPort"])
    )


def node_records() -> list[dict[str, Any]]:
    """Return Ray's records of all machines that are, or were, in the cluster."""
    records: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
    return records


def accepts_connections(host: str, port: int) -> bool:
    """Return whether something listens there."""
    try:
        socket.create_connection((host, port), ALIVE_SECONDS).close()
    except OSError:
        return False
    return True


def session_parent() -> Path:
    """Return the folder of temporary files, or /tmp if paths in that are too long for sockets."""
    folder = tempfile.gettempdir()
    return Path(folder if len(os.fsencode(folder)) <= MAX_PARENT_BYTES else "/tmp")


def sweep_sessions(folder: Path | None = None) -> None:
    """Delete the folders of local clusters whose process was killed."""
    for path in (folder or session_parent()).glob(f"{SESSION_PREFIX}*"):
        pid = path.name.removeprefix(SESSION_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
