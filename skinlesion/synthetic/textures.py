"""Textures of synthetic skin: noise, cells, spots and branching strokes.

A map is an array (side, side). Lengths are fractions of the side unless given in pixels, so that a texture looks the
same at every resolution.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
Points = NDArray[np.float64]  # (n, 2): x, y
Line = tuple[Points, float]  # points and thickness, pixels

ROUGHNESS = 0.62  # amplitude of each octave of noise relative to the one before


def noise(side: int, rng: np.random.Generator, *, scale: float, octaves: int, stretch: float = 1.0) -> Map:
    """Fractal noise of mean 0 and standard deviation about 1.

    Args:
        side: Pixels along an edge.
        rng: Source of randomness.
        scale: Length of the coarsest feature.
        octaves: Feature lengths, each half the one before; features below two pixels are left out.
        stretch: Length of features along x over that along y.
    """
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        rows = 2 + round(2**octave / scale)
        columns = 2 + round(2**octave / scale / stretch)
        if octave > 0 and rows > side / 2:
            break
        coarse = rng.standard_normal((rows, columns), np.float32)
        total += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC) * ROUGHNESS**octave
    return np.asarray((total - total.mean()) / max(float(total.std()), 1e-6), np.float32)


def cells(side: int, rng: np.random.Generator, *, spacing: float) -> Map:
    """Distance to the nearest of jittered grid points: 0 at a cell's middle, about 1 at its walls."""
    count = max(2, round(1 / spacing))
    grid = np.stack(np.meshgrid(np.arange(count), np.arange(count)), axis=-1).reshape(-1, 2)
    points = (grid + rng.uniform(0.1, 0.9, grid.shape)) / count
    return np.asarray(_distance(side, points) / (0.6 * spacing * side), np.float32)


def spots(side: int, points: Points, *, radius: float) -> Map:
    """Round spots with soft edges: 1 inside, falling to 0 around `radius`; `points` in 0..1."""
    size = max(radius * side, 0.7)
    return np.asarray(np.clip(1.5 - _distance(side, points) / size, 0, 1), np.float32)


def strokes(size: tuple[int, int], lines: list[Line]) -> Map:
    """Draw smooth lines into a map (height, width) of 0..1; lines thinner than a pixel are drawn fainter.

    Args:
        size: Width and height in pixels.
        lines: Points and thickness of each, in pixels.
    """
    width, height = size
    drawn = np.zeros((height, width), np.uint8)
    for points, thickness in lines:
        fixed = np.round(points * 16).astype(np.int32).reshape(-1, 1, 2)  # OpenCV's fixed point: shift=4
        shade = int(255 * min(1.0, 0.25 + 0.75 * thickness))
        cv2.polylines(drawn, [fixed], False, shade, max(1, round(thickness)), cv2.LINE_AA, shift=4)
    return drawn.astype(np.float32) / np.float32(255)


def walk(start: Points, rng: np.random.Generator, *, heading: float, length: float, bend: float) -> Points:
    """Return points (24, 2) of a path from `start` towards `heading` (radians) that bows and trembles by `bend`."""
    bow = rng.normal(0, bend / 2)
    headings = heading + np.cumsum(bow + rng.normal(0, bend / 2, 24))
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=-1) * length / 24
    return start + np.cumsum(steps, axis=0)


def tree(start: Points, rng: np.random.Generator, *, length: float, thickness: float) -> list[Line]:
    """Return the lines of a branching vessel: a trunk with thinner and shorter branches and twigs."""
    heading = rng.uniform(0, 2 * np.pi)
    trunk = walk(start, rng, heading=heading, length=length, bend=0.2)
    lines = [(trunk, thickness)]
    for joint in rng.integers(4, 24, 3):
        turned = heading + float(rng.choice([-1, 1])) * rng.uniform(0.5, 1.1)
        branch = walk(trunk[joint], rng, heading=turned, length=length * 0.6, bend=0.25)
        twig = walk(branch[12], rng, heading=turned + rng.normal(0, 0.8), length=length * 0.3, bend=0.25)
        lines += [(branch, thickness * 0.6), (twig, thickness * 0.4)]
    return lines


def warp(image: Map, rng: np.random.Generator, *, scale: float, shift: float) -> Map:
    """Displace each pixel of a square image by about `shift` sides, so that nothing in it stays regular."""
    side = image.shape[0]
    y, x = np.mgrid[:side, :side].astype(np.float32)
    x += shift * side * noise(side, rng, scale=scale, octaves=3)
    y += shift * side * noise(side, rng, scale=scale, octaves=3)
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))


def soft_step(field: Map, width: float) -> Map:
    """A step from 0 where `field` is negative to 1 where it is positive, soft over about `width`."""
    return np.asarray(1 / (1 + np.exp(np.clip(-4 * field / width, -30, 30))), np.float32)


def overlay(image: Map, colour: Points, cover: Map) -> Map:
    """Blend `colour` (3,) into an image (height, width, 3) by `cover` (height, width) in 0..1."""
    share = cover[..., None]
    return np.asarray(image * (1 - share) + colour.astype(np.float32) * share, np.float32)


def _distance(side: int, points: Points) -> Map:
    """Return the distance in pixels of every pixel to the nearest of `points` (n, 2), x and y in 0..1."""
    free = np.full((side, side), 255, np.uint8)
    at = np.clip(np.round(points * side), 0, side - 1).astype(int)
    free[at[:, 1], at[:, 0]] = 0
    return np.asarray(cv2.distanceTransform(free, cv2.DIST_L2, 3), np.float32)
