"""Training: one batched pass over the orbit a step, resumable, selected on ``val``.

Lightning Fabric brings the device, mixed precision and several GPUs; everything
else is written out below, from the loss of a step to the checkpoint.
"""

import dataclasses
import io
import json
import math
import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from lightning_fabric.plugins import Precision
from torch import Tensor, nn
from tqdm.auto import tqdm

from derm_hash.checkpoints import read_checkpoint
from derm_hash.data import LesionDataset, leaves_folder, read_table, remove_parts, write_atomically
from derm_hash.errors import InputError
from derm_hash.images import to_input
from derm_hash.losses import CLASS_WEIGHTS, PENALTIES, OrbitPenalty, class_weights
from derm_hash.metrics import class_means, precision, relevance
from derm_hash.model import MODEL_FILE, DermHash, encode, load_model, save_model
from derm_hash.objectives import OBJECTIVES, hash_centres
from derm_hash.retrieval import build_index
from derm_hash.rotations import quarter_turns, rotation_orbit
from derm_hash.storage import misfit, not_finite, one_line, parse_json

SECONDS_BETWEEN_CHECKPOINTS = 300
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


@dataclass
class Run:
    """A finished or loaded run.

    path: its folder (config.json, metrics.csv, model.safetensors, last.ckpt); model: the
    epoch that was best on ``val`` (of equals the last), in evaluation mode on the CPU;
    history: one row an epoch.
    """

    path: Path
    config: TrainConfig
    model: DermHash
    history: pd.DataFrame

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read a run's folder; InputError if it is not one or holds no finished epoch."""
        path = Path(path)
        if not (path / "metrics.csv").is_file():
            raise InputError(f"{path} holds no finished epoch of a run: train it first.")
        config, _ = read_config(path)
        return cls(path, config, load_model(path), read_history(path / "metrics.csv"))


def read_config(path: Path) -> tuple[TrainConfig, dict]:
    """The config of a run folder, and what it says of its data."""
    try:
        about = parse_json((path / "config.json").read_bytes())
        settings, data = about["config"], dict(about["data"])
        settings = settings | {"milestones": tuple(settings["milestones"])}
        return TrainConfig(**settings), data
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = one_line(error).rstrip(".")
        raise InputError(f"{path / 'config.json'} is not the config of a run: {reason}.") from error


def read_history(path: Path) -> pd.DataFrame:
    """The table of a run's epochs; InputError if it is none."""
    try:
        table = read_table(path).apply(pd.to_numeric)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} is not the table of a run: delete the folder and train again."
        ) from error
    if table.empty or not {"epoch", "loss", "val_precision_at_10"} <= set(table):
        raise InputError(f"{path} is not the table of a run: delete the folder and train again.")
    return table


