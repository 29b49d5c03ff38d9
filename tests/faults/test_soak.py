"""A day of a busy service, compressed into an hour: many clients, and a fault every few minutes.

Photos come at random times from real programs, some of them hostile. In the first half the daemon
is killed and stopped as well; in the second half one process runs throughout, so that its memory,
open files and threads can be followed. At the end each photo has been painted once in each of its
styles, nothing else has been, and nothing is left over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from styled.app import CLUSTER_IO_THREADS
from styled.delivery.page import records_in
from styled.files import TEMPORARY_PREFIX
from tests.cluster.conftest import CLUSTER
from tests.cluster.ray_cluster import processes_below
from tests.daemon_harness import Daemon, DaemonHarness, make_harness
from tests.faults.conftest import FAST
from tests.faults.disks import fill, needs_root
from tests.faults.output_checker import OutputChecker
from tests.faults.soak_clients import REJECTED, Clients, make_untouchable, small_photo
from tests.faults.test_clocks import SHIM, sha256

MINUTES = float(os.environ.get("STYLED_TESTS_SOAK_MINUTES", "60"))
PHOTOS = round(MINUTES * 2000 / 60)
HOURS = 24
"""Parts of the run; each has its fault and its hostile files."""

DISK = "300m"
MB = 1_000_000

FOLDERS = {
    "": ("swirls",), "swirls": ("swirls",), "coffee/trip": ("coffee",), "waves": ("waves",),
    "all": ("swirls", "coffee", "waves"),
}  # fmt: skip
"""Styles by the inbox folder that a photo is dropped into."""

KINDS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF"}

ODD_NAMES = ("-rf {}", "{} 'quoted' \"name\"", "new\nline {}", "{} \N{ARTIST PALETTE}", "{{}} % {}")

CONFIGURATION = FAST.replace(
    "folders:\n  both: [swirls, coffee]",
    "  waves:\n    image: styles/waves.png\n    recipe: udacity\n    overrides: *small\n"
    "folders:\n  all: [swirls, coffee, waves]",
)

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(round(MINUTES * 120 + 900)), needs_root]


@pytest.mark.parametrize("engines", [1, 2])
def test_a_day_in_an_hour(weights: Path, engines: int) -> None:
    """Nothing is lost or doubled, and the daemon's memory, files, threads and log stay bounded."""
    with Day.set_up(weights, engines) as day:
        with OutputChecker(day.harness, "outbox", "archive") as checker:
            day.go_by()
        print(day.summary(), f"{checker.seen} files checked", sep="\n")
        day.assert_nothing_was_lost_or_doubled()
        day.assert_all_is_bounded()


@dataclass(frozen=True)
class Sample:
    """What the daemon and its engines have in use.

    Attributes:
        seconds: The time since the start of the day.
        pid: The process: the daemon, or one below it, such as an engine of a cluster.
        resident_bytes: The process's resident memory.
        files: Its open file descriptors.
        threads: Its threads.
    """

    seconds: float
    pid: int
    resident_bytes: int
    files: int
    threads: int


