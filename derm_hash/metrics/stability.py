"""Do the code and the hits stay the same when the image is rotated?"""

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from torch import Tensor
from tqdm.auto import tqdm

from derm_hash.errors import InputError
from derm_hash.model import encode
from derm_hash.rotations import rotate, rotate_view

K = 10  # hits of which overlap_at_10 compares two searches
TIED = float(np.finfo(np.float32).eps)  # 1 - cosine in 32 bits tells no smaller distances apart
PAIRS_AT_ONCE = 1_000_000  # pairs of query and database image per block, which bounds the memory


def flipped_bits(codes: np.ndarray | Tensor) -> float:
    """Share of bits that change when the image is rotated: codes (n, N, bits) -> float in [0, 1].

    Each bit of members 1 to n - 1 of the orbits is compared with that of member 0, which is not
    rotated. `InputError` if n < 2.
    """
    hard = np.asarray(codes) > 0.5
    if hard.ndim != 3 or len(hard) < 2:
        raise InputError(f"Flipped bits need codes (n >= 2, N, bits), not {hard.shape}")
    return float((hard[1:] != hard[0]).mean())


def hit_chances(distance: np.ndarray, k: int = K) -> np.ndarray:
    """Probability that an image is among the k nearest, if ties are ordered at random.

    Let d be the k-th smallest distance of a query. Images nearer than ``d - TIED`` are hits; there
    are n < k of them. The t images within ``TIED`` of d are *near-tied*: which of them fill the
    other ``s = k - n`` places is arbitrary, and each does with probability ``s / t``.

    Distances (Q, N) of every query and database image -> (Q, N) in [0, 1], with rows of sum
    ``min(k, N)``.
    """
    k = min(k, distance.shape[1])
    last = np.partition(distance, k - 1, axis=1)[:, k - 1, None]
    certain = distance < last - TIED
    tied = ~certain & (distance <= last + TIED)
    places = k - certain.sum(axis=1, keepdims=True)
    return certain + tied * (places / tied.sum(axis=1, keepdims=True))


def expected_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Expected share of the k hits that two searches with randomly ordered ties have in common.

    ``sum_i a_i b_i / k``, where a and b (Q, N) are the :func:`hit_chances`; -> (Q,) in [0, 1].
    It is 1 only where both searches find the same images *and* no tie decides which. If 20 images
    tie for all ten places, two equal searches share 5 of 10 hits on average, since the codes do not
    say which images are the hits.
    """
    return (a * b).sum(axis=1) / a.sum(axis=1)


def orbit_scores(codes: np.ndarray, index) -> pd.DataFrame:
    """Measure how far each query's code and hits move under rotation, mean over its orbit.

    Soft codes (n, Q, bits) of the orbits, member 0 not rotated -> a DataFrame with a row for each
    query and the columns flipped_bits, overlap_at_10 and tied_at_10 of :func:`rotation_report`.
    """
    hard = codes > 0.5
    hits = pd.concat([pd.DataFrame(_hits_in_common(codes[0], each, index)) for each in codes[1:]])
    means = hits.groupby(level=0).mean()
    means.insert(0, "flipped_bits", (hard[1:] != hard[0]).mean(axis=(0, 2)))
    return means


def rotation_scores(
    model, images: Tensor, angles: tuple[float, ...] = (90, 180, 270), index=None
) -> pd.DataFrame:
    """Measure how far the code of every single image moves when the image is rotated.

    Parameters are those of :func:`rotation_report`.

    Returns
    -------
    DataFrame
        One row for each angle and image, with the columns angle, image (its position in
        ``images``), flipped_bits, code_distance and, given an index, overlap_at_10 and tied_at_10,
        as in the report. :func:`bootstrap_interval` and :func:`paired_test` take such columns.
    """
    tables, upright = [], {}
    for angle in tqdm(angles, "rotating", leave=False, disable=None):
        # A rotated disc is compared with the upright disc, a rotated square with the square.
        square = angle % 90 == 0
        if square not in upright:
            upright[square] = encode(model, images if square else rotate(images, 0))
        codes = encode(model, rotate_view(images, angle))
        columns = {
            "angle": angle,
            "image": np.arange(len(images)),
            "flipped_bits": ((codes > 0.5) != (upright[square] > 0.5)).mean(axis=1),
            "code_distance": np.abs(codes - upright[square]).mean(axis=1),
        }
        if index is not None:
            columns |= _hits_in_common(upright[square], codes, index)
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _hits_in_common(upright: np.ndarray, turned: np.ndarray, index) -> dict[str, np.ndarray]:
    """Columns overlap_at_10 and tied_at_10 for the codes (Q, bits) of images and rotated images."""
    shares, ties = [], []
    blocks = len(turned) * len(index) // PAIRS_AT_ONCE + 1
    for part in np.array_split(np.arange(len(turned)), blocks):
        a, b = (hit_chances(_cosine_distance(x[part], index.codes)) for x in (upright, turned))
        shares.append(expected_overlap(a, b))
        ties.append(((b > 0) & (b < 1)).sum(axis=1))
    return {"overlap_at_10": np.concatenate(shares), "tied_at_10": np.concatenate(ties)}


def _cosine_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances as in :meth:`.HashIndex.search`: codes (Q, bits), (N, bits) -> (Q, N) float64."""
    distance = cdist(a, b, "cosine")
    # A code of zeros has no direction: it is at 0 from another such code and at 1 from all others.
    zero = ~a.any(axis=1)[:, None], ~b.any(axis=1)
    return np.where(zero[0] | zero[1], zero[0] != zero[1], distance)


def rotation_report(
    model, images: Tensor, angles: tuple[float, ...] = (90, 180, 270), index=None
) -> pd.DataFrame:
    """Measure how far the code moves when images are rotated, mean over the images.

    Parameters
    ----------
    model : DermHash or OrbitMean
    images : (N, 3, S, S) float tensor in [-1, 1]
    angles : tuple of float
        Degrees, counter-clockwise; exact for multiples of 90, others compare inscribed discs.
    index : HashIndex, optional
        A database to search with the upright and with the rotated image.

    Returns
    -------
    DataFrame
        One row for each angle: angle; flipped_bits, the share of bits that change; code_distance,
        the mean absolute difference of the soft codes; and, given an index,

        overlap_at_10
            Share in [0, 1] of the ten nearest images by cosine distance that both searches find in
            the whole database, see :func:`.expected_overlap`. Within a radius, a query with few
            images would look unstable.
        tied_at_10
            Number of images that are near-tied for the last of the ten places in the search with
            the rotated image, so that their order decides which are hits; 0 where the codes decide.
    """
    scores = rotation_scores(model, images, angles, index)
    means = scores.drop(columns="image").groupby("angle", sort=False).mean()
    return means.reset_index()
