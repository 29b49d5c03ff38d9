"""Weights from files of all formats, from a seed, and from a download."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from styled.cli.exit_codes import exit_code_of
from styled.engine import weights as weights_module
from styled.engine.download import download
from styled.engine.safetensors import read_safetensors, safetensors_bytes
from styled.engine.vgg import Convolutions
from styled.engine.weights import (
    TORCHVISION_INDEX,
    UNTRAINED_SEED,
    Weights,
    exported,
    fetch_imagenet,
    imagenet_file,
    imagenet_is_whole,
    load_weights,
    untrained,
)
from styled.errors import NoNetworkAccess, WeightsError
from tests.engine.web import Answer, Web, serving


@pytest.fixture(scope="module")
def convolutions() -> Convolutions:
    """Return the untrained network."""
    return untrained()


@pytest.fixture(scope="module")
def state_dict(convolutions: Convolutions) -> dict[str, Tensor]:
    """Return the same as a state dict with torchvision's names."""
    state = {}
    for name, (kernel, bias) in convolutions.items():
        state[f"features.{TORCHVISION_INDEX[name]}.weight"] = kernel
        state[f"features.{TORCHVISION_INDEX[name]}.bias"] = bias
    return state


@pytest.fixture
def web() -> Iterator[Web]:
    """Run a local web server for one test."""
    with serving() as server:
        yield server


def test_untrained_kernels_are_orthogonal_with_gain_root_two(convolutions: Convolutions) -> None:
    """Rows of a kernel are orthogonal with a squared norm of two, and biases are zero."""
    kernel, bias = convolutions["conv2_1"]
    flat = kernel.flatten(1)
    torch.testing.assert_close(flat @ flat.T, 2 * torch.eye(128), rtol=0, atol=1e-4)
    assert not bias.any()


def test_untrained_kernels_are_those_of_torch(convolutions: Convolutions) -> None:
    """But for rounding; only the first layer's kernel has more rows than columns."""
    generator = torch.Generator().manual_seed(UNTRAINED_SEED)
    for name in ("conv1_1", "conv1_2", "conv2_1", "conv2_2"):
        expected = torch.empty_like(convolutions[name][0])
        torch.nn.init.orthogonal_(expected, gain=2**0.5, generator=generator)
        torch.testing.assert_close(convolutions[name][0], expected, rtol=0, atol=1e-6)


def test_untrained_is_the_same_every_time(convolutions: Convolutions) -> None:
    """The network depends only on the seed, bit for bit."""
    assert torch.equal(untrained()["conv5_4"][0], convolutions["conv5_4"][0])


def test_a_whole_network_and_its_convolutions_alone_are_the_same(
    tmp_path: Path, state_dict: dict[str, Tensor]
) -> None:
    """A .pth with a classifier, one without, and a .safetensors have the same digest."""
    whole = {**state_dict, "classifier.0.weight": torch.zeros(8, 8)}
    torch.save(whole, tmp_path / "whole.pth")
    torch.save(state_dict, tmp_path / "convolutions.pth", _use_new_zipfile_serialization=False)
    save_file(state_dict, tmp_path / "convolutions.safetensors")
    digests = {load_weights(path).sha256 for path in tmp_path.iterdir()}
    assert digests == {load_weights("untrained").sha256}


def test_float16_weights_are_read_as_float32(tmp_path: Path, state_dict: dict[str, Tensor]) -> None:
    """A float16 file gives float32 kernels close to the original."""
    save_file({k: v.half() for k, v in state_dict.items()}, tmp_path / "half.safetensors")
    kernel, _ = load_weights(tmp_path / "half.safetensors").convolutions["conv1_1"]
    assert kernel.dtype == torch.float32
    torch.testing.assert_close(kernel, state_dict["features.0.weight"], rtol=0, atol=1e-3)


