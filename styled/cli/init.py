"""`styled init`: a working folder with a configuration, folders and a first style."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from styled.atomic import atomic_write, make_folder
from styled.cli.demo_pictures import draw_painting
from styled.cli.exits import console
from styled.config import load_config
from styled.errors import ConfigError, ResourceUnavailable
from styled.ops.lines import printable

FIRST_STYLE = "red-trees"
_PLAIN = re.compile(r"[A-Za-z/][\w./-]*")
FIRST_STYLE_SIZE = (640, 480)

CONFIGURATION = """\
# The configuration of styled. `styled check` says whether it is right, and
# `styled config show` what every setting resolves to.

# Photos that are dropped here...
inbox: {inbox}
# ...come back here, as paintings.
outbox: {outbox}
{others}
# For photos that lie in no style's own folder.
default_style: {style}

# Each style has a folder of its own in the inbox. To add one, put a picture into
# styles/ and name it here; `systemctl reload styled` or SIGHUP is enough.
styles:
  {style}:
    image: styles/{style}.png
    overrides:
      size: {{long_edge: 512}}   # pixels; larger takes longer

engine:
  # imagenet is the network that was trained on a million photos (a download of 548 MB,
  # once). With untrained, pictures are plainer, but nothing has to be loaded.
  weights: {weights}
"""


_OTHERS = """\
# The originals, what can't be painted, and what styled has to remember.
archive: {archive}
rejected: {rejected}
state: {state}
"""


@dataclass(frozen=True, slots=True)
class WorkingFolder:
    """What `init_folder` has made."""

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
    """Make a working folder.

    Args:
        folder: Made if it is not there; nothing that is there is changed.
        weights: For the configuration.
        configuration: With fields {style}, {weights}, {inbox}, {outbox} and {others}.
        folders: Where inbox, outbox and the others are to be, which are not made then: that
            is for whoever runs the daemon. None: in `folder`.

    Raises:
        ResourceUnavailable: it can't be written, or has a configuration already.
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
    places = {
        name: _scalar(name if folders is None else str(folders.absolute() / name))
        for name in ("inbox", "outbox", "archive", "rejected", "state")
    }
    content = configuration.format(
        style=FIRST_STYLE,
        weights=_scalar(weights),
        others="" if folders is None else _OTHERS.format(**places),
        **places,
    )
    atomic_write(config, content.encode())
    try:
        inbox = load_config(config).inbox
    except ConfigError:
        config.unlink()  # such as for folders that lie in each other: it is of no use
        raise
    return WorkingFolder(folder, config, inbox, FIRST_STYLE)


def _scalar(text: str) -> str:
    """Return text as YAML takes it, in quotes where it needs them; JSON's will do."""
    if _PLAIN.fullmatch(text):
        return text
    # YAML takes some of what can't be seen for the end of a line, or for nothing.
    return "".join(
        character if character.isprintable() else f"\\U{ord(character):08x}"
        for character in json.dumps(text, ensure_ascii=False)
    )


def say_what_was_made(made: WorkingFolder) -> None:
    """Tell a person what is there now and what to do next."""
    for line in (
        f"{made.folder} is ready, with a first style, {made.style}.",
        f"Start:          styled run -c {made.config}",
        f"Drop photos in: {made.inbox}" + ("" if made.inbox.exists() else " (made by the start)"),
    ):
        console.print(Text(printable(line)), soft_wrap=True)