def train(
    config: TrainConfig,
    data: LesionDataset,
    root: str | Path = "runs",
    progress: bool = True,
    on_epoch: Callable[[pd.DataFrame], None] | None = None,
    fabric: Fabric | None = None,
    compiled: bool = False,
) -> Run:
    """Train a model, or go on where the same call was stopped.

    Parameters
    ----------
    config : TrainConfig
    data : LesionDataset
        With splits; trains on ``database``, chooses the best epoch on ``val`` by class-mean
        precision@10 against the database, and never looks at ``query``.
    root : str or Path
        The run's folder is ``root/config.name``. What is written there is complete at any
        moment, and going on after a stop gives the same numbers as never having stopped (on
        the same machine, with the same number of threads).
    progress : bool
        Show a progress bar.
    on_epoch : callable, optional
        Called with the history after every epoch (say, to draw it).
    fabric : Fabric, optional
        By default one device: a GPU where there is one. Start with ``torchrun`` for several:
        they share each batch, and the loss is that of the whole batch, so the result is that
        of one device. The exception is batch norm, which normalises each process's share by
        its own statistics; the first process's running statistics are kept.
    compiled : bool
        Put the network through ``torch.compile``, which pays on GPUs: the same training, up to
        rounding. No setting of the run, which may go on with it or without.

    Raises
    ------
    InputError
        If a split is empty, the processes cannot share a batch equally, or the folder holds a
        run with other settings or data.
    """
    fabric = fabric or make_fabric(config.precision)
    database, val = data.split("database"), data.split("val")
    images = min(config.batch_size, len(database))
    check_shares(images, fabric.world_size)
    check_batch_norm(images // fabric.world_size * config.copies, data.size)
    state = TrainingState.start(config, data, fabric, steps=batches_in(database, config))
    if compiled:
        state.model.module.compile()  # in place, so that checkpoints know nothing of it
    path = Path(root) / config.name
    with one_at_a_time(path, fabric):  # once all the rest is valid
        claim_folder(path, config, data, write=fabric.global_rank == 0)
        state.resume(path / "last.ckpt")
        train_epochs(state, database, val, path, progress, on_epoch)
        fabric.barrier()
    return Run.load(path)


def train_epochs(state, database, val, path, progress, on_epoch) -> None:
    """All epochs that are left, with a progress bar; the arguments are those of ``train``."""
    config = state.config
    total = config.epochs * state.steps
    bar = tqdm(
        total=total,
        initial=state.epoch * state.steps + state.step,
        desc=config.name if len(config.name) <= 40 else f"{config.name[:39]}…",
        unit="step",
        disable=not progress or state.fabric.global_rank > 0,
    )
    with bar:
        while state.epoch < config.epochs:
            train_epoch(state, database, path, bar)
            state.check_weights()
            state.history.append(state.epoch_row(val_score(state.model, database, val)))
            save_epoch(state, path)
            bar.set_postfix(val=f"{state.history[-1]['val_precision_at_10']:.3f}")
            if on_epoch:
                on_epoch(pd.DataFrame(state.history))


@contextmanager
def one_at_a_time(path: Path, fabric: Fabric) -> Iterator[None]:
    """Make the run's folder and hold its lock: two notebooks may want the same model at once.

    The second one waits, and then finds the run finished.
    """
    if fabric.global_rank > 0:  # the first process holds the lock for all of them
        fabric.barrier()
        yield
        return
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path.name} is being trained by another process: waiting for it to end.")
        lock.acquire()
    try:
        remove_parts(path)
        fabric.barrier()
        yield
    finally:
        lock.release()


def make_fabric(precision: str = "auto") -> Fabric:
    """Fabric on one device, or on those of the launcher (torchrun, fabric run)."""
    precision = best_precision() if precision == "auto" else precision
    if "LT_CLI_USED" in os.environ:  # fabric run has chosen the devices, and launches itself
        return Fabric(precision=precision)
    devices, nodes = 1, 1
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    fabric = Fabric(devices=devices, num_nodes=nodes, precision=precision)
    fabric.launch()
    return fabric


def best_precision() -> str:
    """What "auto" stands for here. A GPU without bfloat16 only emulates it, slowly."""
    has_gpu = torch.cuda.is_available()
    bf16 = has_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if bf16 else "32-true"


def check_shares(images: int, processes: int) -> None:
    """InputError if the processes cannot share a batch of so many images equally."""
    if images % processes:
        raise InputError(
            f"{processes} processes cannot share a batch of {images} images equally: choose a "
            f"batch_size that is a multiple of {processes}, and not more than there are images."
        )


def check_batch_norm(images: int, size: int) -> None:
    """InputError if batch norm would see one number of each kind, which has no spread."""
    if images * math.ceil(size / 32) ** 2 < 2:
        raise InputError(
            f"A step sees a single image of {size} px, which batch norm cannot train on: choose a "
            "larger batch_size, larger images, or an orbit that is looked at."
        )


def claim_folder(path: Path, config: TrainConfig, data: LesionDataset, write: bool = True) -> None:
    """Check that a run's folder belongs to this run, and write down what it is for."""
    about = {"classes": list(data.classes), "size": data.size, "fingerprint": fingerprint(data)}
    if (path / "config.json").exists():
        old, old_data = read_config(path)
        changed = [
            f"{field.name} was {getattr(old, field.name)!r}"
            for field in dataclasses.fields(config)
            if getattr(old, field.name) != getattr(config, field.name)
        ]
        changed += [f"the data's {key} differs" for key in about if old_data.get(key) != about[key]]
        if changed:
            raise InputError(
                f"{path} holds another run ({', '.join(changed)}): "
                "choose another name, or delete that folder."
            )
    if not write:
        return
    text = json.dumps({"config": dataclasses.asdict(config), "data": about}, indent=2)
    write_atomically(path / "config.json", lambda partial: partial.write_text(text))


