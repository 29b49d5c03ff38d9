"""The Python interface: `styled.stylize` for one picture, `styled.Engine` for many.

>>> import styled
>>> painting = styled.stylize("photo.jpg", "great-wave.jpg", strength=70, size=1024)
>>> painting.save("painting.jpg")
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from PIL import Image

from styled import photos
from styled.codec.encode import encode
from styled.codec.prepare import Prepared, prepare
from styled.codec.source_files import SourceFile, SourceFiles
from styled.codec.style_pictures import StylePictures
from styled.config import EngineConfig, OutputConfig, apply_overrides, resolve_recipe
from styled.config.overrides import RecipeOverrides
from styled.config.problems import dotted, validate
from styled.engine.local_engine import LocalEngine
from styled.engine.memory import configure_allocator
from styled.engine_api import EngineInfo, Failed, OnBytes, Painted, Progress
from styled.engine_setup import make_engine
from styled.errors import ConfigError, InputRejected
from styled.precision_record import KnownPrecisions, PrecisionRecord
from styled.recipes import DEFAULT_RECIPE, Recipe

Picture = str | os.PathLike[str] | bytes | Image.Image
"""A picture: a path, the bytes of a file, or an image of Pillow's."""

_PICTURE_TYPES = (str, os.PathLike, bytes, Image.Image)

OnProgress = Callable[[Progress], None]

MEASURED = KnownPrecisions({})
"""What was measured for `precision: auto` in this process. It takes seconds, and all engines of a
program paint the same pixels."""


