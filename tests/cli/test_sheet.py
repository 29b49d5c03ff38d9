"""`styled recipes --sheet`: a picture by every recipe, and nothing lost for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from styled.cli import sheet, stylize
from styled.cli.init import init_folder
from styled.engine.local import LocalEngine
from styled.errors import EngineFailure
from styled.recipes import RECIPES
from tests.cli.conftest import Run, draw

EDGE_PX = 64
UNTRAINED = ("--edge", str(EDGE_PX), "--weights", "untrained")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {name: replace(recipe, steps=1, scales=None) for name, recipe in RECIPES.items()}
    monkeypatch.setattr(sheet, "RECIPES", quick)
    # Elsewhere a graphics card may be found, which takes longer to start than all of this.
    monkeypatch.setattr("styled.engine.device.torch.cuda.is_available", lambda: False)


@pytest.fixture
def photo(here: Path) -> Path:
    return draw(here / "photo.png", size=(160, 120))


@pytest.fixture
def painting(here: Path) -> Path:
    return draw(here / "painting.png", "crimson", (90, 120))


def cells(path: Path) -> list[Image.Image]:
    """Return the pictures of a sheet: photo, style, and one for each recipe."""
    with Image.open(path) as image:
        found = image.convert("RGB")
    number = 2 + len(RECIPES)
    rows = -(-number // sheet.COLUMNS)
    step = EDGE_PX + sheet._MARGIN_PX
    width = sheet.COLUMNS * step + sheet._MARGIN_PX
    assert found.size == (width, rows * (step + sheet._CAPTION_PX) + sheet._MARGIN_PX)
    corners = [
        (sheet._MARGIN_PX + column * step, sheet._MARGIN_PX + row * (step + sheet._CAPTION_PX))
        for row in range(rows)
        for column in range(sheet.COLUMNS)
    ]
    return [found.crop((x, y, x + EDGE_PX, y + EDGE_PX)) for x, y in corners]


def paper_share(cell: Image.Image) -> float:
    """Return how much of a cell has the colour of the paper."""
    paper = np.array(Image.new("RGB", (1, 1), sheet._PAPER))
    distance = np.abs(np.asarray(cell).astype(int) - paper.astype(int)).max(axis=2)
    return float((distance <= 6).mean())


@pytest.mark.usefixtures("_network_at_hand")
def test_each_recipe_has_its_picture(run: Run, photo: Path, painting: Path) -> None:
    """Beside the photo and the style, all standing on one line, each cell filled by its shape."""
    result = run("recipes", "--sheet", photo, painting, "-o", "deep/sheet.png", *UNTRAINED)
    assert result.exit_code == 0, result.output
    out = photo.parent / "deep/sheet.png"
    assert "deep/sheet.png" in result.output
    assert "note: the network is untrained" in result.output
    found = cells(out)
    filled, empty = found[: 2 + len(RECIPES)], found[2 + len(RECIPES) :]
    for number, cell in enumerate(filled):
        # The photo is 64 x 48 there, and the style is 48 x 64.
        assert paper_share(cell) == pytest.approx(0.25, abs=0.1), number
        assert cell.getpixel((EDGE_PX // 2, EDGE_PX - 2)) != (246, 243, 237)
    assert all(paper_share(cell) > 0.99 for cell in empty)
    assert filled[0].getpixel((60, 60)) == (0, 128, 128)
    assert filled[1].getpixel((44, 60)) == (220, 20, 60)


@pytest.mark.usefixtures("_network_at_hand")
def test_a_style_of_the_configuration_is_named(run: Run, here: Path, photo: Path) -> None:
    """It brings its picture, and the engine is the configured one."""
    init_folder(here, weights="untrained")
    result = run("recipes", "--sheet", photo, "red-trees", "--edge", "64", "--steps", "1")
    assert result.exit_code == 0, result.output
    with Image.open(here / "sheet.jpg") as image:
        assert image.format == "JPEG"


@pytest.mark.usefixtures("_network_at_hand")
def test_a_recipe_that_fails_leaves_the_others(
    run: Run, photo: Path, painting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cell is grey, and says why."""
    failing = list(RECIPES)[1]

    def paint(engine: LocalEngine, prepared: object, bar: object, what: str) -> object:
        if what.startswith(failing):
            raise EngineFailure("memory is short\nvery short")
        return stylize.paint(engine, prepared, bar, what)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(sheet, "paint", paint)
    result = run("recipes", "--sheet", photo, painting, "-o", "sheet.png", *UNTRAINED)
    assert result.exit_code == 0, result.output
    found = cells(photo.with_name("sheet.png"))
    assert found[3].getpixel((32, 40)) == (230, 230, 230)
    assert paper_share(found[4]) < 0.5


@pytest.mark.parametrize(
    ("photo_name", "style", "out", "code", "words"),
    [
        ("gone.png", "painting.png", "sheet.jpg", 1, "gone.png does not exist"),
        ("text.jpg", "painting.png", "sheet.jpg", 1, "is not a picture"),
        ("photo.png", "text.jpg", "sheet.jpg", 78, "text.jpg"),
        ("photo.png", "oil", "sheet.jpg", 78, "config.yaml"),
        ("photo.png", "painting.png", "sheet.xyz", 2, "should end in one of"),
        ("photo.png", "painting.png", "photo.png", 2, "would be lost"),
        ("photo.png", "painting.png", "painting.png", 2, "would be lost"),
        ("photo.png", "painting.png", "folder.png", 78, "is a folder"),
        ("photo.png", "painting.png", "text.jpg/sheet.png", 73, "can't be written"),
    ],
)
def test_a_failure_is_told_before_anything_is_painted(
    run: Run, here: Path, photo: Path, painting: Path, photo_name: str, style: str, out: str,
    code: int, words: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With its code, and all files stay as they are."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was loaded for nothing")

    monkeypatch.setattr(sheet, "load_engine", refuse)
    (here / "text.jpg").write_text("Dear diary, this is no picture at all.")
    (here / "folder.png").mkdir()
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    result = run("recipes", "--sheet", photo_name, style, "-o", out, *UNTRAINED)
    assert result.exit_code == code, result.output
    assert words in result.output
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_a_style_that_is_not_there_is_told_with_those_that_are(
    run: Run, here: Path, photo: Path
) -> None:
    """Perhaps it was only misspelt."""
    init_folder(here)
    result = run("recipes", "--sheet", photo, "red-treez")
    assert result.exit_code == 78
    assert "red-trees" in result.output


@pytest.mark.parametrize("edge", ["63", "1025", "x"])
def test_an_edge_out_of_reach_is_a_usage_error(
    run: Run, photo: Path, painting: Path, edge: str
) -> None:
    """Too small to see anything, or too large to wait for."""
    assert run("recipes", "--sheet", photo, painting, "--edge", edge).exit_code == 2


def test_captions_stay_below_their_picture() -> None:
    """Long ones are cut, and what can't be drawn is replaced."""
    font = ImageFont.load_default(12)
    cut = sheet._fitting("a name that is longer than any picture is wide.jpg", font, EDGE_PX)
    assert font.getlength(cut) <= EDGE_PX
    assert cut.endswith("\N{HORIZONTAL ELLIPSIS}")
    assert sheet._fitting("caf\udce9\nline", font, EDGE_PX) == "caf?"
    assert sheet._fitting("", font, EDGE_PX) == ""
