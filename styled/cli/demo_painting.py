"""The style image of `styled demo`: a procedural painting of an orchard at evening."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image

from styled.cli.demo_canvas import ASPECT, Array, coordinates, cover, noise, ramp, scaled, step

Vectors = NDArray[np.complexfloating]  # directions or positions on the canvas: x + iy


def draw_painting(width: int = 480, height: int = 360) -> Image.Image:
    """Draw a swirling evening sky over an orchard, in thick directional brush strokes (RGB)."""
    rng = default_rng(11)
    motif = _compose(rng, *coordinates(width, height))
    paint, relief = motif.color.copy(), np.zeros(motif.flow.shape, np.float32)
    for brush in BRUSHES:
        _lay_strokes(paint, relief, rng, motif, brush)
    return scaled(_raking_light(paint, relief), width, height)


class Brush(NamedTuple):
    """The strokes of one pass.

    Attributes:
        width: Fraction of the canvas height, as are `length` and `spacing`.
        share: Fraction of the grid positions that get a stroke.
        color_spread: Standard deviation of the colours.
    """

    width: float
    length: float
    spacing: float
    share: float
    color_spread: float


BRUSHES = (
    Brush(width=0.062, length=0.20, spacing=0.046, share=1.0, color_spread=0.030),
    Brush(width=0.030, length=0.12, spacing=0.020, share=1.0, color_spread=0.040),
    Brush(width=0.016, length=0.07, spacing=0.013, share=0.6, color_spread=0.055),
)
NODES = 9  # points of the polyline of a stroke
SAMPLING = 1.15  # sample points of a stroke per canvas pixel, so that few pixels are missed
LIFT = 0.88  # position along a stroke, from 0 to 1, where the brush begins to lift
SKY_PAINT = "0d1447 143385 1a6694 4d9ea8 1f4799 b8c285 1a2973"
SUN_PAINT = "fcec9e fac638 e68020 edcc6b 73a89e"
FAR_HILL, NEAR_HILL = "1f3880 2e5a99 5a4c94 1f3880", "0d3850 1f6b66 80943e 0d3850"
FIELD_PAINT = "6b381a cc751f edb838 9e9933 336b57 6b381a"
SHADOW_PAINT, TRUNK_PAINT = "10143c 2a2a70", "14142e 4a2a30"
TREE_PAINT = "14142e 4a1020 a81c28 d8542a eca43c"
# Suns: x, y, radius. Eddies of the sky: x, y, radius, turn (negative: opposite direction).
SUNS = ((0.72, 0.24, 0.17), (0.38, 0.11, 0.07), (0.08, 0.20, 0.055))
EDDIES = (
    (0.36, 0.30, 0.20, 1.0),
    (0.56, 0.10, 0.12, -0.8),
    (0.13, 0.38, 0.13, -0.9),
    (0.95, 0.42, 0.15, 0.8),
)
# Trees: x, y and radius of the crown.
TREES = ((0.36, 0.60, 0.065), (0.90, 0.63, 0.085), (0.16, 0.62, 0.16))


class Motif(NamedTuple):
    """The scene to paint: the colour and the stroke direction at each pixel."""

    color: Array
    flow: Vectors

    def add(self, where: NDArray[np.bool_], color: Array, flow: Vectors) -> None:
        """Draw an object in front of the scene, in place."""
        self.color[where], self.flow[where] = color[where], flow[where]


def _compose(rng: Generator, x: Array, y: Array) -> Motif:
    wobble = noise(rng, x.shape, (6, 4), 4)
    motif = _swirling_sky(x, y, wobble)
    for base, rise, cells, palette in ((0.66, 0.26, 4, FAR_HILL), (0.70, 0.18, 5, NEAR_HILL)):
        top = base - rise * noise(rng, (1, x.shape[1]), (cells, 1), 3)
        downhill = np.gradient(top, axis=1) * x.shape[1] / ASPECT + 0.6 * (wobble - 0.5)
        bands = ramp((5 * (y - top) + 0.8 * wobble) % 1, palette)
        motif.add(y > top, bands, 1 + 1j * downhill)
    _plough_field(motif, x, y, wobble)
    for centre_x, centre_y, radius in TREES:
        u, v = (x - centre_x) * ASPECT / radius, (y - centre_y) / radius
        _plant_tree(motif, u, v, wobble)
    return motif


def _swirling_sky(x: Array, y: Array, wobble: Array) -> Motif:
    flow = (1 + 0.9j * np.sin(9 * x + 5 * wobble)).astype(np.complex64)
    bands = 1.4 * y + 0.9 * wobble
    for centre_x, centre_y, radius, turn in (*EDDIES, *((*sun, 1.6) for sun in SUNS)):
        arm = (x - centre_x) * ASPECT + 1j * (y - centre_y)
        pull = np.exp(-((abs(arm) / radius) ** 2) / 1.2)
        # Multiplying by i rotates by 90 degrees: around the eddy rather than away from it.
        flow = flow * (1 - pull) + 2.5j * turn * pull * arm / (abs(arm) + 1e-3)
        spiral = 0.9 * abs(arm) / radius - turn * np.angle(arm) / (2 * np.pi)
        bands += 0.3 * pull * np.sin(2 * np.pi * spiral)
    color = ramp(bands % 1, SKY_PAINT)
    for centre_x, centre_y, radius in SUNS:
        reach = np.hypot((x - centre_x) * ASPECT, y - centre_y) / radius + 0.25 * (wobble - 0.5)
        cover(color, ramp(reach, SUN_PAINT), step(1.1 - reach, 0.0, 0.25))
    return Motif(color, flow)


def _plough_field(motif: Motif, x: Array, y: Array, wobble: Array) -> None:
    # Furrows run from a vanishing point behind the hills and are bent with depth.
    depth = np.maximum(y - 0.58, 0.01)
    furrow = (x - 0.60 - 0.25 * np.sin(6 * depth)) / depth
    soil = ramp((1.1 * furrow + 0.5 * wobble) % 1, FIELD_PAINT)
    motif.add(y > 0.71 + 0.03 * np.sin(5 * x + 1), soil, furrow + 1.5 * np.cos(6 * depth) + 1j)


def _plant_tree(motif: Motif, u: Array, v: Array, wobble: Array) -> None:
    """Draw a tree with its shadow; u and v are relative to its crown, in crown radii."""
    shadow = np.hypot((u + 0.5) / 1.5, (v - 1.75) / 0.22) < 1
    motif.add(shadow, ramp(wobble, SHADOW_PAINT), np.ones_like(motif.flow))
    trunk = (abs(u - 0.15 * np.sin(3 * v)) < 0.10 + 0.04 * v) & (abs(v - 0.9) < 0.9)
    motif.add(trunk, ramp(wobble, TRUNK_PAINT), 0.3 * np.cos(3 * v) + 1j)
    crown = np.hypot(u, v) + 1.2 * (wobble - 0.5) < 1
    foliage = ramp(0.5 + 0.4 * (u - v) + 0.9 * (wobble - 0.5), TREE_PAINT)
    motif.add(crown, foliage, 1j * (u + 1j * v) + 0.3)


def _pixel(places: Vectors, shape: tuple[int, ...]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return row and column of each position, clamped to the canvas."""
    row, column = np.clip(places.imag, 0, shape[0] - 1), np.clip(places.real, 0, shape[1] - 1)
    return row.astype(np.int32), column.astype(np.int32)


