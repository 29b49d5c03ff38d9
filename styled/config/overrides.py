"""Models of recipe overrides: one optional field for each field of `Recipe`.

In these models null means "keep the recipe's value", as if the key were absent. The only
exception is `scales`, where null is a value: a single scale.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from styled.config.messages import expected, hint, quoted, refused
from styled.config.values import (
    Count,
    EdgePx,
    Expected,
    Flag,
    NonNegative,
    Number,
    Positive,
    Section,
    Steps,
)
from styled.recipes import (
    DEFAULT_RECIPE,
    LAYER_NAMES,
    RECIPES,
    ContentLoss,
    FirstPadding,
    Init,
    Keep,
    OptimizerName,
    Pooling,
    PreserveColor,
    RecipePrecision,
    Resample,
    Space,
    StyleFit,
    StyleLoss,
    TotalVariationLoss,
    Upscale,
)


def _check_layer(name: str) -> str:
    if name not in LAYER_NAMES:
        raise refused(f"unknown layer{hint(name, LAYER_NAMES, 'layers')}")
    return name


def _check_recipe(name: str) -> str:
    if name not in RECIPES:
        raise refused(f"unknown recipe {quoted(name)}{hint(name, RECIPES, 'recipes')}")
    return name


def _check_any_weight(layers: dict[str, float]) -> dict[str, float]:
    if not any(layers.values()):
        raise refused("needs at least one layer with a weight > 0")
    return layers


LayerName = Annotated[
    str, AfterValidator(_check_layer), Field(json_schema_extra={"enum": list(LAYER_NAMES)})
]
RecipeName = Annotated[
    str, AfterValidator(_check_recipe), Field(json_schema_extra={"enum": list(RECIPES)})
]
LayerWeights = Annotated[dict[LayerName, NonNegative], AfterValidator(_check_any_weight)]
WidthAndHeight = Annotated[
    tuple[EdgePx, EdgePx],
    Expected("[width, height], two whole numbers from 32 to 30000"),
]
Strength = Annotated[float, Number(ge=0, le=100)]
Decay = Annotated[float, Number(ge=0, lt=1)]
Betas = Annotated[tuple[Decay, Decay], Expected("two numbers >= 0 and < 1, such as [0.9, 0.99]")]


class SizeOverrides(Section):
    """Size of the result in pixels; at most one of the first four keys may be given."""

    long_edge: EdgePx | None = Field(default=None, description="Pixels of the longer edge.")
    short_edge: EdgePx | None = Field(default=None, description="Pixels of the shorter edge.")
    megapixels: Annotated[float, Number(gt=0, le=900)] | None = Field(
        default=None, description="Total number of pixels, in millions."
    )
    exact: WidthAndHeight | None = Field(
        default=None,
        description="Width and height in pixels; the photo's aspect ratio is not kept.",
    )
    upscale: Upscale | None = Field(
        default=None,
        description="Whether a photo smaller than the size is enlarged to it; to_long_edge: at "
        "most until its short edge is as long as its long edge was.",
    )

    @model_validator(mode="after")
    def _check_single_size(self) -> Self:
        given = [name for name in SIZE_CHOICES if getattr(self, name) is not None]
        if len(given) > 1:
            raise refused(f"give only one of {', '.join(SIZE_CHOICES)}; here are {len(given)}")
        return self


def _size_by_long_edge(value: object) -> object:
    """Convert the short form `1024` to `{long_edge: 1024}`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"long_edge": value}
    if isinstance(value, dict | SizeOverrides):
        return value
    raise expected("the long edge in pixels, or a mapping such as {megapixels: 2}")


SizeOrLongEdge = Annotated[
    SizeOverrides,
    BeforeValidator(_size_by_long_edge, json_schema_input_type=EdgePx | SizeOverrides),
]

SIZE_CHOICES = ("long_edge", "short_edge", "megapixels", "exact")


class ScalesOverrides(Section):
    """Coarse to fine: small versions of the picture are optimised first, then larger ones."""

    start_px: EdgePx | None = Field(
        default=None, description="Approximate long edge of the first scale."
    )
    factor: Annotated[float, Number(gt=1)] | None = Field(
        default=None, description="Ratio of the long edges of neighbouring scales."
    )
    steps: Steps | None = Field(default=None, description="Steps at each scale but the last.")


