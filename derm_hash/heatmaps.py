"""Where does the network look? HDC-SA gates, and Grad-CAM of a class, a bit, or a match.

A target is a small callable on the network's output for one image, so that anything
differentiable can be explained; the maths of Grad-CAM is the grad-cam package's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from torch import Tensor, nn

from derm_hash.errors import InputError
from derm_hash.model import DermHash, HashOutput

SMALLEST_MAP = 6  # pixels: a coarser map cannot say where in the lesion


@dataclass(frozen=True)
class ClassTarget:
    """Evidence for class ``index``: its logit."""

    index: int

    def __call__(self, output: HashOutput) -> Tensor:
        """Output for one image, logits (classes,) and code (bits,) -> scalar."""
        return output.logits[self.index]


@dataclass(frozen=True)
class BitTarget:
    """Evidence for bit ``index``: plus or minus the logit of the soft code.

    ``on`` says for which value of the bit; by default for the one that it has, so that
    the evidence is never negative.
    """

    index: int
    on: bool | None = None

    def __call__(self, output: HashOutput) -> Tensor:
        """Output for one image, logits (classes,) and code (bits,) -> scalar."""
        code = output.code[self.index]
        value = torch.logit(code, eps=torch.finfo(code.dtype).eps)
        on = value > 0 if self.on is None else self.on
        return value if on else -value


@dataclass(frozen=True, eq=False)
class MatchTarget:
    """Evidence for the match with a hit: cosine similarity with its soft code (bits,)."""

    code: np.ndarray | Tensor

    def __call__(self, output: HashOutput) -> Tensor:
        """Output for one image, logits (classes,) and code (bits,) -> scalar."""
        other = torch.as_tensor(self.code, dtype=output.code.dtype, device=output.code.device)
        return torch.cosine_similarity(output.code, other, dim=0)


class OneTensor(nn.Module):
    """DermHash with its two outputs side by side in one tensor, as grad-cam wants them.

    In 64 bits: in 32 the code of a bit that training has decided is 0 or 1, and no gradient
    finds back from there to its logit.
    """

    def __init__(self, model: DermHash):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes + bits) float64."""
        values = []
        hook = self.model.hash_layer.register_forward_hook(lambda _, __, out: values.append(out))
        try:
            logits = self.model(x).logits
        finally:
            hook.remove()
        return torch.cat([logits.double(), values[0].double().sigmoid()], dim=1)

    def output(self, row: Tensor) -> HashOutput:
        """The two outputs for one image again, from its row (classes + bits,)."""
        return HashOutput(row[: -self.model.bits], row[-self.model.bits :])


def cam_layer(model: DermHash, size: int) -> nn.Module:
    """The deepest stage whose map is still ``SMALLEST_MAP`` wide for images of ``size`` pixels."""
    strides = {"layer4": 32, "layer3": 16, "layer2": 8, "layer1": 4}
    for name, stride in strides.items():
        if size / stride >= SMALLEST_MAP:
            return getattr(model.backbone, name)
    return model.backbone.layer1


def grad_cam(
    model: DermHash,
    x: Tensor,
    target: Callable[[HashOutput], Tensor],
    layer: nn.Module | None = None,
) -> np.ndarray:
    """Grad-CAM of anything the network says (Selvaraju et al., ICCV 2017).

    Parameters
    ----------
    model : DermHash
    x : (B, 3, H, W) tensor in [-1, 1]
    target : callable
        HashOutput of one image -> scalar, such as ``ClassTarget``, ``BitTarget``, ``MatchTarget``.
    layer : Module, optional
        Where to look; by default the deepest stage that still says where (``cam_layer``).

    Returns
    -------
    (B, H, W) float32 array in [0, 1], each map scaled to its own maximum; all zero where
    nothing in the image speaks for the target.
    """
    training, network = model.training, OneTensor(model)
    targets = [lambda row: target(network.output(row))] * len(x)
    layer = layer or cam_layer(model, x.shape[-1])
    # Gradients are wanted at the layer's output: there the graph begins, and nothing below is
    # differentiated, which is most of the work. (Hooks run in order: this one before grad-cam's.)
    begin = layer.register_forward_hook(lambda _, __, output: output.detach().requires_grad_())
    try:
        with torch.enable_grad(), GradCAM(network, [layer]) as cam:
            return cam(input_tensor=x, targets=targets).astype(np.float32)
    finally:
        begin.remove()
        model.zero_grad(set_to_none=True)
        model.train(training)


@torch.no_grad()
def gate_maps(model: DermHash, x: Tensor) -> dict[str, np.ndarray]:
    """The spatial gate of every residual block for a batch of images.

    Parameters
    ----------
    model : DermHash
        With a spatial gate (``hdcsa``, ``spatial`` or ``cbam``).
    x : (B, 3, H, W) tensor in [-1, 1]

    Returns
    -------
    dict from the block's name ("layer1.0", ...) to its gate (B, h, w) float32 in (0, 1),
    h and w being the size of the block's feature map.

    Raises
    ------
    InputError
        If the model has no spatial gate.
    """
    maps, hooks, training = {}, [], model.training

    def keep(name):
        def hook(gate, inputs, _):
            maps[name] = gate.attention(inputs[0])[:, 0].float().cpu().numpy()

        return hook

    for path, module in model.backbone.named_modules():
        if path.endswith(".gate") and hasattr(module, "attention"):
            block = path.rsplit(".", 2)[0]  # layer1.0.bn2.gate -> layer1.0
            hooks.append(module.register_forward_hook(keep(block)))
    if not hooks:
        raise InputError("This model has no spatial gate: train one with attention='hdcsa'.")
    try:
        model.eval()(x.to(next(model.parameters()).device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return maps


def resize_map(heatmap: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize of a map: (h, w) -> (size, size) float32."""
    map_ = torch.from_numpy(np.array(heatmap, dtype=np.float32))[None, None]  # copy: any strides
    resized = nn.functional.interpolate(map_, (size, size), mode="bilinear", align_corners=False)
    return resized[0, 0].numpy()


def overlay(
    picture: np.ndarray, heatmap: np.ndarray, opacity: float = 0.6, colours: str = "inferno"
) -> np.ndarray:
    """Lay a heatmap over a picture; where the map is cold the picture stays as it is.

    Parameters
    ----------
    picture : (S, S, 3) uint8 array
    heatmap : (h, w) array in [0, 1], resized to the picture
    opacity : float in [0, 1]
        Of the hottest point.

    Returns
    -------
    (S, S, 3) uint8 array
    """
    heat = np.clip(resize_map(heatmap, picture.shape[0]), 0, 1)
    colour = matplotlib.colormaps[colours](heat)[..., :3] * 255
    weight = opacity * heat[..., None]
    return (picture * (1 - weight) + colour * weight).round().astype(np.uint8)
