"""The rivals of the paper's objective: what other hashing methods train their codes for.

:mod:`derm_hash.objectives` describes the arguments: soft codes h (N, bits), logits, labels (N,) and
class weights (classes,) or None. Two images are similar if their labels agree: s_ij is 1 for a
similar pair, else 0. Hashing papers mostly write codes in [-1, 1]; here ``v = 2 h - 1``, which is
tanh of half of the hash layer's output. To compare only the objectives, all differ from the papers
in three ways:

- Means replace sums. They run over the images of the batch, or over its unordered pairs of
  different images (the rotated copies in an orbit are images too). So neither the batch size
  nor the orbit changes the objective's weight relative to the invariance loss.
- Class weights: image i counts w(y_i) and a pair w(y_i) w(y_j) in these means.
- The soft code is trained directly, without auxiliary binary codes, and without a factor that
  sharpens the codes over time.

A batch without similar or without dissimilar pairs gives a finite number, too.
"""

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import hadamard
from torch import Tensor

from derm_hash.errors import InputError
from derm_hash.longtail import anchor_losses, unit


def dpsh(codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Deep pairwise-supervised hashing (Li et al., IJCAI 2016, section 3).

    ``mean_pairs [log(1 + e^t_ij) - s_ij t_ij] + 0.1 mean_images |sign(v_i) - v_i|^2 / bits``
    with ``t_ij = v_i . v_j / 2``: the negative log likelihood of the pairs' labels, and a
    quantisation term that pulls the codes to binary values. Its weight 0.1 is our choice: the
    paper adds a sum over images to one over pairs, so its weight depends on the data's size.
    """
    v = 2 * codes - 1
    logit = v @ v.T / 2
    similar, weight = pairs(labels, weights)
    likelihood = weighted_mean(F.softplus(logit) - similar * logit, weight)
    quantisation = (torch.where(v > 0, 1.0, -1.0) - v).square().mean(dim=1)
    return likelihood + 0.1 * weighted_mean(quantisation, image_weights(labels, weights))


def dsh(codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Deep supervised hashing (Liu et al., CVPR 2016, section 3.1).

    ``mean_pairs [s_ij d_ij / 2 + (1 - s_ij) max(m - d_ij, 0) / 2] / bits
    + 2 * 0.01 mean_images mean_bits | |v| - 1 |`` with ``d_ij = |v_i - v_j|^2``, ``m = 2 * bits``:
    similar codes are pulled together, dissimilar ones pushed apart until half of their bits differ.
    The factor 2 is the paper's, which penalises both images of a pair. We divide by the bits, so
    that the weight relative to the invariance loss is the same for every code length.
    """
    v = 2 * codes - 1
    distance = squared_distances(v) / v.shape[1]
    similar, weight = pairs(labels, weights)
    apart = F.relu(2 - distance)
    contrastive = weighted_mean(torch.where(similar, distance, apart) / 2, weight)
    quantisation = (v.abs() - 1).abs().mean(dim=1)
    return contrastive + 0.02 * weighted_mean(quantisation, image_weights(labels, weights))


def hashnet(codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """HashNet's weighted maximum likelihood (Cao et al., ICCV 2017, section 3.1).

    ``mean_pairs c_ij [log(1 + e^t_ij) - s_ij t_ij]`` with ``t_ij = (10 / bits) v_i . v_j``, the
    scale of the authors' code, and pair weights c that give the similar and the dissimilar pairs
    the same total weight. The authors sharpen tanh(beta z) by a growing beta; here beta stays 1/2,
    so that retrieval ranks by the code that was trained.
    """
    v = 2 * codes - 1
    logit = 10 / v.shape[1] * (v @ v.T)
    similar, weight = pairs(labels, weights)
    return balanced_mean(F.softplus(logit) - similar * logit, similar, weight)


def dch(codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Deep Cauchy hashing (Cao et al., CVPR 2018, equations 7 to 9).

    ``mean_pairs c_ij [s_ij log(1 + d_ij / gamma) + (1 - s_ij) log(1 + gamma / d_ij)]
    + 0.1 mean_images log(1 + d(|v_i|, 1) / gamma)`` with the distance in bits
    ``d_ij = bits / 2 (1 - cos(v_i, v_j))`` (equation 6) and HashNet's pair weights c
    (equation 2). The scale gamma = bits / 2 is the expected distance of two random codes, at which
    the modelled probability of being similar is 1/2. Distances of dissimilar pairs are
    clamped at 0.01 bits, where the logarithm would grow without bound. The weight 0.1 of the last
    term, which pulls the codes to binary values, is our choice.
    """
    bits = codes.shape[1]
    scale = bits / 2
    v = F.normalize(2 * codes - 1, eps=1e-2)  # a code of all 0.5 has no direction
    distance = bits / 2 * F.relu(1 - v @ v.T)
    similar, weight = pairs(labels, weights)
    cost = torch.where(
        similar, torch.log1p(distance / scale), torch.log1p(scale / distance.clamp(min=0.01))
    )
    to_ones = bits / 2 * F.relu(1 - v.abs().sum(dim=1) / math.sqrt(bits))
    quantisation = torch.log1p(to_ones / scale)
    return balanced_mean(cost, similar, weight) + 0.1 * weighted_mean(
        quantisation, image_weights(labels, weights)
    )


def csq(codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Central similarity quantisation (Yuan et al., CVPR 2020, section 3.2).

    ``mean_images mean_bits [- c log h - (1 - c) log(1 - h)]
    + 0.0001 mean_images sum_bits log cosh(|2 h - 1| - 1)``: every code is pulled to the
    hash centre c of its class (:func:`hash_centres`) and to binary values. The weight 0.0001
    is our choice; the authors' commands have 0.0001 to 0.05, for the mean over bits of (|v| - 1)^2.
    """
    centres = hash_centres(codes.shape[1], logits.shape[1]).to(codes)[labels]
    central = F.binary_cross_entropy(codes, centres, reduction="none").mean(dim=1)
    quantisation = ((2 * codes - 1).abs() - 1).cosh().log().sum(dim=1)
    return weighted_mean(central + 1e-4 * quantisation, image_weights(labels, weights))


def supcon(codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Supervised contrastive learning (Khosla et al., NeurIPS 2020, equation 2).

    ``mean_images -1/|P_i| sum_{j in P_i} log [exp(s_ij) / sum_{k != i} w(y_k) exp(s_ik)]`` with
    ``s_ij = cos(v_i, v_j) / 0.1``, P_i the other images of i's class; an image without any is left
    out. Like ECL it is trained together with the classifier, see
    :func:`derm_hash.objectives.orbit_losses`.
    """
    each = image_weights(labels, weights)
    losses, counted = anchor_losses(unit(2 * codes - 1), labels, each)
    return weighted_mean(losses, each * counted)


# --- helpers ----------------------------------------------------------------------------


def image_weights(labels: Tensor, weights: Tensor | None) -> Tensor:
    """Weight of each image: (N,), its class weight, or 1 without class weights."""
    return torch.ones(len(labels), device=labels.device) if weights is None else weights[labels]


def pairs(labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which pairs are similar (N, N) bool, and their weights w_i w_j (N, N), 0 on the diagonal."""
    each = image_weights(labels, weights)
    return labels[:, None] == labels, (each[:, None] * each).fill_diagonal_(0)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """``sum(w v) / sum(w)``, or 0 if all weights are 0; values and weights of one shape."""
    return (weights * values).sum() / weights.sum().clamp(min=1e-12)  # avoids 0 / 0


def balanced_mean(values: Tensor, similar: Tensor, weights: Tensor) -> Tensor:
    """Mean over the similar pairs plus mean over the dissimilar ones (DCH, equation 2).

    Without class weights, a similar pair weighs |S| / |S_1| and a dissimilar one |S| / |S_0|.
    """
    return weighted_mean(values, weights * similar) + weighted_mean(values, weights * ~similar)


def squared_distances(v: Tensor) -> Tensor:
    """(N, bits) -> (N, N) squared Euclidean distances."""
    norms = v.square().sum(dim=1)
    return F.relu(norms[:, None] + norms - 2 * (v @ v.T))


@cache
def hash_centres(bits: int, classes: int) -> Tensor:
    """Choose binary codes that lie far apart, one for each class (CSQ, section 3.1).

    If bits is a power of two and there are at most ``2 * bits`` classes, they are rows of a
    Hadamard matrix, then of its negative: any two differ in half of the bits, or in all. Otherwise
    1,000 sets of random bits are drawn from a fixed seed; the result is the set whose closest two
    centres are farthest apart. `InputError` if there are too few codes for all classes.

    Returns
    -------
    (classes, bits) float tensor of zeros and ones
    """
    if bits & (bits - 1) == 0 and classes <= 2 * bits:
        rows = hadamard(bits)
        return torch.from_numpy(np.concatenate([rows, -rows])[:classes] > 0).float()
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, 2, (classes, bits)) for _ in range(1000)]
    best = max(draws, key=smallest_distance)
    if smallest_distance(best) == 0:
        raise InputError(
            f"{bits} bits are too few for {classes} different hash centres: "
            "choose more bits, or another objective than csq"
        )
    return torch.from_numpy(best).float()


def smallest_distance(centres: np.ndarray) -> int:
    """Hamming distance of the closest two of the codes (classes, bits) in {0, 1}."""
    apart = (centres[:, None] != centres).sum(axis=2)
    return int(apart[np.triu_indices(len(centres), 1)].min(initial=centres.shape[1]))
