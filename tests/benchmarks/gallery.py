"""What it takes to hang one more painting in the gallery, by how many hang there already.

The baseline is the first hundred. Sizes and paintings are not asked for.
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
from styled.delivery.gallery import Gallery, pieces_below
from styled.delivery.names import sidecar_of
from styled.sidecar import (
    InputFacts,
    JobFacts,
    Losses,
    LossFacts,
    ResultFacts,
    Sidecar,
    StyleFacts,
    TimingFacts,
)
from tests.benchmarks.pictures import pairs

HANGING = (100, 1000, 5000, 20000)
TRIES = 21


def run(device: torch.device, sizes: Sequence[int], paintings: Sequence[Path]) -> None:
    """Print a row for each number of paintings that hang already."""
    pair = next(iter(pairs(512, paintings)))
    data = photos.encode(pair.photo, "jpeg")
    print("hanging one more painting of 512 px, with its two small pictures")
    print(f"{'hanging':>10}{'ms':>10}{'ratio':>8}{'page, KB':>12}{'files, KB':>12}")
    baseline = None
    with tempfile.TemporaryDirectory() as folder:
        outbox = Path(folder, "outbox")
        rooms = outbox, Path(folder, "rejected"), Path(folder, "archive")
        for number, count in enumerate(HANGING):
            begun = HANGING[number - 1] + TRIES if number else 0
            for index in range(begun, count):
                _publish(outbox, index, b"")
            gallery = Gallery(outbox)
            gallery.rebuild(pieces_below(*rooms))
            seconds = []
            for index in range(count, count + TRIES):
                path = _publish(outbox, index, data)
                before = time.perf_counter()
                gallery.keep_pictures(f"{index:012x}", pair.photo, pair.photo)
                gallery.add([(path, None)])
                seconds.append(time.perf_counter() - before)
            baseline = baseline or median(seconds)
            pages = (outbox / "gallery_files" / "pages").glob("*.js")
            newest = max(pages, key=lambda page: page.name)
            print(f"{count:>10}{median(seconds) * 1000:>10.1f}{median(seconds) / baseline:>8.2f}"
                  f"{gallery.files.page.stat().st_size / 1000:>12.1f}"
                  f"{newest.stat().st_size / 1000:>12.1f}")  # fmt: skip


def _publish(outbox: Path, index: int, data: bytes) -> Path:
    path = outbox / "starry-night" / f"{index % 100:02}" / f"a photo of a holiday {index}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    then = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=index)
    losses = Losses(total=0.1, content=0.02, style=0.07, tv=0.01)
    trace = tuple((1 + k // 20, 1 + k % 20, 0.1 / (k + 1), 0.02, 0.07, 0.01) for k in range(60))
    sidecar = Sidecar(
        job=JobFacts(
            id=f"{index:012x}", attempts=1, resumed=False, submitted_at=then, started_at=then,
            finished_at=then,
        ),
        input=InputFacts(path=f"{index % 100:02}/{path.name}", bytes=1),
        style=StyleFacts(name="starry-night", images=()),
        recipe={"name": "pyramid"},
        result=ResultFacts(
            path=str(path.relative_to(outbox)), sha256="", width=512, height=384, format="jpeg"
        ),
        losses=LossFacts(first=losses, last=losses, trace=trace),
        timing=TimingFacts(waited=0, prepare=1, optimise=40, publish=1),
        degraded=(Degradation("weights", "the network is untrained"),),
    )  # fmt: skip
    sidecar_of(path).write_bytes(sidecar.to_json())
    return path
