"""The Cauchy rotation-invariance loss, the penalties it is compared with, and the cross-entropy.

For the orbit u_k = h(R_k x), k = 0..n-1, of soft codes and its mean ubar, an invariance loss is
``L = sum_k mean_{batch, bits} rho(|u_k - ubar|)``. The penalty rho decides how much a deviating
bit costs, and how large its gradient is. The cross-entropy trains the classifier; it can be
balanced over classes of different size.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derm_hash.errors import InputError


def cauchy(d: Tensor, gamma: float) -> Tensor:
    """-log(gamma / (gamma + d)) = log(1 + d / gamma).

    The negative log of the Cauchy-type probability of Deep Cauchy Hashing (Cao et al., CVPR 2018,
    equation 4). Unlike in the Cauchy (Lorentzian) loss of robust statistics, d is not squared.
    """
    return torch.log1p(d / gamma)


def l1(d: Tensor, gamma: float) -> Tensor:
    """d / gamma: the tangent of the Cauchy penalty at zero."""
    return d / gamma


def l2(d: Tensor, gamma: float) -> Tensor:
    """(d / gamma)^2 / 2: the negative log of a Gaussian, up to a constant."""
    return (d / gamma) ** 2 / 2


def gaussian(d: Tensor, gamma: float) -> Tensor:
    """1 - exp(-(d / gamma)^2 / 2): one minus a Gaussian bump (the Welsch loss); saturates."""
    return 1 - torch.exp(-((d / gamma) ** 2) / 2)


PENALTIES = {"cauchy": cauchy, "l1": l1, "l2": l2, "gaussian": gaussian}


class OrbitPenalty(nn.Module):
    """Pull the soft codes of an image's rotated copies towards their mean; see the module.

    The loss is zero exactly when all copies have the same soft code; their order does not matter.

    Parameters
    ----------
    kind : name in ``PENALTIES``, else `InputError`
    gamma : float > 0, else `InputError`
        Scale of the penalty in units of the soft code.
    """

    def __init__(self, kind: str = "cauchy", gamma: float = 0.5):
        super().__init__()
        if kind not in PENALTIES:
            raise InputError(f"Unknown penalty {kind!r}: choose one of {', '.join(PENALTIES)}")
        if not gamma > 0:
            raise InputError(f"gamma is a scale and must be greater than 0, not {gamma}")
        self.kind, self.gamma = kind, gamma

    def forward(self, codes: Tensor) -> Tensor:
        """Orbit of soft codes (n, B, bits), else `InputError` -> scalar loss >= 0."""
        if codes.ndim != 3:
            text = f"An orbit of codes has shape (n, B, bits), not {tuple(codes.shape)}"
            raise InputError(f"{text}: stack the codes of the n rotated copies")
        distance = (codes - codes.mean(dim=0)).abs()
        return PENALTIES[self.kind](distance, self.gamma).mean(dim=(1, 2)).sum()


class CauchyRotationLoss(OrbitPenalty):
    """Cauchy rotation-invariance loss (Zhang et al., 2022).

    ``L_CRI = sum_k mean_{batch, bits} log(1 + |u_k - ubar| / gamma)``, used as
    ``CauchyRotationLoss(gamma=0.5)(codes)`` with an orbit of codes (n, B, bits) -> scalar.
    """

    def __init__(self, gamma: float = 0.5):
        super().__init__("cauchy", gamma)


CLASS_WEIGHTS = ("inverse", "released", "none", "logit-adjusted", "sampling", "focal")
CLASS_WEIGHTS += ("bwce", "bwce-smooth")
"""How the classes are balanced: by weights in the cross-entropy, or in another way."""


def class_weights(labels: Tensor, classes: int, mode: str = "inverse") -> Tensor | None:
    """Weigh the classes in the cross-entropy; a class without images has weight 0.

    Parameters
    ----------
    labels : (N,) int64 tensor of class indices
    classes : int
    mode : a name in ``CLASS_WEIGHTS``, else `InputError`
        ``"inverse"``: N / (classes * count), so that all classes have the same total weight.
        ``"logit-adjusted"``: the weights of "inverse", which :func:`cross_entropy` uses in another
        way. ``"released"``: count / N, as in the code that was published with the paper; it
        strengthens the imbalance and is here for comparison. The others get no weights here:
        "none"; "sampling", which draws the images of all classes equally often; "focal", see
        :func:`cross_entropy`; and "bwce" and "bwce-smooth", whose weights change from epoch to
        epoch (:func:`derm_hash.longtail.bwce_weights`).

    Returns
    -------
    (classes,) float tensor, or None
    """
    if mode not in CLASS_WEIGHTS:
        raise InputError(f"Unknown class weights {mode!r}: use one of {', '.join(CLASS_WEIGHTS)}")
    if mode not in ("inverse", "logit-adjusted", "released"):
        return None
    counts = torch.bincount(labels, minlength=classes).float()
    if mode == "released":
        return counts / len(labels)
    return torch.where(counts > 0, len(labels) / (classes * counts.clamp(min=1)), 0.0)


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, mode: str = "inverse"
) -> Tensor:
    """Cross-entropy of a classifier, balanced as ``mode`` says: logits (N, classes) -> scalar.

    ``- sum_i w(y_i) log softmax(logits_i)[y_i] / sum_i w(y_i)``, except for two modes:

    - "logit-adjusted" adds the log of each class's share of the images to the logits, and has no
      weights (Menon et al., ICLR 2021, equation 10, with tau = 1). The share of class c is
      proportional to 1 / w_c, and a common factor does not change a softmax.
    - "focal" weights image i by ``(1 - p_i)^2``, p_i the probability of its class (Lin et al., ICCV
      2017, equation 4).
    """
    if mode == "logit-adjusted" and weights is not None:
        share = torch.where(weights > 0, -weights.log(), -torch.inf)
        return F.cross_entropy(logits + share, labels)
    if mode == "focal":
        losses = F.cross_entropy(logits, labels, reduction="none")
        return ((1 - (-losses).exp()) ** 2 * losses).mean()
    return F.cross_entropy(logits, labels, weights)


def penalty_curve(kind: str, gamma: float, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A penalty rho(d) and its slope by autograd, to plot: d (N,) >= 0 -> two (N,) arrays."""
    x = torch.tensor(d, requires_grad=True)
    value = PENALTIES[kind](x, gamma)
    (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach().numpy(), slope.numpy()
