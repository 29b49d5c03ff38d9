"""Notifications to systemd, received at the other end of a real socket."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from styled.ops.heartbeats import Heartbeats
from styled.ops.systemd import MAX_STATUS_CHARS, PINGS_PER_LIMIT, Notifier, Watchdog

LIMIT_SECONDS = 40.0
QUARTER_SECONDS = LIMIT_SECONDS / PINGS_PER_LIMIT
PING = b"WATCHDOG=1"


class Listener:
    """The receiving end of the notification socket, in place of systemd."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": address}

    def received(self) -> list[bytes]:
        """Return the messages received since the last call."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(65536))
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["a path", "an abstract name"])
def listener(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Listener]:
    is_path = request.param == "a path"
    listener = Listener(str(tmp_path / "notify") if is_path else f"@styled-test-{os.getpid()}")
    yield listener
    listener.close()


@pytest.fixture
def notifier(listener: Listener) -> Notifier:
    return Notifier(listener.environment)


def test_each_message_is_what_systemd_expects(listener: Listener, notifier: Notifier) -> None:
    """Each is one datagram, exactly as in sd_notify(3)."""
    notifier.notify_ready()
    notifier.notify_status("painting")
    notifier.notify_alive()
    notifier.extend_timeout(1.5)
    notifier.notify_stopping()
    assert listener.received() == [
        b"READY=1",
        b"STATUS=painting",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=1500000",
        b"STOPPING=1",
    ]


def test_a_reload_begins_at_a_moment(listener: Listener, notifier: Notifier) -> None:
    """systemd compares times, so as not to take an older READY=1 for the reload's end."""
    before = time.monotonic_ns() // 1000
    notifier.notify_reloading()
    after = time.monotonic_ns() // 1000
    (message,) = listener.received()
    found = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", message)
    assert found is not None
    assert before <= int(found[1]) <= after


def test_the_socket_is_found_in_the_environment(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default is the environment of the process."""
    for name, value in listener.environment.items():
        monkeypatch.setenv(name, value)
    Notifier().notify_ready()
    assert listener.received() == [b"READY=1"]


def send_everything(notifier: Notifier) -> None:
    """Send all kinds of notifications."""
    notifier.notify_ready()
    notifier.notify_reloading()
    notifier.notify_status("painting")
    notifier.notify_alive()
    notifier.extend_timeout(1.0)
    notifier.notify_stopping()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_socket_nothing_is_sent(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `NOTIFY_SOCKET` not even a socket is created."""

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket, "socket", refuse)
    send_everything(Notifier(environment))


def test_a_manager_that_has_gone_stops_nobody(tmp_path: Path) -> None:
    """A dead socket, a plain file, a missing one and an invalid address are no errors."""
    dead = tmp_path / "dead"
    Listener(str(dead)).close()
    assert dead.is_socket()
    plain = tmp_path / "plain"
    plain.touch()
    gone = (dead, plain, tmp_path / "missing", tmp_path / ("long" * 50))
    for address in (*map(str, gone), "@nobody-at-home", "vsock:2:1234"):
        send_everything(Notifier({"NOTIFY_SOCKET": address}))


# The status


def test_a_status_is_reported_when_it_changes(listener: Listener, notifier: Notifier) -> None:
    """Only a repetition of the last status is not sent."""
    for status in ("idle", "idle", "painting", "painting", "idle"):
        notifier.notify_status(status)
    assert listener.received() == [b"STATUS=idle", b"STATUS=painting", b"STATUS=idle"]


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("", b""),
        ("größe 画 70 %", "größe 画 70 %".encode()),
        ("a\x1b[2J\x07\udcff.jpg", rb"a\x1b[2J\x07\udcff.jpg"),
        ("painting\nWATCHDOG=1", b"painting"),
        ("painting\r\nWATCHDOG=1", b"painting"),
        ("painting\u2028WATCHDOG=1", b"painting"),
        ("\nWATCHDOG=1", b""),
        ("x" * 500, b"x" * MAX_STATUS_CHARS),
        ("画" * 500, "画".encode() * MAX_STATUS_CHARS),
        ("\x1b" * 500, (rb"\x1b" * 500)[:MAX_STATUS_CHARS]),
    ],
)
def test_a_status_is_one_short_harmless_line(
    listener: Listener, notifier: Notifier, status: str, line: bytes
) -> None:
    """File names are untrusted and must not inject lines into the message."""
    notifier.notify_status(status)
    assert listener.received() == [b"STATUS=" + line]


def test_a_change_that_nobody_would_see_is_not_reported(
    listener: Listener, notifier: Notifier
) -> None:
    """The escaped and shortened lines are compared."""
    notifier.notify_status("x" * 500)
    notifier.notify_status("x" * 501)
    notifier.notify_status("x" * 500 + "\nmore")
    assert len(listener.received()) == 1


