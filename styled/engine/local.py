"""The engine that runs in this process: one resident network on one device."""

from __future__ import annotations

import resource
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from styled import __version__
from styled.engine.checkpoint import Checkpoint, dump_checkpoint, fingerprint_of, load_checkpoint
from styled.engine.device import Device, Precision, convolution_dtype
from styled.engine.style_cache import StyleCache
from styled.engine.stylize import Progress, Stylized, stylize
from styled.engine.vgg import Vgg19
from styled.engine.weights import Weights
from styled.errors import DeviceLost, EngineFailure
from styled.recipes import Recipe


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine is, for the sidecar.

    Attributes:
        degraded: In which ways it is less than what was asked for, in words.
    """

    weights_source: str
    weights_sha256: str
    device: str
    precision: str
    torch: str
    degraded: tuple[str, ...]


_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class LocalEngine:
    """Keeps one VGG-19 on one device and paints one picture at a time."""

    def __init__(
        self,
        weights: Weights,
        device: Device,
        precision: Precision = "auto",
        degraded: Sequence[str] = (),
    ) -> None:
        """Put the network on the device and run it once, so that the first job is not slower.

        Args:
            weights: From `load_weights`.
            device: From `choose_device`.
            precision: Of the convolutions.
            degraded: What was already given up on the way here, in words.
        """
        dtype = convolution_dtype(precision)
        self._network = Vgg19(weights.convolutions, device.torch_device, dtype)
        self._style_cache = StyleCache()
        untrained = ["the network is untrained"] if weights.source == "untrained" else []
        self.facts = EngineFacts(
            weights_source=weights.source,
            weights_sha256=weights.sha256,
            device=device.name,
            precision=str(dtype).removeprefix("torch."),
            torch=torch.__version__,
            degraded=(*([device.degraded] if device.degraded else []), *untrained, *degraded),
        )
        with torch.no_grad():
            self._network.features(
                torch.zeros(1, 3, 64, 64, device=device.torch_device), ["relu5_1"]
            )

    def stylize(
        self,
        content: Tensor,
        styles: Sequence[tuple[Tensor, float]],
        recipe: Recipe,
        resume: Checkpoint | None = None,
    ) -> Generator[Progress, None, Stylized]:
        """Paint one picture; see `styled.engine.stylize.stylize`.

        Raises:
            EngineFailure: the loss or the result went wrong, or there is too little memory.
            DeviceLost: the device broke; this process can't use it any more.
        """
        if self._network.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._network.device)
        painting = stylize(
            self._network, content, styles, recipe, resume, self._style_cache.targets
        )
        try:
            return (yield from painting)
        except RuntimeError as error:
            # torch has no types for these on all devices, only words.
            words = str(error).lower()
            if any(sign in words for sign in _OUT_OF_MEMORY):
                raise EngineFailure(
                    f"there is too little memory on {self.facts.device} for "
                    f"{content.shape[3]} x {content.shape[2]} pixels",
                    "lower the recipe's size, or its optimizer.history",
                ) from error
            if "cuda error" in words:
                raise DeviceLost(
                    f"{self.facts.device} broke while in use: {str(error).splitlines()[0]}",
                    "restart styled; if it happens again, look at the driver's messages (dmesg)",
                ) from error
            raise

    def fingerprint(
        self, content: Tensor, styles: Sequence[tuple[Tensor, float]], recipe: Recipe
    ) -> str:
        """Return a digest of all that decides the result, to bind checkpoints to it."""
        weighted = [part for image, weight in styles for part in (image, weight)]
        facts = self.facts
        return fingerprint_of(
            content, *weighted, recipe, facts.weights_sha256, facts.device, facts.precision,
            facts.torch, __version__,
        )  # fmt: skip

    def dump_checkpoint(self, checkpoint: Checkpoint, fingerprint: str) -> bytes:
        """Return a checkpoint as bytes."""
        return dump_checkpoint(checkpoint, fingerprint)

    def load_checkpoint(self, data: bytes, fingerprint: str) -> Checkpoint:
        """Read a checkpoint back onto the engine's device.

        Raises:
            ValueError: it is damaged or belongs to other work.
        """
        return load_checkpoint(data, fingerprint, self._network.device)

    def peak_memory_bytes(self) -> int:
        """Return the most memory used: by the last picture on a GPU, by the process on the CPU."""
        if self._network.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._network.device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
