"""The photo of `styled demo`: a procedural picture of a lighthouse at golden hour."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image

from styled.cli.demo_canvas import (
    ASPECT,
    Array,
    coordinates,
    cover,
    noise,
    ramp,
    sample,
    scaled,
    step,
)


def draw_photo(width: int = 480, height: int = 360) -> Image.Image:
    """Draw a lighthouse over the sea at golden hour, with the look of a photo (RGB)."""
    rng = default_rng(7)
    x, y = coordinates(width, height)
    view = ramp(1 - y / HORIZON, SKY) + _sunshine(x, y, SUN)
    _add_clouds(view, rng, x, y)
    _add_mountains(view, rng, x, y)
    _add_headland(view, rng, x, y)
    _add_lighthouse(view, x, y)
    _add_sea(view, rng, x, y)
    _add_rocks(view, rng, x, y)
    view += _sunshine(x, y, VEIL)  # veiling glare: stray light in the lens also covers near objects
    return scaled(_develop(view, rng, x, y), width, height)


# The scene, in linear light: positions of horizon, sun and lighthouse; light of sun and sky.
HORIZON, SUN_X, SUN_Y, LIGHTHOUSE_X = 0.60, 0.30, 0.49, 0.665
SUNLIGHT = np.array((2.2, 1.0, 0.33), np.float32)
SKYLIGHT = np.array((0.17, 0.22, 0.34), np.float32)
SUN, VEIL = ((0.032, 9.0), (0.085, 0.8), (0.32, 0.36)), ((0.07, 0.18), (0.30, 0.05))
SKY = "e85c1c d05c2a 945452 4c4a70 223c72 102c6a 081c4c"
STONE, TURF = "0c0a0a 2a1e18 5c4430", "0a1006 262c0c 50480e"
DEEP_WATER, FOAM, HAZE = "031216", "c0a898", "9a4c36"
# The lighthouse from finial to foot: top and colour of each part, and half width by y.
PART_TOPS = (0.070, 0.092, 0.122, 0.158, 0.170, 0.225, 0.285, 0.345, 0.400)
PARTS = "101014 74100a ffd070 101014 74706c 740c0a 74706c 740c0a 74706c"
OUTLINE_Y = (0.07, 0.092, 0.0921, 0.122, 0.1221, 0.158, 0.1581, 0.17, 0.1701, 0.44)
OUTLINE = (0.0015, 0.002, 0.003, 0.022, 0.016, 0.016, 0.034, 0.030, 0.022, 0.042)
COAST_X = (0.40, 0.44, 0.49, 0.53, 0.58, 0.66, 0.76, 0.86, 1.00)
COAST_TOP = (0.61, 0.585, 0.56, 0.48, 0.445, 0.425, 0.42, 0.39, 0.33)
COAST_FOOT = (0.602, 0.605, 0.609, 0.614, 0.622, 0.636, 0.657, 0.68, 0.72)
# The foreground boulders: centres and half sizes, in hundredths of the picture.
BOULDERS_X, BOULDERS_Y = (
    (43, 47, 33, 2, 16, 27, 8, 26, 40, 90, 98, 86),
    (70, 71, 79, 84, 87, 90, 97, 100, 101, 93, 96, 101),
)
BOULDERS_WIDTH, BOULDERS_HEIGHT = (
    (2, 3, 3.5, 13, 9, 7, 16, 12, 7, 5, 9, 8),
    (1.4, 2, 2, 12, 8, 5, 12, 9, 5, 3.5, 7, 5),
)


def _sunshine(x: Array, y: Array, halos: tuple[tuple[float, float], ...]) -> Array:
    """Return the sum of round halos of sunlight, each given as (radius, power)."""
    distance = np.hypot((x - SUN_X) * ASPECT, y - SUN_Y)
    glow = [power * np.exp(-((distance / radius) ** 1.5)) for radius, power in halos]
    return np.asarray(np.sum(glow, axis=0)[..., None] * SUNLIGHT, np.float32)


def _apply_light(albedo: Array, light: Array) -> Array:
    """Light a surface with the warm sun (`light`, 0 to 1) and with ambient light from the sky."""
    return albedo * (SKYLIGHT + SUNLIGHT * light[..., None])


def _rock(relief: Array, turf: Array, steepness: float) -> Array:
    """Return lit stone and turf: faces towards the sun, on the left, get its light."""
    down, right = np.gradient(relief)
    facing = (right + 0.8 * down) * len(relief) * steepness
    albedo = ramp(relief, STONE)
    cover(albedo, ramp(relief, TURF), turf)
    return _apply_light(albedo, np.clip(0.08 + 0.2 * turf + facing, 0, 1))


def _add_clouds(view: Array, rng: Generator, x: Array, y: Array) -> None:
    # The clouds are on a plane seen in perspective: they get denser towards the horizon.
    distance = 1 / (np.maximum(HORIZON - y, 0) + 0.10)
    ceiling = noise(rng, (1024, 1024), (8, 8), 7)
    u, v = (x - 0.3) * distance * 0.16, distance * 0.11
    thickness = sample(ceiling, u, v)
    towards_sun = sample(ceiling, u + (SUN_X - x) * 0.06, v + 0.012)
    rim = step(thickness - towards_sun, -0.10, 0.16) * (
        0.16 + 0.6 * np.exp(-2.8 * np.hypot(x - SUN_X, y - SUN_Y))
    )
    opacity = 0.9 * step(thickness, 0.48, 0.74) * step(HORIZON - y, 0.02, 0.10)
    cover(view, _apply_light(np.full_like(view, 0.85), rim), opacity)


def _add_mountains(view: Array, rng: Generator, x: Array, y: Array) -> None:
    for base, rise, cells, haze in ((0.61, 0.30, 5, 0.70), (0.62, 0.19, 7, 0.30)):
        ridge = noise(rng, (1, x.shape[1]), (cells, 1), 7)
        top = base - rise * ridge * step(0.5 - abs(x - 0.02), -0.1, 0.5)
        slopes = _rock(noise(rng, x.shape, (16, 18), 5), np.full_like(x, 0.5), 0.05)
        foot = step(y, HORIZON - rise / 2, HORIZON)  # where haze is densest
        cover(slopes, ramp(0, HAZE), haze + 0.7 * (1 - haze) * foot)
        cover(view, slopes, step(y - top, -0.001, 0.001))


def _add_headland(view: Array, rng: Generator, x: Array, y: Array) -> None:
    top = np.interp(x, COAST_X, COAST_TOP) + 0.03 * (noise(rng, (1, x.shape[1]), (24, 1), 6) - 0.5)
    depth = (y - top) / (np.interp(x, COAST_X, COAST_FOOT) - top)
    relief = noise(rng, x.shape, (9, 9), 6)
    turf = step(0.35 + 1.2 * (relief - 0.5) - depth, 0.0, 0.10)
    cover(view, _rock(relief, turf, 0.06), step(y - top, -0.001, 0.001))


def _add_lighthouse(view: Array, x: Array, y: Array) -> None:
    across = (x - LIGHTHOUSE_X) * ASPECT / np.interp(y, OUTLINE_Y, OUTLINE)
    roundness = np.sqrt(np.maximum(1 - across**2, 0))
    light = np.clip(0.5 * roundness - 0.75 * across, 0, 1)
    part = np.searchsorted(PART_TOPS, y[:, :1]) - 1
    color = ramp(part / (len(PART_TOPS) - 1), PARTS)
    inside = (y > PART_TOPS[0]) & (y < OUTLINE_Y[-1])
    cover(view, _apply_light(color, light), step(1 - abs(across), 0.0, 0.08) * inside)


def _add_sea(view: Array, rng: Generator, x: Array, y: Array) -> None:
    shore = np.maximum(np.interp(x, COAST_X, COAST_FOOT), HORIZON)
    nearness = np.maximum(y - HORIZON, 0) / (1 - HORIZON)
    distance = 1 / (nearness + 0.035)
    waves = noise(rng, (1024, 1024), (16, 16), 7)
    u, v = (x - 0.5) * distance * 0.09, distance * 0.25
    swell = sample(waves, u, v)
    grad = swell - sample(waves, u, v + 0.006)
    # Each wave reflects the scene behind the shore, shifted up or down by the wave's gradient.
    mirrored = np.clip(2 * shore - y - grad * (0.25 + nearness), 0, shore - 0.004)
    rows, columns = (mirrored * len(view)).astype(np.int32), np.arange(view.shape[1])
    water = np.broadcast_to(ramp(0, DEEP_WATER), view.shape).copy()
    cover(water, view[rows, columns], np.clip(0.75 - 0.5 * nearness + 1.2 * grad, 0.1, 0.9))
    glitter = np.exp(-(((x - SUN_X) / (0.035 + 0.10 * nearness)) ** 2)) * step(swell, 0.5, 0.8)
    water += (glitter * (0.4 + distance / 12))[..., None] * SUNLIGHT
    surf = step(swell, 0.40, 0.65) * step(abs(y - shore - 0.006), 0.009, 0.002)
    cover(water, ramp(0, FOAM), surf * (x > COAST_X[0]))
    cover(view, water, step(y - shore, -0.001, 0.001))


def _add_rocks(view: Array, rng: Generator, x: Array, y: Array) -> None:
    relief = noise(rng, x.shape, (8, 7), 6)
    bulge = np.full_like(x, -9)
    for boulder in zip(BOULDERS_X, BOULDERS_Y, BOULDERS_WIDTH, BOULDERS_HEIGHT, strict=True):
        centre_x, centre_y, half_width, half_height = np.divide(boulder, 100)
        reach = np.hypot((x - centre_x) / half_width, (y - centre_y) / half_height)
        bulge = np.maximum(bulge, 1 - reach)
    bulge += 0.9 * (relief - 0.5)
    rounded = 0.7 * relief + 0.5 * np.sqrt(np.maximum(bulge, 0))
    cover(view, _rock(rounded - 0.35, np.zeros_like(x), 0.05), step(bulge, 0.0, 0.03))


def _develop(view: Array, rng: Generator, x: Array, y: Array) -> Array:
    """Apply the look of a photo: exposure with a soft shoulder, S-curve, vignette and grain."""
    exposed = (1 - np.exp(-1.2 * np.maximum(view, 0))) ** (1 / 2.2)
    contrast = 0.5 * exposed + 0.5 * exposed * exposed * (3 - 2 * exposed)
    vignette = 1 - 0.6 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    return contrast * vignette[..., None] + rng.normal(0, 0.012, (*x.shape, 1)).astype(np.float32)
