"""Hooks in the service's sandbox and out of it, and pauses by timers, under a real systemd."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import pytest

from tests.systemd.machine import booted, container_marks
from tests.systemd.package import python_mounts
from tests.systemd.service import OPERATIONS, Service, install

pytestmark = container_marks()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Boot a container and install the service in it, as docs/operations.md describes."""
    with booted(tmp_path_factory.mktemp("machine"), python_mounts()) as machine:
        yield install(machine)


@pytest.fixture
def stopped(installed: Service) -> Service:
    """Return the stopped service with empty folders and an empty journal."""
    installed.clear()
    return installed


LISTENER = """\
import http.server, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        pathlib.Path('/var/tmp/posted.json').write_bytes(
            self.rfile.read(int(self.headers['Content-Length'])))
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(('127.0.0.1', 8099), Handler).serve_forever()
"""


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_hooks_stay_in_the_sandbox_unless_a_drop_in_lets_them_out(stopped: Service) -> None:
    """A copy to another disk and a webhook fail as installed, and work with docs' drop-ins."""
    service, machine = stopped, stopped.machine
    machine.run("install", "-d", "-o", "styled", "/mnt/prints")
    service.write("/var/tmp/listener.py", LISTENER)
    machine.run("systemd-run", "--unit=listener", "/usr/bin/python3", "/var/tmp/listener.py")
    script = (
        "#!/bin/sh\ncurl -sS --fail --json @- http://127.0.0.1:8099/ < $STYLED_SIDECAR\n"
        "posted=$?\ncp $STYLED_RESULT /mnt/prints/ && exit $posted\n"
    )
    service.write("/usr/local/bin/after", script)
    machine.run("chmod", "755", "/usr/local/bin/after")
    service.configure(more="hooks: {on_done: [/usr/local/bin/after]}")
    machine.systemctl("start", "styled")
    service.drop("a.png")
    machine.wait_until(lambda: service.events("hook.failed"))
    assert "Read-only file system" in service.messages()
    assert not machine.path("/var/tmp/posted.json").exists()
    mount, network = drop_ins_of_hooks()
    network = re.sub(r"(?m)^IPAddressAllow=.*", "IPAddressAllow=127.0.0.1", network)
    service.drop_in("test", f"{mount}\n{network}")
    machine.systemctl("restart", "styled")
    service.drop("b.png")
    machine.wait_until(lambda: service.events("hook.finished"))
    assert machine.path("/mnt/prints/b.png").exists()
    posted = json.loads(machine.path("/var/tmp/posted.json").read_text())
    assert posted["input"]["path"] == "b.png"
    machine.systemctl("stop", "listener")


def drop_ins_of_hooks() -> list[str]:
    """Return the drop-ins that docs/operations.md shows in the section Hooks."""
    section = OPERATIONS.read_text().partition("\n## Hooks\n")[2].partition("\n## ")[0]
    return re.findall(r"```ini\n(.*?)```", section, re.DOTALL)


def test_nights_only_by_a_pair_of_timers(stopped: Service) -> None:
    """The commands of docs/operations.md make timers that pause and resume the service."""
    service, machine = stopped, stopped.machine
    service.restart_clean()
    section = OPERATIONS.read_text().partition("\n## Pause and resume\n")[2].partition("\n## ")[0]
    (commands,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    machine.run("sh", "-ec", commands)
    timers = machine.run("systemctl", "list-timers", "--all").stdout
    assert "styled-pause.timer" in timers
    assert "styled-resume.timer" in timers
    machine.systemctl("start", "styled-pause.service")
    machine.wait_until(lambda: "paused: on request" in service.property("StatusText"))
    machine.systemctl("start", "styled-resume.service")
    machine.wait_until(lambda: "paused" not in service.property("StatusText"))
    machine.systemctl("disable", "--now", "styled-pause.timer", "styled-resume.timer")
