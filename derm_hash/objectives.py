"""What the codes are trained for: the paper's classification, and five hashing objectives.

An objective maps what a network says of N images, soft codes h (N, bits) in (0, 1) and
logits (N, classes), with the images' labels (N,) to a scalar. Two images are similar if
their labels agree; s_ij is 1 for a similar pair and 0 for a dissimilar one.

Most hashing papers write about codes in [-1, 1]; here ``u = 2 h - 1``, which is tanh of half
of the hash layer's output. Three things differ from the papers on purpose, and alike for all
objectives, so that nothing but the objective is compared:

- sums are means, over the images or over the unordered pairs of different images of the batch
  (copies of one image in an orbit are images too; no image outside the batch is compared), so
  that neither the batch size nor the orbit changes their weight beside the invariance loss;
- class weights w, where there are any, make an image count w(y_i) and a pair w(y_i) w(y_j) in
  these means; without them every mean is the plain one;
- the soft code itself is trained, with no second code per image and no sharpening over time.

Every objective is finite for any code, for a batch without similar or without dissimilar
pairs, and for a batch of one image, which has no pair and costs nothing but its own terms.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import hadamard
from torch import Tensor

from derm_hash.errors import InputError

ENOUGH = 1e-12
"""Weights that sum to less stand for nothing at all: their mean is 0."""


def classification(
    codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the classifier on top of the code (Zhang et al., 2022).

    ``- sum_i w(y_i) log softmax(logits_i)[y_i] / sum_i w(y_i)``.
    """
    return F.cross_entropy(logits, labels, weights)


