"""DermHash: a ResNet with attention gates, a hash layer, and a classifier on the code."""

from pickle import UnpicklingError
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet
from tqdm.auto import tqdm

from derm_hash.attention import add_attention
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import to_input
from derm_hash.errors import InputError
from derm_hash.rotations import inside_disc, rotation_orbit

BACKBONES = ("resnet10", "resnet18", "resnet34", "resnet50")


class HashOutput(NamedTuple):
    """What the network says of a batch: logits (B, classes) and soft code (B, bits) in [0, 1]."""

    logits: Tensor
    code: Tensor


def make_backbone(name: str, weights: str | None) -> ResNet:
    """A torchvision ResNet, random (None) or with its ImageNet weights ("imagenet").

    "resnet10" has one block in each of the four stages where ResNet-18 has two: half the
    work, for lessons on a CPU.
    """
    if name not in BACKBONES:
        raise InputError(f"Unknown backbone {name!r}: choose one of {', '.join(BACKBONES)}.")
    if weights not in (None, "imagenet"):
        raise InputError(f"Unknown weights {weights!r}: choose None or 'imagenet'.")
    if name == "resnet10":
        if weights:
            raise InputError("There are no ImageNet weights for resnet10: use resnet18 or larger.")
        return ResNet(BasicBlock, [1, 1, 1, 1])
    try:
        return torchvision.models.get_model(name, weights="DEFAULT" if weights else None)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        # OSError: the network. RuntimeError: the wrong hash. The others: a spoiled cache.
        if weights is None:
            raise
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"The ImageNet weights of {name} could not be loaded ({reason}): connect to the "
            f"network, delete {name}-*.pth in {torch.hub.get_dir()}/checkpoints if it is there "
            "and try again, or go on without them (weights=None)."
        ) from error


class DermHash(nn.Module):
    """Deep hashing network for dermoscopic images (Zhang et al., 2022).

    ResNet features -> global average pooling -> linear hash layer -> sigmoid = soft
    code h in (0, 1)^bits -> linear classifier on h. The hash code is h > 0.5.

    Parameters
    ----------
    backbone : str
        A name in ``BACKBONES``.
    bits : int
        Length of the code.
    classes : int
        Number of classes of the classifier.
    attention : str, callable or None
        The gate of every residual block, as in :func:`derm_hash.attention.add_attention`.
    weights : None or "imagenet"
        Random initialisation, or torchvision's ImageNet weights (downloaded on first use).
    disc : bool
        Look at the disc inscribed in the image alone, in training and ever after. A model
        trained on an orbit that is cut to the disc never saw corners, so it must not see them
        in a query or in the database either.

    Attributes
    ----------
    classifier_shapes_code : bool
        Whether the classifier's gradient reaches the code, as in the paper. If not, the
        classifier only reads the codes that something else has shaped.
    class_names : tuple of str
        Names of the classes, in the order of the logits.
    image_size : int or None
        Side in pixels of the images that the model was trained on.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        bits: int = 16,
        classes: int = 4,
        attention: str | None = "hdcsa",
        weights: str | None = None,
        disc: bool = False,
    ):
        super().__init__()
        if bits < 1 or classes < 1:
            raise InputError(f"A model needs at least 1 bit and 1 class, not {bits} and {classes}.")
        self.settings = {
            "backbone": backbone,
            "bits": bits,
            "classes": classes,
            "attention": attention,
            "disc": disc,
        }
        self.classifier_shapes_code = True
        self.class_names = tuple(f"class {i}" for i in range(classes))
        self.image_size: int | None = None
        self.backbone = add_attention(make_backbone(backbone, weights), attention)
        features = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        self.hash_layer = nn.Linear(features, bits)
        self.classifier = nn.Linear(bits, classes)

    @property
    def bits(self) -> int:
        """Length of the code."""
        return self.hash_layer.out_features

    def forward(self, x: Tensor) -> HashOutput:
        """Images (B, 3, H, W) in [-1, 1], H and W at least 32 (and equal for ``disc``)."""
        if self.settings["disc"]:
            x = inside_disc(x)
        features = self.backbone(x)
        # In 32 bits even if the backbone is in 16: between 1/2 and 1 bfloat16 knows 128 numbers,
        # too few to rank codes that training has driven close to 0 and 1.
        with torch.autocast(x.device.type, enabled=False):
            code = torch.sigmoid(self.hash_layer(features.to(self.hash_layer.weight.dtype)))
            read = code if self.classifier_shapes_code else code.detach()
            return HashOutput(self.classifier(read), code)

    @torch.no_grad()
    def hash(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> hash code (B, bits) bool."""
        return self(x).code > 0.5


