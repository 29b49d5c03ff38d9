"""`styled explain`: says why a file is or is not being painted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.text import Text

from styled.cli.exit_codes import console, exit_with_usage_error
from styled.cli.explanations import (
    ExplainContext,
    Explanation,
    explain_inbox_path,
    explain_jobs,
    make_explanation,
)
from styled.cli.find_config import current_folder, find_config_in_use
from styled.cli.status import daemon_state, inbox_status, stuck_in
from styled.config import Config
from styled.delivery.names import sidecar_path
from styled.errors import JournalDamaged, NoJournal, ResourceUnavailable
from styled.files import readable
from styled.journal.queries import JournalReader
from styled.ops.humanize import printable
from styled.ops.lock import InstanceLock
from styled.sidecar import Sidecar


def show_explanation(config_path: Path | None, args: list[str], *, as_json: bool) -> None:
    """Print the explanation of each file or job.

    Raises:
        ConfigError: There is no valid configuration.
    """
    config = find_config_in_use(config_path)
    if "" in args:
        exit_with_usage_error("name a file, or the id of a job")
    for explanation in explain(config, args):
        if as_json:
            print(explanation.model_dump_json())
        else:
            _print(explanation)


def explain(config: Config, args: Iterable[str]) -> list[Explanation]:
    """Return the explanation of each argument, which is a path or a job id."""
    journal: JournalReader | None = None
    problem: str | None = None
    state: Mapping[str, str] = {}
    is_running = True  # if the lock can't be read
    try:
        journal = JournalReader.open_read_only(config.state / "journal.sqlite3")
    except NoJournal:
        pass  # the daemon has never run on these folders
    except (JournalDamaged, ResourceUnavailable) as error:
        problem = error.message
    try:
        is_running = InstanceLock(config.state / "lock").owner() is not None
        if journal is not None and is_running:
            state = daemon_state(config, journal)
            problem = _main_problem(state)
    except (JournalDamaged, ResourceUnavailable) as error:
        problem = problem or error.message
    context = ExplainContext(
        config, journal, is_running, problem, inbox_status(state), stuck_in(state)
    )
    try:
        return [_explain(arg, context) for arg in args]
    finally:
        if journal is not None:
            journal.close()


def _main_problem(state: Mapping[str, str]) -> str | None:
    queue_state = state.get("activity", "")
    paused = queue_state if queue_state.startswith("paused") else None
    return state.get("stalled") or state.get("inbox_problem") or paused


def _explain(arg: str, context: ExplainContext) -> Explanation:
    config = context.config
    path = _resolve_arg(arg, context)
    if path is None:
        job = context.journal.job(readable(arg)) if context.journal is not None else None
        if job is not None:
            return explain_jobs(readable(config.inbox / job.input), [job], context)
        path = current_folder() / arg
    for root, explain_in in (
        ("inbox", explain_inbox_path), ("outbox", _explain_result), ("rejected", _explain_rejected),
        ("archive", _explain_original),
    ):  # fmt: skip
        folder = Path(os.path.realpath(getattr(config, root)))
        if path == folder:
            return make_explanation(path, "folder", f"the {root} itself")
        if path.is_relative_to(folder):
            if root != "inbox" and not os.path.lexists(path):
                return make_explanation(
                    path, "missing", f"there is no such file in the folder {root}"
                )
            if root != "inbox" and path.is_dir():
                return make_explanation(path, "folder", f"a folder in the {root}")
            return explain_in(path, str(path.relative_to(folder)), context)
    if os.path.normpath(current_folder() / arg).startswith(f"{config.inbox}{os.sep}"):
        return make_explanation(
            path, "not a file", "a folder in its path is a link, which is not followed"
        )
    return _explain_other(path, config, context)


def _resolve_arg(arg: str, context: ExplainContext) -> Path | None:
    """Return the absolute path of an argument, or None if it is not a path.

    Relative paths refer to the current folder, else to the inbox. Symbolic links in the parent
    folders are resolved; the last component is not.
    """
    config = context.config
    for base in (current_folder(), config.inbox):
        path = base / arg
        if os.path.lexists(path):
            return _resolve_parent(path, arg)
    missing = _resolve_parent(current_folder() / arg, arg)
    folders = (config.inbox, config.outbox, config.rejected, config.archive)
    if any(missing.is_relative_to(os.path.realpath(folder)) for folder in folders):
        return missing
    if context.jobs_about("input", os.path.normpath(arg)):
        return _resolve_parent(config.inbox / arg, arg)
    return missing if os.sep in arg else None


def _resolve_parent(path: Path, arg: str) -> Path:
    if os.path.basename(arg) in ("", ".", ".."):  # not a file name: resolve it as well
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent), path.name)


# Outside the inbox


def _explain_result(path: Path, relative: str, context: ExplainContext) -> Explanation:
    result = _described_file(path)
    sidecar = _read_sidecar(result)
    if sidecar is None:
        return make_explanation(
            path, "result", "it has no sidecar (.json) of styled's: it is being published, "
            "or styled did not make it",
        )  # fmt: skip
    finished = f"{sidecar.job.finished_at:%Y-%m-%d %H:%M} UTC"
    degraded = [f"degraded: {degradation.message}" for degradation in sidecar.degraded]
    return make_explanation(
        path, "result",
        f"the painting of {sidecar.input.path} in {_style_name(sidecar)}, of {finished} "
        f"(job {sidecar.job.id})", *degraded,
    )  # fmt: skip


def _explain_rejected(path: Path, relative: str, context: ExplainContext) -> Explanation:
    original = _described_file(path)
    sidecar = _read_sidecar(original)
    if sidecar is None or sidecar.rejected is None:
        return make_explanation(
            path, "rejected", "it has no sidecar (.json) of styled's that says why"
        )
    return make_explanation(
        path, "rejected",
        f"{sidecar.input.path} in {_style_name(sidecar)}: {sidecar.rejected.reason}",
        remedies=[*sidecar.rejected.remedies,
                  f"to have it tried once more: styled retry {readable(original)}"
                  if os.path.lexists(original)
                  else "it never left the inbox: change it there to have it tried once more"],
    )  # fmt: skip


def _explain_original(path: Path, relative: str, context: ExplainContext) -> Explanation:
    jobs = context.jobs_about("original", str(context.config.archive / relative))
    if not jobs:
        return make_explanation(
            path, "original", "the original of a photo that was painted long ago"
        )
    explanation = explain_jobs(readable(path), jobs, context)
    return explanation.model_copy(update={"verdict": "original"})


def _explain_other(path: Path, config: Config, context: ExplainContext) -> Explanation:
    styles = [
        name
        for name, style in config.styles.items()
        if any(os.path.realpath(image.path) == str(path) for image in style.images)
    ]
    if styles:
        return make_explanation(
            path, "style", f"it is what {' and '.join(styles)} paints in the style of"
        )
    if config.path is not None and os.path.realpath(config.path) == str(path):
        return make_explanation(path, "elsewhere", "it is the configuration")
    if path.is_relative_to(os.path.realpath(config.state)):
        return make_explanation(
            path, "elsewhere", "it is in the state folder, which is styled's own"
        )
    if not os.path.lexists(path):
        reasons = [] if context.problem is None else [context.problem]
        return make_explanation(
            path, "missing", *reasons, "there is no such file, nor a job of that id"
        )
    return make_explanation(
        path, "elsewhere", "it lies in none of styled's folders",
        remedies=[f"to have it painted, copy it to {config.inbox}"],
    )  # fmt: skip


def _described_file(path: Path) -> Path:
    """Return the file that a sidecar describes, and any other path unchanged.

    A file that has a sidecar is not one itself, even if its suffix is `.json`.
    """
    is_sidecar = path.suffix == ".json" and not sidecar_path(path).exists()
    return path.with_suffix("") if is_sidecar else path


def _read_sidecar(result: Path) -> Sidecar | None:
    path = sidecar_path(result)
    try:
        if stat.S_ISREG(os.lstat(path).st_mode):  # reading a pipe would block
            return Sidecar.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        pass
    return None


def _style_name(sidecar: Sidecar) -> str:
    return "no style" if sidecar.style is None else sidecar.style.name


def _print(explanation: Explanation) -> None:
    lines = [
        Text.assemble((printable(explanation.path), "bold"), f": {explanation.verdict}"),
        *(Text(f"  {printable(reason)}") for reason in explanation.reasons),
        *(Text(f"  {printable(source)}", "dim") for source in explanation.settings),
        *(Text(f"  - {printable(remedy)}", "cyan") for remedy in explanation.remedies),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