def test_safetensors_are_read_as_the_safetensors_package_writes_them(tmp_path: Path) -> None:
    """Names, shapes, dtypes and values are kept; tensors of other dtypes are ignored."""
    tensors = {
        "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "b": torch.tensor([1.5], dtype=torch.bfloat16),
        "c": torch.tensor([[2.5]], dtype=torch.float64),
    }
    save_file({**tensors, "count": torch.tensor([3])}, tmp_path / "t.safetensors", {"by": "test"})
    found = read_safetensors(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_safetensors_need_not_be_aligned(tmp_path: Path) -> None:
    """A header may have any length, so that the values begin at an odd place."""
    values = torch.arange(5, dtype=torch.float32)
    header = b'{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,20]}}'
    assert len(header) % 4 == 3
    data = len(header).to_bytes(8, "little") + header + values.numpy().tobytes()
    (tmp_path / "odd.safetensors").write_bytes(data)
    assert torch.equal(read_safetensors(tmp_path / "odd.safetensors")["a"], values)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it mapped into memory, the process would be killed."""
    path = tmp_path / "shrinking.safetensors"
    save_file({"a": torch.zeros(100_000)}, path)

    parse = json.loads

    def shrink_and_parse(header: bytes) -> object:
        os.truncate(path, 50_000)
        return parse(header)

    monkeypatch.setattr("styled.engine.safetensors.json.loads", shrink_and_parse)
    with pytest.raises(ValueError, match="the file ends within a"):
        read_safetensors(path)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("pwned"),)  # type: ignore[return-value]  # never called


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.pth", b"this is no network"),
        ("empty.pth", b""),
        ("empty.safetensors", b""),
        ("cut.safetensors", (1 << 40).to_bytes(8, "little") + b"{"),
        ("nonsense.safetensors", (2).to_bytes(8, "little") + b"[]"),
        ("outside.safetensors", None),
    ],
)
def test_a_damaged_file_is_an_error_in_words(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    """A damaged file gives a WeightsError that names it."""
    if content is None:
        header = b'{"a":{"dtype":"F32","shape":[100],"data_offsets":[0,400]}}'
        content = len(header).to_bytes(8, "little") + header + b"\0" * 8
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        load_weights(tmp_path / name)


def test_code_in_a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .pth that would run code when unpickled is refused without running it."""
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError):
        load_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "pwned").exists()


def test_another_network_is_refused_with_what_is_missing(
    tmp_path: Path, state_dict: dict[str, Tensor]
) -> None:
    """If a convolution is missing, the error names it."""
    torch.save({k: v for k, v in state_dict.items() if "34" not in k}, tmp_path / "vgg16.pth")
    with pytest.raises(WeightsError, match=r"features\.34\.weight"):
        load_weights(tmp_path / "vgg16.pth")


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("name", ["features.5.weight", "features.5.bias"])
def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, state_dict: dict[str, Tensor], name: str, value: str
) -> None:
    """A single value is an error when loading, not during painting."""
    broken = {**state_dict, name: state_dict[name].clone()}
    broken[name].view(-1)[1] = float(value)
    torch.save(broken, tmp_path / "inf.pth")
    with pytest.raises(WeightsError, match="not finite"):
        load_weights(tmp_path / "inf.pth")


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The error contains the configured path."""
    with pytest.raises(WeightsError, match=r"nowhere\.pth does not exist"):
        load_weights(tmp_path / "nowhere.pth")


def test_safetensors_are_written_as_the_safetensors_package_reads_them(tmp_path: Path) -> None:
    """Names, shapes, dtypes, values and metadata are kept, for both readers."""
    tensors = {
        "half": torch.tensor([[1.5, -2.0, 3.0]], dtype=torch.float16),
        "brain": torch.tensor([1.5], dtype=torch.bfloat16),
        "turned": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
        "one": torch.tensor(2.5, dtype=torch.float64),
    }
    path = tmp_path / "t.safetensors"
    path.write_bytes(safetensors_bytes(tensors, {"source": "caf\xe9", "by": "test"}))
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"source": "caf\xe9", "by": "test"}
    for found in (load_file(path), read_safetensors(path)):
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)


# Export


@pytest.fixture(scope="module")
def weights(convolutions: Convolutions) -> Weights:
    """Return the untrained network with its digest."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(weights_module, "untrained", lambda: convolutions)
        return load_weights("untrained")


