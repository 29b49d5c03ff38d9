"""Loading of VGG-19's weights: torchvision's download, a file, or random ones from a seed.

A file may contain the whole VGG-19 or only its convolutions, as `.pth` (loaded without running
code from it) or `.safetensors`.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import socket
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.hub import get_dir as torch_hub_folder

from styled.engine.download import download, file_sha256
from styled.engine.safetensors import read_safetensors, safetensors_bytes
from styled.engine.vgg import Convolutions
from styled.engine.vgg_layers import CONVOLUTION_NAMES, convolution_shapes
from styled.engine_api import OnBytes
from styled.errors import NoNetworkAccess, WeightsError

IMAGENET_SHA256_PREFIX = "dcbb9e9d"  # of torchvision's IMAGENET1K_V1; part of the file name

UNTRAINED_SEED = 0

# The index of each convolution in torchvision's `vgg19().features`.
TORCHVISION_INDEX: dict[str, int] = dict(
    zip(
        CONVOLUTION_NAMES, (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), strict=True
    )
)


@dataclass(frozen=True, slots=True)
class Weights:
    """The convolutions of a VGG-19 and their origin.

    Attributes:
        convolutions: Layer name -> kernel and bias, float32 on the CPU.
        source: `imagenet`, `untrained` or the file's path.
        sha256: Hexadecimal digest of the convolutions' values, independent of the file format.
    """

    convolutions: Convolutions
    source: str
    sha256: str


def imagenet_file() -> Path:
    """Return the path of the downloaded network: in torch's cache, shared with torchvision."""
    return Path(torch_hub_folder()) / "checkpoints" / f"vgg19-{IMAGENET_SHA256_PREFIX}.pth"


def load_weights(
    source: str | Path, on_bytes: OnBytes | None = None, *, may_download: bool = True
) -> Weights:
    """Load the weights for a value of `engine.weights`.

    Args:
        source: `imagenet`, `untrained`, or a `.pth` or `.safetensors` file.
        on_bytes: Called with bytes done and total bytes during a download.
        may_download: Whether `imagenet` is downloaded if it is missing.

    Raises:
        WeightsError: they are missing and can't be downloaded, or are damaged.
    """
    if source == "untrained":
        return _with_digest(untrained(), "untrained")
    if source == "imagenet":
        path = imagenet_file()
        if not path.exists():
            if not may_download:
                raise _imagenet_is_missing(f"there is no {path}")
            fetch_imagenet(on_bytes)
        return _with_digest(_read_file(path), "imagenet")
    return _with_digest(_read_file(Path(source)), str(source))


def fetch_imagenet(on_bytes: OnBytes | None = None) -> Path:
    """Download torchvision's VGG-19 unless an intact copy exists; return its path.

    Raises:
        WeightsError: it can't be downloaded; the remedies say what to do.
    """
    path = imagenet_file()
    try:
        download(_imagenet_url(), path, sha256_prefix=IMAGENET_SHA256_PREFIX, on_bytes=on_bytes)
    except WeightsError as error:
        if not _may_use_network():
            raise NoNetworkAccess(
                f"the pretrained network is not at {path}, and this process has no access to a "
                "network, as in the service's sandbox",
                "download it beforehand, once (548 MB): sudo -u styled env "
                f"TORCH_HOME={Path(torch_hub_folder()).parent} {_program()} weights fetch",
                *_other_remedies(),
            ) from error
        raise _imagenet_is_missing(error.message) from error
    return path


def _program() -> str:
    """Return the path of the command `styled` beside this Python: sudo may not find it by name."""
    path = Path(sys.executable).with_name("styled")
    return str(path) if path.exists() else "styled"


def _may_use_network() -> bool:
    """Return whether this process may open internet sockets: a sandbox may forbid it."""
    try:
        socket.socket(socket.AF_INET).close()
    except OSError as error:
        return error.errno not in (errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES)
    return True


def imagenet_is_whole() -> bool:
    """Return whether the downloaded network has the hash that is part of its name.

    Raises:
        FileNotFoundError: it does not exist.
        WeightsError: it can't be read.
    """
    path = imagenet_file()
    try:
        return file_sha256(path).startswith(IMAGENET_SHA256_PREFIX)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise WeightsError(
            f"the weights file {path} can't be read: {error.strerror}",
            "let the user that styled runs as read it",
        ) from error


def _imagenet_url() -> str:
    # A mirror must serve the same file: its hash is checked as well.
    if mirror := os.environ.get("STYLED_WEIGHTS_URL"):
        return mirror
    # Imported only for a download, because it takes longer to import than torch.
    try:
        from torchvision.models import VGG19_Weights
    except (ImportError, RuntimeError) as error:  # "operator torchvision::nms does not exist"
        raise WeightsError(
            f"torchvision can't be imported: {error}",
            "install builds of torch and torchvision that belong together: both for the CPU "
            "(uv pip install --torch-backend cpu), or both for the same CUDA",
        ) from error

    return str(VGG19_Weights.IMAGENET1K_V1.url)


def _imagenet_is_missing(reason: str) -> WeightsError:
    return WeightsError(
        f"the pretrained network is not on this machine: {reason}",
        f"connect to the internet and run styled weights fetch: {_imagenet_url()} (548 MB) is "
        "downloaded once",
        *_other_remedies(),
    )


