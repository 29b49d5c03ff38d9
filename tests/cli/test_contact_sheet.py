"""Tests of `styled recipes --sheet`: one picture per recipe; no file is overwritten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from styled.cli import contact_sheet, stylize
from styled.cli.init import init_folder
from styled.engine.local_engine import LocalEngine
from styled.errors import EngineFailure
from styled.recipes import RECIPES
from tests.cli.conftest import Run, draw

EDGE_PX = 64
UNTRAINED = ("--edge", str(EDGE_PX), "--weights", "untrained")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {name: replace(recipe, steps=1, scales=None) for name, recipe in RECIPES.items()}
    monkeypatch.setattr(contact_sheet, "RECIPES", quick)
    # Initialising a GPU would take longer than all of these tests.
    monkeypatch.setattr("styled.engine.device.torch.cuda.is_available", lambda: False)


@pytest.fixture
def photo(cwd: Path) -> Path:
    return draw(cwd / "photo.png", size=(160, 120))


@pytest.fixture
def painting(cwd: Path) -> Path:
    return draw(cwd / "painting.png", "crimson", (90, 120))


def cells(path: Path) -> list[Image.Image]:
    """Return the cells of a sheet: photo, style, one for each recipe, then the empty ones."""
    with Image.open(path) as image:
        sheet = image.convert("RGB")
    number = 2 + len(RECIPES)
    rows = -(-number // contact_sheet.COLUMNS)
    step = EDGE_PX + contact_sheet._MARGIN_PX
    width = contact_sheet.COLUMNS * step + contact_sheet._MARGIN_PX
    assert sheet.size == (
        width,
        rows * (step + contact_sheet._CAPTION_PX) + contact_sheet._MARGIN_PX,
    )
    corners = [
        (
            contact_sheet._MARGIN_PX + column * step,
            contact_sheet._MARGIN_PX + row * (step + contact_sheet._CAPTION_PX),
        )
        for row in range(rows)
        for column in range(contact_sheet.COLUMNS)
    ]
    return [sheet.crop((x, y, x + EDGE_PX, y + EDGE_PX)) for x, y in corners]


def background_share(cell: Image.Image) -> float:
    """Return the fraction of a cell that has the background colour of the sheet."""
    background = np.array(Image.new("RGB", (1, 1), contact_sheet._BACKGROUND))
    distance = np.abs(np.asarray(cell).astype(int) - background.astype(int)).max(axis=2)
    return float((distance <= 6).mean())


@pytest.mark.usefixtures("_cached_network")
def test_each_recipe_has_its_picture(run: Run, photo: Path, painting: Path) -> None:
    """The sheet has the photo, the style and one picture per recipe, aligned at the bottom."""
    result = run("recipes", "--sheet", photo, painting, "-o", "deep/sheet.png", *UNTRAINED)
    assert result.exit_code == 0, result.output
    out = photo.parent / "deep/sheet.png"
    assert "deep/sheet.png" in result.output
    assert "note: the network is untrained" in result.output
    sheet_cells = cells(out)
    filled, empty = sheet_cells[: 2 + len(RECIPES)], sheet_cells[2 + len(RECIPES) :]
    for number, cell in enumerate(filled):
        # In the sheet the photo is 64 x 48 pixels, and the style is 48 x 64.
        assert background_share(cell) == pytest.approx(0.25, abs=0.1), number
        assert cell.getpixel((EDGE_PX // 2, EDGE_PX - 2)) != (246, 243, 237)
    assert all(background_share(cell) > 0.99 for cell in empty)
    assert filled[0].getpixel((60, 60)) == (0, 128, 128)
    assert filled[1].getpixel((44, 60)) == (220, 20, 60)


@pytest.mark.usefixtures("_cached_network")
def test_a_style_of_the_configuration_is_named(run: Run, cwd: Path, photo: Path) -> None:
    """With the name of a style its image and the configured engine are used."""
    init_folder(cwd, weights="untrained")
    result = run("recipes", "--sheet", photo, "red-trees", "--edge", "64", "--steps", "1")
    assert result.exit_code == 0, result.output
    with Image.open(cwd / "sheet.jpg") as image:
        assert image.format == "JPEG"


@pytest.mark.usefixtures("_cached_network")
def test_a_recipe_that_fails_leaves_the_others(
    run: Run, photo: Path, painting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a recipe fails, its cell is grey and shows the reason."""
    failing = list(RECIPES)[1]

    def paint(engine: LocalEngine, prepared: object, bar: object, what: str) -> object:
        if what.startswith(failing):
            raise EngineFailure("memory is short\nvery short")
        return stylize.paint(engine, prepared, bar, what)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(contact_sheet, "paint", paint)
    result = run("recipes", "--sheet", photo, painting, "-o", "sheet.png", *UNTRAINED)
    assert result.exit_code == 0, result.output
    sheet_cells = cells(photo.with_name("sheet.png"))
    assert sheet_cells[3].getpixel((32, 40)) == (230, 230, 230)
    assert background_share(sheet_cells[4]) < 0.5


