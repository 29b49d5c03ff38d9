"""Named recipes: everything that decides how a picture is painted, as data.

A recipe is a frozen record. The engine reads it, the configuration overrides single
fields of it, the sidecar shows it with every field resolved. This module imports
nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Literal

ContentLoss = Literal["mean_squared"]
StyleLoss = Literal["wasserstein"]
TotalVariationLoss = Literal["nine_point"]
Pooling = Literal["max", "average", "average_rescaled"]
FirstPadding = Literal["zeros", "replicate"]
OptimizerName = Literal["lbfgs", "adam"]
Init = Literal["content", "noise", "gray"]

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
    """How large the result is, in pixels. Exactly one of the first four is set."""

    long_edge: int | None = None
    short_edge: int | None = None
    megapixels: float | None = None
    exact: tuple[int, int] | None = None  # width, height; the aspect ratio is not kept
    upscale: bool = False  # whether a smaller photo is enlarged to the size


@dataclass(frozen=True, slots=True)
class Scales:
    """Coarse to fine: the long edge grows by `factor` from about `start_px` to the size."""

    start_px: int = 128
    factor: float = sqrt(2)


@dataclass(frozen=True, slots=True)
class Optimizer:
    """How the pixels are optimised at each scale."""

    name: OptimizerName = "lbfgs"
    learning_rate: float = 1.0
    history: int = 20  # lbfgs: curvature pairs kept
    betas: tuple[float, float] = (0.9, 0.99)  # adam: decay of the two moments


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides how a picture is painted.

    Total loss = `content_weight` x content + `style_weight` x style + `tv_weight` x tv.
    """

    name: str
    # the objective
    content_layers: Mapping[str, float]  # layer name -> weight
    style_layers: Mapping[str, float]
    content_weight: float
    style_weight: float
    tv_weight: float
    content_loss: ContentLoss = "mean_squared"
    style_loss: StyleLoss = "wasserstein"
    tv_loss: TotalVariationLoss = "nine_point"
    # the network
    normalize_input: bool = True  # by ImageNet's mean and standard deviation
    pooling: Pooling = "max"
    first_padding: FirstPadding = "zeros"  # of the first convolution
    # the optimisation
    optimizer: Optimizer = field(default_factory=Optimizer)
    steps: int = 50  # at each scale; one step is one evaluation of loss and gradient
    scales: Scales | None = None  # None: one scale, the size itself
    init: Init = "content"
    seed: int = 0
    # the pictures
    size: Size = field(default_factory=lambda: Size(long_edge=512))
    style_scale: float = 1.0  # long edge of the style, as a multiple of the result's
    # the record
    trace_every: int = 10  # steps between two rows of the sidecar's loss trace


def _normalized(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


PYRAMID = Recipe(
    name="pyramid",
    content_layers={"relu4_2": 1.0},
    style_layers=_normalized(
        {"relu1_1": 256, "relu2_1": 64, "relu3_1": 16, "relu4_1": 4, "relu5_1": 1}
    ),
    content_weight=0.015,
    style_weight=1.0,
    tv_weight=2.0,
    first_padding="replicate",
    scales=Scales(),
)
"""The default: the squared 2-Wasserstein distance of layer statistics, coarse to fine.

The objective and its weights follow K. Crowson's style-transfer-pytorch (2021); the
optimiser is L-BFGS instead of its Adam, because it reaches a lower value sooner.
"""

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (PYRAMID,)}
DEFAULT_RECIPE = PYRAMID.name
