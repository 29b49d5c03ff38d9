"""The service, installed as docs/operations.md describes, with a configuration for small images."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import skimage.data
from PIL import Image

from styled.engine.weights import Weights, exported
from tests.engine.conftest import untrained
from tests.systemd.machine import Machine
from tests.systemd.package import PREFIX, install_package

OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"

DATA = "/var/lib/styled"
CONFIG = "/etc/styled/config.yaml"
HANG = "/run/styled-hang"
WEIGHTS = "/etc/styled/untrained.safetensors"
"""The untrained network as a file: loading it is faster than generating it."""

FEW_LAYERS = "content_layers: {relu2_2: 1.0}, style_layers: {relu1_1: 0.8, relu2_1: 0.2}"
ONE_SCALE = "scales: null, min_improvement: 0"
OVERRIDES = f"{{size: {{long_edge: 64}}, steps: 3, {ONE_SCALE}, {FEW_LAYERS}}}"
LONG = f"{{size: {{long_edge: 128}}, steps: 40000, {ONE_SCALE}, {FEW_LAYERS}}}"

# Patches the daemon so that it hangs while a file exists: in a layer of the network, or in the scan
# of a folder.
SITECUSTOMIZE = f"""\
import os, sys, threading, time

def hang_if(what):
    while os.path.exists("{HANG}-" + what):
        time.sleep(0.1)

def late():
    import torch.nn.functional as F
    from styled.engine import local_engine
    from dataclasses import replace
    # Warming up few layers saves half a second.
    local_engine.WARM_UP = replace(local_engine.WARM_UP, content_layers={{"relu2_2": 1.0}},
                                   style_layers={{"relu1_1": 0.8, "relu2_1": 0.2}})
    from styled.intake import scanning
    original_conv2d, original_scandir = F.conv2d, scanning.os.scandir
    def conv2d(*args, **kwargs):
        hang_if("engine")
        return original_conv2d(*args, **kwargs)
    def scandir(folder):
        hang_if("intake")
        return original_scandir(folder)
    F.conv2d = conv2d
    os.scandir = scandir

if sys.argv[1:2] == ["run"] or "run" in sys.orig_argv:
    late()
"""


@dataclass(frozen=True)
class Service:
    """A systemd unit of styled in a container, and methods that use it."""

    machine: Machine
    unit: str = "styled"
    data: str = DATA
    config: str = CONFIG

    def do(self, *args: str, user: str = "root", check: bool = True) -> str:
        """Run a `styled` command in the container; return its stdout and stderr."""
        completed = self.machine.run(f"{PREFIX}/bin/styled", *args, user=user, check=check)
        return completed.stdout + completed.stderr

    def configure(self, overrides: str = OVERRIDES, more: str = "") -> None:
        """Write a configuration for small images.

        Args:
            overrides: The style's overrides, as a YAML mapping.
            more: Further lines of the configuration.
        """
        self.write(self.config, self.configuration(overrides, more))

    def configuration(self, overrides: str = OVERRIDES, more: str = "") -> str:
        """Return the text that `configure` writes."""
        folders = ("inbox", "outbox", "rejected", "archive", "state")
        folder_lines = "".join(f"{folder}: {self.data}/{folder}\n" for folder in folders)
        return f"""\
{folder_lines}
default_style: red-trees
styles:
  red-trees: {{image: /etc/styled/styles/red-trees.png, overrides: {overrides}}}
