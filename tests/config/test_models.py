"""Tests of the models: frozen, without shared state, and consistent with the JSON Schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from styled.config import (
    Config,
    ConfigFile,
    EngineConfig,
    IntakeConfig,
    OutputConfig,
    QueueConfig,
    config_schema,
    default_config,
    show_config,
)
from styled.config.cli_overrides import apply_set_options
from styled.config.models import StyleEntry, StyleImageEntry

Load = Callable[[str], Config]

MODELS = (
    ConfigFile,
    EngineConfig,
    IntakeConfig,
    OutputConfig,
    QueueConfig,
    StyleEntry,
    StyleImageEntry,
)


def accepts(document: object) -> bool:
    """Return whether a document is valid according to the published schema."""
    return bool(Draft202012Validator(config_schema()).is_valid(document))


@pytest.mark.parametrize("model", MODELS)
def test_models_are_closed_and_described(model: type[BaseModel]) -> None:
    """Unknown keys are errors in all models, and every field has a description for editors."""
    assert model.model_config["extra"] == "forbid"
    assert model.model_config["frozen"]
    assert all(field.description for field in model.model_fields.values())


def test_configurations_are_frozen() -> None:
    """A configuration and its sections are immutable."""
    config = default_config(Path("/srv/styled"))
    with pytest.raises(FrozenInstanceError):
        config.inbox = Path("elsewhere")  # type: ignore[misc]  # the error is expected
    with pytest.raises(ValidationError):
        config.queue.max_attempts = 5


def test_configurations_share_no_state() -> None:
    """Two default configurations are equal but have separate mappings."""
    first, second = default_config(Path("/srv/styled")), default_config(Path("/srv/styled"))
    assert first == second
    assert first.styles is not second.styles
    assert first.folders is not second.folders


def test_the_schema_is_a_schema() -> None:
    """The published schema is a valid JSON Schema."""
    Draft202012Validator.check_schema(config_schema())


@pytest.mark.parametrize(
    ("document", "valid"),
    [
        ({}, True),
        ({"styles": None, "engine": None}, True),
        ({"styles": {"a": {"image": "a.jpg", "recipe": "pyramid"}}}, True),
        ({"styles": {"a": {"images": ["a.jpg", {"path": "b.jpg", "weight": 2}]}}}, True),
        ({"styles": {"a": {"image": "a.jpg", "recipe": {"steps": 3, "scales": None}}}}, True),
        ({"styles": {"a": {"image": "a.jpg", "overrides": {"size": 512}}}}, True),
        ({"engine": {"memory_limit": "4GB"}}, True),
        ({"engine": {"threads": "auto", "deterministic": False}}, True),
        ({"engine": {"threads": 4}}, True),
        ({"engine": {"threads": 0}}, False),
        ({"engine": {"threads": "four"}}, False),
        ({"engin": {}}, False),
        ({"styles": {"a": {}}}, False),
        ({"styles": {"a": {"image": "a.jpg", "images": ["b.jpg"]}}}, False),
        ({"styles": {"a": {"image": "a.jpg", "recipe": "piramid"}}}, False),
        ({"styles": {"a": {"image": "a.jpg", "overrides": {"steps": 0}}}}, False),
        ({"styles": {"a": {"image": "a", "overrides": {"style_layers": {"relu9_9": 1}}}}}, False),
        ({"styles": {"a": {"images": []}}}, False),
        ({"folders": {"a": []}}, False),
        ({"output": {"quality": 101}}, False),
    ],
)
def test_the_schema_takes_what_loads(document: object, valid: bool) -> None:
    """Short and long forms are valid; wrong keys, values and combinations are not."""
    assert accepts(document) is valid


def test_a_shown_configuration_loads_as_the_same(load: Load) -> None:
    """Loading the output of `styled config show` gives the same configuration."""
    config = load(
        """
        inbox: Fotografías
        default_style: sea
        styles:
          sea:
            images: [{path: a.jpg, weight: 0.5}, b.jpg]
            recipe: {size: {exact: [300, 450]}, scales: null, tv_weight: 1e-5}
        folders: {all: [sea]}
        engine: {weights: vgg.pth, memory_limit: 4GB, threads: 3, deterministic: false}
        """
    )
    assert load(show_config(config)) == config


def test_a_number_is_a_size_by_its_long_edge(load: Load) -> None:
    """`size: 1024` is short for `size: {long_edge: 1024}`, wherever a recipe has a size."""
    short, long = (
        load(
            f"styles: {{a: {{image: a.jpg, overrides: {{size: {size}}}}}, "
            f"b: {{image: a.jpg, recipe: {{name: gatys, size: {size}}}}}}}"
        )
        for size in ("1024", "{long_edge: 1024}")
    )
    assert short == long
    recipe = short.styles["a"].recipe
    assert recipe.size.long_edge == 1024
    assert apply_set_options(["size=300"], recipe).size.long_edge == 300


@pytest.mark.parametrize("address", ["local", "auto", "head:6379", "10.0.0.1:6379", "[::1]:6379"])
def test_addresses_of_clusters(load: Load, address: str) -> None:
    """Of a cluster of this machine, of one that runs already, or of its head."""
    assert load(f"cluster: {{address: '{address}'}}").cluster.address == address


@pytest.mark.parametrize("share", [0.25, 1, 2, 2.0])
def test_shares_of_gpus(load: Load, share: float) -> None:
    """Engines share a GPU, or have whole ones."""
    assert load(f"cluster: {{gpus_per_engine: {share}}}").cluster.gpus_per_engine == float(share)


@pytest.mark.parametrize("engines", ["auto", 1, 64])
def test_numbers_of_engines(load: Load, engines: object) -> None:
    """As many as there is room for, or a number."""
    assert load(f"cluster: {{engines: {engines}}}").cluster.engines == engines
