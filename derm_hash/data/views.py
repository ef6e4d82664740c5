"""Random views of a batch: mirror images, light, quarter rotations; ECL's weak and strong view.

The random numbers of a step are drawn for the whole batch and follow from a key alone. So an image
changes in the same way however many processes share the batch, and whenever a run is resumed.
"""

import math
import zlib
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from derm_hash.rotations import rotate_quarters

if TYPE_CHECKING:
    from derm_hash.settings import TrainConfig


def generator(*key: int | str) -> torch.Generator:
    """A random generator that depends on its key alone."""
    return torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))


def order_of_images(labels: Tensor, key: tuple[int, ...], balanced: bool = False) -> Tensor:
    """Positions (N,) of an epoch's images with these labels (N,), in an order that the key decides.

    Each comes once; if ``balanced``, they are drawn with replacement, all classes equally likely.
    """
    rng = generator(*key)
    if not balanced:
        return torch.randperm(len(labels), generator=rng)
    weights = 1 / torch.bincount(labels)[labels]
    return torch.multinomial(weights, len(labels), replacement=True, generator=rng)


def random_views(
    x: Tensor, config: "TrainConfig", key: tuple[int, ...], rank: int = 0, world: int = 1
) -> tuple[Tensor, Tensor | None]:
    """The random view of each image that a step trains on, and a strong view if one is asked for.

    With ``views="weak-strong"`` the first is :func:`weak_view` and the second :func:`strong_view`.
    Otherwise ``augment`` asks for :func:`augment`. ``random_rotations`` turns the first view by
    random quarters. Images (B, 3, S, S) in [-1, 1] -> the same.

    Parameters
    ----------
    x : every ``world``-th image of a batch from ``rank`` on
    config : TrainConfig
    key : (seed, epoch, step), which decides all random numbers
    """
    strong = None
    if config.views == "weak-strong":
        x, strong = weak_view(x, key, rank, world), strong_view(x, key, rank, world)
    elif config.augment:
        x = augment(x, generator(*key, 0), rank, world)
    if config.random_rotations:
        rng = generator(*key, "turns")
        quarters = torch.randint(4, (len(x) * world,), generator=rng)[rank::world]
        x = rotate_quarters(x, quarters.to(x.device))
    return x, strong


def augment(x: Tensor, rng: torch.Generator, rank: int = 0, world: int = 1) -> Tensor:
    """Mirror half of the images; change brightness and contrast by up to a tenth.

    Images (B, 3, S, S) in [-1, 1] -> the same; ``rank`` and ``world`` as in :func:`random_views`.
    """
    draws = torch.rand(3, len(x) * world, 1, 1, 1, generator=rng)[:, rank::world]
    mirror, brightness, contrast = draws.to(x.device)
    x = torch.where(mirror < 0.5, x.flip(-1), x)
    return (x * (1 + 0.1 * (2 * contrast - 1)) + 0.1 * (2 * brightness - 1)).clamp(-1, 1)


def weak_view(x: Tensor, key: tuple[int, ...], rank: int = 0, world: int = 1) -> Tensor:
    """ECL's weak view: mirror half of the images, and apply :func:`jitter`.

    Arguments as in :func:`random_views`.
    """
    rng = generator(*key, "weak")
    mirror = torch.rand(len(x) * world, 1, 1, 1, generator=rng)[rank::world].to(x.device) < 0.5
    return jitter(torch.where(mirror, x.flip(-1), x), rng, rank, world)


def strong_view(x: Tensor, key: tuple[int, ...], rank: int = 0, world: int = 1) -> Tensor:
    """ECL's strong view: crop, turn, mirror and :func:`jitter` images, and make a fifth grey.

    A square of 80 to 100 % of the area is cut out, turned by up to 90 degrees to either side and
    mirrored along either axis, all in one resampling; the edges are continued by reflection.
    Arguments as in :func:`random_views`.
    """
    rng = generator(*key, "strong")
    draws = torch.rand(7, len(x) * world, generator=rng)[:, rank::world].to(x.device)
    side, angle = (0.8 + 0.2 * draws[0]).sqrt(), math.pi / 2 * (2 * draws[1] - 1)
    shift = (1 - side) * (2 * draws[2:4] - 1)
    flip = 2 * (draws[4:6] < 0.5) - 1
    rows = [
        torch.stack([side * flip[0] * angle.cos(), -side * flip[1] * angle.sin(), shift[0]], 1),
        torch.stack([side * flip[0] * angle.sin(), side * flip[1] * angle.cos(), shift[1]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    x = jitter(x, rng, rank, world)
    return torch.where(draws[6, :, None, None, None] < 0.2, grey(x).expand_as(x), x)


def jitter(x: Tensor, rng: torch.Generator, rank: int = 0, world: int = 1) -> Tensor:
    """Change the colours of four images in five: (B, 3, S, S) in [-1, 1] -> the same.

    Brightness, contrast and saturation are multiplied by 0.6 to 1.4, and the hue turns by up to a
    tenth of a circle around the grey axis. ``rank`` and ``world`` as in :func:`random_views`.
    """
    draws = torch.rand(5, len(x) * world, 1, 1, 1, generator=rng)[:, rank::world].to(x.device)
    brightness, contrast, saturation = 0.6 + 0.8 * draws[:3]
    turn = 2 * math.pi * 0.1 * (2 * draws[3] - 1)
    y = (x + 1) / 2 * brightness
    mean = grey(y).mean(dim=(2, 3), keepdim=True)
    y = mean + contrast * (y - mean)
    y = grey(y) + saturation * (y - grey(y))
    # Rodrigues' formula for a rotation around (1, 1, 1) / sqrt(3).
    across = (y.roll(-2, dims=1) - y.roll(-1, dims=1)) / math.sqrt(3)
    axis = y.mean(dim=1, keepdim=True)
    y = axis + turn.cos() * (y - axis) + turn.sin() * across
    return torch.where(draws[4] < 0.8, (2 * y - 1).clamp(-1, 1), x)


def grey(x: Tensor) -> Tensor:
    """The luma of RGB images (ITU-R BT.601): (B, 3, S, S) -> (B, 1, S, S)."""
    return torch.einsum("c,bchw->bhw", x.new_tensor([0.299, 0.587, 0.114]), x)[:, None]
