"""Prepared photos, tasks and paintings whose pixels are in the cluster's object store.

Their tensors are on torch's meta device: they have a shape but no pixels. `loaded` fetches those,
on whichever machine it is called.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import ray
from torch import Tensor

from styled.cluster.errors import is_lost
from styled.codec.prepare import Blend, Prepared
from styled.engine_api import Painted, PaintTask
from styled.errors import NodeLost
from styled.photos import Photo


class PaintTaskImages(NamedTuple):
    """The pixels that an engine needs: of the photo, each style image, and the initial image."""

    content: Tensor
    styles: tuple[Tensor, ...]
    init: Tensor | None = None


@dataclass(frozen=True, slots=True)
class RemotePaintTask(PaintTask):
    """A task whose images are in the object store.

    Attributes:
        images: Refers to `PaintTaskImages`.
    """

    images: ray.ObjectRef[Any] | None = None

    def loaded(self) -> PaintTask:
        """Return the task with its images.

        Raises:
            NodeLost: the machine that had them is gone.
        """
        images: PaintTaskImages = fetch(self.images)
        weights = [weight for _, weight in self.styles]
        return PaintTask(**{
            **_fields(PaintTask, self),
            "content": images.content,
            "styles": tuple(zip(images.styles, weights, strict=True)),
            "init": images.init,
        })  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exportable:
    """What exporting a painting needs of its photo.

    Attributes:
        photo: Without the pixels that exporting does not need.
        blend: What stays of the photo; None: it has no mask.
    """

    photo: Photo
    blend: Blend | None


@dataclass(frozen=True, slots=True)
class RemotePrepared(Prepared):
    """A prepared photo whose pixels are in the object store.

    Attributes:
        images: Refers to `PaintTaskImages`.
        exportable: Refers to the `Exportable`.
    """

    images: ray.ObjectRef[Any] | None = None
    exportable: ray.ObjectRef[Any] | None = None

    def loaded(self) -> Prepared:
        """Return this with its pixels.

        Raises:
            NodeLost: the machine that had them is gone.
        """
        return with_pixels(self, fetch(self.images), fetch(self.exportable))

    def task(self, job_id: str) -> PaintTask:
        """Return the engine's task, with the default intervals of checkpoints and previews."""
        # Not `super()`, which does not work in dataclasses with slots.
        return RemotePaintTask(
            **_fields(PaintTask, Prepared.task(self, job_id)), images=self.images
        )


@dataclass(frozen=True, slots=True)
class RemotePainted(Painted):
    """A painting whose pixels are in the object store.

    Attributes:
        pixels: Refers to the image.
        node_id: The machine that has painted it.
    """

    pixels: ray.ObjectRef[Any] | None = None
    node_id: str = ""

    def loaded(self) -> Painted:
        """Return the painting with its pixels.

        Raises:
            NodeLost: the machine that had them is gone.
        """
        return Painted(**{**_fields(Painted, self), "image": fetch(self.pixels)})


def remote_painted(painted: Painted, pixels: ray.ObjectRef[Any], node_id: str) -> RemotePainted:
    """Return a painting whose pixels are in the object store."""
    return RemotePainted(**_fields(Painted, painted), pixels=pixels, node_id=node_id)


def remote_prepared(
    prepared: Prepared, images: ray.ObjectRef[Any], exportable: ray.ObjectRef[Any]
) -> RemotePrepared:
    """Return a prepared photo, from `without_pixels`, whose pixels are in the object store."""
    return RemotePrepared(**_fields(Prepared, prepared), images=images, exportable=exportable)


def without_pixels(prepared: Prepared) -> tuple[Prepared, PaintTaskImages, Exportable]:
    """Split a prepared photo.

    Returns:
        The photo with tensors on the meta device; the pixels that an engine needs; and what
        exporting the painting needs of the photo.
    """
    styles = tuple(style.image for style in prepared.styles)
    images = PaintTaskImages(prepared.content, styles, prepared.init)
    photo = prepared.input_file.photo
    described = replace(
        prepared,
        input_file=replace(prepared.input_file, photo=photo.without_pixels()),
        content=prepared.content.to("meta"),
        styles=tuple(replace(one, image=one.image.to("meta")) for one in prepared.styles),
        blend=None,
        init=None,
    )
    return described, images, Exportable(photo.for_export(), prepared.blend)


def with_pixels(prepared: Prepared, images: PaintTaskImages, exportable: Exportable) -> Prepared:
    """Undo `without_pixels`."""
    styles = zip(prepared.styles, images.styles, strict=True)
    return Prepared(**{
        **_fields(Prepared, prepared),
        "input_file": replace(prepared.input_file, photo=exportable.photo),
        "blend": exportable.blend,
        "init": images.init,
        "content": images.content,
        "styles": tuple(replace(style, image=image) for style, image in styles),
    })  # fmt: skip


def fetch(ref: ray.ObjectRef[Any] | None) -> Any:
    """Return an object of the store.

    Raises:
        NodeLost: the machine that had it is gone.
    """
    assert ref is not None, "it has pixels in the object store"
    try:
        return ray.get(ref)
    except (Exception, SystemExit) as error:
        if not is_lost(error):
            raise
        raise NodeLost(
            "the machine that had the job's images is gone, or can't be reached any more",
            "the photo is prepared again on another machine",
        ) from error


def _fields(kind: type, instance: object) -> dict[str, Any]:
    """Return the fields that a dataclass has, from an instance of it or of a subclass."""
    return {field.name: getattr(instance, field.name) for field in fields(kind)}
