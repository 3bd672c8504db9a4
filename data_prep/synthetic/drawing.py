"""Draw scenes: antialiased (drawn four times as large), on a tinted background, with noise."""

from __future__ import annotations

import io
import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from .concepts import COLOURS
from .scenes import BACKGROUNDS, Scene, Thing

OVERSAMPLE = 4
NOISE = 4.0  # standard deviation, of 255
JPEG_QUALITY = 92

Outline = tuple[np.ndarray, bool]  # points [points, 2] in the unit circle, y down; False cuts a hole


@cache
def shape_outlines(shape: str) -> tuple[Outline, ...]:
    """Return the polygons that draw a shape in the unit circle, each to be filled or cut out, in order."""
    if shape == "circle":
        return ((_ellipse(0.9), True),)
    if shape == "ring":
        return ((_ellipse(0.97), True), (_ellipse(0.55), False))
    if shape == "crescent":
        return ((_ellipse(0.97), True), (_ellipse(0.80) + np.array([0.52, -0.18]), False))
    if shape == "star":
        angles = np.arange(10) * math.pi / 5 - math.pi / 2
        radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
        return ((np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1), True),)
    if shape == "cross":
        arm, reach = 0.28, 0.95
        quarter = np.array([(-arm, -arm), (-arm, -reach), (arm, -reach)])
        quarters = [quarter, quarter[:, ::-1] * (-1, 1), -quarter, quarter[:, ::-1] * (1, -1)]
        return ((np.concatenate(quarters), True),)
    if shape == "heart":
        t = np.linspace(0, 2 * math.pi, 60, endpoint=False)
        x = 16 * np.sin(t) ** 3
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
        return ((np.stack([x, y - 2.5], axis=1) / 17.0, True),)
    return ((np.array(_POLYGONS[shape], dtype=np.float64), True),)


_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.70, -0.70), (0.70, -0.70), (0.70, 0.70), (-0.70, 0.70)],
    "triangle": [(0.0, -1.0), (0.87, 0.6), (-0.87, 0.6)],
    "diamond": [(0.0, -1.0), (0.64, 0.0), (0.0, 1.0), (-0.64, 0.0)],
    "arrow": [(1.0, 0.0), (0.2, -0.8), (0.2, -0.3), (-0.95, -0.3), (-0.95, 0.3), (0.2, 0.3), (0.2, 0.8)],
    "bolt": [(0.30, -0.95), (-0.60, 0.12), (-0.08, 0.12), (-0.35, 0.94), (0.60, -0.22), (0.08, -0.22), (0.62, -0.78)],
    "hourglass": [(-0.72, -0.69), (0.72, -0.69), (0.14, 0.0), (0.72, 0.69), (-0.72, 0.69), (-0.14, 0.0)],
}


def _ellipse(radius: float) -> np.ndarray:
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def draw_picture(rng: np.random.Generator, scene: Scene, side: int) -> Image.Image:
    """Draw a scene as an RGB image of ``side`` x ``side`` pixels, with tint and noise from ``rng``."""
    tint = np.array(BACKGROUNDS[scene.background]) + rng.uniform(-8, 8, 3)
    slope = rng.uniform(-10, 10, 2)
    ramp = np.linspace(-1, 1, side)
    light = slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    pixels = tint + light[:, :, None]
    for thing in scene.things:
        mask, left, top = _mask(thing, side)
        height, width = mask.shape
        colour = np.clip(np.array(COLOURS[thing.concept.colour]) * thing.shade, 0, 255)
        area = pixels[top : top + height, left : left + width]
        area += mask[:, :, None] * (colour - area)
    pixels += rng.normal(0, NOISE, (side, side, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encode_picture(picture: Image.Image) -> bytes:
    """Encode a picture as JPEG without chroma subsampling: a third of the PNG's size, since noise does not compress."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _mask(thing: Thing, side: int) -> tuple[np.ndarray, int, int]:
    """Return the coverage of the pixels around an object, ``[height, width]``, 0 to 1, and its left and top pixel."""
    radius = thing.diameter / 2 * side
    centre = np.array([thing.x, thing.y]) * side
    low = np.maximum(np.floor(centre - radius), 0).astype(int)
    high = np.minimum(np.ceil(centre + radius), side).astype(int)
    angle = math.radians(thing.angle)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    large = Image.new("L", tuple(((high - low) * OVERSAMPLE).tolist()))
    pen = ImageDraw.Draw(large)
    for points, filled in shape_outlines(thing.concept.shape):
        placed = (points @ turn * radius + centre - low) * OVERSAMPLE
        pen.polygon(placed.ravel().tolist(), fill=255 if filled else 0)
    coverage = np.asarray(large.reduce(OVERSAMPLE), dtype=np.float64) / 255
    return coverage, int(low[0]), int(low[1])
