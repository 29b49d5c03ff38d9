"""`styled check`: checks everything that `styled run` needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from styled.cli.daemon_weights import imagenet_file_of_daemon
from styled.cli.exit_codes import DONE, console, exit_code_of, print_error
from styled.cli.find_config import find_config
from styled.cli.status import read_daemon_state
from styled.codec.style_check import check_styles
from styled.config import Config, require_styles
from styled.engine.device import choose_device
from styled.engine.weights import imagenet_file, load_weights
from styled.errors import ResourceUnavailable, StyledError, WeightsError
from styled.ops.humanize import printable


def check_all(config_path: Path | None) -> int:
    """Run all checks, print the result of each, and return the exit code of the first error.

    Raises:
        ConfigError: The configuration is invalid, so that nothing else can be checked.
    """
    config = find_config(config_path)
    _print_ok(f"configuration {config.path}: {len(config.styles)} styles")
    exit_code = DONE
    for check in (_styles, _folders, _weights, _device):
        try:
            for line in check(config):
                _print_ok(line)
        except StyledError as error:
            print_error(error)
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
        path = imagenet_file_of_daemon(config, read_daemon_state(config))
        if path is not None:
            yield f"weights: the daemon's are at {path}"
            return
        # `load_weights` would download 548 MB, which a check should not do.
        raise WeightsError(
            f"the pretrained network is not on this machine ({imagenet_file()})",
            "styled weights fetch downloads it (548 MB); so does the first start of styled run, "
            "with internet access",
            "or set engine.weights to untrained: pictures are recognisable, but plainer",
        )
    weights = load_weights(source)
    yield f"weights: {weights.source} (sha256 {weights.sha256[:12]}...)"


def _device(config: Config) -> Iterator[str]:
    device = choose_device(config.engine.device)
    note = f" ({device.degradation.message})" if device.degradation else ""
    yield f"device: {device.name}{note}"


def _print_ok(line: str) -> None:
    console.print(Text.assemble(("ok  ", "bold green"), printable(line)), soft_wrap=True)
