"""The dermoscopic criteria: what each class of lesion shows. The rarer classes are in `rare`."""

from __future__ import annotations

from collections import ChainMap

import numpy as np

from derm_hash.atlas.lesion import ALL_CLASSES, Lesion, check_arguments, smooth_step

CRITERIA: dict[str, str] = {}
"""Name of each criterion -> the class that it is a sign of, and what it looks like."""

DRAW = {label: {} for label in ALL_CLASSES}
"""Class -> name of a criterion -> the function that draws it on a lesion.

The first criterion of a class draws the outline and the pigment of all its lesions. Each lesion
shows some of the others on top.
"""


def criterion(label, name):
    """Register the decorated function as a criterion of a class; its docstring describes it."""

    def register(function):
        CRITERIA[name] = f"{label}: {' '.join(function.__doc__.split())}"
        DRAW[label][name] = function
        return function

    return register


@criterion("MEL", "asymmetry")
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


@criterion("MEL", "atypical network")
def _atypical_network(lesion):
    """A network of brown to black lines, uneven in width, spacing and darkness (consensus)."""
    lines = lattice(lesion, lesion.rng.uniform(2.7, 3.6), 0.12)
    where = smooth_step(0.6 + 0.7 * lesion.noise(4))
    lesion.melanin += lesion.inside * where * (2.1 * lines - 0.6)


@criterion("MEL", "irregular globules")
def _irregular_globules(lesion):
    """Dots and globules of many sizes and shades, crowded to one side (consensus)."""
    rng, count = lesion.rng, lesion.rng.integers(14, 26)
    where = lesion.points(count, 1.0, rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 3.5))
    lesion.melanin += 3.0 * lesion.blobs(where, rng.uniform(0.025, 0.1, count), 1.3)


@criterion("MEL", "streaks")
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


@criterion("MEL", "blue-white veil")
def _blue_white_veil(lesion):
    """An off-centre, structureless blue area under a ground-glass white haze (consensus)."""
    area = lesion.patch(0.6, lesion.rng.uniform(0.6, 0.95), 0.14, 1.1)
    lesion.paint(0.8 * area, (0.25, 0.27, 0.39))
    haze = smooth_step(0.3 + 0.45 * lesion.noise(9)) * area
    lesion.paint(0.5 * haze, (0.62, 0.67, 0.80))


@criterion("NV", "symmetry")
def _symmetry(lesion):
    """Round to oval, one or two shades of brown, fading evenly into the skin (ABCD rule)."""
    rng = lesion.rng
    lesion.outline(rng.uniform(0.02, 0.06), rng.uniform(0.05, 0.28), rng.uniform(0.35, 0.7))
    centre = 1 + rng.uniform(-0.2, 0.9) * np.clip(lesion.depth, 0, 1)
    mottled = centre * np.exp(0.12 * lesion.noise(9))
    lesion.melanin += lesion.inside * rng.uniform(0.6, 2.2) * mottled
    lesion.blood += lesion.inside * rng.uniform(0, 0.9)


def lattice(lesion, cells, bend):
    """A honeycomb (size, size) in 0..1 of dark lines around `cells` light holes per lesion radius.

    Three plane waves at 60 degrees to each other make it; noise bends it by `bend` radii.
    """
    x = lesion.x + bend * lesion.noise(7, rough=False)
    y = lesion.y + bend * lesion.noise(7, rough=False)
    waves = 0
    for angle in lesion.rng.uniform(0, np.pi) + np.arange(3) * np.pi / 3:
        waves = waves + np.cos(2 * np.pi * cells * (x * np.cos(angle) + y * np.sin(angle)))
    return smooth_step((0.5 - waves) / 1.8)


@criterion("NV", "regular network")
def _regular_network(lesion):
    """An even honeycomb of brown lines that thins out at the border (consensus)."""
    lines = lattice(lesion, lesion.rng.uniform(4.0, 5.0), 0.03)
    strength = np.exp(0.4 * lesion.noise(5))
    lesion.melanin += lesion.inside * strength * (1.4 * lines - 0.5)


@criterion("NV", "regular globules")
def _regular_globules(lesion):
    """Round brown globules, alike in size and evenly spread (consensus)."""
    rng = lesion.rng
    k = np.arange(1, rng.integers(36, 50))
    angles = k * np.pi * (3 - np.sqrt(5)) + rng.uniform(0, 2 * np.pi)  # as in a sunflower: even
    where = 0.92 * np.sqrt(k / k[-1])[:, None] * lesion.edge(angles)
    where += rng.normal(0, 0.025, where.shape)
    globules = lesion.blobs(where, rng.normal(0.065, 0.007, len(k)), 1.1)
    lesion.melanin += 1.5 * globules * lesion.inside


@criterion("BCC", "translucent pink")
def _translucent_pink(lesion):
    """Translucent, pearly pink, at times with some brown, but without a pigment network (Menzies
    et al.)."""
    rng = lesion.rng
    lesion.outline(rng.uniform(0.06, 0.14), rng.uniform(0.0, 0.2), rng.uniform(0.2, 0.5))
    lesion.melanin += lesion.inside * 1.2 * rng.uniform() ** 2 * np.exp(0.5 * lesion.noise(4))
    lesion.blood += lesion.inside * rng.uniform(0.3, 0.9) * np.exp(0.3 * lesion.noise(5))
    pearl = smooth_step(0.2 + 0.45 * lesion.noise(8)) * lesion.inside
    lesion.paint(0.35 * pearl, (0.96, 0.86, 0.87))


