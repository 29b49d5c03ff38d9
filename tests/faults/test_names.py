"""Hostile file and folder names, and inbox entries that are not regular files."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import pytest

from styled.sidecar import SCHEMA_FILE
from tests.daemon_harness import DaemonHarness
from tests.faults.conftest import QUICK
from tests.faults.conftest import paint_slowly as paint_all_slowly

pytestmark = pytest.mark.timeout(400)

SETTLED = "settle_seconds: 0.2, truncated_grace_seconds: 2"
CLEAR = "\x1b[2J"
RED = f"{CLEAR}\x1b[31mred"

NFC = unicodedata.normalize("NFC", "Amélie")
NFD = unicodedata.normalize("NFD", "Amélie")

# Without a suffix: each is used as the name of a photo and as the name of a folder.
NAMES = (
    "two words", "  spaces  ", "new\nline", "a\ttab", "carriage\rreturn", "-rf", "--help",
    NFC, NFD, os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xff\xfe"), "日本語", "🖼️",
    "a.", "dots...", "~", "~root", "<img src=x onerror=alert(1)>", "'quote'", '"double"', "`tick`",
    "javascript:alert(1)", "C:\\windows\\system32", "..\\..\\up", RED, "\x07bell\x7f\x08",
    "\x9b2J", "%s%n%x", "%2e%2e%2f", "{0}", "{__class__}", "$(touch pwned)", "; touch pwned #",
    "| touch pwned", "$HOME", "*", "?", "[a-z]", "CON", "NUL", "null", "photo\u202egpj",
    "\u2028line", "\ufeffbom", "[bold red]", "a=b&c", "#fragment", "''", "-", "1.0.0", "x" * 200,
)  # fmt: skip
HIDDEN = ("..jpg", "...", ".jpg")
LONGEST = 255


def tree(folder: Path) -> dict[str, str]:
    """Return all paths below a folder: digests of regular files, modes of everything else."""
    entries = {}
    for base, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(base, name)
            if path.is_file() and not path.is_symlink():
                kind = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                kind = f"mode {path.lstat().st_mode:o}"
            entries[str(path.relative_to(folder))] = kind
    return entries


def readable(name: str) -> str:
    """Return a name as it is written in a sidecar."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def lines_of(log: Path) -> list[dict[str, object]]:
    """Return a log's events, after a check that it is ASCII without control characters."""
    raw = log.read_bytes()
    assert all(byte == 10 or 32 <= byte < 127 for byte in raw)
    return [json.loads(line) for line in raw.splitlines()]


def photo_of(harness: DaemonHarness) -> bytes:
    """Return the bytes of a photo that can be painted."""
    path = harness.drop("template.jpg", "coffee", (96, 72))
    data = path.read_bytes()
    path.unlink()
    return data


def numbered(photo: bytes, number: int) -> bytes:
    """Return the photo with trailing bytes, so that each has another digest."""
    return photo + b"number %d" % number


