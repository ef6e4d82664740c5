"""Heatmaps against the same arithmetic written out with autograd and functional calls."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import Pocket, network_input

from derm_hash.errors import InputError
from derm_hash.heatmaps import (
    BitTarget,
    ClassTarget,
    MatchTarget,
    cam_layer,
    gate_maps,
    grad_cam,
    resize_map,
)
from derm_hash.model import DermHash, HashOutput


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DermHash("resnet10", bits=8, classes=3).eval()


@pytest.fixture(scope="module")
def x():
    return network_input(2, 64, seed=1)


def cam_by_hand(model, x, layer, score):
    """Grad-CAM of one image from its definition: ReLU of the gradient-weighted mean of maps."""
    kept = []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    out = model(x[None])
    hook.remove()
    (gradient,) = torch.autograd.grad(score(HashOutput(out.logits[0], out.code[0])), kept[0])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    cam = torch.relu((weights * kept[0]).sum(dim=1))[0].detach().numpy()
    cam = cv2.resize(cam - cam.min(), x.shape[-2:])
    cam = cam - cam.min()
    return cam / max(cam.max(), 1e-7)


@pytest.mark.parametrize(
    ("target", "score"),
    [
        (ClassTarget(2), lambda out: out.logits[2]),
        (BitTarget(5), lambda out: (out.code[5] / (1 - out.code[5])).log().abs()),
        (
            MatchTarget(np.linspace(0.9, 0.1, 8)),
            lambda out: (
                F.normalize(out.code, dim=0) @ F.normalize(torch.linspace(0.9, 0.1, 8), dim=0)
            ),
        ),
    ],
)
def test_grad_cam_is_its_definition(model, x, target, score):
    cams = grad_cam(model, x, target)
    layer = cam_layer(model, 64)
    for image, cam in zip(x, cams, strict=True):
        np.testing.assert_allclose(cam, cam_by_hand(model, image, layer, score), atol=2e-3)
    assert cams.shape == (2, 64, 64) and cams.max() > 0.99


@pytest.mark.parametrize("bias", [20, -30])
def test_a_bit_that_is_decided_beyond_the_precision_of_its_code_is_explained_too(model, x, bias):
    """What is added to a bit's value everywhere is nowhere in the image: the map stays."""
    before = grad_cam(model, x, BitTarget(5, on=True))
    with torch.no_grad():
        model.hash_layer.bias[5] += bias
    np.testing.assert_allclose(grad_cam(model, x, BitTarget(5, on=True)), before, atol=1e-4)


def test_grad_cam_leaves_the_model_as_it_was(model, x):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        assert grad_cam(model, x[:1], ClassTarget(0)).shape == (1, 64, 64)
    assert model.training
    model.eval()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("size", "stage"), [(32, "layer1"), (48, "layer2"), (96, "layer3"), (224, "layer4")]
)
def test_cam_layer_still_says_where(model, size, stage):
    assert cam_layer(model, size) is getattr(model.backbone, stage)


def test_backbones_of_timm_are_explained_too(x):
    pytest.importorskip("timm", reason="the extra `pretrained` is not installed")
    model = DermHash("tf_efficientnet_lite0", bits=8, classes=3).eval()
    assert cam_layer(model, 96) is model.backbone.blocks[4]  # a sixteenth of 96 is 6
    assert cam_layer(model, 224) is model.backbone.blocks[6]
    cams = grad_cam(model, x, ClassTarget(1))
    for image, cam in zip(x, cams, strict=True):
        by_hand = cam_by_hand(model, image, cam_layer(model, 64), lambda out: out.logits[1])
        np.testing.assert_allclose(cam, by_hand, atol=2e-3)
    maps = gate_maps(model, x)
    assert len(maps) == 9
    assert maps["blocks.1.1"].shape == (2, 16, 16)


def test_a_backbone_with_unknown_stages_asks_for_the_layer(x):
    model = DermHash(lambda weights: Pocket(), attention=None)
    with pytest.raises(InputError, match="layer="):
        cam_layer(model, 64)
    assert grad_cam(model, x, ClassTarget(0), model.backbone.block).shape == (2, 64, 64)


def test_bit_target_speaks_for_the_bit_as_it_is():
    output = HashOutput(torch.zeros(1), torch.tensor([0.8, 0.2]))
    log_odds = float(np.log(0.8 / 0.2))
    assert float(BitTarget(0)(output)) == pytest.approx(log_odds, abs=1e-5)
    assert float(BitTarget(1)(output)) == pytest.approx(log_odds, abs=1e-5)
    # Or for one of the two values, which the other speaks against.
    assert float(BitTarget(1, on=True)(output)) == pytest.approx(-log_odds, abs=1e-5)
    assert float(BitTarget(0, on=False)(output)) == pytest.approx(-log_odds, abs=1e-5)


def test_gate_maps_are_the_gates_that_multiply(model, x):
    """Each block's output must be relu(shortcut + gate * residual) with the gate reported."""
    maps = gate_maps(model, x)
    assert list(maps) == ["layer1.0", "layer2.0", "layer3.0", "layer4.0"]
    block = model.backbone.layer1[0]
    net = model.backbone
    with torch.no_grad():
        before = net.maxpool(net.bn1(net.conv1(x)).relu())
        residual = block.bn2.norm(block.conv2(block.bn1(block.conv1(before)).relu()))
        gate = torch.as_tensor(maps["layer1.0"])[:, None]
        torch.testing.assert_close(torch.relu(before + gate * residual), block(before))
    assert all(gate.min() > 0 and gate.max() < 1 for gate in maps.values())


def test_gate_maps_need_a_spatial_gate(x):
    with pytest.raises(InputError, match="no spatial gate"):
        gate_maps(DermHash("resnet10", attention="se"), x)


def test_a_resized_map_keeps_a_constant_and_the_range_of_any_view():
    np.testing.assert_allclose(resize_map(np.full((3, 3), 0.25), 12), 0.25)
    big = resize_map(np.eye(4), 16)
    assert big.shape == (16, 16) and big.min() >= 0 and big.max() <= 1
    heat = np.arange(16.0).reshape(4, 4)
    np.testing.assert_allclose(resize_map(np.rot90(heat), 4), np.rot90(heat))
