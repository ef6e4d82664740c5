"""Where a training run stands: everything that a step changes, as a checkpoint keeps it.

A checkpoint is taken with distrust: tensors and counters come from it, settings from the config.
"""

import dataclasses
import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import Precision
from torch import Tensor, nn

from derm_hash.checkpoints import read_checkpoint
from derm_hash.errors import InputError
from derm_hash.files import misfit, not_finite, write_atomically
from derm_hash.losses import class_weights
from derm_hash.model import DermHash
from derm_hash.objectives import hash_centres
from derm_hash.settings import TrainConfig


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
