"""`styled recipes --sheet`: one photo in one style painted by all recipes, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from rich.progress import Progress as ProgressBar
from rich.text import Text
from torch import Tensor

from styled import photos
from styled.atomic import atomic_write
from styled.cli.exit_codes import console, error_console, exit_with_usage_error
from styled.cli.find_config import find_config
from styled.cli.stylize import (
    FORMATS,
    MAX_PIXELS,
    is_same_file,
    load_engine,
    paint,
    progress_bar,
    require_writable,
)
from styled.codec.prepare import decode, prepare
from styled.codec.source_files import read_source_files
from styled.codec.style_check import check_style
from styled.config import EngineConfig, Style, StyleImage, resolve_recipe
from styled.engine.local_engine import LocalEngine
from styled.engine.scales import MIN_EDGE_PX, fit_long_edge, resize
from styled.errors import ConfigError, EngineFailure, InputRejected
from styled.ops.humanize import printable
from styled.recipes import RECIPES, Recipe, Size

COLUMNS = 4
_MARGIN_PX, _CAPTION_PX = 16, 44
_BACKGROUND, _TITLE_COLOR, _CAPTION_COLOR = "#f6f3ed", "#1d1b19", "#6b655c"


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of the sheet, with two lines of text below it.

    Attributes:
        image: 1x3xHxW in [0, 1].
    """

    image: Tensor
    title: str
    caption: str


@dataclass(frozen=True, slots=True)
class SheetRequest:
    """The command-line options of `styled recipes --sheet`.

    Attributes:
        photo: The photo.
        style: A style image, or the name of a configured style.
        out: Where to write the sheet.
        edge_px: Long edge of each picture in pixels.
        max_steps: Upper limit of the steps at each scale; None: no limit.
        strengths: Numbers from 0 to 100 with commas between them; None: that of the recipe.
        recipe: Only this one; None: all.
        weights: As for `styled stylize`.
        config: The configuration file, used if `style` is a name.
    """

    photo: Path
    style: str
    out: Path
    edge_px: int
    max_steps: int | None
    strengths: str | None
    recipe: str | None
    weights: str | None
    config: Path | None


def make_sheet(request: SheetRequest) -> None:
    """Paint a photo by every recipe and write the pictures to a contact sheet.

    Raises:
        StyledError: Invalid input, or the sheet can't be written.
    """
    photo, out, edge_px = request.photo, request.out, request.edge_px
    strengths = _strengths(request.strengths)
    names = list(RECIPES) if request.recipe is None else [resolve_recipe(request.recipe).name]
    sheet_format = FORMATS.get(out.suffix.lower())
    if sheet_format is None:
        exit_with_usage_error(f"--out: {out} should end in one of {', '.join(sorted(FORMATS))}")
    images, engine_config, state = _load_style(request.style, request.config)
    for picture in (photo, *(image.path for image in images)):
        if is_same_file(picture, out):
            exit_with_usage_error(f"--out: {out} is {picture} itself, and would be lost")
    if problems := check_style(Style(images, RECIPES["pyramid"]), max_pixels=MAX_PIXELS):
        raise ConfigError("\n".join(f"style: {problem}" for problem in problems))
    if request.weights is not None:
        engine_config = EngineConfig.model_validate(
            {**engine_config.model_dump(), "weights": request.weights}
        )
    try:
        cells = [_photo_cell(photo, "photo", edge_px)]
    except FileNotFoundError:
        raise InputRejected(f"{photo} does not exist", "look at its name") from None
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder", "name a file in it")
    require_writable(out.absolute().parent)
    cells += [_photo_cell(image.path, "style", edge_px) for image in images[:1]]
    with progress_bar() as bar:
        engine = load_engine(engine_config, bar, state)
        for name in names:
            for strength in strengths:
                recipe = RECIPES[name]
                if strength is not None:
                    recipe = replace(recipe, strength=strength)
                cells.append(
                    _painted_cell(engine, photo, images, recipe, edge_px, request.max_steps, bar)
                )
    columns = COLUMNS
    if request.strengths is not None:  # a row for each recipe, below the photo and the style
        columns = max(len(strengths), len(cells) - len(names) * len(strengths))
        color = torch.tensor(ImageColor.getrgb(_BACKGROUND)).view(1, 3, 1, 1) / 255
        blank = Cell(color.expand(1, 3, MIN_EDGE_PX, MIN_EDGE_PX), "", "")
        first = len(cells) - len(names) * len(strengths)
        cells[first:first] = [blank] * (columns - first)
    sheet = _draw_sheet(cells, edge_px, columns)
    atomic_write(out, photos.encode_image(sheet, sheet_format))
    for degradation in engine.info.degraded:
        error_console.print(Text(f"note: {degradation.message}"), soft_wrap=True)
    console.print(Text(printable(str(out))), soft_wrap=True)


