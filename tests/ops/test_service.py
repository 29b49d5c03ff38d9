"""What systemd is told, heard at the other end of a real socket."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from styled.ops.pulse import Pulse
from styled.ops.service import LONGEST_STATUS, PINGS_PER_LIMIT, ServiceManager, Watchdog

LIMIT_SECONDS = 40.0
QUARTER_SECONDS = LIMIT_SECONDS / PINGS_PER_LIMIT
PING = b"WATCHDOG=1"


class Listener:
    """The end of the socket at which systemd sits."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": address}

    def heard(self) -> list[bytes]:
        """Return what has been said since the last time."""
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
def manager(listener: Listener) -> ServiceManager:
    return ServiceManager(listener.environment)


def test_each_message_is_what_systemd_expects(listener: Listener, manager: ServiceManager) -> None:
    """Byte for byte as in sd_notify(3), one datagram each."""
    manager.tell_ready()
    manager.tell_status("painting")
    manager.tell_alive()
    manager.ask_for_time(1.5)
    manager.tell_stopping()
    assert listener.heard() == [
        b"READY=1",
        b"STATUS=painting",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=1500000",
        b"STOPPING=1",
    ]


def test_a_reload_begins_at_a_moment(listener: Listener, manager: ServiceManager) -> None:
    """systemd takes a reload by its time, so as not to mistake an older READY=1 for its end."""
    before = time.monotonic_ns() // 1000
    manager.tell_reloading()
    after = time.monotonic_ns() // 1000
    (message,) = listener.heard()
    found = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", message)
    assert found is not None
    assert before <= int(found[1]) <= after


def test_the_socket_is_found_in_the_environment(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the process, where no other is given."""
    for name, value in listener.environment.items():
        monkeypatch.setenv(name, value)
    ServiceManager().tell_ready()
    assert listener.heard() == [b"READY=1"]


def say_everything(manager: ServiceManager) -> None:
    """Say all that can be said."""
    manager.tell_ready()
    manager.tell_reloading()
    manager.tell_status("painting")
    manager.tell_alive()
    manager.ask_for_time(1.0)
    manager.tell_stopping()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_socket_nothing_is_sent(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one made: whoever starts it by hand is no systemd."""

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket, "socket", refuse)
    say_everything(ServiceManager(environment))


def test_a_manager_that_has_gone_stops_nobody(tmp_path: Path) -> None:
    """A socket that nobody reads, that is none, or that can't be one, is no error."""
    dead = tmp_path / "dead"
    Listener(str(dead)).close()
    assert dead.is_socket()
    plain = tmp_path / "plain"
    plain.touch()
    gone = (dead, plain, tmp_path / "missing", tmp_path / ("long" * 50))
    for address in (*map(str, gone), "@nobody-at-home", "vsock:2:1234"):
        say_everything(ServiceManager({"NOTIFY_SOCKET": address}))


# The status


def test_a_status_is_said_when_it_changes(listener: Listener, manager: ServiceManager) -> None:
    """What was said last is not said again; what was said before that is."""
    for status in ("idle", "idle", "painting", "painting", "idle"):
        manager.tell_status(status)
    assert listener.heard() == [b"STATUS=idle", b"STATUS=painting", b"STATUS=idle"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("", b""),
        ("größe 画 70 %", "größe 画 70 %".encode()),
        ("a\x1b[2J\x07\udcff.jpg", rb"a\x1b[2J\x07\udcff.jpg"),
        ("painting\nWATCHDOG=1", b"painting"),
        ("painting\r\nWATCHDOG=1", b"painting"),
        ("painting\u2028WATCHDOG=1", b"painting"),
        ("\nWATCHDOG=1", b""),
        ("x" * 500, b"x" * LONGEST_STATUS),
        ("画" * 500, "画".encode() * LONGEST_STATUS),
        ("\x1b" * 500, (rb"\x1b" * 500)[:LONGEST_STATUS]),
    ],
)
def test_a_status_is_one_short_harmless_line(
    listener: Listener, manager: ServiceManager, status: str, said: bytes
) -> None:
    """Names of files are chosen by strangers, who are to tell systemd nothing of their own."""
    manager.tell_status(status)
    assert listener.heard() == [b"STATUS=" + said]


def test_a_change_that_nobody_would_see_is_not_said(
    listener: Listener, manager: ServiceManager
) -> None:
    """It is the line that is compared, as it was shortened."""
    manager.tell_status("x" * 500)
    manager.tell_status("x" * 501)
    manager.tell_status("x" * 500 + "\nmore")
    assert len(listener.heard()) == 1


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
    """What another process inherits, or what is no time, is as if there were no watchdog."""
    assert ServiceManager(environment).watchdog_seconds == seconds


