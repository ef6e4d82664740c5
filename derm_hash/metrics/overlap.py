"""Does a heatmap look at the lesion? Scores of a map against a mask."""

import numpy as np

from derm_hash.errors import InputError


def mask_energy(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Share of a heatmap's sum that falls on the lesion: (H, W) >= 0 x (H, W) bool -> [0, 1].

    ``sum_{p in mask} heat_p / sum_p heat_p`` (the energy-based pointing game of Wang et al.,
    "Score-CAM", CVPR workshops 2020, with a mask for the box). Compare it with
    ``mask.mean()``, which a flat heatmap gets. 0 for an empty heatmap.
    """
    _check_heatmap(heatmap, mask)
    total = float(heatmap.sum())
    return float(heatmap[mask].sum()) / total if total > 0 else 0.0


def pointing_game(heatmap: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the highest point lies on the lesion (Zhang et al., "Top-down neural attention
    by excitation backprop", ECCV 2016)."""
    _check_heatmap(heatmap, mask)
    return bool(mask.ravel()[heatmap.argmax()])


def iou_at_mask_area(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of the lesion and as many of the hottest pixels: -> [0, 1].

    ``|T & M| / |T | M|`` (Jaccard, 1901), T being the |M| hottest pixels; pixels that tie are
    taken from the top left. The threshold needs no tuning, and a larger map wins nothing.
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
            "compared: resize the heatmap to the mask first."
        )
