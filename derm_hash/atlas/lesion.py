"""A lesion in its own frame: outline, pigment, and layers of colour."""

from __future__ import annotations

from functools import lru_cache
from numbers import Real

import cv2
import numpy as np

from derm_hash.errors import InputError

CLASSES = ("MEL", "NV", "BCC", "BKL")
ALL_CLASSES = (*CLASSES, "AKIEC", "DF", "VASC")  # with the rarer ones of HAM10000

MELANIN = np.array([0.36, 0.60, 0.86], np.float32)  # absorption of red, green, blue light
BLOOD = np.array([0.10, 0.58, 0.44], np.float32)
DARKEST = np.array([0.12, 0.08, 0.08], np.float32)  # what is left of light that pigment swallows
EXTENT = 1.5  # half the width of the lesion's frame, in lesion radii
ANGLES = 1024  # samples of the outline


@lru_cache(maxsize=2)
def noise_tile(rough):
    """Noise of standard deviation 1 with bumps 16 pixels apart, (1024, 1024) float32.

    It repeats after 512 pixels, so that pieces of up to 512 pixels can start anywhere. If rough,
    its amplitude falls with frequency as f ** -1.8; else it is smooth.
    """
    f = 16 * np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None])
    white = np.fft.rfft2(np.random.default_rng(0).standard_normal((512, 512)))
    tile = np.fft.irfft2(white * ((1 + f**2) ** -0.9 if rough else np.exp(-2 * f**2)))
    return np.tile((tile / tile.std()).astype(np.float32), (2, 2))


