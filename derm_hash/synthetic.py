"""The built-in atlas: dermoscopic images drawn from the criteria that dermatologists read.

A *lesion seed* fixes the lesion: its outline, pigment, structures and the skin it grows on. A *view
seed* fixes the photograph: orientation, zoom, position, light, vignette, hair, ruler, gel bubbles,
blur, grain. The class decides the lesion only; the photograph and the skin never see the label, so
that nothing but the dermoscopic criteria tells the classes apart.

A lesion is drawn in its own frame, in which its mean radius is 1, as two maps of chromophore
(melanin, blood) that absorb light as the Beer-Lambert law has it, and layers of opaque colour on
top. The photograph turns, scales and shifts that frame into the picture.

The pictures teach and test; they are no substitute for real images, and say nothing about patients.

Sources of the criteria:
- Argenziano et al., Dermoscopy of pigmented skin lesions: results of a consensus meeting via the
  Internet, J Am Acad Dermatol 48(5), 679-693, 2003 ("consensus" below);
- Nachbar et al., The ABCD rule of dermatoscopy, J Am Acad Dermatol 30(4), 551-559, 1994;
- Menzies et al., Surface microscopy of pigmented basal cell carcinoma, Arch Dermatol 136(8),
  1012-1016, 2000;
- Braun et al., Dermoscopy of pigmented seborrheic keratosis: a morphological study, Arch Dermatol
  138(12), 1556-1560, 2002.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from tqdm.auto import tqdm

from derm_hash.errors import InputError

CLASSES = ("MEL", "NV", "BCC", "BKL")

MELANIN = np.array([0.36, 0.60, 0.86], np.float32)  # absorption of red, green, blue light
BLOOD = np.array([0.10, 0.58, 0.44], np.float32)
DARKEST = np.array([0.12, 0.08, 0.08], np.float32)  # what is left of light that pigment swallows
EXTENT = 1.5  # half the width of the lesion's frame, in lesion radii
ANGLES = 1024  # samples of the outline


@dataclass(frozen=True)
class Atlas:
    """Drawn images with their truth: `images` (N, S, S, 3) uint8 RGB, `masks` (N, S, S) bool,
    `labels` (N,) str, `lesion_ids` (N,) str (images with the same id show the same lesion)."""

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    lesion_ids: np.ndarray
    seed: int


# ----------------------------------------------------------------------------- drawing tools


@lru_cache(maxsize=2)
def _noise_tile(rough):
    """Noise of unit spread with bumps 16 pixels apart, smooth or rough (a fractal surface: its
    amplitude falls with frequency as f ** -1.8). It repeats after 512 pixels, and is given twice
    each way, (1024, 1024), so that pieces of up to 512 pixels can start anywhere."""
    f = 16 * np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None])
    white = np.fft.rfft2(np.random.default_rng(0).standard_normal((512, 512)))
    tile = np.fft.irfft2(white * ((1 + f**2) ** -0.9 if rough else np.exp(-2 * f**2)))
    return np.tile((tile / tile.std()).astype(np.float32), (2, 2))


def _step(x):
    """Smooth step: 0 below 0, 1 above 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


