"""The photograph of a lesion: skin, position, hair, ruler, bubbles, light."""

from __future__ import annotations

import cv2
import numpy as np

from derm_hash.atlas.lesion import BLOOD, EXTENT, MELANIN, noise_tile, smooth_step


def skin_tone(rng):
    """RGB (3,) of the skin in 0..1, fair more often than dark, as in public archives."""
    melanin, blood = rng.gamma(1.5, 0.10), rng.uniform(0.08, 0.62)
    return np.array([0.94, 0.91, 0.93], np.float32) * np.exp(-melanin * MELANIN - blood * BLOOD)


def _skin_texture(rng, matrix, size):
    """Freckles, furrows and redness that turn with the lesion: a factor (3, size, size) near 1."""
    to_lesion = np.linalg.inv(matrix)[:2]

    def noise(bumps, rough=True):  # bumps per lesion radius
        place = 16 * bumps * to_lesion
        place[:, 2] += rng.uniform(0, 512, 2)
        tile, flags = noise_tile(rough), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(tile, place, (size, size), None, flags, cv2.BORDER_WRAP)

    freckles = rng.uniform(0.2, 0.8) * smooth_step(noise(3.5, rough=False) - rng.uniform(1.6, 4.5))
    melanin = rng.uniform(0.02, 0.06) * noise(14) + freckles
    blood = rng.uniform(0.05, 0.12) * noise(3)
    return np.exp(-MELANIN[:, None, None] * melanin - BLOOD[:, None, None] * blood)


def placement(rng, size):
    """A random 3x3 matrix from lesion coordinates to pixels; all angles are equally likely."""
    angle = rng.uniform(0, 2 * np.pi)
    radius = rng.uniform(0.23, 0.40) * size
    x, y = (0.5 + rng.uniform(-0.09, 0.09, 2)) * size - 0.5
    c, s = radius * np.cos(angle), radius * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y], [0, 0, 1]])


def _blend(image, layer, strength, colour):
    """Blend a colour into `image` (3, S, S), in place, where `layer` (S, S) uint8 is set."""
    amount = layer.astype(np.float32) * (strength / 255)
    image += amount * (np.float32(colour).reshape(-1, 1, 1) - image)


def _hair(rng, image):
    """Hairs over the lesion, dark or fair, roughly parallel."""
    size, layer = image.shape[-1], np.zeros(image.shape[1:], np.uint8)
    heading = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(2, 20)):
        angles = heading + rng.normal(0, 0.5) + rng.normal(0, 1.0) * np.linspace(0, 1, 12)
        steps = rng.uniform(0.2, 0.9) / 12 * np.stack([np.cos(angles), np.sin(angles)], 1)
        path = (rng.uniform(-0.1, 1.1, 2) + np.cumsum(steps, 0)) * size * 16
        width = rng.uniform(0.003, 0.007) * size
        shade, path = min(255, round(255 * width)), [np.round(path).astype(np.int32)]
        cv2.polylines(layer, path, False, shade, max(1, round(width)), cv2.LINE_AA, 4)
    _blend(image, layer, 0.85, rng.uniform(0.5, 2.5) * np.array([0.14, 0.10, 0.09]))


def _ruler(rng, image):
    """The millimetre marks of a dermatoscope along one side."""
    size, layer = image.shape[-1], np.zeros(image.shape[1:], np.uint8)
    pitch = rng.uniform(0.035, 0.06)
    for k in range(1, int(1 / pitch)):
        mark = np.array([[k * pitch, 0.02], [k * pitch, 0.055 if k % 5 else 0.08]])
        mark = [np.round(mark * size * 16).astype(np.int32)]
        cv2.polylines(layer, mark, False, 255, max(1, size // 128), cv2.LINE_AA, 4)
    _blend(image, np.rot90(layer, rng.integers(4)), 0.8, np.zeros(3))


def _bubbles(rng, image):
    """Air bubbles in the gel: thin bright rings with a highlight."""
    size, layer = image.shape[-1], np.zeros(image.shape[1:], np.uint8)
    for _ in range(rng.integers(1, 7)):
        x, y = (int(v) for v in rng.uniform(0, size, 2) * 16)
        r = rng.uniform(0.01, 0.045) * size * 16
        cv2.circle(layer, (x, y), round(r), 120, max(1, size // 100), cv2.LINE_AA, 4)
        at = (x - round(0.4 * r), y - round(0.4 * r))
        cv2.circle(layer, at, round(0.25 * r), 255, -1, cv2.LINE_AA, 4)
    _blend(image, layer, 0.8, np.ones(3))


def _light(rng, image):
    """Exposure, white balance, a gradient and a falloff to the rim, at times with a dark circle."""
    axis = np.linspace(-1, 1, image.shape[-1], dtype=np.float32)
    angle, slope, falloff, rim = rng.uniform([0, 0, 0, 1.02], [2 * np.pi, 0.12, 0.12, 1.3])
    r2 = axis[None] ** 2 + axis[:, None] ** 2
    field = 1 + slope * (np.cos(angle) * axis[None] + np.sin(angle) * axis[:, None]) - falloff * r2
    if rng.random() < 0.12:
        field *= 0.08 + 0.92 * smooth_step((rim - np.sqrt(r2)) / 0.12)
    tint = rng.uniform([0.94, 0.92, 0.90], [1.06, 1.06, 1.14]) * rng.uniform(0.92, 1.14)
    image *= field.astype(np.float32) * tint.astype(np.float32)[:, None, None]


def place_on_skin(lesion, skin_rng, matrix, size):
    """The image (3, size, size) of a `Lesion` on textured skin, and its inside (size, size).

    Both are float32 in 0..1. `matrix` (3, 3) leads from lesion coordinates to pixels.
    """
    frame = 2 * EXTENT / lesion.size
    corner = frame / 2 - EXTENT
    place = matrix @ np.array([[frame, 0, corner], [0, frame, corner], [0, 0, 1]])
    place, shape, skin = place[:2], (size, size), lesion.skin.tolist()
    image = cv2.warpAffine(lesion.render(), place, shape, borderValue=skin)
    inside = cv2.warpAffine(lesion.inside, place, shape)
    return np.stack(cv2.split(image)) * _skin_texture(skin_rng, matrix, size), inside


def spoil(rng, image, difficulty=0.0):
    """Add hair, ruler, bubbles, light and blur to (3, S, S); returns (S, S, 3).

    Difficulty 1 doubles the blur and the chances of hair, ruler and bubbles.
    """
    for chance, nuisance in ((0.3, _hair), (0.1, _ruler), (0.15, _bubbles), (1, _light)):
        if rng.random() < chance * (1 + difficulty):
            nuisance(rng, image)
    sigma = rng.uniform(0.25, 0.9) * (1 + difficulty) * image.shape[-1] / 96
    return cv2.GaussianBlur(cv2.merge(list(image)), (0, 0), sigma)


def shrink(image, size):
    """Resize to `size` pixels, each the mean of what it covers."""
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def to_bytes(image):
    """Float in 0..1 to uint8."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
