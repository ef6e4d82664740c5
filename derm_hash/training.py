"""Training from top to bottom: set up, resume, epoch, step, validate, save.

A step passes the whole orbit through the network in one batch. Lightning Fabric brings the device,
mixed precision and several GPUs; everything else is written out below.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import to_input
from derm_hash.data.views import generator, random_view
from derm_hash.devices import check_batch, check_compiler, make_fabric, whole_batch
from derm_hash.errors import InputError, one_line
from derm_hash.files import load_state, locked, save_state, write_atomically
from derm_hash.losses import OrbitPenalty, class_weights
from derm_hash.metrics.ranking import precision, relevance
from derm_hash.metrics.scores import class_means
from derm_hash.model import DermHash, encode
from derm_hash.objectives import OBJECTIVES, hash_centres
from derm_hash.retrieval import build_index
from derm_hash.rotations import rotation_orbit
from derm_hash.runs import MODEL_FILE, Run, claim_folder, save_model
from derm_hash.settings import TrainConfig

CHECKPOINT = "checkpoint.safetensors"
SECONDS_BETWEEN_CHECKPOINTS = 300
REMEDY = "use a smaller learning_rate or 32-true precision; the last checkpoint is still good"


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
        The run's folder is ``root/config.name``. Its files are complete at any moment. A run
        that was stopped and resumed gives the same numbers as one that was not (on the same
        machine, with the same number of threads).
    progress : bool
        Show a progress bar.
    on_epoch : callable, optional
        Called with the history after every epoch (to draw it, say).
    fabric : Fabric, optional
        By default one device: a GPU where there is one. Started with ``torchrun``, processes
        share each batch and give the result of one device, apart from batch norm, which
        normalises each process's share by itself.
    compiled : bool
        Pass the network through ``torch.compile``, which is meant for GPUs: the same training
        up to rounding. A run may be resumed with or without it.

    Raises
    ------
    InputError
        If a split is empty, the processes cannot share a batch equally, a loss or weight is
        not finite, ``torch.compile`` does not work here, or the folder holds a run with other
        settings or data.
    """
    fabric = fabric or make_fabric(config.precision)
    first = fabric.global_rank == 0
    database, val = data.split("database"), data.split("val")
    batch = min(config.batch_size, len(database))
    check_batch(batch, config.copies, data.size, fabric.world_size)
    state = set_up(config, database, fabric)
    if compiled:
        check_compiler(fabric.device)
        state.model.module.compile()  # in place: the names of the weights stay the same
    path = Path(root) / config.name
    busy = f"{path.name} is being trained by another process: waiting for it to end."
    with locked(path, busy) if first else nullcontext():
        fabric.barrier()
        claim_folder(path, config, data, write=first)
        load_checkpoint(state, path / CHECKPOINT)
        done, total = state.epoch * state.steps + state.step, config.epochs * state.steps
        shown = {"desc": config.name[:40], "unit": "step", "disable": not (progress and first)}
        with tqdm(total=total, initial=done, **shown) as bar:
            while state.epoch < config.epochs:
                train_epoch(state, database, path, bar)
                close_epoch(state, val_score(state.model, database, val), path)
                bar.set_postfix(val=f"{state.history[-1]['val_precision_at_10']:.3f}")
                if on_epoch:
                    on_epoch(pd.DataFrame(state.history))
        fabric.barrier()
    return Run.load(path)


# --- set up -------------------------------------------------------------------------------


@dataclass
class State:
    """Everything that a step changes, and what it needs."""

    config: TrainConfig
    fabric: Fabric
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    weights: Tensor | None  # of the classes (classes,)
    steps: int  # in an epoch
    epoch: int = 0
    step: int = 0
    totals: dict[str, float] = field(default_factory=dict)  # sums over the steps of this epoch
    history: list[dict[str, float]] = field(default_factory=list)  # a row for each epoch