class _Lesion:
    """A lesion being drawn; every map is (size, size) float32 in the lesion's own frame.

    `radius` (ANGLES,) is the outline in mean radii; `depth` is 1 at the centre, 0 at the border and
    negative outside; `inside` goes from 1 to 0 across the border; `melanin` and `blood` absorb
    light; `layers` are (amount, RGB colour) painted over them in turn.
    """

    def __init__(self, rng, size, skin):
        self.rng, self.size, self.skin, self.layers = rng, size, skin, []
        axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32) * EXTENT
        self.x, self.y = np.meshgrid(axis, axis)
        self.brown = MELANIN * (1 + rng.normal(0, 0.07) * np.array([-1, 0, 1], np.float32))

    def outline(self, wobble, elongation, fade):
        """Draw the border: `wobble` makes it irregular, `fade` is its width in radii."""
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
        self.inside = _step(0.5 + self.depth / fade)
        self.melanin, self.blood = np.zeros_like(self.depth), np.zeros_like(self.depth)

    def noise(self, bumps, rough=True):
        """A random piece of the noise tile with `bumps` bumps across; at every size the same."""
        x, y = self.rng.integers(0, 512, 2)
        piece = _noise_tile(rough)[y : y + 16 * bumps, x : x + 16 * bumps]
        return cv2.resize(piece, (self.size, self.size))

    def radius_at(self, angles):
        return self.radius[(angles * (ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES]

    def edge(self, angles):
        """The (n, 2) points of the outline at these angles."""
        return self.radius_at(angles)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)

    def points(self, count, reach=0.85, middle=0.0, width=2 * np.pi):
        """(count, 2) random points within `reach` of the border, perhaps only in a sector."""
        angles = middle + self.rng.uniform(-0.5, 0.5, count) * width
        return reach * np.sqrt(self.rng.uniform(0, 1, (count, 1))) * self.edge(angles)

    def patch(self, reach, radius, rough=0.22, slope=1.6):
        """A ragged patch somewhere within `reach` of the border: 1 in it, 0 around it."""
        x, y = self.points(1, reach)[0]
        distance = np.hypot(self.x - x, self.y - y) / radius + rough * self.noise(7)
        return _step(slope * (1.1 - distance)) * self.inside

    def pixels(self, points):
        """Lesion coordinates to OpenCV's fixed-point pixels (4 fractional bits)."""
        scaled = (np.asarray(points) / (2 * EXTENT) + 0.5) * self.size - 0.5
        return np.round(scaled * 16).astype(np.int32)

    def blobs(self, points, radii, stretch=1.0, soft=0.02):
        """A map of filled ellipses of random direction and darkness at the points."""
        layer = np.zeros((self.size, self.size), np.uint8)
        scale = self.size / (2 * EXTENT) * 16
        for (x, y), r in zip(self.pixels(points).tolist(), radii, strict=True):
            long = stretch ** self.rng.uniform(0.3, 1)
            axes = (round(r * scale * long), round(r * scale / long))
            turn, shade = self.rng.uniform(0, 180), self.rng.uniform(150, 255)
            cv2.ellipse(layer, (x, y), axes, turn, 0, 360, shade, -1, cv2.LINE_AA, 4)
        return self.soften(layer, soft)

    def strokes(self, paths, widths, soft=0.012):
        """A map of polylines [(n, 2) points]; widths in radii."""
        layer = np.zeros((self.size, self.size), np.uint8)
        for path, width in zip(paths, widths, strict=True):
            width = width * self.size / (2 * EXTENT)
            shade = min(255, round(255 * width))  # thinner than a pixel: fainter instead
            line = [self.pixels(path)]
            cv2.polylines(layer, line, False, shade, max(1, round(width)), cv2.LINE_AA, 4)
        return self.soften(layer, soft)

    def soften(self, layer, sigma):
        """uint8 layer to float32 in 0..1, blurred by sigma radii."""
        sigma = max(0.4, sigma * self.size / (2 * EXTENT))
        return cv2.GaussianBlur(layer.astype(np.float32) / 255, (0, 0), sigma)

    def paint(self, amount, colour):
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


# ------------------------------------------------------------------------ dermoscopic criteria

CRITERIA: dict[str, str] = {}
"""What each criterion looks like, and the class it speaks for: name -> one sentence."""

_DRAW = {label: {} for label in CLASSES}  # label -> name -> function(lesion)


def _criterion(label, name):
    """Register a drawing function under a criterion's name; its docstring describes the criterion.
    The first of a class draws the outline and the pigment of all its lesions; each lesion shows
    some of the others on top."""

    def register(function):
        CRITERIA[name] = f"{label}: {' '.join(function.__doc__.split())}"
        _DRAW[label][name] = function
        return function

    return register


@_criterion("MEL", "asymmetry")
def _asymmetry(lesion):
    """Asymmetric in outline and colour, with an irregular border that stops abruptly, and several
    of light brown, dark brown, black, red, white and blue-grey (ABCD rule)."""
    rng = lesion.rng
    lesion.outline(rng.uniform(0.13, 0.22), rng.uniform(0.05, 0.2), rng.uniform(0.12, 0.28))
    uneven = np.exp(0.4 * lesion.noise(4))
    lesion.melanin += lesion.inside * rng.uniform(0.7, 2.0) * uneven
    lesion.blood += lesion.inside * rng.uniform(0, 0.6)
    red = lesion.patch(0.7, rng.uniform(0.4, 0.7))
    lesion.melanin *= 1 - 0.6 * red
    lesion.blood += red * rng.uniform(0.2, 0.9)
    lesion.melanin += lesion.patch(0.7, rng.uniform(0.4, 0.8)) * rng.uniform(1.0, 2.4)


@_criterion("MEL", "atypical network")
def _atypical_network(lesion):
    """A network of brown to black lines, uneven in width, spacing and darkness (consensus)."""
    lines = _lattice(lesion, lesion.rng.uniform(2.7, 3.6), 0.12)
    where = _step(0.6 + 0.7 * lesion.noise(4))
    lesion.melanin += lesion.inside * where * (2.1 * lines - 0.6)


@_criterion("MEL", "irregular globules")
def _irregular_globules(lesion):
    """Dots and globules of many sizes and shades, crowded to one side (consensus)."""
    rng, count = lesion.rng, lesion.rng.integers(14, 26)
    where = lesion.points(count, 1.0, rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 3.5))
    lesion.melanin += 3.0 * lesion.blobs(where, rng.uniform(0.025, 0.1, count), 1.3)


