"""The container image and its compose file, as on a NAS; needs podman and packages to build it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from styled.ops.heartbeat_file import LATE_SECONDS
from tests.container.conftest import need, podman
from tests.packaging.distributions import ROOT

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1200)]

COMPOSE = ROOT / "container/compose.yaml"
UID, GID = 1234, 2345
VOLUMES = ("config", "inbox", "outbox", "archive", "rejected", "state", "weights")
GRACE_SECONDS = 30.0


@contextmanager
def composed(folder: Path, profile: str = "cpu") -> Iterator[str]:
    """Start the service of compose.yaml with folders in `folder`; yield the container's name."""
    need("podman-compose")
    environment = {
        **os.environ, "PHOTOS": str(folder), "PUID": str(UID), "PGID": str(GID), "UMASK": "007",
        "WEIGHTS": "untrained", "COMPOSE_PROJECT_NAME": "styledtests",
    }  # fmt: skip
    compose = ["podman-compose", "-f", str(COMPOSE), "--profile", profile]
    name = "styled"
    assert podman("container", "exists", name, check=False).returncode != 0
    try:
        subprocess.run([*compose, "up", "-d", "--no-build"], env=environment, check=True)
        yield name
    finally:
        subprocess.run([*compose, "down", "-t", "5"], env=environment, check=True)


def logs(name: str) -> str:
    """Return all that a container has printed."""
    done = podman("logs", name)
    return done.stdout + done.stderr


def wait_until(condition: Callable[[], object], name: str, seconds: float = 200) -> None:
    """Poll until a condition is true; fail with the container's log."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, logs(name)
        time.sleep(0.5)


def pid_of_the_daemon(name: str) -> int:
    """Return the daemon's process, as this machine numbers it."""
    for line in podman("top", name, "hpid", "args").stdout.splitlines()[1:]:
        pid, _, command = line.strip().partition(" ")
        if command.strip().startswith("/opt/styled/bin/python"):
            return int(pid)
    raise AssertionError(logs(name))


def drop(folder: Path, name: str) -> bytes:
    """Drop a photo, as its owner, into the inbox; return its content."""
    photo = folder / name
    cat = skimage.data.chelsea()  # type: ignore[no-untyped-call]  # it has no types
    Image.fromarray(cat).resize((120 + len(name), 90)).save(photo, quality=95)
    os.chown(photo, UID, GID)
    data = photo.read_bytes()
    photo.rename(folder / "inbox" / name)
    return data


