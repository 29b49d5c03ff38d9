"""Degradations: how a result, or the service, is less than what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "device",
    "weights",
    "polling",
    "cluster",
    "diverged",
    "memory",
    "resumed",
    "restarted",
    "damaged",
    "frames",
    "bits",
    "color",
    "transparency",
    "metadata",
]

KINDS: Mapping[Kind, str] = {
    "device": "the CPU in place of a GPU",
    "weights": "the network is untrained",
    "polling": "the inbox is polled, since the system does not report changes",
    "cluster": "fewer engines than there could be: a machine is gone, refused or missing",
    "diverged": "the loss diverged, and the optimisation continued with safer settings",
    "memory": "tiles, a shorter L-BFGS history, fewer steps or a smaller size, for lack of memory",
    "resumed": "resumed on another device, or with other threads, precision, torch or styled",
    "restarted": "the work of an earlier start was lost: its checkpoint can't be used any more",
    "damaged": "part of the picture, or just the end of its file, is missing",
    "frames": "only the first of several frames or pages was used",
    "bits": "fewer bits than the photo has or than were asked for",
    "color": "a colour profile that was ignored, another colour space than asked for, or HDR that "
    "was tone-mapped",
    "transparency": "placed on white, since the format of the result has no transparency",
    "metadata": "EXIF, XMP or IPTC data that was damaged, too long or has no place in the file",
}
"""All kinds and their meanings; a stable interface for programs that read sidecars."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way in which something is less than what was asked for."""

    kind: Kind = field(
        metadata={"description": "; ".join(f"{kind}: {means}" for kind, means in KINDS.items())}
    )
    message: str = field(metadata={"description": "For people: a sentence without its full stop."})
