"""Random views of a batch: mirror images, light, quarter rotations.

The random numbers of a step are drawn for the whole batch and follow from a key alone. So an image
changes in the same way however many processes share the batch, and whenever a run is resumed.
"""

import zlib

import torch
from torch import Tensor

from derm_hash.rotations import rotate_quarters


def generator(*key: int | str) -> torch.Generator:
    """A random generator that depends on its key alone."""
    return torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))


def random_view(
    x: Tensor, light: bool, rotations: bool, key: tuple[int, ...], rank: int = 0, world: int = 1
) -> Tensor:
    """One random view of each image: (B, 3, S, S) in [-1, 1] -> the same.

    ``light`` asks for :func:`augment`, ``rotations`` for quarter turns. The ``key`` (seed, epoch,
    step) decides all random numbers. x holds every ``world``-th image of a batch from ``rank`` on.
    """
    if light:
        x = augment(x, generator(*key, 0), rank, world)
    if rotations:
        rng = generator(*key, "turns")
        quarters = torch.randint(4, (len(x) * world,), generator=rng)[rank::world]
        x = rotate_quarters(x, quarters.to(x.device))
    return x


def augment(x: Tensor, rng: torch.Generator, rank: int = 0, world: int = 1) -> Tensor:
    """Mirror half of the images; change brightness and contrast by up to a tenth.

    Images (B, 3, S, S) in [-1, 1] -> the same; ``rank`` and ``world`` as in :func:`random_view`.
    """
    draws = torch.rand(3, len(x) * world, 1, 1, 1, generator=rng)[:, rank::world]
    mirror, brightness, contrast = draws.to(x.device)
    x = torch.where(mirror < 0.5, x.flip(-1), x)
    return (x * (1 + 0.1 * (2 * contrast - 1)) + 0.1 * (2 * brightness - 1)).clamp(-1, 1)