@criterion("BCC", "arborising vessels")
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


@criterion("BCC", "ovoid nests")
def _ovoid_nests(lesion):
    """Large, well-defined, blue-grey ovoid islands (Menzies et al.)."""
    rng, count = lesion.rng, lesion.rng.integers(3, 8)
    nests = lesion.blobs(lesion.points(count, 0.9), rng.uniform(0.07, 0.2, count), 1.6, 0.035)
    nests *= np.clip(1 + 0.2 * lesion.noise(12), 0, 1.2)
    lesion.paint(0.85 * nests, (0.25, 0.24, 0.33))


@criterion("BCC", "ulceration")
def _ulceration(lesion):
    """A raw red defect with orange-brown crust (Menzies et al.)."""
    raw = lesion.patch(0.5, lesion.rng.uniform(0.3, 0.5), 0.25)
    lesion.paint(0.8 * raw, (0.52, 0.10, 0.11))
    crust = smooth_step(lesion.noise(16) - 0.4) * raw
    lesion.paint(0.6 * crust, (0.76, 0.50, 0.30))


@criterion("BKL", "sharp border")
def _sharp_border(lesion):
    """Stuck on: waxy brown, ending at a sharp, slightly scalloped border (Braun et al.)."""
    rng = lesion.rng
    lesion.outline(rng.uniform(0.04, 0.1), rng.uniform(0.05, 0.25), rng.uniform(0.05, 0.10))
    waxy = np.exp(0.25 * lesion.noise(7))
    lesion.melanin += lesion.inside * rng.uniform(0.5, 2.0) * waxy
    lesion.blood += lesion.inside * rng.uniform(0, 0.7)


@criterion("BKL", "milia-like cysts")
def _milia_like_cysts(lesion):
    """Small round white to yellow cysts that shine like stars (Braun et al.)."""
    count = lesion.rng.integers(8, 17)
    cysts = lesion.blobs(lesion.points(count), lesion.rng.uniform(0.035, 0.08, count), 1.1)
    lesion.paint(0.95 * cysts, (0.95, 0.89, 0.78))


@criterion("BKL", "comedo-like openings")
def _comedo_like_openings(lesion):
    """Brown to black plugs of keratin, sharp and irregular (Braun et al.)."""
    count = lesion.rng.integers(7, 14)
    where, radii = lesion.points(count), lesion.rng.uniform(0.04, 0.1, count)
    lesion.paint(0.35 * lesion.blobs(where, radii * 1.4), (0.72, 0.58, 0.42))
    lesion.paint(0.95 * lesion.blobs(where, radii, 1.4, 0.012), (0.18, 0.11, 0.08))


@criterion("BKL", "ridges")
def _ridges(lesion):
    """Dark fissures between fat, winding ridges, like the surface of a brain (Braun et al.)."""
    angle = lesion.rng.uniform(0, np.pi)
    across = lesion.x * np.cos(angle) + lesion.y * np.sin(angle)
    across += 0.17 * lesion.noise(6, rough=False)
    folds = np.cos(2 * np.pi * lesion.rng.uniform(2.0, 2.8) * across)
    strength = np.exp(0.4 * lesion.noise(5))
    lesion.melanin += lesion.inside * strength * (1.1 * smooth_step(0.1 - 1.1 * folds) - 0.25)


LOOKALIKES = {
    "MEL": ("NV", "BKL"),
    "NV": ("MEL", "BKL"),
    "BCC": ("MEL", "BKL"),
    "BKL": ("MEL", "NV"),
    "AKIEC": ("BCC", "BKL"),
    "DF": ("NV", "BCC"),
    "VASC": ("MEL", "BCC"),
}
"""Class -> the classes that a difficult lesion of it may resemble: our choice, not a statistic."""


def lesion_criteria(label, lesion_seed, difficulty=0):
    """The names in `CRITERIA` that a lesion shows, two or more; arguments as in `draw_lesion`.

    Raises `InputError` if the label is unknown, or a number out of range.
    """
    check_arguments(label, lesion_seed, difficulty=difficulty)
    rng = np.random.default_rng([lesion_seed, 1])
    base, *others = DRAW[label]
    count = rng.integers(1, 3) if label == "NV" else rng.integers(2, 4)
    chosen = sorted(rng.permutation(len(others))[:count])
    return _confused(rng, label, (base, *(others[k] for k in chosen)), difficulty)


def _confused(rng, label, own, difficulty):
    """Replace some of the criteria `own` by those of one lookalike.

    Each criterion, the first with outline and pigment included, is replaced with probability
    `difficulty`, or left out if the lookalike has too few; one always stays. A criterion that is
    replaced at some difficulty is also replaced at any higher one.
    """
    base, *others = DRAW[LOOKALIKES[label][rng.integers(2)]]
    luck = rng.random(len(own))
    theirs = [base, *rng.permutation(others)[: len(own) - 1]]
    theirs += [None] * (len(own) - len(theirs))
    gives_way = (luck < difficulty) & (luck < luck.max())
    names = np.where(gives_way, theirs, own)
    return tuple(str(name) for name in names if name)


def draw_criteria(label, names, seed, size, skin):
    """A `Lesion` of a class with the criteria `names`, drawn in order."""
    lesion = Lesion(np.random.default_rng([seed, 2, ALL_CLASSES.index(label)]), size, skin)
    for name in names:
        ChainMap(*DRAW.values())[name](lesion)
    return lesion
