"""The criteria of the rarer classes: actinic keratosis, dermatofibroma, vascular lesions.

Sources:
- Zalaudek et al., Dermoscopy of Bowen's disease, Br J Dermatol 150(6), 1112-1116, 2004, and
  Dermoscopy of facial nonpigmented actinic keratosis, Br J Dermatol 155(5), 951-956, 2006;
- Zaballos et al., Dermoscopy of solitary angiokeratomas, Arch Dermatol 143(3), 318-325, 2007, and
  Dermoscopy of dermatofibromas, Arch Dermatol 144(1), 75-83, 2008.
"""

import numpy as np

from derm_hash.atlas.criteria import criterion, lattice
from derm_hash.atlas.lesion import smooth_step


@criterion("AKIEC", "red pseudonetwork")
def _red_pseudonetwork(lesion):
    """Pink to red between the pale openings of hair follicles, like a strawberry; the border is
    vague (Zalaudek et al., 2006)."""
    rng = lesion.rng
    lesion.outline(rng.uniform(0.05, 0.14), rng.uniform(0.0, 0.25), rng.uniform(0.25, 0.6))
    lesion.melanin += lesion.inside * 1.1 * rng.uniform() ** 2 * np.exp(0.5 * lesion.noise(4))
    lesion.blood += lesion.inside * rng.uniform(0.6, 1.3) * np.exp(0.25 * lesion.noise(6))
    net = lattice(lesion, rng.uniform(2.6, 3.4), 0.1)
    lesion.blood *= 0.55 + 0.75 * net


@criterion("AKIEC", "scale")
def _scale(lesion):
    """White to yellow flakes that lie on the surface (Zalaudek et al., 2006)."""
    flakes = smooth_step(3 * (lesion.noise(13) - 0.75)) * lesion.inside
    lesion.paint(0.85 * flakes, (0.93, 0.89, 0.80))


@criterion("AKIEC", "keratin plugs")
def _keratin_plugs(lesion):
    """Follicles that are filled with a yellow plug in a white ring, like targets (Zalaudek et al.,
    2006)."""
    rng, count = lesion.rng, lesion.rng.integers(7, 14)
    where, radii = lesion.points(count), rng.uniform(0.075, 0.105, count)
    lesion.paint(0.85 * lesion.blobs(where, radii), (0.95, 0.88, 0.85))
    lesion.paint(0.95 * lesion.blobs(where, 0.5 * radii), (0.76, 0.58, 0.30))


@criterion("AKIEC", "glomerular vessels")
def _glomerular_vessels(lesion):
    """Red dots, each a coiled vessel, in clusters (Zalaudek et al., 2004)."""
    rng = lesion.rng
    for middle in rng.uniform(0, 2 * np.pi) + np.arange(3) * 2 * np.pi / 3:
        count = rng.integers(9, 16)
        where = lesion.points(count, 0.85, middle, rng.uniform(0.8, 1.4))
        lesion.paint(0.85 * lesion.blobs(where, rng.uniform(0.03, 0.05, count)), (0.55, 0.08, 0.12))


@criterion("DF", "fading brown")
def _fading_brown(lesion):
    """Round, light brown to pink, fading softly into the skin (Zaballos et al., 2008)."""
    rng = lesion.rng
    lesion.outline(rng.uniform(0.01, 0.05), rng.uniform(0.0, 0.15), rng.uniform(0.45, 0.8))
    lesion.melanin += lesion.inside * rng.uniform(0.6, 1.3) * np.exp(0.15 * lesion.noise(7))
    lesion.blood += lesion.inside * rng.uniform(0.1, 0.8)


@criterion("DF", "central white patch")
def _central_white_patch(lesion):
    """White and like a scar in the middle (Zaballos et al., 2008)."""
    centre = lesion.patch(0.12, lesion.rng.uniform(0.35, 0.55), 0.12)
    lesion.paint(0.85 * centre * np.exp(0.06 * lesion.noise(12)), (0.93, 0.84, 0.80))


@criterion("DF", "peripheral network")
def _peripheral_network(lesion):
    """A delicate network of fine light brown lines in the outer part (Zaballos et al., 2008)."""
    lines = lattice(lesion, lesion.rng.uniform(5.0, 6.0), 0.03)
    outer = smooth_step((0.75 - lesion.depth) / 0.3) * lesion.inside
    lesion.melanin += outer * (1.1 * lines - 0.35)


@criterion("DF", "ring-like globules")
def _ring_like_globules(lesion):
    """Small brown rings with a pale middle (Zaballos et al., 2008)."""
    rng, count = lesion.rng, lesion.rng.integers(12, 22)
    angles = rng.uniform(0, 2 * np.pi, count)
    where = rng.uniform(0.45, 0.85, (count, 1)) * lesion.edge(angles)
    radii = rng.uniform(0.07, 0.1, count)
    rings = lesion.blobs(where, radii) - 1.2 * lesion.blobs(where, 0.55 * radii)
    lesion.melanin += 1.8 * rings * lesion.inside


@criterion("VASC", "homogeneous red")
def _homogeneous_red(lesion):
    """Red to violet without brown, round, with a sharp border (consensus)."""
    rng = lesion.rng
    lesion.outline(rng.uniform(0.03, 0.1), rng.uniform(0.0, 0.25), rng.uniform(0.06, 0.2))
    lesion.blood += lesion.inside * rng.uniform(0.8, 1.8) * np.exp(0.2 * lesion.noise(6))
    lesion.melanin += lesion.inside * 0.4 * rng.uniform()


@criterion("VASC", "red lacunae")
def _red_lacunae(lesion):
    """Round to oval, sharply bordered red lagoons, packed side by side (consensus)."""
    rng, count = lesion.rng, lesion.rng.integers(14, 24)
    lacunae = lesion.blobs(lesion.points(count, 0.9), rng.uniform(0.11, 0.2, count), 1.4)
    lesion.paint(0.85 * lacunae * lesion.inside, (0.62, 0.08, 0.16))


@criterion("VASC", "dark lacunae")
def _dark_lacunae(lesion):
    """Dark violet to black lagoons, in which blood has clotted (Zaballos et al., 2007)."""
    rng, count = lesion.rng, lesion.rng.integers(4, 9)
    lacunae = lesion.blobs(lesion.points(count, 0.8), rng.uniform(0.1, 0.2, count), 1.4)
    lesion.paint(0.9 * lacunae * lesion.inside, (0.22, 0.07, 0.17))


@criterion("VASC", "whitish veil")
def _whitish_veil(lesion):
    """A white haze over a part of the lagoons (Zaballos et al., 2007)."""
    area = lesion.patch(0.5, lesion.rng.uniform(0.5, 0.8), 0.14, 1.1)
    lesion.paint(0.5 * area, (0.86, 0.80, 0.86))
