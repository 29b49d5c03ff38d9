"""The curvature pairs of L-BFGS: what its steps have shown of the objective's curvature.

With frequency bands, the initial inverse Hessian has one factor per band and opponent colour (see
`frequency_bands`) instead of a common one, estimated from the same pairs. "The book" is Nocedal and
Wright, "Numerical Optimization", whose algorithm 7.4 this is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from styled.engine.frequency_bands import band_energies, with_band_count, with_gains

MAX_GAIN_RATIO = 1000.0
"""Largest ratio between a band's gain and the median gain of all bands, in either direction.

With a photo of 96 px the ratios stayed below 50. In a band without curvature, where the gradient
is constant, the gain would be determined by rounding errors alone.
"""

State = dict[str, Any]
"""Tensors, numbers and lists of them, which torch.load can read with weights_only=True."""


@dataclass(frozen=True, slots=True)
class Iterate:
    """The image before a step, with the gradient and the total loss (a scalar) there."""

    image: Tensor
    gradient: Tensor
    total: Tensor


class CurvaturePairs:
    """The last M curvature pairs of L-BFGS, each of them a row of two matrices.

    A pair is the change of the image in a step, s, and of the gradient, y. With all s in one
    matrix and all y in another, the two loops of the algorithm become two products with each and
    two solutions of a triangular MxM system, however many pairs there are.

    Attributes:
        gamma: (s . y) / (y . y) of the last usable pair, a scalar; 0: no curvature is known. With
            a prior alone, of which only the bands are used, it is 1.
    """

    def __init__(
        self, image: Tensor, capacity: int, *, by_frequency: bool, prior: Tensor | None = None
    ) -> None:
        """Allocate rows for `capacity` pairs of changes of a 1x3xHxW image.

        With `by_frequency`, `newton_step` has one factor per frequency band. `prior` are the mean
        energies of another scale's pairs, as `mean_energies` returns them: they count as one more
        pair, and serve alone before the first one.
        """
        self._capacity = capacity
        self._s = image.new_empty(capacity, *image.shape[1:])
        self._y = torch.empty_like(self._s)
        self._products = image.new_zeros(capacity, capacity)  # s_i . y_j
        self._usable = image.new_zeros(capacity)  # 1 or 0 for each pair
        self._energies: Tensor | None = None  # (M+1)x2x3xK: of s and y in K frequency bands
        self._latest_energies: Tensor | None = None  # 2x3xK, of the last usable pair
        self.gamma = image.new_zeros(())
        if by_frequency:
            bands = band_energies(image).shape[1]
            self._energies = image.new_zeros(capacity + 1, 2, 3, bands)  # the last is the prior's
            if prior is not None:
                self._latest_energies = with_band_count(prior, bands)
                self._energies[-1] = self._latest_energies
                self.gamma = (prior.sum() > 0).to(image)
        self._added = 0

    def add(self, new: Iterate, old: Iterate) -> Tensor:
        """Replace the oldest pair by the change between two iterates.

        Returns:
            Whether the new pair is usable, a boolean scalar: one without clearly positive
            curvature would make the approximation indefinite, and is ignored.
        """
        slot = self._added % self._capacity
        self._added += 1
        torch.sub(new.image[0], old.image[0], out=self._s[slot])
        torch.sub(new.gradient[0], old.gradient[0], out=self._y[slot])
        s, y = self._rows()
        self._products[: len(s), slot] = s.mv(y[slot])
        curvature, y_squared = self._products[slot, slot], y[slot].dot(y[slot])
        is_usable = curvature > 1e-10 * y_squared
        self._usable[slot] = is_usable
        self.gamma = torch.where(is_usable, curvature / y_squared, self.gamma)
        if self._energies is not None:
            energies = torch.stack([band_energies(x[slot][None]) for x in (self._s, self._y)])
            # Normalised by s . y, so that every pair has the same weight whatever its length.
            energies = torch.where(is_usable, energies / curvature, 0.0)
            self._energies[slot] = energies
            previous = energies if self._latest_energies is None else self._latest_energies
            self._latest_energies = torch.where(is_usable, energies, previous)
        return is_usable

    def discard_unless(self, condition: Tensor) -> None:
        """Make all pairs unusable if the boolean scalar `condition` is false."""
        self._usable *= condition
        self.gamma = torch.where(condition, self.gamma, 0.0)
        if self._energies is not None:
            self._energies *= condition

    def newton_step(self, negative_grad: Tensor) -> Tensor:
        """Return H times the negative gradient, 1x3xHxW: the book's algorithm 7.4.

        The first loop computes alpha_i = s_i . q / (s_i . y_i), where the y_j of all newer pairs
        have been subtracted from q. With R the upper triangle of s_i . y_j, oldest pair first,
        that is R alpha = S g. Likewise the second loop is R^T delta = D alpha - Y r, with D the
        diagonal of R, r the vector after multiplication by H0, and delta = alpha - beta.
        """
        if not self._added:
            return self._apply_h0(negative_grad.clone())
        s, y = self._rows()
        oldest = self._added % len(s)
        usable = self._usable[: len(s)].roll(-oldest)
        products = self._products[: len(s), : len(s)].roll((-oldest, -oldest), dims=(0, 1))
        triangle = (products * usable * usable[:, None]).triu()
        triangle.diagonal().add_(1 - usable)

        vector = negative_grad.flatten()
        right_hand_side = (s.mv(vector).roll(-oldest) * usable)[:, None]
        alpha = torch.linalg.solve_triangular(triangle, right_hand_side, upper=True)
        vector = torch.addmv(vector, y.T, alpha[:, 0].roll(oldest), alpha=-1)
        vector = self._apply_h0(vector.view_as(negative_grad)).flatten()
        right_hand_side = (triangle.diagonal() * alpha[:, 0] - y.mv(vector).roll(-oldest) * usable)[
            :, None
        ]
        delta = torch.linalg.solve_triangular(triangle.T, right_hand_side, upper=False)
        return vector.addmv_(s.T, delta[:, 0].roll(oldest)).view_as(negative_grad)

    def _apply_h0(self, direction: Tensor) -> Tensor:
        """Multiply by the initial inverse Hessian H0, possibly in place; return the result.

        Without frequency bands, H0 is gamma times the identity.

        With them, each band has its own gamma. Barzilai and Borwein (1988) give two estimates,
        (s . s) / (s . y) and (s . y) / (y . y); the book uses the second. Within one band s . y
        may be negative, and so may both estimates. Their geometric mean |s| / |y| is positive.
        """
        if self._energies is None or self._latest_energies is None:
            return direction.mul_(self.gamma)
        smallest = torch.finfo(direction.dtype).tiny
        s_norm, y_norm = self._energies.sum(dim=0).clamp(min=smallest).sqrt()
        gains = s_norm / y_norm
        gains = gains.clamp(gains.median() / MAX_GAIN_RATIO, gains.median() * MAX_GAIN_RATIO)
        # The common factor of all bands comes from the latest usable pair, as gamma does.
        s_energy, y_energy = self._latest_energies
        common_squared = (s_energy / gains).sum() / (y_energy * gains).sum()
        return with_gains(direction, gains * common_squared.sqrt())

    def mean_energies(self) -> Tensor | None:
        """Return the energies of s and y in each frequency band, means over the pairs: 2x3xK.

        A pair that is not usable counts as zero. None without frequency bands, or without pairs.
        """
        if self._energies is None or self._latest_energies is None:
            return None
        return self._energies.mean(dim=0)

    def _rows(self) -> tuple[Tensor, Tensor]:
        """Return the pairs so far as two matrices of one row each, in order of their slots."""
        count = min(self._added, self._capacity)
        return self._s[:count].flatten(1), self._y[:count].flatten(1)

    def state(self) -> State:
        """Return the pairs; valid until the next one is added, which overwrites the oldest."""
        count = min(self._added, self._capacity)
        return {
            "added": self._added,
            "s": self._s[:count],
            "y": self._y[:count],
            "products": self._products.clone(),
            "usable": self._usable.clone(),
            "gamma": self.gamma,
            "energies": None if self._energies is None else self._energies.clone(),
            "latest_energies": self._latest_energies,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self._added = state["added"]
        self._s[: len(state["s"])] = state["s"]
        self._y[: len(state["y"])] = state["y"]
        self._products, self._usable = state["products"], state["usable"]
        self.gamma = state["gamma"]
        self._energies, self._latest_energies = state["energies"], state["latest_energies"]