def smooth_step(x):
    """0 below 0, 1 above 1, and a smooth rise between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


class Lesion:
    """A lesion being drawn, as maps (size, size) float32 in its own frame, 2 * `EXTENT` radii wide.

    Attributes
    ----------
    skin : RGB (3,) float32 in 0..1
    radius : (ANGLES,) the outline in mean radii
    depth : 1 at the centre, 0 at the border, negative outside
    inside : 1 inside, 0 outside, and a ramp across the border
    melanin, blood : how much of each absorbs light
    layers : list of (amount, RGB colour), painted over the pigment in turn
    """

    def __init__(self, rng, size, skin):
        self.rng, self.size, self.skin, self.layers = rng, size, skin, []
        axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32) * EXTENT
        self.x, self.y = np.meshgrid(axis, axis)
        self.brown = MELANIN * (1 + rng.normal(0, 0.07) * np.array([-1, 0, 1], np.float32))

    def outline(self, wobble, elongation, fade):
        """Draw the border: `wobble` makes it irregular; it is `fade` radii wide."""
        harmonics = np.arange(2, 12)
        wave = np.zeros(ANGLES // 2 + 1, np.complex64)
        wave[2:12] = wobble * np.exp(2j * np.pi * self.rng.uniform(size=10)) / harmonics**0.9
        wave[2] += elongation
        radius = 1 + np.fft.irfft(wave * ANGLES / 2, ANGLES)
        self.radius = np.float32(radius * min(1, 1.2 / radius.max()))  # stay within the frame
        bend = 0.025 + 0.2 * wobble
        x, y = self.x + bend * self.noise(6), self.y + bend * self.noise(6)
        rho, angle = cv2.cartToPolar(x, y)
        self.depth = 1 - rho / self.radius_at(angle)
        self.inside = smooth_step(0.5 + self.depth / fade)
        self.melanin, self.blood = np.zeros_like(self.depth), np.zeros_like(self.depth)

    def noise(self, bumps, rough=True):
        """A random piece of the noise tile, `bumps` bumps wide; the same at every size."""
        x, y = self.rng.integers(0, 512, 2)
        piece = noise_tile(rough)[y : y + 16 * bumps, x : x + 16 * bumps]
        return cv2.resize(piece, (self.size, self.size))

    def radius_at(self, angles):
        """The outline's radius at angles in radians."""
        return self.radius[(angles * (ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES]

    def edge(self, angles):
        """Points (n, 2) of the outline at angles in radians."""
        return self.radius_at(angles)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)

    def points(self, count, reach=0.85, middle=0.0, width=2 * np.pi):
        """Points (count, 2) in the sector of `width` radians around the angle `middle`, within
        `reach` of the way to the border."""
        angles = middle + self.rng.uniform(-0.5, 0.5, count) * width
        return reach * np.sqrt(self.rng.uniform(0, 1, (count, 1))) * self.edge(angles)

    def patch(self, reach, radius, rough=0.22, slope=1.6):
        """A ragged patch of some `radius`, centred within `reach`: 1 in it, 0 around it."""
        x, y = self.points(1, reach)[0]
        distance = np.hypot(self.x - x, self.y - y) / radius + rough * self.noise(7)
        return smooth_step(slope * (1.1 - distance)) * self.inside

    def pixels(self, points):
        """Points in lesion radii as OpenCV's fixed-point pixels (4 fractional bits)."""
        scaled = (np.asarray(points) / (2 * EXTENT) + 0.5) * self.size - 0.5
        return np.round(scaled * 16).astype(np.int32)

    def blobs(self, points, radii, stretch=1.0, soft=0.02):
        """A map of filled ellipses at the points, of random direction and darkness."""
        layer = np.zeros((self.size, self.size), np.uint8)
        scale = self.size / (2 * EXTENT) * 16
        for (x, y), r in zip(self.pixels(points).tolist(), radii, strict=True):
            long = stretch ** self.rng.uniform(0.3, 1)
            axes = (round(r * scale * long), round(r * scale / long))
            angle, shade = self.rng.uniform(0, 180), self.rng.uniform(150, 255)
            cv2.ellipse(layer, (x, y), axes, angle, 0, 360, shade, -1, cv2.LINE_AA, 4)
        return self.soften(layer, soft)

    def strokes(self, paths, widths, soft=0.012):
        """A map of polylines through paths (n, 2); all lengths in lesion radii."""
        layer = np.zeros((self.size, self.size), np.uint8)
        for path, width in zip(paths, widths, strict=True):
            width = width * self.size / (2 * EXTENT)
            shade = min(255, round(255 * width))  # thinner than a pixel: fainter instead
            line = [self.pixels(path)]
            cv2.polylines(layer, line, False, shade, max(1, round(width)), cv2.LINE_AA, 4)
        return self.soften(layer, soft)

    def soften(self, layer, sigma):
        """A uint8 layer as float32 in 0..1, blurred by `sigma` radii."""
        sigma = max(0.4, sigma * self.size / (2 * EXTENT))
        return cv2.GaussianBlur(layer.astype(np.float32) / 255, (0, 0), sigma)

    def paint(self, amount, colour):
        """Cover `amount` (size, size) in 0..1 of what lies below with an RGB colour."""
        self.layers.append((amount, colour))

    def render(self):
        """The lesion on plain skin: (size, size, 3) float32 in 0..1."""
        melanin = np.maximum(self.melanin, 0) * np.exp(0.2 * self.noise(14))
        planes = []
        for k in range(3):  # channel by channel, which is faster than all at once
            light = np.exp(-self.brown[k] * melanin - BLOOD[k] * self.blood)
            plane = DARKEST[k] + (self.skin[k] - DARKEST[k]) * light
            for amount, colour in self.layers:
                plane += amount * (colour[k] - plane)
            planes.append(plane)
        return cv2.merge(planes)


def check_arguments(label, *seeds, size=96, difficulty=0):
    """Raise InputError unless the atlas can draw this class with these arguments."""
    if label not in ALL_CLASSES:
        raise InputError(f"The atlas has no class {label!r}: use one of {', '.join(ALL_CLASSES)}")
    for seed in seeds:
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise InputError(f"A seed must be a whole number, 0 or more, not {seed!r}")
    if not isinstance(size, int | np.integer) or size < 32:
        raise InputError(f"The image size must be a whole number, 32 or more, not {size!r}")
    if not isinstance(difficulty, Real) or not 0 <= difficulty <= 1:
        raise InputError(f"The difficulty must be a number from 0 to 1, not {difficulty!r}")
