"""Is a heatmap faithful? Remove the pixels that it calls important: the evidence should fall."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from derm_hash.errors import InputError
from derm_hash.heatmaps import BitTarget, OneTensor
from derm_hash.model import DermHash, HashOutput, evaluating


def road_curve(
    model: DermHash,
    x: Tensor,
    heatmaps: np.ndarray,
    target: Callable[[HashOutput], Tensor],
    removed: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how the evidence changes when the most, or the least, relevant pixels are removed.

    ROAD, "remove and debias" (Rong et al., ICML 2022): removed pixels are replaced by values
    interpolated from their neighbours. Positive scores mean that the relevant pixels matter more.

    Parameters
    ----------
    model : DermHash
    x : (B, 3, H, W) tensor in [-1, 1]
    heatmaps : (B, H, W) array, large where the evidence is
    target : callable; see :mod:`derm_hash.heatmaps`
        A ``BitTarget`` without ``on`` takes the value that the bit has before pixels are removed.
    removed : sequence of float in (0, 1)
        Shares of the pixels to remove. Tied pixels, such as Grad-CAM's zeros, are in random order.
    seed : int
        Seed of that order and of the noise that ROAD adds.

    Returns
    -------
    DataFrame
        One row for each share and image, with the columns removed, image,
        most_relevant_first and least_relevant_first (change of the target's value, usually
        negative), and road, half of least minus most. The mean of road over the shares is
        grad-cam's ``ROADCombined``; a random map has 0 on average. InputError if the heatmaps do
        not have the images' size, or a share is not in (0, 1).
    """
    from pytorch_grad_cam.metrics.road import ROADMostRelevantFirst

    heatmaps = np.asarray(heatmaps)
    if heatmaps.shape != (len(x), *x.shape[2:]):
        text = f"Heatmaps {heatmaps.shape} do not fit images {tuple(x.shape)}"
        raise InputError(f"{text}: pass one map of the images' height and width for each")
    if not all(0 < share < 1 for share in removed):
        raise InputError(f"The share of removed pixels lies between 0 and 1, not {removed}")
    heat, x = _ranks(heatmaps, seed), x.to(next(model.parameters()).device)
    network, rows = OneTensor(model), []
    with evaluating(model), torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        targets = [_row_target(target, row, network) for row in network(x)]
        for share in removed:
            road = ROADMostRelevantFirst(100 * (1 - share))
            most, least = (road(x, each, targets, network) for each in (heat, 1 - heat))
            row = {"removed": share, "image": np.arange(len(x)), "most_relevant_first": most}
            row |= {"least_relevant_first": least, "road": (least - most) / 2}
            rows.append(pd.DataFrame(row))
    return pd.concat(rows, ignore_index=True)


def _ranks(heatmaps: np.ndarray, seed: int) -> np.ndarray:
    """Replace heat by its rank, evenly spaced in [0, 1]; ties are broken at random.

    Otherwise a threshold among equal pixels would remove all of them, or none.
    """
    flat = heatmaps.reshape(len(heatmaps), -1)
    tie_breaker = np.random.default_rng(seed).random(flat.shape)
    order = np.lexsort((tie_breaker, flat), axis=1)
    ranks = np.empty(flat.shape, dtype=np.float32)
    np.put_along_axis(ranks, order, np.linspace(0, 1, flat.shape[1], dtype=np.float32)[None], 1)
    return ranks.reshape(heatmaps.shape)


def _row_target(target, row: Tensor, network: OneTensor):
    """Make the target that grad-cam calls with one row of the network's single output."""
    if isinstance(target, BitTarget) and target.on is None:
        on = bool(network.output(row).code[target.index] > 0.5)
        target = BitTarget(target.index, on)
    return lambda row: target(network.output(row))
