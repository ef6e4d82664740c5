"""Heatmaps against masks, by hand."""

import numpy as np
import pytest

from derm_hash.errors import InputError
from derm_hash.metrics.overlap import iou_at_mask_area, mask_energy, pointing_game

HEATMAP = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 0.0]])


def test_heatmap_scores_by_hand():
    mask = np.array([[False, True, False], [True, True, False]])
    # On the lesion 1 + 3 + 4 of 10. The highest (4) lies on it. The three hottest are 4, 3, 2:
    # two of them on the lesion, four pixels in the union.
    assert mask_energy(HEATMAP, mask) == pytest.approx(0.8)
    assert pointing_game(HEATMAP, mask) is True
    assert iou_at_mask_area(HEATMAP, mask) == pytest.approx(2 / 4)
    assert mask_energy(HEATMAP, ~mask) == pytest.approx(0.2)
    assert pointing_game(HEATMAP, ~mask) is False
    assert iou_at_mask_area(HEATMAP, ~mask) == pytest.approx(1 / 5)


def test_extreme_heatmaps():
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    assert mask_energy(np.ones((4, 4)), mask) == mask.mean() == 1 / 4
    assert mask_energy(np.zeros((4, 4)), mask) == 0
    perfect = mask.astype(float)
    assert (mask_energy(perfect, mask), iou_at_mask_area(perfect, mask)) == (1, 1)
    assert iou_at_mask_area(1 - perfect, mask) == 0
    nothing = np.zeros((4, 4), bool)
    assert (mask_energy(perfect, nothing), iou_at_mask_area(perfect, nothing)) == (0, 0)


@pytest.mark.parametrize("score", [mask_energy, pointing_game, iou_at_mask_area])
def test_heatmap_and_mask_have_one_shape(score):
    with pytest.raises(InputError, match="resize the heatmap"):
        score(np.ones((4, 4)), np.ones((2, 8), bool))