class Engine:
    """A network that stays on its device and paints any number of pictures, one after another.

    Attributes:
        info: Device, precision, weights and degradations.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        weights: str | os.PathLike[str] = "imagenet",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        on_bytes: OnBytes | None = None,
    ) -> None:
        """Load the network; the first time, `imagenet` is downloaded (548 MB) and verified.

        Args:
            device: auto, cpu, cuda, cuda:N or mps.
            weights: imagenet, untrained, or a .pth or .safetensors file.
            precision: Of the convolutions.
            on_bytes: Called during a download with the bytes received and the bytes in all.

        Raises:
            ConfigError: an argument is not valid.
            WeightsError, DeviceError: the network or the device is not available.
        """
        config, problems = validate(
            EngineConfig,
            {"device": device, "weights": os.fspath(weights), "precision": precision},
        )
        if config is None:
            raise ConfigError("; ".join(f"{dotted(p.path)}: {p.message}" for p in problems))
        self._engine = load_engine(config, on_bytes or _ignore_bytes, MEASURED)
        self._style_pictures = StylePictures()

    @property
    def info(self) -> EngineInfo:
        """Device, precision, weights and degradations."""
        return self._engine.info

    def stylize(
        self,
        photo: Picture,
        style: Picture | Sequence[Picture],
        *,
        recipe: str = DEFAULT_RECIPE,
        strength: float = 50.0,
        size: int | None = None,
        mask: Picture | None = None,
        on_progress: OnProgress | None = None,
        **overrides: object,
    ) -> Image.Image:
        """Paint a photo in a style.

        Args:
            photo: The photo. Its profile and its orientation are applied.
            style: One picture, or several to blend.
            recipe: pyramid, or a published one; see docs/recipes.md.
            strength: 0 (nearly the photo) to 100 (nearly texture alone), 50: the recipe as it is.
            size: Long edge of the painting in pixels; smaller photos are not enlarged. None: as
                the recipe says.
            mask: White is painted, black stays the photo, grey blends.
            on_progress: Called after each step; an exception that it raises ends the painting.
            overrides: Fields of the recipe, such as `steps=100` or `preserve_color="luminance"`.

        Returns:
            The painting: mode RGB, or RGBA if the photo has transparent parts; sRGB.

        Raises:
            ConfigError: an argument is not valid; the message names each.
            InputRejected: a picture can't be painted, or is too small.
            InputIncomplete: the photo ends too early.
            StyleUnavailable: a style image can't be used.
            EngineFailure, DeviceLost: the picture can't be painted, or the device has failed.
            FileNotFoundError: there is no such file.
        """
        chosen = _recipe(recipe, strength, size, overrides)
        styles = [style] if isinstance(style, _PICTURE_TYPES) else list(style)
        if not styles:
            raise ConfigError("style: expected a picture, or several")
        files = SourceFiles(
            _bytes_of(photo),
            tuple(
                SourceFile(_name_of(one, f"style {number}"), 1.0, _bytes_of(one))
                for number, one in enumerate(styles, start=1)
            ),
            None if mask is None else _bytes_of(mask),
        )
        prepared = prepare(
            files, chosen, max_pixels=photos.DEFAULT_MAX_PIXELS,
            style_pictures=self._style_pictures,
        )  # fmt: skip
        painted = paint(self._engine, prepared, on_progress or _ignore_progress)
        encoded = encode(prepared, painted, "png", OutputConfig(bits=8, metadata="strip"))
        with Image.open(io.BytesIO(encoded.data)) as image:
            image.load()
            return image


def stylize(
    photo: Picture,
    style: Picture | Sequence[Picture],
    *,
    recipe: str = DEFAULT_RECIPE,
    strength: float = 50.0,
    size: int | None = None,
    mask: Picture | None = None,
    device: str = "auto",
    weights: str | os.PathLike[str] = "imagenet",
    on_progress: OnProgress | None = None,
    **overrides: object,
) -> Image.Image:
    """Paint one photo; for several, an `Engine` loads the network only once.

    Arguments, result and errors are those of `Engine` and `Engine.stylize`.
    """
    return Engine(device=device, weights=weights).stylize(
        photo, style, recipe=recipe, strength=strength, size=size, mask=mask,
        on_progress=on_progress, **overrides,
    )  # fmt: skip


def load_engine(
    config: EngineConfig,
    on_bytes: OnBytes,
    record: PrecisionRecord | KnownPrecisions | None = None,
) -> LocalEngine:
    """Load the network of a configuration; see `make_engine`."""
    configure_allocator()
    return make_engine(config, on_bytes, record)


def paint(engine: LocalEngine, prepared: Prepared, on_progress: OnProgress) -> Painted:
    """Paint a prepared photo from the start, and report each step.

    Raises:
        EngineFailure, DeviceLost: it can't be painted, or the device has failed.
    """
    task = replace(prepared.task("stylize"), progress_seconds=0.0, checkpoint_seconds=None)
    for event in engine.run(task):
        match event:
            case Progress():
                on_progress(event)
            case Painted():
                return event
            case Failed(error):
                raise error
    raise AssertionError("a run ends with what was painted, or fails")


def _recipe(name: str, strength: float, size: int | None, overrides: dict[str, object]) -> Recipe:
    recipe = resolve_recipe(name)
    given = {**overrides, "strength": strength}
    if size is not None:
        given["size"] = {"long_edge": size, "upscale": False}
    model, problems = validate(RecipeOverrides, given)
    if model is None:
        raise ConfigError("; ".join(f"{dotted(p.path)}: {p.message}" for p in problems))
    return apply_overrides(recipe, model)


def _bytes_of(picture: Picture) -> bytes:
    if isinstance(picture, bytes):
        return picture
    if not isinstance(picture, Image.Image):
        return photos.read_bytes(Path(picture))
    file = io.BytesIO()
    options = {key: picture.info[key] for key in ("icc_profile", "exif") if key in picture.info}
    try:
        picture.save(file, "png", **options)
    except (OSError, ValueError):  # a mode that PNG has not, such as CMYK or F
        try:
            has_opacity = "a" in picture.mode.lower() and picture.mode != "LAB"
            picture.convert("RGBA" if has_opacity else "RGB").save(file, "png")
        except (OSError, ValueError) as error:
            raise InputRejected(
                f"an image of mode {picture.mode} can't be painted", "convert it to RGB"
            ) from error
    return file.getvalue()


def _name_of(picture: Picture, name: str) -> Path:
    return Path(picture) if isinstance(picture, str | os.PathLike) else Path(name)


def _ignore_progress(event: Progress) -> None:
    pass


def _ignore_bytes(done: int, total: int) -> None:
    pass
