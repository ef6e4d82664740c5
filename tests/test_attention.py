"""The gates, against arithmetic written with torch.nn.functional alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

from derm_hash.attention import CBAM, GATES, HDCSA, SE, add_attention, channel_mean_max
from derm_hash.errors import InputError


def features(channels, size=9, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, size, size, generator=generator)


def shaken(module, seed=0):
    """The module in evaluation mode, with random numbers in everything it has learned."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.is_floating_point():
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return module.eval()


def by_hand(x, weights, dilations):
    """The gate of HDC-SA from its definition; ``weights`` in the order of the definition."""
    weights = list(weights)

    def conv_norm_relu(maps, dilation):
        kernel, bias, scale, shift, mean, variance = (weights.pop(0) for _ in range(6))
        padding = dilation * (kernel.shape[-1] // 2)
        maps = F.conv2d(maps, kernel, bias, padding=padding, dilation=dilation)
        return F.relu(F.batch_norm(maps, mean, variance, scale, shift, eps=1e-5))

    context = conv_norm_relu(x, 1)
    for dilation in dilations:
        context = conv_norm_relu(context, dilation)
    context = F.conv2d(context, weights.pop(0), weights.pop(0))
    maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values, context], 1)
    return torch.sigmoid(F.conv2d(maps, weights.pop(0), padding=3))


def in_order(gate):
    """What an HDC-SA gate has learned, in the order of its definition."""
    state = {k: v for k, v in gate.state_dict().items() if "num_batches" not in k}
    merge = state.pop("merge.weight")
    return [*state.values(), merge]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2**-8)]
)
def test_pooling_over_channels_is_the_plain_mean_and_maximum(dtype, tolerance):
    x = features(64).to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    expected = torch.stack([exact.mean(dim=1), exact.amax(dim=1)], dim=1)
    pooled = channel_mean_max(x)
    torch.testing.assert_close(pooled.double(), expected, rtol=0, atol=tolerance)
    pull = torch.randint(-3, 4, expected.shape, generator=torch.Generator().manual_seed(1))
    pooled.backward(pull.to(dtype))
    # The gradient of the mean goes to all channels, that of the maximum to one that has it.
    largest = (exact == exact.amax(dim=1, keepdim=True)).sum(dim=1)
    alone = (largest == 1)[:, None].expand_as(x)
    expected.backward(pull.double())
    torch.testing.assert_close(
        x.grad[alone].double(),
        exact.grad[alone],
        rtol=2**-7 if dtype == torch.bfloat16 else 0,
        atol=tolerance,
    )
    assert alone.double().mean() > 0.9


