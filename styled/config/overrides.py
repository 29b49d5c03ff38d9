"""What may be overridden in a recipe: one optional field for each field of `Recipe`.

In all of these models an empty value (null) means "as the recipe has it", like a key
that is absent. The one exception is `scales`, where null is a value: a single scale.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

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
from styled.config.wording import hint, quoted, refused
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
    Resample,
    Space,
    StyleFit,
    StyleLoss,
    TotalVariationLoss,
    Upscale,
)


def _known_layer(name: str) -> str:
    if name not in LAYER_NAMES:
        raise refused(f"unknown layer{hint(name, LAYER_NAMES, 'layers')}")
    return name


def _known_recipe(name: str) -> str:
    if name not in RECIPES:
        raise refused(f"unknown recipe {quoted(name)}{hint(name, RECIPES, 'recipes')}")
    return name


def _some_weight(layers: dict[str, float]) -> dict[str, float]:
    if not any(layers.values()):
        raise refused("needs at least one layer with a weight > 0")
    return layers


LayerName = Annotated[
    str, AfterValidator(_known_layer), Field(json_schema_extra={"enum": list(LAYER_NAMES)})
]
RecipeName = Annotated[
    str, AfterValidator(_known_recipe), Field(json_schema_extra={"enum": list(RECIPES)})
]
LayerWeights = Annotated[dict[LayerName, NonNegative], AfterValidator(_some_weight)]
WidthAndHeight = Annotated[
    tuple[EdgePx, EdgePx],
    Expected("[width, height], two whole numbers from 32 to 30000"),
]
Decay = Annotated[float, Number(ge=0, lt=1)]
Betas = Annotated[tuple[Decay, Decay], Expected("two numbers >= 0 and < 1, such as [0.9, 0.99]")]


class SizeOverrides(Section):
    """How large the result is, in pixels: at most one of the first four is given."""

    long_edge: EdgePx | None = Field(default=None, description="Pixels of the longer edge.")
    short_edge: EdgePx | None = Field(default=None, description="Pixels of the shorter edge.")
    megapixels: Annotated[float, Number(gt=0, le=900)] | None = Field(
        default=None, description="Millions of pixels altogether."
    )
    exact: WidthAndHeight | None = Field(
        default=None,
        description="Width and height in pixels; the photo's aspect ratio is not kept.",
    )
    upscale: Upscale | None = Field(
        default=None,
        description="Whether a photo smaller than the size is enlarged to it; to_long_edge: only "
        "until its short edge is as long as its long edge was.",
    )

    @model_validator(mode="after")
    def _is_one_size(self) -> Self:
        given = [name for name in SIZE_CHOICES if getattr(self, name) is not None]
        if len(given) > 1:
            raise refused(f"give only one of {', '.join(SIZE_CHOICES)}; here are {len(given)}")
        return self


SIZE_CHOICES = ("long_edge", "short_edge", "megapixels", "exact")


class ScalesOverrides(Section):
    """Coarse to fine: small versions of the picture are painted first, then larger ones."""

    start_px: EdgePx | None = Field(
        default=None, description="Long edge of the first scale, about."
    )
    factor: Annotated[float, Number(gt=1)] | None = Field(
        default=None, description="By how much the long edge grows from one scale to the next."
    )
    steps: Steps | None = Field(
        default=None, description="At each scale but the last; null: as many as at the last."
    )


class OptimizerOverrides(Section):
    """How the pixels are optimised at each scale."""

    name: OptimizerName | None = Field(default=None, description="The optimisation method.")
    learning_rate: Positive | None = Field(default=None, description="How far one step goes.")
    decay: Annotated[float, Number(gt=0, le=1)] | None = Field(
        default=None, description="What the learning rate is multiplied by now and then..."
    )
    decay_every: Annotated[int, Number(ge=0, le=100_000)] | None = Field(
        default=None, description="...after every so many steps; 0: never."
    )
    history: Annotated[int, Number(ge=1, le=100)] | None = Field(
        default=None,
        description="Only lbfgs: past steps remembered; each takes memory for two pictures.",
    )
    reach: Annotated[float, Number(ge=0, le=10)] | None = Field(
        default=None,
        description="Only lbfgs: the farthest that one step may move the image, root mean "
        "square; steps that led uphill are then taken back. 0: no bound, and no way back.",
    )
    rounding: Annotated[float, Number(ge=0, le=10)] | None = Field(
        default=None,
        description="Only lbfgs: over how much the kinks of an absolute total variation are "
        "rounded off at first, and ever less later; 0: not at all.",
    )
    by_frequency: Flag | None = Field(
        default=None,
        description="Only lbfgs: tell the curvature of coarse and fine apart.",
    )
    betas: Betas | None = Field(
        default=None, description="Only adam: decay of its two running averages."
    )
    average: Decay | None = Field(
        default=None,
        description="Only adam: decay of an average over steps, which is the result; 0: none.",
    )


class RecipeOverrides(Section):
    """Fields of a recipe that are to differ; what is absent stays as the recipe has it."""

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
        default=None, description="How roughness is measured."
    )
    normalize_input: Flag | None = Field(
        default=None, description="Whether pixels are normalised by ImageNet's mean and deviation."
    )
    pooling: Pooling | None = Field(
        default=None, description="How the network's pooling layers shrink."
    )
    first_padding: FirstPadding | None = Field(
        default=None, description="What surrounds the picture in the first convolution."
    )
    space: Space | None = Field(
        default=None, description="Where the optimised pixels and their total variation live."
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
        description="Steps at the photo's own size, where output.size asks for that; 0: none.",
    )
    min_improvement: Decay | None = Field(
        default=None,
        description="A scale ends once ten steps gain less than this share of the loss; 0: never.",
    )
    keep: Keep | None = Field(default=None, description="Which image of a scale is its result.")
    scales: ScalesOverrides | None = Field(
        default=None, description="The scales, coarse to fine; null for the final size alone."
    )
    init: Init | None = Field(
        default=None, description="The picture that the optimisation starts from."
    )
    seed: Annotated[int, Number(ge=0, le=2**63 - 1)] | None = Field(
        default=None, description="Seed of everything random; the same seed gives the same picture."
    )
    size: SizeOverrides | None = Field(default=None, description="How large the result is.")
    style_size: StyleFit | SizeOverrides | None = Field(
        default=None,
        description="How large the style image is seen: scaled (it keeps its shape), content "
        "(exactly the result's size), or a size.",
    )
    style_scale: Annotated[float, Number(gt=0, le=10)] | None = Field(
        default=None, description="Long edge of the style image, as a multiple of the result's."
    )
    resample: Resample | None = Field(
        default=None, description="How photo and style are brought to size."
    )
    preserve_color: PreserveColor | None = Field(
        default=None, description="Whether and how the result keeps the photo's colours."
    )
    trace_every: Count | None = Field(
        default=None, description="Steps between two rows of the loss trace in the sidecar."
    )


class RecipeChoice(RecipeOverrides):
    """A recipe by its name, together with what differs from it."""

    name: RecipeName = Field(default=DEFAULT_RECIPE, description="The recipe to start from.")
