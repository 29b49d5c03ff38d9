"""Settings for one photo, in a file beside it: `photo.jpg.yaml` for `photo.jpg`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from styled.config.load import problem_line
from styled.config.merging import apply_overrides, resolve_recipe
from styled.config.messages import expected, hint, quoted, refused
from styled.config.models import RecipeOrName, StyleOutput
from styled.config.overrides import RecipeOverrides, SizeOrLongEdge, Strength
from styled.config.problems import Problem, validate
from styled.config.resolved import Style
from styled.config.source import SourceError, parse
from styled.config.values import MAX_NAME_BYTES, Number, OrEmpty, Section
from styled.errors import ConfigError
from styled.files import INIT_SUFFIX, MASK_SUFFIX

MAX_BYTES = 64 * 1024


def _names(value: object) -> object:
    """Convert the short form `wave` to `[wave]`."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple) and value:
        return value
    raise expected("the name of a style, or a list of names")


def _check_mask(name: str) -> str:
    """Check that this is a name in the photo's folder, of a file that is never a photo itself."""
    return _check_name(name, MASK_SUFFIX)


def _check_init(name: str) -> str:
    """Check a name likewise."""
    return _check_name(name, INIT_SUFFIX)


def _check_name(name: str, suffix: str) -> str:
    is_writable = "/" not in name and "\0" not in name and name.isprintable()
    if not is_writable or not name.endswith(suffix) or len(name.encode()) > MAX_NAME_BYTES:
        raise refused(f"expected the name of a file beside the photo that ends in {suffix}")
    return name


class PhotoSettings(Section):
    """The settings of one photo; what is not given is as its style says."""

    style: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = Field(
        default=None, description="The style to paint it in, or a list of styles."
    )
    strength: Strength | None = Field(default=None, description="See the style's.")
    size: SizeOrLongEdge | None = Field(
        default=None, description="The long edge of the painting in pixels, or a size."
    )
    seed: Annotated[int, Number(ge=0, le=2**63 - 1)] | None = Field(
        default=None, description="Seed of everything random."
    )
    recipe: RecipeOrName | None = Field(
        default=None, description="A recipe in place of the style's."
    )
    overrides: OrEmpty[RecipeOverrides] = Field(
        default_factory=RecipeOverrides, description="Values that replace those of the recipe."
    )
    output: OrEmpty[StyleOutput] = Field(
        default_factory=StyleOutput, description="Values that replace those of the style's output."
    )
    init_image: Annotated[str, AfterValidator(_check_init)] | None = Field(
        default=None,
        description="An initial image, a file of the same folder whose name ends in .init.png.",
    )
    mask: Annotated[str, AfterValidator(_check_mask)] | None = Field(
        default=None,
        description="The mask, a file of the same folder whose name ends in .mask.png.",
    )

    def applied_to(self, style: Style) -> Style:
        """Return a style with these settings."""
        recipe = style.recipe
        if self.recipe is not None:
            recipe = resolve_recipe(self.recipe.name, self.recipe)
        recipe = apply_overrides(recipe, self.overrides)
        recipe = apply_overrides(recipe, RecipeOverrides(size=self.size, seed=self.seed))
        if self.strength is not None:
            recipe = replace(recipe, strength=self.strength)
        output = style.output.model_copy(update=self.output.model_dump(exclude_none=True))
        return replace(style, recipe=recipe, output=output)


def parse_photo_settings(data: bytes, path: Path, styles: Collection[str]) -> PhotoSettings:
    """Return the settings in a file.

    Args:
        data: The content of the file.
        path: Of the file, for messages.
        styles: The names of all styles.

    Raises:
        ConfigError: they are not valid; the message has one line for each problem.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path.name}: is larger than 64 KiB, so it is hardly a photo's settings")
    try:
        source = parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: not UTF-8 text; save the file as UTF-8") from error
    except SourceError as error:
        line = f":{error.line}" if error.line else ""
        raise ConfigError(f"{path.name}{line}: {error.message}") from error
    settings, problems = validate(PhotoSettings, {} if source.data is None else source.data)
    problems += source.problems
    # Of the file rather than of `settings`, which there are not if anything else is wrong.
    given = source.data.get("style") if isinstance(source.data, dict) else None
    names = given if isinstance(given, list) else [given]
    for index, name in enumerate(names):
        if isinstance(name, str) and name not in styles:
            message = f"{quoted(name)} is not a style{hint(name, styles, 'styles')}"
            problems.append(Problem(("style", index), message))
    if settings is None or problems:
        lines = sorted(problem_line(Path(path.name), source, problem) for problem in problems)
        raise ConfigError("\n".join(text for _, text in lines))
    return settings
