"""The settings of a training run, their kinds and limits, and the two presets."""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from derm_hash.errors import InputError
from derm_hash.files import leaves_folder
from derm_hash.losses import CLASS_WEIGHTS, PENALTIES
from derm_hash.objectives import OBJECTIVES

# How a message calls what a field of TrainConfig may hold.
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    str | None: "text or none",
    tuple[int, ...]: "whole numbers",
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides how a run comes out, but for the data.

    The defaults are the preset "recommended"; ``TrainConfig.preset("released")`` is the
    recipe of the code that was published with the paper.
    """

    name: str = "recommended"
    """Name of the run and of its folder."""
    backbone: str = "resnet18"
    bits: int = 16
    attention: str | None = "hdcsa"
    weights: str | None = None
    """None (random) or "imagenet"."""
    objective: str = "classification"
    """What the codes are trained for: a name in ``objectives.OBJECTIVES``. For any but
    "classification" the classifier reads the codes and does not shape them."""
    invariance: str | None = "cauchy"
    """Penalty on the orbit of soft codes (a name in ``losses.PENALTIES``), or None."""
    invariance_weight: float = 2.0
    """Four times that of the paper's code: hits change less when the image is turned, for a little
    less precision (benchmarks/configs/tuning.toml)."""
    invariance_rise: float = 0.5
    """Share of the run in which that weight rises from 0: codes that are pulled together before
    they tell anything apart can stay stuck at one value."""
    gamma: float = 0.5
    orbit: int = 4
    """Turned copies of each image that a step sees, the unturned one included. All copies of an
    orbit other than 1, 2 or 4 are cut to the inscribed disc, see ``disc``."""
    classify: str = "orbit"
    """The objective looks at all copies ("orbit") or at the unturned one alone ("upright")."""
    disc: bool = False
    """The network looks at the inscribed disc alone, also when the model is used later. Always
    so where the copies of an orbit are cut to it; a fair rival to those sets it too."""
    class_weights: str = "inverse"
    augment: bool = True
    """Random mirror images and small changes of light."""
    random_turns: bool = False
    """Turn each image by a random number of quarter turns, before its orbit is made. With
    invariance=None and classify="upright" this is rotation augmentation alone: one forward
    pass for each image. An orbit of 4 holds the same copies with and without it."""
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.05
    schedule: str = "onecycle"
    """"onecycle" (rise and fall over the whole run) or "steps" (divided by 10 at milestones)."""
    milestones: tuple[int, ...] = (40, 60, 80, 100)
    """Epochs at which "steps" divides the learning rate."""
    epochs: int = 30
    batch_size: int = 64
    """Images a step, over all devices and before the orbit is made."""
    precision: str = "auto"
    """"auto" (bfloat16 on a GPU that has it, else 32 bits), or Fabric's "32-true", "16-mixed" (on a
    GPU) or "bf16-mixed", which pays on CPUs with AVX-512 or AMX and is very slow on others."""
    seed: int = 0

    CHOICES: ClassVar[dict[str, tuple]] = {
        "objective": tuple(OBJECTIVES),
        "invariance": (None, *PENALTIES),
        "classify": ("orbit", "upright"),
        "class_weights": CLASS_WEIGHTS,
        "optimizer": ("adamw", "sgd"),
        "schedule": ("onecycle", "steps"),
        "precision": ("auto", "32-true", "bf16-mixed", "16-mixed"),
    }
    MOST: ClassVar[dict[str, int]] = {"bits": 2**16, "seed": 2**63 - 1}

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if not is_of_kind(value := getattr(self, field.name), field.type):
                raise InputError(f"{field.name} must be {KINDS[field.type]}, not {value!r}.")
        object.__setattr__(self, "milestones", tuple(self.milestones))  # as config.json gives them
        if not is_folder_name(self.name):
            raise InputError(f"The name of a run is a folder's name, not {self.name!r}.")
        for field, choices in self.CHOICES.items():
            if getattr(self, field) not in choices:
                names = ", ".join(map(str, choices))
                raise InputError(f"{field} must be one of {names}, not {getattr(self, field)!r}.")
        for field in ("bits", "orbit", "epochs", "batch_size", "learning_rate", "gamma"):
            if not 0 < getattr(self, field) < math.inf:
                raise InputError(f"{field} must be greater than 0, not {getattr(self, field)}.")
        for field in ("invariance_weight", "invariance_rise", "momentum", "weight_decay", "seed"):
            if not 0 <= getattr(self, field) < math.inf:
                raise InputError(f"{field} must be 0 or more, not {getattr(self, field)}.")
        for field, most in self.MOST.items():
            if getattr(self, field) > most:
                raise InputError(f"{field} must be at most {most}, not {getattr(self, field)}.")

    @classmethod
    def preset(cls, preset: str, **changes) -> "TrainConfig":
        """A preset ("recommended" or "released") with some fields changed."""
        if preset not in PRESETS:
            raise InputError(f"Unknown preset {preset!r}: choose one of {', '.join(PRESETS)}.")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(changes) - known:
            raise InputError(f"TrainConfig has no {sorted(unknown)[0]!r}: see its documentation.")
        return cls(**(PRESETS[preset] | {"name": preset} | changes))

    @property
    def copies(self) -> int:
        """Forward passes for each image and step: the orbit, where anything looks at it."""
        return self.orbit if self.invariance or self.classify == "orbit" else 1

    @property
    def sees_disc(self) -> bool:
        """Whether the network looks at the inscribed disc alone."""
        return self.disc or self.copies not in (1, 2, 4)


def is_of_kind(value: object, kind) -> bool:
    """Whether a value is of the kind that a field is declared to hold (and 1 is a number too)."""
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind == tuple[int, ...]:
        return isinstance(value, list | tuple) and all(is_of_kind(part, int) for part in value)
    return isinstance(value, int | float if kind is float else kind)


def is_folder_name(name: object) -> bool:
    """Whether something is the name of a folder inside another, on any system."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not leaves_folder(name)
        and not set(name) & set("/\\")
    )


PRESETS: dict[str, dict] = {
    "recommended": {},
    "released": {
        "invariance_weight": 0.5,
        "invariance_rise": 0.0,
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
