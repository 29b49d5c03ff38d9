"""A container in which a real systemd boots, over a copy of this machine's own files.

Its root is an overlay: this machine's `/` below, a tmpfs above. Its mounts and its processes are in
namespaces of their own that end with the tests, even if those are killed: then nothing but an empty
control group is left behind, and otherwise not even that.
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

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}
"""All that commands inside are given; what pytest has, such as a PYTHONPATH, is not for them."""

TOOLS = ("systemd-nspawn", "unshare", "nsenter", "setpriv", "chroot", "mount")

# $1: the folder. The upper layer is a tmpfs since nothing that lies below `/` may be above it.
# A control group tree of the second version in its usual place makes nspawn, and systemd inside,
# use that, whatever is mounted here. A /run/systemd of its own keeps nspawn's locks out of ours.
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

# Run with chroot, so that no absolute link can lead out of the overlay. What is enabled on this
# machine (databases, timers, mounts, logins) must not start a second time: only what systemd itself
# brings is left. No logind, or `runuser` would start a session with a manager of its own.
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
    # There may be no systemd here that it could be registered with.
    "--register=no", "--keep-unit",
    "--private-network", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
    # systemd enforces DeviceAllow= by a BPF program; without this it silently does not.
    "--system-call-filter=bpf",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A container that has booted."""

    leader: int
    """Its PID 1, as seen from outside."""

    commands: Path
    """The control group for commands that are run inside."""

    def run(
        self, *words: str, check: bool = True, timeout: float = 60, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end, as root or another user.

        Raises:
            AssertionError: If it fails, with what it said; not without `check`.
        """
        if user is not None:
            words = ("runuser", "-u", user, "--", *words)
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        # A group that belongs to the container must be joined before its namespace is entered.
        done = subprocess.run(
            ["sh", "-euc", 'umask 022; echo 0 > "$0/cgroup.procs"; exec "$@"', str(self.commands),
             "nsenter", "--target", str(self.leader), *namespaces, "--", *words],
            env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=timeout,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(words)!r} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def systemctl(
        self, *words: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run systemctl inside."""
        return self.run("systemctl", *words, check=check, timeout=timeout)

    def property(self, unit: str, name: str) -> str:
        """Return one property of a unit, as `systemctl show` prints it."""
        return self.systemctl("show", "-P", name, unit).stdout.strip()

    def journal(self, unit: str) -> list[dict[str, object]]:
        """Return all that is in the journal about a unit, oldest first."""
        # Without it, the last lines of a service may not have arrived yet.
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "-u", unit, "-o", "json", "--no-pager", "-q").stdout
        return [json.loads(line) for line in lines.splitlines()]

    def path(self, inside: str) -> Path:
        """Return where a file of the container can be read and written from outside.

        Absolute links on the way lead to this machine's files, not to the container's.
        """
        return Path(f"/proc/{self.leader}/root", inside.lstrip("/"))

    def wait_until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        """Wait until something is so; fail with the end of the journal if that takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            asked = time.monotonic()
            if condition():
                return
            if time.monotonic() > deadline:
                journal = self.run("journalctl", "--no-pager", "-n", "50", check=False).stdout
                raise AssertionError(f"waited {seconds} seconds for nothing:\n{journal}")
            # To ask takes the processor's time, which what is waited for needs as well.
            time.sleep(max(0.05, 4 * (time.monotonic() - asked)))


def reason_to_skip() -> str | None:
    """Return why no container can be booted here, None if nothing speaks against it."""
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
        mounted = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-euc", MOUNTS, "sh", folder],
            env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
    if mounted.returncode:
        return f"a container's file systems can't be mounted here: {mounted.stderr.strip()}"
    return None


@contextmanager
def booted(folder: Path, bind_ro: Mapping[Path, str] | None = None) -> Iterator[Machine]:
    """Boot a container, and power it off when the context ends.

    Args:
        folder: A folder of its own, where the container's files are mounted for itself. From
            outside there is only its console in `console.log`.
        bind_ro: Folders of this machine and where they are visible inside, read-only. Of other
            mounts than `/`, nothing else is visible.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    console = folder / "console.log"
    name = f"styled-{secrets.token_hex(4)}"
    binds = [
        "--bind-ro=" + ":".join(str(end).replace(":", r"\:") for end in (outside.resolve(), inside))
        for outside, inside in (bind_ro or {}).items()
    ]
    with ExitStack() as stack:
        group = _new_group(name)
        stack.callback(_remove_group, group)
        with console.open("wb") as stream:
            process = subprocess.Popen(
                # If the tests are killed, unshare is, and with it nspawn, which is PID 1 of a
                # namespace, and with that everything inside. nspawn alone would leave it running.
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private",
                 "--pid", "--mount-proc", "--fork", "--kill-child",
                 "sh", "-euc", BOOT, "sh", str(folder), str(group), secrets.token_hex(16), PREPARE,
                 *NSPAWN, f"--machine={name}", *binds],
                env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                # Ctrl-C is for the tests, which then power it off.
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
    said = console.read_text(errors="replace")
    raise AssertionError(f"the container did not boot; its state is {state!r}:\n{said}")


def _leader(group: Path) -> int | None:
    """Return what is PID 1 inside, None until it is there."""
    with contextlib.suppress(OSError):  # processes come and go
        # nspawn is in a group beside `payload`; there, systemd makes `init.scope` for itself.
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
    """Make a control group of the second version, at the top of the tree."""
    # The last first: one may be mounted over another.
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        mount, _, system = line.partition(" - ")
        if system.startswith("cgroup2 "):
            group = Path(mount.split()[4], name)
            group.mkdir()
            # It ends whatever is left, without a race; Linux before 5.14 has no such thing.
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
