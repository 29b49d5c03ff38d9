"""`styled explain`: why is this file (not) being painted?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.text import Text

from styled.cli.exits import console, leave_with_usage_error
from styled.cli.explain_photo import Explanation, Scene, in_inbox, of_jobs, told
from styled.cli.status import daemon_facts, inbox_status, stuck_in
from styled.cli.working_folder import current_folder, find_config
from styled.config import Config
from styled.delivery.names import sidecar_of
from styled.errors import JournalDamaged, NoJournal, ResourceUnavailable
from styled.files import readable
from styled.jobs.journal_queries import JournalReader
from styled.ops.lines import printable
from styled.ops.lock import InstanceLock
from styled.sidecar import Sidecar


def show_explanation(named: Path | None, words: list[str], *, as_json: bool) -> None:
    """Print why each of the files, or jobs, is where it is.

    Raises:
        ConfigError: there is no configuration.
    """
    config = find_config(named)
    if "" in words:
        leave_with_usage_error("name a file, or the id of a job")
    for explanation in explain(config, words):
        if as_json:
            print(explanation.model_dump_json())
        else:
            _print(explanation)


def explain(config: Config, words: Iterable[str]) -> list[Explanation]:
    """Return what there is to say of each word: a path, or the id of a job."""
    journal: JournalReader | None = None
    trouble: str | None = None
    facts: Mapping[str, str] = {}
    lives = True  # unless it is known better
    try:
        journal = JournalReader.open_read_only(config.state / "journal.sqlite3")
    except NoJournal:
        pass  # it has never run here, which is said where it matters
    except (JournalDamaged, ResourceUnavailable) as error:
        trouble = error.message
    try:
        lives = InstanceLock(config.state / "lock").owner() is not None
        if journal is not None and lives:
            facts = daemon_facts(config, journal)
            trouble = _trouble_in(facts)
    except (JournalDamaged, ResourceUnavailable) as error:
        trouble = trouble or error.message
    scene = Scene(config, journal, lives, trouble, inbox_status(facts), stuck_in(facts))
    try:
        return [_explain(word, scene) for word in words]
    finally:
        if journal is not None:
            journal.close()


def _trouble_in(facts: Mapping[str, str]) -> str | None:
    state = facts.get("state", "")
    paused = state if state.startswith("paused") else None
    return facts.get("stuck") or facts.get("inbox_trouble") or paused


def _explain(word: str, scene: Scene) -> Explanation:
    config = scene.config
    path = _place(word, scene)
    if path is None:
        job = scene.journal.job(readable(word)) if scene.journal is not None else None
        if job is not None:
            return of_jobs(readable(config.inbox / job.input), [job], scene)
        path = current_folder() / word
    for root, explain_in in (
        ("inbox", in_inbox), ("outbox", _in_outbox), ("rejected", _in_rejected),
        ("archive", _in_archive),
    ):  # fmt: skip
        folder = Path(os.path.realpath(getattr(config, root)))
        if path == folder:
            return told(path, "folder", f"the {root} itself")
        if path.is_relative_to(folder):
            if root != "inbox" and not os.path.lexists(path):
                return told(path, "missing", f"there is no such file in the {root}")
            if root != "inbox" and path.is_dir():
                return told(path, "folder", f"a folder in the {root}")
            return explain_in(path, str(path.relative_to(folder)), scene)
    if os.path.normpath(current_folder() / word).startswith(f"{config.inbox}{os.sep}"):
        return told(path, "no file", "the way there leads over a link, which is not followed")
    return _elsewhere(path, config, scene)


def _place(word: str, scene: Scene) -> Path | None:
    """Return the path that a word means: from here, or below the inbox. None: it is no path.

    Links on the way to it are followed, but it is not one itself.
    """
    config = scene.config
    for base in (current_folder(), config.inbox):
        path = base / word
        if os.path.lexists(path):
            return _resolved(path, word)
    gone = _resolved(current_folder() / word, word)
    folders = (config.inbox, config.outbox, config.rejected, config.archive)
    if any(gone.is_relative_to(os.path.realpath(folder)) for folder in folders):
        return gone
    if scene.jobs_about("input", os.path.normpath(word)):
        return _resolved(config.inbox / word, word)
    return gone if os.sep in word else None


def _resolved(path: Path, word: str) -> Path:
    if os.path.basename(word) in ("", ".", ".."):  # which are no names
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent), path.name)


# Elsewhere


def _in_outbox(path: Path, relative: str, scene: Scene) -> Explanation:
    result = _described(path)
    sidecar = _read_sidecar(result)
    if sidecar is None:
        return told(
            path, "result", "it has no .json of styled's beside it: it is about to be finished, "
            "or styled did not make it",
        )  # fmt: skip
    ends = f"{sidecar.job.finished_at:%Y-%m-%d %H:%M} UTC"
    degraded = [f"degraded: {degradation.message}" for degradation in sidecar.degraded]
    return told(
        path, "result",
        f"the painting of {sidecar.input.path} in {_style(sidecar)}, of {ends} "
        f"(job {sidecar.job.id})", *degraded,
    )  # fmt: skip


def _in_rejected(path: Path, relative: str, scene: Scene) -> Explanation:
    original = _described(path)
    sidecar = _read_sidecar(original)
    if sidecar is None or sidecar.rejected is None:
        return told(path, "rejected", "it has no .json of styled's beside it that says why")
    return told(
        path, "rejected", f"{sidecar.input.path} in {_style(sidecar)}: {sidecar.rejected.reason}",
        remedies=[*sidecar.rejected.remedies,
                  f"to have it tried once more: styled retry {readable(original)}"
                  if os.path.lexists(original)
                  else "it never left the inbox: change it there to have it tried once more"],
    )  # fmt: skip


def _in_archive(path: Path, relative: str, scene: Scene) -> Explanation:
    jobs = scene.jobs_about("original", str(scene.config.archive / relative))
    if not jobs:
        return told(path, "original", "the original of a photo that was painted long ago")
    explanation = of_jobs(readable(path), jobs, scene)
    return explanation.model_copy(update={"verdict": "original"})


def _elsewhere(path: Path, config: Config, scene: Scene) -> Explanation:
    styles = [
        name
        for name, style in config.styles.items()
        if any(os.path.realpath(image.path) == str(path) for image in style.images)
    ]
    if styles:
        return told(path, "style", f"it is what {' and '.join(styles)} paints in the style of")
    if config.path is not None and os.path.realpath(config.path) == str(path):
        return told(path, "elsewhere", "it is the configuration")
    if path.is_relative_to(os.path.realpath(config.state)):
        return told(path, "elsewhere", "it is in the state folder, which is styled's own")
    if not os.path.lexists(path):
        reasons = [] if scene.trouble is None else [scene.trouble]
        return told(path, "missing", *reasons, "there is no such file, nor a job of that id")
    return told(
        path, "elsewhere", "it lies in none of styled's folders",
        remedies=[f"to have it painted, copy it to {config.inbox}"],
    )  # fmt: skip


def _described(path: Path) -> Path:
    """Return what a sidecar is about; a photo may be called `.json` as well, and then has one."""
    is_sidecar = path.suffix == ".json" and not sidecar_of(path).exists()
    return path.with_suffix("") if is_sidecar else path


def _read_sidecar(result: Path) -> Sidecar | None:
    place = sidecar_of(result)
    try:
        if stat.S_ISREG(os.lstat(place).st_mode):  # a pipe would be waited for
            return Sidecar.model_validate_json(place.read_bytes())
    except (OSError, ValueError):
        pass
    return None


def _style(sidecar: Sidecar) -> str:
    return "no style" if sidecar.style is None else sidecar.style.name


def _print(explanation: Explanation) -> None:
    lines = [
        Text.assemble((printable(explanation.path), "bold"), f": {explanation.verdict}"),
        *(Text(f"  {printable(reason)}") for reason in explanation.reasons),
        *(Text(f"  - {printable(remedy)}", "cyan") for remedy in explanation.remedies),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
