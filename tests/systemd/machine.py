"""A container that boots a real systemd on an overlay of this machine's files.

The root file system is an overlayfs: this machine's `/` as the lower layer, a tmpfs as the upper
one. Mounts and processes are in their own namespaces, which end with the tests. If the tests are
killed, an empty control group is left behind; otherwise nothing is.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}
"""The environment of commands in the container; pytest's own (PYTHONPATH etc.) is not passed."""

TOOLS = ("systemd-nspawn", "unshare", "nsenter", "setpriv", "chroot", "mount")

# $1: the folder. The upper layer must be on another file system than the lower layer `/`, hence a
# tmpfs. With a cgroup2 mount at the usual place nspawn and systemd inside use version 2, whatever
# is mounted on this machine. A separate /run/systemd keeps nspawn's locks out of the machine's.
MOUNTS = """
umask 022
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
[ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
"""

# Run with chroot, so that absolute symlinks stay inside the overlay. Units that are enabled on this
# machine (databases, timers, mounts, logins) must not start a second time: only systemd's own units
# are left. logind is masked: with it `runuser` would start a session with its own user manager.
PREPARE = """
rm -rf /etc/systemd/system /etc/systemd/system-generators /var/log/journal /etc/machine-id \
    /etc/styled /opt/styled /var/lib/styled /var/lib/private /var/cache/styled /var/cache/private
mkdir -p /etc/systemd/system /etc/systemd/system-generators
ln -s /dev/null /etc/systemd/system/systemd-logind.service
for generator in /lib/systemd/system-generators/* /usr/lib/systemd/system-generators/*; do
    ln -sf /dev/null "/etc/systemd/system-generators/${generator##*/}"
done
echo "$1" > /etc/machine-id
"""

# $2: the control group, $3: what goes into /etc/machine-id, $4: PREPARE; then nspawn's command.
BOOT = f"""
echo 0 > "$2/cgroup.procs"
{MOUNTS}
chroot root sh -euc "$4" prepare "$3"
shift 4
exec "$@"
"""

