"""What decides the pixels of a result besides the work itself: device, threads, versions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

import torch

from styled import __version__
from styled.degradation import Degradation
from styled.engine.device import device_model, device_name


@dataclass(frozen=True, slots=True)
class Environment:
    """What a picture is computed on and with.

    Attributes:
        device: As `Device.name`.
        model: As `Device.model`.
        threads: torch's intra-op threads.
        precision: What convolutions compute in.
        torch_version: Of torch.
        styled_version: Of styled.
    """

    device: str
    model: str
    threads: int
    precision: str
    torch_version: str
    styled_version: str

    @classmethod
    def current(cls, device: torch.device, dtype: torch.dtype) -> Environment:
        """Return that of the calling thread: torch's thread count belongs to the thread."""
        return cls(
            device=device_name(device),
            model=device_model(device),
            threads=torch.get_num_threads(),
            precision=str(dtype).removeprefix("torch."),
            torch_version=str(torch.__version__),  # of a type that checkpoints may not hold
            styled_version=__version__,
        )

    def described(self, differing: Collection[str]) -> str:
        """Return `cpu with 2 threads, torch 2.14.1`, and of the rest what is `differing`."""
        model = f" ({self.model})" if "model" in differing and self.model != self.device else ""
        threads = f" with {self.threads} thread{'' if self.threads == 1 else 's'}"
        precision = f" in {self.precision}" if "precision" in differing else ""
        version = f", styled {self.styled_version}" if "styled_version" in differing else ""
        return f"{self.device}{model}{threads}{precision}, torch {self.torch_version}{version}"


def resumed_elsewhere(
    before: Environment, now: Environment, *, again: bool = False
) -> Degradation | None:
    """Return the degradation of a job that is resumed, None where nothing differs.

    Args:
        before: What its checkpoint was made on.
        now: What it goes on with.
        again: Whether it has been resumed elsewhere before, which was said then.
    """
    differing = {
        field.name
        for field in fields(Environment)
        if getattr(before, field.name) != getattr(now, field.name)
    }
    if not differing:
        return None
    until_then = "before that" if again else "begun"
    return Degradation(
        "resumed",
        f"resumed on {now.described(differing)}; {until_then} on {before.described(differing)}",
    )
