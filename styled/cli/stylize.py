"""`styled stylize`: one picture, now, with a progress bar."""

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

from styled.atomic import atomic_write, make_folder, resource_errors
from styled.cli.exits import console, errors, leave_with_usage_error
from styled.cli.working_folder import find_config
from styled.config import (
    EngineConfig,
    IntakeConfig,
    OutputConfig,
    Style,
    StyleImage,
    parse_settings,
    resolve_recipe,
)
from styled.delivery.names import sidecar_of
from styled.engine.local import LocalEngine
from styled.engine.memory import keep_freed_memory
from styled.engine_api import Failed, Painted, Progress
from styled.engine_setup import make_engine
from styled.errors import ConfigError, InputRejected
from styled.files import readable
from styled.jobs.job import Job, JobState
from styled.jobs.prepare import Prepared, check_style, prepare, read_inputs
from styled.jobs.publish import encode
from styled.jobs.sidecars import degradations_of_inputs, sidecar_of_result
from styled.ops.lines import printable
from styled.precision_record import FILE_NAME, PrecisionRecord
from styled.recipes import DEFAULT_RECIPE, Recipe
from styled.sidecar import TimingFacts

FORMATS = {
    ".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".tif": "tiff", ".tiff": "tiff",
    ".webp": "webp", ".bmp": "bmp", ".gif": "gif", ".avif": "avif", ".heic": "heic",
}  # fmt: skip

MAX_PIXELS = IntakeConfig().max_pixels


@dataclass(frozen=True, slots=True)
class StylizeRequest:
    """The command line of `styled stylize`."""

    photo: Path
    out: Path
    images: tuple[Path, ...]
    style: str | None
    recipe: str | None
    settings: tuple[str, ...]
    weights: str | None
    device: str | None
    precision: str | None
    seed: int | None
    config: Path | None
    size: Literal["painted", "input"] = "painted"


def stylize_one(request: StylizeRequest) -> None:
    """Paint one picture and its sidecar.

    Raises:
        StyledError: it can't be done; the message says why.
    """
    result_format = FORMATS.get(request.out.suffix.lower())
    if result_format is None:
        leave_with_usage_error(
            f"--out: {request.out} should end in one of {', '.join(sorted(FORMATS))}"
        )
    for picture in (request.photo, *request.images):
        if is_same_file(picture, request.out):
            leave_with_usage_error(f"--out: {request.out} is {picture} itself, and would be lost")
    style, engine_config, state = _style_and_engine(request)
    if problems := check_style(style, max_pixels=MAX_PIXELS):
        raise ConfigError("\n".join(f"style image: {problem}" for problem in problems))
    submitted_at, begun = time.time(), time.monotonic()
    try:
        mtime_ns = os.stat(request.photo).st_mtime_ns
        prepared = prepare(
            read_inputs(request.photo, style),
            style.recipe,
            max_pixels=MAX_PIXELS,
            at_own_size=request.size == "input",
        )
    except FileNotFoundError:
        raise InputRejected(f"{request.photo} does not exist", "look at its name") from None
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
        *painted.degradations,
        *degradations_of_inputs(prepared),
        *encoded.degraded,
    )
    sidecar = sidecar_of_result(
        _job(request, prepared, submitted_at, mtime_ns),
        prepared,
        painted,
        engine.info,
        encoded.facts(str(request.out)),
        TimingFacts(
            waited=0.0,
            prepare=prepared_at - begun,
            optimise=painted_at - prepared_at,
            publish=time.monotonic() - painted_at,
        ),
        degraded=degraded,
        changed=False,
        now=now,
    )
    atomic_write(sidecar_of(request.out), sidecar.to_json())
    for degradation in degraded:
        _note(degradation.message)
    console.print(
        Text(printable(f"{request.out}  ({painted_at - prepared_at:.1f} s, how it was made: "
                       f"{sidecar_of(request.out)})")),
        soft_wrap=True,
    )  # fmt: skip


