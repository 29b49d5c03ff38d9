"""Applies a photo's own settings, in a file beside it, to its style."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import yaml
from pydantic import JsonValue

from styled.config import Style
from styled.config.photo_settings import MAX_BYTES, parse_photo_settings
from styled.errors import ConfigError, InputRejected, ResourceUnavailable
from styled.files import SETTINGS_SUFFIX, companions_of, readable
from styled.open_files import open_regular
from styled.sidecar import SettingsInfo


def with_own_settings(
    photo: Path, style: Style, styles: Collection[str]
) -> tuple[Style, SettingsInfo | None]:
    """Return a photo's style with its own settings, and these for the sidecar; None: it has none.

    Args:
        photo: The file in the inbox.
        style: The style of the job.
        styles: The names of all styles.

    Raises:
        InputRejected: the settings are not valid; the message has all problems.
        ResourceUnavailable: they can't be read now.
    """
    path = companions_of(photo).get(SETTINGS_SUFFIX)
    if path is None:
        return style, None
    try:
        with open(open_regular(path), "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return style, None
    except OSError as error:
        raise ResourceUnavailable(
            f"{readable(path)} can't be read: {error.strerror}",
            "check its permissions: it has the settings of the photo",
        ) from error
    try:
        settings = parse_photo_settings(data, path, styles)
    except ConfigError as error:
        raise InputRejected(
            f"the photo's own settings are not valid: {'; '.join(error.message.splitlines())}",
            f"mend {readable(path.name)}, which lies beside the photo, and drop both again",
        ) from error
    values = yaml.safe_load(data) or {}
    info = SettingsInfo(
        path=path.name, sha256=hashlib.sha256(data).hexdigest(),
        values={str(key): _plain(value) for key, value in values.items()},
    )  # fmt: skip
    return settings.applied_to(style), info


def _plain(value: object) -> JsonValue:
    """Return a value of YAML as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)
