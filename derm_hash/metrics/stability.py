"""Does the code hold still when the image is turned?"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from derm_hash.errors import InputError
from derm_hash.rotations import rotate, turn


def flipped_bits(codes: np.ndarray | Tensor) -> float:
    """Share of bits that change when the image is turned.

    Parameters
    ----------
    codes : (n, N, bits) soft codes of the orbits of N images; member 0 is unturned

    Returns
    -------
    float in [0, 1]: mean over members 1.., images and bits of [bit differs from member 0].
    """
    hard = np.asarray(codes) > 0.5
    if hard.ndim != 3 or len(hard) < 2:
        raise InputError(f"Flipped bits need codes (n >= 2, N, bits), not {hard.shape}.")
    return float((hard[1:] != hard[0]).mean())


def topk_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean share of hits that two searches have in common: ids (Q, k) x (Q, k) -> [0, 1].

    ``|A & B| / k``. Missing hits (-1) never count as common; the share is of the k wanted.
    """
    return float(_common(a, b).mean())


def _common(a, b):
    """The same for each query; the hits of one search all differ."""
    both = np.sort(np.concatenate([a, b], axis=1), axis=1)
    return ((both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)).sum(axis=1) / a.shape[1]


def rotation_scores(
    model,
    images: Tensor,
    angles: tuple[float, ...] = (90, 180, 270),
    index=None,
    k: int = 10,
    batch_size: int = 256,
) -> pd.DataFrame:
    """How far the code of every single image moves when it is turned.

    The parameters are those of :func:`rotation_report`.

    Returns
    -------
    DataFrame with a row for each angle and image: angle, image (its place in ``images``),
    flipped_bits, code_distance and, given an index, topk_overlap, as in the report. Its
    columns are what :func:`derm_hash.uncertainty.bootstrap_interval` and ``paired_test``
    take.
    """
    device, training = next(model.parameters()).device, model.training

    @torch.no_grad()
    def encode(move, title) -> np.ndarray:
        batches = tqdm(images.split(batch_size), title, leave=False, disable=None)
        return np.concatenate([model(move(x.to(device))).code.float().cpu() for x in batches])

    def search(codes):
        return index.search(codes, k, radius=None).ids

    tables, upright, upright_ids = [], {}, {}
    model.eval()
    try:
        for angle in angles:
            # Where corners are cut, compare discs; either kind of upright image once.
            square = angle % 90 == 0
            if square not in upright:
                upright[square] = encode(lambda x, s=square: x if s else rotate(x, 0), "upright")
            turned = encode(lambda x, a=angle: turn(x, a), f"turned by {angle}")
            moved = np.abs(turned - upright[square]).mean(axis=1)
            flips = ((turned > 0.5) != (upright[square] > 0.5)).mean(axis=1)
            columns = {"angle": angle, "image": np.arange(len(images))}
            columns |= {"flipped_bits": flips, "code_distance": moved}
            if index is not None:
                if square not in upright_ids:
                    upright_ids[square] = search(upright[square])
                columns["topk_overlap"] = _common(upright_ids[square], search(turned))
            tables.append(pd.DataFrame(columns))
    finally:
        model.train(training)
    return pd.concat(tables, ignore_index=True)


def rotation_report(
    model,
    images: Tensor,
    angles: tuple[float, ...] = (90, 180, 270),
    index=None,
    k: int = 10,
    batch_size: int = 256,
) -> pd.DataFrame:
    """How far the code moves when images are turned, mean over the images.

    Parameters
    ----------
    model : DermHash
    images : (N, 3, S, S) float tensor in [-1, 1]
    angles : tuple of float
        In degrees, counter-clockwise. Multiples of 90 turn the whole square without
        resampling; other angles compare the inscribed discs, at 0 degrees too.
    index : HashIndex, optional
        A database to search with the upright and with the turned image.
    k : int
        Hits wanted, from the whole database by cosine distance: a query with little
        within a radius would otherwise look unstable.

    Returns
    -------
    DataFrame with a row for each angle: angle, flipped_bits (share of bits in [0, 1]),
    code_distance (mean absolute difference of soft codes) and, given an index,
    topk_overlap (share of the k hits that both searches find, in [0, 1]).
    """
    scores = rotation_scores(model, images, angles, index, k, batch_size)
    means = scores.drop(columns="image").groupby("angle", sort=False).mean()
    return means.reset_index()