def dpsh(codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Deep pairwise-supervised hashing (Li et al., IJCAI 2016, section 3).

    ``mean_pairs [log(1 + e^t_ij) - s_ij t_ij] + 0.1 mean_images |sign(u_i) - u_i|^2 / bits``
    with ``t_ij = u_i . u_j / 2``: the negative log likelihood of the pairs' labels, and a pull
    to binary codes. The weight of the second term is a choice: in the paper it multiplies a
    sum over images beside a sum over pairs, and so depends on the size of the data.
    """
    u = 2 * codes - 1
    logit = u @ u.T / 2
    similar, weight = pairs(labels, weights)
    likelihood = weighted_mean(F.softplus(logit) - similar * logit, weight)
    quantisation = (torch.where(u > 0, 1.0, -1.0) - u).square().mean(dim=1)
    return likelihood + 0.1 * weighted_mean(quantisation, image_weights(labels, weights))


def dsh(codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Deep supervised hashing (Liu et al., CVPR 2016, section 3.1).

    ``mean_pairs [s_ij d_ij / 2 + (1 - s_ij) max(m - d_ij, 0) / 2] / bits
    + 2 * 0.01 mean_images mean_bits | |u| - 1 |`` with ``d_ij = |u_i - u_j|^2`` and the margin
    ``m = 2 bits``: similar codes are pulled together, dissimilar ones pushed apart until half
    of their bits differ. Each image is in as many pairs as any other, and both images of a
    pair pay for not being binary: hence the 2. The paper does not divide by the bits; here it
    keeps the weight of the objective beside the invariance loss the same for every length.
    """
    u = 2 * codes - 1
    distance = squared_distances(u) / u.shape[1]
    similar, weight = pairs(labels, weights)
    apart = F.relu(2 - distance)
    contrastive = weighted_mean(torch.where(similar, distance, apart) / 2, weight)
    quantisation = (u.abs() - 1).abs().mean(dim=1)
    return contrastive + 0.02 * weighted_mean(quantisation, image_weights(labels, weights))


def hashnet(codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """HashNet's weighted maximum likelihood (Cao et al., ICCV 2017, section 3.1).

    ``mean_pairs c_ij [log(1 + e^t_ij) - s_ij t_ij]`` with ``t_ij = (10 / bits) u_i . u_j``. The
    pair weights c make similar and dissimilar pairs count the same in all: |S| / |S_1| for
    each of the |S_1| similar pairs among |S|, |S| / |S_0| for each of the others. The scale
    10 / bits is that of the authors' code. Their network sharpens tanh(beta z) by a growing
    beta; here beta stays 1/2, so that retrieval ranks by the code that was trained.
    """
    u = 2 * codes - 1
    logit = 10 / u.shape[1] * (u @ u.T)
    similar, weight = pairs(labels, weights)
    return balanced_mean(F.softplus(logit) - similar * logit, similar, weight)


def dch(codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Deep Cauchy hashing (Cao et al., CVPR 2018, equations 7 to 9).

    ``mean_pairs c_ij [s_ij log(1 + d_ij / g) + (1 - s_ij) log(1 + g / d_ij)]
    + 0.1 mean_images log(1 + d(|u_i|, 1) / g)`` with the distance in bits
    ``d(u, v) = bits / 2 (1 - cos(u, v))`` (equation 6) and HashNet's pair weights c
    (equation 2). The scale g = bits / 2 is the distance of two random codes: a pair as far
    apart is as likely similar as not. Below 0.01 bits a dissimilar pair costs no more, as the
    logarithm would have no end.
    """
    bits = codes.shape[1]
    gamma = bits / 2
    u = F.normalize(2 * codes - 1, eps=1e-2)  # a code of halves has no direction
    distance = bits / 2 * F.relu(1 - u @ u.T)
    similar, weight = pairs(labels, weights)
    cost = torch.where(
        similar, torch.log1p(distance / gamma), torch.log1p(gamma / distance.clamp(min=0.01))
    )
    to_ones = bits / 2 * F.relu(1 - u.abs().sum(dim=1) / math.sqrt(bits))
    quantisation = torch.log1p(to_ones / gamma)
    return balanced_mean(cost, similar, weight) + 0.1 * weighted_mean(
        quantisation, image_weights(labels, weights)
    )


def csq(codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Central similarity quantisation (Yuan et al., CVPR 2020, section 3.2).

    ``mean_images mean_bits [- c log h - (1 - c) log(1 - h)]
    + 0.0001 mean_images sum_bits log cosh(|2 h - 1| - 1)``: every code is drawn to the hash
    centre c of its class, see :func:`hash_centres`, and to binary values. The weight 0.0001
    is that of the authors' code.
    """
    centres = hash_centres(codes.shape[1], logits.shape[1]).to(codes)[labels]
    central = F.binary_cross_entropy(codes, centres, reduction="none").mean(dim=1)
    quantisation = log_cosh((2 * codes - 1).abs() - 1).sum(dim=1)
    return weighted_mean(central + 1e-4 * quantisation, image_weights(labels, weights))


Objective = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
OBJECTIVES: dict[str, Objective] = {
    "classification": classification,
    "dpsh": dpsh,
    "dsh": dsh,
    "hashnet": hashnet,
    "dch": dch,
    "csq": csq,
}


# --- what they are made of ------------------------------------------------------------------


def image_weights(labels: Tensor, weights: Tensor | None) -> Tensor:
    """How much each image counts: (N,), its class weight, or 1 without class weights."""
    return torch.ones(len(labels), device=labels.device) if weights is None else weights[labels]


def pairs(labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Whether a pair is similar, (N, N) bool, and how much it counts, (N, N) float.

    A pair of different images counts the product of their class weights, and stands in the
    matrix twice; an image is no pair with itself and counts 0.
    """
    each = image_weights(labels, weights)
    return labels[:, None] == labels, (each[:, None] * each).fill_diagonal_(0)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """``sum(w v) / sum(w)``, or 0 where nothing counts; values and weights of one shape."""
    return (weights * values).sum() / weights.sum().clamp(min=ENOUGH)


def balanced_mean(values: Tensor, similar: Tensor, weights: Tensor) -> Tensor:
    """Mean over the similar pairs plus mean over the dissimilar ones.

    The same as the mean over all pairs with |S| / |S_1| for each similar pair and |S| / |S_0|
    for each dissimilar one (HashNet, ICCV 2017; DCH, CVPR 2018, equation 2).
    """
    return weighted_mean(values, weights * similar) + weighted_mean(values, weights * ~similar)


def squared_distances(u: Tensor) -> Tensor:
    """(N, bits) -> (N, N) squared Euclidean distances."""
    norms = u.square().sum(dim=1)
    return F.relu(norms[:, None] + norms - 2 * (u @ u.T))


def log_cosh(x: Tensor) -> Tensor:
    """log cosh x, without the overflow of cosh."""
    return x.abs() + F.softplus(-2 * x.abs()) - math.log(2)


@cache
def hash_centres(bits: int, classes: int) -> Tensor:
    """Binary codes that lie far apart, one for each class (CSQ, section 3.1).

    Where bits is a power of two and there are at most twice as many classes: rows of a
    Hadamard matrix, then of its negative. Two of them differ in half of the bits, or in all.
    Else every bit is thrown by a fair coin; of 1,000 throws, always the same ones, the set is
    taken whose closest two centres are farthest apart.

    Returns
    -------
    (classes, bits) float tensor of zeros and ones.

    Raises
    ------
    InputError
        If there are fewer codes than classes, or no throw gave each class its own.
    """
    if bits & (bits - 1) == 0 and classes <= 2 * bits:
        rows = hadamard(bits)
        return torch.from_numpy(np.concatenate([rows, -rows])[:classes] > 0).float()
    rng = np.random.default_rng(0)
    throws = [rng.integers(0, 2, (classes, bits)) for _ in range(1000)]
    best = max(throws, key=smallest_distance)
    if smallest_distance(best) == 0:
        raise InputError(
            f"{classes} classes find no {classes} different hash centres of {bits} bits: "
            "choose more bits, or another objective than csq."
        )
    return torch.from_numpy(best).float()


def smallest_distance(centres: np.ndarray) -> int:
    """Hamming distance of the closest two of several codes (classes, bits) in {0, 1}."""
    apart = (centres[:, None] != centres).sum(axis=2)
    return int(apart[np.triu_indices(len(centres), 1)].min(initial=centres.shape[1]))