@_criterion("MEL", "streaks")
def _streaks(lesion):
    """Dark fingers, some with a bulb at the tip, across one part of the border (consensus:
    streaks and pseudopods)."""
    rng = lesion.rng
    middle, width = rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 2.6)
    count = int(width * 6)
    angles = middle + (np.arange(count) / count - 0.5 + rng.normal(0, 0.012, count)) * width
    root = lesion.edge(angles) * rng.uniform(0.6, 0.85, (count, 1))
    tip = lesion.edge(angles + rng.normal(0, 0.06, count)) * rng.uniform(1.02, 1.2, (count, 1))
    bend = (root + tip) / 2 + rng.normal(0, 0.02, (count, 2))
    widths = rng.uniform(0.03, 0.075, count)
    fingers = lesion.strokes(np.stack([root, bend, tip], 1), widths)
    fingers = np.maximum(fingers, lesion.blobs(tip, widths * rng.uniform(0.5, 1.1, count)))
    lesion.melanin += 2.1 * fingers
    lesion.inside = np.maximum(lesion.inside, fingers)


@_criterion("MEL", "blue-white veil")
def _blue_white_veil(lesion):
    """An off-centre, structureless blue area under a ground-glass white haze (consensus)."""
    area = lesion.patch(0.6, lesion.rng.uniform(0.6, 0.95), 0.14, 1.1)
    lesion.paint(0.8 * area, (0.25, 0.27, 0.39))
    haze = _step(0.3 + 0.45 * lesion.noise(9)) * area
    lesion.paint(0.5 * haze, (0.62, 0.67, 0.80))


@_criterion("NV", "symmetry")
def _symmetry(lesion):
    """Round to oval, one or two shades of brown, fading evenly into the skin (ABCD rule)."""
    rng = lesion.rng
    lesion.outline(rng.uniform(0.02, 0.06), rng.uniform(0.05, 0.28), rng.uniform(0.35, 0.7))
    centre = 1 + rng.uniform(-0.2, 0.9) * np.clip(lesion.depth, 0, 1)
    mottled = centre * np.exp(0.12 * lesion.noise(9))
    lesion.melanin += lesion.inside * rng.uniform(0.6, 2.2) * mottled
    lesion.blood += lesion.inside * rng.uniform(0, 0.9)


def _lattice(lesion, cells, bend):
    """A honeycomb of dark lines around light holes, `cells` holes per radius, bent by noise: three
    plane waves at 60 degrees make it."""
    x = lesion.x + bend * lesion.noise(7, rough=False)
    y = lesion.y + bend * lesion.noise(7, rough=False)
    waves = 0
    for angle in lesion.rng.uniform(0, np.pi) + np.arange(3) * np.pi / 3:
        waves = waves + np.cos(2 * np.pi * cells * (x * np.cos(angle) + y * np.sin(angle)))
    return _step((0.5 - waves) / 1.8)


@_criterion("NV", "regular network")
def _regular_network(lesion):
    """An even honeycomb of brown lines that thins out at the border (consensus)."""
    lines = _lattice(lesion, lesion.rng.uniform(4.0, 5.0), 0.03)
    strength = np.exp(0.4 * lesion.noise(5))
    lesion.melanin += lesion.inside * strength * (1.4 * lines - 0.5)


