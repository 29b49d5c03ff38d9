"""Named recipes: all parameters of a style transfer, as data.

A recipe is a frozen dataclass. The engine reads it, the configuration overrides single fields,
and the sidecar contains it with every field resolved. This module imports only the standard
library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Literal

ContentLoss = Literal["mean_squared", "half_sum_squared"]
StyleLoss = Literal[
    "wasserstein",  # distance between Gaussians fitted to the features
    "gram_raw",  # mean((G - A)^2) of the Gram matrices G = F F^T
    "gram_by_size",  # the same, with each Gram matrix divided by its own layer size c h w
    "gram_over_style_size",  # mean((G - A)^2) / (c h w) of the style's layer
    "gram_over_result_size",  # mean((G - A)^2) / (c h w) of the result's layer
    "gram_gatys",  # sum((G - A)^2) / (4 N^2 M^2), N channels, M positions
]
TotalVariationLoss = Literal[
    "none",
    "nine_point",  # squares over eight neighbours
    "sum_absolute",  # sum|dx| + sum|dy|
    "mean_absolute",  # (mean|dx| + mean|dy|) / 2
]
Pooling = Literal["max", "average", "average_rescaled", "l2"]
FirstPadding = Literal["zeros", "replicate"]
OptimizerName = Literal["lbfgs", "adam"]
Init = Literal["content", "noise", "uniform", "gray", "style_colors"]  # uniform is noise
PreserveColor = Literal["none", "luminance", "histogram", "affine"]
Space = Literal["srgb", "normalized"]
Keep = Literal["best", "last"]
Resample = Literal["lanczos", "bicubic", "bilinear"]
RecipePrecision = Literal["auto", "float32"]
Upscale = Literal[True, False, "to_long_edge"]
StyleFit = Literal["scaled", "content"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of the network's training images in sRGB, per channel.

The `normalized` space is (sRGB - mean) / std.
"""

# VGG-19 up to its last convolution: `convB_I` is the I-th convolution of block B
# before its ReLU, `reluB_I` after it, `poolB` the pooling that ends the block.
CONVOLUTIONS_PER_BLOCK = (2, 2, 4, 4, 4)
LAYER_NAMES: tuple[str, ...] = tuple(
    name
    for block, convolutions in enumerate(CONVOLUTIONS_PER_BLOCK, start=1)
    for name in (
        *(f"{kind}{block}_{i}" for i in range(1, convolutions + 1) for kind in ("conv", "relu")),
        f"pool{block}",
    )
)


@dataclass(frozen=True, slots=True)
class Size:
    """The size of an image, in pixels. Exactly one of the first four fields is set."""

    long_edge: int | None = None
    short_edge: int | None = None
    megapixels: float | None = None
    exact: tuple[int, int] | None = None  # width, height; the aspect ratio is not kept
    # Whether a smaller photo is enlarged to the size; `to_long_edge`: only until its short edge
    # is as long as the photo's long edge.
    upscale: Upscale = False


@dataclass(frozen=True, slots=True)
class Scales:
    """Coarse-to-fine scales: the long edge grows by `factor` from about `start_px` to the size."""

    start_px: int = 128
    factor: float = sqrt(2)
    steps: int | None = None  # at each scale but the last; None: as many as at the last


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """How the pixels are optimised at each scale."""

    name: OptimizerName = "lbfgs"
    learning_rate: float = 1.0
    decay: float = 1.0  # the learning rate is multiplied by this...
    decay_every: int = 0  # ...after every so many steps; 0: never
    history: int = 20  # lbfgs: curvature pairs kept
    # lbfgs: maximum RMS change of the image in one step, in units of the optimised space; steps
    # that raise the loss are undone. 0: unlimited, and no step is undone.
    trust_radius: float = 0.0
    # lbfgs: initial Huber delta for the gradient of an absolute total variation, in units of the
    # optimised space. It decreases over the steps. L-BFGS cannot model the kinks. 0: off.
    tv_smoothing: float = 0.0
    # lbfgs: whether the initial inverse Hessian has one factor per frequency band and opponent
    # colour instead of a single one.
    frequency_preconditioner: bool = False
    # lbfgs with these factors and a trust radius: whether the next scale starts from them. That
    # suits losses that are means over pixels, and scales that end near their minimum.
    carry_curvature: bool = False
    betas: tuple[float, float] = (0.9, 0.999)  # adam: decay rates of the two moments
    # adam: decay rate of the moving average of the iterates, which is the result; 0: no average
    average: float = 0.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """All parameters of a style transfer.

    Total loss = `content_weight` x content + `style_weight` x style + `tv_weight` x tv.
    """

    name: str
    source: str  # where the recipe was published
    # the objective
    content_layers: Mapping[str, float]  # layer name -> weight
    style_layers: Mapping[str, float]
    content_weight: float
    style_weight: float
    tv_weight: float = 0.0
    content_loss: ContentLoss = "mean_squared"
    style_loss: StyleLoss = "wasserstein"
    tv_loss: TotalVariationLoss = "none"
    # the network
    normalize_input: bool = True  # by ImageNet's mean and standard deviation
    pooling: Pooling = "max"
    first_padding: FirstPadding = "zeros"  # of the first convolution
    # Of the convolutions, if the engine's is `auto`: `auto` allows bfloat16 where it is faster.
    precision: RecipePrecision = "float32"
    # the optimisation
    space: Space = "normalized"  # of the optimised image and its total variation
    clamp: bool = False  # whether the image is clamped to valid colours in every step
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    steps: int = 500  # at each scale; one step is one evaluation of loss and gradient
    # A scale ends early once all further steps together are expected to reduce the loss by less
    # than this fraction; 0: never.
    min_improvement: float = 0.0
    keep: Keep = "last"  # which iterate of a scale is its result
    scales: Scales | None = None  # None: a single scale at the full size
    # Steps at the photo's own size, starting from the enlarged painting. They are used if the
    # result is to have the photo's size and that is larger than `size`.
    detail_steps: int = 10
    init: Init = "content"
    seed: int = 0
    # the images
    size: Size = field(default_factory=lambda: Size(long_edge=512))
    # `scaled`: the style keeps its aspect ratio, with a long edge of `style_scale` times the
    # result's; `content`: exactly the result's size.
    style_size: StyleFit | Size = "scaled"
    style_scale: float = 1.0
    resample: Resample = "lanczos"  # the filter with which photo and style are resized
    preserve_color: PreserveColor = "none"  # how the photo's colours are preserved
    # How far the painting departs from the photo, from 0 (nearly the photo) to 100 (nearly texture
    # alone); 50: the recipe as it is. See `effective`.
    strength: float = 50.0
    # Whether the gradient of each content and style term is multiplied by the term's own weight
    # once more, as neural-style-pt's option of this name does.
    normalize_gradients: bool = False
    # the sidecar
    trace_every: int = 10  # steps between two rows of the loss trace


