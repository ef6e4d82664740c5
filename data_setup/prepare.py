"""Decodes every image once and stores it as training needs it: small, square, upright.

With ``--size N`` an image is rotated as its EXIF data says, resized in one resampling, and stored
as a JPEG of quality 95; its mask gets exactly the same geometry by nearest neighbour, as a PNG.

- ``--fit crop``: the short side becomes N pixels and the centre square is cut out;
- ``--fit pad``: the long side becomes N pixels and the rest of the square is filled: masks with 0,
  no lesion, and images with the median colour of the two edges that are continued. Black bars would
  put a straight, strong edge into every image, which a network can learn.

Nothing is enlarged. A JPEG or PNG file that is such a square already is kept byte for byte. With
``--size original`` all files stay as they are. Where all squares have one size, their decoded
pixels are stored beside them, too (`derm_hash.data.manifest.store_pixels`).
"""

import io
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import ExifTags, Image

from data_setup.sources import Source, encoded, read
from derm_hash.data.images import IMAGE_FORMATS, open_image, read_mask, square
from derm_hash.errors import InputError
from derm_hash.files import thread_map, write_atomically

QUALITY = 95
FITS = ("crop", "pad")
KEPT = {"JPEG": ".jpg", "PNG": ".png"}


def put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; its folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda part: part.write_bytes(data))


def store_all(
    root: Path, frame: pd.DataFrame, size: int | None, fit: str, workers: int | None = None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Store the images and masks of a data set below `root`; what is there already is kept.

    Return the manifest's rows of the images that can be stored, with the names that they got, and
    a dictionary of the others, image -> why not. For `frame` see `data_setup.build.build`, for
    `size` and `fit` see `store`.
    """
    check_names(frame, size)
    rows = list(frame[["image", "image_from", "mask", "mask_from"]].itertuples(index=False))

    def one(row: tuple) -> tuple[str, str] | InputError:
        try:
            return store(root, *row, size, fit)
        except InputError as error:
            return error

    stored = pd.Series([*thread_map(one, rows, "preparing", True, workers)], frame.index, object)
    failed = stored.map(lambda result: isinstance(result, InputError))
    bad = dict(zip(frame.loc[failed, "image"], stored[failed].map(str), strict=True))
    kept = frame[~failed].drop(columns=["image_from", "mask_from"])
    kept["image"], kept["mask"] = stored[~failed].str[0], stored[~failed].str[1]
    return kept.reset_index(drop=True), bad


def check_names(frame: pd.DataFrame, size: int | None) -> None:
    """Refuse images whose stored files would overwrite each other."""
    for column in ("image", "mask"):
        taken: dict[str, str] = {}
        for name in filter(None, frame[column]):
            key = name if size is None else str(PurePosixPath(name).with_suffix(""))
            if (other := taken.setdefault(key, name)) is not name:
                raise InputError(
                    f"{other} and {name} would be stored under one name: rename one of the files"
                    + ("" if size is None else ", or keep the files as they are by --size original")
                )


def store(
    root: Path,
    image: str,
    image_from: Source,
    mask: str,
    mask_from: Source | None,
    size: int | None,
    fit: str,
) -> tuple[str, str]:
    """Store one image and its mask below `root`, unless both are there; return their paths.

    `image` and `mask` ("" for none) are the wanted paths relative to `root`; those stored have the
    suffixes of what the files hold. `size` is the side of the square in pixels; None keeps the
    files as they are. `InputError` if a file is not an image, or the mask has another shape.
    """
    stored_mask = _with_suffix(mask, ".png") if mask and size else mask
    stems = [image] if size is None else [_with_suffix(image, s) for s in KEPT.values()]
    for name in stems:
        if (root / name).exists() and (not mask or (root / stored_mask).exists()):
            return name, stored_mask
    data = read(image_from)
    picture = open_image(io.BytesIO(data), str(image_from))
    if mask:
        mask_data = read(mask_from)
        lesion = read_mask(io.BytesIO(mask_data), str(mask_from))
        check_shapes(picture, str(image_from), lesion, str(mask_from))
        if size is not None:
            lesion = lesion.resize(picture.size, Image.Resampling.NEAREST)
            mask_data = encoded(squared(lesion, size, fit, nearest=True), "PNG")
        put(root / stored_mask, mask_data)
    stored_image = image
    if size is not None:
        small = squared(picture, size, fit)
        kind = plain_format(data) if small.size == picture.size else None
        if kind is None:
            kind, data = "JPEG", encoded(small, "JPEG", quality=QUALITY)
        stored_image = _with_suffix(image, KEPT[kind])
    put(root / stored_image, data)
    return stored_image, stored_mask


def check_shapes(image: Image.Image, image_name: str, mask: Image.Image, mask_name: str) -> None:
    """Refuse a mask whose proportions differ from the image's by more than rounding explains."""
    (width, height), (mask_width, mask_height) = image.size, mask.size
    # A mask may be reduced: its sides may differ from the image's reduced ones by 1.5 pixels.
    if abs(mask_width * height - mask_height * width) > 1.5 * max(width, height):
        raise InputError(
            f"{mask_name} has {mask_width} x {mask_height} pixels and its image {image_name} "
            f"{width} x {height}, another shape: replace the mask or leave it out"
        )


def squared(image: Image.Image, size: int, fit: str, nearest: bool = False) -> Image.Image:
    """An image or mask as a square of at most `size` pixels; see the module's text.

    With `nearest`, for masks, the nearest neighbour is used and the square is filled with 0.
    """
    if fit == "crop":
        return square(image, min(size, *image.size), nearest)
    side = min(size, max(image.size))
    width, height = (max(1, round(n * side / max(image.size))) for n in image.size)
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    inner = image.resize((width, height), method)
    canvas = Image.new(image.mode, (side, side), 0 if nearest else _edge_colour(inner))
    canvas.paste(inner, ((side - width) // 2, (side - height) // 2))
    return canvas


def _edge_colour(image: Image.Image) -> tuple[int, ...]:
    """Median colour of the two long edges of an RGB image, which padding continues."""
    pixels = np.asarray(image)
    edges = pixels[[0, -1]] if image.width >= image.height else pixels[:, [0, -1]]
    return tuple(np.median(edges.reshape(-1, 3), axis=0).astype(int).tolist())


def plain_format(data: bytes) -> str | None:
    """``JPEG`` or ``PNG`` if any program shows the pixels as `open_image` reads them, else None."""
    with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        plain = image.mode == "RGB" and not image.has_transparency_data
        return image.format if upright and plain and image.format in KEPT else None


def _with_suffix(name: str, suffix: str) -> str:
    return str(PurePosixPath(name).with_suffix(suffix))
