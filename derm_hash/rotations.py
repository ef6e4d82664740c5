"""Rotated copies of images, exact for quarter turns.

A photograph of a lesion has no "up": the dermatoscope is put down at any angle. The orbit of an
image x under the cyclic group C_n is the set of its n rotated copies {R_k x}, k = 0..n-1, where
R_k rotates by 360 k / n degrees.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from derm_hash.errors import InputError


def rotation_orbit(x: Tensor, n: int = 4) -> Tensor:
    """Rotate a batch of images by every rotation of the cyclic group C_n.

    Parameters
    ----------
    x : (B, C, H, H) tensor
        Any dtype for n = 1, 2 or 4; floating point for other n.
    n : int >= 1
        Order of the group. For 1, 2 and 4, every rotation permutes the pixels. For other n, images
        are resampled (bilinear) and *all* are cut to the inscribed disc, since the corners would
        reveal the angle.

    Returns
    -------
    (n, B, C, H, H) tensor
        Member k is x rotated counter-clockwise by 360 k / n degrees.

    Raises
    ------
    InputError
        If the images are not square, or n is less than 1.
    """
    if n < 1:
        raise InputError(f"An orbit has at least one member: n must be 1 or more, not {n}")
    check_square(x)
    rotation = rotate_view if n in (1, 2, 4) else rotate
    return torch.stack([rotation(x, 360 * k / n) for k in range(n)])


def check_square(x: Tensor) -> None:
    """Raise InputError unless x is a batch of square images (B, C, H, H)."""
    if x.ndim != 4 or x.shape[-1] != x.shape[-2]:
        text = f"A rotation needs square images (B, C, H, H), not {tuple(x.shape)}"
        raise InputError(f"{text}: crop or pad them first")


def rotate_quarters(x: Tensor, quarters: Tensor) -> Tensor:
    """Rotate each image by its own number of quarter turns, counter-clockwise and exact.

    Images (B, C, H, H) of any dtype, quarters (B,) in 0..3 -> (B, C, H, H).
    """
    rotated = x.clone()
    for k in (1, 2, 3):
        chosen = quarters == k
        rotated[chosen] = torch.rot90(x[chosen], k, dims=(-2, -1))
    return rotated


def pixel_centres(size: int, device=None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Coordinates of the pixels' centres along a side that spans [-1, 1]: (size,)."""
    return (torch.arange(size, device=device, dtype=dtype) + 0.5) / size * 2 - 1


def disc_mask(size: int, device: torch.device | str | None = None) -> Tensor:
    """The disc inscribed in a square image: (size, size) bool, True inside."""
    across = pixel_centres(size, device)
    return across[:, None] ** 2 + across**2 <= 1


def inside_disc(x: Tensor) -> Tensor:
    """Keep the inscribed disc of square images (..., H, H); the corners become 0.

    In images in [-1, 1], 0 is mid-grey.
    """
    return x.masked_fill(~disc_mask(x.shape[-1], x.device), 0)


def rotate(x: Tensor, degrees: float | Tensor) -> Tensor:
    """Rotate images about their centre by any angle, inside the inscribed disc.

    The corners are mid-grey at every angle, 0 included, so that an image and its rotated copy
    show the same disc of skin and differ in nothing else.

    Parameters
    ----------
    x : (B, C, H, H) floating point tensor
    degrees : float, or (B,) tensor with one angle for each image, counter-clockwise

    Returns
    -------
    (B, C, H, H) tensor, bilinearly resampled; 16-bit images are computed in 32 bits.

    Raises
    ------
    InputError
        If the images are not square, or their values are integers.
    """
    check_square(x)
    if not x.is_floating_point():
        raise InputError(f"rotate resamples floating point images, not {x.dtype}: convert them")
    given = x.dtype
    x = x.to(torch.promote_types(given, torch.float32))
    angle = torch.deg2rad(torch.as_tensor(degrees, dtype=x.dtype, device=x.device)).expand(len(x))
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    across = pixel_centres(x.shape[-1], x.device, x.dtype)
    down = across[:, None]
    # Where each output pixel comes from. F.affine_grid is not used: under mixed precision its
    # matrix product has 16 bits, which misplaces pixels of large images by half a pixel.
    source = torch.stack([cos * across - sin * down, sin * across + cos * down], dim=-1)
    rotated = F.grid_sample(x, source, mode="bilinear", padding_mode="border", align_corners=False)
    return inside_disc(rotated).to(given)


def rotate_view(x: Tensor, degrees: float) -> Tensor:
    """Rotate images (B, C, H, H): multiples of 90 degrees exactly, others inside the disc.

    Compare the result for other angles with ``rotate(x, 0)``, which shows the same disc.
    """
    if degrees % 90 == 0:
        return torch.rot90(x, int(degrees // 90), dims=(-2, -1))
    return rotate(x, degrees)
