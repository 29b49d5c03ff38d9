"""The watcher, with the kernel's own events; nothing waits longer than the kernel takes."""

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

LONGEST_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """An event that the watcher has handled, and whether it gave a hint."""

    kind: str
    path: str
    hinted: bool


class Watched:
    """A folder, its watcher and what the watcher has seen."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.seen: Queue[Seen] = Queue()
        self.hints = 0
        self.watcher = Watcher(folder, self._hint)
        self._record(monkeypatch)

    def _hint(self) -> None:
        self.hints += 1

    def _record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = watching._Hints.on_any_event

        def on_any_event(handler: watching._Hints, event: FileSystemEvent) -> None:
            before = self.hints
            real(handler, event)
            hinted = self.hints > before
            self.seen.put(Seen(event.event_type, os.fsdecode(event.src_path), hinted))

        monkeypatch.setattr(watching._Hints, "on_any_event", on_any_event)

    def wait_for(self, wanted: Callable[[Seen], bool]) -> list[Seen]:
        """Return all events up to the first that is wanted; fail where none comes."""
        events = []
        while True:
            events.append(self.seen.get(timeout=LONGEST_WAIT_SECONDS))
            if wanted(events[-1]):
                return events

    def wait_for_hint(self, path: Path) -> None:
        """Wait until something that happened to `path` has given a hint."""
        self.wait_for(lambda seen: seen.hinted and seen.path == str(path))


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Return an empty folder that is not watched yet; stop watching it in the end."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    made = Watched(folder, monkeypatch)
    yield made
    made.watcher.stop()


@pytest.fixture
def nothing_leaks() -> Iterator[None]:
    """Fail where a test leaves threads or open files behind."""
    threads, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    yield
    assert set(threading.enumerate()) == threads
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_new_file_gives_a_hint(watched: Watched) -> None:
    """The plainest way for a photo to arrive."""
    assert watched.watcher.ensure() is None
    path = watched.folder / "a.jpg"
    path.write_bytes(b"photo")
    watched.wait_for_hint(path)


def test_a_rename_into_the_folder_gives_a_hint(watched: Watched) -> None:
    """Careful uploaders write elsewhere first; no file is closed in the folder then."""
    elsewhere = watched.folder.with_name("elsewhere.jpg")
    elsewhere.write_bytes(b"photo")
    assert watched.watcher.ensure() is None
    elsewhere.rename(watched.folder / "a.jpg")
    watched.wait_for_hint(watched.folder / "a.jpg")


def test_a_file_in_a_deep_new_folder_gives_a_hint(watched: Watched) -> None:
    """Folders that come later are watched too, however many at once."""
    assert watched.watcher.ensure() is None
    deep = watched.folder / "style" / "trip" / "day1"
    deep.mkdir(parents=True)
    watched.wait_for_hint(deep)
    (deep / "a.jpg").write_bytes(b"photo")
    watched.wait_for_hint(deep / "a.jpg")


def test_names_that_are_not_utf8_give_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the name of the folder nor that of a file need be text."""
    folder = tmp_path / os.fsdecode(b"bo\xeete")
    folder.mkdir()
    watched = Watched(folder, monkeypatch)
    assert watched.watcher.ensure() is None
    path = folder / os.fsdecode(b"caf\xe9.jpg")
    path.write_bytes(b"photo")
    watched.wait_for_hint(path)
    watched.watcher.stop()


def test_reading_a_file_gives_no_hint(watched: Watched) -> None:
    """Otherwise every look of ours would be the reason for the next."""
    path = watched.folder / "a.jpg"
    path.write_bytes(b"photo")
    assert watched.watcher.ensure() is None
    path.read_bytes()
    path.unlink()
    events = watched.wait_for(lambda seen: seen.kind == "deleted")
    kinds = {seen.kind for seen in events if not seen.hinted}
    assert kinds == {"opened", "closed_no_write"}


def test_an_inbox_behind_a_link_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`inbox -> /mnt/share/inbox` is how administrators move folders."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "inbox").symlink_to("disk")
    watched = Watched(tmp_path / "inbox", monkeypatch)
    assert watched.watcher.ensure() is None
    (tmp_path / "inbox" / "a.jpg").write_bytes(b"photo")
    watched.wait_for_hint(tmp_path / "disk" / "a.jpg")
    watched.watcher.stop()


# The folder itself


def test_watching_twice_is_watching_once(watched: Watched) -> None:
    """The watcher is asked before each look, and starts nothing anew without a reason."""
    watched.watcher.ensure()
    threads = set(threading.enumerate())
    assert watched.watcher.ensure() is None
    assert set(threading.enumerate()) == threads


