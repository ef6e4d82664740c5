"""The network against torchvision's, and its files."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import color_data, network_input, one_sentence
from torchvision.models import resnet18

from derm_hash.attention import GATES
from derm_hash.data.dataset import LesionDataset
from derm_hash.errors import InputError
from derm_hash.experiments.scoring import score_model
from derm_hash.model import BACKBONES, DermHash, OrbitMean, encode
from derm_hash.retrieval import build_index
from derm_hash.rotations import disc_mask, inside_disc, rotate, rotation_orbit
from derm_hash.runs import load_model, save_model
from derm_hash.tensors import save_tensors

pytestmark = pytest.mark.usefixtures("one_thread")


def small(**changes):
    torch.manual_seed(0)
    return DermHash(**{"backbone": "resnet10", "bits": 8, "classes": 3} | changes)


def shaken(model):
    """The model in evaluation mode, with batch norms that do something."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif name.endswith("running_mean"):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    return model.eval()


def parameters(model):
    return sum(p.numel() for p in model.parameters())


# --- the arithmetic ---------------------------------------------------------------------


def test_the_code_is_a_sigmoid_on_the_features_of_torchvisions_resnet():
    model = shaken(small(backbone="resnet18", attention=None)).double()
    resnet = resnet18()
    resnet.fc = torch.nn.Identity()
    resnet.double().eval().load_state_dict(model.backbone.state_dict())
    x = network_input(2, 64).double()
    with torch.no_grad():
        out = model(x)
        code = torch.sigmoid(F.linear(resnet(x), model.hash_layer.weight, model.hash_layer.bias))
    torch.testing.assert_close(out.code, code)
    torch.testing.assert_close(
        out.logits, F.linear(code, model.classifier.weight, model.classifier.bias)
    )
    assert torch.equal(model.hash(x), code > 0.5)
    assert (code[0] - code[1]).abs().max() > 1e-5  # the images do make a difference


def test_the_parameters_are_counted_by_hand():
    assert parameters(DermHash(attention=None)) == 11_184_788
    assert parameters(DermHash()) == 11_304_492
    # ResNet-18 of torchvision without its 512 -> 1000 layer, hash layer, classifier, gates.
    resnet = 11_689_512 - (512 * 1000 + 1000)
    heads = (512 * 16 + 16) + (16 * 4 + 4)
    gates = 2 * (888 + 3004 + 11364 + 44596)
    assert resnet + heads == 11_184_788
    assert resnet + heads + gates == 11_304_492


@pytest.mark.parametrize("shape", [(32, 32), (33, 33), (47, 47), (96, 80)])
def test_any_size_from_32_pixels_works(shape):
    out = small().eval()(network_input(1, max(shape))[:, :, : shape[0], : shape[1]])
    assert (out.logits.shape, out.code.shape) == ((1, 3), (1, 8))
    assert ((out.code > 0) & (out.code < 1)).all()


