"""Names that strangers choose, and things in the inbox that are no files."""

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
from tests.faults.conftest import QUICK
from tests.faults.conftest import paint_slowly as paint_all_slowly
from tests.studio import Studio

pytestmark = pytest.mark.timeout(400)

SETTLED = "settle_seconds: 0.2, truncated_grace_seconds: 2"
CLEAR = "\x1b[2J"
RED = f"{CLEAR}\x1b[31mred"

NFC = unicodedata.normalize("NFC", "Amélie")
NFD = unicodedata.normalize("NFD", "Amélie")

# Without a suffix, so that each is tried as the name of a photo and as that of a folder.
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
    """Return what lies below a folder: for each file its digest, else what it is."""
    found = {}
    for base, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(base, name)
            if path.is_file() and not path.is_symlink():
                kind = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                kind = f"mode {path.lstat().st_mode:o}"
            found[str(path.relative_to(folder))] = kind
    return found


def readable(name: str) -> str:
    """Return a name as a sidecar has it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def lines_of(log: Path) -> list[dict[str, object]]:
    """Return a log's events, having made sure that it is plain JSON lines."""
    raw = log.read_bytes()
    assert all(byte == 10 or 32 <= byte < 127 for byte in raw)
    return [json.loads(line) for line in raw.splitlines()]


def photo_of(studio: Studio) -> bytes:
    """Return the bytes of a photo that can be painted."""
    path = studio.drop("template.jpg", "coffee", (96, 72))
    data = path.read_bytes()
    path.unlink()
    return data


def numbered(photo: bytes, number: int) -> bytes:
    """Return the photo with other bytes behind its end, so that each can be told apart."""
    return photo + b"number %d" % number


def put(studio: Studio, name: str, data: bytes) -> None:
    path = studio.folder / "inbox" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_every_name_comes_out_as_it_went_in(studio: Studio) -> None:
    """Whatever a photo or its folder is called, its painting, its original and its log agree."""
    studio.configure(intake=f"{{{SETTLED}, ignore: []}}")
    photo = photo_of(studio)
    long = "n" * (LONGEST - 5)
    two_bytes = "é" * 125 + "x.jpg"
    deep = "/".join(f"level {number}" for number in range(40))
    as_they_are = (
        *(f"{name}.jpg" for name in NAMES),
        *("/".join((*NAMES[start : start + 9], "photo.jpg")) for start in range(0, len(NAMES), 9)),
        "a..jpg", "coffee.jpg", "plain.jpg", "rose.jpg", f"{deep}/photo.jpg",
    )  # fmt: skip
    # What is dropped -> the names that its painting may have.
    wanted = {
        **{name: {name} for name in as_they_are},
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
    outside = tree(studio.folder.parent)
    digests = {}
    for number, name in enumerate(wanted):
        data = numbered(photo, number)
        digests[name] = hashlib.sha256(data).hexdigest()
        put(studio, name, data)

    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
        log = daemon.log

    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_bytes()))
    sidecars = {}
    for path in studio.files("outbox"):
        if path.endswith(".json"):
            facts = studio.sidecar(f"outbox/{path}")
            schema.validate(facts)
            sidecars[facts["input"]["sha256"]] = path, facts
    assert len(sidecars) == len(wanted)
    results = set()
    for name, names in wanted.items():
        path, facts = sidecars[digests[name]]
        assert path.removesuffix(".json") in {f"swirls/{result}" for result in names}, name
        assert facts["input"]["path"] == readable(name)
        assert facts["result"]["path"] == readable(path.removesuffix(".json"))
        picture = (studio.folder / "outbox" / path.removesuffix(".json")).read_bytes()
        assert facts["result"]["sha256"] == hashlib.sha256(picture).hexdigest()
        results |= {path, path.removesuffix(".json")}
    assert studio.files("outbox") == sorted(results)
    assert tree(studio.folder / "archive") | {f"swirls/{n}": d for n, d in digests.items()} == tree(
        studio.folder / "archive"
    )
    assert studio.files("archive") == sorted(f"swirls/{name}" for name in wanted)
    assert studio.files("rejected") == []

    events = lines_of(log)
    published = [line for line in events if line["event"] == "job.published"]
    assert sorted(str(line["input"]) for line in published) == sorted(map(readable, wanted))
    # Events are hints: where the kernel's queue of them overflows, watchdog says so and no more.
    own_lines = [line for line in events if "queue overflowed" not in str(line.get("message"))]
    assert [line for line in own_lines if line["level"] not in ("info", "debug")] == []
    own = {"inbox", "outbox", "rejected", "archive", "state", "styles", "config.yaml", log.name}
    assert set(os.listdir(studio.folder)) == own
    strangers = {
        path for path in tree(studio.folder.parent).keys() - outside.keys()
        if path.split("/")[:1] != [studio.folder.name]
    }  # fmt: skip
    assert strangers == set()
    assert not os.path.lexists("pwned")


