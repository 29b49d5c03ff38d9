"""Decoding photos and encoding results on the machines of the cluster: bytes in, bytes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from styled.cluster.errors import styled_errors
from styled.cluster.remote_images import (
    Exportable,
    PaintTaskImages,
    RemotePainted,
    RemotePrepared,
    remote_prepared,
    with_pixels,
    without_pixels,
)
from styled.cluster.shared_objects import SharedObjects
from styled.codec.encode import Encoded
from styled.codec.prepare import Prepared
from styled.codec.source_files import SourceFiles
from styled.config import OutputConfig
from styled.engine_api import Painted
from styled.errors import NodeLost
from styled.recipes import Recipe

if TYPE_CHECKING:
    from styled.codec.style_pictures import StylePictures

AVOIDED_SECONDS = 30.0
"""How long a machine that was lost gets no tasks; Ray takes some 15 s to notice."""

SPARE_RAY_TASKS = 1
"""Tasks that a machine may run at once, beyond one for each of its engines."""


@dataclass(frozen=True, slots=True)
class CodecNode:
    """A machine that photos are decoded on.

    Attributes:
        tasks: Maximum number of tasks at once.
    """

    id: str
    name: str
    tasks: int


class CodecNodes:
    """The machines that tasks run on, each with a limit; thread-safe.

    Ray itself does not limit them: they ask for no CPU, because the engines hold all of them.
    """

    def __init__(self) -> None:
        """Start without any machine."""
        self._changed = threading.Condition()
        self._nodes: dict[str, CodecNode] = {}
        self._running: dict[str, int] = {}
        self._avoided: dict[str, float] = {}  # node id -> until when, in monotonic seconds

    def avoid(self, node: CodecNode) -> None:
        """Use another machine, if there is one, while Ray finds out that this one is dead."""
        with self._changed:
            self._avoided[node.id] = time.monotonic() + AVOIDED_SECONDS

    def set(self, nodes: Sequence[CodecNode]) -> None:
        """Use these machines from now on."""
        with self._changed:
            self._nodes = {node.id: node for node in nodes}
            self._changed.notify_all()

    @contextmanager
    def acquire(self, preferred: str = "") -> Iterator[CodecNode]:
        """Wait for a machine below its limit of tasks: `preferred`, or the one with the fewest.

        Raises:
            NodeLost: there is no machine any more.
        """
        with self._changed:
            while (node := self._with_room(preferred)) is None:
                self._changed.wait()
            self._running[node.id] = self._running.get(node.id, 0) + 1
        try:
            yield node
        finally:
            with self._changed:
                self._running[node.id] -= 1
                self._changed.notify_all()  # each waits for a machine of its own

    def _with_room(self, preferred: str) -> CodecNode | None:
        if not self._nodes:
            raise NodeLost(
                "there is no machine in the cluster that could decode or encode photos",
                "start one, with styled installed: ray start --address=HOST:PORT",
            )
        now = time.monotonic()
        nodes = [one for one in self._nodes.values() if self._avoided.get(one.id, 0.0) < now]
        nodes = nodes or list(self._nodes.values())
        node = next((one for one in nodes if one.id == preferred), None) or min(
            nodes, key=lambda one: self._running.get(one.id, 0)
        )
        return node if self._running.get(node.id, 0) < node.tasks else None


class RemotePhotoCodec:
    """Does the work as Ray tasks; only encoded bytes and descriptions come to this process."""

    uses_own_memory = False

    def __init__(self, nodes: CodecNodes, objects: SharedObjects) -> None:
        """Run the tasks on `nodes`, and keep style images in `objects`."""
        self._nodes = nodes
        self._objects = objects

    def prepare(
        self, files: SourceFiles, recipe: Recipe, *, max_pixels: int, at_own_size: bool,
        paint_damaged: bool,
    ) -> Prepared:  # fmt: skip
        """Decode a photo and its style; see `styled.codec.prepare.prepare`."""
        put = self._objects.style
        described = tuple(
            replace(s, data=b"") if isinstance(s.data, bytes) else s for s in files.styles
        )
        with self._nodes.acquire() as node, self._errors(node):
            stored = [put(s.data) if isinstance(s.data, bytes) else None for s in files.styles]
            answer, images, exportable = _on(node, _PREPARE, num_returns=3).remote(
                replace(files, styles=described), stored, recipe, max_pixels, at_own_size,
                paint_damaged,
            )  # fmt: skip
            prepared: Prepared = ray.get(answer)
        return remote_prepared(prepared, images, exportable)

    def encode(
        self, prepared: Prepared, painted: Painted, format: str, output: OutputConfig
    ) -> Encoded:
        """Encode a painting where it was painted; see `styled.codec.encode.encode`."""
        assert isinstance(prepared, RemotePrepared), "it comes from `prepare`"
        preferred = ""
        pixels: Any = painted.image  # kept on disk, since it could not be published before
        if isinstance(painted, RemotePainted):
            preferred, pixels = painted.node_id, painted.pixels  # Ray passes the image itself
        painted = Painted(painted.image.to("meta"), trace=(), detail_steps=painted.detail_steps)
        with self._nodes.acquire(preferred) as node, self._errors(node):
            answer = _on(node, _ENCODE, num_returns=1).remote(
                _described(prepared), prepared.images, prepared.exportable, painted, pixels,
                format, output, output.gallery,
            )  # fmt: skip
            encoded: Encoded = ray.get(answer)
        return encoded

    @contextmanager
    def _errors(self, node: CodecNode) -> Iterator[None]:
        """Raise what a task has raised, or that its process or machine has died."""
        try:
            with styled_errors(node.id, node.name):
                yield
        except NodeLost:
            self._nodes.avoid(node)
            raise


@cache
def _style_pictures() -> StylePictures:
    """Return those of this worker process, which decodes one photo after the other."""
    from styled.codec.style_pictures import StylePictures

    return StylePictures()


def _prepare_remotely(
    files: SourceFiles,
    stored: list[ray.ObjectRef[Any] | None],
    recipe: Recipe,
    max_pixels: int,
    at_own_size: bool,
    paint_damaged: bool,
) -> tuple[Prepared, PaintTaskImages, Exportable]:
    from styled.codec.prepare import prepare

    _use_one_torch_thread()
    styles = tuple(
        style if ref is None else replace(style, data=ray.get(ref))
        for style, ref in zip(files.styles, stored, strict=True)
    )
    files = replace(files, styles=styles)
    prepared = prepare(
        files, recipe, max_pixels=max_pixels, at_own_size=at_own_size,
        paint_damaged=paint_damaged, style_pictures=_style_pictures(),
    )  # fmt: skip
    return without_pixels(prepared)


def _encode_remotely(
    described: Prepared,
    images: PaintTaskImages,
    exportable: Exportable,
    painted: Painted,
    pixels: Any,
    format: str,
    output: OutputConfig,
    with_thumbs: bool,
) -> Encoded:
    import torch

    from styled.codec.encode import encode

    _use_one_torch_thread()
    prepared = with_pixels(described, images, exportable)
    encoded = encode(prepared, replace(painted, image=pixels), format, output)
    meta = torch.device("meta")
    return replace(
        encoded,
        image=encoded.image.to(meta),
        content=encoded.content.to(meta),
        thumbs=_thumbs(encoded) if with_thumbs else None,
    )


def _thumbs(encoded: Encoded) -> tuple[bytes, bytes] | None:
    """Return the gallery's thumbnails; None: the gallery makes them later, from the files."""
    from styled.delivery.gallery import encode_thumbs

    try:
        return encode_thumbs(encoded.content, encoded.image)
    except (RuntimeError, MemoryError, ValueError):  # as the publication without a cluster
        return None


_PREPARE, _ENCODE = ray.remote(_prepare_remotely), ray.remote(_encode_remotely)


def _described(prepared: RemotePrepared) -> Prepared:
    """Return what is known here, without references: those are passed as arguments."""
    return Prepared(
        prepared.input_file, prepared.content, prepared.styles, prepared.recipe,
        prepared.painted_size, prepared.result_size,
    )  # fmt: skip


def _on(node: CodecNode, task: Any, *, num_returns: int) -> Any:
    return task.options(
        num_cpus=0,
        num_returns=num_returns,
        max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        enable_task_events=False,
    )


def _use_one_torch_thread() -> None:
    # As in the local I/O pool, so that the bytes are the same.
    import torch

    torch.get_num_threads()  # the first call resets a number that was set before it
    torch.set_num_threads(1)
