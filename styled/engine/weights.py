"""Where the network's weights come from: torchvision's download, a file, or a seed.

A file may hold the whole VGG-19 or only its convolutions, as `.pth` (read without
running any code from it) or `.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.hub import get_dir as torch_hub_folder
from torchvision.models import VGG19_Weights

from styled.engine.download import download
from styled.engine.vgg import CONVOLUTION_NAMES, Convolutions, convolution_shapes
from styled.errors import WeightsError

IMAGENET_SHA256_PREFIX = "dcbb9e9d"  # torchvision's IMAGENET1K_V1; it is part of the name

UNTRAINED_SEED = 0

# The place of each convolution in torchvision's `vgg19().features`.
TORCHVISION_INDEX: dict[str, int] = dict(
    zip(
        CONVOLUTION_NAMES, (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), strict=True
    )
)


@dataclass(frozen=True, slots=True)
class Weights:
    """The convolutions of a VGG-19 and where they come from.

    Attributes:
        convolutions: Layer name -> kernel and bias, float32 on the CPU.
        source: `imagenet`, `untrained` or the file's path.
        sha256: Of the convolutions themselves, so that the same network has the same
            digest whatever file it came in.
    """

    convolutions: Convolutions
    source: str
    sha256: str


def imagenet_file() -> Path:
    """Return where the downloaded network is kept: torch's own cache, shared with torchvision."""
    return Path(torch_hub_folder()) / "checkpoints" / f"vgg19-{IMAGENET_SHA256_PREFIX}.pth"


def load_weights(source: str | Path, on_bytes: Callable[[int, int], None] | None = None) -> Weights:
    """Load the network that the configuration names.

    Args:
        source: `imagenet`, `untrained`, or a `.pth` or `.safetensors` file.
        on_bytes: Called with bytes done and bytes in all while a download runs.

    Raises:
        WeightsError: they are missing and can't be downloaded, or are damaged.
    """
    if source == "untrained":
        return _described(untrained(), "untrained")
    if source == "imagenet":
        return _described(_read_file(_fetched_imagenet(on_bytes)), "imagenet")
    return _described(_read_file(Path(source)), str(source))


def _fetched_imagenet(on_bytes: Callable[[int, int], None] | None) -> Path:
    path = imagenet_file()
    if not path.exists():
        # A mirror may serve the same file; its hash is checked all the same.
        url = os.environ.get("STYLED_WEIGHTS_URL") or VGG19_Weights.IMAGENET1K_V1.url
        try:
            download(url, path, sha256_prefix=IMAGENET_SHA256_PREFIX, on_bytes=on_bytes)
        except WeightsError as error:
            raise WeightsError(
                f"the pretrained network is not on this machine: {error.message}",
                f"connect to the internet and start again: {url} (548 MB) is loaded once",
                f"or bring that file from another machine to {path}, or set engine.weights to "
                "where it is",
                "or set engine.weights to untrained (--weights untrained): pictures are "
                "recognisable, but plainer",
            ) from error
    return path


def untrained(seed: int = UNTRAINED_SEED) -> Convolutions:
    """Return VGG-19 with orthogonal kernels (gain sqrt 2) and zero biases.

    Orthogonal kernels keep the size of activations from layer to layer, so that even
    the deep layers of an untrained network say something about the picture.
    """
    generator = torch.Generator().manual_seed(seed)
    convolutions = {}
    for name, (channels, channels_in) in convolution_shapes().items():
        kernel = torch.empty(channels, channels_in, 3, 3)
        torch.nn.init.orthogonal_(kernel, gain=math.sqrt(2), generator=generator)
        convolutions[name] = kernel, torch.zeros(channels)
    return convolutions


def _read_file(path: Path) -> Convolutions:
    try:
        if path.suffix == ".safetensors":
            tensors = read_safetensors(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_map(path))
    except FileNotFoundError:
        raise WeightsError(
            f"the weights file {path} does not exist", "check engine.weights"
        ) from None
    except OSError as error:
        raise WeightsError(f"the weights file {path} can't be read: {error.strerror}") from error
    # A strange file can make an unpickler or a parser raise almost anything.
    except Exception as error:
        raise WeightsError(
            f"the weights file {path} is damaged or not a file of tensors",
            "fetch it again; only .pth and .safetensors files of plain tensors are read",
        ) from error
    if not isinstance(tensors, Mapping):
        raise WeightsError(
            f"the weights file {path} holds no named tensors", "check engine.weights"
        )
    return _picked_convolutions(tensors, path)


def _can_map(path: Path) -> bool:
    # Mapping spares reading the 80 % of the whole network that is not convolutions. Only
    # the zip format of torch 1.6 and later can be mapped.
    return zipfile.is_zipfile(path)


def _picked_convolutions(tensors: Mapping[str, object], path: Path) -> Convolutions:
    convolutions = {}
    for name, (channels, channels_in) in convolution_shapes().items():
        key = f"features.{TORCHVISION_INDEX[name]}"
        kernel, bias = tensors.get(f"{key}.weight"), tensors.get(f"{key}.bias")
        expected = (channels, channels_in, 3, 3)
        if (
            not isinstance(kernel, Tensor)
            or not isinstance(bias, Tensor)
            or tuple(kernel.shape) != expected
            or tuple(bias.shape) != (channels,)
        ):
            raise WeightsError(
                f"the weights file {path} is not a VGG-19: {key}.weight of shape {expected} and "
                f"{key}.bias of shape ({channels},) are expected ({name})",
                "use torchvision's vgg19 state dict, whole or only its features.*",
            )
        kernel, bias = kernel.float().clone(), bias.float().clone()
        if not (kernel.isfinite().all() and bias.isfinite().all()):
            raise WeightsError(f"the weights file {path} has values that are not finite in {key}")
        convolutions[name] = kernel, bias
    return convolutions


def _described(convolutions: Convolutions, source: str) -> Weights:
    digest = hashlib.sha256()
    for name in CONVOLUTION_NAMES:
        for tensor in convolutions[name]:
            digest.update(tensor.numpy().tobytes())
    return Weights(convolutions, source, digest.hexdigest())


_SAFETENSORS_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16}
_SAFETENSORS_DTYPES |= {"BF16": torch.bfloat16}
_SAFETENSORS_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the floating-point tensors of a .safetensors file.

    The format is a little-endian 64-bit length, a JSON header of that many bytes with
    type, shape and place of each tensor, and the raw data.

    Raises:
        ValueError: the file is not well formed.
        OSError: it can't be read.
    """
    data = path.read_bytes()
    header_bytes = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header_bytes > min(len(data) - 8, _SAFETENSORS_MAX_HEADER_BYTES):
        raise ValueError("the header is longer than the file")
    header = json.loads(data[8 : 8 + header_bytes])
    body = memoryview(bytearray(data[8 + header_bytes :]))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in _SAFETENSORS_DTYPES:
            continue
        dtype = _SAFETENSORS_DTYPES[entry["dtype"]]
        start, end = entry["data_offsets"]
        if (
            not 0 <= start < end <= len(body)
            or end - start != math.prod(entry["shape"]) * dtype.itemsize
        ):
            raise ValueError(f"{name} does not lie inside the file")
        tensors[name] = torch.frombuffer(body[start:end], dtype=dtype).reshape(entry["shape"])
    return tensors
