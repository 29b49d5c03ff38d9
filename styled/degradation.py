"""What a result or the service is less than what was asked for: a kind and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "device",
    "weights",
    "polling",
    "guard",
    "memory",
    "resumed",
    "frames",
    "bits",
    "color",
    "transparency",
    "metadata",
]
"""The set of kinds; programs may rely on it.

- `device`: the CPU in place of a GPU.
- `weights`: the network is untrained.
- `polling`: the inbox is polled, since the system does not report changes.
- `guard`: the loss diverged; the optimiser went on with safer settings.
- `memory`: memory was short; tiles, a shorter L-BFGS history or a smaller picture.
- `resumed`: resumed on another device, or with another thread count, precision, torch or styled.
- `frames`: only the first of several frames or pages was used.
- `bits`: fewer bits per channel than the photo or the output asked for.
- `color`: another colour space or profile than asked for, or a damaged profile.
- `transparency`: the format has none, so it was placed on white.
- `metadata`: EXIF, XMP or IPTC data that was damaged, too long or without a place in the format.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way in which something is less than what was asked for.

    Attributes:
        kind: For programs.
        message: For people, one sentence without a full stop.
    """

    kind: Kind
    message: str
