"""Learning from a long tail: ECL's contrastive loss, its class proxies, its curriculum of weights.

Class-enhancement contrastive learning (Zhang et al., MICCAI 2023) adds two things to the usual
cross-entropy. The balanced-hybrid-proxy (BHP) loss pulls the images of a class together and pushes
the classes apart, with equal weight for every class; learnable proxies stand in for rare classes,
which a batch may lack. And a curriculum (BWCE) weights the cross-entropy: first not at all, then
more and more by the classes' sizes, and at last by how well each class is recognised.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from derm_hash.settings import TrainConfig

TEMPERATURE = 0.1
PROXY_RATES = {"sum": 0.002, "mean": 0.2}
"""Learning rate of the proxies. The published 0.002 belongs to a sum over the batches of an epoch,
whose step grows with their number; 0.2 with the mean is the same step where there are 100."""
PROXY_MOMENTUM = 0.9
LOWEST_F1 = 0.05  # a lower score would give its class nearly all the weight, and 0 an infinite one
CURRICULA = ("bwce", "bwce-smooth")


# --- the contrastive loss -------------------------------------------------------------------


def bhp_loss(
    features: Tensor,
    proxies: Tensor,
    proxy_labels: Tensor,
    labels: Tensor,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Balanced-hybrid-proxy loss (Zhang et al., MICCAI 2023).

    All features and proxies form one set Z, and each member is an anchor once::

        L = -1/|Z| sum_i 1/|P_i| sum_{j in P_i} [s_ij - log sum_c M_ic]

    with ``s_ij = z_i . z_j / temperature``, P_i the other members of i's class, and M_ic the mean
    of exp(s_ik) over the members k of class c other than i. So every class weighs the same in the
    denominator, however many members it has. An anchor without another member of its class, where
    the published code gives NaN, is left out of the mean, but is still a negative for the others.

    Parameters
    ----------
    features : (V, B, d) tensor
        V views of B images, of unit length.
    proxies : (P, d) tensor of unit length
    proxy_labels, labels : (P,) and (B,) int64 tensors of class indices
    temperature : float > 0

    Returns
    -------
    scalar tensor >= 0, up to rounding; 0 if no two members share a class
    """
    z = torch.cat([features.flatten(0, 1), proxies])
    y = torch.cat([labels.repeat(len(features)), proxy_labels])
    same = y[:, None] == y
    others = same.sum(dim=0) - same.long()  # [i, k]: members of k's class other than i
    losses, counted = anchor_losses(z, y, 1 / others.clamp(min=1).to(z), temperature)
    return losses.sum() / counted.sum().clamp(min=1)


def anchor_losses(
    z: Tensor, y: Tensor, weights: Tensor, temperature: float = TEMPERATURE
) -> tuple[Tensor, Tensor]:
    """Contrastive loss of every member of a set.

    ``log sum_{k != i} w_ik exp(s_ik) - mean_{j in P_i} s_ij``, as in :func:`bhp_loss`.

    Parameters
    ----------
    z, y : (N, d) vectors of unit length and (N,) classes
    weights : (N,) or (N, N) tensor w >= 0
        Weight of each member k in every denominator, or in that of each anchor i.
    temperature : float > 0

    Returns
    -------
    (N,) losses, 0 for a member that is alone in its class, and (N,) bool, False for such a member
    """
    similarity = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = (y[:, None] == y) & ~itself
    terms = similarity + weights.to(z).clamp(min=1e-30).log()
    denominator = terms.masked_fill(itself, torch.finfo(z.dtype).min).logsumexp(dim=1)
    positives = positive.sum(dim=1)
    attraction = (similarity * positive).sum(dim=1) / positives.clamp(min=1)
    return torch.where(positives > 0, denominator - attraction, 0.0), positives > 0


# --- proxies --------------------------------------------------------------------------------


def proxies_per_class(counts: Tensor) -> Tensor:
    """How many proxies each class gets: images (classes,) -> (classes,) int64.

    1 for the largest class, ``floor(N_max / (10 N_c)) + 2`` for the others; none without images.
    """
    counts = torch.as_tensor(counts)
    largest = counts.max()
    several = largest // (10 * counts.clamp(min=1)) + 2
    return torch.where(counts == largest, 1, several) * (counts > 0)


class ClassProxies(nn.Module):
    """Learnable vectors that stand for classes, and the sum of their gradients.

    This is the paper's cycle update: the network steps after every batch, but the proxies once an
    epoch, by the gradients of all its batches, with momentum. The sum and the momentum are part of
    the module's state, so a checkpoint in the middle of an epoch is complete.

    Parameters
    ----------
    counts : (classes,) numbers of images; see :func:`proxies_per_class`
    dim : int
        Length of the vectors.

    Attributes
    ----------
    vectors : (P, dim) parameter, Xavier-uniform at the start
    labels : (P,) int64 tensor, the class of each
    gradient : (P, dim) tensor, the sum since the last step
    """

    def __init__(self, counts: Sequence[int] | Tensor, dim: int):
        super().__init__()
        each = proxies_per_class(counts)
        labels = torch.repeat_interleave(torch.arange(len(each)), each.cpu())
        self.vectors = nn.Parameter(nn.init.xavier_uniform_(torch.empty(len(labels), dim)))
        self.register_buffer("labels", labels)
        self.register_buffer("gradient", torch.zeros_like(self.vectors))
        self.register_buffer("velocity", torch.zeros_like(self.vectors))

    def forward(self) -> Tensor:
        """The vectors at unit length: (P, dim)."""
        return F.normalize(self.vectors)

    @torch.no_grad()
    def collect(self) -> None:
        """Add the gradient of a batch to the sum."""
        self.gradient += self.vectors.grad
        self.vectors.grad = None

    @torch.no_grad()
    def step(self, batches: int, update: str = "sum") -> None:
        """Step by the "sum" or "mean" of the batches' gradients, and set the sum to 0 again."""
        gradient = self.gradient / batches if update == "mean" else self.gradient
        self.velocity.mul_(PROXY_MOMENTUM).add_(gradient)
        self.vectors -= PROXY_RATES[update] * self.velocity
        self.gradient.zero_()


