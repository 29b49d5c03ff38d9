"""`styled init`: creates a working folder with a configuration, folders and a first style."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from styled.atomic import atomic_write, make_folder
from styled.cli import find_config
from styled.cli.demo_pictures import draw_painting
from styled.cli.exit_codes import console
from styled.config import load_config
from styled.errors import ConfigError, ResourceUnavailable
from styled.ops.humanize import printable

FIRST_STYLE = "red-trees"
_PLAIN = re.compile(r"[A-Za-z/][\w./-]*")
FIRST_STYLE_SIZE = (640, 480)

CONFIGURATION = """\
# The configuration of styled. `styled check` validates it, and `styled config show`
# prints it with the values of all settings.

# Photos that are dropped here...
inbox: {inbox}
# ...appear here as paintings.
outbox: {outbox}
{others}
# For photos that are not in the folder of a style.
default_style: {style}

# To add a style, put a picture into this folder: it is a style named after its file, whose folder
# in the inbox appears within seconds. Settings may be in a NAME.yaml beside NAME.jpg.
styles_folder: styles

# Styles that are listed here have their settings here.
styles:
  {style}:
    image: styles/{style}.png
    overrides:
      size: 512   # long edge in pixels; larger takes longer

engine:
  # imagenet: the network that was trained on a million photos (downloaded once, 548 MB).
  # untrained: simpler pictures, no download.
  weights: {weights}
"""


_OTHER_FOLDERS = """\
# The originals, photos that can't be painted, and the state of the daemon.
archive: {archive}
rejected: {rejected}
state: {state}
"""


@dataclass(frozen=True, slots=True)
class WorkingFolder:
    """The paths and the style that `init_folder` has created."""

    folder: Path
    config: Path
    inbox: Path
    style: str


def init_folder(
    folder: Path,
    *,
    weights: str = "imagenet",
    configuration: str = CONFIGURATION,
    folders: Path | None = None,
) -> WorkingFolder:
    """Create a working folder.

    Args:
        folder: Created if it does not exist; existing files are not changed.
        weights: The value of `engine.weights`.
        configuration: Template of the configuration file, with fields {style}, {weights}, {inbox},
            {outbox} and {others}.
        folders: Parent folder of inbox, outbox and the others, which are then not created: the
            user that runs the daemon does that. None: `folder`.

    Raises:
        ConfigError: The folders can't be used, for example because one contains another.
        ResourceUnavailable: The folder can't be written, or has a configuration already.
    """
    folder = folder.absolute()
    config = folder / "config.yaml"
    if config.exists():
        raise ResourceUnavailable(
            f"{config} is already there, and nothing was changed",
            f"use it (styled run -c {config}), or name another folder",
        )
    make_folder(folder / "styles")
    painting = folder / "styles" / f"{FIRST_STYLE}.png"
    if not painting.exists():
        buffer = io.BytesIO()
        draw_painting(*FIRST_STYLE_SIZE).save(buffer, "png")
        atomic_write(painting, buffer.getvalue())
    if folders is None:
        for name in (f"inbox/{FIRST_STYLE}", "outbox"):
            make_folder(folder / name)
    paths = {
        name: _scalar(name if folders is None else str(folders.absolute() / name))
        for name in ("inbox", "outbox", "archive", "rejected", "state")
    }
    content = configuration.format(
        style=FIRST_STYLE,
        weights=_scalar(weights),
        others="" if folders is None else _OTHER_FOLDERS.format(**paths),
        **paths,
    )
    atomic_write(config, content.encode())
    try:
        inbox = load_config(config).inbox
    except ConfigError:
        config.unlink()  # the folders are invalid, for example nested, so the file is useless
        raise
    return WorkingFolder(folder, config, inbox, FIRST_STYLE)


def _scalar(text: str) -> str:
    """Return text as a YAML scalar, with JSON's quotes if it needs any."""
    if _PLAIN.fullmatch(text):
        return text
    # YAML treats some unprintable characters as line breaks, or does not allow them.
    return "".join(
        character if character.isprintable() else f"\\U{ord(character):08x}"
        for character in json.dumps(text, ensure_ascii=False)
    )


def print_next_steps(created: WorkingFolder) -> None:
    """Print what was created and what to do next."""
    for line in (
        f"{created.folder} is ready, with a first style, {created.style}.",
        f"Start:          {_start_command(created.config)}",
        f"Drop photos in: {created.inbox}"
        + ("" if created.inbox.exists() else " (made by the start)"),
    ):
        console.print(Text(printable(line)), soft_wrap=True)


def _start_command(config: Path) -> str:
    """Return the command that starts a daemon, or a service if it is the configuration of one."""
    folder = config.absolute().parent
    if folder == find_config.SYSTEM_CONFIG.parent:
        return "sudo systemctl enable --now styled"
    if folder.parent == find_config.SYSTEM_CONFIG.parent:
        return f"sudo systemctl enable --now styled@{folder.name}"
    return f"styled run -c {config}"