# How long systemd waits


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "1500000"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "me"}, None),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "1.5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_meant_for_this_process_or_is_none(
    environment: dict[str, str], seconds: float | None
) -> None:
    """A watchdog of another process, or an invalid timeout, is ignored."""
    assert Notifier(environment).watchdog_seconds == seconds


# The watchdog


class WatchdogHarness:
    """A watchdog with a simulated clock, its heartbeats, and a listener in place of systemd."""

    def __init__(self, listener: Listener, limit_seconds: float | None) -> None:
        self.now = 1000.0
        self.heartbeats = Heartbeats(lambda: self.now)
        environment = dict(listener.environment)
        if limit_seconds is not None:
            environment["WATCHDOG_USEC"] = f"{limit_seconds * 1e6:.0f}"
        notifier = Notifier(environment)
        self._watchdog = Watchdog(notifier, self.heartbeats, lambda: self.now)
        self._listener = listener

    def pings(self, seconds: int, *beating: str) -> list[int]:
        """Advance the clock second by second with heartbeats; return the seconds with a ping."""
        found = []
        for second in range(1, seconds + 1):
            self.now += 1.0
            for part in beating:
                self.heartbeats.beat(part)
            self._watchdog.ping()
            received = self._listener.received()
            assert received in ([], [PING])
            found += [second] * len(received)
        return found


@pytest.fixture
def harness(listener: Listener) -> WatchdogHarness:
    return WatchdogHarness(listener, LIMIT_SECONDS)


def test_without_a_watchdog_there_are_no_pings(listener: Listener) -> None:
    """This holds although all parts make progress."""
    assert WatchdogHarness(listener, None).pings(100, "intake") == []


def test_pings_come_every_quarter_of_the_limit_at_most(harness: WatchdogHarness) -> None:
    """More frequent heartbeats do not cause more pings."""
    assert QUARTER_SECONDS == 10.0
    assert harness.pings(45, "intake", "scheduler") == [10, 20, 30, 40]


def test_before_any_part_has_begun_all_is_well(harness: WatchdogHarness) -> None:
    """During a long start, parts that do not run yet are not considered."""
    assert harness.pings(25) == [10, 20]


def test_a_ping_waits_for_every_part(harness: WatchdogHarness) -> None:
    """It is sent as soon as the last part has advanced, and the interval restarts then."""
    assert harness.pings(15, "intake", "scheduler") == [10]
    assert harness.pings(8, "intake") == [5]  # both have advanced meanwhile
    assert harness.pings(30, "intake") == []
    assert harness.pings(30, "intake", "scheduler") == [1, 11, 21]


def test_a_resting_part_is_not_waited_for(harness: WatchdogHarness) -> None:
    """A heartbeat is expected only after its announced idle time."""
    harness.heartbeats.beat("scheduler", 35.0)
    assert harness.pings(100, "intake") == [10, 20, 30, 40]
    harness.heartbeats.beat("scheduler", 15.0)
    assert harness.pings(100, "intake") == [1, 11, 21]


def test_a_stuck_part_stops_the_pings_and_its_waking_resumes_them(harness: WatchdogHarness) -> None:
    """After its last heartbeat at most one ping is sent, so systemd's watchdog fires."""
    for signs in range(1, 25):
        harness.pings(signs, "intake", "scheduler")
        assert len(harness.pings(1000, "intake")) <= 1
        assert harness.pings(11, "intake", "scheduler") == [1, 11]


def test_a_part_that_advances_slowly_is_alive(harness: WatchdogHarness) -> None:
    """If each part sends a heartbeat within the limit, so does the watchdog send a ping."""
    slow = int(LIMIT_SECONDS) - 5
    pings = [0]
    for begin in range(0, 20 * slow, slow):
        pings += [begin + second for second in harness.pings(slow - 1, "intake")]
        pings += [begin + slow for _ in harness.pings(1, "intake", "scheduler")]
    assert len(pings) >= 20
    assert max(after - before for before, after in pairwise(pings)) < LIMIT_SECONDS


def test_a_listener_that_does_not_read_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sending has a timeout, since it is done by the main thread."""
    monkeypatch.setattr("styled.ops.systemd.SEND_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for _ in range(20):  # more than it has room for
            notifier.notify_alive()


def test_waiting_for_a_listener_takes_no_computing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its queue is full, the process sleeps instead of busy-waiting."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        monkeypatch.setattr("styled.ops.systemd.SEND_SECONDS", 0.0)
        for _ in range(1000):
            notifier.notify_alive()
        monkeypatch.setattr("styled.ops.systemd.SEND_SECONDS", 1.0)
        waited, computed = time.monotonic(), time.thread_time()
        notifier.notify_alive()
        assert time.monotonic() - waited >= 0.9
        assert time.thread_time() - computed < 0.1