def set_up(config: TrainConfig, database: LesionDataset, fabric: Fabric) -> State:
    """Network, optimizer and schedule at the start of a run, on the device."""
    torch.manual_seed(config.seed)
    classes = len(database.classes)
    if config.objective == "csq":
        hash_centres(config.bits, classes)  # raises InputError now if there are too few codes
    model = DermHash(
        config.backbone,
        config.bits,
        classes,
        config.attention,
        config.weights,
        config.sees_disc,
        detach_classifier=config.objective != "classification",
        class_names=database.classes,
        image_size=database.size,
    ).to(memory_format=torch.channels_last)
    steps = max(1, len(database) // config.batch_size)  # an incomplete last batch is left out
    optimizer = make_optimizer(config, model)
    scheduler = make_scheduler(config, optimizer, steps)
    weights = None
    if config.class_weights != "released":  # those follow from each batch
        weights = class_weights(database.labels, classes, config.class_weights)
    model, optimizer = fabric.setup(model, optimizer)
    weights = weights if weights is None else weights.to(fabric.device)
    return State(config, fabric, model, optimizer, scheduler, weights, steps)


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW, as the config says."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), rate, config.momentum, weight_decay=decay)
    return torch.optim.AdamW(model.parameters(), rate, weight_decay=decay)


def make_scheduler(config: TrainConfig, optimizer, steps: int):
    """The schedule of the learning rate, advanced after every step."""
    if config.schedule == "steps":
        milestones = [epoch * steps for epoch in config.milestones]
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.learning_rate,
        total_steps=config.epochs * steps + 1,
        cycle_momentum=config.optimizer == "adamw",  # the momentum of SGD is a setting
    )


# --- epoch --------------------------------------------------------------------------------


def train_epoch(state: State, database: LesionDataset, path: Path, bar: tqdm) -> None:
    """Take the steps that are left of an epoch, with a checkpoint every few minutes."""
    config, fabric, saved = state.config, state.fabric, time.monotonic()
    share = fabric.global_rank, fabric.world_size
    state.model.train()
    while state.step < state.steps:
        # 1. This process's share of a random batch, with random changes.
        chosen = batch_of(state, len(database))[share[0] :: share[1]]
        key = config.seed, state.epoch, state.step
        x = to_input(database.images[chosen].to(fabric.device))
        x = random_view(x, config.augment, config.random_turns, key, *share)
        y = database.labels[chosen].to(fabric.device)
        # 2. Losses, gradients, and a step of the optimizer and the schedule.
        progress = (state.epoch + state.step / state.steps) / config.epochs
        losses = step_losses(state.model, x, y, config, state.weights, progress, fabric)
        fabric.backward(losses["loss"])
        rate = state.optimizer.param_groups[0]["lr"]
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.scheduler.step()
        # 3. The epoch's sums, and a checkpoint if one is due by the first process's clock.
        add_losses(state, losses, database)
        state.totals["lr"] = state.totals.get("lr", 0.0) + rate
        state.step += 1
        bar.update()
        if fabric.broadcast(time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS):
            save_checkpoint(state, path / CHECKPOINT)
            saved = time.monotonic()
    check_weights(state)


def batch_of(state: State, size: int) -> Tensor:
    """Positions of this step's images in a database of that size.

    The order follows from seed and epoch alone, so a resumed epoch goes on with it.
    """
    order = torch.randperm(size, generator=generator(state.config.seed, state.epoch))
    batch = state.config.batch_size
    return order[state.step * batch : (state.step + 1) * batch]


def add_losses(state: State, losses: dict[str, Tensor], database: LesionDataset) -> None:
    """Add a step's losses to the epoch's sums; raise InputError if one is not finite."""
    for name, value in losses.items():
        number = float(value.detach())
        if not math.isfinite(number):
            images = database.table["image"].iloc[batch_of(state, len(database)).numpy()]
            raise InputError(
                f"The {name} is {number} in step {state.step + 1} of epoch {state.epoch + 1}: "
                f"check the images of the batch ({', '.join(images)}), or {REMEDY}"
            )
        state.totals[name] = state.totals.get(name, 0.0) + number