def test_one_of_equal_maxima_takes_the_gradient():
    x = torch.tensor([1.0, 3.0, 3.0]).view(1, 3, 1, 1).requires_grad_()
    channel_mean_max(x)[:, 1].sum().backward()
    assert sorted(x.grad.flatten().tolist()) == [0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("channels", "size", "dilations"),
    [
        *((64, 16, (1, 2, 5)), (128, 5, (1, 2, 5)), (64, 1, (1, 2, 5))),
        *((32, 9, (1,)), (32, 9, (2, 3)), (32, 9, (1, 2, 5, 9))),
    ],
)
def test_hdcsa_is_its_definition(channels, size, dilations, dtype):
    gate = shaken(HDCSA(channels, dilations=dilations)).to(dtype)
    x = features(channels, size).to(dtype)
    expected = by_hand(x, in_order(gate), dilations)
    assert expected.shape == (2, 1, size, size)
    torch.testing.assert_close(gate.attention(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(gate(x), x * expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        gate.maps(x)[:, :2], torch.stack([x.mean(1), x.max(1).values], 1), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("name", "side"), [("hdcsa", 17), ("hdcsa-plain", 7)])
def test_the_context_sees_every_pixel_of_its_window_and_none_outside(name, side):
    gate = GATES[name](16)
    for parameter in gate.parameters():
        nn.init.ones_(parameter)  # positive everywhere: no ReLU hides a path
    x = torch.ones(1, 16, 25, 25, requires_grad=True)
    gate.eval().maps(x)[0, 2, 12, 12].backward()
    seen = torch.zeros(25, 25, dtype=torch.bool)
    seen[12 - side // 2 : 13 + side // 2, 12 - side // 2 : 13 + side // 2] = True
    assert torch.equal(x.grad[0].abs().sum(0) > 0, seen)


@pytest.mark.parametrize(("channels", "squeezed"), [(8, 1), (24, 1), (40, 2), (112, 7)])
@pytest.mark.parametrize("name", ["hdcsa", "se", "cbam"])
def test_channels_that_16_does_not_divide_are_squeezed_to_the_whole_part_but_at_least_one(
    name, channels, squeezed
):
    gate = GATES[name](channels)
    first = next(
        module
        for module in gate.modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == channels
    )
    assert first.out_channels == squeezed
    assert gate(features(channels)).shape == features(channels).shape


def bottleneck(pooled, w1, b1, w2, b2):
    """The bottleneck on pooled channels (B, C), with matrices instead of convolutions."""
    return F.linear(F.relu(F.linear(pooled, w1.flatten(1), b1)), w2.flatten(1), b2)


def test_se_is_its_definition():
    gate = shaken(SE(32))
    x = features(32)
    weights = torch.sigmoid(bottleneck(F.adaptive_avg_pool2d(x, 1).flatten(1), *gate.parameters()))
    torch.testing.assert_close(gate(x), x * weights[:, :, None, None], rtol=0, atol=1e-6)


def test_cbam_is_its_definition():
    gate = shaken(CBAM(32))
    x = features(32)
    mlp = list(gate.mlp.parameters())
    mean, peak = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
    channel = torch.sigmoid(bottleneck(mean.flatten(1), *mlp) + bottleneck(peak.flatten(1), *mlp))
    weighed = x * channel[:, :, None, None]
    maps = torch.stack([weighed.mean(1), weighed.max(1).values], 1)
    spatial = torch.sigmoid(F.conv2d(maps, gate.spatial.merge.weight, padding=3))
    torch.testing.assert_close(gate.attention(x), spatial, rtol=0, atol=1e-6)
    torch.testing.assert_close(gate(x), weighed * spatial, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", GATES)
def test_every_gate_keeps_the_shape_and_lets_through_a_share(name):
    gate = shaken(GATES[name](64))
    x = features(64, size=7)
    share = gate(x) / x
    assert share.shape == x.shape
    assert 0 < share.min() < share.max() < 1


def test_the_gate_sits_between_the_last_norm_and_the_shortcut():
    torch.manual_seed(0)
    network = add_attention(resnet18(), lambda channels: Half())
    block = network.layer2[0].eval()
    x = features(64, size=8)
    inner = block.bn1(block.conv1(x)).relu()
    branch = F.batch_norm(
        block.conv2(inner),
        block.bn2.norm.running_mean,
        block.bn2.norm.running_var,
        block.bn2.norm.weight,
        block.bn2.norm.bias,
    )
    torch.testing.assert_close(block(x), F.relu(branch / 2 + block.downsample(x)))


class Half(nn.Module):
    def forward(self, x):
        return x / 2


def test_the_residual_branches_of_timm_get_gates_and_blocks_without_a_shortcut_get_none():
    timm = pytest.importorskip("timm", reason="the extra `pretrained` is not installed")
    torch.manual_seed(0)
    widths = []
    network = timm.create_model("tf_efficientnet_lite0")
    add_attention(network, lambda channels: widths.append(channels) or Half())
    gated = {name for name, module in network.named_modules() if isinstance(module, Half)}
    has_shortcut = {n for n, m in network.named_modules() if getattr(m, "has_skip", False)}
    assert gated == {f"{block}.bn3.gate" for block in has_shortcut}
    assert widths == [24, 40, 80, 80, 112, 112, 192, 192, 192]
    block = network.eval().blocks[2][1]
    x = features(40)
    inner = block.bn2(block.conv_dw(block.bn1(block.conv_pw(x))))
    branch = block.bn3.norm(block.conv_pwl(inner))
    torch.testing.assert_close(block(x), branch / 2 + x)


@pytest.mark.parametrize(("name", "blocks"), [("resnet10t", 4), ("resnet26", 8)])
def test_the_blocks_of_timms_resnets_get_gates(name, blocks):
    timm = pytest.importorskip("timm", reason="the extra `pretrained` is not installed")
    network = add_attention(timm.create_model(name, zero_init_last=False), lambda channels: Half())
    assert sum(isinstance(m, Half) for m in network.modules()) == blocks
    block = network.layer1[0].eval()
    x = features(64)
    whole = block(x)
    for norm in [part for part in block.children() if hasattr(part, "gate")]:
        norm.norm.weight.data /= 2
        norm.norm.bias.data /= 2
        norm.gate = nn.Identity()
    torch.testing.assert_close(block(x), whole)


def test_an_unknown_gate_and_a_network_without_a_known_block_are_refused():
    with pytest.raises(InputError, match=r"'hdsca': choose one of hdcsa, .*cbam, or None"):
        add_attention(resnet18(), "hdsca")
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    with pytest.raises(InputError, match=r"Sequential has no block .* or attention=None"):
        add_attention(network, "hdcsa")


def test_the_released_code_draws_convolutions_by_their_outgoing_connections():
    torch.manual_seed(0)
    gates = {init: add_attention(resnet18(), "hdcsa", init) for init in ("pytorch", "released")}
    wide = {init: network.layer4[0].bn2.gate.context for init, network in gates.items()}
    for layer, kernel in ((0, 1), (1, 3), (2, 3), (3, 3)):  # 32 channels come out of each
        weight = wide["released"][layer][0].weight
        std = (2 / (kernel * kernel * 32)) ** 0.5
        assert weight.std().item() == pytest.approx(std, rel=0.05)
        assert (weight.abs() > 2 * std).float().mean().item() == pytest.approx(0.0455, abs=0.01)
        limit = 3**0.5 * (3 * weight[0].numel()) ** -0.5  # PyTorch: uniform, by the incoming ones
        assert wide["pytorch"][layer][0].weight.abs().max() <= limit
    with pytest.raises(InputError, match="gate_init 'zero': choose one of pytorch, released"):
        add_attention(resnet18(), "hdcsa", "zero")


def test_no_gate_leaves_the_network_as_it_is():
    backbone = resnet18()
    before = [name for name, _ in backbone.named_modules()]
    assert [name for name, _ in add_attention(backbone, None).named_modules()] == before
