"""The watcher, with real kernel events; tests wait for events instead of sleeping."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import pytest
from watchdog.events import DirDeletedEvent, FileSystemEvent
from watchdog.observers import Observer

from styled.intake import watching
from styled.intake.watching import Watcher

MAX_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """An event that the watcher has handled.

    Attributes:
        kind: The event type of watchdog.
        notified: Whether it caused a call of `on_change`.
    """

    kind: str
    path: str
    notified: bool


class Watched:
    """A folder, its watcher and the events that the watcher has handled."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.seen: Queue[Seen] = Queue()
        self.calls = 0
        self.watcher = Watcher(folder, self._on_change)
        self._record(monkeypatch)

    def _on_change(self) -> None:
        self.calls += 1

    def _record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = watching._EventHandler.on_any_event

        def on_any_event(handler: watching._EventHandler, event: FileSystemEvent) -> None:
            before = self.calls
            real(handler, event)
            notified = self.calls > before
            self.seen.put(Seen(event.event_type, os.fsdecode(event.src_path), notified))

        monkeypatch.setattr(watching._EventHandler, "on_any_event", on_any_event)

    def wait_for(self, matches: Callable[[Seen], bool]) -> list[Seen]:
        """Return all events up to the first that matches; fail if none comes in time."""
        events = []
        while True:
            events.append(self.seen.get(timeout=MAX_WAIT_SECONDS))
            if matches(events[-1]):
                return events

    def wait_for_call(self, path: Path) -> None:
        """Wait until an event of `path` has caused a call of `on_change`."""
        self.wait_for(lambda seen: seen.notified and seen.path == str(path))


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Return an empty folder that is not watched yet; stop its watcher afterwards."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    made = Watched(folder, monkeypatch)
    yield made
    made.watcher.stop()


@pytest.fixture
def nothing_leaks() -> Iterator[None]:
    """Fail if a test leaves threads or open files behind."""
    threads, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    yield
    assert set(threading.enumerate()) <= threads
    assert len(os.listdir("/proc/self/fd")) <= files


def test_a_new_file_gives_a_hint(watched: Watched) -> None:
    """The file is written in place."""
    assert watched.watcher.ensure() is None
    path = watched.folder / "a.jpg"
    path.write_bytes(b"photo")
    watched.wait_for_call(path)


def test_a_rename_into_the_folder_gives_a_hint(watched: Watched) -> None:
    """Uploaders that write elsewhere first cause no close event in the folder."""
    elsewhere = watched.folder.with_name("elsewhere.jpg")
    elsewhere.write_bytes(b"photo")
    assert watched.watcher.ensure() is None
    elsewhere.rename(watched.folder / "a.jpg")
    watched.wait_for_call(watched.folder / "a.jpg")


def test_a_file_in_a_deep_new_folder_gives_a_hint(watched: Watched) -> None:
    """New folders are watched too, even several nested ones made at once."""
    assert watched.watcher.ensure() is None
    deep = watched.folder / "style" / "trip" / "day1"
    deep.mkdir(parents=True)
    watched.wait_for_call(deep)
    (deep / "a.jpg").write_bytes(b"photo")
    watched.wait_for_call(deep / "a.jpg")


def test_names_that_are_not_utf8_give_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds for the names of folders and files."""
    folder = tmp_path / os.fsdecode(b"bo\xeete")
    folder.mkdir()
    watched = Watched(folder, monkeypatch)
    assert watched.watcher.ensure() is None
    path = folder / os.fsdecode(b"caf\xe9.jpg")
    path.write_bytes(b"photo")
    watched.wait_for_call(path)
    watched.watcher.stop()


def test_reading_a_file_gives_no_hint(watched: Watched) -> None:
    """Otherwise each scan would cause the next."""
    path = watched.folder / "a.jpg"
    path.write_bytes(b"photo")
    assert watched.watcher.ensure() is None
    path.read_bytes()
    path.unlink()
    events = watched.wait_for(lambda seen: seen.kind == "deleted")
    kinds = {seen.kind for seen in events if not seen.notified}
    assert kinds == {"opened", "closed_no_write"}


def test_an_inbox_behind_a_link_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Administrators move folders by links such as `inbox -> /mnt/share/inbox`."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "inbox").symlink_to("disk")
    watched = Watched(tmp_path / "inbox", monkeypatch)
    assert watched.watcher.ensure() is None
    (tmp_path / "inbox" / "a.jpg").write_bytes(b"photo")
    watched.wait_for_call(tmp_path / "disk" / "a.jpg")
    watched.watcher.stop()


# The folder itself


def test_watching_twice_is_watching_once(watched: Watched) -> None:
    """`ensure` is called before each scan, and restarts nothing without a reason."""
    watched.watcher.ensure()
    threads = set(threading.enumerate())
    assert watched.watcher.ensure() is None
    assert set(threading.enumerate()) <= threads


def test_a_folder_that_is_made_again_is_watched_anew(watched: Watched) -> None:
    """Even if the new folder has the inode of the old one, as it often does."""
    assert watched.watcher.ensure() is None
    watched.folder.rmdir()
    watched.folder.mkdir()
    watched.wait_for(lambda seen: seen.notified and seen.kind == "deleted")
    assert watched.watcher.ensure() is None
    path = watched.folder / "a.jpg"
    path.write_bytes(b"photo")
    watched.wait_for_call(path)


def test_the_word_that_the_folder_is_gone_is_enough(watched: Watched) -> None:
    """The emitter thread may still be alive then, and the new folder have the same inode."""
    assert watched.watcher.ensure() is None
    before, handler = watched.watcher._observer, watched.watcher._handler
    assert handler is not None
    handler.dispatch(DirDeletedEvent(str(watched.folder / "style")))
    assert watched.watcher.ensure() is None
    assert watched.watcher._observer is before
    handler.dispatch(DirDeletedEvent(str(watched.folder)))
    assert watched.watcher.ensure() is None
    assert watched.watcher._observer is not before


def test_a_folder_that_is_replaced_is_watched_anew(watched: Watched) -> None:
    """The kernel silently keeps watching the one that was moved away."""
    assert watched.watcher.ensure() is None
    watched.folder.rename(watched.folder.with_name("old"))
    watched.folder.mkdir()
    assert watched.watcher.ensure() is None
    path = watched.folder / "a.jpg"
    path.write_bytes(b"photo")
    watched.wait_for_call(path)


@pytest.mark.usefixtures("nothing_leaks")
def test_a_folder_that_is_gone_can_be_watched_later(watched: Watched) -> None:
    """The reason is returned while it is missing; no threads are left running."""
    assert watched.watcher.ensure() is None
    watched.folder.rmdir()
    problem = watched.watcher.ensure()
    assert problem == f"{watched.folder} can't be watched: No such file or directory"
    assert not any("inotify" in type(thread).__name__.lower() for thread in threading.enumerate())
    watched.folder.mkdir()
    assert watched.watcher.ensure() is None
    path = watched.folder / "a.jpg"
    path.write_bytes(b"photo")
    watched.wait_for_call(path)
    watched.watcher.stop()


# When the kernel refuses, or a thread dies


@pytest.mark.usefixtures("nothing_leaks")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EMFILE, "inotify instance limit reached"), "inotify instance limit reached"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
    ],
)
def test_too_many_watchers_is_a_reason_and_not_an_error(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    """The observer's constructor fails at the limit of inotify instances or of threads."""

    def refuse() -> None:
        raise error

    monkeypatch.setattr(watching, "Observer", refuse)
    problem = watched.watcher.ensure()
    assert problem == f"{watched.folder} can't be watched: {reason}"