NSPAWN = (
    "systemd-nspawn", "--boot", "--quiet", "--directory=root", "--settings=no",
    # This machine may not run a systemd to register with.
    "--register=no", "--keep-unit",
    "--private-network", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
    # systemd enforces DeviceAllow= with a BPF program; without bpf(2) it silently does not.
    "--system-call-filter=bpf",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A booted container."""

    leader: int
    """The process ID of its PID 1, as seen from outside."""

    commands: Path
    """The control group of commands that are run in the container."""

    def run(
        self, *args: str, check: bool = True, timeout: float = 60, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as root or another user.

        Raises:
            AssertionError: If `check` is set and the command fails; contains its output.
        """
        if user is not None:
            args = ("runuser", "-u", user, "--", *args)
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        # The container's control group must be joined before its cgroup namespace is entered.
        completed = subprocess.run(
            ["sh", "-euc", 'umask 022; echo 0 > "$0/cgroup.procs"; exec "$@"', str(self.commands),
             "nsenter", "--target", str(self.leader), *namespaces, "--", *args],
            env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=timeout,
        )  # fmt: skip
        if check and completed.returncode:
            raise AssertionError(
                f"{' '.join(args)!r} ended with {completed.returncode}:\n"
                f"{completed.stdout}{completed.stderr}"
            )
        return completed

    def systemctl(
        self, *args: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run systemctl in the container."""
        return self.run("systemctl", *args, check=check, timeout=timeout)

    def property(self, unit: str, name: str) -> str:
        """Return one property of a unit, as `systemctl show` prints it."""
        return self.systemctl("show", "-P", name, unit).stdout.strip()

    def journal(self, unit: str) -> list[dict[str, object]]:
        """Return all journal entries of a unit, oldest first."""
        # Without a sync, the last lines of a service may not have arrived yet.
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "-u", unit, "-o", "json", "--no-pager", "-q").stdout
        return [json.loads(line) for line in lines.splitlines()]

    def path(self, inside: str) -> Path:
        """Return the path at which a file of the container is accessible from outside.

        Absolute symlinks in this path resolve to this machine's files, not to the container's.
        """
        return Path(f"/proc/{self.leader}/root", inside.lstrip("/"))

    def wait_until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Poll until a condition is true; fail with the end of the journal after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            check_start = time.monotonic()
            if condition():
                return
            if time.monotonic() > deadline:
                journal = self.run("journalctl", "--no-pager", "-n", "50", check=False).stdout
                raise AssertionError(f"waited {seconds} seconds for nothing:\n{journal}")
            # Polling takes CPU time from the container: spend at most a fifth of the time on it.
            time.sleep(max(0.05, 4 * (time.monotonic() - check_start)))


def container_marks() -> list[pytest.MarkDecorator]:
    """Return the marks of tests that boot a container."""
    reason = reason_to_skip()
    return [
        pytest.mark.systemd,
        pytest.mark.timeout(300),
        pytest.mark.skipif(reason is not None, reason=reason or ""),
    ]


def reason_to_skip() -> str | None:
    """Return why no container can be booted on this machine, or None if it can."""
    if os.geteuid() != 0:
        return "only root may boot a container"
    missing = [tool for tool in TOOLS if not shutil.which(tool, path=ENVIRONMENT["PATH"])]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed"
    if os.path.ismount("/usr") or os.path.ismount("/etc"):
        return "/usr or /etc is a file system of its own; the container would be without it"
    try:
        _new_group(f"styled-{secrets.token_hex(4)}").rmdir()
    except OSError as error:
        return f"no control group can be made: {error}"
    with tempfile.TemporaryDirectory(prefix="styled-trial-") as folder:
        completed = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-euc", MOUNTS, "sh", folder],
            env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
    if completed.returncode:
        return f"a container's file systems can't be mounted here: {completed.stderr.strip()}"
    return None


@contextmanager
def booted(folder: Path, bind_ro: Mapping[Path, str] | None = None) -> Iterator[Machine]:
    """Boot a container, and power it off when the context ends.

    Args:
        folder: A folder for this container only. Its root file system is mounted there, in its own
            mount namespace; from outside only the console's output in `console.log` is visible.
        bind_ro: Folders of this machine, and the paths at which they are mounted read-only in the
            container. Nothing else on mounts other than `/` is visible in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    console = folder / "console.log"
    name = f"styled-{secrets.token_hex(4)}"
    binds = [
        "--bind-ro="
        + ":".join(str(path).replace(":", r"\:") for path in (outside.resolve(), inside))
        for outside, inside in (bind_ro or {}).items()
    ]
    with ExitStack() as stack:
        group = _new_group(name)
        stack.callback(_remove_group, group)
        with console.open("wb") as stream:
            process = subprocess.Popen(
                # If the tests are killed, so are unshare (--pdeathsig) and its child nspawn
                # (--kill-child), and as nspawn is PID 1 of a namespace, everything in it. Killing
                # nspawn outside such a namespace would leave the container running.
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private",
                 "--pid", "--mount-proc", "--fork", "--kill-child",
                 "sh", "-euc", BOOT, "sh", str(folder), str(group), secrets.token_hex(16), PREPARE,
                 *NSPAWN, f"--machine={name}", *binds],
                env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                # Ctrl-C must only reach the tests, which then power the container off.
                start_new_session=True,
            )  # fmt: skip
        stack.callback(_power_off, process, group)
        yield _wait_for_boot(process, group, console)


def _wait_for_boot(process: subprocess.Popen[bytes], group: Path, console: Path) -> Machine:
    deadline = time.monotonic() + 90
    state = ""
    while process.poll() is None and time.monotonic() < deadline:
        leader = _leader(group)
        if leader is not None:
            commands = group / "payload" / "commands"
            commands.mkdir(exist_ok=True)
            machine = Machine(leader, commands)
            state = machine.systemctl("is-system-running", check=False).stdout.strip()
            if state in ("running", "degraded"):
                return machine
        time.sleep(0.05)
    output = console.read_text(errors="replace")
    raise AssertionError(f"the container did not boot; its state is {state!r}:\n{output}")


def _leader(group: Path) -> int | None:
    """Return the outer process ID of the container's PID 1, or None until it exists."""
    with contextlib.suppress(OSError):  # processes may end in between
        # The container's systemd is in `payload/init.scope`, nspawn in a sibling of `payload`.
        for pid in (group / "payload" / "init.scope" / "cgroup.procs").read_text().split():
            if re.search(r"^NSpid:.*\t1$", Path(f"/proc/{pid}/status").read_text(), re.M):
                return int(pid)
    return None


def _power_off(process: subprocess.Popen[bytes], group: Path) -> None:
    try:
        if (leader := _leader(group)) is not None:
            os.kill(leader, signal.SIGRTMIN + 3)  # an orderly halt
            process.wait(30)
    except (subprocess.TimeoutExpired, ProcessLookupError):
        pass
    finally:
        (group / "cgroup.kill").write_text("1")
        process.kill()
        process.wait(30)


def _new_group(name: str) -> Path:
    """Make a control group (version 2) at the top of the hierarchy."""
    # The last mount first: it may hide an earlier one.
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        mount, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 "):
            group = Path(mount.split()[4], name)
            group.mkdir()
            # cgroup.kill kills all remaining processes without a race; it exists since Linux 5.14.
            if (group / "cgroup.kill").exists():
                return group
            group.rmdir()
    raise OSError("there is no tree of the second version with cgroup.kill")


def _remove_group(group: Path) -> None:
    deadline = time.monotonic() + 30
    while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    for folder, _, _ in os.walk(group, topdown=False):
        os.rmdir(folder)
