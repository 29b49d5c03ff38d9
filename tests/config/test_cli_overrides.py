"""Tests of recipe settings on the command line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from styled.config import apply_set_options
from styled.errors import ConfigError
from styled.recipes import PYRAMID, OptimizerSettings, Size


def test_settings_are_applied_to_the_recipe() -> None:
    """Dotted keys select nested fields of the recipe, and values are parsed as YAML."""
    settings = ["size.exact=[300, 450]", "steps=20", "scales=null", "tv_weight=1e-2"]
    assert apply_set_options([*settings, "optimizer.name=adam"], PYRAMID) == replace(
        PYRAMID,
        size=Size(exact=(300, 450)),
        steps=20,
        scales=None,
        tv_weight=0.01,
        optimizer=OptimizerSettings(name="adam", learning_rate=0.02, betas=(0.9, 0.99)),
    )


def test_no_settings_change_nothing() -> None:
    """Without settings the recipe is unchanged."""
    assert apply_set_options([], PYRAMID) == PYRAMID


def test_of_the_same_key_the_later_value_counts() -> None:
    """The last value of a repeated setting is used, as on most command lines."""
    assert apply_set_options(["steps=1", "steps=2"], PYRAMID).steps == 2


def test_all_wrong_settings_appear_at_once() -> None:
    """Every problem has one line, which begins with the setting's key."""
    settings = [
        "steps=many",
        "stepz=3",
        "seed",
        "seed=",
        "=3",
        "a..b=3",
        "init=[",
        "pooling=avrage",
    ]
    with pytest.raises(ConfigError) as caught:
        apply_set_options(settings, PYRAMID)
    lines = caught.value.message.splitlines()
    assert '--set steps: expected a whole number from 1 to 100000, got "many"' in lines
    assert '--set stepz: unknown key; did you mean "steps"?' in lines
    assert "--set seed: expected the form key=value" in lines
    assert "--set seed=: expected the form key=value" in lines
    assert "--set =3: expected the form key=value" in lines
    assert '--set "a..b=3": expected the form key=value' in lines
    assert any(line.startswith("--set init: not valid YAML") for line in lines)
    assert any(line.endswith('got "avrage"; did you mean "average"?') for line in lines)
    assert len(lines) == len(settings)


@pytest.mark.parametrize(
    "settings", [["size=3", "size.long_edge=64"], ["size.long_edge=64", "size=3"]]
)
def test_a_whole_and_its_part_contradict_each_other(settings: list[str]) -> None:
    """Setting both a mapping and one of its keys to a value is an error."""
    with pytest.raises(ConfigError, match="is set both as a whole and in part"):
        apply_set_options(settings, PYRAMID)


def test_two_sizes_contradict_each_other() -> None:
    """Only one kind of size can be set."""
    with pytest.raises(ConfigError, match="--set size: give only one of long_edge, short_edge"):
        apply_set_options(["size.long_edge=64", "size.short_edge=64"], PYRAMID)
