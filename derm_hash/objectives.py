"""What the codes are trained for, and the whole loss of a training step.

The paper trains the codes by classification. The objectives of other hashing methods are in
:mod:`derm_hash.rivals`. The objective "ecl" has parameters of its own, so it is not a function but
a module: :class:`derm_hash.longtail.ClassContrast`. :func:`orbit_losses` puts the objective, the
classifier and the penalty on the orbit together.

Every ``objective(codes, logits, labels, weights)`` returns a scalar, which is finite for any code,
and for a batch of one image:

codes : (N, bits) tensor
    Soft codes h in (0, 1) of N images.
logits : (N, classes) tensor
    Output of the classifier. The rivals use only its number of columns, or ignore it.
labels : (N,) int64 tensor of class indices
weights : (classes,) tensor of class weights w, or None
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from derm_hash.longtail import ClassContrast
from derm_hash.losses import OrbitPenalty, class_weights, cross_entropy
from derm_hash.rivals import csq, dch, dpsh, dsh, hashnet, supcon

if TYPE_CHECKING:
    from derm_hash.settings import TrainConfig


def classification(
    codes: Tensor, logits: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the classifier on top of the code (Zhang et al., 2022).

    ``- sum_i w(y_i) log softmax(logits_i)[y_i] / sum_i w(y_i)``.
    """
    return cross_entropy(logits, labels, weights)


OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    "classification": classification,
    "dpsh": dpsh,
    "dsh": dsh,
    "hashnet": hashnet,
    "dch": dch,
    "csq": csq,
    "supcon": supcon,
}
BY_CLASSIFIER = ("classification", "supcon", "ecl")
"""With these objectives the classifier's gradient shapes the code; with the others it does not."""


def orbit_losses(
    logits: Tensor,
    codes: Tensor,
    y: Tensor,
    config: "TrainConfig",
    weights: Tensor | None = None,
    share_done: float = 1.0,
    contrast: ClassContrast | None = None,
    strong: Tensor | None = None,
) -> dict[str, Tensor]:
    """Losses of a batch of orbits: classifier, objective, penalty on the orbit.

    ``loss = cross_entropy + hashing + rise * invariance_weight * invariance``, where rise goes from
    0 to 1 while ``share_done``, the share of the run that is done, goes from 0 to
    ``invariance_rise``. ``hashing`` is the config's objective if that is not classification; the
    cross-entropy then trains the classifier alone. The exceptions are "supcon" and "ecl": both
    losses shape the code, weighted as in the ECL paper, ``2 * cross_entropy + hashing + ...``.

    Parameters
    ----------
    logits, codes : (n, B, classes) and (n, B, bits) tensors
    y : (B,) int64 tensor of class indices
    config : TrainConfig
    weights : (classes,) tensor of class weights, optional
    share_done : float in [0, 1]
    contrast : ClassContrast
        Computes the objective "ecl".
    strong : (B, bits) tensor, optional
        Codes of a strong view of each image, which ``hashing`` sees as well.

    Returns
    -------
    dict of scalar tensors: ``loss``, ``cross_entropy``, and ``hashing``, ``invariance`` if used
    """
    copies, balance = len(codes), config.class_weights
    # 1. The classifier, on all copies or on the first one.
    used = copies if config.classify == "orbit" else 1
    repeated = y.repeat(used)
    if balance == "released":  # from each batch, as in the released code
        weights = class_weights(repeated, logits.shape[-1], "released")
    classified = cross_entropy(logits[:used].flatten(0, 1), repeated, weights, balance)
    losses = {"cross_entropy": classified, "loss": classified}
    # 2. The objective, if it is not classification, on the same copies and the strong view.
    views = codes[:used] if strong is None else torch.cat([codes[:used], strong[None]])
    if config.objective == "ecl":
        losses["hashing"] = contrast(views, y)
    elif config.objective != "classification":
        # "logit-adjusted" turns the weights into shifts of the logits, which rivals do not have.
        of_images = None if balance == "logit-adjusted" else weights
        inputs = views.flatten(0, 1), logits[0], y.repeat(len(views)), of_images
        losses["hashing"] = OBJECTIVES[config.objective](*inputs)
    if "hashing" in losses:
        factor = 2 if config.objective in BY_CLASSIFIER else 1
        losses["loss"] = factor * classified + losses["hashing"]
    # 3. The penalty on the orbit.
    if config.invariance:
        penalty = OrbitPenalty(config.invariance, config.gamma)(codes)
        # If only some members of the orbit were drawn: on average, the value of the whole orbit.
        losses["invariance"] = penalty * (config.orbit - 1) / max(1, copies - 1)
        rise = min(1.0, share_done / config.invariance_rise) if config.invariance_rise else 1.0
        losses["loss"] = losses["loss"] + rise * config.invariance_weight * losses["invariance"]
    return losses
