"""Photos uploaded by real programs, with a pause in the middle that exceeds the settling time.

Each must be painted once, completely, and be one job, whatever partial states the daemon sees.
"""

from __future__ import annotations

import contextlib
import ftplib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from tests.daemon_harness import Daemon, DaemonHarness, make_harness
from tests.faults.conftest import FAST
from tests.faults.output_checker import OutputChecker
from tests.faults.servers import PAUSE_SECONDS, need, serving, smbd, sshd, vsftpd

pytestmark = pytest.mark.timeout(300)

BROKEN_OFF_SECONDS = 15.0
"""Pause of a download that is killed meanwhile."""


@pytest.fixture
def harness(weights: Path) -> Iterator[DaemonHarness]:
    """Make a working folder that other users can read, as a server's user must be able to."""
    base = Path(tempfile.mkdtemp(prefix="styled-clients-"))
    base.chmod(0o755)
    harness = make_harness(base / "harness", FAST.replace("WEIGHTS", str(weights)))
    harness.configure(intake="{settle_seconds: 0.2, truncated_grace_seconds: 60}")
    yield harness
    shutil.rmtree(base)


@pytest.fixture
def source(harness: DaemonHarness) -> Path:
    """Return a photo of some megabytes, outside the inbox."""
    path = harness.folder / "aside" / "photo.jpg"
    path.parent.mkdir()
    coffee = Image.fromarray(skimage.data.coffee())  # type: ignore[no-untyped-call]  # no types
    coffee.resize((2400, 1600)).save(path, quality=99)
    return path


@contextmanager
def watching(harness: DaemonHarness) -> Iterator[Daemon]:
    """Run the daemon, and check that no incomplete file is ever delivered."""
    with OutputChecker(harness), harness.running() as daemon:
        daemon.wait_for("daemon.started")
        (harness.folder / "inbox/swirls").chmod(0o777)
        yield daemon


def assert_painted_once(harness: DaemonHarness, daemon: Daemon, data: bytes, name: str) -> None:
    """Check that the complete photo gave one result, in one job."""
    daemon.wait_until((harness.folder / "archive/swirls" / name).exists, 60)
    daemon.wait_until(lambda: not harness.files("inbox"), 60)
    assert harness.files("outbox") == [f"swirls/{name}", f"swirls/{name}.json"]
    assert harness.files("rejected") == []
    info = harness.sidecar(f"outbox/swirls/{name}.json")["input"]
    assert (info["sha256"], info["changed"]) == (hashlib.sha256(data).hexdigest(), False)
    assert (harness.folder / "archive/swirls" / name).read_bytes() == data
    assert states_of_jobs(harness) == ["done"]


def states_of_jobs(harness: DaemonHarness) -> list[str]:
    """Return the states of all jobs."""
    path = harness.folder / "state" / "journal.sqlite3"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        return [state for (state,) in journal.execute("SELECT state FROM jobs ORDER BY seq")]


# Downloads from a server that pauses


DOWNLOADS = {
    "curl": ("curl", "-sS", "--noproxy", "*", "-o", "OUT", "URL"),
    "wget": ("wget", "-q", "--no-proxy", "-O", "OUT", "URL"),
    **{
        f"aria2c-{how}": (
            "aria2c", "-q", "--no-conf", "--all-proxy=", f"--file-allocation={how}",
            "-d", "FOLDER", "-o", "photo.jpg", "URL",
        )
        for how in ("none", "trunc", "prealloc", "falloc")
    },
}  # fmt: skip


@pytest.mark.parametrize("client", DOWNLOADS)
def test_a_download_that_pauses(harness: DaemonHarness, source: Path, client: str) -> None:
    """A paused download is one job, whether or not the program reserves the size beforehand."""
    template = DOWNLOADS[client]
    need(template[0])
    data = source.read_bytes()
    folder = harness.folder / "inbox/swirls"
    with watching(harness) as daemon, serving(data) as url:
        substitutions = {"OUT": str(folder / "photo.jpg"), "FOLDER": str(folder), "URL": url}
        start = time.monotonic()
        subprocess.run([substitutions.get(part, part) for part in template], check=True, timeout=60)
        assert time.monotonic() - start > PAUSE_SECONDS
        assert_painted_once(harness, daemon, data, "photo.jpg")


