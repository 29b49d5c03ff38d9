"""Inspects a unit's sandbox from inside: runs in place of the daemon, with the unit's settings.

It needs only the standard library, and prints its results as JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path


def outcome(function: Callable[[], object]) -> str:
    """Call a function; return "yes", or the message of the OSError that it raised."""
    try:
        function()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "yes"


def is_read_only(folder: str) -> bool:
    """Return whether a folder is on a read-only mount."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def lease(path: str) -> None:
    """Take a read lease on a file and release it."""
    file = os.open(path, os.O_RDONLY)
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    os.close(file)


def main() -> None:
    """Print what the sandbox permits.

    The command line has two arguments: the data folder, and a file that another user owns.
    """
    data, photo = sys.argv[1:]
    status = dict(
        line.split(":\t", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
        if re.match(r"Cap|NoNewPrivs", line)
    )
    results = {
        "user": os.geteuid(),
        "data": outcome(lambda: Path(data, "probe").write_text("")),
        "read_only": [path for path in ("/etc", "/opt", "/usr", data) if is_read_only(path)],
        "home": outcome(lambda: os.listdir("/home")),
        "tun": outcome(lambda: os.close(os.open("/dev/net/tun", os.O_RDWR))),
        "null": outcome(lambda: os.close(os.open("/dev/null", os.O_RDWR))),
        "network": os.readlink("/proc/self/ns/net"),
        "internet_socket": outcome(lambda: socket.socket(socket.AF_INET).close()),
        "lease": outcome(lambda: lease(photo)),
        **{name: int(value, 16) for name, value in status.items()},
    }
    sys.stdout.write(json.dumps(results) + "\n")


main()