def test_a_folder_that_is_made_again_is_watched_anew(watched: Watched) -> None:
    """Even where the new folder has the number of the old, as it often does at once."""
    assert watched.watcher.ensure() is None
    watched.folder.rmdir()
    watched.folder.mkdir()
    watched.wait_for(lambda seen: seen.hinted and seen.kind == "deleted")
    assert watched.watcher.ensure() is None
    path = watched.folder / "a.jpg"
    path.write_bytes(b"photo")
    watched.wait_for_hint(path)


def test_the_word_that_the_folder_is_gone_is_enough(watched: Watched) -> None:
    """The thread that brings it may still live for a moment, and the new folder look the same."""
    assert watched.watcher.ensure() is None
    before, hints = watched.watcher._observer, watched.watcher._hints
    assert hints is not None
    hints.dispatch(DirDeletedEvent(str(watched.folder / "style")))
    assert watched.watcher.ensure() is None
    assert watched.watcher._observer is before
    hints.dispatch(DirDeletedEvent(str(watched.folder)))
    assert watched.watcher.ensure() is None
    assert watched.watcher._observer is not before


def test_a_folder_that_is_replaced_is_watched_anew(watched: Watched) -> None:
    """The kernel goes on watching the one that was moved away, and says nothing."""
    assert watched.watcher.ensure() is None
    watched.folder.rename(watched.folder.with_name("old"))
    watched.folder.mkdir()
    assert watched.watcher.ensure() is None
    path = watched.folder / "a.jpg"
    path.write_bytes(b"photo")
    watched.wait_for_hint(path)


@pytest.mark.usefixtures("nothing_leaks")
def test_a_folder_that_is_gone_can_be_watched_later(watched: Watched) -> None:
    """The reason is given while it is away; nothing goes on in the background."""
    assert watched.watcher.ensure() is None
    watched.folder.rmdir()
    problem = watched.watcher.ensure()
    assert problem == f"{watched.folder} can't be watched: No such file or directory"
    assert not any("inotify" in type(thread).__name__.lower() for thread in threading.enumerate())
    watched.folder.mkdir()
    assert watched.watcher.ensure() is None
    path = watched.folder / "a.jpg"
    path.write_bytes(b"photo")
    watched.wait_for_hint(path)
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
    """The limit of inotify instances, or of threads, makes the observer fail when it is made."""

    def refuse() -> None:
        raise error

    monkeypatch.setattr(watching, "Observer", refuse)
    problem = watched.watcher.ensure()
    assert problem == f"{watched.folder} can't be watched: {reason}"


@pytest.mark.usefixtures("nothing_leaks")
def test_too_many_watches_is_a_reason_and_leaves_nothing_behind(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt gives back what it has taken: there are few inotify instances."""

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
    """Whichever of the threads has died, watching begins anew and the others are ended."""
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
    watched.wait_for_hint(path)
    watched.watcher.stop()


@pytest.mark.usefixtures("nothing_leaks")
def test_a_watch_that_the_kernel_has_dropped_is_renewed(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an unmount: all threads are alive, but nothing is told any more."""
    watched.watcher.ensure()
    before = watched.watcher._observer
    assert watched.watcher.ensure(thoroughly=True) is None
    assert watched.watcher._observer is before
    monkeypatch.setattr(watching, "FDINFO", str(tmp_path / "missing"))
    assert watched.watcher.ensure(thoroughly=True) is None
    assert watched.watcher._observer is before
    (tmp_path / "none").mkdir()
    monkeypatch.setattr(watching, "FDINFO", str(tmp_path / "none"))
    assert watched.watcher.ensure() is None
    assert watched.watcher._observer is before
    problem = watched.watcher.ensure(thoroughly=True)
    assert problem is not None
    assert "max_user_watches" in problem
    assert watched.watcher._observer is None
    monkeypatch.undo()
    assert watched.watcher.ensure(thoroughly=True) is None
    watched.watcher.stop()


@pytest.mark.usefixtures("nothing_leaks")
def test_a_folder_that_was_just_made_is_no_missing_watch(watched: Watched) -> None:
    """The kernel is asked again a moment later."""
    watched.watcher.ensure()
    before = watched.watcher._observer
    for number in range(20):
        (watched.folder / str(number)).mkdir()
        assert watched.watcher.ensure(thoroughly=True) is None
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
    """Let the thread that hands out events die as an exception in a handler makes it die."""

    def dispatch_events(_: object) -> None:
        raise RuntimeError("a fault in a handler")

    observer.dispatch_events = dispatch_events  # type: ignore[attr-defined]
    observer.event_queue.put((FileSystemEvent(""), None))  # type: ignore[attr-defined]
    return observer
