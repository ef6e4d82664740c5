"""Finds near-duplicates: one photograph re-encoded, resized, brightened, rotated or slightly cut.

An image is hashed by 768 bits of its central square in grey: a perceptual hash (16 x 16 coarse
shapes) and two difference hashes (16 x 16 signs of change, across and down). Two images are
near-duplicates if at most 104 bits differ between the one and any of the eight rotated and
mirrored views of the other.

The limit was calibrated on HAM10000 at 200 x 150 pixels, where two random lesions differ by 339
bits (median). Among 50 million pairs of different lesions, one is below the limit, at 54 bits: two
copies of one photograph that the archive lists as two lesions. The first mistake is at 111 bits.
Groups do not chain: 54 have two images and 19 have three. Among copies made on purpose, the search
finds all at JPEG quality 50, half size or 30 % darker; 98 % at 30 % brighter; and 100, 97 and 52 %
with 1, 2 and 3 % cut from every side. It misses a cut of 5 % and a rotation by 2 degrees.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import faiss
import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from derm_hash.data.images import square
from derm_hash.data.manifest import picture_reader, stored_pixels
from derm_hash.files import thread_map

SIDE = 64  # side of the thumbnails that are hashed, in pixels
RADIUS = 104  # of 768 bits; see above
BLOCK = 64  # images that are compared at a time, which bounds the memory

# A lesion has no "up": the four rotations of an image and of its mirror image.
VIEWS = (None, *Image.Transpose)


def duplicate_groups(root: Path, images: Sequence[str], workers: int | None = None) -> list[str]:
    """Group the images that are near-duplicates; `InputError` if one cannot be read.

    `images` are N different paths, relative to `root`. The result has N names: "" for an image
    without near-duplicates; images that are connected share one name, "dup-" followed by the path
    that is first in the alphabet.
    """
    group = connected_images(image_hashes(root, images, workers), RADIUS)
    names = pd.Series(images).groupby(group)
    return ("dup-" + names.transform("min")).where(names.transform("size") > 1, "").tolist()


def image_hashes(root: Path, images: Sequence[str], workers: int | None = None) -> np.ndarray:
    """Hashes of the eight views of each of N images: uint8 (N, 8, 96)."""
    picture = picture_reader(root, images, stored_pixels(root, images))

    def thumbnail(i: int) -> Image.Image:
        return square(picture(i).convert("L"), SIDE)

    what = "looking for near-duplicates"
    small = thread_map(thumbnail, range(len(images)), what, True, workers)
    # Threads decode. The hashes are many short calls, which would only wait for each other.
    return np.array([view_hashes(image) for image in small], dtype=np.uint8)


def view_hashes(image: Image.Image) -> np.ndarray:
    """Hashes of the eight views of a square grey image, the image itself first: uint8 (8, 96)."""
    views = [image if view is None else image.transpose(view) for view in VIEWS]
    kinds = imagehash.phash, imagehash.dhash, imagehash.dhash_vertical
    bits = np.array([[kind(view, hash_size=16).hash for kind in kinds] for view in views])
    return np.packbits(bits.reshape(len(views), -1), axis=1)


def connected_images(hashes: np.ndarray, radius: int) -> np.ndarray:
    """Number of each image's group (N,), from the hashes uint8 (N, views, bytes) of its views.

    The first view is the unchanged image; `radius` is the largest distance in bits of near images.
    """
    # Equal images are joined first, so that a thousand blank ones do not make a million pairs.
    _, kept, group = np.unique(hashes[:, 0], axis=0, return_index=True, return_inverse=True)
    joined = np.arange(len(kept))
    for near in near_pairs(hashes[kept], radius):
        graph = coo_array((np.ones(len(near[0]), bool), joined[near]), shape=(len(kept),) * 2)
        joined = connected_components(graph, directed=False)[1][joined]
    return joined[group.ravel()]


def near_pairs(hashes: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """Yield positions (2, K) of pairs in which a view of one is near the other, block by block."""
    index = faiss.IndexBinaryFlat(8 * hashes.shape[2])
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start : start + BLOCK]
        # Each block is compared with itself and the ones before, so that no pair is tried twice.
        index.add(np.ascontiguousarray(block[:, 0]))
        # faiss returns what is strictly below its radius.
        limits, _, found = index.range_search(block.reshape(-1, block.shape[2]), radius + 1)
        views = np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)))
        yield np.stack([start + views // block.shape[1], found])