def assert_painted(folder: Path, name: str, data: bytes) -> None:
    """Check that a photo has come out once, with its sidecar and its original."""
    sidecar = json.loads((folder / f"outbox/red-trees/{name}.json").read_bytes())
    result = (folder / f"outbox/red-trees/{name}").read_bytes()
    assert sidecar["input"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert sidecar["result"]["sha256"] == hashlib.sha256(result).hexdigest()
    assert (folder / f"archive/red-trees/{name}").read_bytes() == data
    assert not (folder / "inbox" / name).exists()


def test_a_photo_becomes_a_painting_of_its_owner(image: str, folder: Path) -> None:
    """As PUID, PGID and UMASK say, with a read-only root; reload, health and stop work."""
    with composed(folder) as name:
        wait_until(lambda: "daemon.started" in logs(name), name)
        assert podman("exec", name, "sh", "-c", "touch /x", check=False).returncode != 0
        status = Path(f"/proc/{pid_of_the_daemon(name)}/status").read_text()
        facts = dict(line.split(":", 1) for line in status.splitlines())
        assert facts["Uid"].split() == [str(UID)] * 4
        assert facts["Gid"].split() == [str(GID)] * 4
        assert facts["Groups"].split() == []
        assert (int(facts["CapEff"], 16), facts["NoNewPrivs"].strip()) == (0, "1")

        data = drop(folder, "cat.jpg")
        painting = folder / "outbox/red-trees/cat.jpg"
        wait_until(lambda: (folder / "archive/red-trees/cat.jpg").exists(), name)
        wait_until(lambda: not (folder / "inbox/cat.jpg").exists(), name)
        assert_painted(folder, "cat.jpg", data)
        info = painting.stat()
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (UID, GID, 0o660)
        owners = {
            (path.lstat().st_uid, path.lstat().st_gid)
            for volume in VOLUMES for path in (folder / volume, *(folder / volume).rglob("*"))
        }  # fmt: skip
        assert owners == {(UID, GID)}

        podman("kill", "--signal", "HUP", name)
        wait_until(lambda: "config.reloaded" in logs(name), name)
        assert podman("healthcheck", "run", name).returncode == 0
        assert "1 done" in podman("exec", name, "styled", "status").stdout

        started = time.monotonic()
        podman("stop", "-t", round(GRACE_SECONDS), name)
        assert time.monotonic() - started < GRACE_SECONDS / 2
        assert podman("inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip() == "0"
        assert "daemon.stopped" in logs(name)


def test_a_killed_container_takes_its_work_up_again(image: str, folder: Path) -> None:
    """After `podman kill` amid a painting, a start finishes it; nothing is lost or doubled."""
    with composed(folder) as name:
        wait_until(lambda: "daemon.started" in logs(name), name)
        data = {f"{number}.jpg": drop(folder, f"{number}.jpg") for number in range(3)}
        wait_until(lambda: "job.painting_started" in logs(name), name)
        podman("kill", name)
        podman("start", name)
        wait_until(lambda: not list((folder / "inbox").glob("*.jpg")), name)
        for photo, content in data.items():
            assert_painted(folder, photo, content)
        results = sorted(path.name for path in (folder / "outbox/red-trees").iterdir())
        assert results == sorted([*data, *(f"{photo}.json" for photo in data)])


def test_a_frozen_daemon_is_unhealthy(image: str, folder: Path) -> None:
    """A process that is there but does nothing has no heartbeats; it is healthy again later."""
    with composed(folder) as name:
        wait_until(lambda: "daemon.started" in logs(name), name)
        pid = pid_of_the_daemon(name)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(LATE_SECONDS + 5)
        assert podman("healthcheck", "run", name, check=False).returncode != 0
        assert (
            "the last heartbeat was" in podman("exec", name, "styled", "health", check=False).stderr
        )
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: podman("healthcheck", "run", name, check=False).returncode == 0, name)


@pytest.mark.parametrize("missing", ["config", "inbox", "archive", "state", "weights"])
def test_a_folder_that_is_no_volume_is_refused(image: str, folder: Path, missing: str) -> None:
    """Photos in it would be lost with the container; the message says what to mount."""
    done = podman("run", "--rm", *volumes(folder, missing), image, check=False)
    assert done.returncode == 73
    assert f"/{missing} is no volume: mount a folder there" in done.stderr


def test_a_configuration_folder_of_another_user_is_refused(image: str, folder: Path) -> None:
    """The message says that PUID must be its owner."""
    options = volumes(folder)
    (folder / "config/notes.txt").touch()  # it is in use, so its owner is not changed
    owner = f"{os.getuid()}:{os.getgid()}"
    done = podman("run", "--rm", "-e", f"PUID={UID}", *options, image, check=False)
    assert done.returncode == 73
    assert f"user {UID}:1000 may not write to /config, which belongs to {owner}" in done.stderr


@pytest.mark.parametrize("variable", ["PUID=nas", "PGID=-1", "UMASK=u=rwx", "WEIGHTS=best"])
def test_a_variable_that_is_no_value_is_named(image: str, folder: Path, variable: str) -> None:
    """Before anything is written."""
    done = podman("run", "--rm", "-e", variable, *volumes(folder), image, check=False)
    assert done.returncode == 73
    assert variable.partition("=")[0] in done.stderr
    assert not list((folder / "config").iterdir())


def test_a_read_only_volume_is_refused(image: str, folder: Path) -> None:
    """As such, and not as one of a wrong owner."""
    options = [option.replace(":/outbox", ":/outbox:ro") for option in volumes(folder)]
    done = podman("run", "--rm", "-e", "WEIGHTS=untrained", *options, image, check=False)
    assert done.returncode == 73
    assert "/outbox is mounted read-only" in done.stderr


def test_a_stop_during_the_first_start_is_obeyed(image: str, folder: Path) -> None:
    """Without an init process, and before styled itself runs."""
    name = "styled-tests-first"
    podman("run", "-d", "--name", name, "-e", "WEIGHTS=untrained", *volumes(folder), image)
    try:
        time.sleep(1)
        started = time.monotonic()
        podman("stop", "-t", round(GRACE_SECONDS), name)
        assert time.monotonic() - started < GRACE_SECONDS / 2
    finally:
        podman("rm", "--force", name)


def test_it_runs_as_any_user_without_any_privilege(image: str, folder: Path) -> None:
    """With `--user` nothing is done as root, and no capability is needed."""
    options = volumes(folder)
    for volume in VOLUMES:
        os.chown(folder / volume, UID, GID)
    data = drop(folder, "cat.jpg")
    done = podman(
        "run", "--rm", "--user", f"{UID}:{GID}", "--cap-drop", "all", "--read-only", "--network",
        "none", "-e", "WEIGHTS=untrained", *options, "--entrypoint", "sh", image, "-c",
        "styled init /config --folders / --weights untrained && styled once",
    )  # fmt: skip
    assert '"level": "error"' not in done.stderr, done.stderr
    assert_painted(folder, "cat.jpg", data)


def test_gpus_come_through_cdi(image: str, folder: Path) -> None:
    """The profile `nvidia` asks for nvidia.com/gpu=all; here a stand-in of no driver."""
    spec = Path("/var/run/cdi/styled-tests.json")
    if list(Path("/etc/cdi").glob("*nvidia*")) or list(Path("/var/run/cdi").glob("*nvidia*")):
        pytest.skip("this machine has real ones")
    nodes = [{"path": "/dev/nvidia-styled", "hostPath": "/dev/zero"}]
    device = {"name": "all", "containerEdits": {"deviceNodes": nodes}}
    spec.parent.mkdir(exist_ok=True)
    spec.write_text(
        json.dumps({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [device]})
    )
    podman("tag", image, "localhost/styled-nvidia")
    try:
        with composed(folder, "nvidia") as name:
            wait_until(lambda: "daemon.started" in logs(name), name)
            assert "/dev/nvidia-styled" in podman("exec", name, "ls", "/dev/nvidia-styled").stdout
    finally:
        spec.unlink()
        podman("rmi", "localhost/styled-nvidia")


def volumes(folder: Path, missing: str = "") -> list[str]:
    """Make all folders but one; return the options that mount them."""
    options = []
    for volume in VOLUMES:
        if volume != missing:
            (folder / volume).mkdir()
            options += ["-v", f"{folder / volume}:/{volume}"]
    return options