def fingerprint(data: LesionDataset) -> str:
    """A checksum of the pixels, labels and splits."""
    value = zlib.crc32(data.images.contiguous().numpy())
    value = zlib.crc32(data.labels.numpy(), value)
    return f"{zlib.crc32(','.join(data.table['split']).encode(), value):08x}"


@dataclass
class TrainingState:
    """All that changes during training, and can be written to a checkpoint."""

    config: TrainConfig
    fabric: Fabric
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    weights: Tensor | None
    steps: int
    epoch: int = 0
    step: int = 0
    totals: dict[str, float] = dataclasses.field(default_factory=dict)
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)

    @classmethod
    def start(cls, config, data, fabric, steps) -> "TrainingState":
        torch.manual_seed(config.seed)
        classes = len(data.classes)
        if config.objective == "csq":
            hash_centres(config.bits, classes)  # or it says now that there are none
        model = DermHash(
            config.backbone,
            config.bits,
            classes,
            config.attention,
            config.weights,
            config.sees_disc,
        )
        model.class_names, model.image_size = data.classes, data.size
        model.classifier_shapes_code = config.objective == "classification"
        model = model.to(memory_format=torch.channels_last)
        optimizer = make_optimizer(config, model)
        scheduler = make_scheduler(config, optimizer, steps)
        weights = None
        if config.class_weights != "released":
            labels = data.split("database").labels
            weights = class_weights(labels, classes, config.class_weights)
        model, optimizer = fabric.setup(model, optimizer)
        weights = weights if weights is None else weights.to(fabric.device)
        return cls(config, fabric, model, optimizer, scheduler, weights, steps)

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1)."""
        return (self.epoch + self.step / self.steps) / self.config.epochs

    def save(self, path: Path) -> None:
        """Write a checkpoint, all or nothing; all processes call it, and the first one writes.

        InputError if the weights are not finite any more: the last good checkpoint stays.
        """
        self.check_weights()
        if self.fabric.global_rank == 0:
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "position": {"epoch": self.epoch, "step": self.step, "totals": self.totals},
                "history": self.history,
                "precision": self.fabric.strategy.precision.state_dict(),  # of 16 bits, a scale
            }
            content = io.BytesIO()  # torch's own writer does not say that a disk is full
            torch.save(state, content)
            write_atomically(path, lambda part: part.write_bytes(content.getbuffer()))
        self.fabric.barrier()

    def check_weights(self) -> None:
        """InputError if the weights, which a step may have spoiled, are not finite numbers."""
        if not_finite(self.model.state_dict()):
            raise InputError(
                f"The weights are not finite after step {self.step} of epoch {self.epoch + 1}: "
                "train with a smaller learning rate or in 32-true precision; the last checkpoint "
                "is the last good one."
            )

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one; InputError if it does not fit this run."""
        if not path.exists():
            return
        saved = read_checkpoint(path)
        try:
            self.take(saved)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} cannot be read: delete the run's folder and start again."
            ) from error

    def take(self, saved: dict) -> None:
        """Put what a checkpoint holds in place; an error of Python or torch if it does not fit.

        That is tensors and counters. The settings follow from the config; the checkpoint must have
        the same ones.
        """
        position, history = saved["position"], saved["history"]
        epoch, step, totals = position["epoch"], position["step"], position["totals"]
        if type(epoch) is not int or type(step) is not int:
            raise TypeError("a position between two steps")
        done = epoch * self.steps + step
        if not (epoch >= 0 and 0 <= step <= self.steps and done <= self.config.epochs * self.steps):
            raise ValueError(f"a position at step {step} of epoch {epoch}")
        check_sums(totals, history, epoch, step)
        if name := misfit(saved["model"], self.model.state_dict()):
            raise ValueError(f"another network: {name}")
        self.model.load_state_dict(saved["model"])
        advance(self.scheduler, done)
        if not alike(saved["scheduler"], self.scheduler.state_dict()):
            raise ValueError("another schedule")
        take_precision(self.fabric.strategy.precision, saved.get("precision", {}))
        self.take_optimizer(saved["optimizer"], done)
        self.epoch, self.step, self.totals, self.history = epoch, step, dict(totals), history

    def take_optimizer(self, saved: dict, done: int) -> None:
        """Put the optimizer's tensors after so many steps in place; the schedule is there."""
        settings, kept = self.optimizer.state_dict()["param_groups"], saved["state"]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        states = enumerate(optimizer_state(self.config, parameter) for parameter in parameters)
        # With 16 bits, steps whose gradients overflow are left out: all there were, at times.
        skips = bool(self.fabric.strategy.precision.state_dict())
        stepped = done > 0 and not (skips and not kept)
        expected = {number: state for number, state in states if state and stepped}
        if not alike(saved["param_groups"], settings) or kept.keys() != expected.keys():
            raise ValueError("another optimizer")
        for number, ours in expected.items():
            check_optimizer_state(kept[number], ours, fewest=1 if skips else done, most=done)
            # A copy, as what is loaded may lie in memory in another way than the parameter.
            for name, value in kept[number].items():
                ours[name] = torch.empty_like(ours[name], device="cpu").copy_(value)
        self.optimizer.load_state_dict({"state": expected, "param_groups": settings})

    def epoch_row(self, score: float) -> dict[str, float]:
        """Close an epoch: its row of the history; the counters are set to the next one."""
        means = {name: total / self.steps for name, total in self.totals.items()}
        row = {"epoch": self.epoch + 1, **means, "val_precision_at_10": score}
        self.epoch, self.step, self.totals = self.epoch + 1, 0, {}
        return row


