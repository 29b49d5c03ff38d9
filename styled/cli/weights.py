"""`styled weights`: shows, downloads and exports the network's weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ValidationError
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from styled.atomic import atomic_write, make_folder
from styled.cli.exit_codes import console, error_console, exit_with_usage_error
from styled.cli.find_config import find_config, nearest_config
from styled.config import EngineConfig
from styled.engine.weights import (
    exported,
    fetch_imagenet,
    imagenet_file,
    imagenet_is_whole,
    load_weights,
)
from styled.engine_api import OnBytes
from styled.errors import ConfigError, WeightsError
from styled.files import readable
from styled.ops.humanize import printable

SUFFIX = ".safetensors"

DTYPES = {"float32": torch.float32, "float16": torch.float16}


class WeightsStatus(BaseModel):
    """The configured weights; printed by `styled weights show --json`.

    Attributes:
        source: `imagenet`, `untrained` or a path, as in the configuration.
        configured_in: The configuration file; None if there is none, so that defaults apply.
        file: The path of the weights, existing or not; None for `untrained`, which has no file.
        there: Whether the weights can be used without a download.
        bytes: The size of the file; None if there is none.
        sha256: Hash of the convolutions, independent of the file format; None if they can't be
            read.
    """

    source: str
    configured_in: str | None
    file: str | None
    there: bool
    bytes: int | None
    sha256: str | None


def show_weights(config_path: Path | None, *, as_json: bool) -> None:
    """Print the source and the state of the weights; nothing is downloaded.

    Raises:
        ConfigError: The configuration is invalid.
        WeightsError: The weights are missing or damaged; raised after the status is printed.
    """
    source, configured_in = _configured_source(config_path)
    file = _file_of(source)
    size = _size(file)
    sha256, problem = None, None
    try:
        sha256 = load_weights(source, may_download=False).sha256
    except WeightsError as error:
        problem = error
    status = WeightsStatus(
        source=readable(str(source)),
        configured_in=None if configured_in is None else readable(str(configured_in)),
        file=None if file is None else readable(str(file)),
        there=file is None or size is not None,
        bytes=size,
        sha256=sha256,
    )
    if as_json:
        print(status.model_dump_json(indent=2))
    else:
        _print_status(status)
    if problem is not None:
        raise problem


def fetch_weights() -> None:
    """Download the pretrained network, unless a file with the right hash exists.

    Raises:
        WeightsError: The download failed.
    """
    try:
        if imagenet_is_whole():
            _print_line(
                f"The pretrained network is here already, and its hash is right: {imagenet_file()}"
            )
            return
        error_console.print(
            Text(
                printable(f"{imagenet_file()} is damaged: its hash is wrong. Downloading it again.")
            ),
            soft_wrap=True,
        )
    except FileNotFoundError:
        pass
    with _progress_bar() as on_bytes:
        path = fetch_imagenet(on_bytes)
    _print_line(f"The pretrained network is here, and its hash is right: {path}")


def export_weights(
    out: Path,
    *,
    weights: str | None,
    config: Path | None,
    dtype: Literal["float32", "float16"],
) -> None:
    """Write the convolutions to a .safetensors file.

    Raises:
        ConfigError: `weights` or the configuration is invalid.
        WeightsError: The weights can't be read or downloaded.
        ResourceUnavailable: The file can't be written.
    """
    if out.suffix != SUFFIX:
        exit_with_usage_error(
            f"only {SUFFIX} files are written, which any program can read without running code "
            f"from them: try {out.with_suffix(SUFFIX) if out.name else Path('vgg19' + SUFFIX)}"
        )
    if out.is_dir():
        exit_with_usage_error(f"{out} is a folder; name a file in it")
    if weights is not None and config is not None:
        exit_with_usage_error("name either --weights or --config, not both")
    source = _parse_weights(weights) if weights is not None else _configured_source(config)[0]
    if isinstance(source, Path) and _is_same_file(source, out):
        exit_with_usage_error(f"{out} is the network itself, and would be lost: name another file")
    make_folder(out.absolute().parent)
    with _progress_bar() as on_bytes:
        data = exported(load_weights(source, on_bytes), DTYPES[dtype])
    atomic_write(out, data)
    _print_line(f"{out}  ({len(data) / 1e6:.0f} MB, {dtype}, from {source})")
    _print_line(f"On the other machine, set engine.weights to where {out.name} is.")


def _configured_source(config_path: Path | None) -> tuple[str | Path, Path | None]:
    """Return `engine.weights` and the path of the configuration, or the default and None."""
    if config_path is None and nearest_config() is None:
        return EngineConfig().weights, None
    config = find_config(config_path)
    return config.engine.weights, config.path


def _parse_weights(weights: str) -> str | Path:
    try:
        return EngineConfig.model_validate({"weights": weights}).weights
    except ValidationError as error:
        raise ConfigError(f"--weights: {error.errors()[0]['msg']}") from None


def _print_status(status: WeightsStatus) -> None:
    where = status.configured_in or "the default: there is no configuration"
    _print_line(f"weights: {status.source} ({where})")
    if status.file is None:
        _print_line("file:    none, it is made from a seed")
    elif not status.there:
        _print_line(f"file:    {status.file} (missing)")
    else:
        _print_line(f"file:    {status.file} ({(status.bytes or 0) / 1e6:.0f} MB)")
    if status.sha256 is not None:
        _print_line(f"sha256:  {status.sha256} (of the convolutions)")


@contextmanager
def _progress_bar() -> Iterator[OnBytes]:
    """Show a progress bar once the download starts; a resumed one starts at its offset."""
    columns = (
        TextColumn("fetching the pretrained network"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console) as bar:

        def on_bytes(done: int, total: int) -> None:
            if not done and not total:
                return  # no response yet
            if not bar.task_ids:
                bar.add_task("", completed=done, total=total or None)
            bar.update(bar.task_ids[0], completed=done, total=total or None)

        yield on_bytes


def _file_of(source: str | Path) -> Path | None:
    if source == "untrained":
        return None
    return imagenet_file() if source == "imagenet" else Path(source)


def _size(file: Path | None) -> int | None:
    try:
        return None if file is None else file.stat().st_size
    except OSError:
        return None


def _is_same_file(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def _print_line(line: str) -> None:
    console.print(Text(printable(line)), soft_wrap=True)