def _strengths(text: str | None) -> list[float | None]:
    """Return the strengths of `--strengths`; one None if there are none."""
    if text is None:
        return [None]
    try:
        strengths: list[float | None] = [float(word) for word in text.split(",")]
    except ValueError:
        strengths = [-1.0]
    if not all(strength is not None and 0 <= strength <= 100 for strength in strengths):
        exit_with_usage_error("--strengths: expected numbers from 0 to 100, such as 20,50,80")
    return strengths


def _load_style(
    style: str, config_path: Path | None
) -> tuple[tuple[StyleImage, ...], EngineConfig, Path | None]:
    if Path(style).is_file():
        return (StyleImage(Path(style)),), EngineConfig(), None
    config = find_config(config_path)
    if style not in config.styles:
        raise ConfigError(
            f'"{style}" is neither a picture nor a configured style',
            f"the configuration has {', '.join(config.styles) or 'none'}",
        )
    return config.styles[style].images, config.engine, config.state


def _photo_cell(path: Path, title: str, edge_px: int) -> Cell:
    photo = decode(photos.read_bytes(path), max_pixels=MAX_PIXELS).photo
    image = photo.tensor(*fit_long_edge(photo.width, photo.height, edge_px))[:, :3]
    return Cell(image, title, path.name)


def _painted_cell(
    engine: LocalEngine,
    photo: Path,
    images: Sequence[StyleImage],
    recipe: Recipe,
    edge_px: int,
    max_steps: int | None,
    bar: ProgressBar,
) -> Cell:
    small = Size(long_edge=edge_px)
    recipe_steps = recipe.steps
    name = recipe.name if recipe.strength == 50 else f"{recipe.name} {recipe.strength:g}"
    steps = min(recipe_steps, max_steps or recipe_steps)
    style_size = small if isinstance(recipe.style_size, Size) else recipe.style_size
    recipe = replace(recipe, size=small, style_size=style_size, steps=steps)
    prepared = prepare(
        read_source_files(photo, Style(tuple(images), recipe)), recipe, max_pixels=MAX_PIXELS
    )
    started = time.monotonic()
    try:
        painted = paint(engine, prepared, bar, f"{name}: ")
    except EngineFailure as error:
        height, width = prepared.content.shape[-2:]
        blank = prepared.content.new_full((1, 3, height, width), 0.9)
        return Cell(blank, name, error.message)
    seconds = time.monotonic() - started
    steps_text = str(painted.steps) if steps == recipe_steps else f"{steps} of {recipe_steps}"
    return Cell(painted.image, name, f"{steps_text} steps, {seconds:.0f} s")


def _draw_sheet(cells: Sequence[Cell], edge_px: int, columns: int) -> Tensor:
    """Arrange the cells in rows, with their captions. Returns 1x3xHxW in [0, 1]."""
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    sizes = [fit_long_edge(cell.image.shape[3], cell.image.shape[2], edge_px) for cell in cells]
    tallest = max(height for _, height in sizes)
    column_px, row_px = edge_px + _MARGIN_PX, tallest + _MARGIN_PX + _CAPTION_PX
    width, height = columns * column_px + _MARGIN_PX, rows * row_px + _MARGIN_PX
    canvas = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    title_font, caption_font = ImageFont.load_default(16), ImageFont.load_default(12)
    for index, (cell, (w, h)) in enumerate(zip(cells, sizes, strict=True)):
        row, column = divmod(index, columns)
        left, bottom = _MARGIN_PX + column * column_px, _MARGIN_PX + row * row_px + tallest
        picture = photos.decode_photo(photos.encode_image(resize(cell.image, w, h), "png")).image
        canvas.paste(picture, (left, bottom - h))  # pictures of a row are aligned at the bottom
        draw.text((left, bottom + 6), cell.title, _TITLE_COLOR, title_font)
        caption = _truncate(cell.caption, caption_font, edge_px)
        draw.text((left, bottom + 26), caption, _CAPTION_COLOR, caption_font)
    pixels = torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8)
    return pixels.view(1, height, width, 3).permute(0, 3, 1, 2).float() / 255


def _truncate(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    line = "".join(c if c.isprintable() else "?" for c in text.partition("\n")[0])
    while font.getlength(line) > width and len(line) > 1:
        line = line[:-2] + "\N{HORIZONTAL ELLIPSIS}"
    return line
