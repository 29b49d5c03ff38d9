"""Settings that Ray reads from the environment; the only module here that does not import ray."""

from __future__ import annotations

import os
import secrets
from importlib.util import find_spec

from styled.errors import ClusterUnavailable
from styled.extras import install_command

SETTINGS = {
    # Ray runs any code of its clients: without a token, anybody in the network could run theirs.
    "RAY_AUTH_MODE": "token",
    # Otherwise Ray kills this process a minute after it has lost the cluster.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000000",
    # Otherwise a call after the cluster was lost starts another one, in whichever thread.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray would print what happens to its processes between the lines of the log.
    "RAY_DEDUP_LOGS_SKIP_REGEX": r"[\s\S]*",
    # Ray warns about a change to come, for engines without a GPU.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # Ray keeps only as many idle processes as there are free CPUs, and engines hold all of them:
    # each photo would wait for Python and torch to start. `CodecNodes` limits their number. Ray's
    # own process on each machine reads this: see docs/cluster.md for those of a cluster.
    "RAY_idle_worker_killing_time_threshold_ms": "3600000",
}
LOCAL_SETTINGS = {
    # All ports are bound to the loopback interface. Ray's own setting, despite its name.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


def prepare_environment(address: str) -> None:
    """Set what Ray reads from the environment; call this before another module imports ray.

    What the user has set stays, except for the address that a cluster on this machine binds to.

    Raises:
        ClusterUnavailable: Ray is not installed.
    """
    if find_spec("ray") is None:
        raise ClusterUnavailable(
            "cluster.address is set, but Ray is not installed",
            f"install it: {install_command('ray')}",
            "or remove cluster.address: a single engine needs no cluster",
        )
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if address == "local":
        os.environ.update(LOCAL_SETTINGS)
        if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