@pytest.mark.parametrize(
    ("photo_name", "style", "out", "code", "message"),
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
def test_a_failure_is_reported_before_anything_is_painted(
    run: Run, cwd: Path, photo: Path, painting: Path, photo_name: str, style: str, out: str,
    code: int, message: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Invalid input gives its message and exit code; the network is not loaded, no file changes."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was loaded for nothing")

    monkeypatch.setattr(contact_sheet, "load_engine", refuse)
    (cwd / "text.jpg").write_text("Dear diary, this is no picture at all.")
    (cwd / "folder.png").mkdir()
    before = {path: path.read_bytes() for path in cwd.rglob("*") if path.is_file()}
    result = run("recipes", "--sheet", photo_name, style, "-o", out, *UNTRAINED)
    assert result.exit_code == code, result.output
    assert message in result.output
    assert {path: path.read_bytes() for path in cwd.rglob("*") if path.is_file()} == before


def test_an_unknown_style_is_reported_with_the_known_ones(run: Run, cwd: Path, photo: Path) -> None:
    """The error for an unknown style lists the configured styles."""
    init_folder(cwd)
    result = run("recipes", "--sheet", photo, "red-treez")
    assert result.exit_code == 78
    assert "red-trees" in result.output


@pytest.mark.parametrize("edge", ["63", "1025", "x"])
def test_an_edge_out_of_reach_is_a_usage_error(
    run: Run, photo: Path, painting: Path, edge: str
) -> None:
    """`--edge` must be a number from 64 to 1024."""
    assert run("recipes", "--sheet", photo, painting, "--edge", edge).exit_code == 2


def test_captions_stay_below_their_picture() -> None:
    """Long captions are truncated, and unprintable characters are replaced."""
    font = ImageFont.load_default(12)
    cut = contact_sheet._truncate(
        "a name that is longer than any picture is wide.jpg", font, EDGE_PX
    )
    assert font.getlength(cut) <= EDGE_PX
    assert cut.endswith("\N{HORIZONTAL ELLIPSIS}")
    assert contact_sheet._truncate("caf\udce9\nline", font, EDGE_PX) == "caf?"
    assert contact_sheet._truncate("", font, EDGE_PX) == ""


@pytest.mark.usefixtures("_cached_network")
def test_strengths_have_a_row_for_each_recipe(run: Run, photo: Path, painting: Path) -> None:
    """Photo and style come first, in a row of their own; a name chooses a single recipe."""
    result = run("recipes", "pyramid", "--sheet", photo, painting, "-o", "sheet.png",
                 "--strengths", "0,50,100", *UNTRAINED)  # fmt: skip
    assert result.exit_code == 0, result.output
    step = EDGE_PX + contact_sheet._MARGIN_PX
    with Image.open("sheet.png") as image:
        sheet = image.convert("RGB")
    margin, caption = contact_sheet._MARGIN_PX, contact_sheet._CAPTION_PX
    assert sheet.size == (3 * step + margin, 2 * (step + caption) + margin)
    top = sheet.crop((margin, margin, margin + EDGE_PX, margin + EDGE_PX))
    low = margin + step + caption
    below = sheet.crop((margin, low, margin + EDGE_PX, low + EDGE_PX))
    difference = np.abs(np.asarray(top).astype(int) - np.asarray(below).astype(int))
    assert difference.mean() < 2  # strength 0 is the photo


@pytest.mark.parametrize("text", ["", "a", "20;50", "-1", "101", "20,,50"])
def test_strengths_that_are_none_are_a_usage_error(
    run: Run, photo: Path, painting: Path, text: str
) -> None:
    """Nothing is painted."""
    result = run("recipes", "--sheet", photo, painting, f"--strengths={text}", *UNTRAINED)
    assert result.exit_code == 2
    assert "expected numbers from 0 to 100" in result.output