def test_a_download_that_is_broken_off_and_taken_up_again(
    harness: DaemonHarness, source: Path
) -> None:
    """A photo waits as long as aria2's control file exists; the resumed download is painted."""
    need("aria2c")
    data = source.read_bytes()
    folder = harness.folder / "inbox/swirls"
    with watching(harness) as daemon, serving(data, BROKEN_OFF_SECONDS) as url:
        command = [
            "aria2c", "-q", "--no-conf", "--all-proxy=", "--file-allocation=prealloc",
            "-d", str(folder), "-o", "photo.jpg", "-c", url,
        ]  # fmt: skip
        with subprocess.Popen(command) as process:
            daemon.wait_until(lambda: (folder / "photo.jpg.aria2").exists(), 30)
            daemon.wait_for("input.incomplete", seconds=30)
            process.kill()
        daemon.wait_until(
            lambda: "aria2" in harness.do("explain", str(folder / "photo.jpg")).stdout
        )
        assert states_of_jobs(harness) == []
        subprocess.run(command, check=True, timeout=60)
        assert_painted_once(harness, daemon, data, "photo.jpg")


# Programs that are stopped by SIGSTOP


@contextmanager
def paused_in_the_middle(
    command: Sequence[str], folder: Path, size: int, environment: dict[str, str] | None = None
) -> Iterator[None]:
    """Run a program that writes `size` bytes into `folder`; stop it on the way for a while."""
    process = subprocess.Popen(
        command, start_new_session=True, env={**os.environ, **(environment or {})}
    )
    try:
        deadline = time.monotonic() + 30
        while not any(0 < written < size for written in sizes_in(folder)):
            assert process.poll() is None, "it was too fast, or failed"
            assert time.monotonic() < deadline, "it never began"
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(PAUSE_SECONDS)
        assert all(written < size for written in sizes_in(folder)), "it went on"
        os.killpg(process.pid, signal.SIGCONT)
        assert process.wait(60) == 0
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def sizes_in(folder: Path) -> list[int]:
    """Return the sizes of all files below a folder."""
    sizes = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                sizes.append(path.stat().st_size)
    return sizes


RSYNC = {
    "default": (),
    "inplace": ("--inplace",),
    "temp-dir": ("--temp-dir", "TEMP"),
    "partial": ("--partial",),
    "partial-dir": ("--partial-dir=.rsync-partial",),
    "times": ("--archive",),
}


@pytest.mark.parametrize("how", RSYNC)
def test_an_rsync_that_pauses(harness: DaemonHarness, source: Path, how: str) -> None:
    """A paused rsync upload is one job, for each way in which rsync writes."""
    need("rsync")
    data = source.read_bytes()
    elsewhere = harness.folder / "elsewhere"
    elsewhere.mkdir()
    options = [str(elsewhere) if option == "TEMP" else option for option in RSYNC[how]]
    folder = harness.folder / "inbox/swirls"
    command = ["rsync", "--whole-file", "--bwlimit=1000", *options, str(source), f"{folder}/"]
    written = elsewhere if how == "temp-dir" else folder
    with watching(harness) as daemon, paused_in_the_middle(command, written, len(data)):
        assert_painted_once(harness, daemon, data, "photo.jpg")


@pytest.mark.parametrize("protocol", ["sftp", "scp"])
def test_an_scp_that_pauses(
    harness: DaemonHarness, source: Path, tmp_path: Path, protocol: str
) -> None:
    """A paused scp upload to a real sshd is one job, with either protocol of scp."""
    need("scp", "sshd", "ssh-keygen")
    if os.geteuid() != 0:
        pytest.skip("sshd is started as root")
    data = source.read_bytes()
    folder = harness.folder / "inbox/swirls"
    with sshd(tmp_path) as (port, key), watching(harness) as daemon:
        command = [
            "scp", "-q", "-F", "/dev/null", "-P", str(port), "-i", str(key), "-l", "8000",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            *(["-O"] if protocol == "scp" else []), str(source), f"root@127.0.0.1:{folder}/",
        ]  # fmt: skip
        with paused_in_the_middle(command, folder, len(data)):
            assert_painted_once(harness, daemon, data, "photo.jpg")