def test_what_is_no_file_stays_and_nothing_leads_out_of_the_inbox(
    studio: Studio, tmp_path: Path
) -> None:
    """Links, pipes, sockets, devices and folders stay unopened, also those put there too late."""
    studio.configure(intake=f"{{{SETTLED}}}")
    inbox, outside = studio.folder / "inbox", tmp_path / "outside"
    photo = photo_of(studio)
    for folder in ("album", "sub", "day"):
        (outside / folder).mkdir(parents=True)
    private = outside / "album" / "private.jpg"
    private.write_bytes(numbered(photo, 1))
    (outside / "linked.jpg").write_bytes(numbered(photo, 2))

    for name in HIDDEN:
        put(studio, name, photo)
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
    # The path of a socket is short, whatever the temporary folder.
    here = os.open(inbox, os.O_RDONLY)
    try:
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"/proc/self/fd/{here}/socket.jpg")
    finally:
        os.close(here)
    os.link(outside / "linked.jpg", inbox / "hard link.jpg")
    paint_all_slowly(studio, 100)
    # Of the same content, size and date outside and inside: while the job waits for its turn,
    # its folder is replaced.
    swapped = {"sub/late.jpg": inbox / "sub", "trip/day/late.jpg": inbox / "trip"}
    for name in swapped:
        put(studio, name, photo)
        twin = outside / Path(*Path(name).parts[-2:])
        twin.write_bytes(photo)
        for path in (twin, inbox / name):
            os.utime(path, ns=(10**18, 10**18))
    staying = sorted(
        name for name in tree(inbox) if name.split("/")[0] not in ("hard link.jpg", "sub", "trip")
    )
    before, date = tree(outside), (outside / "linked.jpg").stat().st_mtime_ns

    with studio.running() as daemon:
        daemon.wait_for("job.started")  # the hard link's: files come before folders
        shutil.rmtree(inbox / "sub")
        (inbox / "sub").symlink_to(outside / "sub")
        shutil.rmtree(inbox / "trip")
        (inbox / "trip").symlink_to(outside)
        studio.drop("last.jpg", "coffee", (96, 72))
        daemon.wait_until(lambda: (studio.folder / "outbox/swirls/last.jpg.json").exists())
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
    assert studio.files("outbox") == sorted(
        f"swirls/{name}{end}" for name in ("hard link.jpg", "last.jpg") for end in ("", ".json")
    )
    assert studio.files("archive") == ["swirls/hard link.jpg", "swirls/last.jpg"]
    assert studio.files("rejected") == []
    cancelled = [line["input"] for line in events if line["event"] == "job.cancelled"]
    assert sorted(map(str, cancelled)) == sorted(swapped)


def paint_slowly(studio: Studio) -> None:
    """Make the style `coffee` take seconds, so that there is time for doing harm."""
    text = studio.config.read_text()
    assert text.count("overrides: *small") == 1
    slow = f"overrides: {{size: {{long_edge: 48}}, {QUICK.replace('steps: 2', 'steps: 25')}}}"
    studio.config.write_text(text.replace("overrides: *small", slow))
    studio.take_time(0.1)


def dated(path: Path) -> None:
    """Give a file, or a link itself, a date that others have too."""
    os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)


def test_a_folder_that_is_replaced_during_the_painting_leads_nowhere(
    studio: Studio, tmp_path: Path
) -> None:
    """The painting of what was read is delivered, and its twin outside the inbox stays there."""
    paint_slowly(studio)
    photo = photo_of(studio)
    folder, outside = studio.folder / "inbox/coffee/sub", tmp_path / "outside"
    for path in (folder / "slow.jpg", outside / "slow.jpg"):
        path.parent.mkdir(parents=True)
        path.write_bytes(photo)
        dated(path)
    before = tree(outside)
    with studio.running() as daemon:
        daemon.wait_for("job.started")
        folder.rename(tmp_path / "taken away")
        folder.symlink_to(outside)
        assert daemon.events("job.published") == []
        put(studio, "last.jpg", photo)
        daemon.wait_until(lambda: "swirls/last.jpg" in studio.files("archive"))
    assert studio.files("archive") == ["swirls/last.jpg"]
    assert tree(outside) == before
    assert folder.is_symlink()
    assert studio.sidecar("outbox/coffee/sub/slow.jpg.json")["input"]["changed"] is True


def test_a_device_is_left_alone(studio: Studio) -> None:
    """A device node in the inbox is neither opened nor moved, and photos are painted."""
    if os.geteuid() != 0:
        pytest.skip("making a device node needs root")
    node = studio.folder / "inbox" / "device.jpg"
    node.parent.mkdir()
    try:
        os.mknod(node, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: reading never ends
    except PermissionError:
        pytest.skip("this container makes no device nodes")
    studio.drop("photo.jpg", "coffee", (96, 72))
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("archive") == ["swirls/photo.jpg"])
    assert [path.name for path in (studio.folder / "inbox").iterdir() if not path.is_dir()] == [
        "device.jpg"
    ]
    assert studio.files("rejected") == []