def _style_and_engine(request: StylizeRequest) -> tuple[Style, EngineConfig, Path | None]:
    """Put together what the command line and, where it is asked for, the configuration say.

    Returns:
        The style, the engine's section, and the state folder of a configuration.
    """
    if bool(request.images) == (request.style is not None):
        leave_with_usage_error("name a style: either -s IMAGE, once or more, or --style NAME")
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
    return Style(images, _adjusted(recipe, request)), _overridden(engine, request), state


def _adjusted(recipe: Recipe, request: StylizeRequest) -> Recipe:
    recipe = parse_settings(request.settings, recipe)
    return recipe if request.seed is None else replace(recipe, seed=request.seed)


def _overridden(engine: EngineConfig, request: StylizeRequest) -> EngineConfig:
    options = {
        "device": request.device,
        "weights": request.weights,
        "precision": request.precision,
    }
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return EngineConfig.model_validate({**engine.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"--{first['loc'][0]}: {first['msg']}") from None


def load_engine(config: EngineConfig, bar: ProgressBar, state: Path | None) -> LocalEngine:
    """Load the network, fetching it where it is not there yet.

    Args:
        config: The section `engine`.
        bar: Shows how much of a download is done.
        state: The state folder, which remembers what `precision: auto` was found to mean.
            Where there is none, or it is somebody else's, that is measured each time.

    Raises:
        WeightsError, DeviceError, ConfigError: it can't be had.
    """
    task = bar.add_task("loading the network", total=None)

    def on_bytes(done: int, total: int) -> None:
        bar.update(task, description="fetching the network (548 MB, once)",
                   completed=done, total=total or None)  # fmt: skip

    keep_freed_memory()
    record = None
    if state is not None and os.access(state, os.R_OK | os.W_OK | os.X_OK):
        record = PrecisionRecord(state / FILE_NAME, atomic_write, _note)
    engine = make_engine(config, on_bytes, record)
    bar.remove_task(task)
    return engine


def _note(message: str) -> None:
    errors.print(Text(f"note: {printable(message)}"), soft_wrap=True)


def paint(engine: LocalEngine, prepared: Prepared, bar: ProgressBar, what: str = "") -> Painted:
    """Paint, and show how far it is; `what` stands before that.

    Raises:
        EngineFailure, DeviceLost: as the engine says.
    """
    shown = bar.add_task("painting", total=1.0)
    task = replace(prepared.task("stylize"), progress_seconds=0.0, checkpoint_seconds=None)
    for event in engine.run(task):
        match event:
            case Progress():
                width, height = event.size
                bar.update(
                    shown,
                    completed=event.fraction,
                    description=f"{what}painting {width} x {height}, "
                    f"step {event.step} of {event.steps}, loss {event.loss:.4g}",
                )
            case Painted():
                bar.remove_task(shown)
                return event
            case Failed(error):
                raise error
    raise AssertionError("a run ends with what was painted, or fails")


@contextmanager
def progress_bar() -> Iterator[ProgressBar]:
    """Show progress while the context lasts."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
               TimeRemainingColumn())  # fmt: skip
    with ProgressBar(*columns, console=errors, transient=True) as bar:
        yield bar


def is_same_file(a: Path, b: Path) -> bool:
    """Tell whether both names lead to one file that is there."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def require_writable(folder: Path) -> None:
    """Make the folder, and a file in it: better to fail now than after all the painting.

    Raises:
        ResourceUnavailable: either can't be done.
    """
    make_folder(folder)
    with resource_errors(folder), TemporaryFile(dir=folder):
        pass


def _job(request: StylizeRequest, prepared: Prepared, submitted_at: float, mtime_ns: int) -> Job:
    """Describe the command as a job, so that its sidecar is like all others."""
    return Job(
        id=f"stylize-{uuid.uuid4().hex[:12]}",
        input=str(request.photo),
        size=prepared.read.bytes,
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
        input_sha256=prepared.read.sha256,
        original=None,
        reason=None,
        failure=None,
        fraction=1.0,
    )
