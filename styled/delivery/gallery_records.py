"""Builds the record that the gallery page shows of one result or one rejected input."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path
from urllib.parse import quote

from pydantic import JsonValue

from styled.sidecar import LossInfo, Sidecar

GalleryRecord = Mapping[str, JsonValue]
"""The data of one result or one rejected input on the gallery page."""

MAX_POINTS = 60
"""Maximum number of points of a loss curve."""


def record_of(
    sidecar: Sidecar, path: Path, outbox: Path, before: str | None, after: str | None
) -> GalleryRecord | None:
    """Return the record, None if the sidecar describes neither a result nor a rejected input.

    Args:
        sidecar: Of the file at `path`.
        path: The result, or the rejected input.
        outbox: The folder of the page.
        before: The thumbnail of the photo, relative to the outbox.
        after: The thumbnail of the painting, relative to the outbox.
    """
    common: dict[str, JsonValue] = {
        "id": sidecar.job.id,
        "name": sidecar.input.path,
        "style": sidecar.style.name if sidecar.style else "",
        "finished": sidecar.job.finished_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if sidecar.rejected is not None:
        return {
            **common,
            "kind": "rejected",
            "reason": " - ".join([sidecar.rejected.reason, *sidecar.rejected.remedies]),
            "failure": sidecar.rejected.failure,
            "file": _url(path, outbox),
        }
    result, timing = sidecar.result, sidecar.timing
    if result is None:
        return None
    seconds = timing.prepare + timing.optimise + timing.publish if timing else 0.0
    curve, scales = _curve(sidecar.losses) if sidecar.losses else ([], [])
    return {
        **common,
        "kind": "result",
        "recipe": str((sidecar.recipe or {}).get("name", "")),
        "steering": _steering(sidecar),
        "seconds": round(seconds, 1) if math.isfinite(seconds) else 0.0,
        "width": result.width,
        "height": result.height,
        "result": _url(path, outbox),
        "sidecar": _url(path, outbox) + ".json",
        "before": before,
        "after": after,
        "curve": curve,
        "scales": scales,
        "degraded": [degradation.message for degradation in sidecar.degraded],
        "device": sidecar.engine.device if sidecar.engine else "",
        "weights": sidecar.engine.weights_source if sidecar.engine else "",
    }


def _url(path: Path, outbox: Path) -> str:
    """Return a path as a URL relative to the outbox; any bytes in its name are quoted."""
    relative = os.path.relpath(path, outbox)
    return "/".join(quote(os.fsencode(part), safe="") for part in relative.split(os.sep))


def _curve(losses: LossInfo) -> tuple[list[JsonValue], list[JsonValue]]:
    """Return points [step, total loss] and the first step of each scale.

    Steps are counted over all scales. Points whose loss is not finite are left out.
    """
    points: list[tuple[int, float]] = []
    first_steps: list[JsonValue] = []
    offset, scale, last = 0, None, 0
    for row in losses.trace:
        if row[0] != scale:
            scale, offset = row[0], offset + last
            first_steps.append(offset + 1)
        last = row[1]
        if math.isfinite(row[2]):
            points.append((offset + last, row[2]))
    return [[step, total] for step, total in _subsample(points)], first_steps


def _subsample(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    if len(points) <= MAX_POINTS:
        return points
    last = len(points) - 1
    return [points[round(i * last / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]


def _steering(sidecar: Sidecar) -> list[JsonValue]:
    """Return what a photographer has chosen for this painting, in a few words each."""
    words: list[JsonValue] = []
    strength = (sidecar.recipe or {}).get("strength", 50)
    if isinstance(strength, int | float) and strength != 50:
        words.append(f"strength {strength:g}")
    if sidecar.input.mask is not None:
        words.append("masked")
    if sidecar.input.settings is not None:
        words.append("settings of its own")
    return words
