"""Device, threads and versions: what affects a result's pixels besides the task itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

import torch

from styled import __version__
from styled.degradation import Degradation
from styled.engine.device import device_model, device_name


@dataclass(frozen=True, slots=True)
class Environment:
    """The hardware and software that a picture is computed with.

    Attributes:
        device: As `Device.name`.
        model: As `Device.model`.
        threads: torch's intra-op thread count.
        precision: The dtype of the convolutions.
        torch_version: torch's version.
        styled_version: styled's version.
    """

    device: str
    model: str
    threads: int
    precision: str
    torch_version: str
    styled_version: str

    @classmethod
    def current(cls, device: torch.device, dtype: torch.dtype) -> Environment:
        """Return the environment of the calling thread: torch's thread count is per thread."""
        return cls(
            device=device_name(device),
            model=device_model(device),
            threads=torch.get_num_threads(),
            precision=str(dtype).removeprefix("torch."),
            torch_version=str(torch.__version__),  # a plain str, which checkpoints need
            styled_version=__version__,
        )

    def described(self, differing: Collection[str]) -> str:
        """Return `cpu with 2 threads, torch 2.14.1`, plus the other fields in `differing`."""
        model = f" ({self.model})" if "model" in differing and self.model != self.device else ""
        threads = f" with {self.threads} thread{'' if self.threads == 1 else 's'}"
        precision = f" in {self.precision}" if "precision" in differing else ""
        version = f", styled {self.styled_version}" if "styled_version" in differing else ""
        return f"{self.device}{model}{threads}{precision}, torch {self.torch_version}{version}"


def resumed_elsewhere(
    before: Environment, now: Environment, *, again: bool = False
) -> Degradation | None:
    """Return the degradation of a job that is resumed, None if the environment is the same.

    Args:
        before: The environment that its checkpoint was made in.
        now: The environment that it is resumed in.
        again: Whether an earlier such degradation is recorded, which names the first environment.
    """
    differing = {
        field.name
        for field in fields(Environment)
        if getattr(before, field.name) != getattr(now, field.name)
    }
    if not differing:
        return None
    earlier = "before that" if again else "begun"
    return Degradation(
        "resumed",
        f"resumed on {now.described(differing)}; {earlier} on {before.described(differing)}",
    )
