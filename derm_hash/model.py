"""DermHash: a backbone with attention gates, a hash layer, and a classifier on the code."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from derm_hash.attention import add_attention
from derm_hash.backbones import BACKBONES as BACKBONES
from derm_hash.backbones import Backbone, Normalise, Statistics, make_backbone, trained_on
from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import to_input
from derm_hash.errors import InputError
from derm_hash.precision import computes_in_bf16
from derm_hash.rotations import inside_disc, rotation_orbit


class HashOutput(NamedTuple):
    """Output for a batch: logits (B, classes) and soft code (B, bits) in (0, 1), up to rounding."""

    logits: Tensor
    code: Tensor


class DermHash(nn.Module):
    """Deep hashing network for dermoscopic images (Zhang et al., 2022).

    Pooled features of the backbone, ResNet-18 in the paper -> linear hash layer -> sigmoid = soft
    code h in (0, 1)^bits -> linear classifier on h. The hash code is h > 0.5.

    Parameters
    ----------
    backbone : str or callable
        A name in ``BACKBONES``, any other name of timm, or a function from ``weights`` to a network
        with pooled features, see :data:`derm_hash.backbones.Backbone`. A model with a function of
        your own cannot be saved.
    bits, classes : int
        Length of the code, and number of classes.
    attention : str, callable or None
        The gate of every residual block, as in :func:`derm_hash.attention.add_attention`.
    weights : None, "imagenet" or path
        The backbone's initial weights, see :func:`derm_hash.backbones.make_backbone`. A saved model
        is loaded without them.
    disc : bool
        Mask the image to its inscribed disc, in training and at inference: a model trained on an
        orbit that is cut to the disc never saw corners, so it must not see them later.
    detach_classifier : bool
        Stop the classifier's gradient at the code. In the paper (False) it shapes the code.
    class_names : sequence of str, optional
        Names of the classes, in the order of the logits.
    image_size : int, optional
        Side in pixels of the images that the model is trained on.
    gate_init : str
        The initial weights of the gates, "pytorch" or "released", as in :func:`add_attention`.
    normalise : pair of three numbers, optional
        Mean and standard deviation of the pixels, on the scale 0 to 1, to normalise the backbone's
        input with. By default those that the weights were trained with, or none for random
        weights.
    bf16 : bool
        Whether the network was trained in bfloat16, so that :func:`encode` may use it, too.

    Raises
    ------
    InputError
        If the backbone, attention or weights are unknown or do not fit, or bits or classes < 1.
    """

    def __init__(
        self,
        backbone: str | Backbone = "resnet18",
        bits: int = 16,
        classes: int = 4,
        attention: str | Callable[[int], nn.Module] | None = "hdcsa",
        weights: str | Path | None = None,
        disc: bool = False,
        detach_classifier: bool = False,
        class_names: Sequence[str] | None = None,
        image_size: int | None = None,
        gate_init: str = "pytorch",
        normalise: Statistics | None = None,
        bf16: bool = False,
    ):
        super().__init__()
        if bits < 1 or classes < 1:
            raise InputError(f"A model needs at least 1 bit and 1 class, not {bits} and {classes}")
        self.class_names = tuple(class_names or (f"class {i}" for i in range(classes)))
        self.image_size, self.detach_classifier = image_size, detach_classifier
        self.bf16 = bf16
        normalise = normalise or trained_on(backbone, weights)
        # What load_model needs; the other arguments matter only in training.
        self.settings = {"backbone": backbone, "bits": bits, "classes": classes, "disc": disc}
        self.settings |= {"attention": attention, "image_size": image_size, "bf16": bf16}
        self.settings |= {"class_names": self.class_names}
        self.settings |= {"normalise": normalise and tuple(map(tuple, normalise))}
        self.normalise = Normalise(*normalise) if normalise else nn.Identity()
        network = make_backbone(backbone, weights, image_size)
        self.backbone = add_attention(network, attention, gate_init)
        self.hash_layer = nn.Linear(self.backbone.num_features, bits)
        self.classifier = nn.Linear(bits, classes)

    @property
    def bits(self) -> int:
        """Length of the code."""
        return self.hash_layer.out_features

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> features of the backbone (B, F)."""
        if self.settings["disc"]:
            x = inside_disc(x)
        return self.backbone(self.normalise(x))

    def forward(self, x: Tensor) -> HashOutput:
        """Images (B, 3, H, W) in [-1, 1], H, W >= 32 (H == W for ``disc``) -> HashOutput."""
        features = self.features(x)
        # In 32 bits even if the backbone computes in 16: bfloat16 has 128 values between 1/2
        # and 1, too few to rank codes that training has driven close to 0 and 1.
        with torch.autocast(x.device.type, enabled=False):
            code = torch.sigmoid(self.hash_layer(features.to(self.hash_layer.weight.dtype)))
            logits = self.classifier(code.detach() if self.detach_classifier else code)
        return HashOutput(logits, code)

    @torch.no_grad()
    def hash(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> hash code (B, bits) bool."""
        return self(x).code > 0.5


class OrbitMean(nn.Module):
    """Invariance by construction: the mean of a model's output over the four quarter turns.

    Rotating the image by 90 degrees only reorders the four codes, so their mean stays the same
    up to rounding. Each image costs four forward passes. It stands in for a DermHash wherever
    codes are made (``encode``, ``build_index``, ``rotation_report``); encode the database and
    the queries with the same one. It is neither trained nor saved.
    """

    def __init__(self, model: DermHash):
        super().__init__()
        self.model = model
        self.bf16 = getattr(model, "bf16", False)
        self.train(model.training)  # keeps the model's mode

    @property
    def classifier(self) -> nn.Linear:
        """The model's classifier. It is linear: the logits of the mean code are the mean logits."""
        return self.model.classifier

    def forward(self, x: Tensor) -> HashOutput:
        """Images (B, 3, H, H) -> HashOutput, the means over their orbit."""
        outputs = [self.model(rotated) for rotated in rotation_orbit(x)]
        logits, codes = zip(*outputs, strict=True)
        return HashOutput(torch.stack(logits).mean(dim=0), torch.stack(codes).mean(dim=0))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a block, and back into the mode that it had."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.no_grad()
def encode(
    model: nn.Module,
    images: LesionDataset | Tensor,
    batch_size: int = 64,
    progress: bool = False,
    bf16: bool | None = None,
) -> np.ndarray:
    """Encode many images in evaluation mode; the model then goes back into the mode that it had.

    Parameters
    ----------
    model : DermHash or OrbitMean
    images : LesionDataset, or (N, 3, S, S) tensor of uint8 or of floats in [-1, 1]
    batch_size : int
    progress : bool
        Show a progress bar.
    bf16 : bool, optional
        Compute the features in bfloat16: faster where the hardware computes in it (GPUs, CPUs
        with AMX or AVX-512 BF16), very slow elsewhere. Soft codes differ by up to about 0.01. By
        default it is used on such hardware if the model was trained in bfloat16.

    Returns
    -------
    (N, bits) float32 array in [0, 1]

    Raises
    ------
    InputError
        If the images are neither bytes nor floating point in [-1, 1].
    """
    pixels = images.images if isinstance(images, LesionDataset) else images
    if pixels.dtype != torch.uint8:
        low, high = (float(end) for end in pixels.aminmax())
        if not pixels.is_floating_point() or low < -1.01 or high > 1.01:  # with some rounding
            raise InputError(
                f"Images of type {pixels.dtype} with values from {low:g} to {high:g} are not the "
                "network's input: give uint8 images, or floating point in [-1, 1]"
            )
    device, codes = next(model.parameters()).device, []
    if bf16 is None:
        bf16 = getattr(model, "bf16", False) and computes_in_bf16(device)
    batches = tqdm(pixels.split(batch_size), "encoding", disable=not progress, leave=False)
    with evaluating(model), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for batch in batches:
            x = to_input(batch) if batch.dtype == torch.uint8 else batch
            x = x.to(device, memory_format=torch.channels_last)  # fastest for convolutions
            codes.append(model(x).code.float().cpu())
    return torch.cat(codes).numpy()


@torch.no_grad()
def classify(model: "DermHash | OrbitMean", codes: np.ndarray) -> np.ndarray:
    """Logits (N, classes) of soft codes (N, bits), also of the mean codes of an orbit."""
    weight = model.classifier.weight
    return model.classifier(torch.from_numpy(codes).to(weight.device)).cpu().numpy()