class Day:
    """The service, its clients and its faults."""

    def __init__(self, harness: DaemonHarness, clients: Clients, source: Path, seed: int) -> None:
        """Prepare a day; see `set_up`."""
        self.harness = harness
        self._clients = clients
        self._source = source
        self._rng = random.Random(seed)
        self._start = time.monotonic()
        self._photos: dict[str, bytes] = {}
        self._rejected: dict[str, bytes] = {}
        self._untouchable: list[str] = []
        self._kills = 0
        self._faults: Counter[str] = Counter()
        self._samples: list[Sample] = []
        self._uploading = threading.Semaphore(4)
        self._daemon: Daemon | None = None
        self._running = ExitStack()

    @classmethod
    @contextmanager
    def set_up(cls, weights: Path, engines: int) -> Iterator[Day]:
        """Make the working folder, whose inbox and outbox are disks, and start the servers."""
        base = Path(tempfile.mkdtemp(prefix="styled-soak-"))
        base.chmod(0o755)
        configuration = CONFIGURATION.replace("WEIGHTS", str(weights))
        if engines > 1:
            configuration += CLUSTER.format(address="local", engines=engines)
        harness = make_harness(base / "harness", configuration)
        harness.configure(
            intake="{settle_seconds: 0.3, truncated_grace_seconds: 60}",
            queue="{max_attempts: 10, checkpoint_seconds: 1}",
        )
        styles = harness.folder / "styles"
        shutil.copy(styles / "swirls.png", styles / "waves.png")
        source, shim = base / "source", harness.folder / "shim"
        shim.mkdir()
        (shim / "sitecustomize.py").write_text(SHIM)
        (shim / "offset").write_text("0")
        for folder in (source, base / "servers"):
            folder.mkdir()
        clients = Clients(harness.folder / "inbox", source, base / "servers")
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, base, ignore_errors=True)
            disks = base / "disks"
            disks.mkdir()
            _mount("-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disks))
            stack.callback(subprocess.run, ["umount", "-l", str(disks)], check=True)
            for name in ("inbox", "outbox"):
                (disks / name).mkdir()
                (harness.folder / name).mkdir()
                _mount("--bind", str(disks / name), str(harness.folder / name))
                unmount = ["umount", "-l", str(harness.folder / name)]
                stack.callback(subprocess.run, unmount, check=False)
            for name in FOLDERS:
                (harness.folder / "inbox" / name).mkdir(parents=True, exist_ok=True)
                if name:
                    (harness.folder / "inbox" / name).chmod(0o777)
            stack.enter_context(clients.serving())
            day = cls(harness, clients, source, engines)
            stack.callback(day.stop)
            yield day

    # The course of the day

    def go_by(self) -> None:
        """Let all photos arrive and all faults happen; wait until all work is done; stop."""
        done = threading.Event()
        self.start()
        with ThreadPoolExecutor(6) as pool:
            pool.submit(self._sample_until, done)
            arrivals = pool.submit(self._let_photos_arrive, pool)
            try:
                for hour in range(HOURS):
                    self._let_an_hour_pass(hour, arrivals)
                arrivals.result()
                self._wait_until_all_is_done()
            finally:
                done.set()
        self.stop()

    def _let_an_hour_pass(self, hour: int, arrivals: Future[None]) -> None:
        end = self._start + (hour + 1) * MINUTES * 60 / HOURS
        self._drop_hostile_files(hour)
        fault = self._fault_of(hour)
        time.sleep(max(0.0, self._rng.uniform(0.1, 0.5) * (end - time.monotonic())))
        print(f"{time.monotonic() - self._start:6.0f} s  {fault.__name__}", flush=True)
        fault()
        self._faults[fault.__name__] += 1
        while time.monotonic() < end:
            assert self.daemon.process.poll() is None, self.daemon.log.read_text()[-20_000:]
            if arrivals.done():
                arrivals.result()
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))

    def _fault_of(self, hour: int) -> Callable[[], None]:
        gentle = [
            self.fill_the_disk, self.unmount_the_outbox, self.unmount_the_inbox,
            self.reload, self.reload_nonsense, self.let_the_clock_jump,
        ]  # fmt: skip
        if hour >= HOURS // 2:
            return gentle[hour % len(gentle)]
        deadly = [self.kill, self.kill, self.restart]
        return deadly[hour // 2 % len(deadly)] if hour % 2 == 0 else gentle[hour // 2]

    def _let_photos_arrive(self, pool: ThreadPoolExecutor) -> None:
        """Start an upload at random times until the day ends, as clients of a network do."""
        uploads: list[Future[None]] = []
        end = self._start + MINUTES * 60
        while len(self._photos) < PHOTOS:
            number = len(self._photos)
            left = PHOTOS - number
            time.sleep(min(10.0, self._rng.expovariate(left / max(1.0, end - time.monotonic()))))
            suffix = self._rng.choice(list(KINDS))
            name = f"IMG_{number:05}"
            upload = self._rng.choice(self._clients.uploads)
            if self._rng.random() < 0.05:
                name, upload = self._rng.choice(ODD_NAMES).format(name), self._clients.copy
            folder = self._rng.choice(list(FOLDERS))
            if upload in (self._clients.ftp, self._clients.smb):
                folder = folder or "swirls"  # vsftpd lets nobody write into the top folder
            destination = f"{folder}/{name}{suffix}".lstrip("/")
            source = self._source / f"{number}{suffix}"
            source.write_bytes(small_photo(number, KINDS[suffix]))
            self._photos[destination] = source.read_bytes()
            rng = random.Random(number)
            uploads.append(pool.submit(self._upload, upload, source, destination, rng))
        for upload_ended in uploads:
            upload_ended.result()

    def _upload(
        self, upload: Callable[[Path, str, random.Random], None], source: Path, destination: str,
        rng: random.Random,
    ) -> None:  # fmt: skip
        with self._uploading:
            upload(source, destination, rng)
        source.unlink()

    def _drop_hostile_files(self, hour: int) -> None:
        inbox = self.harness.folder / "inbox"
        for number, (kind, content) in enumerate(REJECTED.items()):
            name = f"{('', 'coffee/trip/')[number % 2]}evil{hour}-{kind}"
            self._rejected[name] = content(hour)
            (inbox / name).write_bytes(self._rejected[name])
        if hour % 6 == 0:
            self._untouchable += make_untouchable(inbox, hour)

    def _wait_until_all_is_done(self) -> None:
        journal = self.harness.folder / "state/journal.sqlite3"
        query = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"

        def is_done() -> bool:
            with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as opened:
                if opened.execute(query).fetchone() != (0,):
                    return False
            return self._left_in_the_inbox() == []

        self.daemon.wait_until(is_done, 600)

    def _left_in_the_inbox(self) -> list[str]:
        return [name for name in self.harness.files("inbox") if name not in self._untouchable]

    # The daemon

    @property
    def daemon(self) -> Daemon:
        """The running daemon."""
        assert self._daemon is not None
        return self._daemon

    def start(self) -> None:
        """Start the daemon as a user does, with a clock that can jump."""
        path = f"PYTHONPATH={self.harness.folder / 'shim'}:{':'.join(sys.path)}"
        within = ["env", path, "OMP_NUM_THREADS=1"]
        self._daemon = self._running.enter_context(self.harness.running_from_scratch(within))
        self.daemon.wait_for("daemon.started")

    def stop(self) -> None:
        """Stop the daemon."""
        self._running.close()

    # Faults

    def kill(self) -> None:
        """Kill the daemon, and start it again."""
        self.daemon.kill()
        self._kills += 1
        self.start()

    def restart(self) -> None:
        """Stop the daemon, and start it again."""
        self.stop()
        assert self.daemon.process.poll() == 0
        self.start()

    def fill_the_disk(self) -> None:
        """Leave no room for inbox and outbox for a while, as no client is uploading."""
        with self._no_uploads():
            ballast = fill(self.harness.folder / "outbox")
            time.sleep(8)
            ballast.unlink()

    def unmount_the_outbox(self) -> None:
        """Take the outbox's disk away for a while."""
        self._unmount("outbox")

    def unmount_the_inbox(self) -> None:
        """Take the inbox's disk away for a while, as no client is uploading."""
        with self._no_uploads():
            self._unmount("inbox")

    def _unmount(self, name: str) -> None:
        folder = self.harness.folder / name
        disk = self.harness.folder.parent / "disks" / name
        subprocess.run(["umount", "-l", str(folder)], check=True)
        time.sleep(8)
        hollow = [path for path in folder.rglob("*") if path.is_file()]
        _mount("--bind", str(disk), str(folder))
        assert hollow == []

    @contextmanager
    def _no_uploads(self) -> Iterator[None]:
        for _ in range(4):
            self._uploading.acquire()
        try:
            yield
        finally:
            self._uploading.release(4)

    def reload(self) -> None:
        """Change a recipe, and reload."""
        text = self.harness.config.read_text()
        old, new = ("steps: 2", "steps: 3") if "steps: 2" in text else ("steps: 3", "steps: 2")
        self._reload(text.replace(old, new), "config.reloaded")

    def reload_nonsense(self) -> None:
        """Reload a broken configuration, then repair it without a reload."""
        text = self.harness.config.read_text()
        self._reload(text.replace("styles:", "styles: [", 1), "config.rejected")
        self.harness.config.write_text(text)

    def _reload(self, text: str, event: str) -> None:
        before = len(self.daemon.events(event))
        self.harness.config.write_text(text)
        self.daemon.process.send_signal(signal.SIGHUP)
        self.daemon.wait_for(event, before + 1)

    def let_the_clock_jump(self) -> None:
        """Let the daemon's time of day jump by a day, forwards and, some seconds later, back."""
        for offset in (86_400, -3_600, 0):
            offsets = self.harness.folder / "shim"
            (offsets / "offset.new").write_text(str(offset))
            (offsets / "offset.new").rename(offsets / "offset")
            time.sleep(5)

    # Measurements

    def _sample_until(self, done: threading.Event) -> None:
        while not done.wait(2):
            daemon = self.daemon.process.pid
            below = [
                pid for pid, line in processes_below(daemon)
                if "styled run" in line or (line.startswith("ray::") and "Agent" not in line)
            ]  # fmt: skip
            for pid in (daemon, *below):
                with suppress(OSError, IndexError):
                    self._samples.append(self._sample(pid))

    def _sample(self, pid: int) -> Sample:
        process = Path(f"/proc/{pid}")
        pages = int((process / "statm").read_text().split()[1])
        return Sample(
            time.monotonic() - self._start, pid, pages * os.sysconf("SC_PAGE_SIZE"),
            len(os.listdir(process / "fd")), len(os.listdir(process / "task")),
        )  # fmt: skip

    def _quarters(self) -> dict[int, list[list[Sample]]]:
        """Return the samples of the second half of the day, in four parts, by process.

        Only of processes that were there all the time; the daemon itself must have been.
        """
        half = MINUTES * 30
        by_pid: dict[int, list[Sample]] = {}
        for one in self._samples:
            if one.seconds > half:
                by_pid.setdefault(one.pid, []).append(one)
        most = len(by_pid[self.daemon.process.pid])
        assert most > 10
        return {
            pid: [samples[part * most // 4 : (part + 1) * most // 4] for part in range(4)]
            for pid, samples in by_pid.items()
            if len(samples) > 0.95 * most
        }

    @property
    def _log_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.harness.folder.glob("log-*.jsonl"))

    def summary(self) -> str:
        """Return the figures, in some lines."""
        seconds = time.monotonic() - self._start
        jobs = sum(len(self._styles_of(name)) for name in self._photos)
        lines = [
            f"{seconds:.0f} s: {len(self._photos)} photos, {jobs} paintings, "
            f"{len(self._rejected)} hostile files, {dict(self._faults)}",
            f"log: {self._log_bytes / jobs:.0f} bytes for each painting",
        ]
        for pid, quarters in self._quarters().items():
            what = "the daemon" if pid == self.daemon.process.pid else "a process below it"
            lines.append(f"{what}, medians of the quarters of the day's second half:")
            lines += [
                f"  {_median(part, 'resident_bytes') / MB:.1f} MB, "
                f"{_median(part, 'files'):.0f} files, {_median(part, 'threads'):.0f} threads"
                for part in quarters
            ]
        return "\n".join(lines)

    # Promises

    def _styles_of(self, name: str) -> tuple[str, ...]:
        return FOLDERS["" if "/" not in name else name.rpartition("/")[0]]

    def assert_nothing_was_lost_or_doubled(self) -> None:
        """Check results, sidecars, originals, rejected files, the journal and the gallery."""
        assert len(self._photos) == PHOTOS
        inputs = {}
        for name, data in self._photos.items():
            for style in self._styles_of(name):
                below = name.removeprefix("all/").removeprefix(f"{style}/")
                inputs[f"{style}/{below}"] = hashlib.sha256(data).hexdigest()
        assert self.harness.files("outbox") == sorted([*inputs, *(f"{one}.json" for one in inputs)])
        for name, digest in inputs.items():
            sidecar = self.harness.sidecar(f"outbox/{name}.json")
            assert sidecar["input"]["sha256"] == digest, name
            result = self.harness.folder / "outbox" / name
            assert sidecar["result"]["sha256"] == sha256(result), name
        archive = self.harness.folder / "archive"
        archived = {name: sha256(archive / name) for name in self.harness.files("archive")}
        assert archived == inputs  # for each style a link to the original

        rejected = self.harness.folder / "rejected"
        names = [name for name in self.harness.files("rejected") if not name.endswith(".json")]
        found = Counter((rejected / name).read_bytes() for name in names)
        assert found == Counter(self._rejected.values())
        assert self._left_in_the_inbox() == []
        for name in self._untouchable:
            assert os.path.lexists(self.harness.folder / "inbox" / name)
        temporary = [
            path for root in ("outbox", "archive", "rejected", "inbox")
            for path in (self.harness.folder / root).rglob(f"{TEMPORARY_PREFIX}*")
            if path.is_file()
        ]  # fmt: skip
        assert temporary == []

        journal = sqlite3.connect(self.harness.folder / "state/journal.sqlite3")
        with contextlib.closing(journal):
            states = dict(journal.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
        assert states == {"done": len(inputs), "rejected": len(self._rejected)}
        records = [
            record for path in (self.harness.folder / "outbox/gallery_files/records").glob("*.js")
            for record in records_in(path.read_bytes())
        ]  # fmt: skip
        assert len(records) == sum(states.values())

    def assert_all_is_bounded(self) -> None:
        """Check the log, and over the second half of the day memory, open files and threads."""
        jobs = sum(len(self._styles_of(name)) for name in self._photos)
        assert self._log_bytes < 4_000 * jobs + 50_000 * HOURS
        quarters = self._quarters()
        # The pool for disks gets a thread more whenever all are busy, up to its limit; the one of
        # a single engine has two.
        more_threads = 1 if len(quarters) == 1 else CLUSTER_IO_THREADS // 4
        for first, *_, last in quarters.values():
            growth = _median(last, "resident_bytes") - _median(first, "resident_bytes")
            assert growth < 10 * MB
            assert _median(last, "files") <= _median(first, "files") + 3
            assert _median(last, "threads") <= _median(first, "threads") + more_threads


def _median(samples: list[Sample], what: str) -> float:
    return float(statistics.median(getattr(one, what) for one in samples))


def _mount(*args: str) -> None:
    completed = subprocess.run(["mount", *args], capture_output=True, text=True)
    if completed.returncode:
        pytest.skip(f"nothing can be mounted here: {completed.stderr.strip()}")
