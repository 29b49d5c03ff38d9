"""The objective as a whole: its terms, and its gradient against finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from styled.engine.objective import Objective, style_targets
from styled.engine.vgg import Vgg19
from styled.recipes import PYRAMID
from tests.engine.conftest import picture


def test_the_total_is_the_sum_of_its_weighted_terms(network: Vgg19) -> None:
    """Doubling a weight doubles that term and leaves the others; the total is their sum."""
    content, style, image = picture(48, 40), picture(40, 48, 1), picture(48, 40, 2)
    doubled = replace(
        PYRAMID,
        content_weight=2 * PYRAMID.content_weight,
        style_weight=4 * PYRAMID.style_weight,
        tv_weight=8 * PYRAMID.tv_weight,
    )
    targets = style_targets(network, PYRAMID, [(style, 1.0)])
    once, _ = Objective(network, PYRAMID, content, targets).evaluate(image)
    more, _ = Objective(network, doubled, content, targets).evaluate(image)
    assert once.total == pytest.approx(once.content + once.style + once.tv)
    assert more.content == pytest.approx(2 * once.content)
    assert more.style == pytest.approx(4 * once.style)
    assert more.tv == pytest.approx(8 * once.tv)


def test_the_content_itself_has_no_content_loss(network: Vgg19) -> None:
    """The content loss between the photo and itself is zero."""
    content = picture(40, 40)
    targets = style_targets(network, PYRAMID, [(picture(40, 40, 1), 1.0)])
    losses, _ = Objective(network, PYRAMID, content, targets).evaluate(content)
    assert losses.content == 0
    assert losses.style > 0


def test_the_style_itself_has_no_style_loss(network: Vgg19) -> None:
    """The style loss between the style image and itself is zero up to rounding."""
    style = picture(40, 40)
    objective = Objective(network, PYRAMID, style, style_targets(network, PYRAMID, [(style, 1.0)]))
    same, _ = objective.evaluate(style)
    other, _ = objective.evaluate(picture(40, 40, 1))
    assert abs(same.style) < 1e-3 * other.style


def test_the_gradient_equals_finite_differences_through_the_network(network64: Vgg19) -> None:
    """In float64 the directional derivative agrees with a central difference to 1e-4."""
    # Average pooling and a little noise: max pooling is not differentiable where values tie.
    recipe = replace(PYRAMID, pooling="average")
    generator = torch.Generator().manual_seed(3)
    content, style = picture(40, 36).double(), picture(36, 40, 1).double()
    noise = torch.rand(1, 3, 36, 40, generator=generator, dtype=torch.float64)
    image = 0.25 + picture(40, 36, 2).double() / 2 + 0.01 * noise
    targets = style_targets(network64, recipe, [(style, 1.0)])
    objective = Objective(network64, recipe, content, targets)
    direction = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    _, gradient = objective.evaluate(image)
    step = 3e-7
    above, _ = objective.evaluate(image + step * direction)
    below, _ = objective.evaluate(image - step * direction)
    slope = (above.total - below.total) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4)