def check_sums(totals: dict, history: list[dict], epoch: int, step: int) -> None:
    """ValueError if the sums of an epoch and the rows of those before are not what they should be.

    Or an error of Python, if they are not even dictionaries.
    """
    for row in (totals, *history):
        if not all(type(k) is str and type(v) in (int, float) for k, v in row.items()):
            raise ValueError("something other than named numbers")
    if bool(totals) != bool(step):
        raise ValueError("sums of another step")
    if len(history) != epoch or [row["epoch"] for row in history] != [*range(1, epoch + 1)]:
        raise ValueError("a history of other epochs")
    if not all({"loss", "val_precision_at_10"} <= set(row) for row in history):
        raise ValueError("a history of something else")


def check_optimizer_state(kept: dict, expected: dict[str, Tensor], fewest: int, most: int) -> None:
    """ValueError if what is kept of a parameter has other shapes, or numbers out of range."""
    if name := misfit(kept, expected):
        raise ValueError(f"another optimizer: {name}")
    if "step" in kept and not fewest <= float(kept["step"]) <= most:
        raise ValueError("an optimizer at another step")
    if "exp_avg_sq" in kept and (kept["exp_avg_sq"] < 0).any():
        raise ValueError("squares below 0")


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW, as the config says."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), rate, config.momentum, weight_decay=decay)
    return torch.optim.AdamW(model.parameters(), rate, weight_decay=decay)


def optimizer_state(config: TrainConfig, parameter: Tensor) -> dict[str, Tensor]:
    """What the optimizer keeps of a parameter after a step: tensors of these shapes and types."""
    if config.optimizer == "adamw":
        return {"step": torch.tensor(0.0), "exp_avg": parameter, "exp_avg_sq": parameter}
    return {"momentum_buffer": parameter} if config.momentum else {}


def make_scheduler(config: TrainConfig, optimizer, steps: int):
    """The learning rate's schedule, advanced after every step."""
    if config.schedule == "steps":
        milestones = [epoch * steps for epoch in config.milestones]
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.learning_rate,
        total_steps=config.epochs * steps + 1,
        cycle_momentum=config.optimizer == "adamw",  # that of SGD is a setting
    )