def test_batch_norm_counts_one_batch_for_the_whole_orbit():
    model = small().train()
    x = rotation_orbit(network_input(2)).flatten(0, 1)
    model(x)
    counts = {v.item() for k, v in model.state_dict().items() if k.endswith("batches_tracked")}
    assert counts == {1}
    first = F.conv2d(x, model.backbone.conv1.weight, stride=2, padding=3).mean(dim=(0, 2, 3))
    torch.testing.assert_close(model.backbone.bn1.running_mean, 0.1 * first, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "resnet19"}, "'resnet19': choose one of resnet10, resnet8, resnet18"),
        ({"attention": "hdsca"}, "'hdsca': choose one of hdcsa"),
        ({"weights": "coco"}, "no file of weights at coco: choose None, 'imagenet', or the path"),
        ({"weights": "imagenet"}, "no ImageNet weights for resnet10"),
        ({"bits": 0}, "at least 1 bit and 1 class, not 0 and 3"),
        ({"classes": 0}, "not 8 and 0"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        small(**changes)


# --- encoding ------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_encode_is_the_evaluated_model_and_leaves_the_mode(training):
    model = shaken(small())
    x = network_input(7)
    with torch.no_grad():
        expected = model(x).code.numpy()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    codes = encode(model.train(training), x, batch_size=3)
    assert model.training is training
    assert codes.dtype == np.float32
    np.testing.assert_allclose(codes, expected, atol=1e-6)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_encode_in_bfloat16_agrees_within_a_hundredth():
    torch.manual_seed(0)
    model = DermHash("resnet10").eval()
    with torch.no_grad():
        model.hash_layer.weight.mul_(16)  # codes that differ
    x = network_input(12, 48)
    exact, fast = encode(model, x), encode(model, x, bf16=True)
    assert fast.dtype == np.float32 and np.ptp(exact) > 0.4
    np.testing.assert_allclose(fast, exact, atol=0.01)
    assert not np.array_equal(fast, exact)
    # What is near 1 is not rounded to bfloat16's few numbers there.
    as_bfloat16 = torch.from_numpy(fast).bfloat16().float().numpy()
    assert (fast != as_bfloat16).mean() > 0.9


def test_encode_takes_bytes_and_data_sets():
    model = shaken(small())
    data = color_data()
    expected = encode(model, data.images.float() / 127.5 - 1)
    np.testing.assert_allclose(encode(model, data.images), expected, atol=1e-6)
    np.testing.assert_allclose(encode(model, data, progress=True), expected, atol=1e-6)


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["hdcsa", None])
def test_a_model_survives_saving_and_loading(tmp_path, attention):
    about = {"class_names": ("MEL", "NV", "Ä"), "image_size": 64}
    model = shaken(small(attention=attention, **about)).to(memory_format=torch.channels_last)
    path = save_model(model, tmp_path / "model.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    for where in (path, str(path), tmp_path):
        again = load_model(where)
        assert not again.training
        assert (again.bits, again.class_names, again.image_size) == (8, ("MEL", "NV", "Ä"), 64)
    x = network_input(2)
    with torch.no_grad():
        for ours, expected in zip(again(x), model(x), strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())


def test_a_missing_model_says_how_to_make_one(tmp_path):
    for path in (tmp_path, tmp_path / "absent.safetensors"):
        with pytest.raises(InputError, match="derm-hash train"):
            load_model(path)


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    about = {"derm_hash": json.dumps(small(attention="se").settings)}
    save_tensors(path, small(attention=None).state_dict(), about)
    with one_sentence(path, "is not a model "):
        load_model(path)


def test_a_model_with_a_gate_of_your_own_is_not_saved(tmp_path):
    model = small(attention=lambda channels: torch.nn.Identity())
    with pytest.raises(InputError, match="give it a name in GATES first"):
        save_model(model, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


# --- every backbone ---------------------------------------------------------------------------


BLOCKS = {"resnet10": 4, "resnet18": 8, "resnet34": 16, "resnet50": 16}
BLOCKS |= {"tf_efficientnet_lite0": 9, "resnet26": 8}  # of timm
HEAVY = ("resnet34", "resnet50", "resnet26")


@pytest.mark.parametrize("attention", [None, *GATES])
@pytest.mark.parametrize(
    "backbone", [pytest.param(b, marks=pytest.mark.slow if b in HEAVY else ()) for b in BLOCKS]
)
def test_every_gate_on_every_backbone_learns_saves_and_loads(tmp_path, backbone, attention):
    if backbone not in BACKBONES:
        pytest.importorskip("timm", reason="the extra `pretrained` is not installed")
    model = small(backbone=backbone, attention=attention)
    assert sum(name.endswith(".gate") for name, _ in model.named_modules()) == (
        BLOCKS[backbone] if attention else 0
    )
    x = network_input(2)
    out = model.train()(x)
    out.logits.logsumexp(1).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    again = load_model(save_model(model.eval(), tmp_path / "model.safetensors"))
    assert again.settings == model.settings
    with torch.no_grad():
        assert torch.equal(again(x).code, model(x).code)
    (tmp_path / "model.safetensors").unlink()  # they are large


# --- the disc ---------------------------------------------------------------------------------


def test_a_model_of_the_disc_never_sees_the_corners(tmp_path):
    model = shaken(small(disc=True))
    x = network_input(3)
    with torch.no_grad():
        code = model(x).code
        assert torch.equal(model(x.masked_fill(~disc_mask(x.shape[-1]), 1)).code, code)
        square = shaken(small())
        torch.testing.assert_close(square(inside_disc(x)).code, code)
        assert not torch.equal(square(x).code, code)
        # What an orbit of eight shows of the unturned image, up to resampling at 0 degrees.
        torch.testing.assert_close(model(rotate(x, 0)).code, code, rtol=0, atol=1e-5)
    again = load_model(save_model(model, tmp_path / "model.safetensors"))
    assert again.settings["disc"]
    assert torch.equal(again(x).code, code)


# --- the mean over the orbit --------------------------------------------------------------------


def test_the_mean_over_the_orbit_does_not_change_under_quarter_turns():
    for dtype, rounding in [(torch.float32, 1e-6), (torch.float64, 1e-14)]:
        model = shaken(small()).to(dtype)
        mean, x = OrbitMean(model), network_input(5).to(dtype)
        with torch.no_grad():
            out = mean(x)
            for k in (1, 2, 3):
                turned = mean(torch.rot90(x, k, (2, 3)))
                torch.testing.assert_close(turned.code, out.code, rtol=0, atol=rounding)
                torch.testing.assert_close(turned.logits, out.logits, rtol=0, atol=rounding * 10)
            # The model inside does change.
            moved = (model(torch.rot90(x, 1, (2, 3))).code - model(x).code).abs().max()
        assert moved > 100 * rounding


def test_the_mean_over_the_orbit_by_hand():
    model, x = shaken(small()), network_input(3)
    with torch.no_grad():
        codes = [model(torch.from_numpy(np.rot90(x, k, (2, 3)).copy())).code for k in range(4)]
        out = OrbitMean(model)(x)
    code = sum(codes) / 4
    torch.testing.assert_close(out.code, code)
    torch.testing.assert_close(out.logits, model.classifier(code).detach())


def test_the_mean_over_the_orbit_stands_in_for_its_model():
    data = color_data()
    model = shaken(small(class_names=data.classes, image_size=32))
    mean = OrbitMean(model)
    turned = LesionDataset(torch.rot90(data.images, 1, (2, 3)), data.table, data.classes)
    np.testing.assert_allclose(encode(mean, turned), encode(mean, data), atol=1e-6)
    index = build_index(mean, data.split("database"))
    hits = index.search(encode(mean, turned.split("query")), radius=None)
    expected = index.search(encode(mean, data.split("query")), radius=None)
    assert np.array_equal(hits.hamming, expected.hamming)
    assert score_model(mean, data)[0]["flipped_bits"] == 0
    assert score_model(model, data)[0]["flipped_bits"] > 0
