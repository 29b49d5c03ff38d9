"""Tests of `styled stylize`: small pictures, and failures."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from styled.cli import stylize
from styled.cli.init import init_folder
from styled.recipes import RECIPES
from styled.sidecar import SCHEMA_FILE
from tests.cli.conftest import Run, draw

SMALL = (
    *("--set", "size.long_edge=48", "--set", "steps=2"),
    *("--weights", "untrained", "--device", "cpu"),
)


@pytest.fixture
def photo(cwd: Path) -> Path:
    return draw(cwd / "photo.png")


@pytest.fixture
def painting(cwd: Path) -> Path:
    return draw(cwd / "painting.png", "crimson")


@pytest.mark.usefixtures("_cached_network")
def test_a_photo_becomes_a_picture_and_a_sidecar(run: Run, photo: Path, painting: Path) -> None:
    """OUT has the requested size, OUT.json is valid, and degradations are printed."""
    out = photo.with_name("deep") / "out.jpg"
    result = run("stylize", photo, "-s", painting, "-o", out, "--seed", "7", *SMALL)
    assert result.exit_code == 0, result.output
    with Image.open(out) as image:
        assert (image.format, image.size) == ("JPEG", (48, 36))
    sidecar = json.loads((out.parent / "out.jpg.json").read_bytes())
    jsonschema.validate(sidecar, json.loads(SCHEMA_FILE.read_bytes()))
    assert sidecar["result"]["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert sidecar["input"]["path"] == str(photo)
    assert sidecar["style"]["name"] == "painting"
    assert (sidecar["recipe"]["steps"], sidecar["recipe"]["seed"]) == (2, 7)
    assert sidecar["engine"]["device"] == "cpu"
    assert sidecar["degraded"] == [{"kind": "weights", "message": "the network is untrained"}]
    assert "note: the network is untrained" in result.output
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.jpg", "out.jpg.json"]


@pytest.mark.usefixtures("_cached_network")
def test_the_same_command_gives_the_same_bytes(run: Run, photo: Path, painting: Path) -> None:
    """Results on the CPU are identical, also for a file name that is not UTF-8.

    The precision is given: without a state folder `auto` measures it anew each time.
    """
    options = (*SMALL, "--precision", "float32")
    other = photo.with_name(os.fsdecode(b"caf\xe9.png"))
    other.write_bytes(photo.read_bytes())
    for source in (photo, other):
        out = source.with_name(f"{source.stem}-out.png")
        assert run("stylize", source, "-s", painting, "-o", out, *options).exit_code == 0
    one, two = sorted(photo.parent.glob("*-out.png"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.usefixtures("_cached_network")
def test_a_configured_style_has_its_daemons_precision_and_threads(
    run: Run, cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measured precision is cached in the state folder, if there is one."""
    shares = iter([2.0, 2.0])
    monkeypatch.setattr("styled.engine.precision.bfloat16_time_ratio", lambda device: next(shares))
    init_folder(cwd, weights="untrained")
    config = cwd / "config.yaml"
    config.write_text(config.read_text().replace("engine:\n", "engine:\n  threads: 1\n"))
    draw(cwd / "photo.png")
    options = ("--set", "size.long_edge=48", "--set", "steps=1", "--set", "scales=null")
    state = cwd / "state"
    for remembers in (False, True, True):
        assert state.is_dir() == remembers
        result = run("stylize", "photo.png", "--style", "red-trees", "-o", "out.png", *options)
        assert result.exit_code == 0, result.output
        assert json.loads((cwd / "out.png.json").read_bytes())["engine"]["threads"] == 1
        state.mkdir(exist_ok=True)
    assert next(shares, None) is None
    assert (state / "precision.json").exists()


@pytest.mark.usefixtures("_cached_network")
def test_a_style_of_the_configuration_brings_its_recipe_and_engine(run: Run, cwd: Path) -> None:
    """`--style` takes images, overrides and weights from the configuration."""
    init_folder(cwd, weights="untrained")
    photo = draw(cwd / "photo.png")
    options = ("--set", "size.long_edge=48", "--set", "steps=1", "--set", "scales=null")
    result = run("stylize", photo, "--style", "red-trees", "-o", "out.png", *options)
    assert result.exit_code == 0, result.output
    sidecar = json.loads((cwd / "out.png.json").read_bytes())
    assert sidecar["style"]["name"] == "red-trees"
    assert sidecar["engine"]["weights_source"] == "untrained"


