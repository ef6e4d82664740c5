"""Attention gates for residual blocks: the HDC-SA module and the gates it is compared with.

A gate is a module g(f) = f * a(f) for a feature map f (B, C, H, W), with a(f) in (0, 1). It sits on
the residual branch, between the last batch norm and the shortcut: ``out = relu(g(F(x)) + x)``.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

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

    ``gate = sigmoid(conv7x7([mean_c x, max_c x]))``; Woo et al., "CBAM: Convolutional
    Block Attention Module", ECCV 2018, equation 3.
    """

    def __init__(self, channels: int, kernel_size: int = 7):
        super().__init__()
        self.merge = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def attention(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> gate (B, 1, H, W) in (0, 1)."""
        return torch.sigmoid(self.merge(channel_mean_max(x)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> x times its gate, same shape."""
        return x * self.attention(x)


class HDCSA(SpatialGate):
    """Hybrid dilated convolution spatial attention (Zhang et al., 2022).

    The spatial gate sees a third map beside the channel mean and maximum: the channels are squeezed
    by ``reduction``, pass three 3x3 convolutions, and are merged into one map. The dilations 1, 2
    and 5 see every pixel of a 17 x 17 window; equal ones above 1 leave a grid of holes (Wang et
    al., "Understanding convolution for semantic segmentation", WACV 2018).

    Parameters
    ----------
    channels : int
        Channels C of the feature map; a multiple of ``reduction``, else `InputError`.
    reduction : int
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
        if channels < reduction or channels % reduction:
            raise InputError(
                f"HDCSA cannot squeeze {channels} channels by {reduction}: "
                "choose a reduction that divides the number of channels"
            )
        super().__init__(channels, kernel_size)
        squeezed = channels // reduction
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
        """(B, C, H, W) -> gate (B, 1, H, W) in (0, 1)."""
        return torch.sigmoid(self.merge(self.maps(x)))


def channel_mlp(channels: int) -> nn.Sequential:
    """The MLP of channel attention: two 1x1 convolutions on a (B, C, 1, 1) tensor."""
    return nn.Sequential(
        nn.Conv2d(channels, channels // 16, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels // 16, channels, 1),
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

    def channel_attention(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> x times its channel weights, same shape."""
        mean, maximum = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.mlp(mean) + self.mlp(maximum))

    def attention(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> spatial gate (B, 1, H, W) in (0, 1)."""
        return self.spatial.attention(self.channel_attention(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> gated x, same shape."""
        return self.spatial(self.channel_attention(x))


GATES: dict[str, Callable[[int], nn.Module]] = {
    "hdcsa": HDCSA,
    "hdcsa-plain": partial(HDCSA, dilations=(1, 1, 1)),  # without the wide receptive field
    "spatial": SpatialGate,
    "se": SE,
    "cbam": CBAM,
}


def add_attention(backbone: ResNet, gate: str | Callable[[int], nn.Module] | None) -> ResNet:
    """Put a gate on the residual branch of every block of a torchvision ResNet, in place.

    Parameters
    ----------
    backbone : torchvision ResNet
    gate : name in ``GATES``, callable ``channels -> Module``, or None for no gate

    Returns
    -------
    The same ResNet. In each block the last batch norm, ``norm``, is replaced by
    ``Sequential(norm=norm, gate=gate)``.

    Raises
    ------
    InputError
        If the name is unknown or the gate cannot squeeze a block's channels.
    """
    if gate is None:
        return backbone
    if not callable(gate) and gate not in GATES:
        raise InputError(f"Unknown attention {gate!r}: choose one of {', '.join(GATES)}, or None")
    make_gate = gate if callable(gate) else GATES[gate]
    for block in backbone.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            name = "bn2" if isinstance(block, BasicBlock) else "bn3"
            norm = getattr(block, name)
            gated = OrderedDict(norm=norm, gate=make_gate(norm.num_features))
            setattr(block, name, nn.Sequential(gated))
    return backbone