# --- step ---------------------------------------------------------------------------------


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
    from 0 to ``invariance_rise``. ``hashing`` is the config's objective if that is not
    classification; the cross-entropy then trains the classifier alone. With a ``fabric`` of
    several processes, x and y are one process's share, and the losses those of the whole batch.
    """
    # 1. One forward pass over the orbit.
    copies = config.copies
    orbit = rotation_orbit(x, copies).flatten(0, 1)
    out = model(orbit.contiguous(memory_format=torch.channels_last))
    logits, codes = (each.float().unflatten(0, (copies, len(x))) for each in (out.logits, out.code))
    if fabric is not None and fabric.world_size > 1:
        logits, codes, y = whole_batch(fabric, logits, codes, y)
    # 2. The objective, on all copies or on the unrotated one.
    seen = copies if config.classify == "orbit" else 1
    y = y.repeat(seen)
    if config.class_weights == "released":
        weights = class_weights(y, logits.shape[-1], "released")
    inputs = codes[:seen].flatten(0, 1), logits[:seen].flatten(0, 1), y, weights
    losses = {"cross_entropy": OBJECTIVES["classification"](*inputs)}
    losses["loss"] = losses["cross_entropy"]
    if config.objective != "classification":
        losses["hashing"] = OBJECTIVES[config.objective](*inputs)
        losses["loss"] = losses["loss"] + losses["hashing"]
    # 3. The penalty on the orbit.
    if config.invariance:
        losses["invariance"] = OrbitPenalty(config.invariance, config.gamma)(codes)
        rise = min(1.0, progress / config.invariance_rise) if config.invariance_rise else 1.0
        losses["loss"] = losses["loss"] + rise * config.invariance_weight * losses["invariance"]
    return losses


# --- validate and save --------------------------------------------------------------------


def val_score(model: nn.Module, database: LesionDataset, val: LesionDataset) -> float:
    """Class-mean precision@10 of the val images among all database images."""
    index = build_index(model, database)
    hits = index.search(encode(model, val), k=10, radius=None)
    labels = val.labels.numpy()
    at_10 = class_means(precision(relevance(hits.ids, index.labels, labels)), labels)
    return sum(at_10.values()) / len(at_10)


def close_epoch(state: State, score: float, path: Path) -> None:
    """Write the model if it is the best so far, then the history, then the checkpoint.

    A run that is stopped before the checkpoint is written repeats the epoch, and writes the
    same model and history again.
    """
    means = {name: total / state.steps for name, total in state.totals.items()}
    state.history.append({"epoch": state.epoch + 1, **means, "val_precision_at_10": score})
    state.epoch, state.step, state.totals = state.epoch + 1, 0, {}
    if state.fabric.global_rank == 0:
        if score == max(row["val_precision_at_10"] for row in state.history):
            save_model(state.model.module, path / MODEL_FILE)
        table = pd.DataFrame(state.history)
        write_atomically(path / "metrics.csv", lambda part: table.to_csv(part, index=False))
    save_checkpoint(state, path / CHECKPOINT)


def check_weights(state: State) -> None:
    """Raise InputError if a weight is not finite any more."""
    weights = (v for v in state.model.state_dict().values() if v.is_floating_point())
    if not all(value.isfinite().all() for value in weights):
        raise InputError(f"The weights are not finite in epoch {state.epoch + 1}: {REMEDY}")


def save_checkpoint(state: State, path: Path) -> None:
    """Write a checkpoint: tensors and counters. All processes call it; the first one writes."""
    check_weights(state)
    if state.fabric.global_rank == 0:
        schedule = state.scheduler.state_dict()
        saved = {name: getattr(state, name) for name in ("epoch", "step", "totals", "history")}
        saved["model"] = state.model.state_dict()
        saved["optimizer"] = state.optimizer.state_dict()
        saved["scheduler"] = {
            key: schedule[key] for key in ("last_epoch", "_step_count", "_last_lr")
        }
        saved["precision"] = state.fabric.strategy.precision.state_dict()  # the scale of 16 bits
        save_state(path, saved)
    state.fabric.barrier()


def load_checkpoint(state: State, path: Path) -> None:
    """Go on from a checkpoint if there is one; raise InputError if it does not fit this run."""
    if not path.exists():
        return
    saved = load_state(path)
    try:
        state.model.load_state_dict(saved["model"])
        kept = {int(i): tensors for i, tensors in saved["optimizer"]["state"].items()}
        state.optimizer.load_state_dict(saved["optimizer"] | {"state": kept})
        state.scheduler.load_state_dict(saved["scheduler"])
        state.fabric.strategy.precision.load_state_dict(saved["precision"])
        for name in ("epoch", "step", "totals", "history"):
            setattr(state, name, saved[name])
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} does not fit this run ({one_line(error)}): delete the run's folder and start "
            "again"
        ) from error
    for parameter, tensors in state.optimizer.state.items():
        for name, value in tensors.items():  # rounding may depend on the layout in memory
            if value.shape == parameter.shape:
                tensors[name] = torch.empty_like(parameter).copy_(value)