@pytest.mark.usefixtures("_cached_network")
def test_a_photo_may_be_removed_while_it_is_painted(
    run: Run, photo: Path, painting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The photo is read only once."""
    paint = stylize.paint

    def remove(*arguments: object) -> object:
        photo.unlink()
        return paint(*arguments)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(stylize, "paint", remove)
    assert run("stylize", photo, "-s", painting, "-o", "out.png", *SMALL).exit_code == 0
    assert photo.with_name("out.png.json").exists()


@pytest.mark.usefixtures("_cached_network")
@pytest.mark.parametrize(
    ("size", "result", "painted", "detail_steps"),
    [("painted", (48, 36), (None, None), 0), ("input", (64, 48), (48, 36), 1)],
)
def test_a_result_may_be_as_large_as_its_photo(
    run: Run, photo: Path, painting: Path, size: str, result: tuple[int, int],
    painted: tuple[int | None, int | None], detail_steps: int,
) -> None:  # fmt: skip
    """`--size input` paints at the recipe's size first; the sidecar has both sizes."""
    options = (*SMALL, "--set", "detail_steps=1", "--size", size)
    completed = run("stylize", photo, "-s", painting, "-o", "out.png", *options)
    assert completed.exit_code == 0, completed.output
    with Image.open(photo.with_name("out.png")) as image:
        assert image.size == result
    result_info = json.loads(photo.with_name("out.png.json").read_bytes())["result"]
    assert (result_info["width"], result_info["height"]) == result
    assert (result_info["painted_width"], result_info["painted_height"]) == painted
    assert result_info["detail_steps"] == detail_steps


@pytest.mark.usefixtures("_cached_network")
def test_what_the_format_can_not_hold_is_a_note(run: Run, cwd: Path, painting: Path) -> None:
    """A degradation by the file format is printed to standard error and stored in the sidecar."""
    image = Image.new("RGBA", (64, 48), "#00800000")
    image.paste("gold", (0, 0, 32, 48))
    image.save(cwd / "photo.png")
    result = run("stylize", "photo.png", "-s", painting, "-o", "out.jpg", *SMALL)
    assert result.exit_code == 0, result.output
    note = "transparency was placed on white: JPEG files have none"
    assert f"note: {note}" in result.output
    assert json.loads((cwd / "out.jpg.json").read_bytes())["degraded"][-1] == {
        "kind": "transparency", "message": note,
    }  # fmt: skip


# Failures, which must be detected before the network is loaded.


@pytest.fixture
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was loaded for nothing")

    monkeypatch.setattr(stylize, "load_engine", refuse)


@pytest.mark.usefixtures("_no_engine")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("gone.png -s painting.png -o out.png", 1, "gone.png does not exist"),
        ("text.jpg -s painting.png -o out.png", 1, "is not a picture"),
        ("cut.png -s painting.png -o out.png", 1, "ends too early"),
        ("tiny.png -s painting.png -o out.png", 1, "too small"),
        (". -s painting.png -o out.png", 1, "not a regular file"),
        ("photo.png -s gone.png -o out.png", 78, "gone.png does not exist"),
        ("photo.png -s text.jpg -o out.png", 78, "text.jpg: "),
        ("photo.png -s painting.png -o out.png --set steps=many", 78, "--set steps: expected"),
        ("photo.png -s painting.png -o out.png --set stepz=3", 78, 'did you mean "steps"?'),
        ("photo.png -s painting.png -o out.png --set size.long_edge=32", 1, "32 pixels"),
        ("photo.png -s painting.png -o out.png --recipe pyramyd", 78, "pyramyd"),
        ("photo.png -s painting.png -o out.png --device gpu", 78, "--device: "),
        ("photo.png -s painting.png -o out.png --precision half", 78, "--precision: "),
        ("photo.png --style oil -o out.png", 78, "config.yaml"),
        ("photo.png --style oil -o out.png -c init/config.yaml", 78, 'no style "oil"'),
        ("photo.png -s painting.png -o folder.png", 78, "is a folder"),
        ("photo.png -s painting.png -o text.jpg/out.png", 73, "can't be written"),
        ("photo.png -s painting.png -o /proc/out.png", 73, "can't be written"),
        ("photo.png -o out.png", 2, "name a style"),
        ("photo.png -s painting.png --style oil -o out.png", 2, "name a style"),
        ("photo.png -s painting.png -o out.xyz", 2, "should end in one of"),
        ("photo.png -s painting.png -o photo.png", 2, "would be lost"),
        ("photo.png -s painting.png -o link.png", 2, "would be lost"),
        ("photo.png -s painting.png -o painting.png", 2, "would be lost"),
    ],
)
def test_a_failure_is_reported_with_its_code(
    run: Run, cwd: Path, photo: Path, painting: Path, arguments: str, code: int, message: str
) -> None:
    """Each failure gives one message and its exit code, and changes no files."""
    (cwd / "text.jpg").write_text("Dear diary, this is no picture at all.")
    (cwd / "cut.png").write_bytes(photo.read_bytes()[:-30])
    (cwd / "folder.png").mkdir()
    (cwd / "link.png").symlink_to(photo)
    draw(cwd / "tiny.png", size=(20, 20))
    init_folder(cwd / "init")
    before = {path: path.read_bytes() for path in cwd.rglob("*") if path.is_file()}
    result = run("stylize", *arguments.split())
    assert result.exit_code == code, result.output
    assert message in result.output
    assert result.output.startswith("styled: ")
    assert {path: path.read_bytes() for path in cwd.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "missing.pth"), "missing.pth"),
        (("--weights", "broken.pth"), "broken.pth"),
        (("--weights", "untrained", "--device", "cuda:99"), "cuda:99"),
    ],
)
def test_a_missing_network_or_device_is_69(
    run: Run, photo: Path, painting: Path, arguments: tuple[str, ...], message: str
) -> None:
    """Unreadable weights and a missing device give exit code 69."""
    photo.with_name("broken.pth").write_bytes(b"no network")
    result = run("stylize", photo, "-s", painting, "-o", "out.png", *arguments)
    assert result.exit_code == 69
    assert message in result.output
    assert not photo.with_name("out.png").exists()


@pytest.mark.usefixtures("_cached_network")
def test_the_strength_is_an_option(run: Run, photo: Path, painting: Path) -> None:
    """At 0 the painting is the photo; the sidecar says so, with the recipe's own weights."""
    result = run("stylize", photo, "-s", painting, "-o", "out.png", "--strength", "0", *SMALL)
    assert result.exit_code == 0, result.output
    sidecar = json.loads(Path("out.png.json").read_text())
    assert sidecar["recipe"]["strength"] == 0
    assert sidecar["recipe"]["tv_weight"] == RECIPES["pyramid"].tv_weight
    with Image.open("out.png") as painted, Image.open(photo) as original:
        expected = np.asarray(original.convert("RGB").resize(painted.size)).astype(int)
        assert np.abs(np.asarray(painted).astype(int) - expected).mean() < 3
    assert run("stylize", photo, "-s", painting, "-o", "b.png", "--strength", "101").exit_code == 2
