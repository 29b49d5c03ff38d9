"""The clients of the soak test, which upload each photo by another program, and hostile files."""

from __future__ import annotations

import ftplib
import io
import os
import random
import shutil
import struct
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import skimage.data
from PIL import Image

from tests.faults.servers import smbd, vsftpd

MOST_PAUSE_SECONDS = 0.8
"""Much longer than the settling time, much shorter than the grace period of partial uploads."""

Upload = Callable[[Path, str, random.Random], None]
"""Puts a file into the inbox, under a path relative to it."""


class Clients:
    """Programs that upload a file each; those that are not installed here are left out."""

    def __init__(self, inbox: Path, source: Path, folder: Path) -> None:
        """Make the clients; `serving` starts the servers that they need.

        Args:
            inbox: Where the files go.
            source: The folder that all files to be uploaded are in.
            folder: An empty folder for the servers' own files.
        """
        self._inbox = inbox
        self._source = source
        self._folder = folder
        self._http_port = self._ftp_port = self._smb_port = 0
        self._smb_option = ""

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the servers while the context lasts."""
        handler = partial(_Quiet, directory=str(self._source))
        with ExitStack() as stack:
            http = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            self._http_port = http.server_address[1]
            thread = Thread(target=http.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(http.shutdown)
            for name in ("ftp", "smb"):
                (self._folder / name).mkdir()
            if shutil.which("vsftpd", path=_PATH):
                self._ftp_port = stack.enter_context(vsftpd(self._inbox, self._folder / "ftp"))
            if shutil.which("smbd", path=_PATH) and shutil.which("smbclient"):
                server = smbd(self._inbox, self._folder / "smb")
                self._smb_option, self._smb_port = stack.enter_context(server)
            yield

    @property
    def uploads(self) -> list[Upload]:
        """The ways of uploading that this machine has."""
        found: list[Upload] = [self.copy, self.in_pieces, self.under_another_name, self.reserved]
        for program, upload in (
            ("curl", self.curl), ("aria2c", self.aria2), ("rsync", self.rsync), ("tar", self.tar),
        ):  # fmt: skip
            if shutil.which(program):
                found.append(upload)
        if self._ftp_port:
            found.append(self.ftp)
        if self._smb_port:
            found.append(self.smb)
        return found

    def copy(self, source: Path, name: str, rng: random.Random) -> None:
        """Copy at once, with the old date."""
        shutil.copy2(source, self._inbox / name)

    def in_pieces(self, source: Path, name: str, rng: random.Random) -> None:
        """Write three pieces with pauses, holding the file open."""
        data = source.read_bytes()
        with open(self._inbox / name, "wb", buffering=0) as stream:
            for start in range(0, len(data), len(data) // 2):
                stream.write(data[start : start + len(data) // 2])
                time.sleep(rng.uniform(0, MOST_PAUSE_SECONDS))

    def under_another_name(self, source: Path, name: str, rng: random.Random) -> None:
        """Write under a temporary name, then rename."""
        part = self._inbox / f"{name}.part"
        part.write_bytes(source.read_bytes())
        time.sleep(rng.uniform(0, MOST_PAUSE_SECONDS))
        part.rename(self._inbox / name)

    def reserved(self, source: Path, name: str, rng: random.Random) -> None:
        """Reserve the whole size first, close, and write later."""
        data = source.read_bytes()
        path = self._inbox / name
        with open(path, "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, len(data))
        time.sleep(rng.uniform(0, MOST_PAUSE_SECONDS))
        with open(path, "r+b") as stream:
            stream.write(data)

    def curl(self, source: Path, name: str, rng: random.Random) -> None:
        """Download with curl."""
        _run("curl", "-sS", "--noproxy", "*", "-o", self._inbox / name, self._url(source))

    def aria2(self, source: Path, name: str, rng: random.Random) -> None:
        """Download with aria2, which reserves the space and has a control file."""
        path = self._inbox / name
        _run(
            "aria2c", "-q", "--no-conf", "--all-proxy=", "--file-allocation=prealloc",
            "-d", path.parent, "-o", path.name, self._url(source),
        )  # fmt: skip

    def rsync(self, source: Path, name: str, rng: random.Random) -> None:
        """Copy with rsync, sometimes in place."""
        how = ("--inplace",) if rng.random() < 0.5 else ()
        _run("rsync", "--archive", "--whole-file", *how, source, self._inbox / name)

    def tar(self, source: Path, name: str, rng: random.Random) -> None:
        """Unpack from an archive, the content coming in two parts."""
        path = self._inbox / name
        command = ("tar", "-cf", "-", "-C", source.parent, f"--transform=s/.*/{path.name}/")
        packed = subprocess.run([*command, source.name], stdout=subprocess.PIPE, check=True).stdout
        with subprocess.Popen(["tar", "-x", "-C", path.parent], stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(packed[: len(packed) // 2])
            process.stdin.flush()
            time.sleep(rng.uniform(0, MOST_PAUSE_SECONDS))
            process.stdin.write(packed[len(packed) // 2 :])

    def ftp(self, source: Path, name: str, rng: random.Random) -> None:
        """Upload by FTP, with a pause."""
        data = source.read_bytes()
        with ftplib.FTP() as client:
            client.connect("127.0.0.1", self._ftp_port, timeout=60)
            client.login()
            client.cwd(str(Path(name).parent))
            client.voidcmd("TYPE I")
            with client.transfercmd(f"STOR {Path(name).name}") as stream:
                stream.sendall(data[: len(data) // 2])
                time.sleep(rng.uniform(0, MOST_PAUSE_SECONDS))
                stream.sendall(data[len(data) // 2 :])
            client.voidresp()

    def smb(self, source: Path, name: str, rng: random.Random) -> None:
        """Upload by SMB."""
        _run(
            "smbclient", self._smb_option, "-N", "-p", self._smb_port, "//127.0.0.1/inbox",
            "-c", f"put {source} {name}",
        )  # fmt: skip

    def _url(self, source: Path) -> str:
        return f"http://127.0.0.1:{self._http_port}/{source.name}"


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _run(*command: object) -> None:
    subprocess.run(
        [str(part) for part in command], check=True, timeout=120,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip


# Photos and hostile files


def small_photo(number: int, kind: str) -> bytes:
    """Return a small photo that differs for each number, as a file of this kind."""
    photo = (skimage.data.coffee, skimage.data.astronaut, skimage.data.chelsea)[number % 3]
    picture = Image.fromarray(photo()).resize(  # type: ignore[no-untyped-call]
        (64 + number % 17, 60 + number // 17 % 13)
    )
    picture.putpixel((0, 0), (number % 256, number // 256, 99))
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=95)
    return buffer.getvalue() + (b"" if kind != "JPEG" else number.to_bytes(4, "big"))


def _huge_png() -> bytes:
    """Return the beginning of a PNG of 3.6 gigapixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + _checksum(header)


def _checksum(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


REJECTED: dict[str, Callable[[int], bytes]] = {
    "text.jpg": lambda number: b"<!DOCTYPE html>%d" % number,
    "empty.jpg": lambda number: b"",
    "half.jpg": lambda number: small_photo(number, "JPEG")[:900],
    "huge.png": lambda number: _huge_png(),
    "noise.tif": lambda number: b"II*\0" + random.Random(number).randbytes(5000),
}
"""Hostile files that are rejected: their content, by the end of their name."""


def make_untouchable(inbox: Path, number: int) -> list[str]:
    """Make entries of the inbox that are never opened or moved; return their names."""
    names = [f"evil{number}-{kind}.jpg" for kind in ("pipe", "link", "loop", "folder")]
    pipe, link, loop, folder = (inbox / name for name in names)
    with suppress(FileExistsError):
        os.mkfifo(pipe)
        link.symlink_to("/etc/passwd")
        loop.symlink_to(loop.name)
        folder.mkdir()
    return names