@pytest.mark.usefixtures("nothing_leaks")
def test_too_many_watches_is_a_reason_and_leaves_nothing_behind(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed attempt releases its inotify instance: their number is limited."""

    class Refused(Observer):  # type: ignore[misc, valid-type]
        def start(self) -> None:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")

    monkeypatch.setattr(watching, "Observer", Refused)
    problem = watched.watcher.ensure()
    assert problem == f"{watched.folder} can't be watched: inotify watch limit reached"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("dead", ["observer", "emitter"])
@pytest.mark.usefixtures("nothing_leaks")
def test_a_dead_thread_is_replaced(watched: Watched, dead: str) -> None:
    """Whichever thread has died, watching restarts and the others are stopped."""
    assert watched.watcher.ensure() is None
    observer = watched.watcher._observer
    assert observer is not None
    if dead == "observer":
        threading.Thread.join(_killed(observer))
    else:
        (emitter,) = observer.emitters
        emitter.stop()
        emitter.join()
    assert watched.watcher.ensure() is None
    path = watched.folder / "a.jpg"
    path.write_bytes(b"photo")
    watched.wait_for_call(path)
    watched.watcher.stop()


@pytest.mark.usefixtures("nothing_leaks")
def test_a_watch_that_the_kernel_has_dropped_is_renewed(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an unmount: all threads are alive, but no events arrive."""
    watched.watcher.ensure()
    before = watched.watcher._observer
    assert watched.watcher.ensure(check_kernel=True) is None
    assert watched.watcher._observer is before
    monkeypatch.setattr(watching, "FDINFO", str(tmp_path / "missing"))
    assert watched.watcher.ensure(check_kernel=True) is None
    assert watched.watcher._observer is before
    (tmp_path / "none").mkdir()
    monkeypatch.setattr(watching, "FDINFO", str(tmp_path / "none"))
    assert watched.watcher.ensure() is None
    assert watched.watcher._observer is before
    problem = watched.watcher.ensure(check_kernel=True)
    assert problem is not None
    assert "max_user_watches" in problem
    assert watched.watcher._observer is None
    monkeypatch.undo()
    assert watched.watcher.ensure(check_kernel=True) is None
    watched.watcher.stop()


@pytest.mark.usefixtures("nothing_leaks")
def test_a_folder_that_was_just_made_is_no_missing_watch(watched: Watched) -> None:
    """A missing watch is checked again a moment later."""
    watched.watcher.ensure()
    before = watched.watcher._observer
    for number in range(20):
        (watched.folder / str(number)).mkdir()
        assert watched.watcher.ensure(check_kernel=True) is None
    assert watched.watcher._observer is before
    watched.watcher.stop()


@pytest.mark.usefixtures("nothing_leaks")
def test_stopping_ends_all_threads(watched: Watched) -> None:
    """It may be called at any time, and more than once."""
    watched.watcher.stop()
    watched.watcher.ensure()
    watched.watcher.stop()
    watched.watcher.stop()


def _killed(observer: threading.Thread) -> threading.Thread:
    """Kill the dispatcher thread, as an exception in a handler would."""

    def dispatch_events(_: object) -> None:
        raise RuntimeError("a fault in a handler")

    observer.dispatch_events = dispatch_events  # type: ignore[attr-defined]
    observer.event_queue.put((FileSystemEvent(""), None))  # type: ignore[attr-defined]
    return observer