def _other_remedies() -> tuple[str, ...]:
    return (
        f"or bring that file from another machine to {imagenet_file()}, or bring the 80 MB that "
        "styled weights export writes there, and set engine.weights to where they are",
        "or set engine.weights to untrained (--weights untrained): pictures are recognisable, "
        "but plainer",
    )


def exported(weights: Weights, dtype: torch.dtype = torch.float32) -> bytes:
    """Return the convolutions as the content of a .safetensors file.

    The tensors have torchvision's names. The metadata contain the source, its digest
    (`source_sha256`), and the digest of the convolutions in this file (`sha256`), which is what
    `load_weights` computes for it: rounding to half precision changes the digest.

    Args:
        weights: What to export.
        dtype: float32, or float16 for half the size.

    Raises:
        WeightsError: a value is too large for `dtype`.
    """
    stored = {name: (k.to(dtype), b.to(dtype)) for name, (k, b) in weights.convolutions.items()}
    tensors = {}
    for name in CONVOLUTION_NAMES:
        key = f"features.{TORCHVISION_INDEX[name]}"
        for part, tensor in zip(("weight", "bias"), stored[name], strict=True):
            if not tensor.isfinite().all():
                raise WeightsError(
                    f"{key}.{part} has values that {str(dtype).removeprefix('torch.')} can't hold",
                    "export in float32",
                )
            tensors[f"{key}.{part}"] = tensor
    widened = {name: (k.float(), b.float()) for name, (k, b) in stored.items()}
    metadata = {
        # Without the folder, which is meaningless on another machine.
        "source": Path(weights.source).name.encode(errors="backslashreplace").decode(),
        "source_sha256": weights.sha256,
        "sha256": weights_sha256(widened),
    }
    return safetensors_bytes(tensors, metadata)


def untrained(seed: int = UNTRAINED_SEED) -> Convolutions:
    """Return VGG-19 with orthogonal kernels (gain sqrt 2) and zero biases.

    Orthogonal kernels preserve the magnitude of activations from layer to layer, so that even
    the deep layers of an untrained network carry information about the picture. They are those of
    `torch.nn.init.orthogonal_`, but for rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    convolutions = {}
    for name, (channels, channels_in) in convolution_shapes().items():
        random = torch.empty(channels, channels_in * 9).normal_(generator=generator)
        # In float64, so that the float32 values hardly depend on the number of threads.
        rows = _orthonormal(random.double()).float().contiguous() * math.sqrt(2)
        convolutions[name] = rows.view(channels, channels_in, 3, 3), torch.zeros(channels)
    return convolutions


def _orthonormal(matrix: Tensor) -> Tensor:
    """Return the matrix with its rows, or its columns where they are fewer, orthonormalised.

    Random matrices that are far from square are so well conditioned that Cholesky's decomposition
    does it, in a fifth of the time of Householder's QR decomposition.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return _orthonormal(matrix.T).T
    factor = torch.linalg.cholesky(matrix @ matrix.T)
    orthonormal: Tensor = torch.linalg.solve_triangular(factor, matrix, upper=False)
    return orthonormal


def _read_file(path: Path) -> Convolutions:
    try:
        if path.suffix == ".safetensors":
            tensors = read_safetensors(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_mmap(path))
    except FileNotFoundError:
        raise WeightsError(
            f"the weights file {path} does not exist", "check engine.weights"
        ) from None
    except OSError as error:
        raise WeightsError(
            f"the weights file {path} can't be read: {error.strerror}",
            "let the user that styled runs as read it",
        ) from error
    # An unpickler or a parser may raise almost any exception for a malformed file.
    except Exception as error:
        raise WeightsError(
            f"the weights file {path} is damaged or not a file of tensors",
            "fetch it again; only .pth and .safetensors files of plain tensors are read",
        ) from error
    if not isinstance(tensors, Mapping):
        raise WeightsError(
            f"the weights file {path} holds no named tensors", "check engine.weights"
        )
    return _extract_convolutions(tensors, path)


def _can_mmap(path: Path) -> bool:
    # With mmap the 80 % of the whole network that is not convolutions is not read. It works
    # only with the zip format of torch 1.6 and later.
    return zipfile.is_zipfile(path)


def _extract_convolutions(tensors: Mapping[str, object], path: Path) -> Convolutions:
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
        if not (_is_finite(kernel) and _is_finite(bias)):
            raise WeightsError(f"the weights file {path} has values that are not finite in {key}")
        convolutions[name] = kernel, bias
    return convolutions


def _is_finite(tensor: Tensor) -> bool:
    # NaN and infinity are found by one pass; `isfinite().all()` takes five.
    return all(map(math.isfinite, map(float, tensor.aminmax())))


def _with_digest(convolutions: Convolutions, source: str) -> Weights:
    return Weights(convolutions, source, weights_sha256(convolutions))


def weights_sha256(convolutions: Convolutions) -> str:
    """Return the SHA-256 of all kernels and biases in float32, in the order of the layers."""
    digest = hashlib.sha256()
    for name in CONVOLUTION_NAMES:
        for tensor in convolutions[name]:
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
