"""Do the code and the hits stay the same when the image is rotated?"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from derm_hash.errors import InputError
from derm_hash.rotations import rotate, rotate_view

K = 10  # hits of which overlap_at_10 compares two searches


def flipped_bits(codes: np.ndarray | Tensor) -> float:
    """Share of bits that change when the image is rotated.

    Parameters
    ----------
    codes : (n, N, bits) array or tensor, n >= 2, else `InputError`
        Soft codes of the orbits of N images; member 0 is not rotated.

    Returns
    -------
    float in [0, 1]
        Mean over members 1.., images and bits of [bit differs from member 0].
    """
    hard = np.asarray(codes) > 0.5
    if hard.ndim != 3 or len(hard) < 2:
        raise InputError(f"Flipped bits need codes (n >= 2, N, bits), not {hard.shape}")
    return float((hard[1:] != hard[0]).mean())


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of hits in [0, 1] that two searches have in common: ids (Q, k), (Q, k) -> (Q,).

    ``|A & B| / k``. A missing hit (-1) is never in common. Columns that no query has a hit for are
    left out, so for a database of N < k images the share is ``|A & B| / N``.
    """
    both = np.sort(np.concatenate([a, b], axis=1), axis=1)
    common = ((both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)).sum(axis=1)
    return common / max(1, (a >= 0).sum(axis=1).max(), (b >= 0).sum(axis=1).max())


def orbit_scores(codes: np.ndarray, index) -> pd.DataFrame:
    """Measure how far each query's code and hits move under rotation, mean over its orbit.

    Parameters
    ----------
    codes : (n, Q, bits) array
        Soft codes of the orbits of Q images; member 0 is not rotated.
    index : HashIndex

    Returns
    -------
    DataFrame
        A row for each query, with the columns flipped_bits and overlap_at_10 of
        :func:`rotation_report`.
    """
    hard = codes > 0.5
    ids = [index.search(member, K, radius=None).ids for member in codes]
    return pd.DataFrame(
        {
            "flipped_bits": (hard[1:] != hard[0]).mean(axis=(0, 2)),
            "overlap_at_10": np.mean([overlap(ids[0], other) for other in ids[1:]], axis=0),
        }
    )


def rotation_scores(
    model,
    images: Tensor,
    angles: tuple[float, ...] = (90, 180, 270),
    index=None,
    batch_size: int = 256,
) -> pd.DataFrame:
    """Measure how far the code of every single image moves when the image is rotated.

    Parameters are those of :func:`rotation_report`.

    Returns
    -------
    DataFrame
        One row for each angle and image, with the columns angle, image (its position in
        ``images``), flipped_bits, code_distance and, given an index, overlap_at_10, as in
        the report. :func:`bootstrap_interval` and :func:`paired_test` take such columns.
    """
    device, training = next(model.parameters()).device, model.training

    @torch.no_grad()
    def encode(view, title) -> np.ndarray:
        batches = tqdm(images.split(batch_size), title, leave=False, disable=None)
        return np.concatenate([model(view(x.to(device))).code.float().cpu() for x in batches])

    def search(codes):
        return index.search(codes, K, radius=None).ids

    tables, upright, upright_ids = [], {}, {}
    model.eval()
    try:
        for angle in angles:
            # A rotated disc is compared with the upright disc, a rotated square with the square.
            square = angle % 90 == 0
            if square not in upright:
                upright[square] = encode(lambda x, s=square: x if s else rotate(x, 0), "upright")
            codes = encode(lambda x, a=angle: rotate_view(x, a), f"rotated by {angle}")
            columns = {
                "angle": angle,
                "image": np.arange(len(images)),
                "flipped_bits": ((codes > 0.5) != (upright[square] > 0.5)).mean(axis=1),
                "code_distance": np.abs(codes - upright[square]).mean(axis=1),
            }
            if index is not None:
                if square not in upright_ids:
                    upright_ids[square] = search(upright[square])
                columns["overlap_at_10"] = overlap(upright_ids[square], search(codes))
            tables.append(pd.DataFrame(columns))
    finally:
        model.train(training)
    return pd.concat(tables, ignore_index=True)


def rotation_report(
    model,
    images: Tensor,
    angles: tuple[float, ...] = (90, 180, 270),
    index=None,
    batch_size: int = 256,
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
    batch_size : int

    Returns
    -------
    DataFrame
        One row for each angle, with the columns

        angle
            In degrees.
        flipped_bits
            Share of bits that change, in [0, 1].
        code_distance
            Mean absolute difference of the soft codes.
        overlap_at_10
            Given an index: share in [0, 1] of the ten nearest images by cosine distance that both
            searches find in the whole database. Within a radius, a query with few images would
            look unstable.
    """
    scores = rotation_scores(model, images, angles, index, batch_size)
    means = scores.drop(columns="image").groupby("angle", sort=False).mean()
    return means.reset_index()
