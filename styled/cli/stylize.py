"""`styled stylize`: paints one picture, without a daemon."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

from pydantic import ValidationError
from rich.progress import (
    BarColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as ProgressBar,
)
from rich.text import Text

from styled import api
from styled.atomic import atomic_write, make_folder, resource_errors
from styled.cli.exit_codes import console, error_console, exit_with_usage_error
from styled.cli.find_config import find_config
from styled.codec.encode import encode
from styled.codec.prepare import Prepared, prepare
from styled.codec.source_files import read_source_files
from styled.codec.style_check import check_style
from styled.config import (
    EngineConfig,
    IntakeConfig,
    OutputConfig,
    Style,
    StyleImage,
    apply_set_options,
    resolve_recipe,
)
from styled.delivery.names import sidecar_path
from styled.engine.local_engine import LocalEngine
from styled.engine_api import Painted, Progress
from styled.errors import ConfigError, InputRejected
from styled.files import readable
from styled.job_io.sidecars import degradations_of_inputs, sidecar_of_result
from styled.journal.job import Job, JobState
from styled.ops.humanize import printable
from styled.precision_record import FILE_NAME, PrecisionRecord
from styled.recipes import DEFAULT_RECIPE, Recipe
from styled.sidecar import TimingInfo

FORMATS = {
    ".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".tif": "tiff", ".tiff": "tiff",
    ".webp": "webp", ".bmp": "bmp", ".gif": "gif", ".avif": "avif", ".heic": "heic",
}  # fmt: skip

MAX_PIXELS = IntakeConfig().max_pixels


@dataclass(frozen=True, slots=True)
class StylizeRequest:
    """The command-line options of `styled stylize`."""

    photo: Path
    out: Path
    images: tuple[Path, ...]
    style: str | None
    recipe: str | None
    set_options: tuple[str, ...]
    weights: str | None
    device: str | None
    precision: str | None
    seed: int | None
    config: Path | None
    size: Literal["painted", "input"] = "painted"
    strength: float | None = None
    mask: Path | None = None


def stylize_one(request: StylizeRequest) -> None:
    """Paint one picture and write it with its sidecar.

    Raises:
        StyledError: Invalid input, or a failure while painting or writing.
    """
    result_format = FORMATS.get(request.out.suffix.lower())
    if result_format is None:
        exit_with_usage_error(
            f"--out: {request.out} should end in one of {', '.join(sorted(FORMATS))}"
        )
    masks = () if request.mask is None else (request.mask,)
    for picture in (request.photo, *request.images, *masks):
        if is_same_file(picture, request.out):
            exit_with_usage_error(f"--out: {request.out} is {picture} itself, and would be lost")
    style, engine_config, state = _style_and_engine(request)
    if problems := check_style(style, max_pixels=MAX_PIXELS):
        raise ConfigError("\n".join(f"style image: {problem}" for problem in problems))
    submitted_at, started = time.time(), time.monotonic()
    try:
        mtime_ns = os.stat(request.photo).st_mtime_ns
        prepared = prepare(
            read_source_files(request.photo, style, request.mask),
            style.recipe,
            max_pixels=MAX_PIXELS,
            at_own_size=request.size == "input",
        )
    except FileNotFoundError as error:
        name = error.filename or request.photo
        raise InputRejected(f"{name} does not exist", "look at its name") from None
    if request.out.is_dir():
        raise ConfigError(f"--out: {request.out} is a folder", "name a file in it")
    require_writable(request.out.absolute().parent)

    with progress_bar() as bar:
        engine = load_engine(engine_config, bar, state)
        prepared_at = time.monotonic()
        painted = paint(engine, prepared, bar)
    painted_at = time.monotonic()

    encoded = encode(prepared, painted, result_format, OutputConfig(size=request.size))
    atomic_write(request.out, encoded.data)
    now = time.time()
    degraded = (
        *engine.info.degraded,
        *painted.degraded,
        *degradations_of_inputs(prepared),
        *encoded.degraded,
    )
    sidecar = sidecar_of_result(
        _job(request, prepared, submitted_at, mtime_ns),
        prepared,
        painted,
        engine.info,
        encoded.result_info(str(request.out)),
        TimingInfo(
            waited=0.0,
            prepare=prepared_at - started,
            optimise=painted_at - prepared_at,
            publish=time.monotonic() - painted_at,
        ),
        degraded=degraded,
        changed=False,
        now=now,
    )
    atomic_write(sidecar_path(request.out), sidecar.to_json())
    for degradation in degraded:
        _print_note(degradation.message)
    console.print(
        Text(printable(f"{request.out}  ({painted_at - prepared_at:.1f} s, how it was made: "
                       f"{sidecar_path(request.out)})")),
        soft_wrap=True,
    )  # fmt: skip


def _style_and_engine(request: StylizeRequest) -> tuple[Style, EngineConfig, Path | None]:
    """Combine the options of the command line with the configuration, if `--style` is given.

    Returns:
        The style, the section `engine`, and the state folder; None without a configuration.
    """
    if bool(request.images) == (request.style is not None):
        exit_with_usage_error("name a style: either -s IMAGE, once or more, or --style NAME")
    engine, state = EngineConfig(), None
    if request.style is None:
        images = tuple(StyleImage(path) for path in request.images)
        recipe = resolve_recipe(request.recipe or DEFAULT_RECIPE)
    else:
        config = find_config(request.config)
        if request.style not in config.styles:
            raise ConfigError(
                f'--style: there is no style "{request.style}"',
                f"the configuration has {', '.join(config.styles) or 'none'}",
            )
        style = config.styles[request.style]
        images, engine, state = style.images, config.engine, config.state
        recipe = resolve_recipe(request.recipe) if request.recipe else style.recipe
    return Style(images, _apply_options(recipe, request)), _override_engine(engine, request), state


def _apply_options(recipe: Recipe, request: StylizeRequest) -> Recipe:
    recipe = apply_set_options(request.set_options, recipe)
    if request.strength is not None:
        recipe = replace(recipe, strength=request.strength)
    return recipe if request.seed is None else replace(recipe, seed=request.seed)


def _override_engine(engine: EngineConfig, request: StylizeRequest) -> EngineConfig:
    options = {
        "device": request.device,
        "weights": request.weights,
        "precision": request.precision,
    }
    options_given = {key: value for key, value in options.items() if value is not None}
    try:
        return EngineConfig.model_validate({**engine.model_dump(), **options_given})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"--{first['loc'][0]}: {first['msg']}") from None


def load_engine(config: EngineConfig, bar: ProgressBar, state: Path | None) -> LocalEngine:
    """Load the network; download it if necessary.

    Args:
        config: The section `engine`.
        bar: Shows the progress of a download.
        state: The state folder, where the measured choice of `precision: auto` is cached. If it
            is None or not accessible, the precision is measured each time.

    Raises:
        WeightsError: The network can't be downloaded or read.
        DeviceError: The device is not available.
        ConfigError: The section is invalid.
    """
    task = bar.add_task("loading the network", total=None)

    def on_bytes(done: int, total: int) -> None:
        bar.update(task, description="fetching the network (548 MB, once)",
                   completed=done, total=total or None)  # fmt: skip

    record = None
    if state is not None and os.access(state, os.R_OK | os.W_OK | os.X_OK):
        record = PrecisionRecord(state / FILE_NAME, _print_note)
    engine = api.load_engine(config, on_bytes, record)
    bar.remove_task(task)
    return engine


def _print_note(message: str) -> None:
    error_console.print(Text(f"note: {printable(message)}"), soft_wrap=True)


def paint(engine: LocalEngine, prepared: Prepared, bar: ProgressBar, prefix: str = "") -> Painted:
    """Paint a picture and show the progress, with `prefix` before its description.

    Raises:
        EngineFailure: The picture can't be painted.
        DeviceLost: The device has failed.
    """
    bar_task = bar.add_task("painting", total=1.0)

    def show(event: Progress) -> None:
        width, height = event.size
        bar.update(
            bar_task,
            completed=event.fraction,
            description=f"{prefix}painting {width} x {height}, "
            f"step {event.step} of {event.steps}, loss {event.loss:.4g}",
        )

    painted = api.paint(engine, prepared, show)
    bar.remove_task(bar_task)
    return painted


@contextmanager
def progress_bar() -> Iterator[ProgressBar]:
    """Show a progress bar on standard error until the context exits."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
               TimeRemainingColumn())  # fmt: skip
    with ProgressBar(*columns, console=error_console, transient=True) as bar:
        yield bar


def is_same_file(a: Path, b: Path) -> bool:
    """Return whether both paths refer to the same existing file."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def require_writable(folder: Path) -> None:
    """Create the folder and check that files can be created in it, before a long painting.

    Raises:
        ResourceUnavailable: The folder can't be created or written.
    """
    make_folder(folder)
    with resource_errors(folder), TemporaryFile(dir=folder):
        pass


def _job(request: StylizeRequest, prepared: Prepared, submitted_at: float, mtime_ns: int) -> Job:
    """Return a job record for the command, for its sidecar."""
    return Job(
        id=f"stylize-{uuid.uuid4().hex[:12]}",
        input=str(request.photo),
        size=prepared.input_file.size_bytes,
        mtime_ns=mtime_ns,
        style=readable(request.style or "+".join(path.stem for path in request.images)),
        destination=request.out.name,
        state=JobState.DONE,
        attempts=1,
        submitted_at=submitted_at,
        not_before=0.0,
        started_at=submitted_at,
        finished_at=None,
        result=str(request.out),
        result_sha256=None,
        input_sha256=prepared.input_file.sha256,
        original=None,
        reason=None,
        failure=None,
        fraction=1.0,
    )