def put(harness: DaemonHarness, name: str, data: bytes) -> None:
    path = harness.folder / "inbox" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_every_name_comes_out_as_it_went_in(harness: DaemonHarness) -> None:
    """Whatever its name, a photo is painted, archived under that name, and escaped in the log."""
    harness.configure(intake=f"{{{SETTLED}, ignore: []}}")
    photo = photo_of(harness)
    long = "n" * (LONGEST - 5)
    two_bytes = "é" * 125 + "x.jpg"
    deep = "/".join(f"level {number}" for number in range(40))
    unchanged = (
        *(f"{name}.jpg" for name in NAMES),
        *("/".join((*NAMES[start : start + 9], "photo.jpg")) for start in range(0, len(NAMES), 9)),
        "a..jpg", "coffee.jpg", "plain.jpg", "rose.jpg", f"{deep}/photo.jpg",
    )  # fmt: skip
    # Dropped names, and the names that each result may have.
    expected = {
        **{name: {name} for name in unchanged},
        "...": {"....jpg"},
        "no suffix": {"no suffix.jpg"},
        "plain.jpg.json": {"plain.jpg.jpg"},
        "rose.jpg.json/photo.jpg": {"rose.jpg-2.json/photo.jpg"},
        "script.sh": {"script.jpg"},
        f"{long}a.jpg": {f"{'n' * 246}.jpg", f"{'n' * 244}-2.jpg"},
        f"{long}b.jpg": {f"{'n' * 246}.jpg", f"{'n' * 244}-2.jpg"},
        two_bytes: {f"{'é' * 123}.jpg"},
    }
    assert len(os.fsencode(two_bytes)) == LONGEST
    outside = tree(harness.folder.parent)
    digests = {}
    for number, name in enumerate(expected):
        data = numbered(photo, number)
        digests[name] = hashlib.sha256(data).hexdigest()
        put(harness, name, data)

    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
        log = daemon.log

    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_bytes()))
    sidecars = {}
    for path in harness.files("outbox"):
        if path.endswith(".json"):
            sidecar = harness.sidecar(f"outbox/{path}")
            schema.validate(sidecar)
            sidecars[sidecar["input"]["sha256"]] = path, sidecar
    assert len(sidecars) == len(expected)
    results = set()
    for name, names in expected.items():
        path, sidecar = sidecars[digests[name]]
        assert path.removesuffix(".json") in {f"swirls/{result}" for result in names}, name
        assert sidecar["input"]["path"] == readable(name)
        assert sidecar["result"]["path"] == readable(path.removesuffix(".json"))
        picture = (harness.folder / "outbox" / path.removesuffix(".json")).read_bytes()
        assert sidecar["result"]["sha256"] == hashlib.sha256(picture).hexdigest()
        results |= {path, path.removesuffix(".json")}
    assert harness.files("outbox") == sorted(results)
    assert tree(harness.folder / "archive") | {
        f"swirls/{n}": d for n, d in digests.items()
    } == tree(harness.folder / "archive")
    assert harness.files("archive") == sorted(f"swirls/{name}" for name in expected)
    assert harness.files("rejected") == []

    events = lines_of(log)
    published = [line for line in events if line["event"] == "job.published"]
    assert sorted(str(line["input"]) for line in published) == sorted(map(readable, expected))
    # If the kernel's inotify queue overflows, watchdog logs it; that does no harm, as events are
    # only hints.
    own_lines = [line for line in events if "queue overflowed" not in str(line.get("message"))]
    assert [line for line in own_lines if line["level"] not in ("info", "debug")] == []
    own = {"inbox", "outbox", "rejected", "archive", "state", "styles", "config.yaml", log.name}
    assert set(os.listdir(harness.folder)) == own
    unexpected = {
        path for path in tree(harness.folder.parent).keys() - outside.keys()
        if path.split("/")[:1] != [harness.folder.name]
    }  # fmt: skip
    assert unexpected == set()
    assert not os.path.lexists("pwned")