def test_an_export_is_the_same_network(
    tmp_path: Path, weights: Weights, state_dict: dict[str, Tensor]
) -> None:
    """An export of 80 MB has torchvision's names and the digest, and loads unchanged."""
    path = tmp_path / "vgg19.safetensors"
    path.write_bytes(exported(weights))
    assert 80_097_536 < path.stat().st_size < 80_103_000
    assert load_weights(path).sha256 == weights.sha256
    assert load_file(path).keys() == state_dict.keys()
    with safe_open(path, "pt") as file:
        assert file.metadata() == {
            "source": "untrained", "source_sha256": weights.sha256, "sha256": weights.sha256,
        }  # fmt: skip


def test_an_export_in_float16_is_half_as_large_and_bears_its_own_digest(
    tmp_path: Path, weights: Weights
) -> None:
    """Rounding changes the digest, so the metadata contain both, the new and the source's."""
    path = tmp_path / "half.safetensors"
    path.write_bytes(exported(weights, torch.float16))
    assert 40_048_768 < path.stat().st_size < 40_054_000
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["sha256"] == load_weights(path).sha256 != weights.sha256
    assert metadata["source_sha256"] == weights.sha256


def test_an_export_is_the_same_bytes_every_time_and_everywhere(
    convolutions: Convolutions, weights: Weights
) -> None:
    """Neither the order of convolutions nor the folder of the source changes the bytes."""
    in_reverse = {name: convolutions[name] for name in reversed(list(convolutions))}
    first, second = (
        exported(Weights(named, source, weights.sha256))
        for named, source in ((convolutions, "/a/n.pth"), (in_reverse, "/b/c/n.pth"))
    )
    assert first == second


def test_a_source_that_is_not_utf8_is_escaped_in_the_export(
    tmp_path: Path, weights: Weights
) -> None:
    """A file name that is not UTF-8 still gives a readable file."""
    named = Weights(weights.convolutions, "caf\udce9.pth", weights.sha256)
    (tmp_path / "n.safetensors").write_bytes(exported(named))
    with safe_open(tmp_path / "n.safetensors", "pt") as file:
        assert file.metadata()["source"] == r"caf\udce9.pth"


def test_values_too_large_for_float16_are_refused(
    convolutions: Convolutions, weights: Weights
) -> None:
    """A value that overflows is an error that names the tensor and the remedy."""
    kernel, bias = convolutions["conv1_2"]
    large = {**convolutions, "conv1_2": (kernel * 1e6, bias)}
    with pytest.raises(WeightsError, match=r"features\.2\.weight.*float16") as caught:
        exported(Weights(large, "large", weights.sha256), torch.float16)
    assert caught.value.remedies == ("export in float32",)


# Download


@pytest.fixture
def published(
    state_dict: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, web: Web
) -> bytes:
    """Serve the untrained network as `imagenet` from the local server, with an empty cache."""
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    data = buffer.getvalue()
    monkeypatch.setattr(
        weights_module, "IMAGENET_SHA256_PREFIX", hashlib.sha256(data).hexdigest()[:8]
    )
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STYLED_WEIGHTS_URL", web.url)
    monkeypatch.setattr(weights_module, "download", partial(download, sleep=lambda seconds: None))
    return data


def left_behind(tmp_path: Path) -> list[Path]:
    """Return all files in the cache."""
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_the_network_is_fetched_once_and_then_found(
    web: Web, published: bytes, tmp_path: Path
) -> None:
    """The first load downloads with progress; the second sends no request."""
    web.serve(published)
    seen: list[tuple[int, int]] = []
    first = load_weights("imagenet", lambda done, total: seen.append((done, total)))
    assert first.source == "imagenet"
    assert seen[-1] == (len(published), len(published))
    assert load_weights("imagenet").sha256 == first.sha256
    assert web.requests == 1
    assert len(left_behind(tmp_path)) == 1