@_criterion("NV", "regular globules")
def _regular_globules(lesion):
    """Round brown globules, alike in size and evenly spread (consensus)."""
    rng = lesion.rng
    k = np.arange(1, rng.integers(36, 50))
    angles = k * np.pi * (3 - np.sqrt(5)) + rng.uniform(0, 2 * np.pi)  # as in a sunflower: even
    where = 0.92 * np.sqrt(k / k[-1])[:, None] * lesion.edge(angles)
    where += rng.normal(0, 0.025, where.shape)
    globules = lesion.blobs(where, rng.normal(0.065, 0.007, len(k)), 1.1)
    lesion.melanin += 1.5 * globules * lesion.inside


@_criterion("BCC", "translucent pink")
def _translucent_pink(lesion):
    """Translucent, pearly pink, at times with some brown, but without a pigment network (Menzies
    et al.)."""
    rng = lesion.rng
    lesion.outline(rng.uniform(0.06, 0.14), rng.uniform(0.0, 0.2), rng.uniform(0.2, 0.5))
    lesion.melanin += lesion.inside * 1.2 * rng.uniform() ** 2 * np.exp(0.5 * lesion.noise(4))
    lesion.blood += lesion.inside * rng.uniform(0.3, 0.9) * np.exp(0.3 * lesion.noise(5))
    pearl = _step(0.2 + 0.45 * lesion.noise(8)) * lesion.inside
    lesion.paint(0.35 * pearl, (0.96, 0.86, 0.87))


