"""Looks at a unit's sandbox from inside: run in place of the daemon, by the unit's own settings.

It needs nothing but Python, and prints what it finds as JSON.
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


def outcome(do: Callable[[], object]) -> str:
    """Return "yes" if something can be done, else the name of the error."""
    try:
        do()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "yes"


def is_read_only(folder: str) -> bool:
    """Return whether a folder lies on what is mounted read-only."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def lease(path: str) -> None:
    """Take a lease on a file and give it back."""
    file = os.open(path, os.O_RDONLY)
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    os.close(file)


def main() -> None:
    """Print what may be done; the arguments are the folder of data and a file of somebody else."""
    data, photo = sys.argv[1:]
    status = dict(
        line.split(":\t", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
        if re.match(r"Cap|NoNewPrivs", line)
    )
    found = {
        "user": os.geteuid(),
        "data": outcome(lambda: Path(data, "probe").write_text("")),
        "read_only": [one for one in ("/etc", "/opt", "/usr", data) if is_read_only(one)],
        "home": outcome(lambda: os.listdir("/home")),
        "tun": outcome(lambda: os.close(os.open("/dev/net/tun", os.O_RDWR))),
        "null": outcome(lambda: os.close(os.open("/dev/null", os.O_RDWR))),
        "network": os.readlink("/proc/self/ns/net"),
        "internet_socket": outcome(lambda: socket.socket(socket.AF_INET).close()),
        "lease": outcome(lambda: lease(photo)),
        **{name: int(value, 16) for name, value in status.items()},
    }
    sys.stdout.write(json.dumps(found) + "\n")


main()