def _stroke_paths(rng: Generator, flow: Vectors, brush: Brush) -> Vectors:
    """Trace the flow from a jittered grid of positions: NODES x strokes, in random order."""
    rows, columns = flow.shape
    gap = brush.spacing * rows
    y, x = np.mgrid[-gap : rows + gap : gap, -gap : columns + gap : gap]
    jitter = rng.uniform(-0.5, 0.5, (2, *x.shape)) * gap
    starts = rng.permutation((x + jitter[0] + 1j * (y + jitter[1])).astype(np.complex64).ravel())
    path = [starts[: round(brush.share * starts.size)]]
    stride = brush.length * rows / (NODES - 1) * rng.uniform(0.6, 1.1, path[0].size)
    for _ in range(NODES - 1):
        heading = flow[_pixel(path[-1], flow.shape)]
        path.append(path[-1] + stride * heading / (abs(heading) + 1e-6))
    return np.stack(path)


def _sweep(path: Vectors, along: Array, across: Array, width: float) -> Vectors:
    """Sweep a row of bristles along each path.

    Returns:
        Positions in pixels: strokes x along x across.
    """
    node = np.minimum((along * (NODES - 1)).astype(int), NODES - 2)
    part = (along * (NODES - 1) - node)[:, None]
    spine = path[node] * (1 - part) + path[node + 1] * part
    ahead = np.gradient(spine, axis=0)
    taper = np.sqrt(1 - 0.97 * abs(2 * along - 1) ** 5)[:, None]
    sideways = 1j * ahead / (abs(ahead) + 1e-6) * taper * width / 2
    spine, sideways = (v.T[:, :, None].astype(np.complex64) for v in (spine, sideways))
    points: Vectors = spine + sideways * across.astype(np.float32)
    return points


def _lay_strokes(paint: Array, relief: Array, rng: Generator, motif: Motif, brush: Brush) -> None:
    rows, columns = relief.shape
    path = _stroke_paths(rng, motif.flow, brush)
    color = motif.color[_pixel(path[NODES // 2], relief.shape)]
    color = color * (1 + rng.normal(0, 2 * brush.color_spread, (len(color), 1)))
    color = color + rng.normal(0, brush.color_spread, color.shape)
    along = np.linspace(0, 1, round(brush.length * rows * SAMPLING))
    across = np.linspace(-1, 1, round(brush.width * rows * SAMPLING))
    points = _sweep(path, along, across, brush.width * rows)

    # The last stroke over a pixel owns it: if an index is repeated, numpy keeps the last
    # assignment. A border of one pixel collects the points outside the canvas.
    owner = np.full((rows + 2, columns + 2), -1, np.int32)
    indices = np.arange(points.size, dtype=np.int32).reshape(points.shape)
    owner[_pixel(points + np.complex64(1 + 1j), owner.shape)] = indices
    owner = owner[1:-1, 1:-1]
    seen = owner >= 0
    stroke, place, bristle = np.unravel_index(owner[seen], points.shape)

    bristles = np.repeat(rng.normal(0, 1, (len(color), len(across) // 2 + 1)), 2, axis=1)
    streak, edge = bristles[stroke, bristle], abs(across[bristle])
    paint[seen] = color[stroke] * (1 + 0.05 * streak[:, None])
    # Thickness of the paint: high in the middle, raised along the edges and where the brush lifts.
    body = 0.6 * (1 - edge**6) + 0.3 * edge**3 + 0.2 * streak + 0.3 * (along[place] > LIFT)
    relief[seen] = 0.35 * relief[seen] + body * brush.width * rows / 6


def _raking_light(paint: Array, relief: Array) -> Array:
    """Light the relief of the paint and of the canvas weave from the upper left."""
    row, column = np.indices(relief.shape)
    weave = 0.12 * np.sin(2.1 * column) * np.sin(2.1 * row)
    down, right = np.gradient(relief + weave)
    grad = np.clip(right + down, -1.5, 1.5)[..., None]
    glisten = 0.10 * np.maximum(grad - 0.4, 0)
    lit: Array = paint * (1 + 0.32 * grad) + glisten
    return lit
