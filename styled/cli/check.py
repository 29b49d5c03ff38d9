"""`styled check`: everything that `styled run` needs, tried before it is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from styled.cli.exits import DONE, console, exit_code_of, say_error
from styled.cli.working_folder import find_config
from styled.config import Config, require_styles
from styled.engine.device import choose_device
from styled.engine.weights import imagenet_file, load_weights
from styled.errors import ResourceUnavailable, StyledError, WeightsError
from styled.ops.lines import printable
from styled.stages import check_styles


def check_all(named: Path | None) -> int:
    """Try everything, print what is right and what is wrong, return the exit code.

    Raises:
        ConfigError: the configuration itself can't be read, so that nothing else can be tried.
    """
    config = find_config(named)
    _good(f"configuration {config.path}: {len(config.styles)} styles")
    exit_code = DONE
    for check in (_styles, _folders, _weights, _device):
        try:
            for line in check(config):
                _good(line)
        except StyledError as error:
            say_error(error)
            exit_code = exit_code or exit_code_of(error)
    return exit_code


def _styles(config: Config) -> Iterator[str]:
    require_styles(config)
    check_styles(config)
    yield f"style images: all of {', '.join(config.styles)} can be read"


def _folders(config: Config) -> Iterator[str]:
    for name in ("inbox", "outbox", "rejected", "archive", "state"):
        folder: Path = getattr(config, name)
        existing = next(f for f in (folder, *folder.parents) if f.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise ResourceUnavailable(
                f"{name}: {existing} is not a folder that this user may write to",
                "change its owner or permissions, or name another folder",
            )
    yield "folders: all can be written"


def _weights(config: Config) -> Iterator[str]:
    source = config.engine.weights
    if source == "imagenet" and not imagenet_file().exists():
        # A check is no reason to fetch half a gigabyte.
        raise WeightsError(
            f"the pretrained network is not on this machine ({imagenet_file()})",
            "styled weights fetch, or the first start of styled run, loads it (548 MB) if there "
            "is a network",
            "or set engine.weights to untrained: pictures are recognisable, but plainer",
        )
    weights = load_weights(source)
    yield f"weights: {weights.source} (sha256 {weights.sha256[:12]}...)"


def _device(config: Config) -> Iterator[str]:
    device = choose_device(config.engine.device)
    yield f"device: {device.name}" + (f" ({device.degraded.message})" if device.degraded else "")


def _good(line: str) -> None:
    console.print(Text.assemble(("ok  ", "bold green"), printable(line)), soft_wrap=True)
