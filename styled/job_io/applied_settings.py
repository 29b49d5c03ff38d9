"""Applies the settings of one photo, in a file beside it, to its style."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from styled.config import Style
from styled.config.photo_settings import MAX_BYTES, parse_photo_settings
from styled.config.source import parse
from styled.errors import ConfigError, InputRejected, ResourceUnavailable
from styled.files import INIT_SUFFIX, MASK_SUFFIX, SETTINGS_SUFFIX, companions_of, readable
from styled.open_files import open_regular
from styled.sidecar import FileInfo, SettingsInfo


@dataclass(frozen=True, slots=True)
class AppliedSettings:
    """A photo's style after the settings beside the photo were applied.

    Attributes:
        style: The style, changed by the settings.
        mask: The file of the photo's mask; None: it has none.
        info: The settings, for the sidecar; None: there are none.
    """

    style: Style
    mask: Path | None = None
    info: SettingsInfo | None = None


def apply_photo_settings(photo: Path, style: Style, styles: Collection[str]) -> AppliedSettings:
    """Return the style of a photo after applying the settings beside the photo.

    Args:
        photo: The file in the inbox.
        style: The style of the job.
        styles: The names of all styles.

    Raises:
        InputRejected: the settings are not valid; the message has all problems.
        ResourceUnavailable: they can't be read now.
    """
    companions = companions_of(photo)
    path, mask = companions.get(SETTINGS_SUFFIX), companions.get(MASK_SUFFIX)
    if INIT_SUFFIX in companions:
        style = replace(style, init_image=companions[INIT_SUFFIX])
    if path is None:
        return AppliedSettings(style, mask)
    try:
        with open(open_regular(path), "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return AppliedSettings(style, mask)
    except OSError as error:
        raise ResourceUnavailable(
            f"{readable(path)} can't be read: {error.strerror}",
            "check its permissions: it has the settings of the photo",
        ) from error
    try:
        settings = parse_photo_settings(data, path, styles)
    except ConfigError as error:
        raise InputRejected(
            f"the photo's settings are not valid: {'; '.join(error.message.splitlines())}",
            f"fix {readable(path.name)}, which lies beside the photo, and drop both again",
        ) from error
    values = parse(data.decode("utf-8-sig")).data
    info = SettingsInfo(
        path=path.name, sha256=hashlib.sha256(data).hexdigest(),
        values={k: _plain(v) for k, v in values.items()} if isinstance(values, dict) else {},
    )  # fmt: skip
    if settings.mask is not None:
        mask = _beside(photo, settings.mask, "mask")
    style = settings.applied_to(style)
    init = settings.init_image
    if init is not None:
        style = replace(style, init_image=_beside(photo, init, "initial image"))
    return AppliedSettings(style, mask, info)


def _beside(photo: Path, name: str, what: str) -> Path:
    """Return a file that lies beside a photo.

    Raises:
        InputRejected: there is none of that name.
    """
    path = photo.with_name(name)
    if not path.is_file() or path.is_symlink():
        raise InputRejected(
            f"the photo's settings name the {what} {readable(name)}, which is not there",
            "put it beside the photo, and drop both again",
        )
    return path


def _plain(value: object) -> JsonValue:
    """Return a value of YAML as JSON has it."""
    if isinstance(value, dict):
        return {_text(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return _text(value)
    return value if value is None or isinstance(value, int | float) else _text(str(value))


def _text(value: str) -> str:
    """Return a text of YAML, which may hold surrogates that JSON can't, with these escaped."""
    return value.encode("utf-8", "backslashreplace").decode()


def mask_info(path: Path | None, data: bytes | None) -> FileInfo | None:
    """Return the sidecar's entry for a mask; None: there is none."""
    if path is None or data is None:
        return None
    return FileInfo(path=path.name, sha256=hashlib.sha256(data).hexdigest())
