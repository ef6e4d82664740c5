"""Where does the network look? HDC-SA gates, and Grad-CAM.

:func:`grad_cam` explains a class, a bit, or a match with a hit; :func:`gate_maps` reads the
attention gates. :mod:`derm_hash.faithfulness` tests whether a map can be trusted. The package
grad-cam does the mathematics; it takes a second to import, so it is imported where it is used.

A target is a callable that takes the HashOutput of one image, logits (classes,) and code (bits,),
and returns the number to explain, such as ``ClassTarget``, ``BitTarget`` or ``MatchTarget``.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from derm_hash.errors import InputError
from derm_hash.model import DermHash, HashOutput, evaluating

SMALLEST_MAP = 6  # pixels; a coarser map cannot tell the parts of a lesion apart
# As in timm's feature_info, which torchvision's ResNets lack.
RESNET_STAGES = [{"module": f"layer{i + 1}", "reduction": 4 * 2**i} for i in range(4)]


@dataclass(frozen=True)
class ClassTarget:
    """Evidence for class ``index``: its logit."""

    index: int

    def __call__(self, output: HashOutput) -> Tensor:
        return output.logits[self.index]


@dataclass(frozen=True)
class BitTarget:
    """Evidence for bit ``index``: plus or minus the logit of the soft code.

    ``on`` is True or False for evidence that the bit is 1 or 0; by default it is the value that the
    bit has, so the evidence is never negative.
    """

    index: int
    on: bool | None = None

    def __call__(self, output: HashOutput) -> Tensor:
        code = output.code[self.index]
        value = torch.logit(code, eps=torch.finfo(code.dtype).eps)
        on = value > 0 if self.on is None else self.on
        return value if on else -value


@dataclass(frozen=True, eq=False)
class MatchTarget:
    """Evidence for the match with a hit: cosine similarity with its soft code (bits,)."""

    code: np.ndarray | Tensor

    def __call__(self, output: HashOutput) -> Tensor:
        other = torch.as_tensor(self.code, dtype=output.code.dtype, device=output.code.device)
        return torch.cosine_similarity(output.code, other, dim=0)


class OneTensor(nn.Module):
    """DermHash with both outputs side by side in one tensor, as grad-cam requires.

    The code is a float64: a float32 sigmoid of a large logit is exactly 0 or 1, without a gradient.
    """

    def __init__(self, model: DermHash):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes + bits) float64."""
        logit = self.model.hash_layer(self.model.features(x))
        code = logit.double().sigmoid()
        logits = self.model.classifier(code.to(logit.dtype))
        return torch.cat([logits.double(), code], dim=1)

    def output(self, row: Tensor) -> HashOutput:
        """Split the row (classes + bits,) of one image into the two outputs again."""
        return HashOutput(row[: -self.model.bits], row[-self.model.bits :])


def cam_layer(model: DermHash, size: int) -> nn.Module:
    """The deepest stage whose map is still ``SMALLEST_MAP`` wide for images of ``size`` pixels.

    InputError if the stages are unknown: the backbone is neither of torchvision's ResNets nor of
    timm, whose networks list their stages in ``feature_info``.
    """
    stages = getattr(model.backbone, "feature_info", RESNET_STAGES)
    wide = [stage for stage in stages if size / stage["reduction"] >= SMALLEST_MAP]
    try:
        return model.backbone.get_submodule((wide or stages[:1])[-1]["module"])
    except AttributeError:
        raise InputError(
            "The stages of this backbone are unknown: pass the layer to explain as layer=..."
        ) from None


def grad_cam(
    model: DermHash,
    x: Tensor,
    target: Callable[[HashOutput], Tensor],
    layer: nn.Module | None = None,
) -> np.ndarray:
    """Explain any output of the network by Grad-CAM (Selvaraju et al., ICCV 2017).

    Parameters
    ----------
    model : DermHash
        Grad-CAM clears its gradients.
    x : (B, 3, H, W) tensor in [-1, 1]
    target : callable; see the module
    layer : Module, optional
        The layer whose feature map is explained; by default that of :func:`cam_layer`.

    Returns
    -------
    (B, H, W) float32 array in [0, 1]
        Each map has minimum 0 and maximum 1; it is 0 if no pixel supports the target.
    """
    from pytorch_grad_cam import GradCAM

    network = OneTensor(model)
    targets = [lambda row: target(network.output(row))] * len(x)
    layer = layer or cam_layer(model, x.shape[-1])
    # Only the gradient at the layer's output is needed. Detaching there saves the backward pass
    # through all layers below, which is most of the work. This hook runs before grad-cam's.
    cut = layer.register_forward_hook(lambda _, __, output: output.detach().requires_grad_())
    try:
        with evaluating(model), torch.enable_grad(), GradCAM(network, [layer]) as cam:
            return cam(input_tensor=x, targets=targets).astype(np.float32)
    finally:
        cut.remove()
        model.zero_grad(set_to_none=True)


@torch.no_grad()
def gate_maps(model: DermHash, x: Tensor) -> dict[str, np.ndarray]:
    """Compute the spatial gate of every residual block for a batch of images.

    Parameters
    ----------
    model : DermHash with a spatial gate (``hdcsa``, ``spatial``, ``cbam``), else `InputError`
    x : (B, 3, H, W) tensor in [-1, 1]

    Returns
    -------
    dict of str to (B, h, w) float32 array in (0, 1)
        From the block's name ("layer1.0", ...) to its gate, of the size of its feature map.
    """
    maps = {}

    def keep(path, gate, inputs, _):
        block = path.rsplit(".", 2)[0]  # layer1.0.bn2.gate -> layer1.0
        maps[block] = gate.attention(inputs[0])[:, 0].float().cpu().numpy()

    with evaluating(model), ExitStack() as hooks:
        for path, module in model.backbone.named_modules():
            if path.endswith(".gate") and hasattr(module, "attention"):
                hooks.enter_context(module.register_forward_hook(partial(keep, path)))
        model(x.to(next(model.parameters()).device))
    if not maps:
        raise InputError("This model has no spatial gate: train one with attention='hdcsa'")
    return maps


def resize_map(heatmap: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize of a map: (h, w) -> (size, size) float32."""
    map_ = torch.from_numpy(np.array(heatmap, dtype=np.float32))[None, None]  # copy: any strides
    resized = nn.functional.interpolate(map_, (size, size), mode="bilinear", align_corners=False)
    return resized[0, 0].numpy()