def test_what_is_no_file_stays_and_nothing_leads_out_of_the_inbox(
    harness: DaemonHarness, tmp_path: Path
) -> None:
    """Links, pipes, sockets and folders are not opened, even if they replace a job's folder."""
    harness.configure(intake=f"{{{SETTLED}}}")
    inbox, outside = harness.folder / "inbox", tmp_path / "outside"
    photo = photo_of(harness)
    for folder in ("album", "sub", "day"):
        (outside / folder).mkdir(parents=True)
    private = outside / "album" / "private.jpg"
    private.write_bytes(numbered(photo, 1))
    (outside / "linked.jpg").write_bytes(numbered(photo, 2))

    for name in HIDDEN:
        put(harness, name, photo)
    (inbox / "file link.jpg").symlink_to(private)
    (inbox / "inner link.jpg").symlink_to("last.jpg")
    (inbox / "dangling.jpg").symlink_to(outside / "nothing.jpg")
    (inbox / "loop.jpg").symlink_to("loop.jpg")
    (inbox / "folder link").symlink_to(outside / "album")
    (inbox / "upwards").symlink_to("..")
    (inbox / "swirls" / "root").parent.mkdir(exist_ok=True)
    (inbox / "swirls" / "root").symlink_to("/")
    os.mkfifo(inbox / "fifo.jpg")
    (inbox / "x.png").mkdir()
    (inbox / "empty").mkdir()
    # A short path: that of a socket is limited, and the temporary folder's may be too long.
    inbox_fd = os.open(inbox, os.O_RDONLY)
    try:
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"/proc/self/fd/{inbox_fd}/socket.jpg")
    finally:
        os.close(inbox_fd)
    os.link(outside / "linked.jpg", inbox / "hard link.jpg")
    paint_all_slowly(harness, 100)
    # Files outside the inbox with the same content, size and date: while the jobs wait, their
    # folders are replaced by links to these files' folders.
    swapped = {"sub/late.jpg": inbox / "sub", "trip/day/late.jpg": inbox / "trip"}
    for name in swapped:
        put(harness, name, photo)
        twin = outside / Path(*Path(name).parts[-2:])
        twin.write_bytes(photo)
        for path in (twin, inbox / name):
            os.utime(path, ns=(10**18, 10**18))
    staying = sorted(
        name for name in tree(inbox) if name.split("/")[0] not in ("hard link.jpg", "sub", "trip")
    )
    before, date = tree(outside), (outside / "linked.jpg").stat().st_mtime_ns

    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")  # the hard link's: files come before folders
        shutil.rmtree(inbox / "sub")
        (inbox / "sub").symlink_to(outside / "sub")
        shutil.rmtree(inbox / "trip")
        (inbox / "trip").symlink_to(outside)
        harness.drop("last.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: (harness.folder / "outbox/swirls/last.jpg.json").exists())
        daemon.wait_for("job.cancelled", count=2, seconds=30)
        daemon.wait_until(lambda: not (inbox / "last.jpg").exists())
        events = lines_of(daemon.log)
    server.close()

    assert tree(outside) == before
    assert (outside / "linked.jpg").stat().st_mtime_ns == date
    made = {"sub", "trip", "swirls", "coffee", "both"}
    assert sorted({*tree(inbox)} - made) == sorted({*staying} - made)
    assert (inbox / "sub").is_symlink()
    assert (inbox / "trip").is_symlink()
    assert harness.files("outbox") == sorted(
        f"swirls/{name}{end}" for name in ("hard link.jpg", "last.jpg") for end in ("", ".json")
    )
    assert harness.files("archive") == ["swirls/hard link.jpg", "swirls/last.jpg"]
    assert harness.files("rejected") == []
    cancelled = [line["input"] for line in events if line["event"] == "job.cancelled"]
    assert sorted(map(str, cancelled)) == sorted(swapped)


def paint_slowly(harness: DaemonHarness) -> None:
    """Make jobs of the style `coffee` take seconds, so that files can be changed meanwhile."""
    text = harness.config.read_text()
    assert text.count("overrides: *small") == 1
    slow = f"overrides: {{size: {{long_edge: 48}}, {QUICK.replace('steps: 2', 'steps: 25')}}}"
    harness.config.write_text(text.replace("overrides: *small", slow))
    harness.take_time(0.1)


def set_date(path: Path) -> None:
    """Set a fixed date on a file, or on a link itself."""
    os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)


def test_a_folder_that_is_replaced_during_the_painting_leads_nowhere(
    harness: DaemonHarness, tmp_path: Path
) -> None:
    """If a folder is replaced by a link during a job, the file behind the link is not moved."""
    paint_slowly(harness)
    photo = photo_of(harness)
    folder, outside = harness.folder / "inbox/coffee/sub", tmp_path / "outside"
    for path in (folder / "slow.jpg", outside / "slow.jpg"):
        path.parent.mkdir(parents=True)
        path.write_bytes(photo)
        set_date(path)
    before = tree(outside)
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        folder.rename(tmp_path / "taken away")
        folder.symlink_to(outside)
        assert daemon.events("job.published") == []
        put(harness, "last.jpg", photo)
        daemon.wait_until(lambda: "swirls/last.jpg" in harness.files("archive"))
    assert harness.files("archive") == ["swirls/last.jpg"]
    assert tree(outside) == before
    assert folder.is_symlink()
    assert harness.sidecar("outbox/coffee/sub/slow.jpg.json")["input"]["changed"] is True


def test_a_device_is_left_alone(harness: DaemonHarness) -> None:
    """A device node in the inbox is neither opened nor moved; photos are painted."""
    if os.geteuid() != 0:
        pytest.skip("making a device node needs root")
    node = harness.folder / "inbox" / "device.jpg"
    node.parent.mkdir()
    try:
        os.mknod(node, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: reading never ends
    except PermissionError:
        pytest.skip("this container makes no device nodes")
    harness.drop("photo.jpg", "coffee", (96, 72))
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("archive") == ["swirls/photo.jpg"])
    assert [path.name for path in (harness.folder / "inbox").iterdir() if not path.is_dir()] == [
        "device.jpg"
    ]
    assert harness.files("rejected") == []


SHOWN = (f"{RED}-painted.jpg", f"{RED} refused.jpg", "photo\u202egpj.jpg", "new\nline.jpg")


