"""Does a heatmap point at what the network used? Take the pixels away and see.

A map may lie on the lesion and still not be the reason for the code. ROAD ("remove and
debias": Rong et al., "A consistent and efficient evaluation strategy for attribution
methods", ICML 2022) replaces the hottest pixels by a blur of their neighbours, which
gives away neither them nor where they were, and watches the evidence fall; replacing the
coldest pixels first should leave it. The imputation is the grad-cam package's.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from pytorch_grad_cam.metrics.road import ROADMostRelevantFirst
from torch import Tensor
from tqdm.auto import tqdm

from derm_hash.errors import InputError
from derm_hash.heatmaps import BitTarget, OneTensor
from derm_hash.model import DermHash, HashOutput


def road_curve(
    model: DermHash,
    x: Tensor,
    heatmaps: np.ndarray,
    target: Callable[[HashOutput], Tensor],
    removed: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Change of the evidence when the hottest, or the coldest, pixels are removed.

    Parameters
    ----------
    model : DermHash
    x : (B, 3, H, W) tensor in [-1, 1]
    heatmaps : (B, H, W) array, hot where the map says that the evidence is
    target : callable
        HashOutput of one image -> scalar: what the maps explain. A ``BitTarget`` speaks for
        the bit as it is in the whole image.
    removed : sequence of float in (0, 1)
        Shares of the pixels to take away. Pixels of equal heat, such as the zeros of
        Grad-CAM, are taken in random order.
    seed : int
        Of that order and of the imputation's noise.

    Returns
    -------
    DataFrame with a row for each share and image: removed, image, most_relevant_first and
    least_relevant_first (change of the target's value, usually negative), and road, half of
    least minus most: above 0 where the hot pixels matter more. Its mean over the shares is
    grad-cam's ``ROADCombined``; a random map has 0 on average.

    Raises
    ------
    InputError
        If the heatmaps have not the size of the images, or a share is not in (0, 1).
    """
    heatmaps = np.asarray(heatmaps)
    if heatmaps.shape != (len(x), *x.shape[2:]):
        raise InputError(
            f"Heatmaps {heatmaps.shape} do not fit images {tuple(x.shape)}: pass one map of the "
            "images' height and width for each."
        )
    if not all(0 < share < 1 for share in removed):
        raise InputError(f"The share of removed pixels lies between 0 and 1, not {removed}.")
    heat, x = _distinct(heatmaps, seed), x.to(next(model.parameters()).device)
    training, network = model.training, OneTensor(model)
    rows = []
    model.eval()
    try:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            targets = [_row_target(target, row, network) for row in network(x)]
            for share in tqdm(removed, "ROAD", leave=False, disable=not progress):
                road = ROADMostRelevantFirst(100 * (1 - share))
                most = road(x, heat, targets, network)
                least = road(x, 1 - heat, targets, network)
                rows.append(
                    {
                        "removed": share,
                        "image": np.arange(len(x)),
                        "most_relevant_first": most,
                        "least_relevant_first": least,
                        "road": (least - most) / 2,
                    }
                )
    finally:
        model.train(training)
    return pd.concat(map(pd.DataFrame, rows), ignore_index=True)


def _distinct(heatmaps: np.ndarray, seed: int) -> np.ndarray:
    """Heat by rank, all different, evenly spaced in [0, 1], so that a share is a share.

    A threshold among equal pixels would remove all of them, or none.
    """
    flat = heatmaps.reshape(len(heatmaps), -1)
    luck = np.random.default_rng(seed).random(flat.shape)
    order = np.lexsort((luck, flat), axis=1)
    ranks = np.empty(flat.shape, dtype=np.float32)
    np.put_along_axis(ranks, order, np.linspace(0, 1, flat.shape[1], dtype=np.float32)[None], 1)
    return ranks.reshape(heatmaps.shape)


def _row_target(target, row: Tensor, network: OneTensor):
    """The target as grad-cam wants it: of one row of the network's single output."""
    if isinstance(target, BitTarget) and target.on is None:
        on = bool(network.output(row).code[target.index] > 0.5)
        target = BitTarget(target.index, on)
    return lambda row: target(network.output(row))
