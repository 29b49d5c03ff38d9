"""`styled init`: a working folder with a configuration, folders and a first style."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from styled.cli.demo_pictures import draw_painting
from styled.cli.exits import console
from styled.config import load_config
from styled.delivery.atomic import make_folder, write_whole
from styled.errors import ResourceUnavailable
from styled.ops.logs import printable

FIRST_STYLE = "red-trees"
FIRST_STYLE_SIZE = (640, 480)

CONFIGURATION = """\
# The configuration of styled. `styled check` says whether it is right, and
# `styled config show` what every setting resolves to.

# Photos that are dropped here...
inbox: inbox
# ...come back here, as paintings.
outbox: outbox

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


@dataclass(frozen=True, slots=True)
class WorkingFolder:
    """What `init_folder` has made."""

    folder: Path
    config: Path
    inbox: Path
    style: str


def init_folder(
    folder: Path, *, weights: str = "imagenet", configuration: str = CONFIGURATION
) -> WorkingFolder:
    """Make a working folder.

    Args:
        folder: Made if it is not there; nothing that is there is changed.
        weights: For the configuration.
        configuration: With fields {style} and {weights}.

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
        write_whole(painting, buffer.getvalue())
    for name in (f"inbox/{FIRST_STYLE}", "outbox"):
        make_folder(folder / name)
    write_whole(config, configuration.format(style=FIRST_STYLE, weights=weights).encode())
    load_config(config)
    return WorkingFolder(folder, config, folder / "inbox", FIRST_STYLE)


def say_what_was_made(made: WorkingFolder) -> None:
    """Tell a person what is there now and what to do next."""
    for line in (
        f"{made.folder} is ready, with a first style, {made.style}.",
        f"Start:          styled run -c {made.config}",
        f"Drop photos in: {made.inbox}",
    ):
        console.print(Text(printable(line)), soft_wrap=True)
