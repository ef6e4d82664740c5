"""The settings of a training run, which values they may take, and the presets."""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from derm_hash.attention import GATE_INITS
from derm_hash.errors import InputError
from derm_hash.files import leaves_folder
from derm_hash.longtail import PROXY_RATES
from derm_hash.losses import CLASS_WEIGHTS, PENALTIES
from derm_hash.objectives import OBJECTIVES


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the result of a run, except the data.

    The defaults are the preset "recommended"; ``TrainConfig.preset("released")`` is the
    recipe of the code that was published with the paper, and "paper" is the same recipe with class
    weights by inverse frequency.

    Raises
    ------
    InputError
        If a value has the wrong type or is out of range.
    """

    name: str = "recommended"
    """Name of the run and of its folder."""
    backbone: str = "resnet18"
    """The network that computes the features (other networks of timm work, too): a name in
    ``backbones.BACKBONES``, or one of timm."""
    bits: int = 16
    """Length of the hash code."""
    attention: str | None = "hdcsa"
    """The attention gate of every residual block: a name in ``attention.GATES``, or None."""
    weights: str | None = None
    """Initial weights of the backbone: None (random), "imagenet", or the path of a file with its
    tensors (.safetensors, or one of torch.save)."""
    gate_init: str = "pytorch"
    """Initial weights of the gates' convolutions: those of "pytorch", or of the "released" code,
    which draws them with standard deviation sqrt(2 / (k * k * out))."""
    frozen: bool = False
    """Train only the hash layer and the classifier; the backbone keeps its initial weights. Needs
    attention=None; rotations are the only augmentation. See :mod:`derm_hash.frozen`."""
    objective: str = "classification"
    """What the codes are trained for: a name in ``objectives.OBJECTIVES``, or "ecl" for
    class-enhancement contrastive learning. The classifier shapes the codes with "classification",
    "supcon" and "ecl"; with the others its gradient stops at them."""
    views: str = "orbit"
    """What contrastive objectives compare: the copies of an image in a step ("orbit"), or these and
    a strongly changed view of it ("weak-strong")."""
    projection: int = 0
    """Width of the head between the code and the loss of "ecl" (128 in the paper; 0: none)."""
    proxy_update: str = "mean"
    """How the class proxies of "ecl" step at the end of an epoch: by the "mean" of its batches'
    gradients, or by their "sum" as published."""
    invariance: str | None = "cauchy"
    """Penalty on the orbit of soft codes: a name in ``losses.PENALTIES``, or None."""
    invariance_weight: float = 0.5
    """Weight of the penalty, as in the paper's code. A larger one flips fewer bits and costs
    precision (benchmarks/configs/frozen-tuning.toml)."""
    invariance_rise: float = 0.5
    """Share of the run over which the penalty's weight rises linearly from 0 (0: full weight from
    the start). Without it, codes can collapse to one value."""
    gamma: float = 0.5
    """Scale of the penalty, in units of the soft code."""
    orbit: int = 4
    """Rotated copies of each image in a step, the unrotated one included. The copies of an orbit
    other than 1, 2 or 4 are all cut to the inscribed disc, see ``disc``. The penalty is a sum over
    the copies, so a smaller orbit pulls less."""
    orbit_sample: int = 2
    """How many members of the orbit a step draws at random: fewer forward passes. With 0, or with
    ``orbit`` or more, a step has the whole orbit. The penalty on m of n members is multiplied by
    (n - 1) / (m - 1), so that its expected pull is that of the whole orbit (exactly so for "l2").
    For the same number of forward passes, two members give a higher mAP than four
    (benchmarks/configs/equal-passes.toml)."""
    classify: str = "orbit"
    """The objective sees all copies of an image ("orbit") or only the first ("upright"). The first
    is not rotated, unless ``orbit_sample`` or ``random_rotations`` is set."""
    disc: bool = False
    """Mask every input to its inscribed disc, also at inference. Implied by an orbit other than
    1, 2 or 4; set it to train a comparable baseline."""
    class_weights: str = "inverse"
    """How the classes are balanced in the cross-entropy: a name in ``losses.CLASS_WEIGHTS``."""
    augment: bool = True
    """Random mirroring, and small random changes of brightness and contrast."""
    random_rotations: bool = False
    """Rotate each image by a random number of quarter turns before its orbit is made. With
    invariance=None and classify="upright" this is rotation augmentation alone, at one forward
    pass for each image. An orbit of 4 has the same copies with and without it."""
    optimizer: str = "adamw"
    """The optimizer: AdamW, or SGD with momentum."""
    learning_rate: float = 1e-3
    """The highest learning rate of the run."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.05
    """Weight decay of the optimizer."""
    schedule: str = "onecycle"
    """The learning rate over the run: "onecycle" (rise and fall) or "steps" (divided by 10 at
    milestones)."""
    milestones: tuple[int, ...] = (40, 60, 80, 100)
    """Epochs at which "steps" divides the learning rate."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 64
    """Images per step, over all devices and before the orbit is made."""
    precision: str = "auto"
    """Floating-point precision: "auto" (bfloat16 where it is faster, else 32 bits), or Fabric's
    "32-true", "16-mixed" (on a GPU) or "bf16-mixed" (very slow on CPUs without AVX-512 BF16 or
    AMX). "auto" uses bfloat16 on a GPU that has it; on a CPU that has it, a step of the network is
    timed once for each image size. The run's config keeps the answer, so that the run can continue
    elsewhere. Several processes on CPUs stay in 32 bits."""
    seed: int = 0
    """Seed of the weights, the order of the images and the random changes."""

    CHOICES: ClassVar[dict[str, tuple]] = {
        "gate_init": GATE_INITS,
        "objective": (*OBJECTIVES, "ecl"),
        "views": ("orbit", "weak-strong"),
        "proxy_update": tuple(PROXY_RATES),
        "invariance": (None, *PENALTIES),
        "classify": ("orbit", "upright"),
        "class_weights": CLASS_WEIGHTS,
        "optimizer": ("adamw", "sgd"),
        "schedule": ("onecycle", "steps"),
        "precision": ("auto", "32-true", "bf16-mixed", "16-mixed"),
    }
    MAXIMUM: ClassVar[dict[str, int]] = {"bits": 2**16, "seed": 2**63 - 1}

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check_type(field.name, getattr(self, field.name), field.type)
        object.__setattr__(self, "milestones", tuple(self.milestones))  # config.json has a list
        if self.name in ("", ".", "..") or leaves_folder(self.name) or set(self.name) & set("/\\"):
            raise InputError(f"The name of a run must be a folder's name, not {self.name!r}")
        for field, choices in self.CHOICES.items():
            if getattr(self, field) not in choices:
                names = ", ".join(map(str, choices))
                raise InputError(f"{field} must be one of {names}, not {getattr(self, field)!r}")
        for field in ("bits", "orbit", "epochs", "batch_size", "learning_rate", "gamma"):
            if not 0 < getattr(self, field) < math.inf:
                raise InputError(f"{field} must be greater than 0, not {getattr(self, field)}")
        if self.frozen and (self.attention is not None or self.sees_disc):
            raise InputError(
                "frozen features have no gates and four rotations of whole squares: set attention "
                "to none, disc to false and orbit to 1, 2 or 4"
            )
        if self.frozen and self.views != "orbit":
            raise InputError("frozen features have no strong view: set views to orbit")
        if self.objective == "ecl" and self.precision == "16-mixed":
            raise InputError(
                "ecl sums gradients over an epoch, and 16-mixed scales them: use another precision"
            )
        if self.orbit_sample < 0 or self.orbit_sample == 1:
            raise InputError(f"orbit_sample must be 0, or 2 or more, not {self.orbit_sample}")
        for field in (
            "invariance_weight",
            "invariance_rise",
            "momentum",
            "weight_decay",
            "seed",
            "projection",
        ):
            if not 0 <= getattr(self, field) < math.inf:
                raise InputError(f"{field} must be 0 or more, not {getattr(self, field)}")
        for field, most in self.MAXIMUM.items():
            if getattr(self, field) > most:
                raise InputError(f"{field} must be at most {most}, not {getattr(self, field)}")

    @classmethod
    def preset(cls, preset: str, **changes) -> "TrainConfig":
        """A preset ("recommended", "released" or "paper") with some fields changed."""
        if preset not in PRESETS:
            raise InputError(f"Unknown preset {preset!r}: choose one of {', '.join(PRESETS)}")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(changes) - known:
            raise InputError(f"TrainConfig has no {sorted(unknown)[0]!r}: see its documentation")
        return cls(**(PRESETS[preset] | {"name": preset} | changes))

    @property
    def copies(self) -> int:
        """Forward passes for each image and step: the copies that a loss needs, or 1."""
        if self.invariance or self.classify == "orbit":
            return min(self.orbit_sample or self.orbit, self.orbit)
        return 1

    @property
    def sees_disc(self) -> bool:
        """Whether the network sees only the inscribed disc."""
        return self.disc or (self.copies > 1 and self.orbit not in (1, 2, 4))


TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    str | None: "text or none",
    tuple[int, ...]: "whole numbers",
}


def check_type(name: str, value: object, type_: object) -> None:
    """Raise InputError if a value does not have its field's type; an int may stand for a float."""
    if type_ == tuple[int, ...]:
        fits = isinstance(value, list | tuple) and all(type(part) is int for part in value)
    elif isinstance(value, bool):
        fits = type_ is bool
    else:
        fits = isinstance(value, int | float if type_ is float else type_)
    if not fits:
        raise InputError(f"{name} must be {TYPE_NAMES[type_]}, not {value!r}")


PRESETS: dict[str, dict] = {
    "recommended": {},
    "released": {
        "gate_init": "released",
        "invariance_rise": 0.0,
        "orbit_sample": 0,
        "classify": "upright",
        "class_weights": "released",
        "augment": False,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "weight_decay": 5e-4,
        "schedule": "steps",
        "epochs": 120,
    },
}
PRESETS["paper"] = PRESETS["released"] | {"class_weights": "inverse"}