def _normalized(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


_RELU_1_TO_5 = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

# The published implementations read the outputs of convolutions. torchvision's ReLUs run in place,
# so they actually compare the activations after the ReLU, except for the last convolution that
# they run, which no ReLU follows.
_RELU_1_TO_4_CONV_5 = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "conv5_1")

PYRAMID = Recipe(
    name="pyramid",
    source="the objective of K. Crowson, style-transfer-pytorch, 2021; optimised by L-BFGS",
    content_layers={"relu4_2": 1.0},
    style_layers=_normalized(dict(zip(_RELU_1_TO_5, (256, 64, 16, 4, 1), strict=True))),
    content_weight=0.015,
    style_weight=1.0,
    tv_weight=4.0,  # the source has 2, of a total variation twice as large
    tv_loss="nine_point",
    first_padding="replicate",
    precision="auto",
    space="srgb",
    clamp=True,
    optimizer=OptimizerSettings(
        history=5,
        trust_radius=0.1,
        frequency_preconditioner=True,
        carry_curvature=True,
        betas=(0.9, 0.99),
    ),
    steps=60,
    min_improvement=0.015,
    keep="best",
    scales=Scales(start_px=100, factor=1.6, steps=15),
    resample="bicubic",
)
"""The default: the squared 2-Wasserstein distance of layer statistics, coarse to fine.

The objective is that of its source, see `tests/engine/test_pyramid_source.py`. The optimisation is
not: choices are measured on the untrained network and on one with the ranges of a trained one; see
docs/benchmarks.md.

L-BFGS with one curvature per frequency band ends within 3 % of the value of that program's
schedule, 1000 steps of Adam at the first scale and 500 at each further one, or below it, in less
than a tenth of the steps. A history of 5 ends within 1.5 % of 10, 20 and 40. Without a trust radius
one image diverged: the first step was too small to distinguish curvature from rounding errors, and
the second one was far too long.

Each scale starts from the previous one's image and curvature. 15 steps at the coarser scales
suffice: 50 lower the final objective by 0.3 % on the untrained network and by 3 % on the other, as
much as the same time spent at the last scale. A factor of 1.6 between scales costs less than the
source's root of two, for the same final objective. The last scale ends when further steps are
expected to lower the objective by less than 1.5 %: after 15 to 20 steps on the untrained network,
and not before the limit of 60 on the other.
"""

AVGPOOL = Recipe(
    name="avgpool",
    source="a 2020 PyTorch write-up of the TensorFlow style transfer tutorial",
    content_layers={"relu4_2": 1.0},
    style_layers=dict.fromkeys(_RELU_1_TO_5, 1 / 5),
    content_weight=1.0,
    style_weight=1e3,
    tv_weight=1e-2,
    style_loss="gram_over_style_size",
    tv_loss="sum_absolute",
    pooling="average",
    optimizer=OptimizerSettings(name="adam", learning_rate=0.03),
    steps=500,
    size=Size(long_edge=512),
    style_size=Size(long_edge=512),
    resample="bilinear",
)
"""Average pooling, and total variation as a sum of absolute differences."""

