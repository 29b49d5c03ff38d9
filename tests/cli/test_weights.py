"""Tests of `styled weights`: show, fetch and export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from styled.cli.init import init_folder
from styled.engine import weights as weights_module
from styled.engine.download import download
from styled.engine.vgg import Convolutions
from styled.engine.weights import TORCHVISION_INDEX, imagenet_file, load_weights
from tests.cli.conftest import Run
from tests.engine.web import Answer, Web, serving

UNTRAINED_SHA256_LENGTH = 64


@pytest.fixture
def web() -> Iterator[Web]:
    """Run a local web server during a test."""
    with serving() as server:
        yield server


@pytest.fixture
def published(web: Web, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Replace the pretrained network by a small file on the local web server."""
    data = hashlib.shake_256(b"a network").digest(2_000_000)
    prefix = hashlib.sha256(data).hexdigest()[:8]
    monkeypatch.setattr(weights_module, "IMAGENET_SHA256_PREFIX", prefix)
    monkeypatch.setenv("STYLED_WEIGHTS_URL", web.url)
    monkeypatch.setattr(weights_module, "download", partial(download, sleep=lambda seconds: None))
    web.serve(data)
    return data


@pytest.fixture
def whole_file(cwd: Path, untrained_network: Convolutions) -> Path:
    """Write a network.pth that has more layers than the convolutions; return its path."""
    state = {"classifier.0.weight": torch.zeros(8, 8)}
    for name, (kernel, bias) in untrained_network.items():
        state[f"features.{TORCHVISION_INDEX[name]}.weight"] = kernel
        state[f"features.{TORCHVISION_INDEX[name]}.bias"] = bias
    torch.save(state, cwd / "network.pth")
    return cwd / "network.pth"


# show


def test_show_tells_file_size_and_digest(run: Run, cwd: Path, whole_file: Path) -> None:
    """For a configured file its path, size and digest are shown."""
    init_folder(cwd, weights="network.pth")
    result = run("weights", "show")
    assert result.exit_code == 0, result.output
    assert f"weights: {whole_file} (config.yaml)" in result.output
    assert f"file:    {whole_file} (80 MB)" in result.output
    assert load_weights(whole_file).sha256 in result.output


def test_show_for_programs_is_one_object(run: Run, cwd: Path, whole_file: Path) -> None:
    """`--json` prints the same values and the path of the configuration."""
    init_folder(cwd / "deep", weights=str(whole_file))
    result = run("weights", "show", "-c", cwd / "deep/config.yaml", "--json")
    assert json.loads(result.output) == {
        "source": str(whole_file),
        "configured_in": str(cwd / "deep/config.yaml"),
        "file": str(whole_file),
        "there": True,
        "bytes": whole_file.stat().st_size,
        "sha256": load_weights(whole_file).sha256,
    }


@pytest.mark.usefixtures("_cached_network")
def test_show_untrained_has_no_file(run: Run, cwd: Path) -> None:
    """Untrained weights have no file and are always available."""
    init_folder(cwd, weights="untrained")
    status = json.loads(run("weights", "show", "--json").output)
    assert (status["source"], status["file"], status["there"]) == ("untrained", None, True)
    assert len(status["sha256"]) == UNTRAINED_SHA256_LENGTH
    assert "made from a seed" in run("weights", "show").output


def test_show_without_a_configuration_tells_the_default(
    run: Run, web: Web, published: bytes
) -> None:
    """The default is imagenet; if it is missing: 69, all remedies, and no download."""
    result = run("weights", "show")
    assert result.exit_code == 69
    assert "imagenet (the default: there is no configuration)" in result.output
    assert f"{imagenet_file()} (missing)" in result.output
    assert "styled weights fetch" in result.output
    assert "styled weights export" in result.output
    assert "engine.weights to untrained" in result.output
    assert web.requests == 0


def test_show_for_programs_tells_what_is_missing_too(run: Run, cwd: Path) -> None:
    """The JSON object is complete even if the exit code is 69."""
    init_folder(cwd, weights="missing.pth")
    result = run("weights", "show", "--json")
    assert result.exit_code == 69
    status = json.loads(result.stdout)
    assert (status["there"], status["bytes"], status["sha256"]) == (False, None, None)
    assert "missing.pth does not exist" in result.stderr


def test_show_a_damaged_file_is_69(run: Run, cwd: Path) -> None:
    """An existing file that is not a network is reported as damaged."""
    init_folder(cwd, weights="network.pth")
    (cwd / "network.pth").write_bytes(b"no network")
    result = run("weights", "show")
    assert result.exit_code == 69
    assert f"file:    {cwd / 'network.pth'} (0 MB)" in result.output
    assert "damaged" in result.output


def test_show_with_a_wrong_configuration_is_78(run: Run, cwd: Path) -> None:
    """An invalid configuration gives exit code 78."""
    (cwd / "config.yaml").write_text("engine: {weights: maybe}\n")
    assert run("weights", "show").exit_code == 78


# fetch