# Servers with slow clients


def test_an_ftp_upload_that_pauses(harness: DaemonHarness, source: Path, tmp_path: Path) -> None:
    """A paused upload to a real vsftpd, run by another user than the daemon's, is one job."""
    data = source.read_bytes()
    with vsftpd(harness.folder / "inbox", tmp_path) as port, watching(harness) as daemon:
        with ftplib.FTP() as client:
            client.connect("127.0.0.1", port, timeout=30)
            client.login()
            client.cwd("swirls")
            client.voidcmd("TYPE I")
            with client.transfercmd("STOR photo.jpg") as stream:
                stream.sendall(data[: len(data) // 2])
                time.sleep(PAUSE_SECONDS)
                assert states_of_jobs(harness) == []
                stream.sendall(data[len(data) // 2 :])
            client.voidresp()
        assert_painted_once(harness, daemon, data, "photo.jpg")


def test_a_download_in_segments_that_pauses(
    harness: DaemonHarness, source: Path, tmp_path: Path
) -> None:
    """A paused lftp download, which writes four segments at once, is one job."""
    need("lftp")
    data = source.read_bytes()
    source.chmod(0o644)
    folder = harness.folder / "inbox/swirls"
    with vsftpd(source.parent, tmp_path) as port, watching(harness) as daemon:
        command = [
            "lftp", "--norc", "-c",
            f"set net:limit-rate 400000; open ftp://127.0.0.1:{port}; "
            f"pget -n 4 photo.jpg -o {folder}/photo.jpg",
        ]  # fmt: skip
        process = subprocess.Popen(command, start_new_session=True)
        daemon.wait_until(lambda: sum(sizes_in(folder)) > 0, 30)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(PAUSE_SECONDS)
        assert states_of_jobs(harness) == []
        os.killpg(process.pid, signal.SIGCONT)
        assert process.wait(60) == 0
        assert_painted_once(harness, daemon, data, "photo.jpg")


def test_a_download_that_is_killed_and_taken_up_where_it_was(
    harness: DaemonHarness, source: Path, tmp_path: Path
) -> None:
    """A killed and resumed curl download is one job, though no process has it open meanwhile."""
    need("curl")
    data = source.read_bytes()
    source.chmod(0o644)
    folder = harness.folder / "inbox/swirls"
    command = ["curl", "-sS", "--noproxy", "*", "-C", "-", "-o", str(folder / "photo.jpg")]
    with (
        vsftpd(source.parent, tmp_path) as port,
        serving(data, BROKEN_OFF_SECONDS) as url,
        watching(harness) as daemon,
    ):
        with subprocess.Popen([*command, url]) as process:
            daemon.wait_for("input.incomplete", seconds=30)
            process.kill()
        assert 0 < (folder / "photo.jpg").stat().st_size < len(data)
        time.sleep(PAUSE_SECONDS)
        assert states_of_jobs(harness) == []
        subprocess.run([*command, f"ftp://127.0.0.1:{port}/photo.jpg"], check=True, timeout=60)
        assert_painted_once(harness, daemon, data, "photo.jpg")


def test_an_archive_that_is_unpacked_slowly(
    harness: DaemonHarness, source: Path, tmp_path: Path
) -> None:
    """A photo that tar extracts slowly, setting its old mtime at the end, is one job."""
    need("tar")
    data = source.read_bytes()
    os.utime(source, (1_000_000_000, 1_000_000_000))
    archive = tmp_path / "photos.tar"
    subprocess.run(["tar", "-cf", archive, "-C", source.parent, source.name], check=True)
    packed = archive.read_bytes()
    with watching(harness) as daemon:
        with subprocess.Popen(
            ["tar", "-x", "-C", harness.folder / "inbox/swirls"], stdin=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            process.stdin.write(packed[: len(packed) // 2])
            process.stdin.flush()
            time.sleep(PAUSE_SECONDS)
            assert states_of_jobs(harness) == []
            process.stdin.write(packed[len(packed) // 2 :])
        assert_painted_once(harness, daemon, data, "photo.jpg")


def test_an_smb_upload_that_pauses(harness: DaemonHarness, source: Path, tmp_path: Path) -> None:
    """A paused upload to a real smbd is one job; smbclient reads from a slow pipe."""
    data = source.read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ExitStack() as stack:
        daemon = stack.enter_context(watching(harness))
        configuration, port = stack.enter_context(smbd(harness.folder / "inbox", tmp_path))
        client = subprocess.Popen(
            ["smbclient", configuration, "-N", "-p", str(port), "//127.0.0.1/inbox",
             "-c", f"put {pipe} swirls/photo.jpg"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        with open(pipe, "wb", buffering=0) as stream:
            stream.write(data[: len(data) // 2])
            daemon.wait_for(
                "input.incomplete", seconds=30
            )  # smbclient may hold back what it has read
            time.sleep(PAUSE_SECONDS)
            assert states_of_jobs(harness) == []
            stream.write(data[len(data) // 2 :])
        output, _ = client.communicate(timeout=60)
        assert client.returncode == 0, output
        assert_painted_once(harness, daemon, data, "photo.jpg")


# Other ways of writing


def by_shell(source: Path, out: Path) -> None:
    """Create the file empty, and write its content later."""
    subprocess.run(["sh", "-c", f"(sleep {PAUSE_SECONDS}; cat '{source}') > '{out}'"], check=True)


def by_dd(source: Path, out: Path) -> None:
    """Reserve the space, then write in two parts, closing the file in between."""
    data = source.read_bytes()
    with open(out, "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, len(data))
    time.sleep(PAUSE_SECONDS)
    with open(out, "r+b") as stream:
        stream.write(data[: len(data) // 2])
    time.sleep(PAUSE_SECONDS)
    with open(out, "r+b") as stream:
        stream.seek(len(data) // 2)
        stream.write(data[len(data) // 2 :])


def by_appending(source: Path, out: Path) -> None:
    """Append in pieces, opening the file for each, as chunked uploads do."""
    data = source.read_bytes()
    for start in range(0, len(data), len(data) // 3):
        with open(out, "ab") as stream:
            stream.write(data[start : start + len(data) // 3])
        time.sleep(PAUSE_SECONDS / 2)


def by_browser(source: Path, out: Path) -> None:
    """Hold the name with an empty file while another file is written, as Firefox does."""
    data = source.read_bytes()
    out.touch()
    part = out.with_name("photo.Xq3bTz1k.jpg.part")
    part.write_bytes(data[: len(data) // 2])
    time.sleep(PAUSE_SECONDS)
    part.write_bytes(data)
    part.replace(out)


@pytest.mark.parametrize("write", [by_shell, by_dd, by_appending, by_browser])
def test_a_file_that_comes_slowly(
    harness: DaemonHarness, source: Path, write: Callable[[Path, Path], None]
) -> None:
    """A file that is empty at first, preallocated, or closed between its pieces is one job."""
    data = source.read_bytes()
    with watching(harness) as daemon:
        write(source, harness.folder / "inbox/swirls/photo.jpg")
        assert_painted_once(harness, daemon, data, "photo.jpg")


KINDS = ("photo.webp", "photo.avif", "photo.bmp", "photo.tif", "photo.png", "photo.gif")


@pytest.mark.parametrize("name", KINDS)
def test_a_picture_of_full_size_whose_second_half_has_not_come(
    harness: DaemonHarness, source: Path, name: str
) -> None:
    """A preallocated file with a missing second half waits, in every format."""
    path = source.with_name(name)
    with Image.open(source) as photo:
        photo.resize((300, 200)).save(path)
    data = path.read_bytes()
    with watching(harness) as daemon:
        with open(harness.folder / "inbox/swirls" / name, "wb", buffering=0) as stream:
            stream.truncate(len(data))
            stream.write(data[: len(data) // 2])
            time.sleep(PAUSE_SECONDS)
            assert states_of_jobs(harness) == []
            stream.write(data[len(data) // 2 :])
        assert_painted_once(harness, daemon, data, name)