# The watchdog


class Kennel:
    """A watchdog, its clock, the parts that it watches, and the ears of systemd."""

    def __init__(self, listener: Listener, limit_seconds: float | None) -> None:
        self.now = 1000.0
        self.pulse = Pulse(lambda: self.now)
        environment = dict(listener.environment)
        if limit_seconds is not None:
            environment["WATCHDOG_USEC"] = f"{limit_seconds * 1e6:.0f}"
        manager = ServiceManager(environment)
        self._watchdog = Watchdog(manager, self.pulse, lambda: self.now)
        self._listener = listener

    def pings(self, seconds: int, *beating: str) -> list[int]:
        """Let time pass, attend each second, return after how many there was a ping."""
        found = []
        for second in range(1, seconds + 1):
            self.now += 1.0
            for part in beating:
                self.pulse.beat(part)
            self._watchdog.attend()
            heard = self._listener.heard()
            assert heard in ([], [PING])
            found += [second] * len(heard)
        return found


@pytest.fixture
def kennel(listener: Listener) -> Kennel:
    return Kennel(listener, LIMIT_SECONDS)


def test_without_a_watchdog_there_are_no_pings(listener: Listener) -> None:
    """However well all parts are."""
    assert Kennel(listener, None).pings(100, "intake") == []


def test_pings_come_every_quarter_of_the_limit_at_most(kennel: Kennel) -> None:
    """Parts that are busy every second do not make it more."""
    assert QUARTER_SECONDS == 10.0
    assert kennel.pings(45, "intake", "scheduler") == [10, 20, 30, 40]


def test_before_any_part_has_begun_all_is_well(kennel: Kennel) -> None:
    """A start that takes long is not bitten for what does not run yet."""
    assert kennel.pings(25) == [10, 20]


def test_a_ping_waits_for_every_part(kennel: Kennel) -> None:
    """It comes as soon as the last part has advanced, and the quarter begins anew with it."""
    assert kennel.pings(15, "intake", "scheduler") == [10]
    assert kennel.pings(8, "intake") == [5]  # both have advanced meanwhile
    assert kennel.pings(30, "intake") == []
    assert kennel.pings(30, "intake", "scheduler") == [1, 11, 21]


def test_a_resting_part_is_not_waited_for(kennel: Kennel) -> None:
    """Only once its rest is over it has to give a sign again."""
    kennel.pulse.beat("scheduler", 35.0)
    assert kennel.pings(100, "intake") == [10, 20, 30, 40]
    kennel.pulse.beat("scheduler", 15.0)
    assert kennel.pings(100, "intake") == [1, 11, 21]


def test_a_stuck_part_stops_the_pings_and_its_waking_resumes_them(kennel: Kennel) -> None:
    """After its last sign there is one ping at most, whenever that was; so systemd bites."""
    for signs in range(1, 25):
        kennel.pings(signs, "intake", "scheduler")
        assert len(kennel.pings(1000, "intake")) <= 1
        assert kennel.pings(11, "intake", "scheduler") == [1, 11]


def test_a_part_that_advances_slowly_is_alive(kennel: Kennel) -> None:
    """One sign within less than the limit is enough for systemd never to wait longer."""
    slow = int(LIMIT_SECONDS) - 5
    pings = [0]
    for begin in range(0, 20 * slow, slow):
        pings += [begin + second for second in kennel.pings(slow - 1, "intake")]
        pings += [begin + slow for _ in kennel.pings(1, "intake", "scheduler")]
    assert len(pings) >= 20
    assert max(after - before for before, after in pairwise(pings)) < LIMIT_SECONDS


def test_a_listener_that_does_not_read_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread has better things to do."""
    monkeypatch.setattr("styled.ops.service.SEND_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "notify"))
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for _ in range(20):  # more than it has room for
            manager.tell_alive()


def test_waiting_for_a_listener_takes_no_computing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as its queue is full, the process sleeps instead of asking all the time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "notify"))
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        monkeypatch.setattr("styled.ops.service.SEND_SECONDS", 0.0)
        for _ in range(1000):
            manager.tell_alive()
        monkeypatch.setattr("styled.ops.service.SEND_SECONDS", 1.0)
        waited, computed = time.monotonic(), time.thread_time()
        manager.tell_alive()
        assert time.monotonic() - waited >= 0.9
        assert time.thread_time() - computed < 0.1
