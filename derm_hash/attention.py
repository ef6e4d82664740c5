"""Attention gates for residual blocks: the HDC-SA module and the gates it is compared with.

A gate is a module that multiplies a feature map F (B, C, H, W) by an attention map A(F) in (0, 1).
It sits on the residual branch, between the last batch norm and the shortcut:
``out = A(F(x)) * F(x) + x``, which a ResNet passes through a ReLU.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derm_hash.errors import InputError


def conv_bn_relu(inputs: int, outputs: int, kernel_size: int, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps the spatial size, with batch norm and ReLU."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size, padding=padding, dilation=dilation),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def channel_mean_max(x: Tensor) -> Tensor:
    """Pool a feature map over its channels: (B, C, H, W) -> (B, 2, H, W), mean and maximum.

    Where several channels share the maximum, one of them takes its gradient.
    """
    # The same as x.mean(1) and x.amax(1), in forms that are faster on CPUs: `mean` is slow in
    # 16 bits, and so is the backward pass of `amax` (benchmarks/README.md).
    channels = x.shape[1]
    mean = F.conv2d(x, x.new_full((1, channels, 1, 1), 1 / channels))
    return torch.cat([mean, x.max(dim=1, keepdim=True).values], dim=1)


class SpatialGate(nn.Module):
    """Spatial attention from the channel mean and maximum (the spatial half of CBAM).

    ``a = sigmoid(conv7x7([mean_c x, max_c x]))``; Woo et al., "CBAM: Convolutional
    Block Attention Module", ECCV 2018, equation 3.
    """

    def __init__(self, channels: int, kernel_size: int = 7):
        super().__init__()  # `channels` is not used here, but every gate is made from it
        self.merge = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def attention(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> attention map (B, 1, H, W) in (0, 1)."""
        return torch.sigmoid(self.merge(channel_mean_max(x)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> x times its attention map, same shape."""
        return x * self.attention(x)


class HDCSA(SpatialGate):
    """Hybrid dilated convolution spatial attention (Zhang et al., 2022).

    The spatial gate sees a third map beside the channel mean and maximum: the channels are squeezed
    by ``reduction``, to at least one, pass three 3x3 convolutions, and are merged into one map. The
    dilations 1, 2 and 5 see every pixel of a 17 x 17 window; equal ones above 1 leave a grid of
    holes (Wang et al., "Understanding convolution for semantic segmentation", WACV 2018).

    Parameters
    ----------
    channels : int
        Channels C of the feature map.
    reduction : int
        The channels are squeezed to ``max(1, C // reduction)``.
    dilations : tuple of int, one for each 3x3 convolution
    kernel_size : int
        Side of the convolution that merges the three maps (odd).
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        dilations: tuple[int, ...] = (1, 2, 5),
        kernel_size: int = 7,
    ):
        super().__init__(channels, kernel_size)
        squeezed = max(1, channels // reduction)
        self.context = nn.Sequential(
            conv_bn_relu(channels, squeezed, kernel_size=1),
            *[conv_bn_relu(squeezed, squeezed, 3, dilation) for dilation in dilations],
            nn.Conv2d(squeezed, 1, kernel_size=1),
        )
        # Three maps instead of the two of SpatialGate.
        self.merge = nn.Conv2d(3, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def maps(self, x: Tensor) -> Tensor:
        """The three maps of the gate: (B, C, H, W) -> (B, 3, H, W), mean, maximum, context."""
        return torch.cat([channel_mean_max(x), self.context(x)], dim=1)

    def attention(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> attention map (B, 1, H, W) in (0, 1)."""
        return torch.sigmoid(self.merge(self.maps(x)))


def channel_mlp(channels: int) -> nn.Sequential:
    """The MLP of channel attention: two 1x1 convolutions on a (B, C, 1, 1) tensor."""
    squeezed = max(1, channels // 16)
    return nn.Sequential(
        nn.Conv2d(channels, squeezed, 1), nn.ReLU(inplace=True), nn.Conv2d(squeezed, channels, 1)
    )


class SE(nn.Module):
    """Squeeze-and-excitation: one weight for each channel (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int):
        super().__init__()
        self.mlp = channel_mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> x times its channel weights, same shape."""
        return x * torch.sigmoid(self.mlp(x.mean(dim=(2, 3), keepdim=True)))


class CBAM(nn.Module):
    """Channel attention, then spatial attention (Woo et al., ECCV 2018, equations 2 and 3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.mlp = channel_mlp(channels)
        self.spatial = SpatialGate(channels)

    def weigh_channels(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> x times its channel weights, same shape."""
        mean, maximum = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.mlp(mean) + self.mlp(maximum))

    def attention(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> attention map (B, 1, H, W) in (0, 1) of the weighed channels."""
        return self.spatial.attention(self.weigh_channels(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> gated x, same shape."""
        return self.spatial(self.weigh_channels(x))


GATES: dict[str, Callable[[int], nn.Module]] = {
    "hdcsa": HDCSA,
    "hdcsa-plain": partial(HDCSA, dilations=(1, 1, 1)),  # without the wide receptive field
    "spatial": SpatialGate,
    "se": SE,
    "cbam": CBAM,
}


GATE_INITS = ("pytorch", "released")

# The last norm of the residual branch in the blocks of torchvision (ResNet) and timm.
LAST_NORM = {
    "BasicBlock": "bn2",
    "Bottleneck": "bn3",
    "InvertedResidual": "bn3",
    "EdgeResidual": "bn2",
    "DepthwiseSeparableConv": "bn2",
}


def last_norm(block: nn.Module) -> str | None:
    """The name of the last norm of a block's residual branch; None for any other module.

    Blocks are recognised by the name of their class, because importing timm takes seconds. The
    InvertedResidual of torchvision is another class, without a ``bn3``. Blocks of timm without a
    shortcut (``has_skip`` is False) have no residual branch.
    """
    names = (LAST_NORM.get(kind.__name__, "") for kind in type(block).__mro__)
    name = next(filter(None, names), None)
    has_branch = name and hasattr(block, name) and getattr(block, "has_skip", True)
    return name if has_branch else None


def add_attention(
    backbone: nn.Module, gate: str | Callable[[int], nn.Module] | None, init: str = "pytorch"
) -> nn.Module:
    """Put a gate on the residual branch of every residual block of a network, in place.

    Parameters
    ----------
    backbone : network with residual blocks
        The basic and bottleneck blocks of torchvision's and timm's ResNets, and timm's inverted
        residuals (EfficientNet, MobileNet).
    gate : name in ``GATES``, callable ``channels -> Module``, or None for no gate
    init : "pytorch" or "released"
        The initial weights of the gates' convolutions: PyTorch's own, or those of the released
        code, see :func:`released_init`.

    Returns
    -------
    The same network. In each block the last batch norm of the residual branch, ``norm``, is
    replaced by ``Sequential(norm=norm, gate=gate)``.

    Raises
    ------
    InputError
        If a name is unknown or the network has no such block.
    """
    if gate is None:
        return backbone
    if not callable(gate) and gate not in GATES:
        raise InputError(f"Unknown attention {gate!r}: choose one of {', '.join(GATES)}, or None")
    if init not in GATE_INITS:
        raise InputError(f"Unknown gate_init {init!r}: choose one of {', '.join(GATE_INITS)}")
    make_gate = gate if callable(gate) else GATES[gate]
    blocks = [(block, name) for block in backbone.modules() if (name := last_norm(block))]
    if not blocks:
        raise InputError(
            f"The backbone {type(backbone).__name__} has no block that an attention gate "
            "fits: choose a ResNet, EfficientNet or MobileNet, or attention=None"
        )
    for block, name in blocks:
        norm = getattr(block, name)
        gated = nn.Sequential(OrderedDict(norm=norm, gate=make_gate(len(norm.weight))))
        if init == "released":
            gated.gate.apply(released_init)
        setattr(block, name, gated)
    return backbone


def released_init(module: nn.Module) -> None:
    """Draw a convolution's weights with standard deviation sqrt(2 / (k * k * out)) and mean 0.

    The released code does this, and torchvision's ResNets do it for their own convolutions. Other
    modules stay as they are.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