def on_terminal(command: Sequence[str]) -> bytes:
    """Run a command on a new pseudo-terminal; return its output."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "400", "LINES": "50", "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    watchdog = threading.Timer(120, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    output = b""
    try:
        # Reading fails with EIO once the other end is closed by all processes.
        while part := os.read(master, 65536):
            output += part
    except OSError:
        pass
    finally:
        process.wait()
        watchdog.cancel()
        os.close(master)
    assert process.returncode in (0, 1)
    return output


def test_names_never_reach_a_terminal_unescaped(harness: DaemonHarness) -> None:
    """Log and status escape control characters of hostile names."""
    photo = photo_of(harness)
    for name in SHOWN:
        put(harness, name, b"no picture" if "refused" in name else photo)
    log = on_terminal(harness.command("once"))
    status = on_terminal(harness.command("status"))
    assert log.count(b"job.claimed") == len(SHOWN)
    for output in (log, status):
        for raw in (CLEAR, "\x1b[31mred", "\u202e", "new\r\nline", "new\nline"):
            assert raw.encode() not in output
        unquoted = output.replace(rb"\\", b"\\")
        for escaped in (
            rb"\x1b[2J\x1b[31mred-painted.jpg",
            rb"\x1b[2J\x1b[31mred refused.jpg",
            rb"photo\u202egpj.jpg",
            rb"new\nline.jpg",
        ):
            assert escaped in unquoted
    # The log's own colours are still written to a terminal.
    assert b"\x1b[" in log
    assert sorted(harness.files("rejected")) == sorted(
        [f"swirls/{SHOWN[1]}", f"swirls/{SHOWN[1]}.json"]
    )


# Regression tests: each was a bug when it was written; the first two stopped the service for all
# photos.


def test_a_path_that_only_just_fits_does_not_hold_up_others(harness: DaemonHarness) -> None:
    """A photo whose result path would exceed PATH_MAX does not hold up other photos."""
    photo = photo_of(harness)
    inbox = str(harness.folder / "inbox")
    longest = os.pathconf("/", "PC_PATH_MAX") - 1 - len("/a.jpg")
    path = inbox
    while longest - len(path) > 210:
        path += "/" + "d" * 200
    path += "/" + "e" * (longest - len(path) - 1)
    os.makedirs(path)
    Path(path, "a.jpg").write_bytes(photo)
    with harness.running() as daemon:
        daemon.wait_for("job.claimed")
        harness.drop("good.jpg", "coffee", (96, 72))
        daemon.wait_until(
            lambda: (harness.folder / "outbox/swirls/good.jpg.json").exists(), seconds=60
        )


@pytest.mark.parametrize("mode", ["auto", "polling"])
def test_a_very_deep_tree_does_not_hold_up_others(harness: DaemonHarness, mode: str) -> None:
    """A tree of 1200 nested folders does not hold up other photos."""
    harness.configure(
        intake=f"{{{SETTLED}, mode: {mode}, rescan_seconds: 2}}", queue="{max_attempts: 1}"
    )
    photo = photo_of(harness)
    folder = os.open(harness.folder / "inbox", os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("a", dir_fd=folder)
        inner = os.open("a", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    file = os.open("p.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    os.write(file, photo)
    os.close(file)
    os.close(folder)
    try:
        with harness.running() as daemon:
            daemon.wait_for("daemon.started")
            harness.drop("good.jpg", "coffee", (96, 72))
            daemon.wait_until(
                lambda: (harness.folder / "outbox/swirls/good.jpg.json").exists(), seconds=60
            )
    finally:
        # shutil.rmtree fails at a depth of about a thousand.
        subprocess.run(["rm", "-rf", "--", str(harness.folder)], check=True)


def test_a_link_in_the_place_of_a_waiting_photo_stays(
    harness: DaemonHarness, tmp_path: Path
) -> None:
    """A link that replaces a waiting photo is not moved, even with the same size and date."""
    paint_slowly(harness)
    photo = photo_of(harness)
    private = tmp_path / "private.jpg"
    private.write_bytes(photo)
    late = harness.folder / "inbox/swirls/late.jpg"
    put(harness, "coffee/slow.jpg", photo)
    put(harness, "swirls/late.jpg", photo)
    set_date(late)
    with harness.running() as daemon:
        daemon.wait_for("job.painting_started")
        late.unlink()
        late.symlink_to(str(private).rjust(len(photo), "/"))
        set_date(late)
        assert late.lstat().st_size == len(photo)
        assert daemon.events("job.published") == []
        put(harness, "last.jpg", photo)
        daemon.wait_until(lambda: (harness.folder / "outbox/swirls/last.jpg.json").exists())
    assert late.is_symlink()
    assert harness.files("rejected") == []
    assert private.read_bytes() == photo
