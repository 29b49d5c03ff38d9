"""`styled recipes --sheet`: one photo in one style by all recipes, side by side, for choosing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from rich.progress import Progress as ProgressBar
from rich.text import Text
from torch import Tensor

from styled import photos
from styled.atomic import atomic_write
from styled.cli.exits import console, errors, leave_with_usage_error
from styled.cli.stylize import (
    FORMATS,
    MAX_PIXELS,
    is_same_file,
    load_engine,
    paint,
    progress_bar,
    require_writable,
)
from styled.cli.working_folder import find_config
from styled.config import EngineConfig, Style, StyleImage
from styled.engine.local import LocalEngine
from styled.engine.scales import fitted, resize
from styled.errors import ConfigError, EngineFailure, InputRejected
from styled.jobs.prepare import check_style, decode, prepare, read_inputs
from styled.ops.lines import printable
from styled.recipes import RECIPES, Recipe, Size

COLUMNS = 4
_MARGIN_PX, _CAPTION_PX = 16, 44
_PAPER, _INK, _PENCIL = "#f6f3ed", "#1d1b19", "#6b655c"


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of the sheet: 1x3xHxW in [0, 1], and two lines below it."""

    image: Tensor
    title: str
    caption: str


def make_sheet(
    photo: Path,
    style: str,
    out: Path,
    edge_px: int,
    most_steps: int | None,
    weights: str | None,
    config: Path | None,
) -> None:
    """Paint `photo` by every recipe, long edge `edge_px`, and write the sheet.

    Args:
        photo: The photo.
        style: A style image, or the name of a configured style.
        out: Where to write the sheet.
        edge_px: Of each picture.
        most_steps: No recipe takes more at each scale; None: as many as it has.
        weights: As for `styled stylize`.
        config: The configuration, for a style's name.

    Raises:
        StyledError: it can't be done; the message says why.
    """
    sheet_format = FORMATS.get(out.suffix.lower())
    if sheet_format is None:
        leave_with_usage_error(f"--out: {out} should end in one of {', '.join(sorted(FORMATS))}")
    images, engine_config, state = _style(style, config)
    for picture in (photo, *(image.path for image in images)):
        if is_same_file(picture, out):
            leave_with_usage_error(f"--out: {out} is {picture} itself, and would be lost")
    if problems := check_style(Style(images, RECIPES["pyramid"]), max_pixels=MAX_PIXELS):
        raise ConfigError("\n".join(f"style: {problem}" for problem in problems))
    if weights is not None:
        engine_config = EngineConfig.model_validate(
            {**engine_config.model_dump(), "weights": weights}
        )
    try:
        cells = [_picture(photo, "photo", edge_px)]
    except FileNotFoundError:
        raise InputRejected(f"{photo} does not exist", "look at its name") from None
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder", "name a file in it")
    require_writable(out.absolute().parent)
    cells += [_picture(image.path, "style", edge_px) for image in images[:1]]
    with progress_bar() as bar:
        engine = load_engine(engine_config, bar, state)
        for name in RECIPES:
            cells.append(_painted(engine, photo, images, RECIPES[name], edge_px, most_steps, bar))
    sheet = _sheet(cells, edge_px)
    atomic_write(out, photos.encode(sheet, sheet_format))
    for degradation in engine.info.degraded:
        errors.print(Text(f"note: {degradation.message}"), soft_wrap=True)
    console.print(Text(printable(str(out))), soft_wrap=True)


def _style(
    style: str, config: Path | None
) -> tuple[tuple[StyleImage, ...], EngineConfig, Path | None]:
    if Path(style).is_file():
        return (StyleImage(Path(style)),), EngineConfig(), None
    found = find_config(config)
    if style not in found.styles:
        raise ConfigError(
            f'"{style}" is neither a picture nor a configured style',
            f"the configuration has {', '.join(found.styles) or 'none'}",
        )
    return found.styles[style].images, found.engine, found.state


def _picture(path: Path, title: str, edge_px: int) -> Cell:
    photo = decode(photos.read_bytes(path), max_pixels=MAX_PIXELS).photo
    image = photo.tensor(*fitted(photo.width, photo.height, edge_px))[:, :3]
    return Cell(image, title, path.name)


def _painted(
    engine: LocalEngine,
    photo: Path,
    images: Sequence[StyleImage],
    recipe: Recipe,
    edge_px: int,
    most_steps: int | None,
    bar: ProgressBar,
) -> Cell:
    small = Size(long_edge=edge_px)
    name, asked = recipe.name, recipe.steps
    steps = min(asked, most_steps or asked)
    style_size = small if isinstance(recipe.style_size, Size) else recipe.style_size
    recipe = replace(recipe, size=small, style_size=style_size, steps=steps)
    prepared = prepare(
        read_inputs(photo, Style(tuple(images), recipe)), recipe, max_pixels=MAX_PIXELS
    )
    begun = time.monotonic()
    try:
        painted = paint(engine, prepared, bar, f"{name}: ")
    except EngineFailure as error:
        height, width = prepared.content.shape[-2:]
        blank = prepared.content.new_full((1, 3, height, width), 0.9)
        return Cell(blank, name, error.message)
    seconds = time.monotonic() - begun
    taken = str(painted.steps) if steps == asked else f"{steps} of {asked}"
    return Cell(painted.image, name, f"{taken} steps, {seconds:.0f} s")


def _sheet(cells: Sequence[Cell], edge_px: int) -> Tensor:
    """Return 1x3xHxW: the cells in rows, each with its captions."""
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    sizes = [fitted(cell.image.shape[3], cell.image.shape[2], edge_px) for cell in cells]
    tallest = max(height for _, height in sizes)
    column_px, row_px = edge_px + _MARGIN_PX, tallest + _MARGIN_PX + _CAPTION_PX
    width, height = columns * column_px + _MARGIN_PX, rows * row_px + _MARGIN_PX
    paper = Image.new("RGB", (width, height), _PAPER)
    drawing = ImageDraw.Draw(paper)
    title_font, caption_font = ImageFont.load_default(16), ImageFont.load_default(12)
    for index, (cell, (w, h)) in enumerate(zip(cells, sizes, strict=True)):
        row, column = divmod(index, columns)
        left, bottom = _MARGIN_PX + column * column_px, _MARGIN_PX + row * row_px + tallest
        picture = photos.decode(photos.encode(resize(cell.image, w, h), "png")).image
        paper.paste(picture, (left, bottom - h))  # all stand on one line, as on a shelf
        drawing.text((left, bottom + 6), cell.title, _INK, title_font)
        caption = _fitting(cell.caption, caption_font, edge_px)
        drawing.text((left, bottom + 26), caption, _PENCIL, caption_font)
    pixels = torch.frombuffer(bytearray(paper.tobytes()), dtype=torch.uint8)
    return pixels.view(1, height, width, 3).permute(0, 3, 1, 2).float() / 255


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text.partition("\n")[0])
    while font.getlength(shown) > width and len(shown) > 1:
        shown = shown[:-2] + "\N{HORIZONTAL ELLIPSIS}"
    return shown
