"""The rotation-invariance losses and the class weights, against pencil and paper."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from derm_hash.errors import InputError
from derm_hash.losses import (
    PENALTIES,
    CauchyRotationLoss,
    OrbitPenalty,
    class_weights,
    cross_entropy,
    penalty_curve,
)

GAMMAS = (0.1, 0.5, 2.0)


def orbit(n=4, batch=3, bits=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, batch, bits, dtype=torch.float64, generator=generator)


# --- values worked out by hand ------------------------------------------------------


def test_the_penalties_of_one_copy_that_disagrees_are_worked_by_hand():
    # u = 1, 0, 0, 0; mean 1/4; distances 3/4, 1/4, 1/4, 1/4; over gamma = 1/2: 3/2, 1/2, 1/2, 1/2.
    codes = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(4, 1, 1)
    by_hand = {
        "cauchy": math.log(2.5) + 3 * math.log(1.5),
        "l1": 1.5 + 3 * 0.5,
        "l2": (2.25 + 3 * 0.25) / 2,
        "gaussian": (1 - math.exp(-1.125)) + 3 * (1 - math.exp(-0.125)),
    }
    for kind, expected in by_hand.items():
        assert OrbitPenalty(kind, 0.5)(codes).item() == pytest.approx(expected, rel=1e-6)
    for default in (OrbitPenalty(), CauchyRotationLoss()):
        assert default(codes).item() == pytest.approx(by_hand["cauchy"], rel=1e-6)


@pytest.mark.parametrize("kind", PENALTIES)
def test_the_loss_is_the_double_loop(kind):
    rho = {
        "cauchy": lambda d: -math.log(0.3 / (0.3 + d)),
        "l1": lambda d: d / 0.3,
        "l2": lambda d: d * d / (2 * 0.3 * 0.3),
        "gaussian": lambda d: 1 - math.exp(-d * d / (2 * 0.3 * 0.3)),
    }[kind]
    codes = orbit(n=3)
    n, batch, bits = codes.shape
    expected = 0.0
    for i, j in itertools.product(range(batch), range(bits)):
        values = [codes[k, i, j].item() for k in range(n)]
        expected += sum(rho(abs(v - sum(values) / n)) for v in values) / (batch * bits)
    assert OrbitPenalty(kind, 0.3)(codes).item() == pytest.approx(expected, rel=1e-12)


# --- properties -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", PENALTIES)
def test_a_constant_orbit_costs_nothing(kind):
    # Binary fractions: their mean is exact.
    code = torch.randint(0, 257, (1, 6, 16), generator=torch.Generator().manual_seed(0)) / 256
    assert OrbitPenalty(kind)(code.expand(4, -1, -1)).item() == 0
    assert OrbitPenalty(kind)(code).item() == 0  # an orbit of one


@pytest.mark.parametrize("kind", PENALTIES)
def test_the_order_of_the_orbit_does_not_matter(kind):
    codes, loss = orbit(), OrbitPenalty(kind)
    for order in itertools.permutations(range(4)):
        torch.testing.assert_close(loss(codes[list(order)]), loss(codes), rtol=1e-14, atol=0)


@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_gradient_is_right_away_from_the_kinks(kind, gamma):
    codes = orbit(n=4, batch=2, bits=3).requires_grad_()
    assert (codes - codes.mean(0)).abs().min() > 1e-3
    assert torch.autograd.gradcheck(OrbitPenalty(kind, gamma), codes)


@pytest.mark.parametrize("kind", PENALTIES)
def test_the_gradient_is_finite_on_the_kink(kind):
    codes = torch.full((4, 2, 3), 0.5, requires_grad=True)
    OrbitPenalty(kind)(codes).backward()
    assert torch.isfinite(codes.grad).all()


def test_descending_the_loss_makes_the_copies_agree():
    codes = orbit().requires_grad_()
    before = (codes.detach() - codes.detach().mean(0)).abs().mean()
    optimizer = torch.optim.SGD([codes], 0.05)
    for _ in range(50):
        optimizer.zero_grad()
        CauchyRotationLoss()(codes).backward()
        optimizer.step()
    assert (codes.detach() - codes.detach().mean(0)).abs().mean() < before / 5
    torch.testing.assert_close(codes.detach().mean(0), orbit().mean(0))  # it pulls to the mean


# --- bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: OrbitPenalty("huber"), "'huber': choose one of cauchy, l1, l2, gaussian"),
        (lambda: CauchyRotationLoss(0), "greater than 0"),
        (lambda: CauchyRotationLoss(-0.5), "greater than 0"),
        (lambda: CauchyRotationLoss(math.nan), "greater than 0"),
        (lambda: CauchyRotationLoss()(torch.zeros(4, 16)), r"\(n, B, bits\)"),
        (lambda: CauchyRotationLoss()(torch.zeros(1, 4, 2, 16)), r"\(n, B, bits\)"),
        (
            lambda: class_weights(torch.tensor([0]), 1, "balanced"),
            "'balanced': use one of inverse, rel",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()


# --- class weights ------------------------------------------------------------------------


def test_class_weights_by_hand():
    labels = torch.tensor([0, 0, 0, 1])  # three of class 0, one of class 1, none of class 2
    assert class_weights(labels, 3, "inverse").tolist() == pytest.approx([4 / 9, 4 / 3, 0])
    assert class_weights(labels, 3, "released").tolist() == [0.75, 0.25, 0]
    assert class_weights(labels, 3, "none") is None


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_inverse_weights_make_the_classes_equal(labels):
    labels = torch.tensor(labels)
    present = labels.unique()
    total = class_weights(labels, 5).double()[labels]
    for c in present:
        assert total[labels == c].sum().item() == pytest.approx(len(labels) / 5, rel=1e-5)


# --- balanced cross-entropy ---------------------------------------------------------------


def test_weights_count_in_the_numerator_and_in_the_denominator():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    weights = torch.tensor([0.2, 1.0, 3.0])
    own, p = weights[labels], logits.softmax(1)[range(5), labels]
    expected = -(own * p.log()).sum() / own.sum()
    torch.testing.assert_close(cross_entropy(logits, labels, weights), expected)
    torch.testing.assert_close(cross_entropy(logits, labels), -p.log().mean())


def test_logit_adjustment_adds_the_log_of_the_shares():
    labels, logits = torch.tensor([0, 0, 0, 1, 2, 2]), torch.randn(6, 4)
    weights = class_weights(labels, 4, "logit-adjusted")
    share = torch.tensor([3.0, 1.0, 2.0]) / 6
    expected = F.cross_entropy(logits[:, :3] + share.log(), labels)  # class 3 has no images
    torch.testing.assert_close(cross_entropy(logits, labels, weights, "logit-adjusted"), expected)


def test_the_focal_loss_by_hand():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    p = logits.softmax(1)[range(5), labels]
    expected = (-((1 - p) ** 2) * p.log()).mean()
    torch.testing.assert_close(cross_entropy(logits, labels, None, "focal"), expected)


@pytest.mark.parametrize("gamma", [0.2, 1.0])
def test_penalty_curves_are_the_formulas(gamma):
    d = np.linspace(0, 1, 7)
    bump = np.exp(-((d / gamma) ** 2) / 2)
    expected = {
        "cauchy": (np.log(1 + d / gamma), 1 / (gamma + d)),
        "l1": (d / gamma, np.full(7, 1 / gamma)),
        "l2": ((d / gamma) ** 2 / 2, d / gamma**2),
        "gaussian": (1 - bump, d / gamma**2 * bump),
    }
    assert set(expected) == set(PENALTIES)
    for kind, curves in expected.items():
        np.testing.assert_allclose(penalty_curve(kind, gamma, d), curves, atol=1e-12)