class OrbitMean(nn.Module):
    """Invariance by construction: the mean of a model's soft code over the orbit of an image.

    For n = 1, 2 or 4 turning the image only changes the order of the orbit, so the mean does
    not change, whatever the model has learned (up to the rounding of a sum). The price is n
    forward passes for every image that is encoded. Other n resample the image inside its
    disc: give them a model trained on discs, and expect a mean that is nearly invariant.

    Stands in for a DermHash wherever codes are made (``encode``, ``build_index``,
    ``rotation_report``; ``dataclasses.replace(run, model=OrbitMean(run.model))`` for a run).
    The database and the queries need the same one. It is used, not trained or saved: save
    the model inside.

    Parameters
    ----------
    model : DermHash
    n : int
        Members of the orbit, see :func:`derm_hash.rotations.rotation_orbit`.
    """

    def __init__(self, model: DermHash, n: int = 4):
        super().__init__()
        if n < 1:
            raise InputError(f"An orbit has at least one member: n must be 1 or more, not {n}.")
        self.model, self.n = model, n
        self.class_names, self.image_size = model.class_names, model.image_size
        self.train(model.training)

    @property
    def bits(self) -> int:
        """Length of the code."""
        return self.model.bits

    def forward(self, x: Tensor) -> HashOutput:
        """Images (B, 3, H, H) -> HashOutput, the means over their orbit.

        The classifier is linear, so the mean logits are those of the mean code.
        """
        outputs = [self.model(turned) for turned in rotation_orbit(x, self.n)]
        logits, codes = zip(*outputs, strict=True)
        return HashOutput(torch.stack(logits).mean(dim=0), torch.stack(codes).mean(dim=0))

    @torch.no_grad()
    def hash(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, H) in [-1, 1] -> hash code (B, bits) bool."""
        return self(x).code > 0.5


@torch.no_grad()
def encode(
    model: nn.Module,
    images: LesionDataset | Tensor,
    batch_size: int = 64,
    progress: bool = False,
    bf16: bool = False,
) -> np.ndarray:
    """Soft codes of many images, in evaluation mode.

    Parameters
    ----------
    model : DermHash or OrbitMean
    images : LesionDataset, or (N, 3, S, S) tensor
        uint8, or floating point in [-1, 1].
    bf16 : bool
        Compute the features in bfloat16: faster where the hardware computes in it (GPUs, CPUs with
        AMX or AVX-512 BF16), and very slow elsewhere. Soft codes then differ by up to about 0.01.

    Returns
    -------
    (N, bits) float32 array in [0, 1]. The model's training mode is left as it was.
    """
    pixels = images.images if isinstance(images, LesionDataset) else images
    device, training = next(model.parameters()).device, model.training
    model.eval()
    codes = []
    for batch in tqdm(pixels.split(batch_size), "encoding", disable=not progress, leave=False):
        x = to_input(batch) if batch.dtype == torch.uint8 else batch
        x = x.to(device, memory_format=torch.channels_last)  # what convolutions are fastest with
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            codes.append(model(x).code.float().cpu())
    model.train(training)
    return torch.cat(codes).numpy()