@_criterion("BCC", "arborising vessels")
def _arborising_vessels(lesion):
    """Bright red, sharp trunks that branch ever finer, like trees (Menzies et al.)."""
    rng, paths, widths = lesion.rng, [], []

    def grow(start, heading, width, steps):
        path = [start]
        for _ in range(steps):
            heading += rng.normal(0, 0.3)
            path.append(path[-1] + 0.11 * np.array([np.cos(heading), np.sin(heading)]))
            if width > 0.028 and rng.random() < 0.4:
                side = rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
                grow(path[-1], heading + side, width * 0.6, max(2, steps // 2))
        paths.append(np.array(path))
        widths.append(width)

    angles = rng.uniform(0, 2 * np.pi) + np.arange(rng.integers(2, 5)) * rng.uniform(1.3, 2.2)
    for angle, edge in zip(angles, 0.95 * lesion.edge(angles), strict=True):
        grow(edge, angle + np.pi + rng.normal(0, 0.5), rng.uniform(0.04, 0.062), 9)
    lesion.paint(0.8 * lesion.strokes(paths, widths, 0.008), (0.58, 0.10, 0.15))


@_criterion("BCC", "ovoid nests")
def _ovoid_nests(lesion):
    """Large, well-defined, blue-grey ovoid islands (Menzies et al.)."""
    rng, count = lesion.rng, lesion.rng.integers(3, 8)
    nests = lesion.blobs(lesion.points(count, 0.9), rng.uniform(0.07, 0.2, count), 1.6, 0.035)
    nests *= np.clip(1 + 0.2 * lesion.noise(12), 0, 1.2)
    lesion.paint(0.85 * nests, (0.25, 0.24, 0.33))


@_criterion("BCC", "ulceration")
def _ulceration(lesion):
    """A raw red defect with orange-brown crust (Menzies et al.)."""
    raw = lesion.patch(0.5, lesion.rng.uniform(0.3, 0.5), 0.25)
    lesion.paint(0.8 * raw, (0.52, 0.10, 0.11))
    crust = _step(lesion.noise(16) - 0.4) * raw
    lesion.paint(0.6 * crust, (0.76, 0.50, 0.30))


@_criterion("BKL", "sharp border")
def _sharp_border(lesion):
    """Stuck on: waxy brown, ending at a sharp, slightly scalloped border (Braun et al.)."""
    rng = lesion.rng
    lesion.outline(rng.uniform(0.04, 0.1), rng.uniform(0.05, 0.25), rng.uniform(0.05, 0.10))
    waxy = np.exp(0.25 * lesion.noise(7))
    lesion.melanin += lesion.inside * rng.uniform(0.5, 2.0) * waxy
    lesion.blood += lesion.inside * rng.uniform(0, 0.7)


@_criterion("BKL", "milia-like cysts")
def _milia_like_cysts(lesion):
    """Small round white to yellow cysts that shine like stars (Braun et al.)."""
    count = lesion.rng.integers(8, 17)
    cysts = lesion.blobs(lesion.points(count), lesion.rng.uniform(0.035, 0.08, count), 1.1)
    lesion.paint(0.95 * cysts, (0.95, 0.89, 0.78))


@_criterion("BKL", "comedo-like openings")
def _comedo_like_openings(lesion):
    """Brown to black plugs of keratin, sharp and irregular (Braun et al.)."""
    count = lesion.rng.integers(7, 14)
    where, radii = lesion.points(count), lesion.rng.uniform(0.04, 0.1, count)
    lesion.paint(0.35 * lesion.blobs(where, radii * 1.4), (0.72, 0.58, 0.42))
    lesion.paint(0.95 * lesion.blobs(where, radii, 1.4, 0.012), (0.18, 0.11, 0.08))


@_criterion("BKL", "ridges")
def _ridges(lesion):
    """Dark fissures between fat, winding ridges, like the surface of a brain (Braun et al.)."""
    angle = lesion.rng.uniform(0, np.pi)
    across = lesion.x * np.cos(angle) + lesion.y * np.sin(angle)
    across += 0.17 * lesion.noise(6, rough=False)
    folds = np.cos(2 * np.pi * lesion.rng.uniform(2.0, 2.8) * across)
    strength = np.exp(0.4 * lesion.noise(5))
    lesion.melanin += lesion.inside * strength * (1.1 * _step(0.1 - 1.1 * folds) - 0.25)


# -------------------------------------------------------------------------------- the lesion


def lesion_criteria(label, lesion_seed):
    """The names, out of `CRITERIA`, of what a lesion shows: always two or more. Raises `InputError`
    as `draw_lesion` does."""
    _check(label, lesion_seed)
    rng = np.random.default_rng([lesion_seed, 1])
    base, *others = _DRAW[label]
    count = rng.integers(1, 3) if label == "NV" else rng.integers(2, 4)
    chosen = sorted(rng.permutation(len(others))[:count])
    return (base, *(others[k] for k in chosen))


def _draw(label, names, seed, size, skin):
    lesion = _Lesion(np.random.default_rng([seed, 2, CLASSES.index(label)]), size, skin)
    for name in names:
        _DRAW[label][name](lesion)
    return lesion


# ---------------------------------------------------------------------------- the photograph


def _skin_tone(rng):
    """RGB of the skin, from its melanin and blood; fair more often than dark, as in archives."""
    melanin, blood = rng.gamma(1.5, 0.10), rng.uniform(0.08, 0.62)
    return np.array([0.94, 0.91, 0.93], np.float32) * np.exp(-melanin * MELANIN - blood * BLOOD)


def _skin_texture(rng, matrix, size):
    """(3, size, size) factor near 1: freckles, fine furrows, mottled redness. It turns with the
    lesion, since both are one piece of skin."""
    to_lesion = np.linalg.inv(matrix)[:2]

    def noise(bumps, rough=True):  # bumps per lesion radius
        place = 16 * bumps * to_lesion
        place[:, 2] += rng.uniform(0, 512, 2)
        tile, flags = _noise_tile(rough), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(tile, place, (size, size), None, flags, cv2.BORDER_WRAP)

    freckles = rng.uniform(0.2, 0.8) * _step(noise(3.5, rough=False) - rng.uniform(1.6, 4.5))
    melanin = rng.uniform(0.02, 0.06) * noise(14) + freckles
    blood = rng.uniform(0.05, 0.12) * noise(3)
    return np.exp(-MELANIN[:, None, None] * melanin - BLOOD[:, None, None] * blood)


def _placement(rng, size):
    """The 3x3 matrix from lesion coordinates to pixels: any angle is as likely as any other."""
    angle = rng.uniform(0, 2 * np.pi)
    radius = rng.uniform(0.23, 0.40) * size
    x, y = (0.5 + rng.uniform(-0.09, 0.09, 2)) * size - 0.5
    c, s = radius * np.cos(angle), radius * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y], [0, 0, 1]])


def _strokes_on(image, layer, strength, colour):
    """Blend a colour into image (3, S, S), in place, where the uint8 layer is set."""
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
    _strokes_on(image, layer, 0.85, rng.uniform(0.5, 2.5) * np.array([0.14, 0.10, 0.09]))


