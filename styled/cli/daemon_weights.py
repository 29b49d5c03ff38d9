"""Finds the pretrained network of a daemon that runs as another user than the command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from styled.cli import find_config
from styled.config import Config
from styled.engine.weights import imagenet_file

SERVICE_CACHE = Path("/var/cache/styled/torch")
"""`TORCH_HOME` of the systemd units."""


def imagenet_file_of_daemon(config: Config, state: Mapping[str, str]) -> Path | None:
    """Return the pretrained network of a daemon that runs as another user; None: there is none.

    Args:
        config: The daemon's configuration.
        state: What the daemon has stored; empty if it has never run.
    """
    candidates = [Path(state["weights_file"])] if "weights_file" in state else []
    if config.path is not None and config.path.absolute().is_relative_to(
        find_config.SYSTEM_CONFIG.parent
    ):
        candidates.append(SERVICE_CACHE / "hub/checkpoints" / imagenet_file().name)
    return next((path for path in candidates if os.path.exists(path)), None)