def advance(scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> None:
    """Let a schedule go on until so many steps are done."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of")  # without steps of the optimizer
        while scheduler.last_epoch < steps:
            scheduler.step()


def take_precision(plugin: Precision, saved: dict) -> None:
    """Set the scale of 16-bit gradients; other precisions keep nothing. ValueError if unfit."""
    ours = plugin.state_dict()
    if not ours and not saved:
        return
    scale, good_steps = saved["scale"], saved["_growth_tracker"]
    if not alike(saved, ours | {"scale": scale, "_growth_tracker": good_steps}):
        raise ValueError("another precision")
    if type(scale) is not float or not 0 < scale <= torch.finfo(torch.float32).max:
        raise ValueError("no scale")
    if type(good_steps) is not int or not 0 <= good_steps < ours["growth_interval"]:
        raise ValueError("no number of steps")
    plugin.load_state_dict(saved)


def alike(saved: object, ours: object) -> bool:
    """Whether settings are the same, however they are nested.

    A fraction may differ in its last digits, as another machine rounds them.
    """
    if type(saved) is not type(ours):
        return False
    if isinstance(ours, dict):
        return saved.keys() == ours.keys() and all(alike(saved[key], ours[key]) for key in ours)
    if isinstance(ours, list | tuple):
        return len(saved) == len(ours) and all(map(alike, saved, ours))
    return math.isclose(saved, ours) if isinstance(ours, float) else saved == ours


def batches_in(data: LesionDataset, config: TrainConfig) -> int:
    """Steps in an epoch; an incomplete last batch is left out where there is a whole one."""
    return max(1, len(data) // config.batch_size)


def epoch_batches(state: TrainingState, size: int) -> Iterator[Tensor]:
    """This process's share of the batches that are left of the epoch, in its own random order.

    The order follows from seed and epoch alone, so a resumed epoch goes on with it.
    """
    for step in range(state.step, state.steps):
        chosen = batch_of(state, step, size)
        yield chosen[state.fabric.global_rank :: state.fabric.world_size]


def batch_of(state: TrainingState, step: int, size: int) -> Tensor:
    """The whole batch of a step of the epoch: positions in a database of that size."""
    order = torch.randperm(size, generator=generator(state.config.seed, state.epoch))
    batch = state.config.batch_size
    return order[step * batch : (step + 1) * batch]


def generator(*key: int) -> torch.Generator:
    """A random generator that depends on nothing but its key."""
    return torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))


def train_epoch(state: TrainingState, database: LesionDataset, path: Path, bar: tqdm) -> None:
    """Go through what is left of an epoch, with a checkpoint every few minutes."""
    config, fabric, saved = state.config, state.fabric, time.monotonic()
    state.model.train()
    for chosen in epoch_batches(state, len(database)):
        x = varied(state, to_input(database.images[chosen].to(fabric.device)))
        y = database.labels[chosen].to(fabric.device)
        losses = step_losses(state.model, x, y, config, state.weights, state.progress, fabric)
        fabric.backward(losses["loss"])
        rate = state.optimizer.param_groups[0]["lr"]
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.scheduler.step()
        for name, value in losses.items():
            number = float(value.detach())
            if not math.isfinite(number):
                raise InputError(not_finite_loss(name, number, state, database))
            state.totals[name] = state.totals.get(name, 0.0) + number
        state.totals["lr"] = state.totals.get("lr", 0.0) + rate
        state.step += 1
        bar.update()
        # All processes take part in a checkpoint, so one clock decides.
        if fabric.broadcast(time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS):
            state.save(path / "last.ckpt")
            saved = time.monotonic()


def not_finite_loss(name: str, number: float, state: TrainingState, database: LesionDataset) -> str:
    """What to say of a loss that is infinite or not a number: which images led to it."""
    chosen = batch_of(state, state.step, len(database)).numpy()
    return (
        f"The {name} is {number} in step {state.step + 1} of epoch {state.epoch + 1}: check its "
        f"images ({', '.join(database.table['image'].iloc[chosen])}), or train with a smaller "
        "learning rate or in 32-true precision; the last checkpoint is the last good one."
    )


def varied(state: TrainingState, x: Tensor) -> Tensor:
    """This process's share of a batch with the random changes that the config asks for.

    They are drawn for the whole batch and depend on the step alone, so an image changes in
    the same way however many processes share the batch.
    """
    config, fabric = state.config, state.fabric
    rank, world, key = fabric.global_rank, fabric.world_size, (state.epoch, state.step)
    if config.augment:
        x = augment(x, generator(config.seed, *key, 0), rank=rank, world=world)
    if config.random_turns:
        rng = generator(config.seed, *key, "turns")
        turns = torch.randint(4, (len(x) * world,), generator=rng)[rank::world]
        x = quarter_turns(x, turns.to(x.device))
    return x


def step_losses(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    config: TrainConfig,
    weights: Tensor | None = None,
    progress: float = 1.0,
    fabric: Fabric | None = None,
) -> dict[str, Tensor]:
    """Losses of one step: images (B, 3, S, S) in [-1, 1], labels (B,) -> named scalars.

    The whole orbit goes through the network in one batch, so that batch norm sees every
    copy once. ``loss = cross_entropy + hashing + rise * invariance_weight * invariance``,
    where rise goes from 0 to 1 while ``progress``, the share of the run that is done, goes
    from 0 to ``invariance_rise``. ``hashing`` is the config's objective where that is not
    classification; the cross-entropy then reaches the classifier alone. With a ``fabric`` of
    several processes, x and y are one process's share and the losses those of the whole batch.
    """
    copies = config.copies
    orbit = rotation_orbit(x, copies).flatten(0, 1)
    out = model(orbit.contiguous(memory_format=torch.channels_last))
    logits, codes = (each.float().unflatten(0, (copies, len(x))) for each in (out.logits, out.code))
    if fabric is not None and fabric.world_size > 1:
        logits, codes, y = whole_batch(fabric, logits, codes, y)
    seen = copies if config.classify == "orbit" else 1
    y = y.repeat(seen)
    judged = codes[:seen].flatten(0, 1), logits[:seen].flatten(0, 1), y
    if config.class_weights == "released":
        weights = class_weights(y, logits.shape[-1], "released")
    losses = {"cross_entropy": OBJECTIVES["classification"](*judged, weights)}
    losses["loss"] = losses["cross_entropy"]
    if config.objective != "classification":
        losses["hashing"] = OBJECTIVES[config.objective](*judged, weights)
        losses["loss"] = losses["loss"] + losses["hashing"]
    if config.invariance:
        losses["invariance"] = OrbitPenalty(config.invariance, config.gamma)(codes)
        rise = min(1.0, progress / config.invariance_rise) if config.invariance_rise else 1.0
        losses["loss"] = losses["loss"] + rise * config.invariance_weight * losses["invariance"]
    return losses


def whole_batch(fabric: Fabric, logits: Tensor, codes: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """What all processes made of their equal shares, as if one had made it.

    Logits (copies, B, classes), codes (copies, B, bits), labels (B,) -> the same for all images
    of the batch. Every process then computes the loss of the whole batch: the mean of the
    shares' losses would be another number where classes have weights or pairs are compared.
    The gradient of each process's loss flows back to the share it came from, so a share gets
    it once from each process; the mean over processes, which DDP takes, undoes that.
    """
    logits, codes = (
        torch.cat(list(fabric.all_gather(each, sync_grads=True)), dim=1) for each in (logits, codes)
    )
    return logits, codes, fabric.all_gather(y).flatten()


def augment(
    x: Tensor, rng: torch.Generator, light: float = 0.1, rank: int = 0, world: int = 1
) -> Tensor:
    """Mirror half of the images and change brightness and contrast by up to ``light``.

    Images (B, 3, S, S) in [-1, 1] -> the same; turning is the orbit's business. They are every
    ``world``-th image of a batch, from the ``rank``-th on, for which all draws are made.
    """
    draws = torch.rand(3, len(x) * world, 1, 1, 1, generator=rng)[:, rank::world]
    mirror, brightness, contrast = draws.to(x.device)
    x = torch.where(mirror < 0.5, x.flip(-1), x)
    return (x * (1 + light * (2 * contrast - 1)) + light * (2 * brightness - 1)).clamp(-1, 1)


def val_score(model: nn.Module, database: LesionDataset, val: LesionDataset) -> float:
    """Class-mean precision@10 of the val images among all database images."""
    index = build_index(model, database)
    hits = index.search(encode(model, val), k=10, radius=None)
    labels = val.labels.numpy()
    at_10 = class_means(precision(relevance(hits.ids, index.labels, labels)), labels)
    return sum(at_10.values()) / len(at_10)


def best_epoch(history: pd.DataFrame) -> pd.Series:
    """The row of a history whose model is kept: the best on ``val``, of equals the last."""
    return history.loc[history["val_precision_at_10"].iloc[::-1].idxmax()]


def save_epoch(state: TrainingState, path: Path) -> None:
    """Write the model where it is the best so far, then the history, then the checkpoint.

    A stop before the checkpoint is there makes training do the epoch again, and write the
    same model and history.
    """
    scores = [row["val_precision_at_10"] for row in state.history]
    if state.fabric.global_rank == 0 and scores[-1] == max(scores):
        save_model(state.model.module, path / MODEL_FILE)
    if state.fabric.global_rank == 0:
        table = pd.DataFrame(state.history)
        write_atomically(path / "metrics.csv", lambda partial: table.to_csv(partial, index=False))
    state.save(path / "last.ckpt")