def _ruler(rng, image):
    """The millimetre marks of a dermatoscope along one side."""
    size, layer = image.shape[-1], np.zeros(image.shape[1:], np.uint8)
    pitch = rng.uniform(0.035, 0.06)
    for k in range(1, int(1 / pitch)):
        mark = np.array([[k * pitch, 0.02], [k * pitch, 0.055 if k % 5 else 0.08]])
        mark = [np.round(mark * size * 16).astype(np.int32)]
        cv2.polylines(layer, mark, False, 255, max(1, size // 128), cv2.LINE_AA, 4)
    _strokes_on(image, np.rot90(layer, rng.integers(4)), 0.8, np.zeros(3))


def _bubbles(rng, image):
    """Air bubbles in the gel: thin bright rings with a highlight."""
    size, layer = image.shape[-1], np.zeros(image.shape[1:], np.uint8)
    for _ in range(rng.integers(1, 7)):
        x, y = (int(v) for v in rng.uniform(0, size, 2) * 16)
        r = rng.uniform(0.01, 0.045) * size * 16
        cv2.circle(layer, (x, y), round(r), 120, max(1, size // 100), cv2.LINE_AA, 4)
        at = (x - round(0.4 * r), y - round(0.4 * r))
        cv2.circle(layer, at, round(0.25 * r), 255, -1, cv2.LINE_AA, 4)
    _strokes_on(image, layer, 0.8, np.ones(3))


def _light(rng, image):
    """Exposure, white balance, a gradient across the field, and falling off towards its rim, which
    sometimes shows as a dark circle."""
    axis = np.linspace(-1, 1, image.shape[-1], dtype=np.float32)
    angle, slope, falloff, rim = rng.uniform([0, 0, 0, 1.02], [2 * np.pi, 0.12, 0.12, 1.3])
    r2 = axis[None] ** 2 + axis[:, None] ** 2
    field = 1 + slope * (np.cos(angle) * axis[None] + np.sin(angle) * axis[:, None]) - falloff * r2
    if rng.random() < 0.12:
        field *= 0.08 + 0.92 * _step((rim - np.sqrt(r2)) / 0.12)
    tint = rng.uniform([0.94, 0.92, 0.90], [1.06, 1.06, 1.14]) * rng.uniform(0.92, 1.14)
    image *= field.astype(np.float32) * tint.astype(np.float32)[:, None, None]


def _photograph(lesion, skin_rng, matrix, size):
    """The lesion on textured skin (3, size, size), and the inside of it (size, size), in 0..1."""
    frame = 2 * EXTENT / lesion.size
    corner = frame / 2 - EXTENT
    place = matrix @ np.array([[frame, 0, corner], [0, frame, corner], [0, 0, 1]])
    place, shape, skin = place[:2], (size, size), lesion.skin.tolist()
    image = cv2.warpAffine(lesion.render(), place, shape, borderValue=skin)
    inside = cv2.warpAffine(lesion.inside, place, shape)
    return np.stack(cv2.split(image)) * _skin_texture(skin_rng, matrix, size), inside


def _spoil(rng, image):
    """What happens to a photograph: hair, ruler, bubbles, light, blur."""
    for chance, nuisance in ((0.3, _hair), (0.1, _ruler), (0.15, _bubbles), (1, _light)):
        if rng.random() < chance:
            nuisance(rng, image)
    sigma = rng.uniform(0.25, 0.9) * image.shape[-1] / 96
    return cv2.GaussianBlur(cv2.merge(list(image)), (0, 0), sigma)


def _shrink(image, size):
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def _to_bytes(image):
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _largest_part(mask):
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return parts == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])


# ------------------------------------------------------------------------------ public drawing


def _check(label, *seeds, size=96):
    if label not in CLASSES:
        raise InputError(f"The atlas has no class {label!r}: use one of {', '.join(CLASSES)}.")
    for seed in seeds:
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise InputError(f"A seed is a whole number from 0, not {seed!r}.")
    if not isinstance(size, int | np.integer) or size < 32:
        raise InputError(f"The image size is a whole number of pixels from 32, not {size!r}.")


def draw_lesion(label, lesion_seed, view_seed=0, size=96):
    """Draw one photograph of one lesion.

    Args:
        label: one of `CLASSES`.
        lesion_seed: the lesion and the skin around it, a whole number from 0.
        view_seed: the photograph of it, a whole number from 0. The same view seed with another
            lesion gives another lesion in the same position, light and blur.
        size: width and height in pixels, from 32.

    Returns:
        image (size, size, 3) uint8 RGB; mask (size, size) bool, True on the lesion, in one piece.

    Raises:
        InputError: unknown label, negative seed, size below 32.
    """
    _check(label, lesion_seed, view_seed, size=size)
    skin_rng = np.random.default_rng([lesion_seed, 3])
    view_rng = np.random.default_rng([view_seed, 4])
    work = max(size, 96)  # small pictures are drawn larger and shrunk
    matrix = _placement(view_rng, work)
    frame = int(2.2 * EXTENT * np.hypot(matrix[0, 0], matrix[1, 0]))
    names = lesion_criteria(label, lesion_seed)
    lesion = _draw(label, names, lesion_seed, frame, _skin_tone(skin_rng))
    image, inside = _photograph(lesion, skin_rng, matrix, work)
    image = _shrink(_spoil(view_rng, image), size)
    grain = view_rng.uniform(0.002, 0.015)
    image += grain * view_rng.standard_normal((size, size, 1), np.float32)
    return _to_bytes(image), _largest_part(_shrink(inside, size) > 0.5)


def draw_criterion(name, size=160, seed=0):
    """Draw a lesion that shows one criterion of `CRITERIA`, upright, sharp and in plain light.

    Returns:
        image (size, size, 3) uint8 RGB.

    Raises:
        InputError: unknown name, negative seed, size below 32.
    """
    if name not in CRITERIA:
        raise InputError(f"There is no criterion {name!r}: use one of {', '.join(CRITERIA)}.")
    label = CRITERIA[name].split(":")[0]
    _check(label, seed, size=size)
    base = next(iter(_DRAW[label]))
    work, skin = max(size, 96), np.array([0.88, 0.72, 0.71], np.float32)
    lesion = _draw(label, dict.fromkeys([base, name]), seed, work, skin)
    middle = (work - 1) / 2
    matrix = np.array([[0.33 * work, 0, middle], [0, 0.33 * work, middle], [0, 0, 1]])
    image, _ = _photograph(lesion, np.random.default_rng([seed, 3]), matrix, work)
    image = cv2.GaussianBlur(cv2.merge(list(image)), (0, 0), 0.4 * work / 96)
    return _to_bytes(_shrink(image, size))


def _counts(images, balance):
    """Images per class, rounded by the largest remainders so that they add up."""
    exact = images * np.array(list(balance.values())) / sum(balance.values())
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: images - counts.sum()]] += 1
    return dict(zip(balance, counts.tolist(), strict=True))