def test_fetch_downloads_once(run: Run, web: Web, published: bytes) -> None:
    """The first fetch shows progress and the path; the second finds the file and does nothing."""
    first = run("weights", "fetch")
    assert first.exit_code == 0, first.output
    assert imagenet_file().read_bytes() == published
    assert str(imagenet_file()) in first.stdout
    assert "2.0/2.0 MB" in first.stderr
    second = run("weights", "fetch")
    assert second.exit_code == 0
    assert "here already" in second.stdout
    assert web.requests == 1


def test_fetch_replaces_a_damaged_file(run: Run, published: bytes) -> None:
    """A cached file with a wrong hash is reported and downloaded again."""
    imagenet_file().parent.mkdir(parents=True)
    imagenet_file().write_bytes(published[:-1])
    result = run("weights", "fetch")
    assert result.exit_code == 0
    assert "is damaged" in result.stderr
    assert imagenet_file().read_bytes() == published


def test_fetch_goes_on_with_what_an_earlier_one_has_got(
    run: Run, web: Web, published: bytes
) -> None:
    """A failed fetch keeps its partial file, and the next one requests only the remainder."""
    web.script(Answer(published, cut_at=500_000), Answer(b"", status=503))
    result = run("weights", "fetch")
    assert result.exit_code == 69
    assert "kept for the next time" in result.output
    web.serve(published)
    assert run("weights", "fetch").exit_code == 0
    assert web.requested_ranges[-1] == "bytes=500000-"


def test_fetch_without_a_network_is_69(
    run: Run, published: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedies say what to do without a network."""
    monkeypatch.setenv("STYLED_WEIGHTS_URL", "http://127.0.0.1:9/none")
    result = run("weights", "fetch")
    assert result.exit_code == 69
    assert "bring that file from another machine" in result.output


# export


@pytest.mark.parametrize(("dtype", "megabytes"), [("float32", 80), ("float16", 40)])
def test_export_writes_the_convolutions_only(
    run: Run, cwd: Path, whole_file: Path, dtype: str, megabytes: int
) -> None:
    """The exported file can replace the network, and exports are identical."""
    for name in ("a", "b"):
        out = cwd / name / "vgg19.safetensors"
        result = run("weights", "export", out, "--weights", whole_file, "--dtype", dtype)
        assert result.exit_code == 0, result.output
        assert f"({megabytes} MB, {dtype}, from {whole_file})" in result.output
        assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert out.read_bytes() == (cwd / "a/vgg19.safetensors").read_bytes()
    with safe_open(out, "pt") as file:
        assert file.metadata()["source"] == "network.pth"
        assert file.metadata()["sha256"] == load_weights(out).sha256
        assert len(file.keys()) == 32


@pytest.mark.usefixtures("_cached_network")
def test_export_takes_what_the_configuration_names(run: Run, cwd: Path) -> None:
    """Without `--weights`, `engine.weights` of `-c` or of ./config.yaml is exported."""
    init_folder(cwd, weights="untrained")
    assert run("weights", "export", "a.safetensors").exit_code == 0
    result = run("weights", "export", "b.safetensors", "-c", "config.yaml")
    assert "from untrained" in result.output
    assert (cwd / "a.safetensors").read_bytes() == (cwd / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg19.pth",), "try vgg19.safetensors"),
        (("vgg19",), "try vgg19.safetensors"),
        ((".",), "try vgg19.safetensors"),
        (("folder.safetensors",), "is a folder"),
        (("o.safetensors", "--weights", "untrained", "-c", "config.yaml"), "not both"),
        (("o.safetensors", "--dtype", "int8"), "int8"),
        (("same.safetensors", "--weights", "same.safetensors"), "would be lost"),
    ],
)
def test_export_refuses_in_words(
    run: Run, cwd: Path, arguments: tuple[str, ...], message: str
) -> None:
    """Usage errors exit with 2 and a suggestion, and write nothing."""
    (cwd / "folder.safetensors").mkdir()
    (cwd / "same.safetensors").write_bytes(b"a network")
    before = sorted(cwd.iterdir())
    result = run("weights", "export", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert sorted(cwd.iterdir()) == before
    assert (cwd / "same.safetensors").read_bytes() == b"a network"


def test_export_of_something_else_is_78(run: Run, cwd: Path) -> None:
    """An invalid value of `--weights` gives exit code 78."""
    result = run("weights", "export", "o.safetensors", "--weights", "resnet")
    assert result.exit_code == 78
    assert "--weights: " in result.output


def test_export_of_a_missing_file_is_69_and_leaves_nothing(run: Run, cwd: Path) -> None:
    """If the weights are missing, no output file is created."""
    result = run("weights", "export", "o.safetensors", "--weights", "missing.pth")
    assert result.exit_code == 69
    assert list(cwd.iterdir()) == []


@pytest.mark.usefixtures("_cached_network")
def test_export_where_nothing_can_be_written_is_73(run: Run, cwd: Path) -> None:
    """A file in place of a folder gives exit code 73."""
    (cwd / "file").write_text("a file")
    result = run("weights", "export", "file/o.safetensors", "--weights", "untrained")
    assert result.exit_code == 73