class OptimizerOverrides(Section):
    """How the pixels are optimised at each scale."""

    name: OptimizerName | None = Field(default=None, description="The optimisation method.")
    learning_rate: Positive | None = Field(default=None, description="The learning rate.")
    decay: Annotated[float, Number(gt=0, le=1)] | None = Field(
        default=None, description="The learning rate is multiplied by this..."
    )
    decay_every: Annotated[int, Number(ge=0, le=100_000)] | None = Field(
        default=None, description="...after every so many steps; 0: never."
    )
    history: Annotated[int, Number(ge=1, le=100)] | None = Field(
        default=None,
        description="Only lbfgs: number of curvature pairs; each takes memory for two pictures.",
    )
    trust_radius: Annotated[float, Number(ge=0, le=10)] | None = Field(
        default=None,
        description="Only lbfgs: maximum RMS step; steps that raise the loss are undone. "
        "0: unlimited, and no step is undone.",
    )
    tv_smoothing: Annotated[float, Number(ge=0, le=10)] | None = Field(
        default=None,
        description="Only lbfgs: initial Huber smoothing of an absolute total variation, which "
        "decreases later; 0: off.",
    )
    frequency_preconditioner: Flag | None = Field(
        default=None,
        description="Only lbfgs: a separate curvature for each band of spatial frequencies.",
    )
    carry_curvature: Flag | None = Field(
        default=None,
        description="Only lbfgs with frequency_preconditioner and a trust radius: a scale starts "
        "from the curvatures of the scale before.",
    )
    betas: Betas | None = Field(
        default=None, description="Only adam: decay of its two running averages."
    )
    average: Decay | None = Field(
        default=None,
        description="Only adam: decay of an average of iterates, which is the result; 0: off.",
    )


class RecipeOverrides(Section):
    """Fields of a recipe to replace; absent fields keep the recipe's value."""

    content_layers: LayerWeights | None = Field(
        default=None, description="Layers compared with the photo, and their weights; replaces all."
    )
    style_layers: LayerWeights | None = Field(
        default=None, description="Layers compared with the style, and their weights; replaces all."
    )
    content_weight: NonNegative | None = Field(
        default=None, description="How strongly the photo's content is kept."
    )
    style_weight: NonNegative | None = Field(
        default=None, description="How strongly the style is matched."
    )
    tv_weight: NonNegative | None = Field(
        default=None, description="How strongly neighbouring pixels are smoothed (total variation)."
    )
    content_loss: ContentLoss | None = Field(default=None, description="How content is compared.")
    style_loss: StyleLoss | None = Field(default=None, description="How style is compared.")
    tv_loss: TotalVariationLoss | None = Field(
        default=None, description="How total variation is measured."
    )
    normalize_input: Flag | None = Field(
        default=None,
        description="Whether pixels are normalised with ImageNet's mean and standard deviation.",
    )
    pooling: Pooling | None = Field(
        default=None, description="Kind of the network's pooling layers."
    )
    first_padding: FirstPadding | None = Field(
        default=None, description="Padding of the first convolution."
    )
    precision: RecipePrecision | None = Field(
        default=None,
        description="Precision of the convolutions if engine.precision is auto: auto allows "
        "bfloat16 where it is faster.",
    )
    space: Space | None = Field(
        default=None,
        description="Colour space in which pixels are optimised and total variation is measured.",
    )
    clamp: Flag | None = Field(
        default=None, description="Whether every step keeps pixels within valid colours."
    )
    optimizer: OptimizerOverrides | None = Field(
        default=None, description="How the pixels are optimised at each scale."
    )
    steps: Steps | None = Field(default=None, description="Optimisation steps at each scale.")
    detail_steps: Annotated[int, Number(ge=0, le=100_000)] | None = Field(
        default=None,
        description="Steps at the photo's own size, if output.size is input; 0: none.",
    )
    min_improvement: Decay | None = Field(
        default=None,
        description="A scale ends once further steps are expected to lower the loss by less than "
        "this share; 0: off.",
    )
    keep: Keep | None = Field(default=None, description="Which image of a scale is its result.")
    scales: ScalesOverrides | None = Field(
        default=None, description="The scales, coarse to fine; null: only the final size."
    )
    init: Init | None = Field(default=None, description="Initial image of the optimisation.")
    seed: Annotated[int, Number(ge=0, le=2**63 - 1)] | None = Field(
        default=None, description="Seed of everything random; the same seed gives the same picture."
    )
    size: SizeOrLongEdge | None = Field(
        default=None, description="How large the result is: its long edge in pixels, or a mapping."
    )
    style_size: StyleFit | SizeOverrides | None = Field(
        default=None,
        description="Size of the style image: scaled (keeps its aspect ratio), content (exactly "
        "the result's size), or a size.",
    )
    style_scale: Annotated[float, Number(gt=0, le=10)] | None = Field(
        default=None, description="Long edge of the style image, as a multiple of the result's."
    )
    resample: Resample | None = Field(
        default=None, description="How photo and style image are resampled."
    )
    preserve_color: PreserveColor | None = Field(
        default=None, description="Whether and how the result keeps the photo's colours."
    )
    strength: Strength | None = Field(
        default=None,
        description="How far the painting departs from the photo: 0 (nearly the photo) to 100 "
        "(nearly texture alone); 50: the recipe as it is.",
    )
    normalize_gradients: Flag | None = Field(
        default=None,
        description="Whether gradients of content and style are multiplied by their weights once "
        "more, as in neural-style-pt.",
    )
    trace_every: Count | None = Field(
        default=None, description="Steps between two rows of the loss trace in the sidecar."
    )


class RecipeChoice(RecipeOverrides):
    """The name of a recipe, and overrides of it."""

    name: RecipeName = Field(default=DEFAULT_RECIPE, description="The recipe to start from.")
