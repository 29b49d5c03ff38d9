"""Load a YAML configuration into a frozen, fully resolved `Config`.

Errors are `ConfigError`s with one sentence per problem. Nothing here imports torch, which takes
seconds, so that commands which do no computation start at once.
"""

from styled.config.cli_overrides import apply_set_options
from styled.config.dump import config_data, config_schema, show_config
from styled.config.ignore import DEFAULT_IGNORE, IgnoreRules
from styled.config.load import config_of, default_config, load_config, require_styles
from styled.config.merging import apply_overrides, resolve_recipe
from styled.config.models import (
    ClusterConfig,
    ConfigFile,
    EngineConfig,
    HooksConfig,
    IntakeConfig,
    MetricsConfig,
    OutputConfig,
    QueueConfig,
)
from styled.config.overrides import RecipeOverrides
from styled.config.resolved import Config, Priorities, Style, StyleImage

__all__ = [
    "DEFAULT_IGNORE",
    "ClusterConfig",
    "Config",
    "ConfigFile",
    "EngineConfig",
    "HooksConfig",
    "IgnoreRules",
    "IntakeConfig",
    "MetricsConfig",
    "OutputConfig",
    "Priorities",
    "QueueConfig",
    "RecipeOverrides",
    "Style",
    "StyleImage",
    "apply_overrides",
    "apply_set_options",
    "config_data",
    "config_of",
    "config_schema",
    "default_config",
    "load_config",
    "require_styles",
    "resolve_recipe",
    "show_config",
]