def make_atlas(images=800, size=96, seed=0, balance=None, progress=True):
    """Draw an atlas in which each lesion is photographed one to three times.

    Args:
        images: how many images, from 1.
        size: their width and height in pixels, from 32.
        seed: whole number from 0; the same seed gives the same atlas.
        balance: share of the images per class, such as {"MEL": 1, "NV": 3}; equal by default.
        progress: show a progress bar.

    Returns:
        `Atlas`, in random order. A lesion_id is the class and the lesion seed of `draw_lesion`.

    Raises:
        InputError: fewer than 1 image, unknown class or unusable share, size below 32.
    """
    balance = dict.fromkeys(CLASSES, 1) if balance is None else dict(balance)
    if not isinstance(images, int | np.integer) or images < 1:
        raise InputError(f"An atlas has a whole number of images from 1, not {images!r}.")
    if not balance or min(balance.values()) < 0 or sum(balance.values()) <= 0:
        raise InputError(f"The balance {balance} needs shares from 0, one of them above 0.")
    for label in balance:
        _check(label, seed, size=size)
    rng, plan = np.random.default_rng([seed, 5]), []
    for label, count in _counts(images, balance).items():
        while count > 0:
            views, lesion = min(count, int(rng.integers(1, 4))), int(rng.integers(2**31))
            plan += [(label, lesion, int(rng.integers(2**31))) for _ in range(views)]
            count -= views
    plan = [plan[k] for k in rng.permutation(len(plan))]
    pictures = np.empty((images, size, size, 3), np.uint8)
    masks = np.empty((images, size, size), bool)
    for k, job in enumerate(tqdm(plan, "Drawing", disable=not progress, unit="image")):
        pictures[k], masks[k] = draw_lesion(*job, size)
    labels, ids = [job[0] for job in plan], [f"{job[0]}-{job[1]}" for job in plan]
    return Atlas(pictures, masks, np.array(labels), np.array(ids), seed)
