"""Does a heatmap point at the lesion? Scores of a heatmap against a mask."""

import numpy as np

from derm_hash.errors import InputError


def mask_energy(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Share of a heatmap's sum that lies on the lesion.

    ``sum_{p in mask} heat_p / sum_p heat_p`` (the energy-based pointing game of Wang et al.,
    "Score-CAM", CVPR workshops 2020, with a mask instead of a box). Compare it with
    ``mask.mean()``, the score of a flat heatmap.

    Parameters
    ----------
    heatmap : (H, W) array >= 0
    mask : (H, W) bool array

    Returns
    -------
    float in [0, 1]
        0 for an empty heatmap.
    """
    _check_heatmap(heatmap, mask)
    total = float(heatmap.sum())
    return float(heatmap[mask].sum()) / total if total > 0 else 0.0


def pointing_game(heatmap: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the hottest pixel of a heatmap (H, W) lies on the lesion, a mask (H, W).

    Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016.
    """
    _check_heatmap(heatmap, mask)
    return bool(mask.ravel()[heatmap.argmax()])


def iou_at_mask_area(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of the lesion and equally many of the hottest pixels.

    ``|T & M| / |T | M|`` (Jaccard, 1901), where T are the |M| hottest pixels; of pixels that
    tie, the upper left ones are taken. So there is no threshold to choose.

    Parameters
    ----------
    heatmap : (H, W) array
    mask : (H, W) bool array

    Returns
    -------
    float in [0, 1]
    """
    _check_heatmap(heatmap, mask)
    hottest = np.zeros(mask.size, dtype=bool)
    hottest[np.argsort(-heatmap.ravel(), kind="stable")[: int(mask.sum())]] = True
    inside = mask.ravel()
    return float((hottest & inside).sum() / max((hottest | inside).sum(), 1))


def _check_heatmap(heatmap: np.ndarray, mask: np.ndarray) -> None:
    if heatmap.shape != mask.shape:
        raise InputError(
            f"A heatmap {heatmap.shape} and a mask {mask.shape} of different shape cannot be "
            "compared: resize the heatmap to the mask first"
        )
