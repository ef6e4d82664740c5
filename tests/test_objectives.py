"""The hashing objectives, against double loops over images and pairs, in plain Python."""

import itertools
import math

import pytest
import torch

from derm_hash.objectives import OBJECTIVES
from derm_hash.rivals import hash_centres

HASHING = [name for name in OBJECTIVES if name != "classification"]


def batch(images=6, bits=4, classes=3, seed=0):
    """Codes, logits and labels of a small batch; every class occurs."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.rand(images, bits, dtype=torch.float64, generator=generator)
    logits = torch.randn(images, classes, dtype=torch.float64, generator=generator)
    return codes, logits, torch.arange(images) % classes


# --- by hand --------------------------------------------------------------------------------


def mean(weighted):
    """Of (value, weight); 0 if nothing counts."""
    weighted = list(weighted)
    total = sum(weight for _, weight in weighted)
    return sum(value * weight for value, weight in weighted) / total if total else 0.0


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def dpsh(u, similar, bits):
    def pair(a, b, s):
        theta = dot(a, b) / 2
        return -(s * theta - math.log(1 + math.exp(theta)))

    def image(a):
        return 0.1 * sum(((1 if x > 0 else -1) - x) ** 2 for x in a) / bits

    return pair, image, False


def dsh(u, similar, bits):
    def pair(a, b, s):
        distance = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        return (distance if s else max(2 * bits - distance, 0)) / 2 / bits

    def image(a):
        return 2 * 0.01 * sum(abs(abs(x) - 1) for x in a) / bits

    return pair, image, False


def hashnet(u, similar, bits):
    def pair(a, b, s):
        product = 10 / bits * dot(a, b)
        return math.log(1 + math.exp(product)) - s * product

    return pair, lambda a: 0.0, True


def dch(u, similar, bits):
    gamma = bits / 2

    def d(a, b):
        return bits / 2 * (1 - dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)))

    def pair(a, b, s):
        probability = gamma / (gamma + d(a, b))
        return -math.log(probability if s else 1 - probability)

    def image(a):
        return 0.1 * math.log(1 + d([abs(x) for x in a], [1.0] * bits) / gamma)

    return pair, image, True


PAIRWISE = {"dpsh": dpsh, "dsh": dsh, "hashnet": hashnet, "dch": dch}


def by_hand(name, codes, labels, weights=None):
    u, y = (2 * codes - 1).tolist(), labels.tolist()
    w = [1.0] * len(y) if weights is None else weights[labels].tolist()
    pair, image, balanced = PAIRWISE[name](u, y, codes.shape[1])
    both = [[], []]
    for i, j in itertools.combinations(range(len(y)), 2):
        s = y[i] == y[j]
        both[s].append((pair(u[i], u[j], s), w[i] * w[j]))
    pairs = mean(both[0]) + mean(both[1]) if balanced else mean(both[0] + both[1])
    return pairs + mean((image(a), weight) for a, weight in zip(u, w, strict=True))


WEIGHTS = [None, torch.tensor([0.5, 1.0, 3.0])]


@pytest.mark.parametrize("weights", WEIGHTS, ids=["plain", "weighted"])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", PAIRWISE)
def test_a_pairwise_objective_is_its_double_loop(name, seed, weights):
    codes, logits, labels = batch(images=7, bits=5, seed=seed)
    expected = by_hand(name, codes, labels, weights)
    value = OBJECTIVES[name](codes, logits, labels, weights)
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_two_images_with_pencil_and_paper():
    # u = (1, 1) and (1, -1): product 0, squared distance 4, cosine 0, so 1 of 2 bits apart.
    codes, logits = torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.zeros(2, 2)
    same, other = torch.tensor([1, 1]), torch.tensor([0, 1])
    expected = {
        "dpsh": (math.log(2), math.log(2)),  # codes are binary: no quantisation
        "dsh": (1.0, 0.0),  # 4 / 2 / 2, and max(2 * 2 - 4, 0) / 2 / 2
        "hashnet": (math.log(2), math.log(2)),
        "dch": (math.log(2), math.log(2)),  # log(1 + 1/1), as gamma = 1
    }
    for name, values in expected.items():
        for labels, value in zip((same, other), values, strict=True):
            got = OBJECTIVES[name](codes, logits, labels, None).item()
            assert got == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("weights", WEIGHTS, ids=["plain", "weighted"])
def test_csq_is_its_double_loop(weights):
    codes, logits, labels = batch()
    centres = hash_centres(4, 3)
    costs = []
    for h, y in zip(codes.tolist(), labels.tolist(), strict=True):
        bits = [
            -(c * math.log(x) + (1 - c) * math.log(1 - x))
            for x, c in zip(h, centres[y].tolist(), strict=True)
        ]
        binary = sum(math.log(math.cosh(abs(2 * x - 1) - 1)) for x in h)
        weight = 1.0 if weights is None else weights[y].item()
        costs.append((sum(bits) / 4 + 1e-4 * binary, weight))
    value = OBJECTIVES["csq"](codes, logits, labels, weights)
    assert value.item() == pytest.approx(mean(costs), rel=1e-9)


@pytest.mark.parametrize("weights", WEIGHTS, ids=["plain", "weighted"])
def test_classification_is_the_weighted_log_likelihood(weights):
    codes, logits, labels = batch()
    costs = []
    for row, y in zip(logits.tolist(), labels.tolist(), strict=True):
        share = math.exp(row[y]) / sum(map(math.exp, row))
        costs.append((-math.log(share), 1.0 if weights is None else weights[y].item()))
    double = None if weights is None else weights.double()
    value = OBJECTIVES["classification"](codes, logits, labels, double)
    assert value.item() == pytest.approx(mean(costs), rel=1e-12)


# --- properties -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_right_away_from_the_kinks(name):
    codes, logits, labels = batch(images=5)
    assert (codes - 0.5).abs().min() > 1e-3  # the sign and the modulus have a kink there
    objective, weights = OBJECTIVES[name], torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)

    def of(c, z):
        return objective(c, z, labels, weights)

    assert torch.autograd.gradcheck(of, (codes.requires_grad_(), logits.requires_grad_()))


EXTREMES = {
    "zeros": torch.zeros(4, 8),
    "ones": torch.ones(4, 8),
    "halves": torch.full((4, 8), 0.5),
    "opposite": torch.arange(4)[:, None].remainder(2).float().expand(4, 8),
    "nearly ones": torch.full((4, 8), 1 - 1e-7),
}


@pytest.mark.parametrize("codes", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1]], ids=str)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_value_and_gradient_is_finite(name, labels, codes):
    codes, logits = codes.clone().requires_grad_(), torch.zeros(4, 4)
    value = OBJECTIVES[name](codes, logits, torch.tensor(labels), None)
    assert math.isfinite(value.item())
    if value.requires_grad:
        value.backward()
        assert torch.isfinite(codes.grad).all()


@pytest.mark.parametrize("name", PAIRWISE)
def test_long_saturated_codes_do_not_overflow(name):
    codes = torch.ones(3, 512)
    value = OBJECTIVES[name](codes, torch.zeros(3, 3), torch.tensor([0, 1, 2]), None)
    assert math.isfinite(value.item())


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("labels", [[0], [0, 0, 0], [0, 1, 2]], ids=["none", "similar", "others"])
def test_without_pairs_or_with_pairs_of_one_kind_an_objective_is_its_double_loop(name, labels):
    codes, logits, _ = batch(images=len(labels))
    labels = torch.tensor(labels)
    value = OBJECTIVES[name](codes, logits, labels, None)
    assert value.item() == pytest.approx(by_hand(name, codes, labels), rel=1e-9, abs=1e-12)


def test_a_class_without_weight_counts_for_nothing():
    codes, logits, labels = batch(images=6)
    weights = torch.tensor([1.0, 1.0, 0.0])
    for name in OBJECTIVES:
        others = labels != 2
        alone = OBJECTIVES[name](codes[others], logits[others], labels[others], None)
        value = OBJECTIVES[name](codes, logits, labels, weights.double())
        torch.testing.assert_close(value, alone)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_order_of_the_images_does_not_matter(name):
    codes, logits, labels = batch(images=8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    a = OBJECTIVES[name](codes, logits, labels, None)
    b = OBJECTIVES[name](codes[order], logits[order], labels[order], None)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", HASHING)
def test_descending_an_objective_separates_the_classes(name):
    _, logits, labels = batch(images=12, bits=8)
    start = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    output = start.requires_grad_()
    optimizer = torch.optim.Adam([output], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        OBJECTIVES[name](torch.sigmoid(output), logits, labels, None).backward()
        optimizer.step()
    bits = torch.sigmoid(output.detach()) > 0.5
    apart = (bits[:, None] != bits).sum(dim=2)
    similar = labels[:, None] == labels
    assert apart[similar].max() < apart[~similar].min()
