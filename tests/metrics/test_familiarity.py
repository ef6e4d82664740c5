"""How familiar a picture is: what is unlike the whole database is found."""

import numpy as np
import pytest
import torch

from derm_hash import LesionDataset, make_atlas
from derm_hash.metrics.familiarity import Familiarity


def odd_pictures(size=32):
    """Stripes, a coin and a face: nothing that a dermatoscope shows."""
    y, x = np.mgrid[:size, :size] / size * 48
    from_middle = np.hypot(x - 24, y - 24)
    stripes = np.repeat((x // 4 % 2 * 255)[..., None], 3, axis=2)
    coin = np.where((from_middle < 18)[..., None], [190, 160, 90], [235, 235, 235])
    face = np.where((from_middle < 20)[..., None], [230, 190, 160], [120, 160, 210])
    for eye in (17, 31):
        face[np.hypot(x - eye, y - 20) < 3] = [40, 30, 30]
    face[(abs(y - 34) < 2) & (abs(x - 24) < 8)] = [170, 60, 60]
    pictures = np.stack([stripes, coin, face]).astype(np.uint8)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [48, 96])
def test_stripes_a_coin_and_a_face_are_unlike_the_atlas(size):
    atlas = LesionDataset.from_atlas(make_atlas(400, size, progress=False))
    found = Familiarity(atlas.split("database"), atlas.split("val"))
    assert (found.distance(odd_pictures(size)) > found.limit).all()
    assert (found.distance(atlas.split("query").images) <= found.limit).mean() > 0.95
