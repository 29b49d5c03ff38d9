"""A network whose activations have the ranges of a trained one's.

The untrained network is orthogonal, so all channels of a layer have about the same variance. In a
trained one variances differ by orders of magnitude, many channels are nearly dead, and filters
are correlated. Choices in the engine (a root, a stop rule, a precision) have to hold for both.
"""

from __future__ import annotations

import torch

from styled.engine.vgg import Convolutions

SPREAD = 0.9
"""Standard deviation of the logarithm of a channel's scale."""

DEAD_SHARE, DEAD_SCALE = 0.2, 0.02
"""The share of nearly dead channels, and their scale before normalisation."""

MIXING = 0.6
"""How much of each filter is a random mixture of all filters of its layer."""


def with_trained_ranges(convolutions: Convolutions, seed: int = 3) -> Convolutions:
    """Return the convolutions with correlated filters, spread scales, dead channels and biases."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, (kernel, _) in convolutions.items():
        count = len(kernel)
        noise = torch.randn(count, count, generator=generator)
        mixing = torch.eye(count) + MIXING * noise / count**0.5
        scale = torch.exp(SPREAD * torch.randn(count, generator=generator))
        scale[torch.rand(count, generator=generator) < DEAD_SHARE] = DEAD_SCALE
        scale = scale / scale.square().mean().sqrt() * 1.25
        mixed = (mixing @ kernel.flatten(1)).view_as(kernel) / 1.17
        bias = 0.3 * torch.randn(count, generator=generator) * scale - 0.1 * scale
        result[name] = mixed * scale.view(-1, 1, 1, 1), bias
    return result
