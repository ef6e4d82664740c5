"""Does a heatmap point at the lesion? Scores of a heatmap against a mask.

A mask is bool, or has the numbers 0 and 1, or 0 and 255, as image files have them. An empty
heatmap, all zero, points nowhere: its scores are 0. Report the number of such maps beside a mean.
All scores raise `InputError` if the shapes differ, the heatmap has NaN or infinite values (or, for
:func:`mask_energy`, negative ones), or the mask has other values.
"""

import numpy as np

from derm_hash.errors import InputError


def mask_energy(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Share in [0, 1] of a heatmap (H, W) >= 0 that lies on the lesion, a mask (H, W).

    ``sum_{p in mask} heat_p / sum_p heat_p``, the energy-based pointing game of Wang et al.
    ("Score-CAM", CVPR workshops 2020), with a mask instead of a box. Compare it with
    ``mask.mean()``, the score of a flat heatmap.
    """
    heatmap, mask = _checked(heatmap, mask)
    if heatmap.size and heatmap.min() < 0:
        raise InputError(
            f"A heatmap with negative values, such as {heatmap.min():g}, has no shares of heat: "
            "clip it at 0"
        )
    total = float(heatmap.sum())
    return float(heatmap[mask].sum()) / total if total > 0 else 0.0


def pointing_game(heatmap: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the hottest pixel of a heatmap (H, W) lies on the lesion, a mask (H, W).

    Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016. If pixels tie, the
    upper left one counts; an empty heatmap does not point at the lesion.
    """
    heatmap, mask = _checked(heatmap, mask)
    return bool(heatmap.any() and mask.ravel()[heatmap.argmax()])


def iou_at_mask_area(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union in [0, 1] of a lesion (H, W) and equally many of the hottest pixels.

    ``|T & M| / |T | M|`` (Jaccard, 1901), where T are the |M| hottest pixels; if pixels tie, the
    upper left ones count. So there is no threshold to choose.
    """
    heatmap, mask = _checked(heatmap, mask)
    if not heatmap.any():
        return 0.0
    hottest = np.zeros(mask.size, dtype=bool)
    hottest[np.argsort(-heatmap.ravel(), kind="stable")[: int(mask.sum())]] = True
    inside = mask.ravel()
    return float((hottest & inside).sum() / max((hottest | inside).sum(), 1))


def _checked(heatmap: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check a heatmap and its mask, and make the mask bool."""
    heatmap, mask = np.asarray(heatmap), np.asarray(mask)
    if heatmap.shape != mask.shape:
        raise InputError(
            f"A heatmap {heatmap.shape} and a mask {mask.shape} of different shape cannot be "
            "compared: resize the heatmap to the mask first"
        )
    if not np.isfinite(heatmap).all():
        raise InputError("A heatmap with NaN or infinite values has no hottest pixel: leave it out")
    if mask.dtype != bool and not any(np.isin(mask, [0, high]).all() for high in (1, 255)):
        raise InputError(
            f"A mask has only 0 and 1, or only 0 and 255, not {mask.dtype} from {mask.min():g} to "
            f"{mask.max():g}: choose a threshold, such as mask > 127"
        )
    return heatmap, mask != 0