class ClassContrast(nn.Module):
    """What ECL trains beside the network: the class proxies, and a projection head if wanted.

    The loss shapes the code that retrieval uses, ``v = 2 h - 1`` at unit length. In the paper it
    shapes the output of a head, which is thrown away after training: linear, batch norm, ReLU,
    linear. Here such a head, of width ``projection``, is applied to the code.

    Parameters
    ----------
    counts : (classes,) numbers of training images
    bits : int
        Length of the code.
    projection : int
        Width of the head (128 in the paper), or 0 for none.
    """

    def __init__(self, counts: Sequence[int] | Tensor, bits: int, projection: int = 0):
        super().__init__()
        self.head = nn.Identity()
        if projection:
            self.head = nn.Sequential(
                nn.Linear(bits, projection),
                nn.BatchNorm1d(projection),
                nn.ReLU(),
                nn.Linear(projection, projection),
            )
        self.proxies = ClassProxies(counts, projection or bits)

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Soft codes of V views (V, B, bits) and labels (B,) -> :func:`bhp_loss`."""
        z = unit(self.head((2 * codes - 1).flatten(0, 1))).unflatten(0, codes.shape[:2])
        return bhp_loss(z, self.proxies(), self.proxies.labels, labels)


def make_contrast(
    config: "TrainConfig", labels: Tensor, classes: int, device: str | torch.device = "cpu"
) -> ClassContrast | None:
    """The contrast of a run on images with labels (N,); None if the objective is not "ecl"."""
    if config.objective != "ecl":
        return None
    counts = torch.bincount(labels, minlength=classes)
    return ClassContrast(counts, config.bits, config.projection).to(device)


def unit(v: Tensor) -> Tensor:
    """Vectors at unit length; those close to 0, such as a code of all 0.5, have no direction."""
    return F.normalize(v, dim=-1, eps=1e-2)


# --- the curriculum of weights --------------------------------------------------------------


def bwce_weights(
    counts: Sequence[int] | Tensor,
    f1: Sequence[float] | Tensor | None,
    epoch: float,
    e1: float,
    e2: float,
    epochs: float,
    smooth: bool = False,
) -> Tensor:
    """Class weights of the balanced-weighted cross-entropy (BWCE) in an epoch.

    Up to epoch e1 all are 1. Up to e2 they are ``w_c^((epoch - e1) / (e2 - e1))`` with w_c
    proportional to 1 / N_c, and after it ``v_c^((epoch - e2) / (epochs - e2))`` with v_c
    proportional to 1 / F1_c; w and v have the mean 1. So after e2 the published weights jump from w
    back to almost 1. With ``smooth`` there is no jump: the weights after e2 are
    ``w_c^(1 - p) v_c^p``, with the same power p.

    Parameters
    ----------
    counts : (classes,) numbers of training images
        A class without images has weight 0 in w, and does not count in its mean.
    f1 : (classes,) F1 scores on val after the epoch before, or None, which is 1 for all
        Lower scores than 0.05 count as 0.05. A class without a score (NaN) has the others' mean.
    epoch : number from 0 to ``epochs``
        The first epoch of a run is 1.
    e1, e2, epochs : numbers, ``0 <= e1 < e2 < epochs``
        20, 50 and 100 in the paper.
    smooth : bool

    Returns
    -------
    (classes,) float tensor
    """
    counts = torch.as_tensor(counts).float()
    if epoch <= e1:
        return torch.ones_like(counts)
    by_size = with_mean_one(torch.where(counts > 0, 1 / counts.clamp(min=1), 0.0))
    if epoch <= e2:
        return by_size ** ((epoch - e1) / (e2 - e1))
    f1 = torch.ones_like(counts) if f1 is None else torch.as_tensor(f1).to(counts)
    f1 = torch.where(f1.isnan(), f1.nanmean().nan_to_num(1.0), f1).clamp(min=LOWEST_F1)
    power = (epoch - e2) / (epochs - e2)
    weights = with_mean_one(1 / f1) ** power
    return by_size ** (1 - power) * weights if smooth else weights


def with_mean_one(weights: Tensor) -> Tensor:
    """Weights (classes,) divided by the mean of those that are not 0."""
    return weights * (weights > 0).sum() / weights.sum()


def curriculum(
    config: "TrainConfig", labels: Tensor, names: Sequence[str], history: Sequence[dict]
) -> Tensor:
    """:func:`bwce_weights` of the next epoch of a run, with turns at 20 % and 50 % of the epochs.

    ``labels`` (N,) are those of the training images, ``names`` the classes; ``history`` has a row
    for each finished epoch, with the F1 scores on val as val_f1_NAME.
    """
    counts = torch.bincount(labels, minlength=len(names))
    f1 = [history[-1][f"val_f1_{name}"] for name in names] if history else None
    turns = 0.2 * config.epochs, 0.5 * config.epochs
    smooth = config.class_weights == "bwce-smooth"
    return bwce_weights(counts, f1, len(history) + 1, *turns, config.epochs, smooth)
