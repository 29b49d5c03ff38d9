"""Real servers on the loopback address: HTTP, SSH, FTP and SMB."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port

PAUSE_SECONDS = 1.5
"""Pause of an upload or download: much longer than the tests' settling time of 0.2 s."""


def need(*programs: str) -> None:
    """Skip the test if a program is not installed."""
    for program in programs:
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
            pytest.skip(f"{program} is not installed")


def program(name: str) -> str:
    """Return the path of an installed program."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert path is not None
    return path


class PausingServer(http.server.ThreadingHTTPServer):
    """Serves one file over HTTP, with a pause in its middle."""

    daemon_threads = True

    def __init__(self, data: bytes, first_pause_seconds: float) -> None:
        pauses = iter([first_pause_seconds])

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                time.sleep(next(pauses, PAUSE_SECONDS))
                with contextlib.suppress(OSError):  # the client may have been killed
                    self.wfile.write(data[len(data) // 2 :])

            def do_HEAD(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@contextmanager
def serving(data: bytes, first_pause_seconds: float = PAUSE_SECONDS) -> Iterator[str]:
    """Serve a file until the context ends; yield its URL."""
    with PausingServer(data, first_pause_seconds) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/photo.jpg"
        server.shutdown()
        thread.join()


@contextmanager
def sshd(folder: Path) -> Iterator[tuple[int, Path]]:
    """Run an sshd on the loopback address; yield its port and the user's private key."""
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    port = free_port()
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPermitRootLogin yes\n"
        "Subsystem sftp internal-sftp\n"
    )
    command = [program("sshd"), "-D", "-e", "-f", str(folder / "sshd_config")]
    with server(command, port):
        yield port, folder / "user"


@contextmanager
def server(command: Sequence[str], port: int) -> Iterator[None]:
    """Run a server until the context ends; wait until it listens."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                assert process.poll() is None, f"another program uses port {port}"
                break
            assert process.poll() is None, f"{command[0]} does not run"
            assert time.monotonic() < deadline, f"{command[0]} does not listen"
            time.sleep(0.05)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@contextmanager
def vsftpd(root: Path, folder: Path) -> Iterator[int]:
    """Serve a folder by FTP, for reading and writing; yield the port."""
    need("vsftpd")
    if os.geteuid() != 0:
        pytest.skip("vsftpd is started as root")
    port = free_port()
    root.mkdir(exist_ok=True)
    root.chmod(0o755)  # vsftpd refuses a root folder that its user can write to
    (folder / "vsftpd.conf").write_text(
        f"listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nbackground=NO\n"
        f"anonymous_enable=YES\nanon_root={root}\nanon_upload_enable=YES\n"
        "write_enable=YES\nanon_umask=022\nno_anon_password=YES\nseccomp_sandbox=NO\n"
    )
    with server([program("vsftpd"), str(folder / "vsftpd.conf")], port):
        yield port


@contextmanager
def smbd(root: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """Share a folder as `inbox` by SMB; yield an option for `smbclient`, and the port."""
    need("smbd", "smbclient")
    if os.geteuid() != 0:
        pytest.skip("smbd is started as root")
    port = free_port()
    for name in ("private", "lock", "state", "cache", "pid", "ncalrpc"):
        (folder / name).mkdir()
    (folder / "smb.conf").write_text(
        "[global]\nserver role = standalone server\nmap to guest = bad user\n"
        f"interfaces = 127.0.0.1/8\nbind interfaces only = yes\nsmb ports = {port}\n"
        f"private dir = {folder}/private\nlock directory = {folder}/lock\n"
        f"state directory = {folder}/state\ncache directory = {folder}/cache\n"
        f"pid directory = {folder}/pid\nncalrpc dir = {folder}/ncalrpc\n"
        f"log file = {folder}/log\nload printers = no\ndisable spoolss = yes\n"
        f"[inbox]\npath = {root}\nguest ok = yes\nread only = no\nforce user = root\n"
    )
    configuration = f"--configfile={folder / 'smb.conf'}"
    with server([program("smbd"), "--foreground", "--no-process-group", configuration], port):
        yield configuration, port
