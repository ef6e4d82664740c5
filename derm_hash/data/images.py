"""Reads image files of any usual kind, and turns them into the network's input."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, TiffTags, UnidentifiedImageError
from torch.nn import functional

from derm_hash.errors import InputError, one_line

MAX_PIXELS = 80_000_000
"""Larger images are refused. Dermoscopic cameras have about 20 million pixels; a small file that
claims many more is damaged, or was made to fill the memory."""

# Pillow loads its readers here, because loading them in several threads at once is a race. Rare
# formats are left out: they would only add code that parses untrusted files.
Image.init()
IMAGE_FORMATS = tuple(
    name for name in ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM") if name in Image.OPEN
)


def open_image(file: str | Path | BinaryIO, name: str | None = None) -> Image.Image:
    """Read one image of any usual kind as 8-bit RGB, upright.

    The EXIF orientation is applied. Transparent pixels are laid on white, as they look on a page.
    Grey images get three equal channels; see :func:`_grey_8bit` for those of more than 8 bits, some
    of which cause a UserWarning. Only the first frame of an animation is read.

    `name` is what messages call the image; the path by default. `InputError` if the file is
    missing, is not an image, is damaged or cut short, has more than `MAX_PIXELS` pixels, or has a
    layout of TIFF that Pillow misreads.
    """
    return _decoded(file, name, _to_rgb)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header; raises `InputError` as `open_image`."""
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            return image.size
    except Exception:  # noqa: BLE001 as in `_decoded`
        return open_image(path).size  # says in a sentence what is wrong


