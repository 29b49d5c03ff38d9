"""What the gallery says of one result or one rejected input."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path
from urllib.parse import quote

from pydantic import JsonValue

from styled.sidecar import LossFacts, Sidecar

Record = Mapping[str, JsonValue]

MOST_POINTS = 60
"""Of a loss curve."""


def record_of(
    sidecar: Sidecar, path: Path, outbox: Path, before: str | None, after: str | None
) -> Record | None:
    """Return what the page shows, None where a sidecar is neither of the two.

    Args:
        sidecar: Of the file at `path`.
        path: The result, or the rejected input.
        outbox: Where the page lies.
        before: The small picture of the photo, relative to the outbox.
        after: That of the painting.
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
    """Return a path as a URL relative to the outbox, whatever bytes its name is made of."""
    relative = os.path.relpath(path, outbox)
    return "/".join(quote(os.fsencode(part), safe="") for part in relative.split(os.sep))


def _curve(losses: LossFacts) -> tuple[list[JsonValue], list[JsonValue]]:
    """Return points of step and total loss, counted over all scales, and where scales begin."""
    points: list[tuple[int, float]] = []
    begins: list[JsonValue] = []
    before, scale, last = 0, None, 0
    for row in losses.trace:
        if row[0] != scale:
            scale, before = row[0], before + last
            begins.append(before + 1)
        last = row[1]
        if math.isfinite(row[2]):
            points.append((before + last, row[2]))
    return [[step, total] for step, total in _thinned(points)], begins


def _thinned(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    if len(points) <= MOST_POINTS:
        return points
    last = len(points) - 1
    return [points[round(i * last / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]