UDACITY = Recipe(
    name="udacity",
    source="the style transfer notebook of Udacity's deep-learning nanodegree",
    content_layers={"relu4_2": 1.0},
    style_layers=dict(zip(_RELU_1_TO_5, (1.0, 0.75, 0.2, 0.2, 0.2), strict=True)),
    content_weight=1.0,
    style_weight=1e6,
    style_loss="gram_over_result_size",
    optimizer=OptimizerSettings(name="adam", learning_rate=0.003),
    steps=2000,
    size=Size(short_edge=400, upscale="to_long_edge"),
    style_size="content",
    resample="bilinear",
)
"""Shallow style layers have larger weights, and the style is stretched to the photo's size."""

D2L = Recipe(
    name="d2l",
    source="Zhang et al., Dive into Deep Learning, section 14.12",
    content_layers={"relu4_4": 1.0},
    style_layers=dict.fromkeys(_RELU_1_TO_4_CONV_5, 1.0),
    content_weight=1.0,
    style_weight=1e4,
    tv_weight=10.0,
    style_loss="gram_by_size",
    tv_loss="mean_absolute",
    optimizer=OptimizerSettings(name="adam", learning_rate=0.3, decay=0.8, decay_every=50),
    steps=500,
    size=Size(exact=(450, 300), upscale=True),
    style_size=Size(exact=(450, 300), upscale=True),
    resample="bilinear",
)
"""A large learning rate that decays, at 450 x 300."""

FIVE_LAYER = Recipe(
    name="five-layer",
    source="a PyTorch tutorial that compares content and style on all five layers",
    content_layers=dict.fromkeys(_RELU_1_TO_4_CONV_5, 1.0),
    style_layers=dict.fromkeys(_RELU_1_TO_4_CONV_5, 1.0),
    content_weight=1.0,
    style_weight=1e-2,
    style_loss="gram_raw",
    normalize_input=False,
    space="srgb",
    optimizer=OptimizerSettings(name="adam", learning_rate=0.001),
    steps=1000,
    size=Size(exact=(512, 512), upscale=True),
    style_size=Size(exact=(512, 512), upscale=True),
    resample="bilinear",
)
"""Content and style on all five layers, with input that is not normalised."""

GATYS = Recipe(
    name="gatys",
    source="Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, 2016",
    content_layers={"relu4_2": 1.0},
    style_layers=dict.fromkeys(_RELU_1_TO_5, 1 / 5),
    content_weight=1.0,
    style_weight=1e3,
    content_loss="half_sum_squared",
    style_loss="gram_gatys",
    pooling="average",
    optimizer=OptimizerSettings(name="lbfgs", learning_rate=1.0, history=100),
    steps=1000,
    init="noise",
    style_size="content",
    resample="bilinear",
)
"""As in the paper: sums of squares, L-BFGS, and noise as the initial image."""

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe for recipe in (PYRAMID, AVGPOOL, UDACITY, D2L, FIVE_LAYER, GATYS)
}
DEFAULT_RECIPE = PYRAMID.name


@dataclass(frozen=True, slots=True)
class AboveFifty:
    """How the weights of a recipe grow from strength 50 to 100, exponentially."""

    style_factor: float = 100.0  # at strength 100
    # The factor of the total variation is that of the style to this power: with 0 it keeps its
    # proportion to the content, with 1 that to the style.
    tv_exponent: float = 0.0


_ABOVE_FIFTY: Mapping[str, AboveFifty] = {
    # Where the style outgrows the total variation of these two, sharper pixels bring the features
    # of the result closer to the photo's again.
    "avgpool": AboveFifty(tv_exponent=1.0),
    "d2l": AboveFifty(style_factor=10.0, tv_exponent=0.6),
    # From noise, a larger style weight at first brings the photo back sooner.
    "gatys": AboveFifty(style_factor=1e4),
}
"""By recipe: calibrated so that content never falls and style never rises, see docs/recipes.md."""


def style_share(recipe: Recipe) -> float:
    """Return the share of the style in the target statistics; the rest is the photo's own.

    It grows linearly up to strength 50. With the photo's statistics as the target, nothing departs
    from the photo, whatever the weights and the network are.
    """
    return min(1.0, recipe.strength / 50.0)


def effective(recipe: Recipe) -> Recipe:
    """Return the recipe with its strength and `normalize_gradients` applied to the weights.

    Below strength 50 the total variation gets the share of the style, see `style_share`, and the
    initial image is the photo. Above it style and total variation grow, see `AboveFifty`.
    `normalize_gradients` squares the weights of all terms of content and style.
    """
    if recipe.normalize_gradients:
        recipe = replace(
            recipe,
            content_weight=recipe.content_weight**2,
            style_weight=recipe.style_weight**2,
            content_layers={name: w**2 for name, w in recipe.content_layers.items()},
            style_layers={name: w**2 for name, w in recipe.style_layers.items()},
        )
    if recipe.strength < 50:
        return replace(recipe, tv_weight=recipe.tv_weight * style_share(recipe), init="content")
    above = _ABOVE_FIFTY.get(recipe.name, AboveFifty())
    factor = above.style_factor ** (recipe.strength / 50.0 - 1.0)
    return replace(
        recipe,
        style_weight=recipe.style_weight * factor,
        tv_weight=recipe.tv_weight * factor**above.tv_exponent,
    )