engine: {{weights: {WEIGHTS}, device: cpu, precision: float32}}
intake: {{settle_seconds: 0.2}}
{more}
"""

    def write(self, path: str, text: str) -> None:
        """Write a world-readable file in the container."""
        file = self.machine.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        os.chmod(file, 0o644)

    def drop(self, name: str, data: bytes | None = None, user: str = "alice") -> None:
        """Copy a photo into the inbox, as a user who is not the service's."""
        if data is None:
            buffer = io.BytesIO()
            picture = Image.fromarray(skimage.data.coffee())  # type: ignore[no-untyped-call]  # it has no types
            picture.resize((200, 132)).save(buffer, "png")
            data = buffer.getvalue()
        self.machine.path("/tmp/photo").write_bytes(data)
        os.chmod(self.machine.path("/tmp/photo"), 0o644)
        self.machine.run("cp", "/tmp/photo", f"{self.data}/inbox/{name}", user=user)

    def sidecar(self, name: str) -> dict[str, dict[str, object]]:
        """Return the sidecar of a result."""
        text = self.machine.path(f"{self.data}/outbox/red-trees/{name}.json").read_text()
        content: dict[str, dict[str, object]] = json.loads(text)
        return content

    def wait_for(self, path: str, seconds: float = 90) -> None:
        """Wait until a file exists below the data folder."""
        self.machine.wait_until(lambda: self.machine.path(f"{self.data}/{path}").exists(), seconds)

    def events(self, name: str) -> list[dict[str, object]]:
        """Return all log events of one name, each with the `PRIORITY` of its journal entry."""
        events = []
        for entry in self.machine.journal(self.unit):
            message = entry["MESSAGE"]
            if isinstance(message, str) and message.startswith("{"):
                event = json.loads(message)
                if event.get("event") == name:
                    events.append({**event, "PRIORITY": entry["PRIORITY"]})
        return events

    def messages(self) -> str:
        """Return the messages of all journal entries of the unit, one per line."""
        return "\n".join(str(entry["MESSAGE"]) for entry in self.machine.journal(self.unit))

    def property(self, name: str) -> str:
        """Return a property of the unit."""
        return self.machine.property(self.unit, name)

    def pid(self) -> str:
        """Return the ID of the main process."""
        return self.property("MainPID")

    def drop_in(self, name: str, text: str) -> None:
        """Write a drop-in file for the unit, as `systemctl edit` does; an empty text removes it."""
        path = f"/etc/systemd/system/{self.unit}.service.d/{name}.conf"
        if text:
            self.write(path, text)
        else:
            self.machine.path(path).unlink(missing_ok=True)
        self.machine.systemctl("daemon-reload")

    def is_as_installed(self) -> bool:
        """Return whether the service is active, with its original unit and configuration."""
        drop_in = self.machine.path(f"/etc/systemd/system/{self.unit}.service.d/test.conf")
        config = self.machine.path(self.config).read_text()
        is_active = self.property("ActiveState") == "active"
        return is_active and config == self.configuration() and not drop_in.exists()

    def restart_clean(self) -> None:
        """Restart the service with empty folders and an empty journal, see `clear`."""
        self.clear()
        self.machine.systemctl("start", self.unit)

    def clear(self) -> None:
        """Stop the service, empty its folders and the journal, and reset its configuration."""
        self.machine.systemctl("stop", self.unit, check=False)
        self.machine.systemctl("reset-failed", self.unit, check=False)
        folders = ("outbox", "rejected", "archive", "state")
        self.machine.run("rm", "-rf", *(f"{self.data}/{folder}" for folder in folders))
        self.machine.run("sh", "-c", f"rm -rf {self.data}/inbox/*")
        self.machine.run("journalctl", "--rotate")
        self.machine.run("journalctl", "--vacuum-files=1")
        self.configure()


def documented_commands(heading: str) -> list[str]:
    """Return the commands of the first code block after a heading of docs/operations.md."""
    text = OPERATIONS.read_text("utf-8")
    block = re.search(r"```sh\n(.*?)```", text[text.index(heading) :], re.DOTALL)
    assert block is not None
    return [line for line in block[1].splitlines() if line]


def install(machine: Machine) -> Service:
    """Install the service as docs/operations.md describes.

    Two steps differ, because there is no network access: the wheel is built from the checkout, and
    the weights are the untrained network's.
    """
    pip, copy, init, fetch, enable = documented_commands("As a service")
    assert "pip install" in pip
    install_package(machine)
    machine.run("sh", "-ec", copy.replace("sudo ", ""))
    machine.run("sh", "-ec", init.replace("sudo ", "") + " --weights untrained")
    assert "weights fetch" in fetch
    service = Service(machine)
    machine.run("useradd", "--create-home", "--groups", "styled", "alice")
    hook = machine.run("sh", "-c", f"echo {PREFIX}/lib/python3*/site-packages").stdout.strip()
    service.write(f"{hook}/sitecustomize.py", SITECUSTOMIZE)
    path = machine.path(WEIGHTS)
    path.write_bytes(exported(Weights(untrained(), "untrained", "0" * 64)))
    path.chmod(0o644)
    service.configure()
    # Images this small gain nothing from more threads, and other tests may be running.
    service.drop_in("threads", "[Service]\nEnvironment=OMP_NUM_THREADS=1\n")
    machine.run(*shlex.split(enable.replace("sudo ", "")), timeout=200)
    return service