SHOWN = (f"{RED}-painted.jpg", f"{RED} refused.jpg", "photo\u202egpj.jpg", "new\nline.jpg")


def on_terminal(command: Sequence[str]) -> bytes:
    """Run a command on a terminal of its own; return all that it wrote there."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "400", "LINES": "50", "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    watchdog = threading.Timer(120, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    written = b""
    try:
        # Reading fails with EIO once nobody has the other end open.
        while part := os.read(master, 65536):
            written += part
    except OSError:
        pass
    finally:
        process.wait()
        watchdog.cancel()
        os.close(master)
    assert process.returncode in (0, 1)
    return written


def test_a_terminal_is_never_told_what_a_name_says(studio: Studio) -> None:
    """The log and the status show a hostile name escaped, in one line."""
    photo = photo_of(studio)
    for name in SHOWN:
        put(studio, name, b"no picture" if "refused" in name else photo)
    log = on_terminal(studio.command("once"))
    status = on_terminal(studio.command("status"))
    assert log.count(b"job.claimed") == len(SHOWN)
    for written in (log, status):
        for raw in (CLEAR, "\x1b[31mred", "\u202e", "new\r\nline", "new\nline"):
            assert raw.encode() not in written
        unquoted = written.replace(rb"\\", b"\\")
        for escaped in (
            rb"\x1b[2J\x1b[31mred-painted.jpg",
            rb"\x1b[2J\x1b[31mred refused.jpg",
            rb"photo\u202egpj.jpg",
            rb"new\nline.jpg",
        ):
            assert escaped in unquoted
    # A terminal is still given colours of our own.
    assert b"\x1b[" in log
    assert sorted(studio.files("rejected")) == sorted(
        [f"swirls/{SHOWN[1]}", f"swirls/{SHOWN[1]}.json"]
    )


# FOUND: each of the following was a hole when it was written; the first two stopped the
# service for all photos.


def test_a_path_that_only_just_fits_does_not_hold_up_others(studio: Studio) -> None:
    """A photo whose painting can have no path of its own leaves the queue to the next one."""
    photo = photo_of(studio)
    inbox = str(studio.folder / "inbox")
    longest = os.pathconf("/", "PC_PATH_MAX") - 1 - len("/a.jpg")
    path = inbox
    while longest - len(path) > 210:
        path += "/" + "d" * 200
    path += "/" + "e" * (longest - len(path) - 1)
    os.makedirs(path)
    Path(path, "a.jpg").write_bytes(photo)
    with studio.running() as daemon:
        daemon.wait_for("job.claimed")
        studio.drop("good.jpg", "coffee", (96, 72))
        daemon.wait_until(
            lambda: (studio.folder / "outbox/swirls/good.jpg.json").exists(), seconds=20
        )


@pytest.mark.parametrize("mode", ["auto", "polling"])
def test_a_very_deep_tree_does_not_hold_up_others(studio: Studio, mode: str) -> None:
    """Twelve hundred folders within each other are no reason to stop painting."""
    studio.configure(
        intake=f"{{{SETTLED}, mode: {mode}, rescan_seconds: 2}}", queue="{max_attempts: 1}"
    )
    photo = photo_of(studio)
    folder = os.open(studio.folder / "inbox", os.O_RDONLY)
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
        with studio.running() as daemon:
            daemon.wait_for("daemon.started")
            studio.drop("good.jpg", "coffee", (96, 72))
            daemon.wait_until(
                lambda: (studio.folder / "outbox/swirls/good.jpg.json").exists(), seconds=20
            )
    finally:
        # Python's own way of deleting a tree goes no deeper than a thousand.
        subprocess.run(["rm", "-rf", "--", str(studio.folder)], check=True)


def test_a_link_in_the_place_of_a_waiting_photo_stays(studio: Studio, tmp_path: Path) -> None:
    """A link is not moved, even one that has the size and the date of the photo before it."""
    paint_slowly(studio)
    photo = photo_of(studio)
    private = tmp_path / "private.jpg"
    private.write_bytes(photo)
    late = studio.folder / "inbox/swirls/late.jpg"
    put(studio, "coffee/slow.jpg", photo)
    put(studio, "swirls/late.jpg", photo)
    dated(late)
    with studio.running() as daemon:
        daemon.wait_for("job.started")
        late.unlink()
        late.symlink_to(str(private).rjust(len(photo), "/"))
        dated(late)
        assert late.lstat().st_size == len(photo)
        assert daemon.events("job.published") == []
        put(studio, "last.jpg", photo)
        daemon.wait_until(lambda: (studio.folder / "outbox/swirls/last.jpg.json").exists())
    assert late.is_symlink()
    assert studio.files("rejected") == []
    assert private.read_bytes() == photo
