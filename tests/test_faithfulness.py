"""ROAD on models whose evidence is known, and against grad-cam's own classes."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import ROADLeastRelevantFirst, ROADMostRelevantFirst
from torch import nn

from derm_hash.errors import InputError
from derm_hash.faithfulness import road_curve
from derm_hash.heatmaps import BitTarget, ClassTarget, MatchTarget, OneTensor, grad_cam
from derm_hash.model import DermHash

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 16
LESION = np.zeros((SIZE, SIZE), np.float32)
LESION[5:11, 5:11] = 1  # 36 of 256 pixels, 14 %


class Brightness(nn.Module):
    """One class and two bits: how bright the middle is, and how dark."""

    bits = 2

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def features(self, x):
        return x[:, :, 5:11, 5:11].mean(dim=(1, 2, 3))[:, None]

    def hash_layer(self, mean):
        return 3 * torch.cat([mean, -mean], dim=1)

    def classifier(self, code):
        return torch.logit(code[:, :1]) / 3


@pytest.fixture
def lesions():
    """Bright lesions on dark skin, (2, 3, 16, 16)."""
    return (torch.from_numpy(LESION) * 2 - 1).expand(2, 3, SIZE, SIZE).clone() * 0.8


def test_the_lesion_matters_and_the_skin_does_not(lesions):
    maps = np.stack([LESION, 1 - LESION])  # a faithful map, and its opposite
    curve = road_curve(Brightness(), lesions, maps, ClassTarget(0), removed=(0.2, 0.8))
    faithful, opposite = (curve[curve["image"] == i].set_index("removed") for i in (0, 1))
    # A fifth of the pixels holds all of the lesion: filled with skin, 0.8 becomes -0.8.
    assert faithful["most_relevant_first"][0.2] == pytest.approx(-1.6, abs=0.02)
    assert faithful["least_relevant_first"].to_numpy() == pytest.approx(0, abs=0.02)
    assert opposite["least_relevant_first"][0.2] == pytest.approx(-1.6, abs=0.02)
    assert opposite["most_relevant_first"].to_numpy() == pytest.approx(0, abs=0.02)
    assert faithful["road"].mean() == pytest.approx(-opposite["road"].mean(), abs=0.02)
    assert curve["removed"].tolist() == [0.2, 0.2, 0.8, 0.8]


def test_a_map_full_of_equal_pixels_loses_the_share_that_is_asked(lesions):
    """Grad-CAM's maps are zero in most places; a threshold there would remove everything."""
    curve = road_curve(Brightness(), lesions, np.zeros((2, SIZE, SIZE)), ClassTarget(0), (0.5,))
    assert np.isfinite(curve.drop(columns=["removed", "image"]).to_numpy()).all()
    # Half of the pixels, anywhere: the neighbours that stay tell most of the lesion.
    assert -0.6 < curve["most_relevant_first"].mean() < 0


def test_the_curve_of_a_bit_is_that_of_its_log_odds(lesions):
    maps = np.stack([LESION, LESION])
    bit = road_curve(Brightness(), lesions, maps, BitTarget(0), removed=(0.2,))
    # Log-odds fall from 3 * 0.8 to -3 * 0.8 as the bit flips, and those of the dark bit too.
    assert bit["most_relevant_first"].to_numpy() == pytest.approx(-4.8, abs=0.06)
    dark = road_curve(Brightness(), lesions, maps, BitTarget(1), removed=(0.2,))
    assert dark["most_relevant_first"].to_numpy() == pytest.approx(-4.8, abs=0.06)


def test_the_curve_is_that_of_grad_cam_where_pixels_differ():
    torch.manual_seed(0)
    model = DermHash("resnet10", bits=8, classes=3, attention=None).eval()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    maps = np.random.default_rng(0).permuted(np.arange(2 * 1024).reshape(2, -1) % 1024, axis=1)
    maps = (maps.reshape(2, 32, 32) / 1023).astype(np.float32)
    ours = road_curve(model, x, maps, ClassTarget(1), removed=(0.3, 0.6), seed=4)
    targets, network = [lambda row: row[1]] * 2, OneTensor(model)
    with torch.random.fork_rng():
        torch.manual_seed(4)  # of the noise
        for share in (0.3, 0.6):
            here = ours[ours["removed"] == share]
            most = ROADMostRelevantFirst(100 * (1 - share))(x, maps, targets, network)
            least = ROADLeastRelevantFirst(100 * (1 - share))(x, maps, targets, network)
            np.testing.assert_allclose(here["most_relevant_first"], most, atol=1e-6)
            np.testing.assert_allclose(here["least_relevant_first"], least, atol=1e-6)
            np.testing.assert_allclose(here["road"], (least - most) / 2, atol=1e-6)


def test_the_curve_takes_all_targets_of_the_kit_and_leaves_the_model_alone():
    torch.manual_seed(1)
    model = DermHash("resnet10", bits=8, classes=3, attention=None).train()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    for target in (ClassTarget(0), BitTarget(3), MatchTarget(np.linspace(0.1, 0.9, 8))):
        maps = grad_cam(model, x, target)
        curves = [road_curve(model, x, maps, target, removed=(0.5,)) for _ in range(2)]
        assert curves[0].equals(curves[1])  # from a seed
    assert model.training
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("shape", "removed", "message"),
    [((2, 4, 4), (0.5,), "do not fit"), ((2, SIZE, SIZE), (0.5, 1.0), "between 0 and 1")],
)
def test_maps_have_the_size_of_the_images_and_shares_are_shares(lesions, shape, removed, message):
    with pytest.raises(InputError, match=message):
        road_curve(Brightness(), lesions, np.zeros(shape), ClassTarget(0), removed)
