"""Versions of the machines of a cluster."""

from __future__ import annotations

import torch

import styled
from styled.cluster.probe import difference, versions


def test_the_versions_are_those_that_are_imported() -> None:
    """They come from the packages' metadata, because importing torch would take seconds."""
    assert versions()["styled"] == styled.__version__
    assert versions()["torch"] == torch.__version__.partition("+")[0]


def test_a_difference_is_named() -> None:
    """The sentence has the package and both versions."""
    own = versions()
    assert difference(own, dict(own)) is None
    assert difference(own, {**own, "styled": "9.9"}) == (
        f"it has styled 9.9, and this machine {own['styled']}"
    )
    assert difference(own, {**own, "torch": "1.0"}) == (
        f"it has torch 1.0, and this machine {own['torch']}"
    )
    assert difference(own, {**own, "torch": None}) == "torch is not installed there"
