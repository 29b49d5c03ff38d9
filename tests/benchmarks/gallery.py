"""Time to add one painting to the gallery, by the number of paintings in it.

The baseline is a gallery of 100. `--sizes` and `--paintings` are ignored.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import torch

from styled import photos
from styled.degradation import Degradation
from styled.delivery.gallery import Gallery, gallery_entries
from styled.delivery.names import sidecar_path
from styled.sidecar import (
    InputInfo,
    JobInfo,
    LossInfo,
    LossTerms,
    ResultInfo,
    Sidecar,
    StyleInfo,
    TimingInfo,
)
from tests.benchmarks.pictures import pairs

GALLERY_SIZES = (100, 1000, 5000, 20000)
TRIES = 21


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a row for each size of the gallery."""
    pair = next(iter(pairs(512, paintings)))
    data = photos.encode_image(pair.photo, "jpeg")
    print("adding one painting of 512 px to the gallery, with its two thumbnails")
    print(f"{'paintings':>10}{'ms':>10}{'ratio':>8}{'page, KB':>12}{'files, KB':>12}")
    baseline = None
    with tempfile.TemporaryDirectory() as folder:
        outbox = Path(folder, "outbox")
        folders = outbox, Path(folder, "rejected"), Path(folder, "archive")
        for number, count in enumerate(GALLERY_SIZES):
            first_index = GALLERY_SIZES[number - 1] + TRIES if number else 0
            for index in range(first_index, count):
                _publish(outbox, index, b"")
            gallery = Gallery(outbox)
            gallery.rebuild(gallery_entries(*folders))
            seconds = []
            for index in range(count, count + TRIES):
                path = _publish(outbox, index, data)
                before = time.perf_counter()
                gallery.write_thumbs(f"{index:012x}", pair.photo, pair.photo)
                gallery.add([(path, None)])
                seconds.append(time.perf_counter() - before)
            baseline = baseline or median(seconds)
            pages = (outbox / "gallery_files" / "records").glob("*.js")
            newest = max(pages, key=lambda page: page.name)
            print(f"{count:>10}{median(seconds) * 1000:>10.1f}{median(seconds) / baseline:>8.2f}"
                  f"{gallery.files.page.stat().st_size / 1000:>12.1f}"
                  f"{newest.stat().st_size / 1000:>12.1f}")  # fmt: skip


def _publish(outbox: Path, index: int, data: bytes) -> Path:
    path = outbox / "starry-night" / f"{index % 100:02}" / f"a photo of a holiday {index}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=index)
    losses = LossTerms(total=0.1, content=0.02, style=0.07, tv=0.01)
    trace = tuple((1 + k // 20, 1 + k % 20, 0.1 / (k + 1), 0.02, 0.07, 0.01) for k in range(60))
    sidecar = Sidecar(
        job=JobInfo(
            id=f"{index:012x}", attempts=1, resumed=False, submitted_at=when, started_at=when,
            finished_at=when,
        ),
        input=InputInfo(path=f"{index % 100:02}/{path.name}", bytes=1),
        style=StyleInfo(name="starry-night", images=()),
        recipe={"name": "pyramid"},
        result=ResultInfo(
            path=str(path.relative_to(outbox)), sha256="", width=512, height=384, format="jpeg"
        ),
        losses=LossInfo(first=losses, last=losses, trace=trace),
        timing=TimingInfo(waited=0, prepare=1, optimise=40, publish=1),
        degraded=(Degradation("weights", "the network is untrained"),),
    )  # fmt: skip
    sidecar_path(path).write_bytes(sidecar.to_json())
    return path
