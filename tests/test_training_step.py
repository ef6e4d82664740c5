"""The loss of one training step, by hand."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import network_input, tiny
from torch import nn

from derm_hash.model import DermHash, HashOutput
from derm_hash.objectives import OBJECTIVES
from derm_hash.training import step_losses

pytestmark = pytest.mark.usefixtures("one_thread")
HASHING = [name for name in OBJECTIVES if name != "classification"]


class Stub(nn.Module):
    """A small network that can be worked out by hand, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        code = torch.sigmoid(x[:, 0, 0, :2])  # two pixels of the upper edge: they turn
        return HashOutput(torch.cat([code, -code[:, :1]], dim=1), code)


def orbit_of(x):
    return [np.ascontiguousarray(np.rot90(x.numpy(), k, axes=(2, 3))) for k in range(4)]


@pytest.mark.parametrize("classify", ["orbit", "upright"])
@pytest.mark.parametrize(
    ("mode", "penalty"),
    [("inverse", "cauchy"), ("released", "l1"), ("none", "l2"), ("none", "gaussian")],
)
def test_the_loss_of_a_step_by_hand(classify, mode, penalty):
    x, y = network_input(5, 4), torch.tensor([0, 0, 0, 1, 2])
    changes = {"class_weights": mode, "invariance": penalty, "invariance_weight": 0.7}
    config = tiny(classify=classify, gamma=0.3, **changes)
    weights = {
        "inverse": torch.tensor([5 / 9, 5 / 3, 5 / 3]),
        "released": torch.tensor([3 / 5, 1 / 5, 1 / 5]),
        "none": torch.ones(3),
    }[mode]
    # Only the released weights come from the batch; the others are given.
    given = {"inverse": weights, "released": None, "none": None}[mode]
    outputs = [Stub()(torch.from_numpy(turned)) for turned in orbit_of(x)]
    seen = outputs if classify == "orbit" else outputs[:1]
    nll = torch.cat([-F.log_softmax(out.logits, 1)[range(5), y] for out in seen])
    share = weights[y].repeat(len(seen))
    cross_entropy = (share * nll).sum() / share.sum()
    codes = torch.stack([out.code for out in outputs])
    d = (codes - codes.mean(0)).abs() / 0.3
    bump = 1 - torch.exp(-(d**2) / 2)
    rho = {"cauchy": torch.log(1 + d), "l1": d, "l2": d**2 / 2, "gaussian": bump}[penalty]
    invariance = rho.mean(dim=(1, 2)).sum()
    losses = step_losses(Stub(), x, y, config, given)
    torch.testing.assert_close(losses["cross_entropy"], cross_entropy)
    torch.testing.assert_close(losses["invariance"], invariance)
    torch.testing.assert_close(losses["loss"], cross_entropy + 0.7 * invariance)


@pytest.mark.parametrize(
    ("rise", "progress", "share"),
    [(0.5, 0, 0), (0.5, 0.125, 0.25), (0.5, 0.5, 1), (0.5, 0.9, 1), (1, 0.3, 0.3), (0, 0, 1)],
)
def test_the_weight_of_the_invariance_rises(rise, progress, share):
    x, y = network_input(3, 4), torch.tensor([0, 1, 2])
    config = tiny(invariance_rise=rise, invariance_weight=0.8)
    losses = step_losses(Stub(), x, y, config, share_done=progress)
    assert losses["invariance"] > 0.1
    expected = losses["cross_entropy"] + share * 0.8 * losses["invariance"]
    torch.testing.assert_close(losses["loss"], expected)


@pytest.mark.parametrize(
    ("changes", "copies"),
    [
        ({}, 4),
        ({"classify": "upright"}, 4),
        ({"invariance": None}, 4),
        ({"invariance": None, "classify": "upright"}, 1),
        ({"orbit": 2}, 2),
    ],
)
def test_the_whole_orbit_goes_through_in_one_pass(changes, copies):
    seen = []
    stub = Stub()
    stub.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    config = tiny(**changes)
    losses = step_losses(stub, torch.zeros(3, 3, 4, 4), torch.tensor([0, 1, 2]), config)
    assert stub.calls == 1
    assert seen == [3 * copies]
    assert config.copies == copies
    assert ("invariance" in losses) == (config.invariance is not None)


@pytest.mark.parametrize("classify", ["orbit", "upright"])
@pytest.mark.parametrize("name", HASHING)
def test_an_objective_reaches_the_loss_beside_the_classifier_and_the_invariance(name, classify):
    x, y, weights = network_input(5, 4), torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1.0, 2, 3])
    config = tiny(objective=name, classify=classify)
    outputs = [Stub()(torch.from_numpy(turned)) for turned in orbit_of(x)]
    seen = outputs if classify == "orbit" else outputs[:1]
    codes, logits = torch.cat([out.code for out in seen]), torch.cat([out.logits for out in seen])
    expected = OBJECTIVES[name](codes, logits, y.repeat(len(seen)), weights)
    losses = step_losses(Stub(), x, y, config, weights)
    assert list(losses) == ["cross_entropy", "loss", "hashing", "invariance"]
    torch.testing.assert_close(losses["hashing"], expected)
    factor = 2 if name == "supcon" else 1  # the classifier shapes the code as well
    total = factor * losses["cross_entropy"] + losses["hashing"] + 0.5 * losses["invariance"]
    torch.testing.assert_close(losses["loss"], total)


def test_the_classifier_of_a_hashing_objective_reads_the_code_without_shaping_it():
    torch.manual_seed(0)
    model = DermHash("pocket", bits=8, classes=3)
    x, y = network_input(4), torch.tensor([0, 1, 2, 0])
    for shapes in (True, False):
        model.detach_classifier = not shapes
        model.zero_grad()
        step_losses(model, x, y, tiny(objective="csq"))["cross_entropy"].backward()
        assert model.classifier.weight.grad.abs().max() > 0
        assert (model.hash_layer.weight.grad is not None) == shapes


def test_the_penalty_on_drawn_members_pulls_as_the_whole_orbit_does_on_average(data):
    torch.manual_seed(0)
    model = DermHash("pocket", 8, 3, None).eval()
    x, y = data.batch(range(6))
    settings = {"attention": None, "invariance": "l2", "classify": "orbit"}
    whole = step_losses(model, x, y, tiny(**settings))["invariance"]
    drawn = [
        step_losses(model, x, y, tiny(**settings, orbit_sample=2), members=torch.tensor(pair))
        for pair in itertools.combinations(range(4), 2)
    ]
    mean = torch.stack([losses["invariance"] for losses in drawn]).mean()
    assert mean.item() == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "disc"),
    [
        ({}, False),
        ({"orbit": 8}, True),
        ({"orbit": 3, "classify": "upright"}, True),
        ({"orbit": 2}, False),
        ({"orbit": 8, "invariance": None, "classify": "upright"}, False),  # no orbit is made
        ({"disc": True}, True),
    ],
)
def test_a_model_sees_the_disc_where_its_orbit_did(changes, disc):
    assert tiny(**changes).sees_disc == disc