def test_a_broken_connection_that_cannot_be_resumed_leaves_no_half_network(
    web: Web, published: bytes, tmp_path: Path
) -> None:
    """From a server without ranges only the whole file gets a name; a later load succeeds."""
    web.script(Answer(published, cut_at=100_000, ranges=False))
    with pytest.raises(WeightsError, match="not on this machine"):
        load_weights("imagenet")
    assert not imagenet_file().exists()
    assert all(path.name.startswith(".") for path in left_behind(tmp_path))
    web.script(Answer(published, ranges=False))
    assert load_weights("imagenet").source == "imagenet"
    assert left_behind(tmp_path) == [imagenet_file()]


def test_a_broken_connection_is_gone_on_with_at_a_later_start(
    web: Web, published: bytes, tmp_path: Path
) -> None:
    """An interrupted download is resumed; until it is complete the final path does not exist."""
    web.script(Answer(published, cut_at=100_000), Answer(status=503, data=b""))
    with pytest.raises(WeightsError, match="kept for the next time"):
        load_weights("imagenet")
    assert not imagenet_file().exists()
    kept = left_behind(tmp_path)
    assert kept
    assert all(path.name.startswith(".") for path in kept)
    web.serve(published)
    assert load_weights("imagenet").source == "imagenet"
    assert web.requested_ranges[-1] == "bytes=100000-"
    assert left_behind(tmp_path) == [imagenet_file()]


def test_a_process_without_network_access_has_its_own_error(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sandbox that forbids sockets a later start is no better: that is another error."""

    def forbidden(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr("socket.socket", forbidden)
    with pytest.raises(NoNetworkAccess) as caught:
        load_weights("imagenet")
    assert "has no access to a network" in caught.value.message
    assert f"TORCH_HOME={imagenet_file().parents[2]} " in str(caught.value)
    assert "styled weights fetch" in str(caught.value)
    assert exit_code_of(caught.value) == 78


def test_fetching_leaves_a_whole_file_alone_and_replaces_a_damaged_one(
    web: Web, published: bytes, tmp_path: Path
) -> None:
    """A cached file is kept if its hash is right, and replaced otherwise."""
    web.serve(published)
    path = fetch_imagenet()
    assert imagenet_is_whole()
    assert fetch_imagenet() == path
    assert web.requests == 1
    path.write_bytes(published[:-1])
    assert not imagenet_is_whole()
    fetch_imagenet()
    assert path.read_bytes() == published
    assert left_behind(tmp_path) == [path]


def test_looking_does_not_download(web: Web, published: bytes, tmp_path: Path) -> None:
    """With `may_download=False` a missing network is an error with remedies."""
    web.serve(published)
    with pytest.raises(WeightsError) as caught:
        load_weights("imagenet", may_download=False)
    assert len(caught.value.remedies) == 3
    assert web.requests == 0
    assert left_behind(tmp_path) == []


def test_a_server_that_lies_is_not_believed(web: Web, published: bytes, tmp_path: Path) -> None:
    """Content with another hash never appears at the final path."""
    web.serve(published[:-1] + b"!")
    with pytest.raises(WeightsError, match="SHA-256"):
        load_weights("imagenet")
    assert left_behind(tmp_path) == []


def test_no_connection_names_three_remedies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a network the remedies are to connect, to copy a file, or to use `untrained`."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("STYLED_WEIGHTS_URL", "http://127.0.0.1:9/none")
    with pytest.raises(WeightsError) as caught:
        load_weights("imagenet")
    assert len(caught.value.remedies) == 3
    assert "untrained" in str(caught.value)


def test_a_missing_page_is_an_error(web: Web, published: bytes) -> None:
    """The error for HTTP 404 contains the status."""
    assert published
    with pytest.raises(WeightsError, match="404"):
        load_weights("imagenet")


def test_torchvision_is_imported_only_for_its_address() -> None:
    """torchvision, slower to import than torch, is only imported for a download."""
    code = "import sys, styled.app; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_torchvision_that_does_not_fit_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch for the CPU beside a torchvision for CUDA, for instance; with the remedy."""
    monkeypatch.delenv("STYLED_WEIGHTS_URL", raising=False)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)  # makes its import fail
    with pytest.raises(WeightsError, match="torchvision can't be imported") as caught:
        weights_module._imagenet_url()
    assert "belong together" in caught.value.remedies[0]
