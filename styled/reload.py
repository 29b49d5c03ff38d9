"""Reloads the configuration of a running daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from styled.app import App, record_state
from styled.codec.style_check import check_styles
from styled.config import load_config, require_styles
from styled.errors import ConfigError, StyledError, UnexpectedError
from styled.files import file_stamp
from styled.open_files import WriterCheck, Writers

log = structlog.get_logger()

SETTLE_SECONDS = 0.5
"""How long a configuration file must stay unchanged before it is loaded."""

MAX_WAIT_SECONDS = 5.0
"""Maximum time that a reload waits for that."""

POLL_SECONDS = 0.1

NEEDS_RESTART = (
    "inbox", "outbox", "rejected", "archive", "state", "engine", "cluster", "intake", "queue",
    "output", "metrics", "hooks", "styles_folder",
)  # fmt: skip
"""Sections of the configuration whose changes need a restart; a reload ignores them."""


def reload(app: App, is_stopping: Callable[[], bool]) -> None:
    """Load the configuration file again and use its styles and folders.

    If the file is invalid, nothing changes and the error is logged.

    Args:
        app: The running daemon's objects.
        is_stopping: Returns whether to stop waiting for a file that is being written.
    """
    path = app.config.path
    if path is None:
        return
    try:
        _wait_until_saved(path, is_stopping)
        config = load_config(path)
        app.host.require_styles_folder(config)
        require_styles(config)
        # Images of known styles may be missing temporarily; new styles must be usable. Those of
        # the styles folder become usable when they are: each concerns only its own photos.
        in_folder = {
            name: style
            for name, style in config.styles.items()
            if config.styles_folder in {image.path.parent for image in style.images}
        }
        check_styles(config, known={**app.host.config.styles, **in_folder})
    # Files of other people are read: no content of them may end the daemon.
    except Exception as error:
        if not isinstance(error, StyledError):
            log.exception("config.internal_error")
            error = UnexpectedError.of(error)
        log.error("config.rejected", reason=str(error))
        problem = f"a reload has changed nothing: {error.message}"
        record_state(app.journal, config_problem=problem)
        return
    ignored = [name for name in NEEDS_RESTART if getattr(config, name) != getattr(app.config, name)]
    record_state(
        app.journal,
        config_problem="",
        needs_restart=f"changes of {', '.join(ignored)} need a restart" if ignored else "",
        styles_left_out="; ".join(config.left_out),
    )
    # The running values stay: an inbox elsewhere, for instance, is watched from the start only.
    app.reload(replace(config, **{name: getattr(app.config, name) for name in ignored}))
    log.info("config.reloaded", styles=list(config.styles))
    if ignored:
        log.warning("config.needs_restart", sections=ignored)


def _wait_until_saved(path: Path, is_stopping: Callable[[], bool]) -> None:
    """Wait until the file is unchanged and not open for writing for `SETTLE_SECONDS`.

    Raises:
        ConfigError: it is still being written after `MAX_WAIT_SECONDS`.
    """
    writer_check, previous, since = WriterCheck(), file_stamp(path), time.monotonic()
    deadline = since + MAX_WAIT_SECONDS
    while not is_stopping():
        time.sleep(POLL_SECONDS)
        now, current = time.monotonic(), file_stamp(path)
        if current != previous or writer_check.writers(path) is Writers.SOME:
            previous, since = current, now
        if now - since >= SETTLE_SECONDS:
            return
        if now > deadline:
            raise ConfigError(
                f"{path}: is still being written", "reload again once it has been saved"
            )