def _decoded(
    file: str | Path | BinaryIO,
    name: str | None,
    convert: Callable[[Image.Image, str], Image.Image],
) -> Image.Image:
    """Decode an image file, turn it upright, and hand it with its name to `convert`."""
    name = name or (str(file) if isinstance(file, str | Path) else "the image")
    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            _refuse_what_is_misread(image, name)
            return convert(ImageOps.exif_transpose(image), name)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name} does not exist: check the path") from None
    except UnidentifiedImageError:
        raise InputError(
            f"{name} is not an image that can be read: replace it with a JPEG, PNG, TIFF, "
            "BMP, WebP, GIF or PPM file, or leave it out"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(
            f"{name} has more than the {MAX_PIXELS // 10**6} million pixels that are read: "
            "make it smaller first"
        ) from None
    # Pillow documents OSError for damaged files, but its decoders pass on whatever the parsing
    # of damaged bytes leads to: SyntaxError, struct.error, TypeError, zlib.error and others.
    except Exception as error:
        raise InputError(
            f"{name} is damaged or cut short ({one_line(error)}): replace it or leave it out"
        ) from error


def _refuse_what_is_misread(image: Image.Image, name: str) -> None:
    """Raise `InputError` for an image that Pillow would decode wrongly, without an error.

    The layouts are those that it decodes wrongly among all that the package tifffile writes.
    """
    deep = any(";16" in str(tile[3]) for tile in image.tile) and image.mode in ("RGB", "RGBA", "LA")
    # Pillow keeps the upper 8 of 16 bits, so values below 4096 become almost 0.
    if deep and max(high for _, high in image.getextrema()[: 1 if image.mode == "LA" else 3]) < 16:
        raise InputError(
            f"{name} has 16 bits a colour and no value above 4095: scale its values to the full "
            "range of 8 or 16 bits, and save it again"
        )
    if image.format != "TIFF":
        return
    tags = {info.name: image.tag_v2.get(tag) for tag, info in TiffTags.TAGS_V2.items()}
    bits, signs = (tags[key] or (1,) for key in ("BitsPerSample", "SampleFormat"))
    bits, sign, raw = bits[0], signs[0], tags["Compression"] in (None, 1)
    planes = tags["PlanarConfiguration"] == 2
    wrong = {
        "planes of 16 bits": planes and bits == 16 and raw,
        "a plane of transparency": planes and image.mode == "LA",
        "white as 0 in 16 bits": bits == 16 and tags["PhotometricInterpretation"] == 0,
        "signed bytes": bits == 8 and sign == 2,
        "values above 2147483647": bits == 32 and sign == 1 and image.getextrema()[0] < 0,
        "compressed values with the high byte first": (
            image.mode in ("I", "F") and not raw and image.tag_v2.prefix == b"MM"
        ),
        "PackBits compression with a predictor": (
            tags["Compression"] == 32773 and tags["Predictor"] not in (None, 1)
        ),
    }
    for layout, present in wrong.items():
        if present:
            raise InputError(
                f"{name} is a TIFF file with {layout}, which would be read as another picture: "
                "save it as PNG, or as TIFF with interleaved channels and without compression"
            )


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Any Pillow mode to RGB; decodes the image."""
    if _is_deep(image):
        image = Image.fromarray(_grey_8bit(_finite(image, name), image.mode))
    return _laid_on("white", image)


def _laid_on(colour: str, image: Image.Image) -> Image.Image:
    """Any mode of 8 bits to RGB, transparent pixels laid on a colour."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, colour), image).convert("RGB")
    image.load()
    return image.convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    """Whether the image is a grey one of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _finite(image: Image.Image, name: str) -> np.ndarray:
    """The values of a grey image (H, W); `InputError` if one is infinite or NaN."""
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise InputError(f"{name} has pixels that are not finite numbers: replace it")
    return values


def _grey_8bit(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey values of more than 8 bits (H, W) as uint8 (H, W).

    16-bit images use the range of 8, 10, 12 or 14 bits, as most cameras deliver, if all values fit
    into it (a warning says so), else 0..65535. Float images in 0..1 use that range, and those in
    0..255 are rounded. Any other range is stretched, since the file does not explain it.
    """
    low, high = float(values.min()), float(values.max())
    if mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif mode == "F" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    elif mode != "F" and low >= 0 and high <= 65535:
        low, high = 0.0, _full_range(high)
    scale = 255.0 / (high - low) if high > low else 0.0
    grey = np.empty(values.shape, dtype=np.uint8)
    for rows in range(0, len(values), 256):  # all rows at once would take eight times the memory
        part = slice(rows, rows + 256)
        grey[part] = np.rint((values[part].astype(np.float64) - low) * scale)
    return grey


def _full_range(high: float) -> float:
    """The largest value that a grey image of 16 bits can have, given the largest that it has."""
    bits = next(bits for bits in (8, 10, 12, 14, 16) if high < 2**bits)
    if high > 0 and bits < 16:
        # Without the file's name in it, Python shows the warning once.
        warnings.warn(
            f"grey images of 16 bits have values of 0 to {2**bits - 1} only, and are read as "
            f"images of {bits} bits: if they are dark images of 16 bits, save them as 8-bit images",
            stacklevel=2,
        )
    return 2.0**bits - 1


def square(image: Image.Image, size: int, nearest: bool = False) -> Image.Image:
    """Resize the short side to `size` pixels and cut out the centre, in one resampling.

    Bicubic with antialiasing, or the nearest neighbour for masks; the mode stays. RGB squares, such
    as prepared images, go through `square_pixels`.
    """
    if image.mode == "RGB" and image.width == image.height and not nearest:
        return Image.fromarray(square_pixels(np.asarray(image)[None], size)[0])
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return ImageOps.fit(image, (size, size), method=method)


def square_pixels(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize squares of uint8 (N, S, S, 3) to (N, size, size, 3), bicubic with antialiasing.

    PyTorch takes a fifth of Pillow's time, with the same bytes on every processor; they differ from
    Pillow's by at most 2.
    """
    if pixels.shape[1] == size:
        return pixels
    x = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
    x = functional.interpolate(x, (size, size), mode="bicubic", antialias=True)
    return x.permute(0, 2, 3, 1).numpy()


def read_mask(file: str | Path | BinaryIO, name: str | None = None) -> Image.Image:
    """Read a lesion mask as an image of mode L with the values 0 and 255; errors as `open_image`.

    Masks are stored as 0/1, 0/255 or, in files of more than 8 bits, 0 and any larger number.
    Resampled masks have values in between; from one half upwards they count as lesion. The colours
    of a palette are classes: the first one is the background and all others are lesion, unless
    they are greys. Transparent pixels are background.
    """
    return _decoded(file, name, _to_mask)


def _to_mask(image: Image.Image, name: str) -> Image.Image:
    """Any Pillow mode to a mask; decodes the image."""
    if _is_deep(image):
        values = _finite(image, name)
    else:
        values = np.asarray(_laid_on("black", _classes_in_white(image)).convert("L"))
    high = values.max()
    # Not half of the maximum in any case: an empty mask that was once a JPEG has some noise.
    full = next((level for level in (1, 255) if high <= level), high)
    return Image.fromarray((values >= full / 2).astype(np.uint8) * 255)


def _classes_in_white(image: Image.Image) -> Image.Image:
    """Make all colours of a palette but the first one white, unless the picture is grey."""
    if image.mode in ("P", "PA") and np.ptp(np.asarray(image.convert("RGB")), axis=2).any():
        image.putpalette(bytes(3) + b"\xff" * (3 * 255))
    return image


def to_input(images: torch.Tensor) -> torch.Tensor:
    """Scale uint8 images (..., 3, S, S) to the network's float32 input in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1.0


def from_input(x: torch.Tensor) -> torch.Tensor:
    """Inverse of `to_input`: floats in [-1, 1] (..., 3, S, S) to uint8, rounded and clipped."""
    return ((x + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
